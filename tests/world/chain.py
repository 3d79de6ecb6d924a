"""A generated world and an undisturbed run of its chain: what every test of whole jobs, deaths and engines starts from."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.chain import OUTPUTS
from pipelines.jobs import run_job
from tests.world.generate import World, generate
from tests.world.server import serve

#: Jobs of the chain up to the images, in order, with where their output goes.
PLACES = {job: place for job, place in OUTPUTS.items() if job != "train"}


def arguments(job: str, world: World, work: pathlib.Path) -> list[str]:
    """The command line of a job of the chain in a work directory."""
    w = str(work)
    inputs = {
        "ngrams": ["--input", f"{world.dumps}/*.xml.bz2"],
        "titles": ["--input", f"{world.pageviews}/*.gz", "--max-bad-records", "5%"],
        "wordnet": ["--input", str(world.nltk_data)],
        "entries": ["--ngrams", f"{w}/ngrams", "--titles", f"{w}/titles", "--wordnet", f"{w}/wordnet"],
        "match": ["--input", f"{world.crawl}/*.gz", "--entries", f"{w}/entries"],
        "dedup": ["--matched", f"{w}/matched"],
        "count": ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings", "--entries", f"{w}/entries"],
        "thresholds": ["--counts", f"{w}/counts", "--t-en", "5"],
        "balance": ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings", "--thresholds", f"{w}/thresholds.json", "--seed", "1"],
        "images": ["--curated", f"{w}/curated", "--allow-private", "--retries", "0", "--images-per-part", "20"],
    }
    return [*inputs[job], "--output", f"{w}/{PLACES[job]}"]


def run_chain(world: World, work: pathlib.Path, *, jobs: tuple[str, ...] = tuple(PLACES), more: tuple[str, ...] = ()) -> None:
    for job in jobs:
        run_job(job, [*arguments(job, world, work), *(more if job != "thresholds" else ())])


def contents(directory: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file of a stage by its path. Unit files hold where the inputs lay and when they were made, so they are left out."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != "units.parquet")
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A world, and the work directory of an undisturbed run of its chain."""

    world: World
    work: pathlib.Path

    def copy_of(self, target: pathlib.Path, *, without: str) -> pathlib.Path:
        """A copy of the work directory with nothing of one job."""
        shutil.copytree(self.work, target, ignore=lambda directory, names: [PLACES[without]] if directory == str(self.work) else [])
        return target


@contextmanager
def make_chain(root: pathlib.Path) -> Iterator[Chain]:
    """A small world below ``root`` whose pictures are served while the block runs, and its chain."""
    with serve(root / "world" / "images") as server:
        world = generate(root / "world", pages=12, images=80, base_url=server.base_url, test_images=1)
        run_chain(world, root / "W")
        yield Chain(world=world, work=root / "W")
