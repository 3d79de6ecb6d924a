"""Dumps: every page counted, damage reported after everything that stands before it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metadata.dump
from metadata.dump import DumpError, Page, read_pages, read_site
from metadata.tally import Tally

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="lv">\n'
    "  <siteinfo><sitename>Vikipēdija</sitename><dbname>lvwiki</dbname><base>https://lv.wikipedia.org/wiki/Sākumlapa</base></siteinfo>\n"
)
TAIL = "</mediawiki>\n"


def page(title: str, text: str, *, page_id: str = "7", ns: str = "0", extra: str = "") -> str:
    return (
        f"  <page>\n    <title>{title}</title>\n    <ns>{ns}</ns>\n    <id>{page_id}</id>\n{extra}    <revision>\n      <id>99</id>\n"
        f'      <contributor><username>U</username><id>5</id></contributor>\n      <text xml:space="preserve">{text}</text>\n'
        "    </revision>\n  </page>\n"
    )


ARTICLES = [
    Page(title="Koks & akmens", text="'''Koks''' ir <b>augs</b>.\n\nOtrā rinda – 𐍄.", page_id=7),
    Page(title="Upe", text="Upe tek.", page_id=8),
    Page(title="Jūra", text="Jūra ir liela.", page_id=9),
]
PARTS = [
    page("Koks &amp; akmens", "'''Koks''' ir &lt;b&gt;augs&lt;/b&gt;.\n\nOtrā rinda – &#x10344;."),
    page("Diskusija:Koks", "runa", ns="1"),
    page("Upe", "Upe tek.", page_id="8"),
    page("Straume", "#REDIRECT [[Upe]]", extra='    <redirect title="Upe" />\n'),
    page("Tukšs", " \n "),
    page("Jūra", "Jūra ir liela.", page_id="9"),
]
XML = (HEAD + "".join(PARTS) + TAIL).encode()
WHOLE = {"other_namespace": 1, "redirect": 1, "empty_text": 1}


def read(data: bytes, *, whole: bool = True) -> tuple[list[Page], Tally]:
    tally = Tally()
    pages = list(read_pages(io.BytesIO(data), tally=tally, whole=whole))
    assert tally.balanced
    assert tally.emitted == len(pages)
    return pages, tally


def multistream(parts: list[str]) -> bytes:
    return b"".join(bz2.compress(part.encode()) for part in parts)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "bz2": bz2.compress,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bz2 in streams": lambda data: multistream([HEAD, *PARTS, TAIL]),
    "gzip in members": lambda data: b"".join(gzip.compress(data[i : i + 300], mtime=0) for i in range(0, len(data), 300)),
    "xz in streams, padded": lambda data: lzma.compress(data[:100]) + bytes(8) + lzma.compress(data[100:]),
}


@pytest.mark.parametrize("compression", COMPRESS)
def test_articles_and_books(compression: str) -> None:
    pages, tally = read(COMPRESS[compression](XML))
    assert pages == ARTICLES
    assert tally.read == 6
    assert tally.dropped == WHOLE
    assert (tally.dead, tally.bad_file) == ({}, "")
    assert read_site(io.BytesIO(COMPRESS[compression](XML))) == "lvwiki"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks(encoding: str) -> None:
    data = XML.decode().encode(encoding)
    assert read(data)[0] == ARTICLES
    assert read_site(io.BytesIO(data)) == "lvwiki"


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_cut_anywhere_keeps_what_is_whole(compression: str) -> None:
    data = COMPRESS[compression](XML)
    for cut in range(0, len(data), 10):
        pages, tally = read(data[:cut])
        assert pages == ARTICLES[: len(pages)]
        if cut == 0:
            assert tally.bad_file == "empty"
        else:
            assert tally.bad_file == "truncated"
            assert tally.dead == {"truncated": 1}


def test_a_cut_in_plain_xml_loses_one_page_only() -> None:
    cut = XML.index("Jūra ir liela".encode()) + 3
    pages, tally = read(XML[:cut])
    assert pages == ARTICLES[:2]
    assert (tally.read, tally.dropped, tally.dead) == (6, WHOLE, {"truncated": 1})
    assert cut - 100 < tally.letters[0].place <= cut


def test_parts_of_a_dump_cut_between_pages() -> None:
    first, tally = read(multistream([HEAD, *PARTS[:2]]), whole=False)
    assert (first, tally.read, tally.bad_file) == (ARTICLES[:1], 2, "")
    middle, tally = read(multistream(PARTS[2:4]))
    assert (middle, tally.read, tally.bad_file) == (ARTICLES[1:2], 2, "")
    last, tally = read(multistream([*PARTS[4:], TAIL]))
    assert (last, tally.read, tally.bad_file) == (ARTICLES[2:], 2, "")
    assert read(multistream([TAIL]))[1].counters()["read"] == 0


def test_a_part_is_damaged_when_it_ends_inside_a_page() -> None:
    for whole in (True, False):
        pages, tally = read((PARTS[2] + PARTS[5][:-20]).encode(), whole=whole)
        assert (pages, tally.bad_file) == (ARTICLES[1:2], "truncated")


def test_a_dump_without_its_end_is_damaged() -> None:
    pages, tally = read((HEAD + "".join(PARTS)).encode())
    assert (pages, tally.bad_file) == (ARTICLES, "truncated")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (bz2.compress(b""), "empty"),
        (b" \n\n ", "empty"),
        (b"not XML at all", "invalid_xml"),
        (b"<html><body><page/></body></html>", "invalid_xml"),
        ((HEAD + PARTS[2] + "<page><title>&undefined;</title></page>" + TAIL).encode(), "invalid_xml"),
        ((HEAD + PARTS[2]).encode() + b"<page><title>\xff\xfe</title></page>" + TAIL.encode(), "invalid_xml"),
        ((HEAD + PARTS[2] + "<a>" * 100 + "</a>" * 100 + TAIL).encode(), "invalid_xml"),
        ((HEAD + PARTS[2] + "".join(f"<n{i}/>" for i in range(10_001)) + TAIL).encode(), "invalid_xml"),
        (XML + b"<more/>", "invalid_xml"),
        (bz2.compress(XML)[:-12] + bytes(12), "invalid_compression"),
        (bz2.compress(XML) + b"trailing", "invalid_compression"),
    ],
)
def test_damage_is_named(data: bytes, reason: str) -> None:
    pages, tally = read(data)
    assert tally.bad_file == reason
    assert tally.dead == {reason: 1}
    assert len(tally.letters) == 1
    if (HEAD + PARTS[2]).encode() in data:
        assert pages == ARTICLES[1:2]


def test_entities_are_never_expanded() -> None:
    bomb = '<!DOCTYPE m [<!ENTITY a "lol">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    pages, tally = read(f"{bomb}]>{HEAD}{page('T', '&i;')}{TAIL}".encode())
    assert (pages, tally.read, tally.bad_file) == ([], 1, "xml_entities")


def test_a_page_that_is_too_large_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata.dump, "MAX_PAGE_CHARACTERS", 1000)
    big, fits = page("Liels", "x" * 1001), page("Der", "x" * 1000)
    endless_title = page("y" * 5000, "text")
    pages, tally = read((HEAD + big + fits + endless_title + PARTS[2] + TAIL).encode())
    assert [p.title for p in pages] == ["Der", "Upe"]
    assert (tally.read, tally.dead, tally.bad_file) == (4, {"page_too_large": 2}, "")
    assert tally.letters[0].place == len(HEAD.encode()) + 2
    assert tally.letters[0].payload == b"Liels"


def test_a_highly_compressed_page_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bz2.compress((HEAD + page("Bumba", "x" * (40 << 20)) + PARTS[2] + TAIL).encode())
    assert len(data) < 10_000
    held = []
    characters = metadata.dump._PageReader._characters

    def spy(self: metadata.dump._PageReader, text: str) -> None:
        characters(self, text)
        held.append(sum(map(len, self._parts or ())))

    monkeypatch.setattr(metadata.dump._PageReader, "_characters", spy)
    pages, tally = read(data)
    assert (pages, tally.dead) == (ARTICLES[1:2], {"page_too_large": 1})
    assert (1 << 23) < max(held) <= metadata.dump.MAX_PAGE_CHARACTERS


def test_an_endless_comment_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata.dump, "_MAX_TOKEN_BYTES", 1 << 20)
    pages, tally = read((HEAD + PARTS[2] + "<!--" + "x" * (5 << 20) + "-->" + TAIL).encode())
    assert (pages, tally.bad_file) == (ARTICLES[1:2], "invalid_xml")


@pytest.mark.parametrize(
    "broken",
    [page("", "text"), page("T", "text", page_id=""), page("T", "text", page_id="x7"), page("T", "text", page_id="9" * 30)],
)
def test_a_page_without_title_or_id_is_a_dead_letter(broken: str) -> None:
    pages, tally = read((HEAD + broken + PARTS[2] + TAIL).encode())
    assert (pages, tally.read, tally.dead) == (ARTICLES[1:2], 2, {"page_without_title_or_id": 1})


def test_of_many_revisions_the_last_counts() -> None:
    revisions = page("T", "old").replace("</revision>", "</revision><revision><id>3</id><text>new</text></revision>")
    assert read((HEAD + revisions + TAIL).encode())[0] == [Page(title="T", text="new", page_id=7)]


def test_old_dumps_without_namespaces_numbers() -> None:
    assert [p.title for p in read((HEAD + PARTS[2].replace("<ns>0</ns>", "") + TAIL).encode())[0]] == ["Upe"]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(XML)))
def test_no_bytes_raise(noise: bytes, at: int) -> None:
    for data in (noise, XML[:at] + noise + XML[at:], bz2.compress(XML[:at]) + noise, b"\x1f\x8b" + noise, b"\xfd7zXZ\0" + noise):
        read(data)


def test_a_reader_that_stops_early_counts_what_it_took() -> None:
    tally = Tally()
    pages = read_pages(io.BytesIO(XML), tally=tally)
    next(pages)
    assert tally.emitted == 1


@pytest.mark.parametrize(
    ("siteinfo", "dbname"),
    [
        ("<dbname>zh_min_nanwiki</dbname><base>https://en.wikipedia.org/wiki/X</base>", "zh_min_nanwiki"),
        ("<base>https://zh-min-nan.wikipedia.org/wiki/X</base>", "zh_min_nanwiki"),
        ("<base>https://be-tarask.wikipedia.org/wiki/X</base>", "be_x_oldwiki"),
        ("<base>http://xx-new.wikipedia.org/wiki/X</base>", "xx_newwiki"),
    ],
)
def test_site(siteinfo: str, dbname: str) -> None:
    assert read_site(io.BytesIO(f"<mediawiki><siteinfo>{siteinfo}</siteinfo>".encode())) == dbname


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<mediawiki><siteinfo><base>https://en.wiktionary.org/wiki/X</base></siteinfo></mediawiki>",
        b"<mediawiki><siteinfo><base>https://[broken/</base></siteinfo></mediawiki>",
        b"<mediawiki><siteinfo><dbname>../../etc</dbname></siteinfo></mediawiki>",
        b"<mediawiki><page><title>T</title></page><siteinfo><dbname>enwiki</dbname></siteinfo></mediawiki>",
        b"<!DOCTYPE a><mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo></mediawiki>",
        b"<html/>",
        b"BZh9 broken",
        PARTS[0].encode(),
    ],
)
def test_no_site(data: bytes) -> None:
    with pytest.raises(DumpError, match="not a Wikipedia dump"):
        read_site(io.BytesIO(data))


def test_only_the_head_is_read_for_the_site() -> None:
    dump = io.BytesIO(bz2.compress(HEAD.encode()) + b"not bz2" * 1_000_000)
    assert read_site(dump) == "lvwiki"
    assert dump.tell() < 1 << 20


def articles_by_etree(dump: pathlib.Path) -> list[tuple[str, str, int]]:
    """The same rules over another parser."""
    found = []
    with bz2.open(dump) as file:
        try:
            for _, element in ET.iterparse(file):
                if element.tag.rpartition("}")[2] != "page":
                    continue
                text = element.findtext("{*}revision/{*}text") or ""
                if element.findtext("{*}ns") == "0" and element.find("{*}redirect") is None and text.strip():
                    found.append((element.findtext("{*}title") or "", text, int(element.findtext("{*}id") or "")))
                element.clear()
        except ET.ParseError:
            assert "truncated" in dump.name
    return found


@pytest.mark.parametrize("pattern", ["en*.bz2", "bg*.bz2", "th*.bz2", "jawiki-truncated*", "multistream/ltg*multistream.xml.bz2"])
def test_pages_are_those_of_another_parser(shared_data: pathlib.Path, pattern: str) -> None:
    dumps = sorted((shared_data / "dumps").glob(pattern))
    assert dumps
    for dump in dumps:
        tally = Tally()
        with dump.open("rb") as file:
            pages = [(p.title, p.text, p.page_id) for p in read_pages(file, tally=tally)]
        assert pages == articles_by_etree(dump)
        assert tally.balanced
        assert tally.bad_file == ("truncated" if "truncated" in dump.name else "")
