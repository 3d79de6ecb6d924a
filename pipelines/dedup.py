"""dedup: which copy of each pair lives, and how an image's texts are numbered. Shuffles records of 28 bytes, never pairs.

Where the runner keeps what it shuffles in memory, the images are taken in several passes: each leaves its verdicts in a stage of its own
below the output, and the last step puts them together. The result is the same bytes for any number of passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from balancing.counts import rows_by_language
from balancing.siblings import RECORD, range_of, siblings_table, verdicts_by_part
from metadata.tally import Tally
from pipelines.graph import Begin, FinishStage, ProcessUnits, is_embedded, run
from pipelines.options import JobConfig, option, positive
from pipelines.part import read_part
from pipelines.pool import open_pool
from pipelines.stage import Stage, Unit

ABOUT = """De-duplicate the matched pairs across the whole pool.

Writes a sidecar, one part per matched part with the same rows: whether the row is the copy of its pair that lives, its rank among the
image's texts, and how many texts the image has per language. The matched parts stay as they are."""

#: Records of one range of images: about 110 MB. A pool of n pairs has n / RANGE_RECORDS ranges.
RANGE_RECORDS = 4_000_000
#: Records of a pass on the embedded runner, which holds 5 to 8 times their size: about 5 GB.
PASS_RECORDS = 24_000_000

_Verdicts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class DedupConfig(JobConfig):
    matched: tuple[str, ...] = option("the finished stages of the job match, one or more: several are one pool", metavar="DIR")
    passes: int | None = option(
        "take the images in so many passes, for less memory (default: enough for 5 GB on the embedded runner, 1 on others)",
        default=None,
        parse=positive,
        metavar="N",
    )


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How the images are cut: into ``ranges`` of their keys, of which one pass takes every ``passes``-th, from ``turn`` on."""

    ranges: int
    passes: int = 1
    turn: int = 0

    def takes(self, ranges: np.ndarray) -> np.ndarray:
        """Whether the pass takes each of these ranges."""
        return ranges % self.passes == self.turn


def records_of_part(unit: Unit, *, languages: Sequence[str], cut: Cut) -> Iterator[tuple[int, bytes]]:
    """The records of a matched part that a pass takes, cut by range of image keys: (range, RECORD bytes)."""
    table = read_part(unit.url, columns=["lang", "image_key", "pair_key"])
    records = np.empty(len(table), dtype=RECORD)
    records["image_key"] = table["image_key"].to_numpy()
    records["pair_key"] = table["pair_key"].to_numpy()
    records["part"] = unit.index
    records["row"] = np.arange(len(table))
    for lang, first, end in rows_by_language(table):
        records["lang"][first:end] = languages.index(lang)
    numbers = range_of(records["image_key"], cut.ranges)
    if cut.passes > 1:
        mine = cut.takes(numbers)
        records, numbers = records[mine], numbers[mine]
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(cut.ranges + 1))
    for number in np.flatnonzero(np.diff(edges)).tolist():
        yield number, records[order[edges[number] : edges[number + 1]]].tobytes()


def resolve_range(element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, _Verdicts]]:
    """The verdicts on one range: (index of the matched part, verdicts)."""
    _, chunks = element
    yield from verdicts_by_part(np.frombuffer(b"".join(chunks), dtype=RECORD)).items()


def by_index(unit: Unit) -> tuple[int, Unit]:
    return unit.index, unit


def write_siblings(element: tuple[int, dict[str, Any]], *, stage: Stage, languages: Sequence[str], cut: Cut) -> int:
    """Write the part of one matched part, unless it is there; 1, so that the parts can be counted."""
    _, joined = element
    (unit,) = joined["unit"]
    if not stage.has_part(unit):
        taken = cut.takes(ranges_of_part(unit, cut))
        table = siblings_table(len(taken), list(joined["verdicts"]), languages)
        write_part(stage, unit, table, rows=int(np.count_nonzero(taken)))
    return 1


def ranges_of_part(unit: Unit, cut: Cut) -> np.ndarray:
    """The range of each row of a matched part."""
    return range_of(read_part(unit.url, columns=["image_key"])["image_key"].to_numpy(), cut.ranges)


def write_part(stage: Stage, unit: Unit, table: pa.Table, *, rows: int) -> None:
    """Write siblings; ``rows`` is how many of them were decided."""
    tally = Tally(read=rows, emitted=int(np.count_nonzero(table["keep"].to_numpy())))
    tally.drop("duplicate", rows - tally.emitted)
    stage.write_part(unit, table, tally)


def join_passes(unit: Unit, *, stage: Stage, passes: Sequence[Stage], cut: Cut) -> None:
    """Write the siblings of one matched part: each row from the pass that took its image."""
    turns = ranges_of_part(unit, cut) % len(passes)
    decided = pa.concat_tables([read_part(done.part_url(unit)) for done in passes])
    write_part(stage, unit, decided.take(pa.array(turns * len(turns) + np.arange(len(turns)))).combine_chunks(), rows=len(turns))


def build(pipeline: beam.Pipeline, stage: Stage, cut: Cut, languages: Sequence[str]) -> None:
    units = pipeline | "Begin" >> Begin() | "ReadUnits" >> beam.FlatMap(all_units, stage) | "SpreadUnits" >> beam.Reshuffle()
    verdicts = (
        units
        | "CutIntoRanges" >> beam.FlatMap(records_of_part, languages=languages, cut=cut)
        | "GatherRanges" >> beam.GroupByKey()
        | "ResolveRange" >> beam.FlatMap(resolve_range)
    )
    _ = (
        {"unit": units | "KeyUnits" >> beam.Map(by_index), "verdicts": verdicts}
        | "GatherParts" >> beam.CoGroupByKey()
        | "WriteSiblings" >> beam.Map(write_siblings, stage=stage, languages=languages, cut=cut)
        | "CountParts" >> beam.CombineGlobally(sum)
        | "FinishSiblings" >> FinishStage(stage)
    )


def all_units(_: Any, stage: Stage) -> list[Unit]:
    return stage.units()


def build_join(pipeline: beam.Pipeline, stage: Stage, passes: Sequence[Stage], cut: Cut) -> None:
    work = partial(join_passes, stage=stage, passes=passes, cut=cut)
    _ = pipeline | "Begin" >> Begin() | "JoinPasses" >> ProcessUnits(stage, work) | "FinishSiblings" >> FinishStage(stage)


def main(config: DedupConfig, beam_args: Sequence[str]) -> None:
    pool = open_pool(config.matched)
    stage = Stage(url=config.output, kind="dedup", parameters={}, upstream={"match": pool.id}, limits=config.limits)
    if not stage.begin(pool.units()):
        return
    cut = Cut(ranges=max(1, -(-pool.rows // RANGE_RECORDS)))
    passes = config.passes or (max(1, -(-pool.rows // PASS_RECORDS)) if is_embedded(beam_args) else 1)
    go = partial(run, beam_args=beam_args, workers=config.workers)
    if passes == 1:
        go(partial(build, stage=stage, cut=cut, languages=pool.languages), [stage])
        return
    # As many ranges for each pass, so that none has more to hold than another.
    cut = replace(cut, ranges=-(-cut.ranges // passes) * passes, passes=passes)
    done = []
    for turn in range(passes):
        about = {"passes": passes, "turn": turn}
        one = Stage(url=stage.at("passes", str(turn)), kind="dedup_pass", parameters=about, upstream=stage.upstream, limits=config.limits)
        if one.begin(pool.units()):
            go(partial(build, stage=one, cut=replace(cut, turn=turn), languages=pool.languages), [one])
        done.append(one)
    go(partial(build_join, stage=stage, passes=done, cut=cut), [stage])
