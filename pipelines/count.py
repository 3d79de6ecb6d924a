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
from balancing.left_out import REASONS, LeftOut
from metadata.tally import Tally
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, run
from pipelines.left_out import left_out_at, parameters_of, read_lists, write_lists
from pipelines.options import JobConfig, option
from pipelines.pool import check_siblings, open_pool, read_with_siblings
from pipelines.stage import Stage, Unit, open_stage

ABOUT = """Count the unique pairs that match each entry.

Reads the matched parts and their siblings; writes one file per language, <lang>.parquet, with a count for every entry id.

Images that could not be fetched, or that are not to be in the set, are left out by --alive, --drop-ids and --drop-hosts: count again with
them into another --output, then thresholds and balance as before. Nothing is matched or de-duplicated again, and balance leaves out the
same pairs, since the counts keep the lists. For --alive, an image that nobody tried to fetch is dead: a stage of images is a list of what
is alive where it was made of an unbalanced set (thresholds --t inf).

Both take a host that was down or busy when it was asked for one that is gone. worldclip reasons images says which failures may pass: before
it comes to counting, images --retry-failed asks for those again, better some hours later.

    worldclip count ... --drop-ids 'W/images/failed/*.parquet' --output W/counts-2"""


@dataclass(frozen=True, kw_only=True)
class CountConfig(JobConfig):
    matched: tuple[str, ...] = option("the finished stages of the job match, one or more", metavar="DIR")
    siblings: str = option("the finished stage of the job dedup on the same matched pairs", metavar="DIR")
    entries: str = option("the finished stage of the job entries that the pairs were matched with", metavar="DIR")
    alive: tuple[str, ...] = option(
        "count these images only: Parquet with a column image_id, text with an id a line, or a finished stage of the job images",
        default=(),
        metavar="PATH",
    )
    drop_ids: tuple[str, ...] = option("leave these images out: files as for --alive", default=(), metavar="PATH")
    drop_hosts: tuple[str, ...] = option(
        "leave out the images of these hosts and their subdomains: files of host names, one a line", default=(), metavar="FILE"
    )


def count_unit(unit: Unit, *, stage: Stage, siblings_url: str) -> Iterator[tuple[tuple[str, int], Block]]:
    """The counts of one matched part: ((lang, block number), block)."""
    left_out = left_out_at(stage.url, stage.parameters)
    columns = ["lang", "entries", *left_out.columns]
    matched, siblings = read_with_siblings(unit, siblings_url, columns=columns, siblings_columns=["keep"])
    try:
        yield from count_part(matched, siblings["keep"].to_numpy(), left_out.reasons(matched))
    except ValueError as error:
        raise JobError(f"{unit.url}: {error}: the part is damaged; delete it and run match again") from error


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
        try:
            counts = dense_counts(((n, b) for n, b in blocks if n >= 0), unit.size)
        except ValueError as error:
            raise JobError(f"{unit.name}: {error}, with which these pairs were not matched: match again") from error
        table = pa.Table.from_arrays([pa.array(np.arange(len(counts), dtype=np.int32)), pa.array(counts)], schema=COUNTS_SCHEMA)
        stage.write_part(unit, table, books_of(blocks))
    return 1


def books_of(blocks: Iterable[tuple[int, Block]]) -> Tally:
    """The account of a language: its unique pairs, those that are counted and those that are left out."""
    tally = Tally()
    for number, (whys, pairs) in blocks:
        for why, n in zip(whys.tolist(), pairs.tolist(), strict=True) if number < 0 else ():
            tally.read += n
            if why:
                tally.drop(REASONS[why - 1], n)
            else:
                tally.emitted += n
    return tally


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
        | "CountPart" >> beam.FlatMap(count_unit, stage=stage, siblings_url=config.siblings)
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


def main(config: CountConfig, beam_args: Sequence[str], *, left_out: LeftOut | None = None) -> None:
    """``left_out``: what to leave out, where it is not to be read from the lists of the config."""
    pool, siblings, entries = open_pool(config.matched), open_stage(config.siblings, "dedup"), open_stage(config.entries, "entries")
    check_siblings(pool, siblings)
    if pool.entries != entries.id:
        raise JobError(f"{pool} was matched with entries {pool.entries}, but {entries.url} is {entries.id}")
    left_out = left_out or read_lists(alive=config.alive, drop_ids=config.drop_ids, drop_hosts=config.drop_hosts)
    stage = Stage(
        url=config.output,
        kind="count",
        parameters=parameters_of(left_out),
        upstream={"match": pool.id, "dedup": siblings.id, "entries": entries.id},
        limits=config.limits,
    )
    units = [Unit(name=p["name"].removesuffix(".parquet"), path=p["name"], size=p["rows"]) for p in entries.parts]
    if stage.begin(units):
        write_lists(left_out, stage)
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
