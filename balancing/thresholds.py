"""From counts to thresholds: t for English, the tail share p it stands for, and t of every other language (Meta CLIP 2, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: Used when neither t nor p is given: the tail share of both published settings.
DEFAULT_P = 0.06
#: JSON has no infinity; this stands for it in files and on the command line.
INFINITE = "inf"


def tail_share(counts: np.ndarray, t: float) -> float:
    """Share of all matches that fall on entries with count < t: p = Σ(c < t) / Σ c. Between 0 and 1.

    Raises:
        ValueError: there are no counts, or t < 1.
    """
    if not t >= 1:
        raise ValueError(f"t must be at least 1, not {t}")
    total = int(counts.sum())
    if total == 0:
        raise ValueError("no entry has a count")
    return int(counts[counts < t].sum()) / total


def threshold_of_share(counts: np.ndarray, p: float) -> int:
    """t of a language from the tail share: the count at the first argmin of |cumsum(c) / Σ c − p| over its positive counts, ascending.

    The sum is inclusive, as published, so this is not the exact inverse of :func:`tail_share`. p = 0 gives the smallest count, p = 1
    the largest, which keeps every entry whole.

    Raises:
        ValueError: p outside [0, 1], or no positive count.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], not {p}")
    positive = np.sort(counts[counts > 0])
    if not len(positive):
        raise ValueError("no entry has a count")
    return int(positive[np.argmin(np.abs(np.cumsum(positive) / positive.sum() - p))])


class TailCurve:
    """The counts of one language, folded to its distinct counts: t for any number of tail shares, the same as :func:`threshold_of_share`.

    Holds 24 bytes per distinct positive count, of which n matches have at most √(2 n).

    Raises:
        ValueError: no positive count.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self._values, entries = np.unique(counts[counts > 0], return_counts=True)
        if not len(self._values):
            raise ValueError("no entry has a count")
        running = np.cumsum(self._values * entries)
        # The tail share up to the first, and up to the last entry of each distinct count.
        self._first = (running - self._values * (entries - 1)) / running[-1]
        self._last = running / running[-1]

    @property
    def largest(self) -> int:
        """The largest count: at this t every entry is whole."""
        return int(self._values[-1])

    def threshold(self, p: float) -> int:
        """t of a tail share between 0 and 1."""
        place = int(np.searchsorted(self._last, p))
        # The running sum passes p at an entry of this count. Is that its first one, the entry before it may be nearer; else both have it.
        if place and p <= self._first[place] and p - self._last[place - 1] <= self._first[place] - p:
            place -= 1
        return int(self._values[place])


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Threshold of one language. ``t`` may be infinite; ``whole``: the language is kept whole, because it has too few matches to
    balance."""

    t: float
    p: float
    matches: int
    whole: bool = False

    def to_json(self) -> dict[str, float | int | str | bool]:
        return {"t": INFINITE if math.isinf(self.t) else int(self.t), "p": self.p, "matches": self.matches, "whole": self.whole}


def parse_t(value: object) -> float:
    """t from JSON or a command line: an integer ≥ 1, or ``inf``.

    Raises:
        ValueError: anything else.
    """
    if value == INFINITE:
        return math.inf
    try:
        t = int(str(value))
    except ValueError:
        raise ValueError(f"t must be a whole number of at least 1, or {INFINITE}; not {value!r}") from None
    if t < 1:
        raise ValueError(f"t must be at least 1, not {t}")
    return float(t)


def solve_thresholds(
    counts: Mapping[str, np.ndarray],
    *,
    t_en: float | None = None,
    p: float | None = None,
    t_all: float | None = None,
    t_of: Mapping[str, float] | None = None,
    min_matches: int = 0,
) -> tuple[float, dict[str, Threshold]]:
    """Thresholds of all languages with a positive count, and p.

    ``counts``: per language int64 counts per entry id. Give one of ``t_en`` (t for English, which sets p), ``p``, or ``t_all`` (the same
    t everywhere); none: p = 0.06. ``t_of``: t of single languages, whatever the others have; it changes nothing for them. A language with
    fewer than ``min_matches`` matches is kept whole, unless it has a t of its own.

    Raises:
        ValueError: more than one is given; ``t_en`` without English counts, or beside ``t_of`` English; ``t_of`` a language without counts.
    """
    own = t_of or {}
    if sum(x is not None for x in (t_en, p, t_all)) > 1:
        raise ValueError("give only one of t for English, p and t for all languages")
    if t_en is not None and "en" in own:
        raise ValueError("t for English is given twice")
    if nowhere := sorted(lang for lang in own if lang not in counts or not counts[lang].any()):
        raise ValueError(f"t is given for {', '.join(nowhere)}, of which there are no counts")
    english = counts.get("en", np.zeros(0, dtype=np.int64))
    if t_en is not None:
        if not english.sum():
            raise ValueError("t for English needs English counts, and there are none: set the tail share with --p instead")
        p = tail_share(english, t_en)
    elif p is None and t_all is None:
        p = DEFAULT_P
    solved = {}
    for lang in sorted(counts):
        matches = int(counts[lang].sum())
        if not matches:
            continue
        whole = matches < min_matches and lang not in own
        if lang in own:
            t = own[lang]
        elif whole or t_all is not None:
            t = math.inf if whole or t_all is None else t_all
        elif lang == "en" and t_en is not None:
            t = t_en
        else:
            assert p is not None
            t = float(threshold_of_share(counts[lang], p))
        solved[lang] = Threshold(t=t, p=tail_share(counts[lang], t), matches=matches, whole=whole)
    return (tail_share(english, t_all) if english.sum() and t_all is not None else 1.0) if p is None else p, solved
