"""titles: hourly page-view files → titles with their views, per language. ``blocks/`` a part per file, then merged by run of key ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import apache_beam as beam

from metadata.tally import Tally
from metadata.titles import RANGES, TITLES_VERSION, VIEWS_SCHEMA, count_views, merge_views
from pipelines import storage
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.options import JobConfig, option
from pipelines.part import read_part
from pipelines.stage import Stage, Unit, digest, units_of_files

ABOUT = """Sum the page views of Wikipedia titles.

Reads hourly page-view files (lines: domain title views bytes; .gz, .bz2 or plain). Only the desktop and mobile sites of Wikipedias
count."""

#: Compressed bytes of page views that a run of key ranges stands for.
MERGE_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class TitlesConfig(JobConfig):
    input: tuple[str, ...] = option("page-view files, globs or URLs", metavar="PATH")


def count_file(unit: Unit, *, stage: Stage) -> None:
    """Sum one page-view file and write its blocks."""
    tally = Tally()
    with stage.part(unit, VIEWS_SCHEMA, tally) as writer, storage.open_hashing(unit.url) as (file, reader):
        for block in count_views(file, tally=tally):
            writer.write(block)
        writer.input_sha256 = reader.hexdigest()


def merge_units(files: Sequence[Unit]) -> list[Unit]:
    """A unit per run of key ranges, over all languages: ``index`` of ``length`` runs."""
    runs = min(RANGES, -(-sum(u.size for u in files) // MERGE_BYTES) or 1)
    etag = digest([[u.name, u.size, u.etag] for u in files])
    return [Unit(name=f"{i:02}", path=f"range {i}", etag=etag, index=i, length=runs) for i in range(runs)]


def merge_run(unit: Unit, *, stage: Stage, blocks: Stage) -> None:
    first, end = unit.index * RANGES // unit.length, (unit.index + 1) * RANGES // unit.length
    here = [("range", ">=", first), ("range", "<", end)]
    stage.write_part(unit, merge_views(read_part(blocks.part_url(u), filters=here) for u in blocks.units()), Tally())


def build(pipeline: beam.Pipeline, blocks: Stage, stage: Stage) -> None:
    _ = (
        pipeline
        | "Begin" >> Begin()
        | "CountFiles" >> ProcessUnits(blocks, partial(count_file, stage=blocks))
        | "FinishBlocks" >> FinishStage(blocks)
        | "MergeRanges" >> ProcessUnits(stage, partial(merge_run, stage=stage, blocks=blocks))
        | "FinishTitles" >> FinishStage(stage)
    )


def main(config: TitlesConfig, beam_args: Sequence[str]) -> None:
    parameters = {"versions": {"titles": TITLES_VERSION}}
    blocks = Stage(url=storage.join(config.output, "blocks"), kind="title_blocks", parameters=parameters, limits=config.limits)
    stage = Stage(url=config.output, kind="titles", parameters=parameters, limits=config.limits)
    files = units_of_files(storage.expand(config.input))
    begun = blocks.begin(files)
    if stage.begin(merge_units(files), derived=True) or begun:
        run(partial(build, blocks=blocks, stage=stage), [blocks, stage], beam_args=beam_args, workers=config.workers)
