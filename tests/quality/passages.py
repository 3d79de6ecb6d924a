"""Draw passages of the text of real pages, each with the wikitext behind it, for a person to judge.

The places are drawn by a keyed hash, evenly over the wikitext of a dump's articles, so anyone draws the same ones. A place inside a
template shows nothing of the text: then the next one is drawn. Of a place inside a table, the passage is what follows the table.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from metadata.tally import Tally
from metadata.wikitext import Page, plain_text, read_pages

#: Characters of text that a passage has at least, and less if its page ends before; below the least it is none.
LENGTH = 250
LEAST = 60
#: Draws per passage after which a dump counts as exhausted.
PATIENCE = 100


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Lines ``start:end`` (characters) of a page's wikitext, and what the page's text makes of them."""

    title: str
    start: int
    end: int
    wikitext: str
    text: str


def place_of(dump: str, draw: int, size: int) -> int:
    """The ``draw``-th place in a dump of ``size`` characters of wikitext."""
    digest = hashlib.blake2b(f"{dump}/{draw}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") * size >> 64


def text_before(page: Page, text: str, end: int) -> int | None:
    """How much of the page's text comes of the first ``end`` characters; None inside of something that reaches over ``end``."""
    before = plain_text(page.text[:end])
    ends_line = not before or text[len(before) : len(before) + 1] in ("", "\n")
    return len(before) if ends_line and text.startswith(before) else None


def passage_at(page: Page, place: int) -> Passage | None:
    """The passage that begins with the line of ``place``."""
    start = page.text.rfind("\n", 0, place) + 1
    text = plain_text(page.text)
    text_start = text_before(page, text, start)
    if text_start is None:
        return None
    # No line is longer as text than as wikitext.
    end = min(start + LENGTH, len(page.text)) - 1
    while end < len(page.text):
        end = page.text.find("\n", end) + 1 or len(page.text)
        text_end = text_before(page, text, end)
        if text_end is not None and text_end - text_start >= LENGTH:
            break
    passage = text[text_start:text_end].strip()
    if len(passage) < LEAST:
        return None
    return Passage(title=page.title, start=start, end=end, wikitext=page.text[start:end], text=passage)


def passages(dump: str, pages: Sequence[Page], count: int) -> Iterator[Passage]:
    """Up to ``count`` passages, no two of which overlap, in the order drawn. ``dump``: its file name, the key of the draws."""
    ends = list(accumulate(len(page.text) for page in pages))
    drawn: list[Passage] = []
    for draw in range(PATIENCE * count):
        if len(drawn) == count or not pages:
            return
        place = place_of(dump, draw, ends[-1])
        index = bisect_right(ends, place)
        page = pages[index]
        passage = passage_at(page, place - ends[index] + len(page.text))
        if passage and all(p.title != passage.title or p.end <= passage.start or passage.end <= p.start for p in drawn):
            drawn.append(passage)
            yield passage


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.passages", description=__doc__)
    parser.add_argument("dumps", metavar="DUMP", nargs="+", type=Path, help="dump to draw from")
    parser.add_argument("--passages", metavar="N", type=int, default=20, help="passages a dump (default: 20)")
    parser.add_argument("--places", action="store_true", help="only dump, title and place, as the table of verdicts names them")
    arguments = parser.parse_args()
    for path in arguments.dumps:
        with path.open("rb") as file:
            pages = list(read_pages(file, tally=Tally()))
        for passage in passages(path.name, pages, arguments.passages):
            if arguments.places:
                print(path.name, passage.title, passage.start, sep="\t")
            else:
                print(f"=== {path.name} | {passage.title} | {passage.start}\n{passage.wikitext.strip()}\n--- text\n{passage.text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
