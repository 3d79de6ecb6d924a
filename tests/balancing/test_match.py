"""A unit's way from pairs to matched rows, against a loop over pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.automaton import Matcher, PyahocorasickMatcher, build_automaton, open_automaton
from balancing.match import drop_repeated, in_groups, match_pairs
from balancing.pairs import MATCHED_SCHEMA, PAIR_SCHEMA
from metadata.tally import Tally
from metadata.text import rule_set

ENTRIES = {
    "de": ["a", "hund", "a hund"],
    "en": ["a", "dog", "a dog", "The", "ogre", "東"],
    "other": [],
    "zh": ["東", "東京", "a"],
}
WORDS = ["a", "dog", "hund", "The", "東京", "東", "ogre", "x", ".", ","]
#: The language of a text in this test: decided by its first word, as a language identifier decides by the text alone.
LANGUAGE_OF = {
    "a": "en",
    "dog": "en",
    "hund": "de",
    "The": "en",
    "東京": "zh",
    "東": "zh",
    "ogre": "other",
    "x": "fr",
    ".": "de",
    ",": "en",
}

Row = tuple[str, str, str]  # image id, text, source


class World:
    """An identifier and automata that keep account of what was asked of them."""

    def __init__(self, engine: str = "daachorse") -> None:
        self.engine = engine
        self.opened: list[str] = []
        self.identified: list[list[str]] = []

    def identify(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray, list[str]]:
        self.identified.append(list(texts))
        langs = [LANGUAGE_OF[text.split()[0]] for text in texts]
        return [f"lid_{lang}" for lang in langs], np.array([len(text) / 64 for text in texts]), langs

    def open_matcher(self, lang: str) -> Matcher:
        self.opened.append(lang)
        rules = rule_set("default-v1" if lang == "en" else "default")
        if self.engine == "pyahocorasick":
            return PyahocorasickMatcher(ENTRIES[lang], rules)
        return open_automaton(BytesIO(build_automaton(ENTRIES[lang], rules, entries_checksum=lang)), entries_checksum=lang)


def to_tables(rows: list[Row], cuts: Sequence[int] = ()) -> list[pa.Table]:
    columns = {
        "image_id": [row[0] for row in rows],
        "url": [f"http://{row[0]}" for row in rows],
        "page_url": [None] * len(rows),
        "text": [row[1] for row in rows],
        "source": [row[2] for row in rows],
    }
    table = pa.table(columns, schema=PAIR_SCHEMA)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return [table.slice(first, end - first) for first, end in pairwise(edges)]


def match(rows: list[Row], *, cuts: Sequence[int] = (), world: World | None = None, **options: Any) -> tuple[pa.Table, Tally]:
    world, tally = world or World(), Tally()
    table = match_pairs(
        to_tables(rows, cuts), identify=world.identify, open_matcher=world.open_matcher, languages=list(ENTRIES), tally=tally, **options
    )
    assert table.schema.equals(MATCHED_SCHEMA)
    table.validate(full=True)
    assert tally.balanced
    assert (tally.read, tally.emitted) == (len(rows), len(table))
    return table, tally


def _key(value: str) -> int:
    return int.from_bytes(blake2b(value.encode(), digest_size=8).digest(), "little")


def brute_force(rows: list[Row]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """One pair after the other, each entry searched by ``in``."""
    seen: set[tuple[str, str]] = set()
    out, dropped = [], Counter[str]()
    for image, text, source in rows:
        lang = LANGUAGE_OF[text.split()[0]]
        if (image, text) in seen:
            dropped["repeated_in_unit"] += 1
            continue
        seen.add((image, text))
        if lang not in ENTRIES:
            dropped["language_not_built"] += 1
            continue
        spaced = " " + "".join(f" {c} " if c in ",.;:?!`" else c for c in text) + " "
        pad = [entry if "東" in entry and lang != "en" else f" {entry} " for entry in ENTRIES[lang]]
        entries = [i for i, pattern in enumerate(pad) if pattern in spaced]
        if not entries:
            dropped["no_match"] += 1
            continue
        out.append(
            {
                "image_id": image,
                "url": f"http://{image}",
                "page_url": None,
                "text": text,
                "source": source,
                "lid": f"lid_{lang}",
                "lid_score": len(text) / 64,
                "lang": lang,
                "entries": entries,
                "image_key": _key(image),
                "pair_key": _key(f"{image}\0{text}"),
            }
        )
    return sorted(out, key=lambda row: (row["lang"], row["image_key"], row["pair_key"])), dropped


TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
ROWS = st.lists(st.tuples(st.sampled_from("ABCDEFG"), TEXTS, st.sampled_from(["alt", "title"])), max_size=25)
# Few texts, so that pairs are repeated across groups too.
REPEATING = st.lists(
    st.tuples(st.sampled_from("AB"), st.sampled_from(["a dog", "hund", "x", "東京"]), st.sampled_from(["alt", "title"])), max_size=25
)


@pytest.mark.parametrize("engine", ["daachorse", "pyahocorasick"])
@settings(max_examples=80, deadline=None)
@given(rows=ROWS | REPEATING)
def test_a_unit_is_matched_like_a_loop_over_its_pairs(engine: str, rows: list[Row]) -> None:
    table, tally = match(rows, world=World(engine))
    expected, dropped = brute_force(rows)
    assert table.to_pylist() == expected
    assert tally.dropped == dropped


@settings(max_examples=80, deadline=None)
@given(rows=ROWS | REPEATING, cuts=st.lists(st.integers(0, 25), max_size=4), group_rows=st.integers(1, 30))
def test_neither_cut_nor_group_shows(rows: list[Row], cuts: list[int], group_rows: int) -> None:
    whole, tally = match(rows)
    cut, cut_tally = match(rows, cuts=cuts)
    assert cut.equals(whole)
    assert cut_tally.counters() == tally.counters()
    grouped, _ = match(rows, cuts=cuts, group_rows=group_rows)
    assert grouped.to_pylist() == whole.to_pylist()
    for table in (whole, grouped):
        dictionaries = [chunk.dictionary.to_pylist() for chunk in table["lang"].chunks if len(chunk)]
        assert dictionaries == [sorted(set(table["lang"].to_pylist()))] * len(dictionaries)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, group_rows=st.integers(1, 10))
def test_an_automaton_is_opened_at_most_once_a_language_and_group(rows: list[Row], group_rows: int) -> None:
    world = World()
    match(rows, world=world, group_rows=group_rows)
    groups = [rows[i : i + group_rows] for i in range(0, len(rows), group_rows)]
    expected = [sorted({LANGUAGE_OF[text.split()[0]] for _, text, _ in group} & set(ENTRIES)) for group in groups]
    assert world.opened == [lang for langs in expected for lang in langs]


@settings(max_examples=40, deadline=None)
@given(rows=ROWS | REPEATING, keys=st.permutations(sorted(ENTRIES)), group_rows=st.integers(1, 30))
def test_the_order_in_which_automata_are_opened_does_not_show(rows: list[Row], keys: list[str], group_rows: int) -> None:
    world = World()
    table, tally = match(rows, world=world, group_rows=group_rows, opening_order=lambda langs: sorted(langs, key=keys.index))
    usual, usual_tally = match(rows, group_rows=group_rows)
    assert table.equals(usual)
    assert tally.counters() == usual_tally.counters()
    if group_rows == 30:
        assert world.opened == sorted(world.opened, key=keys.index)


def test_each_distinct_text_of_a_group_is_identified_once() -> None:
    world = World()
    rows = [(f"i{i}", f"a dog {i % 3}", "alt") for i in range(30)]
    match(rows, world=world, group_rows=20)
    assert world.identified == [["a dog 0", "a dog 1", "a dog 2"], ["a dog 2", "a dog 0", "a dog 1"]]


def test_rows_are_sorted_and_unique() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"i{rng.integers(0, 200)}", " ".join(WORDS[j] for j in rng.integers(0, len(WORDS), 4)), "alt") for _ in range(3000)]
    table, tally = match(rows, group_rows=700)
    expected, dropped = brute_force(rows)
    assert table.to_pylist() == expected
    keys = [(row["lang"], row["image_key"], row["pair_key"]) for row in table.to_pylist()]
    assert keys == sorted(set(keys))
    # A pair that is repeated across groups and matches nothing counts in each as what it is there.
    assert tally.dropped.total() == dropped.total()


def test_the_first_source_of_a_pair_stays() -> None:
    rows = [("A", "a dog", "title"), ("B", "x", "alt"), ("A", "a dog", "alt"), ("A", "a dog", "title")]
    for group_rows in (1, 2, 4):
        table, tally = match(rows, group_rows=group_rows)
        assert table["source"].to_pylist() == ["title"]
        assert tally.dropped == {"repeated_in_unit": 2, "language_not_built": 1}


def test_nothing_to_match() -> None:
    for rows in ([], [("A", "x", "alt")], [("A", "ogre", "alt")]):
        table, tally = match(rows, cuts=[0, 0])
        assert len(table) == 0
        assert tally.read == len(rows)
    assert len(match_pairs([], identify=World().identify, open_matcher=World().open_matcher, languages=[], tally=Tally())) == 0


def test_an_error_of_an_automaton_is_not_swallowed() -> None:
    def broken(lang: str) -> Matcher:
        raise ValueError(f"no automaton for {lang}")

    with pytest.raises(ValueError, match="no automaton for en"):
        match_pairs(to_tables([("A", "a", "alt")]), identify=World().identify, open_matcher=broken, languages=["en"], tally=Tally())


@given(sizes=st.lists(st.integers(0, 9), max_size=8), rows=st.integers(1, 7))
def test_groups_hold_exactly_so_many_rows(sizes: list[int], rows: int) -> None:
    numbers = iter(range(1000))
    tables = [
        pa.table({"image_id": [str(next(numbers)) for _ in range(size)]}, schema=pa.schema({"image_id": pa.string()})) for size in sizes
    ]
    groups = list(in_groups(tables, rows))
    assert [i for group in groups for i in group["image_id"].to_pylist()] == [str(i) for i in range(sum(sizes))]
    assert [len(group) for group in groups[:-1]] == [rows] * max(0, len(groups) - 1)
    assert len(groups) == -(-sum(sizes) // rows)
    assert all(0 < len(group) <= rows for group in groups)


@given(ROWS, st.lists(st.integers(0, 25), max_size=4), st.integers(1, 9), st.integers(1, 120))
def test_groups_end_where_the_rows_say_however_the_input_is_cut(rows: list[Row], cuts: list[int], most: int, size: int) -> None:
    expected: list[list[Row]] = []
    n_bytes = 0
    for image, text, source in rows:
        row_bytes = len(f"{image}http://{image}{text}{source}".encode())
        if not expected or len(expected[-1]) == most or n_bytes + row_bytes > size:
            expected.append([])
            n_bytes = 0
        expected[-1].append((image, text, source))
        n_bytes += row_bytes
    groups = in_groups(to_tables(rows, cuts), most, size)
    assert [list(zip(*(g[name].to_pylist() for name in ("image_id", "text", "source")), strict=True)) for g in groups] == expected


@given(ROWS | REPEATING, st.lists(st.integers(0, 25), max_size=3))
def test_repeated_pairs_are_dropped_in_order(rows: list[Row], cuts: list[int]) -> None:
    tally = Tally()
    left = drop_repeated(pa.concat_tables(to_tables(rows, cuts)), tally=tally)
    first: dict[tuple[str, str], str] = {}
    for image, text, source in rows:
        first.setdefault((image, text), source)
    assert [tuple(row.values()) for row in left.select(["image_id", "text", "source"]).to_pylist()] == [(*k, v) for k, v in first.items()]
    assert tally.dropped.total() == len(rows) - len(first)
