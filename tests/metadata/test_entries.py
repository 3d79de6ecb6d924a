from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata.entries import (
    ENTRIES_SCHEMA,
    SOURCES,
    Candidates,
    append_extra,
    entries_checksum,
    entries_from_json,
    entries_to_json,
    extra_from_text,
    merge_lists,
    never_matching,
    select_entries,
    strings_of_json,
)
from metadata.ngrams import NGRAM_SCHEMA
from metadata.recipes import Recipe, recipe
from metadata.tally import Tally
from metadata.text import PUNCTUATION, normalize_text, pattern_of_entry, rule_set, space_texts
from metadata.titles import VIEWS_SCHEMA

_OPEN = replace(recipe("metaclip2"), numbers=2, unigram_top_share=None, bigram_share=None, title_top_share=None)


def _from_json(data: bytes) -> pa.Table:
    tally = Tally()
    table = entries_from_json(data, tally=tally)
    assert tally.balanced
    assert tally.emitted == len(table)
    return table


def _unigrams(counts: dict[str, int]) -> pa.Table:
    return pa.table(
        [pa.array(counts, pa.string()), pa.array(counts.values(), pa.int64()), pa.nulls(len(counts), pa.float64())], schema=NGRAM_SCHEMA
    )


def _bigrams(ratios: dict[str, float]) -> pa.Table:
    return pa.table(
        [pa.array(ratios, pa.string()), pa.array([9] * len(ratios), pa.int64()), pa.array(ratios.values(), pa.float64())],
        schema=NGRAM_SCHEMA,
    )


def _titles(views: dict[str, int]) -> pa.Table:
    langs, ranges = pa.array(["lv"] * len(views), pa.string()), pa.array([0] * len(views), pa.int16())
    return pa.table([langs, ranges, pa.array(views, pa.string()), pa.array(views.values(), pa.int64())], schema=VIEWS_SCHEMA)


def _rows(table: pa.Table) -> list[tuple[str, str, float | None]]:
    assert table.schema == ENTRIES_SCHEMA
    assert table["id"].to_pylist() == list(range(table.num_rows))
    assert len(set(table["entry"].to_pylist())) == table.num_rows
    return list(zip(table["entry"].to_pylist(), table["source"].to_pylist(), table["score"].to_pylist(), strict=True))


def _list(*rows: tuple[str, str]) -> pa.Table:
    """A list of (entry, source), scored by their places."""
    return pa.table(
        [
            pa.array(range(len(rows)), pa.int32()),
            pa.array([entry for entry, _ in rows], pa.string()),
            pa.array([source for _, source in rows], pa.string()).cast(ENTRIES_SCHEMA.field("source").type),
            pa.array(range(len(rows)), pa.float64()),
        ],
        schema=ENTRIES_SCHEMA,
    )


def test_sources_are_merged_in_order_and_the_first_to_name_an_entry_keeps_it() -> None:
    candidates = Candidates(
        wordnet=["zebra", "Riga", "1"],
        unigrams=_unigrams({"Riga": 50, "the": 40, "The": 30, "0": 20}),
        bigrams=_bigrams({"the Riga": 0.5, "zebra": 0.75, "Old Town": 0.25}),
        tokens=1024,
        titles=_titles({"Old Town": 7, "Daugava": 3, "The": 90, "Venta": 4}),
    )
    assert _rows(select_entries(candidates, _OPEN)) == [
        ("0", "number", None),
        ("1", "number", None),
        ("Riga", "wordnet", None),
        ("zebra", "wordnet", None),
        ("the", "unigram", 40.0),
        ("The", "unigram", 30.0),
        ("the Riga", "bigram", 9.0),
        ("Old Town", "bigram", 8.0),
        ("Venta", "title", 4.0),
        ("Daugava", "title", 3.0),
    ]


def test_without_candidates_the_numbers_remain() -> None:
    for name in ("metaclip1", "metaclip2"):
        assert [entry for entry, _, _ in _rows(select_entries(Candidates(), recipe(name)))] == [str(number) for number in range(100)]


def test_what_is_no_entry_is_dropped() -> None:
    candidates = Candidates(
        wordnet=["", " ", "\u3000", " padded ", "x" * 256, "x" * 257, "...", ". ;", "。", "«»", "$", "-1", "a."],
        unigrams=_unigrams({"--": 9, "¿": 8, "ok": 7}),
        titles=_titles({"-": 100, "padded  ": 9, "?!": 8, "😀": 1}),
    )
    assert [entry for entry, _, _ in _rows(select_entries(candidates, replace(_OPEN, numbers=0)))] == [
        "-1",
        "a.",
        "padded",
        "x" * 256,
        "ok",
        "😀",
    ]


def test_a_cap_counts_new_entries_only() -> None:
    candidates = Candidates(
        wordnet=["a", "b", "c"],
        unigrams=_unigrams({"a": 100, "b": 90, ".": 85, "d": 80, "c": 70, ",": 65, "e": 60, "f": 50}),
        bigrams=_bigrams({"a": 0.9, "d": 0.8, "g h": 0.7, "i j": 0.6}),
        tokens=100,
        titles=_titles({"e": 9, "g h": 8, "f": 7, "k": 6, "l": 5}),
    )
    capped = replace(_OPEN, numbers=0, unigram_cap=2, bigram_cap=1, title_cap=2)
    assert [(entry, source) for entry, source, _ in _rows(select_entries(candidates, capped))][3:] == [
        ("d", "unigram"),
        ("e", "unigram"),
        ("g h", "bigram"),
        ("f", "title"),
        ("k", "title"),
    ]


def test_a_ranking_that_begins_with_much_that_is_no_entry_is_followed_down() -> None:
    marks = sorted(PUNCTUATION)[:600]
    candidates = Candidates(unigrams=_unigrams({**{mark: 1_000 - place for place, mark in enumerate(marks)}, "last": 1, "left out": 0}))
    assert [entry for entry, _, _ in _rows(select_entries(candidates, replace(_OPEN, numbers=0, unigram_cap=1)))] == ["last"]


def test_bigrams_are_a_share_of_the_unigrams_that_were_added() -> None:
    words = {f"w{number:02}": 100 - number for number in range(40)}
    candidates = Candidates(
        wordnet=[f"w{number:02}" for number in range(5)],
        unigrams=_unigrams(words),
        bigrams=_bigrams({f"{word} {word}": 1 / count for word, count in words.items()}),
        tokens=10_000,
        titles=_titles({f"Title {number}": number for number in range(1, 11)}),
    )
    sources = [source for _, source, _ in _rows(select_entries(candidates, replace(recipe("metaclip2"), unigram_top_share=0.5)))]
    # Half of 40 unigrams, 5 of which WordNet has; 40 % of 15; 76 % of 10, rounded.
    assert {source: sources.count(source) for source in SOURCES} == {
        "number": 100,
        "wordnet": 5,
        "unigram": 15,
        "bigram": 6,
        "title": 8,
        "extra": 0,
    }


def test_version_2_leaves_pieces_of_numbers_and_explanations_out() -> None:
    candidates = Candidates(
        unigrams=_unigrams({"000": 9, "km": 8, "2000": 7, "०००": 6, "0": 5, "a0": 4, "007": 3}),
        bigrams=_bigrams({"000 km": 0.9, "2000 km": 0.8, "ISBN 0": 0.7, "००० हेक्टर": 0.6, "100 000": 0.5, "a0 km": 0.4}),
        tokens=10,
        titles=_titles({"Android (robot)": 4, "Android (film)": 3, "007": 6, "000 (x)": 2, "? (film)": 8}),
    )
    kept = [(entry, score) for entry, _, score in _rows(select_entries(candidates, replace(_OPEN, numbers=0)))]
    assert kept == [
        ("km", 8), ("2000", 7), ("a0", 4), ("2000 km", 3.0), ("a0 km", 2.0), ("Android", 7), ("007", 6), ("000", 2),
    ]  # fmt: skip
    published = [entry for entry, _, _ in _rows(select_entries(candidates, replace(_OPEN, numbers=0, trimmed=False)))]
    assert published == [
        *("000", "km", "2000", "०००", "0", "a0", "007"), *("000 km", "2000 km", "ISBN 0", "००० हेक्टर", "100 000", "a0 km"),
        *("? (film)", "Android (robot)", "Android (film)", "000 (x)"),
    ]  # fmt: skip


def test_version_1_asks_for_counts_and_views() -> None:
    candidates = Candidates(
        unigrams=_unigrams({"often": 100, "rare": 99}),
        bigrams=_bigrams({"very rare": 0.1}),
        tokens=10,
        titles=_titles({"Seen": 70, "Hardly seen": 69}),
    )
    assert [entry for entry, _, _ in _rows(select_entries(candidates, recipe("metaclip1")))][100:] == ["often", "very rare", "Seen"]


_WORDS = st.text("ab.Ä 0", max_size=3)
_RECIPES = st.builds(
    replace,
    st.sampled_from([recipe("metaclip1"), recipe("metaclip2")]),
    numbers=st.integers(0, 3),
    unigram_min_count=st.none() | st.integers(1, 3),
    unigram_top_share=st.none() | st.sampled_from([0.1, 0.5, 0.9]),
    unigram_cap=st.integers(0, 6),
    bigram_share=st.none() | st.sampled_from([0.4, 1.0]),
    bigram_cap=st.integers(0, 5),
    bigram_pmi_floor=st.none() | st.just(3.0),
    title_min_views=st.none() | st.integers(1, 3),
    title_top_share=st.none() | st.just(0.76),
    title_cap=st.integers(0, 5),
    max_characters=st.integers(1, 3),
)


def _tie(text: str, size: int) -> int:
    digest = blake2b(text.encode(), digest_size=size).digest()
    return int.from_bytes(digest, "little" if size == 8 else "big")


def _brute_force(
    wordnet: list[str],
    unigrams: dict[str, int],
    bigrams: dict[str, float],
    tokens: int,
    titles: dict[str, int],
    used: Recipe,
) -> list[tuple[str, str]]:
    """The rules of merging said one entry at a time."""
    entries: dict[str, str] = {str(number): "number" for number in range(used.numbers)}

    def take(source: str, texts: list[str], cap: float = float("inf")) -> None:
        for text in texts:
            entry = text.strip()
            only_marks = all(character in PUNCTUATION or character == " " for character in entry)
            is_gram = source in ("unigram", "bigram")
            piece = used.trimmed and is_gram and any(word[0] == "0" and word.isdigit() for word in entry.split())
            if cap > 0 and entry not in entries and not only_marks and not piece and len(entry) <= used.max_characters:
                entries[entry] = source
                cap -= 1

    def head(scores: dict[str, Any], share: float | None, least: float | None, size: int) -> list[str]:
        ranking = sorted(scores, key=lambda text: (-scores[text], _tie(text, size)))
        if share is not None:
            ranking = ranking[: round(Fraction(str(share)) * len(scores))]
        return [text for text in ranking if least is None or scores[text] >= least]

    take("wordnet", sorted(text.strip() for text in wordnet))
    take("unigram", head(unigrams, used.unigram_top_share, used.unigram_min_count, 16), used.unigram_cap)
    bigram_cap: float = used.bigram_cap
    if used.bigram_share is not None:
        bigram_cap = min(bigram_cap, round(Fraction(str(used.bigram_share)) * list(entries.values()).count("unigram")))
    floor = None if used.bigram_pmi_floor is None else 2**used.bigram_pmi_floor / tokens
    take("bigram", head(bigrams, None, floor, 16), bigram_cap)
    take("title", head(titles, used.title_top_share, used.title_min_views, 8), used.title_cap)
    return list(entries.items())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_WORDS, max_size=5),
    st.dictionaries(_WORDS, st.integers(1, 4), max_size=12),
    st.dictionaries(_WORDS, st.sampled_from([0.125, 0.25, 0.5, 1.0]), max_size=12),
    st.dictionaries(_WORDS, st.integers(1, 4), max_size=12),
    _RECIPES,
    st.randoms(use_true_random=False),
)
def test_merging_is_what_a_naive_merge_does_in_any_order_of_the_candidates(
    wordnet: list[str],
    unigrams: dict[str, int],
    bigrams: dict[str, float],
    titles: dict[str, int],
    used: Recipe,
    random: Any,
) -> None:
    def shuffled(scores: dict[str, Any]) -> dict[str, Any]:
        return dict(random.sample(sorted(scores.items()), len(scores)))

    def build() -> pa.Table:
        return select_entries(
            Candidates(
                wordnet=random.sample(wordnet, len(wordnet)),
                unigrams=_unigrams(shuffled(unigrams)),
                bigrams=_bigrams(shuffled(bigrams)),
                tokens=32,
                titles=_titles(shuffled(titles)),
            ),
            used,
        )

    table = build()
    assert [(entry, source) for entry, source, _ in _rows(table)] == _brute_force(wordnet, unigrams, bigrams, 32, titles, used)
    assert build().equals(table)


def test_lists_are_merged_source_by_source() -> None:
    own = _list(("0", "number"), ("a", "wordnet"), ("b", "unigram"), ("c", "title"))
    other = _list(("0", "number"), ("b", "wordnet"), ("d", "unigram"), ("c", "bigram"), ("e", "extra"))
    third = _list(("1", "number"), ("d", "unigram"), ("f", "unigram"), ("g", "title"))
    assert _rows(merge_lists([own, other, third])) == [
        ("0", "number", 0.0),
        ("1", "number", 0.0),
        ("a", "wordnet", 1.0),
        ("b", "wordnet", 1.0),
        ("d", "unigram", 2.0),
        ("f", "unigram", 2.0),
        ("c", "bigram", 3.0),
        ("g", "title", 3.0),
        ("e", "extra", 4.0),
    ]


def test_one_list_or_none_is_merged_into_itself() -> None:
    table = _list(("0", "number"), ("a", "wordnet"), ("b", "unigram"))
    assert _rows(merge_lists([table])) == _rows(table)
    assert merge_lists([]).equals(ENTRIES_SCHEMA.empty_table())
    plain_strings = table.set_column(2, "source", table["source"].cast(pa.string()))
    assert _rows(merge_lists([plain_strings, table])) == _rows(table)


def test_a_list_with_another_source_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown sources of entries: \['rumour'\]"):
        merge_lists([_list(("a", "rumour"))])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(SOURCES)), max_size=6), max_size=4))
def test_merging_lists_is_what_a_naive_merge_does(lists: list[list[tuple[str, str]]]) -> None:
    expected: dict[str, str] = {}
    for source in SOURCES:
        for rows in lists:
            for entry, its_source in rows:
                if its_source == source:
                    expected.setdefault(entry, source)
    merged = merge_lists(_list(*rows) for rows in lists)
    assert [(entry, source) for entry, source, _ in _rows(merged)] == list(expected.items())


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))


@given(st.lists(_TEXT, min_size=1, max_size=8, unique=True))
def test_json_is_a_plain_list_and_comes_back_as_it_was(entries: list[str]) -> None:
    table = _from_json(json.dumps(entries).encode())
    assert _rows(table) == [(entry, "extra", None) for entry in entries]
    data = entries_to_json(table)
    assert json.loads(data) == entries
    assert _from_json(data).equals(table)


def test_json_entries_stay_verbatim_and_once() -> None:
    assert [entry for entry, _, _ in _rows(_from_json(b'["b", " a ", "...", "b", "B"]'))] == ["b", " a ", "...", "B"]
    assert entries_to_json(_from_json('["Köln"]'.encode())) == '["Köln"]'.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JSON: Expecting value: line 1 column 1"),
        (b'["a", ]', "no JSON: .* line 1 column"),
        (b'["\xff"]', "no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "no JSON: maximum recursion depth"),
        (b'{"a": 1}', "must be a JSON list of strings, not dict"),
        (b'"a"', "must be a JSON list of strings, not str"),
        (b"[]", "the list of entries is empty"),
        (b'["a", 7]', "item 1 of the entries is no string but int: 7"),
        (b'["a", null]', "item 1 of the entries is no string but NoneType"),
        (b'["a", "b", ["c"]]', "item 2 of the entries is no string but list"),
        (b'["a", " "]', "item 1 of the entries is blank"),
        (rb'["a", "\ud800"]', "item 1 of the entries holds half a surrogate pair"),
    ],
)
def test_other_json_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _from_json(data)


def test_the_checksum_is_one_of_entries_and_order() -> None:
    tables = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab"], ["ab", "C"]]
    checksums = [entries_checksum(_from_json(json.dumps(entries).encode())) for entries in tables]
    assert len(set(checksums)) == len(tables)
    assert checksums[0] == blake2b(bytes([2, 0, 0, 0, 1, 0, 0, 0]) + b"abc", digest_size=16).hexdigest()
    chunked = pa.concat_tables([_list(("ab", "title")), _list(("c", "number"))])
    assert entries_checksum(chunked) == checksums[0]


def test_entries_that_can_never_match_are_counted() -> None:
    table = _from_json(b'["St. Louis", "Washington, D.C.", "plain", "a : b", "What?", "a\\tb", "c\\nd", "e\\rf, g"]')
    assert never_matching(table, rule_set("published")) == 6
    assert never_matching(table, rule_set("unicode")) == 3


@given(
    st.text("ab.,\t «犬", min_size=1, max_size=5).filter(lambda text: bool(text.strip())),
    st.sampled_from(["default", "default-v1", "unicode"]),
)
def test_an_entry_never_matches_if_no_text_holds_it(entry: str, rules_name: str) -> None:
    """Every text that could hold the entry is the entry itself in some neighbourhood, with or without the spaces around its marks."""
    rules = rule_set(rules_name)
    written = [entry, *("".join(part) for part in _without_single_spaces(entry))]
    texts = [normalize_text(f"{left}{text}{right}") for text in written for left in ("", "x", "x ") for right in ("", "x", " x")]
    pattern = pattern_of_entry(entry, rules)
    found = any(pattern in spaced for spaced in space_texts([text for text in texts if text], rules))
    assert never_matching(_from_json(json.dumps([entry]).encode()), rules) == (not found)


def _without_single_spaces(entry: str) -> list[list[str]]:
    """The entry with any of its spaces left out."""
    ways: list[list[str]] = [[]]
    for character in entry:
        ways = [[*way, kept] for way in ways for kept in ([character] if character != " " else [" ", ""])]
    return ways


# -- extra entries -------------------------------------------------------------------------------------------------------------------


def test_extra_entries_come_last_and_every_line_is_accounted_for() -> None:
    table = _list(("0", "number"), ("Venta", "title"))
    tally = Tally()
    lines = ["mine", "", "Venta", " also mine\r", "mine", "...", "x" * 257, "x" * 256, " \t", "Mine"]
    result = append_extra(table, lines, max_characters=256, tally=tally)
    assert _rows(result) == [
        *_rows(table),
        ("mine", "extra", None),
        ("also mine", "extra", None),
        ("x" * 256, "extra", None),
        ("Mine", "extra", None),
    ]
    assert (tally.read, tally.emitted) == (10, 4)
    assert tally.dropped == {"blank_entry": 2, "entry_too_long": 1, "only_punctuation": 1, "repeated_entry": 2}
    assert tally.balanced


def test_without_extra_entries_a_list_stays_what_it_is() -> None:
    table = _list(("0", "number"), ("a", "extra"))
    assert _rows(append_extra(table, [], max_characters=256, tally=Tally())) == _rows(table)
    assert _rows(append_extra(ENTRIES_SCHEMA.empty_table(), ["a"], max_characters=256, tally=Tally())) == [("a", "extra", None)]


@given(st.lists(_WORDS, max_size=6), st.lists(_WORDS.map(str.strip).filter(bool), unique=True, max_size=4), st.integers(1, 3))
def test_extra_entries_are_what_a_naive_loop_keeps(lines: list[str], there: list[str], most: int) -> None:
    expected: list[str] = []
    for entry in map(str.strip, lines):
        only_marks = all(character in PUNCTUATION or character == " " for character in entry)
        if not only_marks and len(entry) <= most and entry not in there and entry not in expected:
            expected.append(entry)
    tally = Tally()
    table = append_extra(_list(*((entry, "title") for entry in there)), lines, max_characters=most, tally=tally)
    assert table["entry"].to_pylist() == there + expected
    assert tally.balanced
    assert (tally.read, tally.emitted) == (len(lines), len(expected))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\n", ["a", ""]),
        (b"\xef\xbb\xbfa\r\nb", ["a\r", "b"]),
        ("a\u2028b\x0bc\x85d".encode(), ["a\u2028b\x0bc\x85d"]),
    ],
)
def test_a_line_ends_at_a_newline_only(data: bytes, lines: list[str]) -> None:
    assert extra_from_text(data) == lines


@pytest.mark.parametrize(("data", "line"), [(b"\xff", 1), (b"a\nb\nK\xf6ln\nd", 3), (b"\xef\xbb\xbf\n\xff", 2), ("a".encode("utf-16"), 1)])
def test_a_file_in_another_encoding_is_told_with_the_line(data: bytes, line: int) -> None:
    with pytest.raises(ValueError, match=rf"^line {line} is no UTF-8 \(invalid .*\): save the file as UTF-8$"):
        extra_from_text(data)


def test_json_may_hold_blanks_where_it_is_no_whole_list() -> None:
    assert strings_of_json(b'["a", "", "a"]') == ["a", "", "a"]
    assert strings_of_json(b"[]") == []
    with pytest.raises(ValueError, match="item 1 of the entries is no string but int: 1"):
        strings_of_json(b'["a", 1]')
