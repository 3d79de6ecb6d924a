"""How many pairs balancing can be expected to keep, for several thresholds in one pass, and the thresholds for a number that is wanted.

Of an image's texts one is chosen and kept with its probability (balancing.sampling), so that the expected number kept is the sum over
unique pairs of probability / (number of the image's texts). It grows with every t, which is all that the search needs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from balancing.counts import list_arrays, rows_by_language
from balancing.thresholds import TailCurve

#: Thresholds of a language that a pass evaluates together: 16 cost about twice as much as one.
GRID = 16
#: Probabilities are added up as whole multiples of 1 / SCALE: sums that no order of parts or workers can change. Their int64 holds
#: 3 · 10^10 pairs.
SCALE = 1 << 28
#: Texts that are evaluated together: their probabilities at all thresholds stay in a processor's cache.
_TEXTS = 8_192


def inverse_counts(counts: np.ndarray) -> np.ndarray:
    """1 / count per entry id, float32; of an entry without a pair 1, as of any that is kept whole."""
    return (1.0 / np.maximum(counts, 1)).astype(np.float32)


def expected_of_texts(inverse: np.ndarray, entries: np.ndarray, offsets: np.ndarray, weight: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Σ over texts of weight · (1 − Π (1 − min(1, t / count))) at each threshold: int64 in units of 1 / SCALE, shape (thresholds,).

    Text i has the entries ``entries[offsets[i]:offsets[i + 1]]``; ``inverse``: 1 / count per entry id; ``weight``: shape (texts,), at most
    1; ``t``: shape (thresholds,), at least 1. The product is taken as p ← p + x (1 − p) in float32: right to some 10^-7 of itself for the
    smallest p too. Memory: a few MB beside the arguments.

    Raises:
        ValueError: an entry id lies outside ``inverse``.
    """
    total = np.zeros(len(t), dtype=np.int64)
    thresholds = t.astype(np.float32)[:, None]
    ids = entries[offsets[0] : offsets[-1]]
    outside = ids[(ids < 0) | (ids >= len(inverse))]
    if len(outside):
        raise ValueError(f"entry id {outside[0]} is outside the list of {len(inverse)} entries")
    room = np.empty((3, len(t), min(_TEXTS, len(weight))), dtype=np.float32)
    for first in range(0, len(weight), _TEXTS):
        edges = offsets[first : first + _TEXTS + 1].astype(np.int64)
        inverses = inverse[entries[edges[0] : edges[-1]]]
        # Longest texts first: those that have a next entry are always the first ones.
        lengths = np.diff(edges)
        order = np.argsort(-lengths, kind="stable")
        starts = (edges[:-1] - edges[0])[order]
        with_entry = np.searchsorted(-lengths[order], -np.arange(lengths.max()), side="left")
        p, x, rest = room[:, :, : len(lengths)]
        p[:] = 0
        for place, n in enumerate(with_entry.tolist()):
            np.multiply(inverses[starts[:n] + place], thresholds, out=x[:, :n])
            np.minimum(x[:, :n], 1, out=x[:, :n])
            np.subtract(1, p[:, :n], out=rest[:, :n])
            rest[:, :n] *= x[:, :n]
            p[:, :n] += rest[:, :n]
        p *= (weight[first : first + _TEXTS][order] * SCALE).astype(np.float32)
        total += p.astype(np.int32).sum(axis=1, dtype=np.int64)
    return total


def expected_of_part(
    matched: pa.Table, texts_of_image: np.ndarray, unique: np.ndarray, *, t: Mapping[str, np.ndarray], inverse: Callable[[str], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Per language of a matched part: how many of its rows count, and the expected number kept at each of the language's thresholds.

    ``matched``: columns lang and entries, sorted by lang. ``texts_of_image``: the number of the image's unique texts, and ``unique``:
    whether the row is counted at all, shape (rows,). ``inverse``: the language's :func:`inverse_counts`. A language without thresholds is
    passed over. Gives int64 arrays: rows, then the sums in units of 1 / SCALE.

    Raises:
        ValueError: an entry id lies outside the language's list.
    """
    entries, offsets = list_arrays(matched.column("entries"))
    for lang, first, end in rows_by_language(matched):
        if lang not in t:
            continue
        rows = first + np.flatnonzero(unique[first:end])
        lengths = offsets[rows + 1] - offsets[rows]
        mine, edges = entries, offsets[first : end + 1]
        if len(rows) < end - first:
            mine = entries[offsets[first] : offsets[end]][np.repeat(unique[first:end], np.diff(edges))]
            edges = np.concatenate(([0], np.cumsum(lengths)))
        try:
            sums = expected_of_texts(inverse(lang), mine, edges, 1.0 / texts_of_image[rows], t[lang])
        except ValueError as error:
            raise ValueError(f"{lang}: {error}") from None
        yield lang, np.concatenate(([len(rows)], sums))


# -- thresholds for a number that is wanted ------------------------------------------------------------------------------------------

#: The group of the languages whose thresholds follow from one tail share.
SHARED = "p"
#: A search is done when the expected number at the thresholds that it looked at around its answer differs by less than this share of the
#: number wanted. What lies between is taken from a straight line, which is then off by some 10^-4 of it at most.
TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Group:
    """Languages whose thresholds all follow from one number, the knob, and how many pairs are wanted of them together.

    ``thresholds``: knob → t per language, none of which falls as the knob rises from ``low`` to ``high``. ``finest``: where a range of
    knobs that reaches down to 0 begins to be cut.
    """

    name: str
    wanted: float
    low: float
    high: float
    finest: float
    thresholds: Callable[[float], Mapping[str, float]]


def group_of_share(curves: Mapping[str, TailCurve], wanted: float) -> Group:
    """Languages that have the tail share p in common, which is the knob."""

    def thresholds(p: float) -> dict[str, float]:
        return {lang: float(curve.threshold(p)) for lang, curve in curves.items()}

    return Group(name=SHARED, wanted=wanted, low=0.0, high=1.0, finest=1e-7, thresholds=thresholds)


def group_of_language(lang: str, curve: TailCurve, wanted: float) -> Group:
    """A language by itself; the knob is its t."""

    def thresholds(t: float) -> dict[str, float]:
        return {lang: float(round(t))}

    return Group(name=lang, wanted=wanted, low=1.0, high=float(curve.largest), finest=1.0, thresholds=thresholds)


def groups_for(counts: Mapping[str, np.ndarray], target: float, *, shares: Mapping[str, float], fixed: Collection[str]) -> list[Group]:
    """The groups that together keep ``target`` pairs: languages with a share of it by themselves, and all others but the ``fixed`` ones.

    ``counts``: per language int64 counts per entry id.

    Raises:
        ValueError: the shares are more than the whole, or leave nothing for the other languages; a language that has a share has no counts,
            or a t already.
    """
    curves = {lang: TailCurve(of) for lang, of in counts.items() if of.any()}
    if nowhere := sorted(shares.keys() - curves.keys()):
        raise ValueError(f"a share is given for {', '.join(nowhere)}, of which there are no counts")
    if twice := sorted(shares.keys() & set(fixed)):
        raise ValueError(f"both a t and a share are given for {', '.join(twice)}")
    rest = {lang: curve for lang, curve in curves.items() if lang not in shares and lang not in fixed}
    left = 1 - math.fsum(shares.values())
    if left < -1e-9:
        raise ValueError(f"the shares of languages are {1 - left:.4g} of the whole together")
    if (left > 1e-9) != bool(rest or fixed):
        have = f"{', '.join([*rest][:5])} and whatever else has no share" if rest else "no language without a share"
        raise ValueError(f"the shares of languages leave {max(left, 0):.4g} of the whole for the others, and there is {have}")
    groups = [group_of_language(lang, curves[lang], share * target) for lang, share in sorted(shares.items())]
    return groups + ([group_of_share(rest, left * target)] if rest else [])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The knob of a group, its thresholds and the number of pairs that can be expected with them. ``step``: how much that number changes
    with the next higher or lower thresholds that there are."""

    knob: float
    t: Mapping[str, float]
    expected: float
    step: float


@dataclass(kw_only=True)
class Search:
    """Finds the knobs of groups from passes over the pairs, each of which tells the expected number at some thresholds: :meth:`grid` says
    at which, :meth:`add` takes the result, until :meth:`is_done`.

    ``fixed``: t of languages that are not searched; what they keep is taken from what is wanted of the group of shares. ``around``: knobs
    to begin with, from a search in a sample. Nothing here depends on a logarithm's last digit.
    """

    groups: Sequence[Group]
    fixed: Mapping[str, float] = field(default_factory=dict)
    around: Mapping[str, float] = field(default_factory=dict)
    _seen: dict[str, dict[float, float]] = field(default_factory=dict)
    _knobs: dict[str, set[float]] = field(default_factory=dict)

    def grid(self) -> dict[str, list[float]]:
        """The thresholds to look at next: per language about GRID of them, ascending."""
        wanted: dict[str, set[float]] = {lang: {t} for lang, t in self.fixed.items()}
        for group in self.groups:
            knobs = self._next_knobs(group)
            self._knobs.setdefault(group.name, set()).update(knobs)
            for knob in knobs:
                for lang, t in group.thresholds(knob).items():
                    wanted.setdefault(lang, set()).add(t)
        return {lang: sorted(wanted[lang]) for lang in sorted(wanted)}

    def _next_knobs(self, group: Group) -> Sequence[float]:
        if group.name in self._knobs:
            return [*spread(*self._bracket(group), finest=group.finest, n=GRID - 2), *self._sides(group)]
        if group.name in self.around:
            guess = self.around[group.name]
            near = [guess * factor for d in (0.001, 0.005, 0.02, 0.08, 0.3) for factor in (1 - d, 1 + d)]
            inside = [knob for knob in (guess / 3, *near, guess, guess * 3) if group.low < knob < group.high]
            return [group.low, *inside, group.high]
        return spread(group.low, group.high, finest=group.finest, n=GRID)

    def add(self, expected: Mapping[str, Mapping[float, float]]) -> None:
        """What a pass found: per language and threshold, the expected number of pairs."""
        for lang, of in expected.items():
            self._seen.setdefault(lang, {}).update(of)

    def is_done(self) -> bool:
        """Whether the thresholds that were looked at lie near enough to the answer, see TOLERANCE."""
        return all(
            self._of(group, knob)[1] <= TOLERANCE * max(self.wanted(group), 1.0) for group in self.groups for knob in self._sides(group)
        )

    def reach(self) -> dict[str, tuple[float, float]]:
        """Per group the least and the largest number of pairs that it can be made to keep."""
        return {g.name: (self._of(g, g.low)[0], self._of(g, g.high)[0]) for g in self.groups}

    def wanted(self, group: Group) -> float:
        """How many pairs the group is to keep, once it is known what the fixed languages keep."""
        return group.wanted - (math.fsum(self.expected(self.fixed).values()) if group.name == SHARED else 0.0)

    def expected(self, t: Mapping[str, float]) -> dict[str, float]:
        """The number of pairs that is expected of each language at its threshold."""
        return {lang: self._at(lang, of)[0] for lang, of in t.items()}

    def answers(self) -> dict[str, Answer]:
        """Per group the knob whose expected number is nearest to what is wanted."""
        out = {}
        for group in self.groups:
            sides = self._sides(group)
            found = [self._of(group, knob)[0] for knob in sides]
            best = min((0, 1), key=lambda i: abs(found[i] - self.wanted(group)))
            knob = _short(group, sides[best])
            out[group.name] = Answer(knob=knob, t=group.thresholds(knob), expected=found[best], step=found[1] - found[0])
        return out

    def _at(self, lang: str, t: float) -> tuple[float, float]:
        """The expected number of a language at t, and how far that can be off: the distance of its neighbours, 0 where t was looked at."""
        seen = self._seen.get(lang, {})
        if t in seen or len(seen) < 2:
            return seen.get(t, 0.0), 0.0
        ts = sorted(seen)
        place = min(max(bisect_left(ts, t), 1), len(ts) - 1)
        low, high = ts[place - 1 : place + 1]
        return seen[low] + (seen[high] - seen[low]) * ((t - low) / (high - low)), seen[high] - seen[low]

    def _of(self, group: Group, knob: float) -> tuple[float, float]:
        found = [self._at(lang, t) for lang, t in group.thresholds(knob).items()]
        return math.fsum(n for n, _ in found), math.fsum(off for _, off in found)

    def _bracket(self, group: Group) -> tuple[float, float]:
        """The two neighbours among the knobs that were looked at between which the wanted number lies, or that are nearest to it."""
        knobs = sorted(self._knobs[group.name])
        place = bisect_right(knobs, self.wanted(group), key=lambda knob: self._of(group, knob)[0])
        place = min(max(place, 1), len(knobs) - 1)
        return knobs[place - 1], knobs[place]

    def _sides(self, group: Group) -> tuple[float, float]:
        """The last knob that keeps no more than is wanted and the first that keeps more, as far as is known; at an end twice the same."""
        low, high = self._bracket(group)
        wanted = self.wanted(group)
        if self._of(group, low)[0] > wanted:
            return low, low
        if self._of(group, high)[0] <= wanted:
            return high, high
        while low < (middle := (low + high) / 2) < high and group.thresholds(low) != group.thresholds(high):
            if self._of(group, middle)[0] <= wanted:
                low = middle
            else:
                high = middle
        return low, high


def spread(low: float, high: float, *, finest: float, n: int) -> list[float]:
    """At most ``n`` numbers from ``low`` to ``high``, both included, in about equal ratios; of what lies below ``finest`` only ``low``."""
    first = max(low, min(finest, high))
    inner = np.geomspace(first, high, n if first == low else n - 1)
    # Rounded, so that no processor's idea of a logarithm shows.
    return sorted({low, high, *(float(f"{x:.6g}") for x in inner.tolist() if low < float(f"{x:.6g}") < high)})


def _short(group: Group, knob: float) -> float:
    """The number of fewest digits with the same thresholds as this knob."""
    for digits in range(1, 17):
        short = float(f"{knob:.{digits}g}")
        if group.low <= short <= group.high and group.thresholds(short) == group.thresholds(knob):
            return short
    return knob


def guess_of_counts(counts: np.ndarray, pairs: int, t: float) -> float:
    """A rough number of pairs that are kept, from counts alone, as if the entries of a text had nothing to do with each other.

    A text is taken to have the mean number m of entries, each an independent draw by the counts, which is kept with the probability
    q = Σ min(count, t) / Σ count: pairs · (1 − (1 − q)^m). Which texts share an image, the counts do not tell.
    """
    matches = int(counts.sum())
    if not matches or not pairs:
        return 0.0
    return pairs * (1 - (1 - float(np.minimum(counts, t).sum()) / matches) ** (matches / pairs))
