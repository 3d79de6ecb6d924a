"""count: how many unique pairs match each entry of each language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from balancing.counts import COUNTS_SCHEMA, Block, count_part, dense_counts, sum_blocks
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, run
from pipelines.options import JobConfig, option
from pipelines.pool import check_siblings, open_pool
from pipelines.stage import Stage, Unit, open_stage, read_part

ABOUT = """Count the unique pairs that match each entry.

Reads the matched parts and their siblings; writes one file per language, <lang>.parquet, with a count for every entry id."""


@dataclass(frozen=True, kw_only=True)
class CountConfig(JobConfig):
    matched: tuple[str, ...] = option("the finished stages of the job match, one or more", metavar="DIR")
    siblings: str = option("the finished stage of the job dedup on the same matched pairs", metavar="DIR")
    entries: str = option("the finished stage of the job entries that the pairs were matched with", metavar="DIR")


def count_unit(unit: Unit, *, siblings_url: str) -> Iterator[tuple[tuple[str, int], Block]]:
    """The counts of one matched part: ((lang, block number), block)."""
    matched = read_part(unit.url, columns=["lang", "entries"])
    keep = read_part(storage.join(siblings_url, unit.path), columns=["keep"])["keep"].to_numpy()
    yield from count_part(matched, keep)


def by_language(element: tuple[tuple[str, int], Block]) -> tuple[str, tuple[int, Block]]:
    (lang, number), block = element
    return lang, (number, block)


def by_name(unit: Unit) -> tuple[str, Unit]:
    return unit.name, unit


def write_counts(element: tuple[str, dict[str, Any]], *, stage: Stage) -> int:
    """Write the counts of one language; 1, so that the languages can be counted. Its books: pairs read and counted."""
    _, joined = element
    (unit,) = joined["unit"]
    if not stage.has_part(unit):
        blocks: list[tuple[int, Block]] = list(joined["blocks"])
        pairs = sum(int(counts.sum()) for number, (_, counts) in blocks if number < 0)
        counts = dense_counts(((n, b) for n, b in blocks if n >= 0), unit.size)
        table = pa.Table.from_arrays([pa.array(np.arange(len(counts), dtype=np.int32)), pa.array(counts)], schema=COUNTS_SCHEMA)
        stage.write_part(unit, table, Tally(read=pairs, emitted=pairs))
    return 1


def language_units(_: Any, stage: Stage) -> list[Unit]:
    return stage.units()


def matched_units(_: Any, urls: Sequence[str]) -> Iterable[Unit]:
    return open_pool(urls).units()


def build(pipeline: beam.Pipeline, stage: Stage, config: CountConfig) -> None:
    begin = pipeline | "Begin" >> Begin()
    blocks = (
        begin
        | "ReadParts" >> beam.FlatMap(matched_units, config.matched)
        | "SpreadParts" >> beam.Reshuffle()
        | "CountPart" >> beam.FlatMap(count_unit, siblings_url=config.siblings)
        | "SumBlocks" >> beam.CombinePerKey(sum_blocks)
        | "KeyByLanguage" >> beam.Map(by_language)
    )
    units = begin | "ReadLanguages" >> beam.FlatMap(language_units, stage) | "KeyLanguages" >> beam.Map(by_name)
    _ = (
        {"unit": units, "blocks": blocks}
        | "GatherLanguages" >> beam.CoGroupByKey()
        | "WriteCounts" >> beam.Map(write_counts, stage=stage)
        | "CountLanguages" >> beam.CombineGlobally(sum)
        | "FinishCounts" >> FinishStage(stage)
    )


def main(config: CountConfig, beam_args: Sequence[str]) -> None:
    pool, siblings, entries = open_pool(config.matched), open_stage(config.siblings, "dedup"), open_stage(config.entries, "entries")
    check_siblings(pool, siblings)
    if pool.entries != entries.id:
        raise JobError(f"{pool} was matched with entries {pool.entries}, but {entries.url} is {entries.id}")
    stage = Stage(
        url=config.output,
        kind="count",
        parameters={},
        upstream={"match": pool.id, "dedup": siblings.id, "entries": entries.id},
        limits=config.limits,
    )
    units = [Unit(name=p["name"].removesuffix(".parquet"), path=p["name"], size=p["rows"]) for p in entries.parts]
    if stage.begin(units):
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
