"""Which entries of a language its card shows."""

from __future__ import annotations

import numpy as np

from balancing.sampling import uniform
from balancing.summary import SHOW, largest


def head_ids(counts: np.ndarray, n: int) -> list[int]:
    """Ids of the ``n`` entries with most matches, most first."""
    return largest(counts, n).tolist()


def tail_ids(counts: np.ndarray, t: float, n: int) -> list[int]:
    """Ids of ``n`` entries with fewer than ``t`` matches and at least one, ascending; drawn by a keyed hash of the id, so the same counts
    show the same entries."""
    candidates = np.flatnonzero((counts > 0) & (counts < t))
    draws = uniform(0, 0, SHOW, candidates.astype(np.uint64))
    return sorted(candidates[np.argsort(draws, kind="stable")[:n]].tolist())
