"""ngrams: Wikipedia dumps → unigrams and bigrams with their counts, per language.

Two stages, one behind the other. ``blocks/``: a part per dump or range of a dump, its counts cut by key range. Then the key ranges are
merged, a part per language, n and run of key ranges. What would be a shuffle are files: what was counted stays counted, and a worker holds
one run of key ranges, and of the unigrams those that it needs. Measured with one worker on 200 million tokens with 136 million distinct
bigrams: 0.77 GB at the peak, the program included, and no more than on a tenth of it.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metadata.bzip2 import BZIP2_MAGIC
from metadata.dump import DUMP_VERSION
from metadata.languages import language, language_of_dbname
from metadata.ngrams import (
    BLOCK_SCHEMA,
    NGRAM_SCHEMA,
    NGRAMS_VERSION,
    RANGES,
    count_ngrams,
    merged_tables,
    min_bigram_count,
    with_ratio,
    words_of,
)
from metadata.segment import SEGMENT_VERSION
from metadata.tally import Tally
from metadata.text import TEXT_VERSION
from metadata.wikitext import WIKITEXT_VERSION, DumpError, plain_text, read_pages, read_site
from pipelines import storage
from pipelines.books import damaged_files, first_few
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.options import JobConfig, option, positive
from pipelines.part import ROW_GROUP_ROWS, read_part
from pipelines.stage import Stage, Unit, digest, unit_name, units_of_files

ABOUT = """Count the unigrams and bigrams of Wikipedia dumps.

Reads pages-articles dumps (.xml, .bz2 also multistream, .gz, .xz) of any number of languages; the language is read from the dump itself."""

#: Compressed bytes of a dump that are one unit of work, half a minute of it. The units name the parts, so that they must depend on the
#: dumps alone, never on the number of workers.
UNIT_BYTES = 32 << 20
#: Compressed bytes of dumps that a run of key ranges stands for: a language of this size is merged in one piece.
MERGE_BYTES = 16 << 20

UNIGRAMS, BIGRAMS = "unigrams", "bigrams"
#: Rows of a part: of one language and one n.
PART_SCHEMA = pa.schema([("lang", pa.dictionary(pa.int8(), pa.string())), ("n", pa.int8()), *NGRAM_SCHEMA])


@dataclass(frozen=True, kw_only=True)
class NgramsConfig(JobConfig):
    input: tuple[str, ...] = option("dumps: files, globs or URLs", metavar="PATH")
    min_bigram_count: int | None = option(
        "keep bigrams seen this often (default: grows with the size of the language's text)", default=None, parse=positive, metavar="N"
    )


@dataclass(frozen=True, kw_only=True)
class DumpHead:
    """What is known of a dump before it is read: the dbname of its Wikipedia by its file name and by its head, empty where there is none,
    and what the head says, in words."""

    named: str
    found: str
    says: str
    is_bzip2: bool


def head_of(url: str) -> DumpHead:
    named = language_of_dbname(posixpath.basename(url).partition("-")[0])
    with storage.open_read(url) as f:
        is_bzip2 = f.read(len(BZIP2_MAGIC)) == BZIP2_MAGIC
        f.seek(0)
        found, says = site_of(f)
    return DumpHead(named=named.dbname if named else "", found=found, says=says, is_bzip2=is_bzip2)


def site_of(file: storage.BinaryIO) -> tuple[str, str]:
    """The dbname of the Wikipedia that an open dump says in its head, empty if it is none; and in words what it says."""
    try:
        site = read_site(file)
    except DumpError as error:
        return "", str(error)
    known = language_of_dbname(site)
    return (known.dbname, site) if known else ("", f"{site} is no Wikipedia that the language table knows")


def ranges_of(dump: Unit) -> list[Unit]:
    """Equal ranges of a dump in bzip2, as few as make each no longer than :data:`UNIT_BYTES`."""
    count = -(-dump.size // UNIT_BYTES)
    if count < 2:
        return [dump]
    bounds = pairwise(dump.size * i // count for i in range(count + 1))
    return [replace(dump, name=unit_name(dump.path, offset=start), offset=start, length=end - start) for start, end in bounds]


def dump_units(files: Sequence[storage.FileInfo]) -> list[Unit]:
    """A unit per dump, or per range of one in bzip2; ``group`` is the code of its Wikipedia, empty if it cannot be told. The index files of
    multistream dumps are passed over: a reader finds the streams of its range itself (``metadata.dump``).

    Which Wikipedia it is stands in the dump. Where the file is named as published dumps are (``dewiki-…``) and the dump says something
    else, the name is believed: tools that cut or merge dumps are known to leave the head of another one in place.

    Raises:
        JobError: no dump is of a known Wikipedia.
    """
    dumps = units_of_files([f for f in files if "-multistream-index.txt" not in f.url])
    with ThreadPoolExecutor(max_workers=16) as pool:
        heads = list(pool.map(head_of, [dump.url for dump in dumps]))
    if heads and not any(head.named or head.found for head in heads):
        raise JobError(f"no file is the dump of a known Wikipedia (the first, {dumps[0].path}: {heads[0].says})")
    units, differing = [], []
    for dump, head in zip(dumps, heads, strict=True):
        if head.named and head.found and head.named != head.found:
            differing.append(f"{dump.path} says {head.found}")
        wiki = language_of_dbname(head.named or head.found)
        dump = replace(dump, group=wiki.code if wiki else "")
        units += ranges_of(dump) if wiki and head.is_bzip2 else [dump]
    if differing:
        many = f"ngrams: {len(differing)} of {len(dumps)} dumps say another wiki than their name (the first: {differing[0]})"
        print(f"{many}: the name is believed", file=sys.stderr)
    return units


def count_dump(unit: Unit, *, stage: Stage) -> None:
    """Count one dump or range of a dump and write its blocks."""
    tally = Tally()
    opened = storage.open_hashing(unit.url, offset=unit.offset, length=unit.length)
    end = unit.offset + unit.length if unit.length >= 0 else None
    with stage.part(unit, BLOCK_SCHEMA, tally) as writer, opened as (file, reader):
        for block in blocks_of_dump(file, unit.group, tally=tally, start=unit.offset, end=end):
            writer.write(block)
        writer.input_sha256 = reader.hexdigest()


def blocks_of_dump(file: storage.BinaryIO, wiki: str, *, tally: Tally, start: int = 0, end: int | None = None) -> Iterator[pa.Table]:
    """The counts of one open dump of that Wikipedia, or of a range of it: see :func:`read_pages`."""
    if not wiki:
        tally.damaged("unknown_wiki", place=0, detail=site_of(file)[1])
        return
    written = language(wiki)
    texts = (plain_text(page.text) for page in read_pages(file, tally=tally, start=start, end=end))
    yield from count_ngrams(texts, spaced=written.spaced, segmenter=written.segmenter, cut_apostrophes=written.cut_apostrophes)


def merge_units(units: Sequence[Unit]) -> list[Unit]:
    """A unit per language, n and run of key ranges: ``path`` is the language, ``index`` of ``length`` runs, ``etag`` changes with its
    dumps."""
    dumps = [u for u in units if u.offset == 0]
    merged = []
    for wiki in sorted({u.group for u in dumps} - {""}):
        mine = [u for u in dumps if u.group == wiki]
        runs = min(RANGES, -(-sum(u.size for u in mine) // MERGE_BYTES) or 1)
        etag = digest([[u.name, u.size, u.etag] for u in mine])
        for group in (UNIGRAMS, BIGRAMS):
            names = [f"{wiki}-{group}-{i:02}" for i in range(runs)]
            merged += [Unit(name=n, path=wiki, etag=etag, group=group, index=i, length=runs) for i, n in enumerate(names)]
    return merged


def merged_run(unit: Unit, blocks: Stage) -> Iterator[pa.Table]:
    """The summed counts of one run of key ranges over all dumps of its language: sorted tables in BLOCK_SCHEMA."""
    first, end = unit.index * RANGES // unit.length, (unit.index + 1) * RANGES // unit.length
    here = [("n", "==", 1 if unit.group == UNIGRAMS else 2), ("range", ">=", first), ("range", "<", end)]
    dumps = [u for u in blocks.units() if u.group == unit.path]
    return merged_tables(read_part(blocks.part_url(u), filters=here) for u in dumps)


def in_row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of one row group each: a part's bytes must not depend on where the tables were cut."""
    held = NGRAM_SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while held.num_rows >= ROW_GROUP_ROWS:
            yield held.slice(0, ROW_GROUP_ROWS).combine_chunks()
            held = held.slice(ROW_GROUP_ROWS)
    if held.num_rows:
        yield held.combine_chunks()


def write_ngrams(stage: Stage, unit: Unit, tables: Iterable[pa.Table]) -> None:
    """Write a part from tables in NGRAM_SCHEMA; its rows say of which language and which n they are."""
    with stage.part(unit, PART_SCHEMA, Tally()) as writer:
        for table in in_row_groups(tables):
            lang = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int8)), pa.array([unit.path]))
            n = pa.array(np.full(len(table), 1 if unit.group == UNIGRAMS else 2, np.int8))
            writer.write(pa.table([lang, n, *table.columns], schema=PART_SCHEMA))


def merge_unigrams(unit: Unit, *, stage: Stage, blocks: Stage) -> None:
    """Sum the counts of a run of unigrams."""
    tables = merged_run(unit, blocks)
    write_ngrams(stage, unit, (pa.table([t["gram"], t["count"], pa.nulls(len(t), pa.float64())], schema=NGRAM_SCHEMA) for t in tables))


@lru_cache(maxsize=1)
def tokens_of(urls: tuple[str, ...], etag: str) -> int:
    """Number of tokens of a language, from the parts with its unigrams; ``etag`` changes with the dumps."""
    return sum(pc.sum(read_part(url, columns=["count"])["count"]).as_py() or 0 for url in urls)


def merge_bigrams(unit: Unit, *, stage: Stage, blocks: Stage, min_count: int | None) -> None:
    """Sum the counts of a run of bigrams and rank them by the counts of their words.

    What is too rare goes at once. Of the unigrams, which of a large language no process could hold, the words of the bigrams that are left
    are kept, from one part after the other.
    """
    urls = tuple(stage.part_url(u) for u in stage.units() if u.group == UNIGRAMS and u.path == unit.path)
    least = min_count or min_bigram_count(tokens_of(urls, unit.etag))
    kept = (table.filter(pc.greater_equal(table["count"], least)) for table in merged_run(unit, blocks))
    bigrams = pa.concat_tables([BLOCK_SCHEMA.empty_table(), *kept])
    words = words_of(bigrams)
    parts = (read_part(url, columns=["gram", "count"], filters=[("count", ">=", least)]) for url in urls)
    unigrams = pa.concat_tables(part.filter(pc.is_in(part["gram"], value_set=words)) for part in parts)
    write_ngrams(stage, unit, [with_ratio(bigrams, unigrams, spaced=language(unit.path).spaced, min_count=least)])


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


def tell_damaged(blocks: Stage) -> None:
    """Say which dumps of a finished stage are damaged."""
    units = blocks.units()
    files = damaged_files((unit.file, footer.counters) for unit, footer in zip(units, blocks.footers(units), strict=True) if footer)
    if files:
        print(
            f"ngrams: {len(files)} of {len({u.file for u in units})} dumps are damaged ({first_few(files)}): what is whole in them was "
            "counted. With a good file in the place of one, the same command counts that one and its language again",
            file=sys.stderr,
        )


def main(config: NgramsConfig, beam_args: Sequence[str]) -> None:
    versions = {
        "dump": DUMP_VERSION,
        "ngrams": NGRAMS_VERSION,
        "segment": SEGMENT_VERSION,
        "text": TEXT_VERSION,
        "wikitext": WIKITEXT_VERSION,
    }
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
        tell_damaged(blocks)
