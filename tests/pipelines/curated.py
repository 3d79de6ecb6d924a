"""A small curated set of pairs of one's own, and all that it was made from, for tests."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.jobs import run_job

ANIMALS = ("dog", "cat", "cow", "owl", "fox")
ENTRIES = [*ANIMALS, "photo", "garden", "unicorn"]
#: Images by number, and their texts: the two overlap.
FIRST = [(i, f"a photo of a {ANIMALS[i % 5]} in the green garden, number {i % 40}") for i in range(60)]
SECOND = [(i, f"a photo of a {ANIMALS[i * 2 % 5]} in the green garden, number {i % 40}") for i in range(30, 100)]


def write_inputs(folder: Path) -> None:
    """A ready-made list, and two crawls of own pairs with a column that is carried along."""
    (folder / "lists").mkdir(parents=True)
    (folder / "lists" / "english.json").write_text("[" + ", ".join(f'"{entry}"' for entry in ENTRIES) + "]")
    for name, rows in (("one", FIRST), ("two", SECOND)):
        (folder / name).mkdir()
        for half in (0, 1):
            mine = rows[half::2]
            table = {
                "url": [f"http://host{i % 3}.org/{i}.jpg" for i, _ in mine],
                "text": [text for _, text in mine],
                "rank": [i for i, _ in mine],
            }
            pq.write_table(pa.table(table), folder / name / f"{half}.parquet")


def match(work: Path, output: str, inputs: Path, *more: str) -> None:
    where = ["--input", f"{inputs}/*.parquet", "--entries", f"{work}/entries", "--output", f"{work}/{output}"]
    run_job("match", [*where, "--format", "parquet", "--carry", "rank", *more])


def make_entries(work: Path, inputs: Path) -> None:
    run_job("entries", ["--metadata-json", f"en={inputs}/lists/english.json", "--output", f"{work}/entries"])


def curate(work: Path, matched: list[str], *, count: tuple[str, ...] = (), t: str = "8", seed: str = "3") -> None:
    """From matched to curated."""
    w = str(work)
    pool = ["--matched", *(f"{w}/{name}" for name in matched)]
    run_job("dedup", [*pool, "--output", f"{w}/siblings"])
    both = [*pool, "--siblings", f"{w}/siblings"]
    run_job("count", [*both, "--entries", f"{w}/entries", "--output", f"{w}/counts", *count])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", t, "--output", f"{w}/thresholds.json"])
    run_job("balance", [*both, "--thresholds", f"{w}/thresholds.json", "--seed", seed, "--output", f"{w}/curated"])


def make_set(work: Path, inputs: Path) -> None:
    """The whole chain on the first crawl."""
    make_entries(work, inputs)
    match(work, "matched", inputs / "one")
    curate(work, ["matched"])
