"""Dumps and page views."""

from __future__ import annotations

import bz2
import gzip
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import mwparserfromhell
import pyarrow as pa

from metadata.dump import read_pages
from metadata.ngrams import SEPARATOR, merge_blocks
from metadata.tally import Tally
from metadata.titles import count_views, merge_views
from pipelines import ngrams as job
from pipelines.ngrams import blocks_of_dump
from pipelines.part import read_parts
from pipelines.stage import open_stage
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare, row

_PAGES_PER_STREAM = 20
_UNITS = 16
_TOKEN = re.compile(r"\w+|[^\w\s]")

Grams = Counter[tuple[str, ...]]


def fast_ngrams(paths: Sequence[Path]) -> pa.Table:
    blocks: list[pa.Table] = []
    for path in paths:
        with path.open("rb") as file:
            blocks += blocks_of_dump(file, "en", tally=Tally())
    return merge_blocks(blocks)


def as_grams(table: pa.Table) -> Grams:
    return Counter({tuple(gram.split(SEPARATOR)): n for gram, n in zip(table["gram"].to_pylist(), table["count"].to_pylist(), strict=True)})


def naive_ngrams(paths: Sequence[Path]) -> Grams:
    """bz2 and ElementTree of the standard library, mwparserfromhell, a regular expression and a Counter."""
    grams: Grams = Counter()
    for path in paths:
        with bz2.open(path) as file:
            for text in _articles(file):
                for line in mwparserfromhell.parse(text).strip_code().split("\n"):
                    tokens = _TOKEN.findall(line)
                    grams.update((token,) for token in tokens)
                    grams.update((a, b) for a, b in pairwise(tokens) if a[0].isalnum() and b[0].isalnum())
    return grams


def _articles(file: bz2.BZ2File) -> Iterator[str]:
    for _, element in ElementTree.iterparse(file):
        if element.tag.endswith("}page"):
            found = {child.tag.rpartition("}")[2]: child for child in element.iter()}
            if found["ns"].text == "0" and "redirect" not in found and found["text"].text:
                yield found["text"].text
            element.clear()


@benchmark
def ngrams(material: Material) -> Iterator[Row]:
    """Dump → counts of unigrams and bigrams."""
    size = 0
    for path in material.dumps:
        with path.open("rb") as file:
            size += sum(len(page.text.encode()) for page in read_pages(file, tally=Tally()))
    yield compare(
        "ngrams",
        "MB/s",
        amount=size / 1e6,
        fast=lambda: fast_ngrams(material.dumps),
        naive=lambda: naive_ngrams(material.dumps),
        # mwparserfromhell alone leaves tables, files' options and references in the text.
        exact=False,
        input=f"{size / 1e6:.1f} MB of English wikitext; naive: bz2, ElementTree, mwparserfromhell, Counter",
        command="ngrams",
    )


def _many_streams(material: Material) -> Path:
    """One large dump: the pages of the English dumps over and over, a stream for some of them each time."""
    path = material.folder / "enwiki-20260901-pages-articles-multistream.copies.xml.bz2"
    xml = b"".join(bz2.decompress(dump.read_bytes()) for dump in material.dumps)
    pages = re.findall(rb"<page>.*?</page>", xml, re.DOTALL)
    streams = [bz2.compress(b"\n".join(pages[i : i + _PAGES_PER_STREAM])) for i in range(0, len(pages), _PAGES_PER_STREAM)]
    head, end = b"<mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo>", b"</mediawiki>"
    path.write_bytes(b"".join([bz2.compress(head), *streams * material.size.copies, bz2.compress(end)]))
    return path


def _wall_seconds(dump: Path, output: str, workers: int) -> tuple[float, pa.Table]:
    start = time.perf_counter()
    job.main(job.NgramsConfig(input=(str(dump),), output=output, workers=workers, max_bad_files=1.0), [])
    seconds = time.perf_counter() - start
    table = pa.concat_tables(read_parts(open_stage(output, "ngrams")))
    shutil.rmtree(output)
    return seconds, table


@benchmark
def workers_ngrams(material: Material) -> Iterator[Row]:
    """One dump, one worker and two, wall time; what the same takes for next to nothing is start-up and taken off."""
    dump, tiny = _many_streams(material), material.folder / "enwiki-tiny.xml.bz2"
    tiny.write_bytes(bz2.compress(b"<mediawiki><page><title>T</title><id>1</id><revision><text>a b</text></revision></page></mediawiki>"))
    size = dump.stat().st_size
    rates, results = [], []
    unit_bytes = job.UNIT_BYTES
    job.UNIT_BYTES = -(-size // _UNITS)
    try:
        for workers in (1, 2):
            started, _ = _wall_seconds(tiny, material.output(), workers)
            seconds, table = _wall_seconds(dump, material.output(), workers)
            rates.append(size / 1e6 / max(seconds - started, 1e-3))
            results.append(table)
    finally:
        job.UNIT_BYTES = unit_bytes
    if not results[0].equals(results[1]):
        raise AssertionError("one worker and two give different n-grams")
    yield row(
        "workers_ngrams",
        rates[1],
        "MB/s",
        rates[0],
        input=f"one dump of {size / 1e6:.1f} MB, compressed, in {_UNITS} units, wall time without start-up; baseline: one worker",
        command="workers_ngrams",
    )


def fast_pageviews(path: Path) -> list[pa.Table]:
    with path.open("rb") as file:
        return list(count_views(file, tally=Tally()))


def as_views(blocks: list[pa.Table]) -> dict[tuple[str, str], int]:
    table = merge_views(blocks)
    lang, title, views = (table[name].to_pylist() for name in ("lang", "title", "views"))
    return dict(zip(zip(lang, title, strict=True), views, strict=True))


def naive_pageviews(path: Path) -> Counter[tuple[str, str]]:
    """A loop over lines."""
    views: Counter[tuple[str, str]] = Counter()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            domain, title, number, _ = line.split(" ")
            wiki = domain.removesuffix(".m")
            if "." not in wiki and wiki not in ("commons", "meta") and ":" not in title and number != "0":
                views[wiki, title.replace("_", " ")] += int(number)
    return views


@benchmark
def pageviews(material: Material) -> Iterator[Row]:
    """An hour of page views → views per title."""
    path, size = material.pageviews
    yield compare(
        "pageviews",
        "MB/s",
        amount=size / 1e6,
        fast=lambda: fast_pageviews(path),
        naive=lambda: naive_pageviews(path),
        fast_result=as_views,
        naive_result=dict,
        input=f"{size / 1e6:.0f} MB of page views, decompressed; naive: a loop over lines",
        command="pageviews",
    )
