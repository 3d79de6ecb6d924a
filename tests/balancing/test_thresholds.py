"""Thresholds against the definitions, written out as loops."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancing.thresholds import DEFAULT_P, TailCurve, Threshold, parse_t, solve_thresholds, tail_share, threshold_of_share

COUNTS = st.lists(st.integers(0, 30) | st.integers(0, 10**9), min_size=1, max_size=20)
POSITIVE = COUNTS.filter(any)


def _array(counts: list[int]) -> np.ndarray:
    return np.array(counts, dtype=np.int64)


@given(POSITIVE, st.integers(1, 10**9))
def test_tail_share(counts: list[int], t: int) -> None:
    assert tail_share(_array(counts), t) == sum(c for c in counts if c < t) / sum(counts)


@given(POSITIVE)
def test_tail_share_at_the_ends(counts: list[int]) -> None:
    assert tail_share(_array(counts), 1) == 0
    assert tail_share(_array(counts), max(counts)) < 1
    assert tail_share(_array(counts), max(counts) + 1) == tail_share(_array(counts), math.inf) == 1


def _first_argmin(counts: list[int], p: float) -> int:
    positive = sorted(c for c in counts if c > 0)
    best, distance = 0, math.inf
    running = 0
    for c in positive:
        running += c
        if abs(running / sum(positive) - p) < distance:
            best, distance = c, abs(running / sum(positive) - p)
    return best


@given(POSITIVE, st.floats(0, 1) | st.sampled_from([0.0, 0.06, 0.25, 0.5, 1.0]))
@example([1, 1, 2], 0.375)
def test_threshold_of_share_is_the_first_argmin(counts: list[int], p: float) -> None:
    t = threshold_of_share(_array(counts), p)
    assert type(t) is int
    assert t == _first_argmin(counts, p)
    assert t >= 1
    assert t in counts


def test_published_definition_by_hand() -> None:
    """Shares of the running sums of 1 1 2 4 8: 1/16 2/16 4/16 8/16 16/16."""
    counts = _array([8, 0, 1, 4, 0, 2, 1])
    assert [threshold_of_share(counts, p / 16) for p in (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16)] == [1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8]
    # Ties: 3/16 lies between 2/16 and 4/16, 6/16 between 4/16 and 8/16, 12/16 between 8/16 and 16/16; the first wins.


@given(POSITIVE, st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.06, 0.25, 0.5, 1.0]), max_size=5), st.integers(0, 63))
@example([1, 1, 2], [0.375, 0.125, 0.25, 0.5], 0)
@example([7, 7, 7, 1, 1], [0.5, 2 / 23, 9 / 23, 5.5 / 23], 0)
def test_a_folded_curve_gives_the_same_thresholds(counts: list[int], shares: list[float], near: int) -> None:
    curve = TailCurve(_array(counts))
    running = np.cumsum(sorted(counts)) / sum(counts)
    # Halfway between two running sums, and a hair beside it, is where the nearest changes.
    middle = float(running[near % len(running)] + running[(near + 1) % len(running)]) / 2
    for p in (*shares, *running.tolist(), middle, np.nextafter(middle, 0), np.nextafter(middle, 1)):
        assert curve.threshold(p) == threshold_of_share(_array(counts), float(p))
    assert curve.largest == max(counts)


def test_a_curve_needs_counts() -> None:
    for counts in ([], [0, 0]):
        with pytest.raises(ValueError, match="no entry has a count"):
            TailCurve(_array(counts))


@given(POSITIVE)
def test_shares_at_the_ends(counts: list[int]) -> None:
    positive = [c for c in counts if c]
    assert threshold_of_share(_array(counts), 0) == min(positive)
    assert threshold_of_share(_array(counts), 1) == max(positive)


@given(POSITIVE, st.floats(0, 1))
def test_zeros_and_order_change_nothing(counts: list[int], p: float) -> None:
    t = threshold_of_share(_array(counts), p)
    assert threshold_of_share(_array([0, 0, *reversed(counts), 0]), p) == t


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, math.inf])
def test_shares_outside_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        threshold_of_share(_array([1]), p)


def test_no_counts_are_refused() -> None:
    for counts in ([], [0, 0]):
        with pytest.raises(ValueError, match="no entry has a count"):
            threshold_of_share(_array(counts), 0.5)
        with pytest.raises(ValueError, match="no entry has a count"):
            tail_share(_array(counts), 5)


@pytest.mark.parametrize("t", [0, -1, 0.5, math.nan])
def test_t_below_one_is_refused(t: float) -> None:
    with pytest.raises(ValueError, match="t must be at least 1"):
        tail_share(_array([1]), t)


@pytest.mark.parametrize(("value", "t"), [(1, 1.0), ("20000", 20000.0), (170000, 170000.0), ("inf", math.inf)])
def test_parse_t(value: object, t: float) -> None:
    assert parse_t(value) == t


@pytest.mark.parametrize("value", [0, "0", -3, "1.5", 1.5, "", None, "nan", "Infinity", "-inf", True, [1]])
def test_what_is_no_t(value: object) -> None:
    with pytest.raises(ValueError, match="t must be"):
        parse_t(value)


LANGS = st.dictionaries(st.sampled_from(["de", "en", "ja", "zh"]), COUNTS, max_size=4)


@given(LANGS, st.integers(1, 40), st.integers(0, 200))
def test_t_for_english(counts: dict[str, list[int]], t_en: int, min_matches: int) -> None:
    arrays = {lang: _array(c) for lang, c in counts.items()}
    if not any(counts.get("en", [])):
        with pytest.raises(ValueError, match="--p"):
            solve_thresholds(arrays, t_en=t_en, min_matches=min_matches)
        return
    p, solved = solve_thresholds(arrays, t_en=t_en, min_matches=min_matches)
    english = counts["en"]
    assert p == sum(c for c in english if c < t_en) / sum(english)
    assert list(solved) == sorted(lang for lang, c in counts.items() if any(c))
    for lang, threshold in solved.items():
        mine = counts[lang]
        whole = sum(mine) < min_matches
        t = math.inf if whole else t_en if lang == "en" else _first_argmin(mine, p)
        assert threshold == Threshold(t=t, p=sum(c for c in mine if c < t) / sum(mine), matches=sum(mine), whole=whole)


@given(LANGS, st.none() | st.floats(0, 1), st.integers(0, 200))
def test_share_for_all(counts: dict[str, list[int]], p: float | None, min_matches: int) -> None:
    """With or without English; neither t nor p is p = 0.06."""
    used, solved = solve_thresholds({lang: _array(c) for lang, c in counts.items()}, p=p, min_matches=min_matches)
    assert used == (DEFAULT_P if p is None else p)
    assert DEFAULT_P == 0.06
    for lang, threshold in solved.items():
        whole = sum(counts[lang]) < min_matches
        assert (threshold.t, threshold.whole) == (math.inf if whole else _first_argmin(counts[lang], used), whole)
    assert list(solved) == sorted(lang for lang, c in counts.items() if any(c))


@given(LANGS, st.just(math.inf) | st.integers(1, 50))
def test_one_t_for_all(counts: dict[str, list[int]], t: float) -> None:
    p, solved = solve_thresholds({lang: _array(c) for lang, c in counts.items()}, t_all=t)
    assert {threshold.t for threshold in solved.values()} <= {t}
    english = counts.get("en", [])
    assert p == (sum(c for c in english if c < t) / sum(english) if any(english) else 1.0)
    if t == math.inf:
        assert {threshold.p for threshold in solved.values()} <= {1.0}


@given(
    LANGS,
    st.sampled_from([{}, {"p": 0.3}, {"t_all": 7.0}, {"t_all": math.inf}]),
    st.dictionaries(st.sampled_from(["de", "en", "ja"]), st.integers(1, 40).map(float) | st.just(math.inf), max_size=2),
    st.integers(0, 200),
)
def test_a_t_of_its_own_changes_no_other_language(
    counts: dict[str, list[int]], how: dict[str, Any], own: dict[str, float], min_matches: int
) -> None:
    arrays = {lang: _array(c) for lang, c in counts.items()}
    nowhere = sorted(lang for lang in own if not any(counts.get(lang, [])))
    if nowhere:
        with pytest.raises(ValueError, match=f"^t is given for {', '.join(nowhere)}, of which there are no counts$"):
            solve_thresholds(arrays, **how, t_of=own, min_matches=min_matches)
        return
    p, without = solve_thresholds(arrays, **how, min_matches=min_matches)
    same_p, solved = solve_thresholds(arrays, **how, t_of=own, min_matches=min_matches)
    assert same_p == p
    assert list(solved) == list(without)
    for lang, threshold in solved.items():
        if lang in own:
            mine = counts[lang]
            tail = sum(c for c in mine if c < own[lang]) / sum(mine)
            assert threshold == Threshold(t=own[lang], p=tail, matches=sum(mine), whole=False)
        else:
            assert threshold == without[lang]


def test_t_for_english_is_given_once() -> None:
    with pytest.raises(ValueError, match="t for English is given twice"):
        solve_thresholds({"en": _array([5])}, t_en=3, t_of={"en": 4})
    p, solved = solve_thresholds({"en": _array([5, 5, 1]), "de": _array([9, 1])}, t_en=3, t_of={"de": 2})
    assert (p, solved["en"].t, solved["de"].t) == (1 / 11, 3, 2)


@pytest.mark.parametrize("given_twice", [{"t_en": 5, "p": 0.5}, {"p": 0.0, "t_all": 5}, {"t_en": 5, "t_all": 5}])
def test_only_one_of_the_three(given_twice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give only one"):
        solve_thresholds({"en": _array([1])}, **given_twice)


def test_json_round_trip() -> None:
    for t in (1.0, 20000.0, math.inf):
        stored = json.loads(json.dumps(Threshold(t=t, p=0.06, matches=7, whole=True).to_json(), allow_nan=False))
        assert stored == {"t": "inf" if t == math.inf else t, "p": 0.06, "matches": 7, "whole": True}
        assert parse_t(stored["t"]) == t
