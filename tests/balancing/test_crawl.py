from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pyarrow as pa
import pytest

import balancing.crawl
import balancing.payload
import balancing.warc
from balancing.crawl import read_crawl
from balancing.extraction import PUBLISHED_TEXTS, Extraction
from balancing.pairs import MAX_TEXT, PAIR_SCHEMA, image_id_of_url
from balancing.urls import MAX_URL
from metadata.tally import Tally

PAGE_URL = "https://x.org/p/page.html"


def warc(
    block: bytes, *, kind: str = "response", url: str | None = PAGE_URL, content_type: str = "application/http; msgtype=response"
) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Type: {content_type}\r\nContent-Length: {len(block)}\r\n"
    return (head + (f"WARC-Target-URI: {url}\r\n" if url else "") + "\r\n").encode() + block + b"\r\n\r\n"


def page(html: str | bytes, *, status: int = 200, headers: str = "Content-Type: text/html; charset=utf-8\r\n", **kwargs: Any) -> bytes:
    body = html.encode() if isinstance(html, str) else html
    return warc(f"HTTP/1.1 {status} X\r\n{headers}\r\n".encode() + body, **kwargs)


def wat(links: Any, *, url: str = PAGE_URL, head: Any = None) -> bytes:
    html = {"Head": head or {}, "Links": links}
    envelope = {"WARC-Header-Metadata": {"WARC-Target-URI": url}, "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}}}
    return warc(json.dumps({"Envelope": envelope}).encode(), kind="metadata", content_type="application/json")


def read(data: bytes, **kwargs: Any) -> tuple[list[tuple[str, ...]], Tally]:
    """Rows without the image id, which is checked here, and the books, which must close."""
    tally = Tally()
    tables = list(read_crawl(io.BytesIO(data), tally=tally, **kwargs))
    assert all(table.schema == PAIR_SCHEMA and table.num_rows for table in tables)
    rows = [tuple(row.values()) for table in tables for row in table.to_pylist()]
    assert all(row[0] == image_id_of_url(row[1]) for row in rows)
    assert tally.balanced
    assert tally.emitted == len(rows)
    return [row[1:] for row in rows], tally


HTML = """<base href="/b/"><img src="1.jpg" alt=" A\tcat " title="Cat"><img src="//cdn.org/2.jpg" alt="" data-image-title="Two">
    <img src="3.jpg"><img alt="x" title="y"><img src="data:image/gif;base64,R0" alt="z"><img src="http://[" alt="1" title="2">
    <img src="ftp://f/4.jpg" alt="w">"""
LINKS = [
    {"path": "A@/href", "url": "no.html", "alt": "no"},
    {"path": "IMG@/src", "url": "1.jpg", "alt": " A\tcat ", "title": "Cat"},
    {"path": "IMG@/src", "url": "//cdn.org/2.jpg", "alt": "", "data-image-title": "Two"},
    {"path": "IMG@/src", "url": "3.jpg"},
    {"path": "IMG@/src", "alt": "x", "title": "y"},
    {"path": "IMG@/src", "url": "data:image/gif;base64,R0", "alt": "z"},
    {"path": "IMG@/src", "url": "http://[", "alt": "1", "title": "2"},
    {"path": "IMG@/src", "url": "ftp://f/4.jpg", "alt": "w"},
]
ROWS = [
    ("https://x.org/b/1.jpg", PAGE_URL, "A cat", "alt"),
    ("https://x.org/b/1.jpg", PAGE_URL, "Cat", "title"),
    ("https://cdn.org/2.jpg", PAGE_URL, "Two", "data-image-title"),
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("record", [page(HTML), wat(LINKS, head={"Base": "/b/"})], ids=["WARC", "WAT"])
def test_warc_and_wat_give_the_same_pairs_and_books(record: bytes, pack: Callable[[bytes], bytes]) -> None:
    rows, tally = read(pack(record))
    assert rows == ROWS
    assert tally.counters() == {
        "read": 11,
        "emitted": 3,
        "dropped": {"data_url": 1, "empty_text": 1, "no_text": 1, "no_url": 2, "not_http": 1},
        "dead_letters": 2,
        "dead_letter_reasons": {"invalid_url": 2},
        "files": 1,
        "bad_files": 0,
    }


def test_other_texts_are_taken_where_they_are_asked_for() -> None:
    html = "<figure><img src=1.jpg title=t aria-label=l><figcaption>c</figcaption></figure><img alt=x data-src=2.jpg>"
    take = Extraction(texts=("figcaption", "title", "aria-label"), lazy=True)
    rows, tally = read(page(html) + wat(LINKS[1:3]), take=take)
    url = "https://x.org/p/1.jpg"
    assert rows == [
        (url, PAGE_URL, "c", "figcaption"),
        (url, PAGE_URL, "t", "title"),
        (url, PAGE_URL, "l", "aria-label"),
        (url, PAGE_URL, "Cat", "title"),
    ]
    assert (tally.read, tally.dropped) == (6, {"no_text": 2})


def test_images_of_one_pixel_are_dropped() -> None:
    rows, tally = read(page("<img src=1.gif alt=counter title=x width=1 height=1><img src=2.gif width=1 height=1>"))
    assert (rows, tally.read, tally.dropped) == ([], 3, {"tracking_pixel": 2, "no_text": 1})


def test_mixed_members_in_file_order() -> None:
    rows, _ = read(gzip.compress(wat([LINKS[1]])) + gzip.compress(page("<img src=/2.jpg alt=b>")))
    assert [row[2] for row in rows] == ["A cat", "Cat", "b"]


@pytest.mark.parametrize(
    "record",
    [
        page("<img src=a alt=b>", status=404),
        page("<img src=a alt=b>", status=301),
        page("<img src=a alt=b>", headers="Content-Type: text/plain\r\n"),
        page("plain <img src=a alt=b>", headers=""),
        page("<img src=a alt=b>", kind="revisit"),
        page("<img src=a alt=b>", kind="resource"),
        warc(b"www.example.org A 1.2.3.4", content_type="text/dns"),
        warc(b"fetchTimeMs: 1", kind="metadata", content_type="application/warc-fields"),
        wat([]),
        wat(None),
    ],
)
def test_what_is_no_page_is_not_in_the_books(record: bytes) -> None:
    rows, tally = read(record)
    assert rows == []
    assert tally.counters() == Tally().counters()


def test_content_type_is_sniffed_where_absent() -> None:
    assert [row[2] for row in read(page("<!doctype html><img src=a alt=b>", headers=""))[0]] == ["b"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (warc(b"{", kind="metadata", content_type="application/json"), "invalid_json"),
        (page(b"\x1f\x8b\x08nothing", headers="Content-Type: text/html\r\nContent-Encoding: gzip\r\n"), "undecodable_html"),
        (page("<img src=a alt=b>" + "x" * 50_000), "page_too_large"),
        (page("<img src=a alt=b>" + "x" * 200_000), "record_too_large"),
        (wat([{"path": "A", "url": "x" * 200_000}]), "record_too_large"),
    ],
)
def test_broken_records_are_dead_letters_with_their_place(record: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing.warc, "RECORD_BYTES", 150_000)
    if reason == "page_too_large":
        monkeypatch.setattr(balancing.payload, "PAGE_BYTES", 40_000)
    before, after = page("<img src=a alt=before>"), page("<img src=a alt=after>")
    rows, tally = read(before + record + after)
    assert [row[2] for row in rows] == ["before", "after"]
    assert tally.dead == {reason: 1}
    assert tally.letters[0].place == len(before)
    assert tally.letters[0].payload[:1] == record.split(b"\r\n\r\n", 1)[1][:1]
    assert not tally.bad_file


def test_pages_without_an_address_and_old_ones_in_brackets() -> None:
    rows, tally = read(
        page("<img src=a.jpg alt=b><img src=http://a/c.jpg alt=d>", url=None) + page("<img src=e.jpg alt=f>", url=f"<{PAGE_URL}>")
    )
    assert rows == [("http://a/c.jpg", None, "d", "alt"), ("https://x.org/p/e.jpg", PAGE_URL, "f", "alt")]
    assert tally.dropped == {"not_http": 1}


def test_base_that_is_no_url_counts_for_nothing() -> None:
    assert read(page("<base href='http://['><img src=a.jpg alt=b>"))[0] == [("https://x.org/p/a.jpg", PAGE_URL, "b", "alt")]


def test_caps() -> None:
    links = [
        {"path": "IMG@/src", "url": "a" * (MAX_URL + 1), "alt": "b"},
        {"path": "IMG@/src", "url": "a" * MAX_URL, "alt": "b"},
        {"path": "IMG@/src", "url": "a", "alt": "b" * (MAX_TEXT + 1), "title": "b" * MAX_TEXT},
    ]
    rows, tally = read(wat(links) + wat([{"path": "IMG@/src", "url": "http://a/b", "alt": "c"}], head={"Base": "x" * 9_000}))
    assert [len(row[2]) for row in rows] == [MAX_TEXT]
    assert tally.dropped == {"url_too_long": 3, "text_too_long": 1}


def test_odd_characters() -> None:
    links = [
        {"path": "IMG@/src", "url": " \nhttp://a/b\tc.jpg\n", "alt": "a\0b\ud800"},
        {"path": "IMG@/src", "url": "http://a/\ud800", "alt": "c"},
        {"path": "IMG@/src", "url": "http://a/d", "alt": " \0 \n"},
    ]
    rows, tally = read(wat(links))
    assert rows == [("http://a/bc.jpg", PAGE_URL, "a b\ufffd", "alt")]
    assert (tally.dead, tally.dropped) == ({"invalid_url": 1}, {"empty_text": 1})


def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = page("".join(f"<img src={i}.jpg alt=t{i}>" for i in range(10)))

    def sizes(**kwargs: Any) -> list[int]:
        return [table.num_rows for table in read_crawl(io.BytesIO(data), tally=Tally(), **kwargs)]

    assert sizes() == [10]
    assert sizes(batch_rows=4) == [4, 4, 2]
    monkeypatch.setattr(balancing.crawl, "BATCH_CHARACTERS", 120)
    assert sizes() == [3, 3, 3, 1]


def test_what_is_whole_before_a_cut_counts() -> None:
    data = gzip.compress(page(HTML)) + gzip.compress(page(HTML))
    rows, tally = read(data[:-30])
    assert rows == ROWS
    assert tally.bad_file == "truncated"
    assert tally.dead == {"invalid_url": 2, "truncated": 1}


class _Images(HTMLParser):
    """An independent reader of images, by the standard library."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append({name: value or "" for name, value in reversed(attrs)})


def test_real_crawl_against_warcio_and_the_standard_library(shared_data: Path) -> None:
    iterator = pytest.importorskip("warcio.archiveiterator").ArchiveIterator
    for name, least in (("whirlwind", 7), ("sample-0001", 118), ("IAH-urls-wget", 80)):
        path = shared_data / "crawl" / f"{name}.warc.gz"
        expected = []
        with path.open("rb") as file:
            for record in iterator(file):
                headers = record.http_headers
                if (
                    record.rec_type != "response"
                    or headers.get_statuscode() != "200"
                    or "html" not in headers.get_header("Content-Type", "")
                ):
                    continue
                parser = _Images()
                parser.feed(record.content_stream().read().decode("utf-8", "replace").replace("\r\n", "\n"))
                page_url = record.rec_headers.get_header("WARC-Target-URI")
                for image in parser.images:
                    url = urljoin(page_url, image.get("src", ""))
                    if image.get("src") and url.startswith("http"):
                        texts = [(image[key].translate({9: 32, 10: 32, 13: 32}).strip(), key) for key in PUBLISHED_TEXTS if key in image]
                        expected += [(url, page_url, text, key) for text, key in texts if text]
        rows, tally = read(path.read_bytes())
        assert rows == expected
        assert len(rows) >= least
        assert not tally.bad_file


def test_every_real_crawl_file_is_read(shared_data: Path) -> None:
    emitted, pixels, bad = 0, 0, []
    for path in sorted((shared_data / "crawl").glob("*.gz")):
        rows, tally = read(path.read_bytes())
        emitted += len(rows)
        pixels += tally.dropped["tracking_pixel"]
        bad += [path.name] if tally.bad_file else []
    assert bad == ["clipped.warc.gz"]
    assert (emitted, pixels) == (12_576, 246)


def test_tables_are_arrow_tables_of_the_schema() -> None:
    (table,) = read_crawl(io.BytesIO(page("<img src=a alt=b>")), tally=Tally())
    assert isinstance(table, pa.Table)
    assert table.schema.equals(PAIR_SCHEMA, check_metadata=True)
