"""Dumps: every page counted, damage reported after everything that stands before it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metadata.dump
from metadata.bzip2 import read_blocks
from metadata.dump import DumpError, Page, read_pages, read_site
from metadata.tally import Tally, add_counters

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
WHOLE_COUNTERS = {"read": 6, "emitted": 3, "dropped": WHOLE}


def read(data: bytes, *, start: int = 0, end: int | None = None) -> tuple[list[Page], Tally]:
    tally = Tally()
    dump = io.BytesIO(data)
    dump.seek(start)
    pages = list(read_pages(dump, tally=tally, start=start, end=end))
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


def test_a_dump_without_its_head_is_read_to_its_cut() -> None:
    pages, tally = read((PARTS[2] + PARTS[5][:-20]).encode())
    assert (pages, tally.bad_file) == (ARTICLES[1:2], "truncated")
    assert read((PARTS[2] + PARTS[5] + TAIL).encode())[1].counters() == {**Tally().counters(), "read": 2, "emitted": 2}


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
    pages, tally = read(f"{bomb}]>{HEAD}{page('T', '&i;')}{PARTS[2]}{TAIL}".encode())
    assert (pages, tally.read, tally.dead) == (ARTICLES[1:2], 3, {"xml_entities": 1, "invalid_xml": 1})


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


# -- damage costs what it touches ----------------------------------------------------------------------------------------------------


def test_a_damaged_stream_costs_its_pages() -> None:
    streams = [bz2.compress(part.encode()) for part in [HEAD, *PARTS, TAIL]]
    places = [sum(map(len, streams[:i])) for i in range(len(streams))]
    for broken, lost in ((3, [1]), (6, [2]), (1, [0]), (2, [])):
        damaged = list(streams)
        damaged[broken] = streams[broken][:20] + bytes(10) + streams[broken][30:]
        pages, tally = read(b"".join(damaged))
        assert pages == [article for i, article in enumerate(ARTICLES) if i not in lost]
        assert (tally.read, tally.dead) == (6, {"invalid_compression": 1})
        assert [letter.place for letter in tally.letters] == [places[broken] + 4]


def test_a_page_across_damage_is_lost_and_no_other() -> None:
    text = "".join(PARTS[:3]).encode()
    streams = [HEAD.encode() + text[:-20], text[-20:] + b"  ", "".join(PARTS[3:5]).encode(), (PARTS[5] + TAIL).encode()]
    compressed = [bytearray(bz2.compress(stream)) for stream in streams]
    compressed[1][14:24] = bytes(10)
    pages, tally = read(b"".join(compressed))
    assert pages == [ARTICLES[0], ARTICLES[2]]
    assert (tally.read, tally.dropped, tally.dead) == (6, WHOLE, {"invalid_compression": 1})


@pytest.mark.parametrize(
    "fault",
    ["&undefined;", "<", "<a></b>", "\x01", "</page>", "<page>", "<!-- -- -->", "]]>", "<page x>", "<a x='1' x='2'/>", "</mediawiki>"],
)
@pytest.mark.parametrize("compression", ["plain", "bz2", "bz2 in streams", "gzip"])
def test_a_fault_in_a_page_costs_the_page(fault: str, compression: str) -> None:
    parts = [*PARTS[:2], PARTS[2].replace("Upe tek", f"Upe {fault} tek"), *PARTS[3:]]
    data = (HEAD + "".join(parts) + TAIL).encode()
    compressed = multistream([HEAD, *parts, TAIL]) if compression == "bz2 in streams" else COMPRESS[compression](data)
    pages, tally = read(compressed)
    assert pages == [ARTICLES[0], ARTICLES[2]]
    # A page that begins inside another one is the next page: it has no end either, before the one behind it.
    faults = 2 if fault == "<page>" else 1
    assert (tally.read, tally.dropped, tally.dead) == (5 + faults, WHOLE, {"invalid_xml": faults})
    if compression in ("plain", "gzip"):
        place = data.index(f"Upe {fault} tek".encode())
        assert place <= tally.letters[0].place <= place + 20


def test_places_behind_a_fault_are_right() -> None:
    broken = page("Bez numura", "x", page_id="")
    data = (HEAD + "<page><b></page>" * 3 + PARTS[2] + broken + TAIL).encode()
    tally = read(data)[1]
    first = len(HEAD.encode())
    assert [letter.place for letter in tally.letters] == [
        first + 11,
        first + 27,
        first + 43,
        data.index(b"  <page>\n    <title>Bez") + 2,
    ]
    assert tally.dead == {"invalid_xml": 3, "page_without_title_or_id": 1}


@pytest.mark.parametrize("compression", ["plain", "bz2"])
def test_so_much_damage_ends_the_reading(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setattr(metadata.dump, "_MAX_DAMAGED", 20)
    pages, tally = read(COMPRESS[compression]((HEAD + "<page>" * 100_000 + PARTS[2] + TAIL).encode()))
    assert (pages, tally.read, tally.dead) == ([], 20, {"invalid_xml": 20})
    assert tally.letters[-1].detail.endswith(" (the 20th place: the rest is not read)")


def test_so_many_marks_of_blocks_are_given_up() -> None:
    tally = read(b"BZh9" + b"1AY&SY" * 500_000)[1]
    assert tally.dead == {"invalid_compression": 1_000}


# -- ranges --------------------------------------------------------------------------------------------------------------------------

#: Some pages that do not fit into a block of bzip2, and some of which many do.
LONG = [
    page(f"T{i}", " ".join(f"{i * j * 2654435761 % (1 << 40):x}" for j in range(size)), page_id=str(i), ns="1" if i % 5 == 4 else "0")
    for i, size in enumerate([3, 12_000, 400, 9, 10_000, 1, 800, 5, 5, 200, 3_000, 30], start=1)
]
LAYOUTS: dict[str, Callable[[list[str]], bytes]] = {
    "a stream for each page": multistream,
    "one stream": lambda parts: bz2.compress("".join(parts).encode(), 1),
    "streams cut anywhere": lambda parts: b"".join(
        bz2.compress("".join(parts).encode()[i : i + 20_011]) for i in range(0, 700_000, 20_011)
    ),
}


def in_ranges(data: bytes, cuts: list[int]) -> tuple[list[Page], dict[str, object], list[tuple[int, str]]]:
    """Pages, counters and dead letters of all ranges, one after the other."""
    pages, counters, letters = [], Tally().counters(), []
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), None]
    for start, end in pairwise(bounds):
        some, tally = read(data, start=start or 0, end=end)
        pages += some
        counters = add_counters(counters, {k: v for k, v in tally.counters().items() if k not in ("files", "bad_files")})
        letters += [(letter.place, letter.reason) for letter in tally.letters]
    return pages, counters, sorted(letters)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_ranges_have_what_the_whole_has(layout: str) -> None:
    data = LAYOUTS[layout]([HEAD, *LONG, TAIL])
    pages, tally = read(data)
    assert [p.title for p in pages] == [f"T{i}" for i in range(1, 13) if i % 5 != 4]
    assert tally.dead == {}
    whole = in_ranges(data, [])
    assert whole[0] == pages
    for step in (1_000, 17_000, len(data) // 2, len(data) - 1):
        assert in_ranges(data, list(range(step, len(data), step))) == whole


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 200_000), max_size=5),
    damage=st.none() | st.tuples(st.integers(0, 400_000), st.sampled_from([1, 10, 3_000]), st.booleans()),
    fault=st.none() | st.tuples(st.integers(0, 500_000), st.sampled_from(["<", "&x;", "<page>", "</page>", "</mediawiki>", "\x01", "<a>"])),
)
def test_ranges_of_a_damaged_dump_have_what_the_whole_has(
    layout: str, cuts: list[int], damage: tuple[int, int, bool] | None, fault: tuple[int, str] | None
) -> None:
    """Cut off, or overwritten, or with a fault in its XML: the same pages, the same books, the same dead letters."""
    parts = [HEAD, *LONG, TAIL]
    if fault:
        i = fault[0] % len(parts)
        at = fault[0] % len(parts[i])
        parts[i] = parts[i][:at] + fault[1] + parts[i][at:]
    data = LAYOUTS[layout](parts)
    if damage:
        at, size, cut_off = damage[0] % len(data), damage[1], damage[2]
        data = data[: at + 4] if cut_off else data[: at + 4] + b"\xa5" * size + data[at + 4 + size :]
    whole = in_ranges(data, [])
    assert in_ranges(data, cuts) == whole
    if not damage and not fault:
        assert whole[2] == []


def test_a_range_with_no_page_of_its_own_is_empty() -> None:
    data = LAYOUTS["one stream"]([HEAD, page("T", " ".join(f"{j * 2654435761 % (1 << 40):x}" for j in range(40_000))), TAIL])
    assert len(data) > 200_000
    for start in range(50_000, len(data), 50_000):
        assert read(data, start=start, end=start + 50_000)[1].counters() == Tally().counters()
    assert [p.title for p in read(data, end=50_000)[0]] == ["T"]


def test_ranges_of_a_dump_in_utf_16_are_read_once() -> None:
    data = b"".join(bz2.compress(part) for part in ["".join([HEAD, *PARTS]).encode("utf-16"), TAIL.encode("utf-16-le")])
    assert in_ranges(data, list(range(50, len(data), 50)))[:2] == (ARTICLES, {**Tally().counters(), **WHOLE_COUNTERS})


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_dump_cut_at_any_byte_has_its_whole_pages(compression: str) -> None:
    data = COMPRESS[compression](XML)
    found = [read(data[:cut]) for cut in range(len(data) + 1)]
    numbers = [len(pages) for pages, _ in found]
    assert numbers == sorted(numbers)
    assert all(pages == ARTICLES[:n] for n, (pages, _) in zip(numbers, found, strict=True))
    assert numbers[-1] == 3
    # The line break behind the end of plain XML may be missing.
    assert all(len(tally.letters) == 1 and tally.bad_file for _, tally in found[: -2 if compression == "plain" else -1])
    if compression == "bz2 in streams":
        # A page is there from the byte on with which its block is: ten bytes, a mark and a CRC, before its stream ends, give or take bits.
        ends = [len(multistream([HEAD, *PARTS[: i + 1]])) - 10 for i in (0, 2, 5)]
        there = [numbers.index(n) for n in (1, 2, 3)]
        assert all(end - 1 <= at <= end + 1 for at, end in zip(there, ends, strict=True))
    if compression == "plain":
        assert [numbers.index(n) for n in (1, 2, 3)] == [
            XML.index(b"</page>", XML.index(f"<title>{title}</title>".encode())) + len("</page>")
            for title in ("Koks &amp; akmens", "Upe", "Jūra")
        ]


# -- which Wikipedia -----------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("wiki", ["en", "ja", "ltg"])
def test_ranges_of_real_dumps_in_many_streams(shared_data: pathlib.Path, wiki: str) -> None:
    (path,) = (shared_data / "dumps" / "multistream").glob(f"{wiki}wiki-*-multistream.xml.bz2")
    index = bz2.decompress(path.with_name(path.name.replace(".xml.bz2", "-index.txt.bz2")).read_bytes()).decode()
    streams = {int(line.split(":")[0]) for line in index.splitlines()}
    data = path.read_bytes()
    if wiki == "ja":
        # The largest: what stands before a stream in the middle has more than a hundred articles too.
        data = data[: min(place for place in streams if place > 1_300_000)]
    whole = in_ranges(data, [])
    assert whole[0] == read(bz2.decompress(data))[0]
    assert len(whole[0]) > 100
    for step in (40_000, 300_001):
        assert in_ranges(data, list(range(step, len(data), step))) == whole
    # Blocks begin four bytes behind each place that the index names.
    assert {place for place in streams if place < len(data)} <= {piece.place - 4 for piece in read_blocks(io.BytesIO(data))}


@pytest.mark.parametrize("name", ["enwiki-latest-pages-articles1*", "ltgwiki-latest*", "ukwiki-truncated*"])
def test_ranges_of_real_dumps_in_one_stream(shared_data: pathlib.Path, name: str) -> None:
    (path,) = (shared_data / "dumps").glob(name)
    data = path.read_bytes()
    if "truncated" in name:
        data = data[:900_000]
    whole = in_ranges(data, [])
    assert len(whole[0]) > 100
    assert in_ranges(data, list(range(100_000, len(data), 100_000))) == whole
