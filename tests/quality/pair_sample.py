"""Draw pairs of crawl files for a person to judge, show the tags of their pages, and add up what was read.

Pairs are drawn by a hash of page, address, text and source, so anyone draws the same ones, whatever files stand beside theirs. The tags
come from the files by another way than the pairs (warcio, and a search for ``<img``), undecoded, as the page has them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import heapq
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from balancing.crawl import read_crawl
from balancing.encoding import utf8_of_html
from balancing.extraction import PUBLISHED, Extraction
from metadata.tally import Tally

_IMAGE_OR_BASE = re.compile(r"<(?:ima?ge?|base)[\s/](?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair that is to be judged. ``row``: its place among the pairs of its file."""

    row: int
    input: str
    page: str
    url: str
    text: str
    source: str


def key_of(pair: Pair) -> bytes:
    return hashlib.blake2b("\0".join((pair.page, pair.url, pair.text, pair.source)).encode(), digest_size=8).digest()


def pairs_of(path: Path, tally: Tally, take: Extraction = PUBLISHED) -> Iterator[Pair]:
    """All pairs of a WARC or WAT file, in its order."""
    row = 0
    with path.open("rb") as file:
        for table in read_crawl(file, tally=tally, take=take):
            for pair in table.to_pylist():
                yield Pair(input=path.name, row=row, page=pair["page_url"] or "", url=pair["url"], text=pair["text"], source=pair["source"])
                row += 1


def drawn(pairs: Iterable[Pair], count: int) -> list[Pair]:
    """The ``count`` pairs with the least hashes, hashes ascending; of equal pairs the first."""
    first: dict[bytes, Pair] = {}
    for pair in pairs:
        first.setdefault(key_of(pair), pair)
    return [first[key] for key in heapq.nsmallest(count, first)]


def books(tallies: dict[str, Tally]) -> Iterator[Sequence[str | int]]:
    """Rows of a table: of each file and of all what was read, emitted, dropped by reason, and dead by reason.

    Raises:
        ValueError: the books of a file do not close.
    """
    for name, tally in tallies.items():
        if not tally.balanced:
            raise ValueError(
                f"{name}: read {tally.read} is not emitted {tally.emitted} + drops {tally.dropped} + dead letters {tally.dead}"
            )
    dropped, dead = (sorted(set().union(*found)) for found in zip(*((t.dropped, t.dead) for t in tallies.values()), strict=True))
    yield ["input", "read", "emitted", *dropped, *(f"dead: {reason}" for reason in dead)]
    rows = [
        [tally.read, tally.emitted, *(tally.dropped[reason] for reason in dropped), *(tally.dead[reason] for reason in dead)]
        for tally in tallies.values()
    ]
    for name, row in zip((*tallies, "all"), (*rows, [sum(column) for column in zip(*rows, strict=True)]), strict=True):
        yield [name, *row]


def pages_of(path: Path) -> Iterator[tuple[str, str]]:
    """Address and HTML of each page of a WARC file that was answered with success; of a damaged file what comes before the damage."""
    with path.open("rb") as file:
        try:
            for record in ArchiveIterator(file):
                headers = record.http_headers if record.rec_type == "response" else None
                content_type = headers.get_header("content-type", "") if headers else ""
                if headers and headers.get_statuscode().startswith("2") and "html" in content_type:
                    html = utf8_of_html(record.content_stream().read(), content_type).decode("utf-8", "replace")
                    yield record.rec_headers.get_header("WARC-Target-URI").strip("<>"), html
        except ArchiveLoadFailed:
            return


def tags_of(html: str, url: str) -> list[str]:
    """The tags of a page, as they stand there, that hold the last part of an image's address, and its ``<base>``; equal ones once."""
    parts = urlsplit(url)
    name = parts.path.rstrip("/").rpartition("/")[2] or parts.query or parts.netloc
    return list(dict.fromkeys(tag for tag in _IMAGE_OR_BASE.findall(html) if name in tag or tag[:5].lower() == "<base"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.pair_sample", description=__doc__)
    parser.add_argument("inputs", metavar="FILE", nargs="+", type=Path, help="WARC or WAT files")
    parser.add_argument("--pairs", metavar="N", type=int, default=50, help="pairs to draw (default: 50)")
    parser.add_argument("--tags", action="store_true", help="show the tags of each pair's page behind it")
    parser.add_argument("--books", action="store_true", help="print what was read, emitted, dropped and dead of each file instead")
    arguments = parser.parse_args()
    # Without quoting, as docs/*.tsv are.
    out = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    paths = sorted(arguments.inputs, key=lambda path: path.name)
    tallies = {path.name: Tally() for path in paths}
    pairs = drawn((pair for path in paths for pair in pairs_of(path, tallies[path.name])), arguments.pairs)
    if arguments.books:
        out.writerows(books(tallies))
        return
    out.writerow(Pair.__dataclass_fields__)
    for pair in pairs:
        out.writerow(vars(pair).values())
        if arguments.tags:
            (path,) = (path for path in paths if path.name == pair.input)
            for page, html in pages_of(path):
                if page == pair.page:
                    print(*(f"    {' '.join(tag.split())}" for tag in tags_of(html, pair.url)), sep="\n")


if __name__ == "__main__":
    main()
