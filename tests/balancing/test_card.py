from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from balancing.card import head_ids, tail_ids

COUNTS = st.lists(st.integers(0, 9), max_size=40).map(lambda counts: np.array(counts, dtype=np.int64))


@given(COUNTS, st.integers(0, 9))
def test_the_head_is_the_largest(counts: np.ndarray, n: int) -> None:
    assert head_ids(counts, n) == sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], i))[:n]


@given(COUNTS, st.one_of(st.integers(1, 10).map(float), st.just(math.inf)), st.integers(0, 9))
def test_the_tail_is_drawn_from_what_has_matches_below_t(counts: np.ndarray, t: float, n: int) -> None:
    below = [i for i, count in enumerate(counts.tolist()) if 0 < count < t]
    shown = tail_ids(counts, t, n)
    assert shown == sorted({*shown}) == tail_ids(counts, t, n)
    assert {*shown} <= {*below}
    assert len(shown) == min(n, len(below))
    # What is shown of few is shown of more.
    assert {*shown} <= {*tail_ids(counts, t, n + 1)}


def test_the_tail_is_no_run_of_ids() -> None:
    assert tail_ids(np.ones(1_000, dtype=np.int64), 2, 5) == [36, 165, 193, 222, 431]
