"""The draws and the books; the table of verdicts; and all pairs of the real crawl against other readers."""

from __future__ import annotations

import csv
import gzip
import pathlib
import re
import sys
from collections import Counter
from urllib.parse import urljoin

import pytest
from selectolax.lexbor import LexborHTMLParser

from balancing.extraction import PUBLISHED_TEXTS, Extraction
from metadata.tally import Tally
from tests.quality import pair_sample
from tests.quality.pair_sample import Pair, books, drawn, key_of, pages_of, pairs_of, tags_of

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
VERDICTS = ("right", "doubtful", "wrong")
#: A longer text is quoted with its beginning.
QUOTE = 30

#: The pairs of each file, and its books.
Real = tuple[dict[pathlib.Path, list[Pair]], dict[str, Tally]]


def response(url: str, html: str) -> bytes:
    body = html.encode()
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Type: application/http; msgtype=response\r\n"
    return gzip.compress(head.encode() + b"Content-Length: %d\r\n\r\n" % len(block) + block + b"\r\n\r\n")


def pair(i: int) -> Pair:
    return Pair(row=i, input="a.warc.gz", page="https://a.example/", url=f"https://a.example/{i}.jpg", text=f"text {i}", source="alt")


def test_the_least_hashes_are_drawn_and_of_equal_pairs_the_first() -> None:
    pairs = [pair(i) for i in range(100)]
    expected = sorted(pairs, key=key_of)[:7]
    assert drawn(pairs, 7) == expected
    again = [Pair(**{**vars(p), "input": "b.warc.gz", "row": p.row + 100}) for p in pairs]
    assert drawn(pairs + again, 7) == expected
    assert drawn([p for p in pairs if p != expected[2]], 6) == expected[:2] + expected[3:]


def test_tags_are_those_with_the_name_of_the_image_and_the_base_each_once() -> None:
    base, tag, other = '<base href="/x/">', "<img alt='a > b'\n src=../i/Cat.jpg?1>", "<img src=dog.jpg alt=Cat>"
    assert tags_of(f"<imgx src=Cat.jpg>{base}<p>{tag}{other}{tag}", "https://a.example/i/Cat.jpg?1") == [base, tag]
    assert tags_of(f"{base}{other}", "https://a.example/?dog.jpg") == [base, other]


@pytest.fixture
def crawl(tmp_path: pathlib.Path) -> list[str]:
    pages = ["<img src=a.jpg alt='A &amp;amp; B' title=T><img src=b.jpg><img src='data:,' alt=c>", "<img src=//b.example/c.jpg alt=C>"]
    for i, html in enumerate(pages):
        (tmp_path / f"{i}.warc.gz").write_bytes(response(f"https://a.example/{i}/", html))
    whole = response("https://a.example/", pages[0])
    (tmp_path / "2.warc.gz").write_bytes(whole[: len(whole) // 2])
    return [str(path) for path in sorted(tmp_path.iterdir(), reverse=True)]


def run(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    monkeypatch.setattr(sys, "argv", ["pair_sample", *argv])
    pair_sample.main()
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_what_is_printed(crawl: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [
        ["0", "0.warc.gz", "https://a.example/0/", "https://a.example/0/a.jpg", "A &amp; B", "alt"],
        ["1", "0.warc.gz", "https://a.example/0/", "https://a.example/0/a.jpg", "T", "title"],
        ["0", "1.warc.gz", "https://a.example/1/", "https://b.example/c.jpg", "C", "alt"],
    ]
    header, *found = run(crawl, monkeypatch, capsys)
    assert header == ["row", "input", "page", "url", "text", "source"]
    assert sorted(found, key=lambda row: (row[1], row[0])) == pairs
    _, *shown = run([*crawl, "--tags", "--pairs", "3"], monkeypatch, capsys)
    tags = {"0.warc.gz": "<img src=a.jpg alt='A &amp;amp; B' title=T>", "1.warc.gz": "<img src=//b.example/c.jpg alt=C>"}
    assert shown == [line for row in found for line in (row, [f"    {tags[row[1]]}"])]
    assert run([*crawl, "--books"], monkeypatch, capsys) == [
        ["input", "read", "emitted", "data_url", "no_text", "dead: truncated"],
        ["0.warc.gz", "4", "2", "1", "1", "0"],
        ["1.warc.gz", "1", "1", "0", "0", "0"],
        ["2.warc.gz", "1", "0", "0", "0", "1"],
        ["all", "6", "3", "1", "1", "1"],
    ]


def test_books_that_do_not_close_are_told() -> None:
    with pytest.raises(ValueError, match=r"b: read 2 is not emitted 1 \+ drops Counter\(\) \+ dead letters Counter\(\)"):
        list(books({"a": Tally(read=1, emitted=1), "b": Tally(read=2, emitted=1)}))


# -- the documents and the real crawl ----------------------------------------------------------------------------------------------------


def table() -> list[dict[str, str]]:
    with (DOCS / "pairs-sample.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def document() -> str:
    return (DOCS / "pairs-sample.md").read_text(encoding="utf-8")


def test_the_table_has_fifty_verdicts_each_with_its_reason_and_the_document_counts_them() -> None:
    rows = table()
    assert list(rows[0]) == ["row", "input", "page", "url", "text", "source", "verdict", "why"]
    assert len({(row["input"], row["row"]) for row in rows}) == len(rows) == 50
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
    assert all(row["why"] and len(row["text"]) <= QUOTE for row in rows)
    counts = Counter(row["verdict"] for row in rows)
    found = re.findall(r"^\| (right|doubtful|wrong) \| (\d+) \|", document(), re.MULTILINE)
    assert [(verdict, int(n)) for verdict, n in found] == [(verdict, counts[verdict]) for verdict in VERDICTS]


@pytest.fixture(scope="module")
def real(shared_data: pathlib.Path) -> Real:
    paths = sorted((shared_data / "crawl").iterdir())
    tallies = {path.name: Tally() for path in paths}
    return {path: list(pairs_of(path, tallies[path.name])) for path in paths}, tallies


def quoted(text: str) -> str:
    return text if len(text) <= QUOTE else f"{text[: QUOTE - 1]}…"


def test_the_pairs_of_the_table_are_drawn_again(real: Real) -> None:
    pairs = drawn((pair for found in real[0].values() for pair in found), 50)
    expected = [{name: row[name] for name in Pair.__dataclass_fields__} for row in table()]
    assert [{**vars(pair), "row": str(pair.row), "text": quoted(pair.text)} for pair in pairs] == expected


def test_the_books_of_the_document(real: Real) -> None:
    lines = [line.strip("| ").split(" | ") for line in document().splitlines() if re.match(r"\| (input|all|[\w.-]+\.gz) \|", line)]
    assert lines == [[str(cell) for cell in row] for row in books(real[1])]


def pairs_by_lexbor(path: pathlib.Path) -> Counter[tuple[str, str, str, str]]:
    """Page, address, text and source of all images of a file that have an address and are larger than a pixel, by its tree."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    white = str.maketrans("\t\n\r", "   ")
    for page, html in pages_of(path):
        tree = LexborHTMLParser(html)
        base = tree.css_first("base[href]")
        base_url = urljoin(page, base.attributes["href"] or "") if base else page
        for image in tree.css("img"):
            attributes = {name: value or "" for name, value in image.attributes.items()}
            src = attributes.get("src", "").strip().translate(dict.fromkeys(map(ord, "\t\n\r")))
            url = urljoin(base_url, src)
            sizes = {attributes.get("width"), attributes.get("height")}
            if not src or not url.startswith("http") or sizes <= {"0", "1", "0px", "1px"}:
                continue
            for source in PUBLISHED_TEXTS:
                if text := attributes.get(source, "").translate(white).strip():
                    found[page, url, text, source] += 1
    return found


def test_all_pairs_of_the_real_crawl_are_those_of_a_tree(real: Real) -> None:
    whole = {path: pairs for path, pairs in real[0].items() if not real[1][path.name].bad_file}
    for path, pairs in whole.items():
        assert Counter((pair.page, pair.url, pair.text, pair.source) for pair in pairs) == pairs_by_lexbor(path), path.name
    assert (len(whole), sum(map(len, whole.values()))) == (23, 12_576)


def test_images_that_scripts_load_in_the_real_crawl(real: Real) -> None:
    """The figures of docs/pairs-sample.md and docs/decisions.md."""
    counts = [Counter((pair.page, pair.url, pair.text, pair.source) for pair in pairs) for pairs in real[0].values()]
    lazy = [Counter((p.page, p.url, p.text, p.source) for p in pairs_of(path, Tally(), Extraction(lazy=True))) for path in real[0]]
    assert sum(found.total() for found in lazy) == 14_714
    assert sum((plain - found).total() for plain, found in zip(counts, lazy, strict=True)) == 737
