"""The draws, and the table of verdicts: complete, counted right, and of places that anyone draws again."""

from __future__ import annotations

import csv
import pathlib
import re
from collections import Counter
from itertools import pairwise

import pytest

from metadata.tally import Tally
from metadata.wikitext import Page, plain_text, read_pages
from tests.quality.passages import LEAST, LENGTH, passage_at, passages, place_of

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
VERDICTS = ("right", "gap", "wrong")


def page(title: str, text: str) -> Page:
    return Page(title=title, text=text, page_id=1)


LINES = "\n".join(f"* Line {i} of '''{i % 7}''' [[mill]]s{{{{note}}}} and so on." for i in range(200))
PAGES = [
    page("Lists", LINES),
    page("Table", "{| class=x\n| " + "no text " * 400 + "\n|}\n" + "A last line of prose. " * 4),
    page("Box", "{{Box\n| a = b\n" + "| c = d\n" * 300 + "}}\nThe river " + "runs and " * 90 + "ends."),
]


def test_places_depend_on_the_dump_and_the_draw_alone() -> None:
    assert [place_of("a.xml", draw, 1_000_000) for draw in range(4)] == [989_948, 233_279, 329_863, 6_436]
    assert place_of("b.xml", 0, 1_000_000) != place_of("a.xml", 0, 1_000_000)


def test_drawn_passages() -> None:
    drawn = list(passages("a.xml", PAGES, 12))
    assert drawn == list(passages("a.xml", PAGES, 12))
    assert len(drawn) == 12
    texts = {p.title: p for p in PAGES}
    for passage in drawn:
        whole = texts[passage.title].text
        assert passage.wikitext == whole[passage.start : passage.end]
        assert passage.start == 0 or whole[passage.start - 1] == "\n"
        assert passage.text in plain_text(whole)
        assert len(passage.text) >= LEAST
        assert len(passage.text) >= LENGTH or passage.end == len(whole)
    spans = sorted((p.title, p.start, p.end) for p in drawn)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))


def test_a_place_inside_a_template_gives_no_passage() -> None:
    assert passage_at(PAGES[2], 500) is None


@pytest.mark.parametrize("place", [200, len(PAGES[1].text) - 5])
def test_of_a_place_inside_a_table_the_passage_is_what_follows(place: int) -> None:
    passage = passage_at(PAGES[1], place)
    assert passage
    assert passage.text == ("A last line of prose. " * 4).strip()


def test_a_page_may_begin_with_its_passage() -> None:
    passage = passage_at(page("Lead", "The river runs. " * 10 + "\n== End =="), 3)
    assert passage
    assert passage.start == 0
    assert passage.text == "The river runs. " * 9 + "The river runs.\nEnd"


def test_a_dump_may_be_too_small() -> None:
    assert list(passages("a.xml", [], 5)) == []
    assert len(list(passages("a.xml", PAGES[1:2], 5))) == 1


def table() -> list[dict[str, str]]:
    with (DOCS / "wikitext-sample.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_table_has_twenty_verdicts_in_each_language() -> None:
    rows = table()
    assert list(rows[0]) == ["language", "dump", "page", "start", "before", "now", "why"]
    assert len(Counter(row["language"] for row in rows)) >= 12
    assert set(Counter(row["language"] for row in rows).values()) == {20}
    assert {row["before"] for row in rows} | {row["now"] for row in rows} <= set(VERDICTS)
    assert all(row["why"] and row["start"].isdigit() for row in rows)
    assert len({(row["dump"], row["page"], row["start"]) for row in rows}) == len(rows)


def test_the_summary_counts_the_table() -> None:
    rows = table()
    expected = {}
    for lang in dict.fromkeys(row["language"] for row in rows):
        mine = [row for row in rows if row["language"] == lang]
        expected[lang] = [sum(row[when] == verdict for row in mine) for when in ("before", "now") for verdict in VERDICTS]
    expected["all"] = [sum(column) for column in zip(*expected.values(), strict=True)]
    summary = (DOCS / "wikitext-sample.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([a-z]+) " + r"\| (\d+) " * 6 + r"\|$", summary, re.MULTILINE)
    assert {lang: [int(n) for n in counts] for lang, *counts in found} == expected


@pytest.mark.parametrize("dump", ["ltgwiki-latest-pages-articles.xml.bz2", "hewiki-mini.xml.bz2", "zhwiki-mini.xml.bz2"])
def test_the_places_of_the_table_are_drawn_again(dump: str, shared_data: pathlib.Path) -> None:
    with (shared_data / "dumps" / dump).open("rb") as file:
        pages = list(read_pages(file, tally=Tally()))
    drawn = [(passage.title, str(passage.start)) for passage in passages(dump, pages, 20)]
    assert drawn == [(row["page"], row["start"]) for row in table() if row["dump"] == dump]
