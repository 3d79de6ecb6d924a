"""dedup: which copy of each pair lives, and how an image's texts are numbered. Shuffles records of 28 bytes, never pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np

from balancing.counts import rows_by_language
from balancing.siblings import RECORD, range_of, siblings_table, verdicts_by_part
from metadata.tally import Tally
from pipelines.graph import Begin, FinishStage, run
from pipelines.options import JobConfig, option
from pipelines.stage import Stage, Unit, open_stage, read_part

ABOUT = """De-duplicate the matched pairs across the whole pool.

Writes a sidecar, one part per matched part with the same rows: whether the row is the copy of its pair that lives, its rank among the
image's texts, and how many texts the image has per language. The matched parts stay as they are."""

#: Records of one range of images: about 110 MB. A pool of n pairs has n / RANGE_RECORDS ranges.
RANGE_RECORDS = 4_000_000

_Verdicts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class DedupConfig(JobConfig):
    matched: str = option("the finished stage of the job match", metavar="DIR")


def records_of_part(unit: Unit, *, languages: Sequence[str], ranges: int) -> Iterator[tuple[int, bytes]]:
    """The records of a matched part, cut by range of image keys: (range, RECORD bytes)."""
    table = read_part(unit.url, columns=["lang", "image_key", "pair_key"])
    records = np.empty(len(table), dtype=RECORD)
    records["image_key"] = table["image_key"].to_numpy()
    records["pair_key"] = table["pair_key"].to_numpy()
    records["part"] = unit.index
    records["row"] = np.arange(len(table))
    for lang, first, end in rows_by_language(table):
        records["lang"][first:end] = languages.index(lang)
    numbers = range_of(records["image_key"], ranges)
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(ranges + 1))
    for number in np.flatnonzero(np.diff(edges)).tolist():
        yield number, records[order[edges[number] : edges[number + 1]]].tobytes()


def resolve_range(element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, _Verdicts]]:
    """The verdicts on one range: (index of the matched part, verdicts)."""
    _, chunks = element
    yield from verdicts_by_part(np.frombuffer(b"".join(chunks), dtype=RECORD)).items()


def by_index(unit: Unit) -> tuple[int, Unit]:
    return unit.index, unit


def write_siblings(element: tuple[int, dict[str, Any]], *, stage: Stage, languages: Sequence[str]) -> int:
    """Write the part of one matched part, unless it is there; 1, so that the parts can be counted."""
    _, joined = element
    (unit,) = joined["unit"]
    if not stage.has_part(unit):
        rows = len(read_part(unit.url, columns=["pair_key"]))
        table = siblings_table(rows, list(joined["verdicts"]), languages)
        tally = Tally(read=rows, emitted=int(np.count_nonzero(table["keep"].to_numpy())))
        tally.drop("duplicate", rows - tally.emitted)
        stage.write_part(unit, table, tally)
    return 1


def build(pipeline: beam.Pipeline, stage: Stage, ranges: int, languages: Sequence[str]) -> None:
    units = pipeline | "Begin" >> Begin() | "ReadUnits" >> beam.FlatMap(all_units, stage) | "SpreadUnits" >> beam.Reshuffle()
    verdicts = (
        units
        | "CutIntoRanges" >> beam.FlatMap(records_of_part, languages=languages, ranges=ranges)
        | "GatherRanges" >> beam.GroupByKey()
        | "ResolveRange" >> beam.FlatMap(resolve_range)
    )
    _ = (
        {"unit": units | "KeyUnits" >> beam.Map(by_index), "verdicts": verdicts}
        | "GatherParts" >> beam.CoGroupByKey()
        | "WriteSiblings" >> beam.Map(write_siblings, stage=stage, languages=languages)
        | "CountParts" >> beam.CombineGlobally(sum)
        | "FinishSiblings" >> FinishStage(stage)
    )


def all_units(_: Any, stage: Stage) -> list[Unit]:
    return stage.units()


def main(config: DedupConfig, beam_args: Sequence[str]) -> None:
    matched = open_stage(config.matched, "match")
    stage = Stage(url=config.output, kind="dedup", parameters={}, upstream={"match": matched.id}, limits=config.limits)
    if stage.begin(matched.units()):
        ranges = max(1, -(-matched.manifest["rows"] // RANGE_RECORDS))
        graph = partial(build, stage=stage, ranges=ranges, languages=matched.parameters["languages"])
        run(graph, [stage], beam_args=beam_args, workers=config.workers)
