from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from balancing.frequent import Frequent, most_frequent


def test_counts_are_exact_within_the_memory() -> None:
    found = Frequent(memory=1_000)
    found.add("en", {"a": 1, "b": 2})
    found.add("de", {"a": 5})
    found.add("en", {"a": 3})
    assert (found.counts("en"), found.counts("de"), found.counts("fr"), found.error) == ({"a": 4, "b": 2}, {"a": 5}, {}, 0)


def test_the_rarest_are_forgotten_and_the_error_says_so() -> None:
    # A word of one ASCII character takes 151 bytes: six fit, three are kept.
    found = Frequent(memory=906)
    found.add("en", {"a": 9, "b": 8, "c": 7, "d": 3, "e": 2, "f": 1})
    assert found.error == 0
    found.add("en", {"g": 1})
    assert (found.counts("en"), found.error) == ({"a": 9, "b": 8, "c": 7}, 3)
    found.add("de", {"h": 4, "i": 4, "j": 4, "d": 4})
    # Equal counts: by group, then by word.
    assert (found.counts("en"), found.counts("de"), found.error) == ({"a": 9, "b": 8, "c": 7}, {}, 3 + 4)


def test_other_scripts_take_more() -> None:
    found = Frequent(memory=310)
    found.add("en", {"aaaa": 1, "bbbb": 1})
    assert found.error == 0
    found = Frequent(memory=310)
    found.add("ja", {"犬犬犬犬": 1, "猫猫猫猫": 1})
    assert found.error == 1


def test_the_most_frequent_come_first_and_ties_by_code_point() -> None:
    assert most_frequent({"b": 2, "c": 5, "a": 2, "d": 1}, 3) == [("c", 5), ("a", 2), ("b", 2)]
    assert most_frequent({}, 3) == []


@given(
    st.lists(st.tuples(st.sampled_from(["en", "ja"]), st.dictionaries(st.sampled_from("abcdefghij犬"), st.integers(1, 5), max_size=5))),
    st.integers(200, 2_000),
)
def test_no_count_is_too_large_and_none_too_small_by_more_than_the_error(batches: list[tuple[str, dict[str, int]]], memory: int) -> None:
    found = Frequent(memory=memory)
    true = {"en": Counter(), "ja": Counter()}
    for group, counts in batches:
        found.add(group, counts)
        true[group].update(counts)
    for group in true:
        assert all(true[group][text] - found.error <= found.counts(group)[text] <= true[group][text] for text in true[group])
        assert found.counts(group).keys() <= true[group].keys()
    if sum(150 + 4 * len(text) for group in true for text in true[group]) <= memory:
        assert (found.error, {g: found.counts(g) for g in true}) == (0, true)
