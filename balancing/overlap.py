"""Which pairs two sets have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa

from balancing.summary import Recount, language_codes


def rows_in_both(before: pa.Table, after: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the pairs that both tables have: int64 arrays of equal length, the first ascending. Pairs are equal if their
    image_key and pair_key are.

    Raises:
        ValueError: a pair occurs twice in a table.
    """
    images, pairs = (np.concatenate([before[name].to_numpy(), after[name].to_numpy()]) for name in ("image_key", "pair_key"))
    # Stable, so that of equal pairs the one before comes first.
    order = np.lexsort((pairs, images))
    same = (images[order][1:] == images[order][:-1]) & (pairs[order][1:] == pairs[order][:-1])
    first, second = order[:-1][same], order[1:][same]
    if (second < len(before)).any() or (first >= len(before)).any():
        raise ValueError("a pair occurs twice in one of the sets")
    by_first = np.argsort(first)
    return first[by_first], second[by_first] - len(before)


@dataclass
class LanguageOverlap:
    """Pairs of a language before and after. ``kept``: in both; ``went`` and ``came``: in one only; ``went_over`` and ``came_over``: in
    both, but of another language on the other side. before = kept + went + went_over, after = kept + came + came_over."""

    before: int = 0
    after: int = 0
    kept: int = 0
    went: int = 0
    came: int = 0
    went_over: int = 0
    came_over: int = 0

    @property
    def same(self) -> bool:
        return self.before == self.kept == self.after

    def __add__(self, other: LanguageOverlap) -> LanguageOverlap:
        return LanguageOverlap(**{x.name: getattr(self, x.name) + getattr(other, x.name) for x in fields(self)})


@dataclass
class Overlap:
    """Two sets that come run by run, a run being a share of the image keys; ``went`` and ``came`` count the entries of the pairs that are
    in one set only.

    Memory: one run, and 8 bytes per entry id on each side, in blocks of which only those that occur exist.
    """

    languages: dict[str, LanguageOverlap] = field(default_factory=dict)
    went: Recount = field(default_factory=Recount)
    came: Recount = field(default_factory=Recount)

    def add(self, before: pa.Table, after: pa.Table) -> None:
        """Compare a run: columns image_key, pair_key, lang and entries.

        Raises:
            ValueError: a pair occurs twice in a set, or an entry id is negative.
        """
        first, second = rows_in_both(before, after)
        one, other = _names(before), _names(after)
        stays = one[first] == other[second]
        self._count("before", one)
        self._count("after", other)
        self._count("kept", one[first][stays])
        self._count("went_over", one[first][~stays])
        self._count("came_over", other[second][~stays])
        for name, table, names, both, recount in (("went", before, one, first, self.went), ("came", after, other, second, self.came)):
            alone = np.ones(len(table), dtype=bool)
            alone[both] = False
            self._count(name, names[alone])
            recount.add(table.filter(pa.array(alone)))

    def _count(self, what: str, names: np.ndarray) -> None:
        for lang, n in zip(*np.unique(names, return_counts=True), strict=True):
            of = self.languages.setdefault(str(lang), LanguageOverlap())
            setattr(of, what, getattr(of, what) + int(n))


def _names(table: pa.Table) -> np.ndarray:
    """The language of each row, shape (rows,)."""
    codes, languages = language_codes(table)
    return np.array([*languages, ""], dtype="U32")[codes]


def total(languages: Mapping[str, LanguageOverlap]) -> LanguageOverlap:
    """The sum over languages."""
    return sum(languages.values(), LanguageOverlap())
