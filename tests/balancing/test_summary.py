from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing.sampling import uniform
from balancing.summary import (
    SHOW,
    Recount,
    Shown,
    add_histograms,
    head_of,
    histogram,
    keep_largest,
    largest,
    rank_curve,
    rows_per_language,
)
from balancing.thresholds import tail_share

COUNTS = st.lists(st.integers(0, 30), max_size=60).map(lambda x: np.array(x, dtype=np.int64))
ROWS = st.lists(st.tuples(st.sampled_from(["en", "he", "zh"]), st.lists(st.integers(0, 200_000), max_size=4, unique=True)), max_size=30)


def table(rows: list[tuple[str, list[int]]]) -> pa.Table:
    return pa.table(
        {
            "lang": pa.array([lang for lang, _ in rows], pa.string()).dictionary_encode(),
            "entries": pa.array([sorted(ids) for _, ids in rows], pa.list_(pa.int32())),
            "pair_key": pa.array([7919 * i + 13 for i in range(len(rows))], pa.uint64()),
        }
    )


@given(st.lists(ROWS, max_size=3))
def test_a_recount_of_parts_is_a_count_of_all_rows(parts: list[list[tuple[str, list[int]]]]) -> None:
    recount = Recount()
    for part in parts:
        recount.add(table(part))
    rows = [row for part in parts for row in part]
    assert recount.pairs == Counter(lang for lang, _ in rows)
    for lang in ("en", "he", "zh", "never met"):
        counted = Counter(i for x, ids in rows if x == lang for i in ids)
        found = recount.counts(lang, 200_001)
        assert {int(i): int(found[i]) for i in np.flatnonzero(found)} == counted


def test_ids_outside_the_list_are_refused() -> None:
    recount = Recount()
    recount.add(table([("en", [5, 70_000])]))
    assert recount.counts("en", 70_001)[70_000] == 1
    with pytest.raises(ValueError, match="entry id 70000 is outside the list of 70000 entries"):
        recount.counts("en", 70_000)
    with pytest.raises(ValueError, match="entry id -1 is negative"):
        recount.add(table([("en", [-1])]))


@given(ROWS.filter(bool), st.integers(1, 5), st.integers(0, 3))
def test_shown_rows_have_the_smallest_draws_in_whatever_order_the_parts_come(
    rows: list[tuple[str, list[int]]], size: int, seed: int
) -> None:
    whole = table(rows)
    cut = len(rows) // 2
    parts = [whole.slice(0, cut), whole.slice(cut)]
    for order in ((0, 1), (1, 0)):
        shown = Shown(size=size, seed=seed)
        for part in order:
            shown.add(part, parts[part])
        found: dict[str, dict[int, int]] = {}
        for part, positions in shown.positions().items():
            for lang, place, row in positions:
                found.setdefault(lang, {})[place] = row + part * cut
        draws = uniform(seed, 0, SHOW, whole["pair_key"].to_numpy())
        for lang in {lang for lang, _ in rows}:
            mine = sorted((i for i, (x, _) in enumerate(rows) if x == lang), key=lambda i: draws[i])[:size]
            assert found[lang] == dict(enumerate(mine))


@given(st.lists(COUNTS, max_size=4), st.integers(2, 40))
def test_the_curve_is_the_sorted_counts_of_all_languages(each: list[np.ndarray], points: int) -> None:
    together = sorted((int(c) for counts in each for c in counts if c), reverse=True)
    curve = rank_curve(add_histograms(histogram(counts) for counts in each), points=points)
    assert all(together[rank - 1] == count for rank, count in curve)
    assert [rank for rank, _ in curve] == sorted({rank for rank, _ in curve})
    assert len(curve) <= points
    if together:
        assert (curve[0][0], curve[-1][0]) == (1, len(together))
    else:
        assert curve == []


def test_the_curve_has_every_rank_of_a_short_list() -> None:
    assert rank_curve(histogram(np.array([3, 0, 9, 1, 1, 0]))) == [(1, 9), (2, 3), (3, 1), (4, 1)]


@given(COUNTS.filter(lambda c: c.sum() > 0), st.integers(1, 31))
def test_the_head_is_what_the_tail_is_not(counts: np.ndarray, t: int) -> None:
    head = head_of(counts, t)
    assert head.entries == sum(c >= t for c in counts)
    assert head.share == pytest.approx(1 - tail_share(counts, t))


def test_nothing_is_in_the_head_of_an_infinite_t_or_of_no_matches() -> None:
    assert head_of(np.array([5, 6]), np.inf).entries == 0
    assert head_of(np.array([0, 0]), 1.0).share == 0.0


@given(COUNTS, st.integers(1, 20))
def test_the_largest_are_those_of_a_full_sort(counts: np.ndarray, n: int) -> None:
    wanted = sorted((i for i, c in enumerate(counts) if c > 0), key=lambda i: (-counts[i], i))[:n]
    assert largest(counts, n).tolist() == wanted
    rows = [(int(counts[i]), lang, i) for lang in ("b", "a") for i in wanted]
    assert keep_largest(rows, n) == sorted(rows, key=lambda row: (-row[0], row[1], row[2]))[:n]


def test_rows_are_counted_by_language() -> None:
    assert rows_per_language(table([("zh", []), ("en", [1]), ("zh", [2])])) == {"en": 1, "zh": 2}
    assert list(rows_per_language(table([("zh", []), ("en", [1])]))) == ["en", "zh"]
