"""Passes over matched pairs and siblings that say how many can be expected to be kept at some thresholds. A pass is a map over the parts
with a small sum, and a stage of its own, so that a search that was interrupted goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from balancing.expectation import SCALE
from metadata.tally import Tally
from pipelines import storage
from pipelines.expectation import Counted, Expected, expected_of_unit
from pipelines.graph import Begin, FinishStage, run
from pipelines.part import read_part
from pipelines.pool import open_pool
from pipelines.stage import Stage, Unit

#: One row per language: pairs that count, and per threshold the expected number kept in units of 1 / SCALE.
SCHEMA = pa.schema(
    [
        pa.field("lang", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("kept", pa.list_(pa.int64()), nullable=False),
    ]
)


def add_arrays(arrays: Iterable[np.ndarray]) -> np.ndarray | int:
    """The sum of integer arrays, in whatever order they come."""
    return sum(arrays, start=0)


def write_sums(sums: Sequence[tuple[str, np.ndarray]], *, stage: Stage) -> int:
    """Write what a pass found: the one part of its stage."""
    (unit,) = stage.units()
    rows = [{"lang": lang, "pairs": int(of[0]), "kept": of[1:].tolist()} for lang, of in sorted(sums, key=lambda item: item[0])]
    pairs = sum(row["pairs"] for row in rows)
    stage.write_part(unit, pa.Table.from_pylist(rows, schema=SCHEMA), Tally(read=pairs, emitted=pairs))
    return 1


def units_of_pass(_: Any, matched: Sequence[str], places: Sequence[int] | None) -> list[Unit]:
    """The matched parts at these places of the pool, or all."""
    units = open_pool(matched).units()
    return units if places is None else [units[place] for place in places]


def build(pipeline: beam.Pipeline, stage: Stage, counted: Counted, places: Sequence[int] | None) -> None:
    t = {lang: np.array(ts, dtype=np.float64) for lang, ts in stage.parameters["t"].items()}
    _ = (
        pipeline
        | "Begin" >> Begin()
        | "ReadParts" >> beam.FlatMap(units_of_pass, [stage.url for stage in counted.pool.stages], places)
        | "SpreadParts" >> beam.Reshuffle()
        | "ExpectOfPart" >> beam.FlatMap(expected_of_unit, counted.place, t=t)
        | "AddUp" >> beam.CombinePerKey(add_arrays)
        | "GatherLanguages" >> beam.combiners.ToList()
        | "WriteSums" >> beam.Map(write_sums, stage=stage)
        | "FinishPass" >> FinishStage(stage)
    )


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Makes passes. Their stages lie in ``directory``, named by what they were made of; one that is there is not made again."""

    directory: str
    beam_args: Sequence[str]
    workers: int

    def __call__(self, counted: Counted, units: Sequence[Unit], t: Mapping[str, Sequence[float]]) -> Expected:
        """What can be expected of some of the matched parts. ``t``: thresholds per language, ascending."""
        places = [unit.index for unit in units]
        every = len(places) == len(counted.pool.units())
        upstream = {"match": counted.pool.id, "dedup": counted.siblings.id, "count": counted.counts.id}
        parameters = {"t": {lang: list(ts) for lang, ts in t.items()}, "parts": "all" if every else places}
        named = Stage(url="", kind="expectation", parameters=parameters, upstream=upstream)
        stage = replace(named, url=storage.join(self.directory, named.fingerprint[:16]))
        if stage.begin([Unit(name="all", path="all")]):
            looked_at = f"{max(map(len, t.values()), default=0)} thresholds a language"
            print(f"thresholds: a pass over {len(places):,} matched parts, {looked_at}", file=sys.stderr, flush=True)
            work = partial(build, stage=stage, counted=counted, places=None if every else places)
            run(work, [stage], beam_args=self.beam_args, workers=self.workers)
        rows = read_part(stage.part_url(stage.units()[0])).to_pylist()
        kept = {row["lang"]: dict(zip(t[row["lang"]], (n / SCALE for n in row["kept"]), strict=True)) for row in rows}
        return Expected(pairs={row["lang"]: row["pairs"] for row in rows}, kept=kept)
