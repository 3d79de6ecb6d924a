"""The experiment of the demo and of ``make toy``: the same chain once balanced and once not, a model trained on each, both tested.

What is fixed before the first training: class frequencies are Zipf with exponent 1.2, the test set is uniform over the classes and drawn
with a seed of its own, and a class belongs to the head if one of its English entries has a count over t.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.jobs import run_job
from pipelines.part import read_part
from pipelines.stage import open_stage
from tests.world.generate import World

#: Threshold for English, by which the set is balanced and by which head and tail are told apart.
T_EN = 20
#: The languages in which the models are tested.
TESTED = ("en", "fr")


@dataclass
class Clock:
    """Seconds per named step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)


def run_curation(world: World, work: Path, clock: Clock) -> None:
    """From dumps and crawl files to counts and thresholds, balanced (thresholds.json) and not (unbalanced/thresholds.json)."""
    w = str(work)

    def job(name: str, *argv: str) -> None:
        with clock(name):
            run_job(name, argv)

    job("ngrams", "--input", f"{world.dumps}/*.xml.bz2", "--output", f"{w}/ngrams")
    job("titles", "--input", f"{world.pageviews}/*.gz", "--output", f"{w}/titles")
    job("wordnet", "--input", str(world.nltk_data), "--output", f"{w}/wordnet")
    sources = ["--ngrams", f"{w}/ngrams", "--titles", f"{w}/titles", "--wordnet", f"{w}/wordnet"]
    job("entries", *sources, "--output", f"{w}/entries")
    job("match", "--input", f"{world.crawl}/*.gz", "--entries", f"{w}/entries", "--output", f"{w}/matched")
    job("dedup", "--matched", f"{w}/matched", "--output", f"{w}/siblings")
    job("count", "--matched", f"{w}/matched", "--siblings", f"{w}/siblings", "--entries", f"{w}/entries", "--output", f"{w}/counts")
    job("thresholds", "--counts", f"{w}/counts", "--t-en", str(T_EN), "--output", f"{w}/thresholds.json")
    job("thresholds", "--counts", f"{w}/counts", "--t", "inf", "--output", f"{w}/unbalanced/thresholds.json")


def draw_set(work: Path, thresholds: str, place: Path, *, seed: int, clock: Clock, online: bool = False) -> None:
    """Draw a set by those thresholds, or keep all that a trainer can draw from ``online``, and fetch its images: ``place``/curated and
    ``place``/images."""
    read = ["--matched", f"{work}/matched", "--siblings", f"{work}/siblings", "--thresholds", f"{work}/{thresholds}"]
    with clock("balance"):
        run_job("balance", [*read, "--seed", str(seed), *(["--keep-siblings"] if online else []), "--output", f"{place}/curated"])
    with clock("images"):
        run_job("images", ["--curated", f"{place}/curated", "--allow-private", "--per-host", "32", "--output", f"{place}/images"])


def train_all(places: Sequence[Path], *, config: str, steps: int, seed: int, clock: Clock, online: Sequence[Path] = ()) -> None:
    """Train a model on each set, side by side, with the same number of samples seen; ``place``/model. ``online``: those that are drawn from
    in each epoch."""
    with clock("train"):
        running = []
        for place in places:
            overrides = [f"train.steps={steps}", f"train.seed={seed}"]
            overrides += ["data.curation=online", f"data.curation_seed={seed}"] if place in online else []
            command = [sys.executable, "-m", "train", "--config", config, "--data", f"{place}/images", "--output", f"{place}/model"]
            log = open(place / "train.log", "wb")  # noqa: SIM115  closed with the process
            command += [x for override in overrides for x in ("--set", override)]
            running.append((place, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT), log))
        for place, process, log in running:
            code = process.wait()
            log.close()
            if code:
                raise RuntimeError(f"training in {place} ended with exit code {code}:\n{(place / 'train.log').read_text()[-2000:]}")


def head_classes(world: World, work: Path) -> np.ndarray:
    """Whether each class belongs to the head: the largest count of the English entries that name it is over t. Boolean, (classes,)."""
    classes = json.loads((world.test / "classes.json").read_text())
    entries = read_part(f"{work}/entries/en.parquet", columns=["entry"])["entry"].to_pylist()
    counts = read_part(f"{work}/counts/en.parquet", columns=["count"])["count"].to_numpy()
    count_of = dict(zip(entries, counts.tolist(), strict=True))
    return np.array([max((count_of.get(e, 0) for e in c["entries"]["en"]), default=0) > T_EN for c in classes])


def test_accuracy(world: World, place: Path, head: np.ndarray, clock: Clock) -> dict[str, dict[str, float]]:
    """Zero-shot accuracy of a trained model per tested language, over all classes and over those of head and tail."""
    with clock("evaluate"):
        result = place / "accuracy.json"
        task = {"name": "test", "layout": "folders", "images": str(world.test), "names": str(world.test / "prompts.json")}
        lines = [f"{key} = {json.dumps(value)}" for key, value in {**task, "languages": TESTED, "per_class": True}.items()]
        (place / "tasks.toml").write_text("\n".join(["[[evaluate.tasks]]", *lines, ""]), encoding="utf-8")
        run_job("evaluate", ["--model", f"{place}/model", "--task", f"{place}/tasks.toml", "--output", str(result)])
    found = json.loads(result.read_text())["test"]
    per_class = {lang: np.array(found[lang]["per_class"], dtype=float) for lang in TESTED}
    return {
        lang: {"all": round(float(a.mean()), 4), "head": round(float(a[head].mean()), 4), "tail": round(float(a[~head].mean()), 4)}
        for lang, a in per_class.items()
    }


def figures(work: Path, sets: Mapping[str, Path]) -> dict[str, Any]:
    """What went in and what came out, from the manifests."""
    matched, siblings, entries = (
        open_stage(f"{work}/{d}", k) for d, k in (("matched", "match"), ("siblings", "dedup"), ("entries", "entries"))
    )
    return {
        "entries": {part["name"].removesuffix(".parquet"): part["rows"] for part in entries.parts},
        "pairs": {
            "read": matched.counters["read"],
            "dropped": matched.counters["dropped"],
            "dead_letters": matched.counters["dead_letters"],
            "matched": matched.counters["emitted"],
            "unique": siblings.counters["emitted"],
            "kept": {name: open_stage(f"{place}/curated", "balance").counters["emitted"] for name, place in sets.items()},
        },
        "images": {name: open_stage(f"{place}/images", "images").counters["emitted"] for name, place in sets.items()},
    }
