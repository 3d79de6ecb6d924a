"""Draw entries of finished lists for a person to judge: of each source the best ones, and others by hash.

The first entries of a source are its most frequent or best ranked ones, where faults cost most. The others are drawn by a hash of the
language and the entry alone, so that a change of other entries leaves the draw as it is, but for those that come or go.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import pyarrow as pa

from metadata.entries import SOURCES
from pipelines.part import read_part
from pipelines.stage import FinishedStage, open_stage

#: Sources that are drawn from unless others are named: numbers and a user's own entries need no judgement.
JUDGED = ("wordnet", "unigram", "bigram", "title")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An entry that is to be judged. ``id``: its place in the list of its language."""

    lang: str
    source: str
    id: int
    entry: str


def key_of(lang: str, entry: str) -> bytes:
    return hashlib.blake2b((lang + entry).encode(), digest_size=8).digest()


def drawn_of(lang: str, table: pa.Table, *, first: int, random: int, wanted: Sequence[str] = JUDGED) -> Iterator[Drawn]:
    """Of each source, its ``first`` first entries and then, of the rest, the ``random`` with the least hashes, hashes ascending.

    Args:
        table: ``metadata.entries.ENTRIES_SCHEMA``. All entries of a source that has no more than are asked for are drawn.
    """
    ids, entries, sources = (table[name].to_pylist() for name in ("id", "entry", "source"))
    for source in wanted:
        rows = [row for row, found in enumerate(sources) if found == source]
        others = sorted(rows[first:], key=lambda row: key_of(lang, entries[row]))
        for row in rows[:first] + others[:random]:
            yield Drawn(lang=lang, source=source, id=ids[row], entry=entries[row])


def draw(stage: FinishedStage, languages: Sequence[str], *, first: int, random: int, wanted: Sequence[str] = JUDGED) -> Iterator[Drawn]:
    """What is drawn of the lists of these languages, in their order; a list is held at a time.

    Raises:
        JobError: the stage has no such list, or it is damaged.
    """
    for lang in languages:
        yield from drawn_of(lang, read_part(stage.part_url(f"{lang}.parquet")), first=first, random=random, wanted=wanted)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.entry_sample", description=__doc__)
    parser.add_argument("--entries", metavar="DIR", required=True, help="the finished stage of the job entries")
    parser.add_argument("--languages", metavar="CODES", required=True, help="lists to draw from, with commas")
    parser.add_argument("--first", metavar="N", type=int, default=10, help="first entries of a source (default: 10)")
    parser.add_argument("--random", metavar="N", type=int, default=100, help="entries of a source drawn by hash (default: 100)")
    parser.add_argument("--sources", metavar="NAME", nargs="+", choices=SOURCES, default=JUDGED, help="sources to draw from (default: all)")
    arguments = parser.parse_args()
    # Without quoting, as docs/*.tsv are: an entry with a tab or a line break is an error that says so.
    out = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    out.writerow(Drawn.__dataclass_fields__)
    stage = open_stage(arguments.entries, "entries")
    languages = arguments.languages.split(",")
    for drawn in draw(stage, languages, first=arguments.first, random=arguments.random, wanted=arguments.sources):
        out.writerow(astuple(drawn))


if __name__ == "__main__":
    main()
