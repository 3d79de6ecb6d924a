"""Counts against collections.Counter, sums in any order, ids outside refused."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.counts import BLOCK, Block, count_part, dense_counts, list_arrays, rows_by_language, sum_blocks
from balancing.pairs import MATCHED_SCHEMA

ENTRIES_OF = {"de": 10, "en": 3 * BLOCK + 7, "zh": BLOCK}
IDS = st.sampled_from([0, 1, 2, 9, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 6])
ROW = st.sampled_from(sorted(ENTRIES_OF)).flatmap(
    lambda lang: st.tuples(st.just(lang), st.sets(IDS.filter(lambda i: i < ENTRIES_OF[lang]), max_size=6).map(sorted), st.booleans())
)
Row = tuple[str, list[int], bool]
PART = st.lists(ROW, max_size=20).map(lambda rows: sorted(rows, key=lambda row: row[0]))


def to_table(rows: list[Row], *, chunks: int = 1) -> pa.Table:
    """lang and entries as they are stored, in several chunks with dictionaries of their own."""
    tables = []
    for i in range(chunks):
        piece = rows[len(rows) * i // chunks : len(rows) * (i + 1) // chunks]
        lang = pa.array([row[0] for row in piece], pa.string()).dictionary_encode()
        entries = pa.array([row[1] for row in piece], MATCHED_SCHEMA.field("entries").type)
        tables.append(pa.table({"lang": lang.cast(MATCHED_SCHEMA.field("lang").type), "entries": entries}))
    return pa.concat_tables(tables)


def to_keep(rows: list[Row]) -> np.ndarray:
    return np.array([row[2] for row in rows], dtype=bool)


def dense(parts: list[tuple[pa.Table, np.ndarray]]) -> dict[str, tuple[int, np.ndarray]]:
    """Pairs and counts per language by the whole way."""
    blocks: dict[tuple[str, int], list[Block]] = defaultdict(list)
    for table, keep in parts:
        for key, block in count_part(table, keep):
            blocks[key].append(block)
    summed = {key: sum_blocks(found) for key, found in blocks.items()}
    langs = sorted({lang for lang, _ in summed})
    return {
        lang: (
            int(summed[lang, -1][1].sum()),
            dense_counts([(number, block) for (name, number), block in summed.items() if name == lang and number >= 0], ENTRIES_OF[lang]),
        )
        for lang in langs
    }


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(PART, min_size=1, max_size=3), chunks=st.integers(1, 3))
def test_counts_are_those_of_a_counter(parts: list[list[Row]], chunks: int) -> None:
    rows = [row for part in parts for row in part]
    found = dense([(to_table(part, chunks=chunks), to_keep(part)) for part in parts])
    assert list(found) == sorted({lang for lang, _, _ in rows})
    for lang, (pairs, counts) in found.items():
        alive = [ids for name, ids, keep in rows if name == lang and keep]
        assert pairs == len(alive)
        assert counts.dtype == np.int64
        assert {i: int(counts[i]) for i in np.flatnonzero(counts)} == Counter(i for ids in alive for i in ids)


@given(part=PART, first=st.integers(0, 20), length=st.integers(0, 20))
def test_a_slice_counts_like_a_table_of_its_own(part: list[Row], first: int, length: int) -> None:
    rows = part[first : first + length]
    cut = dense([(to_table(part).slice(first, length), to_keep(rows))])
    own = dense([(to_table(rows), to_keep(rows))])
    assert {k: (n, c.tolist()) for k, (n, c) in cut.items()} == {k: (n, c.tolist()) for k, (n, c) in own.items()}


@given(part=PART, whys=st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_what_is_left_out_is_counted_by_reason_and_nowhere_else(part: list[Row], whys: list[int]) -> None:
    """As if it were not there; only pairs that live are told of."""
    reasons = np.array(whys[: len(part)], dtype=np.int8)
    found = list(count_part(to_table(part), to_keep(part), reasons))
    stays = [(lang, ids, keep and not why) for (lang, ids, keep), why in zip(part, whys, strict=False)]
    assert [(key, [a.tolist() for a in block]) for key, block in found if key[1] >= 0] == [
        (key, [a.tolist() for a in block]) for key, block in count_part(to_table(part), to_keep(stays)) if key[1] >= 0
    ]
    for (lang, number), (numbers, pairs) in found:
        if number < 0:
            expected = Counter(why for (name, _, keep), why in zip(part, whys, strict=False) if name == lang and keep)
            assert +Counter(dict(zip(numbers.tolist(), pairs.tolist(), strict=True))) == expected


def test_empty_tables() -> None:
    empty = MATCHED_SCHEMA.empty_table()
    assert list(count_part(empty, np.zeros(0, dtype=bool))) == []
    assert list(rows_by_language(empty)) == []
    assert [a.tolist() for a in list_arrays(empty["entries"])] == [[], [0]]
    assert [a.tolist() for a in list_arrays(pa.chunked_array([], MATCHED_SCHEMA.field("entries").type))] == [[], [0]]


def test_runs_of_languages() -> None:
    rows: list[Row] = [("de", [], True), ("de", [1], True), ("en", [2], True), ("zh", [3], True), ("zh", [4], True)]
    expected = [("de", 0, 2), ("en", 2, 3), ("zh", 3, 5)]
    for chunks in (1, 2, 5):
        assert list(rows_by_language(to_table(rows, chunks=chunks))) == expected
    assert list(rows_by_language(to_table(rows).slice(1, 3))) == [("de", 0, 1), ("en", 1, 2), ("zh", 2, 3)]


def test_list_arrays_of_a_slice() -> None:
    column = pa.chunked_array([pa.array([[1, 2], [], [3]], pa.list_(pa.int32())), pa.array([[4, 5]], pa.list_(pa.int32()))])
    joined = column.combine_chunks()
    for sliced in (column.slice(1), joined.slice(1), pa.chunked_array([joined.slice(1)])):
        values, offsets = list_arrays(sliced)
        assert (values.tolist(), offsets.tolist()) == ([3, 4, 5], [0, 0, 1, 3])


BLOCKS = st.dictionaries(st.integers(0, BLOCK - 1), st.integers(1, 2**40), max_size=6).map(
    lambda c: (np.array(sorted(c), dtype=np.int32), np.array([c[i] for i in sorted(c)], dtype=np.int64))
)


@settings(max_examples=50, deadline=None)
@given(a=BLOCKS, b=BLOCKS, c=BLOCKS)
def test_sums_are_associative_and_commutative(a: Block, b: Block, c: Block) -> None:
    sums = [sum_blocks([a, b, c]), sum_blocks([sum_blocks([c, b]), a]), sum_blocks([a, sum_blocks([b, sum_blocks([]), c])])]
    expected: Counter[int] = Counter()
    for ids, counts in (a, b, c):
        expected.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
    for ids, counts in sums:
        assert (ids.dtype, counts.dtype) == (np.int32, np.int64)
        assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == expected
        assert ids.tolist() == sorted(expected)


@pytest.mark.parametrize("entry", [10, 11, BLOCK, 5 * BLOCK])
def test_ids_outside_are_refused(entry: int) -> None:
    with pytest.raises(ValueError, match=f"entry id {entry} is outside the list of 10 entries"):
        dense([(to_table([("de", [3, entry], True)]), np.array([True]))])


def test_negative_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="de: entry id -1 is negative"):
        list(count_part(to_table([("de", [-1, 3], True)]), np.array([True])))


def test_no_blocks_are_zeros() -> None:
    assert dense_counts([], 4).tolist() == [0, 0, 0, 0]
    assert dense_counts([], 0).tolist() == []
