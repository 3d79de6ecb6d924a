"""The table of hashes against a scan, text by text and pattern by pattern."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancing import phrases
from balancing.phrases import Phrases, blocks, build_phrases

CHARACTERS = "aab  é東😀"
TEXTS = st.lists(st.text(alphabet=CHARACTERS, max_size=20).map(lambda text: f" {text} "), max_size=8)
PATTERNS = st.lists(
    st.text(alphabet=CHARACTERS, min_size=1, max_size=6).map(lambda text: f" {text.strip()} ") | st.text(alphabet=CHARACTERS, min_size=1),
    max_size=15,
    unique=True,
)


def found(table: Phrases, texts: list[str]) -> list[set[int]]:
    text, ids = table.find(texts)
    assert (text.dtype, ids.dtype) == (np.uint32, np.int32)
    sets: list[set[int]] = [set() for _ in texts]
    for number, i in zip(text.tolist(), ids.tolist(), strict=True):
        sets[number].add(i)
    return sets


@settings(max_examples=300, deadline=None)
@given(patterns=PATTERNS, texts=TEXTS)
@example(patterns=[" a ", " a a ", " a a a ", " a  a "], texts=[" a a a ", " a  a ", " aa ", "  ", " "])
@example(patterns=[" "], texts=[" a "])
def test_every_pattern_is_found_where_it_is(patterns: list[str], texts: list[str]) -> None:
    table, others = build_phrases(patterns)
    assert others.tolist() == [i for i, p in enumerate(patterns) if len(p) < 2 or p[0] != " " or p[-1] != " "]
    mine = sorted({*range(len(patterns))} - {*others.tolist()})
    assert found(table, texts) == [{i for i in mine if patterns[i] in text} for text in texts]


def test_many_patterns_and_a_long_text() -> None:
    words = [f"w{i}" for i in range(20_000)]
    patterns = [f" {word} " for word in words] + [f" {words[i]} {words[i + 1]} " for i in range(0, 19_999, 3)]
    table, others = build_phrases(patterns)
    assert len(others) == 0
    texts = [f" {' '.join(words)} ", " w3 w4 w5 ", " w4 w5 w20000 w-1 ", " w6  w7 ", " x "]
    assert found(table, texts) == [{*range(len(patterns))}, {3, 4, 5, 20_001}, {4, 5}, {6, 7}, set()]


def test_the_table_ascends_and_every_hash_lies_behind_its_place() -> None:
    largest = np.uint64(2**64 - 1)
    for n in (0, 1, 2, 3, 5, 100, 3000):
        table, _ = build_phrases([f" {i} {j} " for i in range(n) for j in range(2)])
        assert np.all(table.keys[1:] >= table.keys[:-1])
        assert (table.keys[-1], table.values[-1]) == (largest, -2)
        n_slots = 1 << (len(table.keys).bit_length() - 1)
        taken = np.flatnonzero((table.values != -2) & (table.keys != largest))
        # A word that two patterns begin with, and the patterns.
        assert len(taken) == len(np.unique(table.keys[taken])) == 3 * n <= n_slots * 2 / 3
        places = (table.keys[taken] >> np.uint64(64 - (n_slots.bit_length() - 1))).astype(np.int64)
        assert np.all(places <= taken)
        # What lies between is taken too.
        assert all(np.all(np.isin(np.arange(place, slot), taken)) for place, slot in zip(places.tolist(), taken.tolist(), strict=True))


def mixed(x: int) -> int:
    """The finalizer of splitmix64."""
    x = (x + 1) * 0x9E3779B97F4A7C15 % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_the_hash_is_what_it_is_said_to_be() -> None:
    patterns = [" a ", " é東 ", f" {'long ' * 40}"]
    table, _ = build_phrases(patterns)
    for i, pattern in enumerate(patterns):
        hashed = sum(mixed(byte) * pow(0x9E3779B97F4A7C15, place, 2**64) for place, byte in enumerate(pattern.encode())) % 2**64 | 1
        assert table.values[np.searchsorted(table.keys, np.uint64(hashed), side="right") - 1] == 2 * i


def test_patterns_with_the_hash_of_an_earlier_one_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrases, "_OF_BYTE", np.ones(256, dtype=np.uint64))
    _, others = build_phrases([" aa ", " b ", " cc ", " d ", " eee "])
    assert others.tolist() == [2, 3]


def test_a_pattern_with_a_newline_is_left_to_others() -> None:
    assert build_phrases([" a\nb ", " a "])[1].tolist() == [0]


@pytest.mark.parametrize("texts", [[" a \n", " b "], ["\n"], [" a ", " b\nc "]])
def test_a_text_with_a_newline_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="one of them holds a newline"):
        build_phrases([" a "])[0].find(texts)


@given(lengths=st.lists(st.integers(0, 12), max_size=20), most=st.integers(1, 6), size=st.integers(1, 30))
def test_blocks_are_as_large_as_they_may_be(lengths: list[int], most: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phrases, "BLOCK_CHARACTERS", size)
        runs = list(blocks(["x" * length for length in lengths], most))
    assert [i for first, end in runs for i in range(first, end)] == [*range(len(lengths))]
    assert all(end == following for (_, end), (following, _) in pairwise(runs))
    for first, end in runs:
        assert end - first == 1 or (end - first <= most and sum(lengths[first:end]) + end - first <= size)
        grown = sum(lengths[first : end + 1]) + end + 1 - first
        assert end == len(lengths) or end - first == most or grown > size


def test_a_text_longer_than_a_block_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrases, "BLOCK_CHARACTERS", 8)
    long = " " + "é東 " * 50 + "end "
    table, _ = build_phrases([" é東 é東 ", " end ", f" {'x' * 40} "])
    assert found(table, [long, f" {'x' * 40} "]) == [{0, 1}, {2}]
