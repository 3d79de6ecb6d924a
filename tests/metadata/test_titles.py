from __future__ import annotations

import bz2
import gzip
import io
import pathlib
import zlib
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from hashlib import blake2b

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata import compressed
from metadata import titles as titles_module
from metadata.tally import Tally
from metadata.titles import RANGES, VIEWS_SCHEMA, count_views, merge_views, select_titles, title_range, without_explanations

Views = dict[tuple[str, str], int]


def _views(tables: list[pa.Table]) -> Views:
    """Views by (lang, title), after checking each table's form."""
    total: Counter[tuple[str, str]] = Counter()
    for table in tables:
        assert table.schema == VIEWS_SCHEMA
        rows = table.to_pylist()
        keys = [(row["lang"], row["range"], row["title"].encode()) for row in rows]
        assert keys == sorted(set(keys))
        assert all(row["range"] == title_range(row["title"].encode()) for row in rows)
        for row in rows:
            total[row["lang"], row["title"]] += row["views"]
    return dict(total)


def _count(data: bytes) -> tuple[Views, Tally]:
    tally = Tally()
    views = _views(list(count_views(io.BytesIO(data), tally=tally)))
    assert tally.balanced
    return views, tally


def _table(views: dict[str, int]) -> pa.Table:
    return pa.table({"title": list(views), "views": pa.array(views.values(), pa.int64())})


def test_only_desktop_and_mobile_wikipedia_count() -> None:
    lines = [
        b"en Main_Page 7 0",
        b"en.m Main_Page 5 0",
        b"en.b Main_Page 100 0",
        b"en.m.b Main_Page 100 0",
        b"en.zero Main_Page 100 0",
        b"commons.m Main_Page 100 0",
        b"www.wd Q42 100 0",
        b'"" - 100 0',
        b"xyzzy Main_Page 100 0",
        "zh-min-nan Thâu-ia̍h 3 0".encode(),
        "nan.m Thâu-ia̍h 4 0".encode(),
        b"als Bern 1 0",
        b"sq Bern 2 0",
        b"en Talk:Main_Page 9 0",
        b"en Nobody 0 0",
        b"en main_Page 1 0",
        b'en "Weird_Al"_Yankovic 2 0',
    ]
    views, tally = _count(b"\n".join(lines) + b"\n")
    assert views == {
        ("en", "Main Page"): 12,
        ("en", "main Page"): 1,
        ("en", '"Weird Al" Yankovic'): 2,
        ("zh_min_nan", "Thâu-ia̍h"): 7,
        ("als", "Bern"): 1,
        ("sq", "Bern"): 2,
    }
    assert tally.counters() == {
        "read": 17,
        "emitted": 8,
        "dropped": {"other_project": 5, "title_with_colon": 1, "unknown_domain": 2, "zero_views": 1},
        "dead_letters": 0,
        "dead_letter_reasons": {},
        "files": 1,
        "bad_files": 0,
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not_four_fields"),
        (b"en", "not_four_fields"),
        (b"en Title 5", "not_four_fields"),
        (b"en Title with spaces 5 0", "not_four_fields"),
        (b"en.b Title with spaces 5 0", "not_four_fields"),
        (b"en  5 0", "empty_title"),
        (b"en Title  0", "views_not_a_number"),
        (b"en Title five 0", "views_not_a_number"),
        (b"en Title -5 0", "views_not_a_number"),
        (b"en Title 5.0 0", "views_not_a_number"),
        (b"en Title 5x 0", "views_not_a_number"),
        (b"en Title \xd9\xa5 0", "views_not_a_number"),
        (b"en Title 10000000000 0", "views_too_large"),
        (b"en Title 99999999999999999999999 0", "views_too_large"),
        (b"en Title 5 ", "bytes_not_a_number"),
        (b"en Title 5 x", "bytes_not_a_number"),
        (b"en Title 5 0\r", "bytes_not_a_number"),
        (b"en \xff\xfe 5 0", "invalid_utf8"),
        (b"en %ff 5 0", "invalid_utf8"),
        (b"en \xed\xa0\x80 5 0", "invalid_utf8"),
        (b"en A\x00B 5 0", "control_character"),
        (b"en A\tB 5 0", "control_character"),
        (b"en \x7f 5 0", "control_character"),
        (b"en A%0AB 5 0", "control_character"),
        (b"en A%00:B 5 0", "control_character"),
        (b"en A 5\x00 0", "views_not_a_number"),
        (b"en A 5 0\x00", "bytes_not_a_number"),
        (b"en " + b"x" * (1 << 16) + b" 5 0", "line_too_long"),
    ],
)
def test_a_broken_line_is_a_dead_letter_with_its_number(line: bytes, reason: str) -> None:
    views, tally = _count(b"\n".join([b"en Before 1 0", b"en.b Other 1 0", line, b"en After 9999999999 123456789012345678", b""]))
    assert views == {("en", "Before"): 1, ("en", "After"): 9_999_999_999}
    [letter] = tally.letters
    assert (letter.reason, letter.place, letter.payload) == (reason, 3, line[:4096])
    assert (tally.read, tally.emitted, tally.bad_file) == (4, 2, "")


def test_control_characters_elsewhere_do_no_harm() -> None:
    views, tally = _count(b"e\x00n A 1 0\nen.b \x00 1 0\nen \xc2\x85 1 0\nen %7E%257F 1 0\nen \xf0\x9f\x98\x80 1 0\n")
    assert views == {("en", "\x85"): 1, ("en", "~%7F"): 1, ("en", "😀"): 1}
    assert (dict(tally.dropped), dict(tally.dead)) == ({"other_project": 1, "unknown_domain": 1}, {})


def test_titles_of_the_old_form_are_decoded() -> None:
    lines = [
        b"de K%C3%B6ln 1 9",
        "de Köln 2 0".encode(),
        b"de K%c3%b6ln%20Hauptbahnhof%5FWest 4 9",
        b"de Spezial%3ASuche 8 9",
        b"de 100% 16 0",
        b"de 100%_Wolle 32 0",
    ]
    views, tally = _count(b"\n".join(lines))
    assert views == {("de", "Köln"): 3, ("de", "Köln Hauptbahnhof West"): 4, ("de", "100%"): 16, ("de", "100% Wolle"): 32}
    assert dict(tally.dropped) == {"title_with_colon": 1}


_LINES = b"".join(b"en%s Title_%d %d 0\n" % (b".m" if number % 3 else b"", number // 2, number + 1) for number in range(1_000))
_EXPECTED = {("en", f"Title {number}"): 4 * number + 3 for number in range(500)}


@pytest.mark.parametrize(
    "data",
    [
        _LINES,
        _LINES[:-1],
        gzip.compress(_LINES, mtime=0),
        gzip.compress(_LINES[:3333], mtime=0) + gzip.compress(_LINES[3333:], mtime=0),
        gzip.compress(_LINES, mtime=0) + bytes(10_000),
        bz2.compress(_LINES),
        bz2.compress(_LINES[:3333]) + bz2.compress(_LINES[3333:]),
    ],
)
def test_compression_is_told_by_content(data: bytes) -> None:
    views, tally = _count(data)
    assert views == _EXPECTED
    assert (tally.read, tally.emitted, tally.bad_file) == (1_000, 1_000, "")


def test_empty_files_hold_nothing() -> None:
    assert _count(b"")[1].counters() == Tally().counters()
    assert _count(gzip.compress(b""))[1].counters() == Tally().counters()
    assert _count(b"en.b Title 1 0\n")[0] == {}


@pytest.mark.parametrize("compress", [lambda data: gzip.compress(data, 6, mtime=0), bz2.compress])
def test_of_a_file_cut_off_the_whole_lines_before_the_cut_count(compress: Callable[[bytes], bytes]) -> None:
    data = b"".join(b"en %s 1 0\n" % blake2b(b"%d" % number).hexdigest().encode() for number in range(60_000))
    compressed = compress(data)
    cut = compressed[: len(compressed) * 2 // 3]
    decompressor = zlib.decompressobj(31) if cut[:2] == b"\x1f\x8b" else bz2.BZ2Decompressor()
    left = decompressor.decompress(cut)
    whole = left.count(b"\n")
    assert 20_000 < whole < 60_000

    views, tally = _count(cut)
    assert len(views) == tally.emitted == whole
    assert tally.read == whole + 1
    [letter] = tally.letters
    assert (letter.reason, letter.place, letter.payload) == ("truncated", whole + 1, left[left.rindex(b"\n") + 1 :])
    assert tally.bad_file == "truncated"


def test_corrupt_data_end_a_file() -> None:
    data = gzip.compress(_LINES, mtime=0)
    views, tally = _count(data + b"no gzip")
    assert views == _EXPECTED
    assert (tally.read, dict(tally.dead), tally.bad_file) == (1_001, {"invalid_compression": 1}, "invalid_compression")
    assert tally.letters[0].place == 1_001

    tally = _count(bz2.compress(_LINES)[:20] + b"x" * 200)[1]
    assert (tally.read, tally.emitted, tally.bad_file) == (1, 0, "invalid_compression")


def test_an_error_of_reading_is_not_taken_for_a_damaged_file() -> None:
    class Unplugged(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError("connection lost")
            return super().read(size)

    tally = Tally()
    with pytest.raises(OSError, match="connection lost"):
        list(count_views(Unplugged(bz2.compress(_LINES)), tally=tally))
    assert not tally.bad_file


def test_lines_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _count(_LINES)[0]
    for size in (1, 13, 40, 1_000):
        monkeypatch.setattr(titles_module, "_BLOCK_BYTES", size)
        assert _count(_LINES)[0] == whole
        assert _count(gzip.compress(_LINES))[0] == whole


def test_a_line_without_end_is_held_in_part_and_numbered_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(titles_module, "_BLOCK_BYTES", 1 << 17)
    long = b"en " + b"y" * (1 << 20)
    views, tally = _count(b"en A 1 0\n" + long + b" 1 0\nen B 2 0\nbroken\n" + long)
    assert views == {("en", "A"): 1, ("en", "B"): 2}
    assert [(letter.reason, letter.place) for letter in tally.letters] == [
        ("line_too_long", 2),
        ("not_four_fields", 4),
        ("line_too_long", 5),
    ]
    assert tally.read == 5


def test_memory_is_bounded_by_more_tables() -> None:
    tally = Tally()
    blocks = list(count_views(io.BytesIO(_LINES), tally=tally, max_bytes=1))
    assert merge_views(blocks).equals(merge_views(count_views(io.BytesIO(_LINES), tally=Tally())))
    assert tally.emitted == 1_000


def test_many_small_blocks_give_tables_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(titles_module, "_BLOCK_BYTES", 500)
    monkeypatch.setattr(titles_module, "_FEED_BYTES", 500)
    monkeypatch.setattr(compressed, "_CHUNK_BYTES", 500)
    blocks = list(count_views(io.BytesIO(_LINES), tally=Tally(), max_bytes=4_000))
    assert len(blocks) == 6
    assert max(block.num_rows for block in blocks) < 250
    assert _views(blocks) == _EXPECTED


_DOMAINS = st.sampled_from(["en", "en.m", "de", "zh-min-nan", "be-x-old", "be-tarask.m", "en.b", "nosuch", "commons.m"])
_TITLES = st.text(st.characters(exclude_characters=" \n", exclude_categories=["Cs"]) | st.sampled_from("\0\t\x7f"), min_size=1, max_size=4)
_WIKIS = {"en": "en", "en.m": "en", "de": "de", "zh-min-nan": "zh_min_nan", "be-x-old": "be_tarask", "be-tarask.m": "be_tarask"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_DOMAINS, _TITLES, st.integers(0, 3)), max_size=30), st.integers(1, 400))
def test_counting_is_what_a_dictionary_does(lines: list[tuple[str, str, int]], max_bytes: int) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    dead: Counter[str] = Counter()
    for domain, title, views in lines:
        if domain in _WIKIS and views:
            if any(c < " " or c == "\x7f" for c in title):
                dead["control_character"] += 1
            elif ":" not in title:
                expected[_WIKIS[domain], title.replace("_", " ")] += views
    data = "".join(f"{domain} {title} {views} 0\n" for domain, title, views in lines).encode()
    tally = Tally()
    blocks = list(count_views(io.BytesIO(data), tally=tally, max_bytes=max_bytes))
    assert _views(blocks) == dict(expected)
    assert tally.balanced
    assert (tally.read, tally.dead) == (len(lines), dead)
    merged = merge_views(blocks)
    assert _views([merged]) == dict(expected)
    assert merge_views(blocks[::-1]).equals(merged)
    assert merge_views([merge_views(blocks[:1]), merge_views(blocks[1:])]).equals(merged)


def test_merging_nothing_and_merging_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert merge_views([]).equals(VIEWS_SCHEMA.empty_table())
    blocks = list(count_views(io.BytesIO(_LINES), tally=Tally()))
    monkeypatch.setattr(titles_module, "_MERGE_ROWS", 1)
    assert merge_views(blocks * 3)["views"].to_pylist() == [3 * views for views in blocks[0]["views"].to_pylist()]


def test_views_of_an_unknown_language_are_refused() -> None:
    block = pa.table({"lang": ["xx"], "range": [1], "title": ["A"], "views": [1]}).cast(VIEWS_SCHEMA)
    with pytest.raises(ValueError, match=r"unknown languages: \['xx'\]"):
        merge_views([block])


def test_the_range_of_a_title() -> None:
    assert [title_range(title.encode()) for title in ("A", "Köln", "List of sovereign states", "東京")] == [60, 59, 28, 24]


@pytest.mark.parametrize("form", ["{}", "List of {} of the world", "Category {}", "{} (disambiguation)"])
def test_ranges_are_of_one_size(form: str) -> None:
    sizes = Counter(title_range(form.format(n).encode()) for n in range(64_000))
    assert len(sizes) == RANGES
    # A thousand each: no pattern of titles makes one half as large again.
    assert max(sizes.values()) < 1_500


def test_version_1_selects_by_least_views() -> None:
    table = _table({"A": 69, "B": 70, "C": 71, "D": 1})
    assert select_titles(table, min_views=70, top_share=None, cap=10)["title"].to_pylist() == ["C", "B"]
    assert select_titles(table, min_views=70, top_share=None, cap=1)["title"].to_pylist() == ["C"]


def test_version_2_selects_a_share_of_the_titles_seen() -> None:
    table = _table({f"T{views}": views for views in range(1, 101)})
    selected = select_titles(table, min_views=None, top_share=0.76, cap=1_000)
    assert selected["views"].to_pylist() == list(range(100, 24, -1))
    assert select_titles(table, min_views=None, top_share=0.07, cap=None).num_rows == 7
    assert select_titles(table, min_views=None, top_share=0.76, cap=3)["title"].to_pylist() == ["T100", "T99", "T98"]
    assert select_titles(table, min_views=None, top_share=0.76, cap=0).num_rows == 0
    assert select_titles(VIEWS_SCHEMA.empty_table(), min_views=None, top_share=0.76, cap=5).schema == VIEWS_SCHEMA


def test_titles_lose_an_explanation_in_brackets() -> None:
    titles = {
        "Android (robot)": 5, "Android": 7, "Lītne (kimeja) (1991)": 2, "Lītne": 1, "(500) Days": 3, "A(b)": 4, "Foo (a (b))": 6,
        "? (film)": 1, "C (a) d": 1, "EU (曖昧さ回避)": 8,
    }  # fmt: skip
    found = without_explanations(_table(titles))
    assert found.column_names == ["title", "views"]
    assert {row["title"]: row["views"] for row in found.to_pylist()} == {
        "Android": 12, "Lītne": 3, "(500) Days": 3, "A(b)": 4, "Foo (a (b))": 6, "?": 1, "C (a) d": 1, "EU": 8,
    }  # fmt: skip
    assert without_explanations(VIEWS_SCHEMA.empty_table()).num_rows == 0


_VIEW_TABLES = st.dictionaries(st.text(min_size=1, max_size=2), st.integers(1, 4), max_size=25)


@settings(max_examples=150, deadline=None)
@given(
    _VIEW_TABLES, st.none() | st.integers(1, 4), st.none() | st.sampled_from([0.0, 0.1, 0.5, 0.76, 1.0]), st.integers(0, 30), st.randoms()
)
def test_selection_is_the_head_of_the_ranking(views: dict[str, int], least: int | None, share: float | None, cap: int, random) -> None:  # type: ignore[no-untyped-def]
    views = {title: count for title, count in views.items() if title.isprintable()}
    ranking = sorted(views, key=lambda title: (-views[title], int.from_bytes(blake2b(title.encode(), digest_size=8).digest(), "little")))
    limit = len(views) if share is None else round(Fraction(str(share)) * len(views))
    expected = [title for title in ranking[: min(limit, cap)] if views[title] >= (least or 0)]
    shuffled = list(views)
    random.shuffle(shuffled)
    selected = select_titles(_table({title: views[title] for title in shuffled}), min_views=least, top_share=share, cap=cap)
    assert selected["title"].to_pylist() == expected
    assert selected["views"].to_pylist() == [views[title] for title in expected]


def test_real_lines(shared_data: pathlib.Path) -> None:
    counters = {}
    titles: dict[str, list[str]] = {}
    for path in sorted((shared_data / "pageviews" / "quoted").iterdir()):
        views, tally = _count(path.read_bytes())
        counters[path.name.partition(".")[0]] = tally.counters()
        titles[path.name.partition(".")[0]] = sorted(title for _, title in views)
    assert sum(counter["read"] for counter in counters.values()) == 58
    assert sum(counter["dead_letters"] for counter in counters.values()) == 0
    old = counters["pagecounts-2013-testlines"]
    # Afar ("aa") has no open Wikipedia.
    assert (old["emitted"], old["dropped"]) == (15, {"other_project": 8, "unknown_domain": 5})
    assert "American golden plover" in titles["pagecounts-2013-testlines"]
    assert titles["pageviews-20190701-210000"] == ["1005", "105", "1099", "1150"]


def test_hourly_files(shared_data: pathlib.Path) -> None:
    blocks: list[pa.Table] = []
    for path in sorted((shared_data / "pageviews").glob("*.gz")):
        expected: Counter[tuple[str, str]] = Counter()
        for line in gzip.decompress(path.read_bytes()).splitlines():
            fields = line.decode().split(" ")
            wiki = {"zh-min-nan": "zh_min_nan", "de": "de", "de.m": "de", "en": "en", "en.m": "en"}.get(fields[0])
            if wiki and len(fields) == 4 and fields[2].isdigit() and fields[2] != "0" and ":" not in fields[1]:
                expected[wiki, fields[1].replace("_", " ")] += int(fields[2])
        tally = Tally()
        with path.open("rb") as file:
            tables = list(count_views(file, tally=tally))
        views = _views(tables)
        assert tally.balanced
        assert {key: count for key, count in views.items() if key[0] in ("zh_min_nan", "de", "en")} == dict(expected)
        assert ("zh_min_nan", "Thâu-ia̍h") in views
        assert {reason: tally.dead[reason] for reason in ("not_four_fields", "views_not_a_number")} == {
            "not_four_fields": 2,
            "views_not_a_number": 1,
        }
        assert tally.dropped["zero_views"] == 1
        assert not any(title in ("Cookbook", "Example.jpg", "Q42") for _, title in views)
        blocks += tables
    merged = merge_views(blocks)
    assert merged["title"].to_pylist().count("Arthur Schopenhauer") >= 1
    assert sum(merged["views"].to_pylist()) == sum(sum(block["views"].to_pylist()) for block in blocks)
