"""The books: exact counts, bounded letters, sums."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metadata.tally import LETTERS_KEPT, LETTERS_WITH_PAYLOAD, PAYLOAD_BYTES, DeadLetter, Tally, add_counters, chain


def test_counters() -> None:
    tally = Tally(read=9, emitted=3)
    tally.drop("short")
    tally.drop("long", 2)
    tally.drop("never", 0)
    tally.dead_letter("broken", place=7, detail="why", payload=b"bytes")
    assert not tally.balanced
    tally.drop("short", 2)
    assert tally.balanced
    tally.damaged("cut", place=99)
    tally.damaged("cut_again", place=100)
    assert tally.balanced
    assert tally.bad_file == "cut"
    assert json.dumps(tally.counters()) == json.dumps(
        {
            "read": 11,
            "emitted": 3,
            "dropped": {"long": 2, "short": 3},
            "dead_letters": 3,
            "dead_letter_reasons": {"broken": 1, "cut": 1, "cut_again": 1},
            "files": 1,
            "bad_files": 1,
        }
    )
    assert tally.letters[0] == DeadLetter(reason="broken", place=7, detail="why", payload=b"bytes")
    assert [letter.place for letter in tally.letters] == [7, 99, 100]


def test_an_untouched_tally_is_balanced() -> None:
    assert Tally().balanced
    assert Tally().counters()["bad_files"] == 0


@pytest.mark.parametrize("field", ["read", "emitted"])
def test_one_more_or_less_is_noticed(field: str) -> None:
    tally = Tally(read=2, emitted=1)
    tally.drop("x")
    assert tally.balanced
    setattr(tally, field, getattr(tally, field) + 1)
    assert not tally.balanced


def test_letters_are_bounded_and_counts_are_not() -> None:
    tally = Tally()
    payload = bytes(PAYLOAD_BYTES + 1)
    for place in range(LETTERS_KEPT + 5):
        tally.dead_letter("broken", place=place, detail="x" * 1000, payload=payload)
    assert tally.dead == {"broken": LETTERS_KEPT + 5}
    assert len(tally.letters) == LETTERS_KEPT
    assert [len(tally.letters[i].payload) for i in (0, LETTERS_WITH_PAYLOAD - 1, LETTERS_WITH_PAYLOAD)] == [PAYLOAD_BYTES, PAYLOAD_BYTES, 0]
    assert {len(letter.detail) for letter in tally.letters} == {500}


def _tally(read: int, emitted: int, reason: str, *, bad: bool) -> Tally:
    tally = Tally(read=read, emitted=emitted)
    tally.drop(reason, 2)
    if bad:
        tally.damaged("damaged", place=1)
    return tally


COUNTERS = st.builds(
    lambda read, emitted, reason, bad: _tally(read, emitted, reason, bad=bad).counters(),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from("abc"),
    st.booleans(),
)


@given(COUNTERS, COUNTERS, COUNTERS)
def test_sum_of_counters(a: dict, b: dict, c: dict) -> None:
    before = json.dumps([a, b, c])
    both = add_counters(a, b)
    assert json.dumps(add_counters(both, c)) == json.dumps(add_counters(a, add_counters(c, b)))
    assert both["read"] == a["read"] + b["read"]
    assert both["files"] == 2
    assert both["dropped"] == {r: a["dropped"].get(r, 0) + b["dropped"].get(r, 0) for r in sorted({*a["dropped"], *b["dropped"]})}
    assert add_counters({}, a) == add_counters(a, {}) == a
    assert json.dumps([a, b, c]) == before


def test_chain_is_the_account_of_both_steps() -> None:
    first, then = _tally(7, 5, "a", bad=True), Tally(read=5, emitted=1)
    then.drop("a", 3)
    then.drop("b")
    both = chain(first, then)
    assert both.balanced
    assert both.counters() == {
        "read": 8,
        "emitted": 1,
        "dropped": {"a": 5, "b": 1},
        "dead_letters": 1,
        "dead_letter_reasons": {"damaged": 1},
        "files": 1,
        "bad_files": 1,
    }
    assert both.letters == first.letters
    assert (first.dropped["a"], then.dropped["a"]) == (2, 3)


def test_chain_refuses_a_gap() -> None:
    with pytest.raises(ValueError, match="5 records were emitted by the first step, but 4 read by the second"):
        chain(Tally(read=5, emitted=5), Tally(read=4))
