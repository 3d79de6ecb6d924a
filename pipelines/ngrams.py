"""ngrams: Wikipedia dumps → unigrams and bigrams with their counts, per language.

Two stages, one behind the other. ``blocks/``: a part per dump, its counts cut by key range. Then the ranges are merged, a part per
language, n and run of ranges. What would be a shuffle are files: a dump that was counted stays counted, and no worker holds more than one
run of ranges (and, for bigrams, the language's unigrams).
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from metadata.languages import language, language_of_dbname
from metadata.ngrams import BLOCK_SCHEMA, NGRAM_SCHEMA, NGRAMS_VERSION, RANGES, count_ngrams, merge_blocks, min_bigram_count, with_ratio
from metadata.segment import SEGMENT_VERSION
from metadata.tally import Tally
from metadata.text import TEXT_VERSION
from metadata.wikitext import WIKITEXT_VERSION, DumpError, plain_text, read_pages, read_site
from pipelines import storage
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.options import JobConfig, option, positive
from pipelines.stage import Stage, Unit, digest, read_part, units_of_files

ABOUT = """Count the unigrams and bigrams of Wikipedia dumps.

Reads pages-articles dumps (.xml, .bz2 also multistream, .gz, .xz) of any number of languages; the language is read from the dump itself."""

#: Compressed bytes of dumps that a run of key ranges stands for: a language of this size is merged in one piece.
MERGE_BYTES = 64 << 20

UNIGRAMS, BIGRAMS = "unigrams", "bigrams"


@dataclass(frozen=True, kw_only=True)
class NgramsConfig(JobConfig):
    input: tuple[str, ...] = option("dumps: files, globs or URLs", metavar="PATH")
    min_bigram_count: int | None = option(
        "keep bigrams seen this often (default: grows with the size of the language's text)", default=None, parse=positive, metavar="N"
    )


def wikis_of(url: str) -> tuple[str, str]:
    """The dbname of the Wikipedia that a dump's file name says, and the one that its head says; empty where there is none."""
    named = language_of_dbname(posixpath.basename(url).partition("-")[0])
    try:
        with storage.open_read(url) as f:
            found = language_of_dbname(read_site(f))
    except DumpError:
        found = None
    return named.dbname if named else "", found.dbname if found else ""


def dump_units(files: Sequence[storage.FileInfo]) -> list[Unit]:
    """A unit per dump; ``group`` is the code of its Wikipedia, empty if it cannot be told. Index files of multistream dumps are passed
    over.

    Which Wikipedia it is stands in the dump. Where the file is named as published dumps are (``dewiki-…``) and the dump says something
    else, the name is believed: tools that cut or merge dumps are known to leave the head of another one in place.
    """
    units, differing = [], []
    dumps = [f for f in files if "-multistream-index.txt" not in f.url]
    for unit in units_of_files(dumps):
        named, found = wikis_of(unit.url)
        if named and found and named != found:
            differing.append(f"{unit.path} says {found}")
        wiki = language_of_dbname(named or found)
        units.append(replace(unit, group=wiki.code if wiki else ""))
    if differing:
        many = f"ngrams: {len(differing)} of {len(units)} dumps say another wiki than their name (the first: {differing[0]})"
        print(f"{many}: the name is believed", file=sys.stderr)
    return units


def count_dump(unit: Unit, *, stage: Stage) -> None:
    """Count one dump and write its blocks."""
    tally = Tally()
    with stage.part(unit, BLOCK_SCHEMA, tally) as writer, storage.open_hashing(unit.url) as (file, reader):
        for block in blocks_of_dump(file, unit.group, tally=tally):
            writer.write(block)
        writer.input_sha256 = reader.hexdigest()


def blocks_of_dump(file: storage.BinaryIO, wiki: str, *, tally: Tally) -> Iterator[pa.Table]:
    """The counts of one open dump of that Wikipedia."""
    if not wiki:
        try:
            detail = f"{read_site(file)} is no Wikipedia that the language table knows"
        except DumpError as error:
            detail = str(error)
        tally.damaged("unknown_wiki", place=0, detail=detail)
        return
    written = language(wiki)
    texts = (plain_text(page.text) for page in read_pages(file, tally=tally))
    yield from count_ngrams(texts, spaced=written.spaced, segmenter=written.segmenter)


def merge_units(dumps: Sequence[Unit]) -> list[Unit]:
    """A unit per language, n and run of key ranges: ``path`` is the language, ``index`` of ``length`` runs, ``etag`` changes with its
    dumps."""
    units = []
    for wiki in sorted({u.group for u in dumps} - {""}):
        mine = [u for u in dumps if u.group == wiki]
        runs = min(RANGES, -(-sum(u.size for u in mine) // MERGE_BYTES) or 1)
        etag = digest([[u.name, u.size, u.etag] for u in mine])
        for group in (UNIGRAMS, BIGRAMS):
            names = [f"{wiki}-{group}-{i:02}" for i in range(runs)]
            units += [Unit(name=n, path=wiki, etag=etag, group=group, index=i, length=runs) for i, n in enumerate(names)]
    return units


def merged_run(unit: Unit, blocks: Stage) -> pa.Table:
    """The summed counts of one run of key ranges over all dumps of its language: BLOCK_SCHEMA."""
    first, end = unit.index * RANGES // unit.length, (unit.index + 1) * RANGES // unit.length
    here = [("n", "==", 1 if unit.group == UNIGRAMS else 2), ("range", ">=", first), ("range", "<", end)]
    dumps = [u for u in blocks.units() if u.group == unit.path]
    return merge_blocks(read_part(blocks.part_url(u), filters=here) for u in dumps)


def write_ngrams(stage: Stage, unit: Unit, table: pa.Table) -> None:
    """Write a part; its rows say of which language and which n they are."""
    lang = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int8()), pa.array([unit.path]))
    n = pa.array([1 if unit.group == UNIGRAMS else 2] * len(table), pa.int8())
    stage.write_part(unit, table.add_column(0, "n", n).add_column(0, "lang", lang), Tally())


def merge_unigrams(unit: Unit, *, stage: Stage, blocks: Stage) -> None:
    table = merged_run(unit, blocks)
    write_ngrams(stage, unit, pa.table([table["gram"], table["count"], pa.nulls(len(table), pa.float64())], schema=NGRAM_SCHEMA))


@lru_cache(maxsize=1)
def unigrams_of(urls: tuple[str, ...], etag: str) -> pa.Table:
    """The unigrams of a language from all its parts, the last one's held by the process; ``etag`` changes with the dumps."""
    return pa.concat_tables(read_part(url, columns=NGRAM_SCHEMA.names) for url in urls)


def merge_bigrams(unit: Unit, *, stage: Stage, blocks: Stage, min_count: int | None) -> None:
    unigrams = unigrams_of(tuple(stage.part_url(u) for u in stage.units() if u.group == UNIGRAMS and u.path == unit.path), unit.etag)
    least = min_count or min_bigram_count(pc.sum(unigrams["count"]).as_py() or 0)
    table = with_ratio(merged_run(unit, blocks), unigrams, spaced=language(unit.path).spaced, min_count=least)
    write_ngrams(stage, unit, table)


def build(pipeline: beam.Pipeline, blocks: Stage, stage: Stage, config: NgramsConfig) -> None:
    bigrams = partial(merge_bigrams, stage=stage, blocks=blocks, min_count=config.min_bigram_count)
    _ = (
        pipeline
        | "Begin" >> Begin()
        | "CountDumps" >> ProcessUnits(blocks, partial(count_dump, stage=blocks))
        | "FinishBlocks" >> FinishStage(blocks)
        | "MergeUnigrams" >> ProcessUnits(stage, partial(merge_unigrams, stage=stage, blocks=blocks), group=UNIGRAMS)
        | "MergeBigrams" >> ProcessUnits(stage, bigrams, group=BIGRAMS)
        | "FinishNgrams" >> FinishStage(stage)
    )


def main(config: NgramsConfig, beam_args: Sequence[str]) -> None:
    versions = {"ngrams": NGRAMS_VERSION, "segment": SEGMENT_VERSION, "text": TEXT_VERSION, "wikitext": WIKITEXT_VERSION}
    blocks = Stage(url=storage.join(config.output, "blocks"), kind="ngram_blocks", parameters={"versions": versions}, limits=config.limits)
    stage = Stage(
        url=config.output,
        kind="ngrams",
        parameters={"versions": versions, "min_bigram_count": config.min_bigram_count},
        limits=config.limits,
    )
    dumps = dump_units(storage.expand(config.input))
    if not dumps:
        raise JobError(f"--input {' '.join(config.input)}: no dump among them, only index files")
    begun = blocks.begin(dumps)
    if stage.begin(merge_units(dumps), derived=True) or begun:
        run(partial(build, blocks=blocks, stage=stage, config=config), [blocks, stage], beam_args=beam_args, workers=config.workers)
