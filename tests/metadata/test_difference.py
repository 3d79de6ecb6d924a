from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metadata.difference import LIST_SCHEMA, Change, Difference, compare_lists


def _list(*rows: tuple[str, str | None]) -> pa.Table:
    return pa.table([pa.array([row[i] for row in rows], pa.string()) for i in (0, 1)], schema=LIST_SCHEMA)


def test_what_came_and_went_is_told_in_order_of_ids() -> None:
    before = _list(("0", "number"), ("river", "wordnet"), ("the", "unigram"), ("old one", "bigram"), ("Riga", "title"), ("gone", "title"))
    after = _list(
        ("0", "number"), ("the", "wordnet"), ("lake", "wordnet"), ("Riga", "unigram"), ("z", "extra"), ("a", "extra"), ("b", None)
    )
    assert compare_lists(before, after, show=2) == Difference(
        before=6,
        after=7,
        kept=3,
        other_source=2,
        same=False,
        went=Change(entries=3, by_source={"bigram": 1, "title": 1, "wordnet": 1}, first=[("river", "wordnet"), ("old one", "bigram")]),
        came=Change(entries=4, by_source={"extra": 2, "unknown": 1, "wordnet": 1}, first=[("lake", "wordnet"), ("z", "extra")]),
    )


def test_the_same_entries_in_another_order_are_not_the_same_list() -> None:
    one, two = _list(("a", "x"), ("b", "x")), _list(("b", "x"), ("a", "x"))
    assert compare_lists(one, one, show=9).same
    turned = compare_lists(one, two, show=9)
    assert (turned.same, turned.kept, turned.went.entries, turned.came.entries) == (False, 2, 0, 0)


def test_sources_that_nobody_says_are_no_change() -> None:
    assert compare_lists(_list(("a", "x"), ("b", "y")), _list(("a", None), ("b", "z")), show=0).other_source == 1


def test_empty_lists() -> None:
    nothing = Change(entries=0, by_source={}, first=[])
    found = compare_lists(_list(), _list(("a", "x")), show=1)
    assert (found.before, found.after, found.kept, found.same, found.went) == (0, 1, 0, False, nothing)
    assert found.came == Change(entries=1, by_source={"x": 1}, first=[("a", "x")])
    assert compare_lists(_list(), _list(), show=1).same


def test_a_repeated_entry_is_refused() -> None:
    for pair in ((_list(("a", "x"), ("a", "y")), _list()), (_list(), _list(("a", "x"), ("a", "y")))):
        with pytest.raises(ValueError, match="it is no list of entries: one occurs twice"):
            compare_lists(*pair, show=0)


def test_json_holds_everything() -> None:
    found = compare_lists(_list(("a", "x"), ("b", "y")), _list(("b", "z"), ("c", "z")), show=1).to_json()
    assert found == {
        "before": 2,
        "after": 2,
        "kept": 1,
        "other_source": 1,
        "same": False,
        "went": {"entries": 1, "by_source": {"x": 1}, "first": [{"entry": "a", "source": "x"}]},
        "came": {"entries": 1, "by_source": {"z": 1}, "first": [{"entry": "c", "source": "z"}]},
    }


_LISTS = st.dictionaries(st.text("ab犬", max_size=2), st.sampled_from(["x", "y", None]), max_size=6)


@given(_LISTS, _LISTS, st.integers(0, 3))
def test_a_difference_is_one_of_sets(before: dict[str, str | None], after: dict[str, str | None], show: int) -> None:
    found = compare_lists(_list(*before.items()), _list(*after.items()), show=show)
    gone, new = ([(e, s or "unknown") for e, s in one.items() if e not in other] for one, other in ((before, after), (after, before)))
    assert (found.before, found.after, found.kept) == (len(before), len(after), len({*before} & {*after}))
    assert found.same == ([*before] == [*after])
    assert found.other_source == sum(None not in (s, after[e]) and s != after[e] for e, s in before.items() if e in after)
    for change, expected in ((found.went, gone), (found.came, new)):
        assert (change.entries, change.first) == (len(expected), expected[:show])
        assert change.by_source == {s: [x for _, x in expected].count(s) for s in {x for _, x in expected}}
