"""What a report says of a set in figures: counts after balancing, head and tail as a curve, and a few pairs to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancing.counts import BLOCK, count_part, dense_counts
from balancing.sampling import uniform

#: The stream of draws that chooses the pairs to read: apart from those that decide what is kept.
SHOW = "show"

#: (counts ascending, each once; how many entries have each): int64 arrays of equal length. Entries without a match are left out.
Histogram = tuple[np.ndarray, np.ndarray]


def language_codes(table: pa.Table) -> tuple[np.ndarray, list[str]]:
    """Code of each row's ``lang``, shape (rows,), and the languages by code."""
    column = table["lang"].cast(pa.string()).combine_chunks()
    encoded = (column.chunk(0) if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


@dataclass
class Recount:
    """Pairs per language and per entry of a set that comes part by part, in any order of rows.

    Holds 8 bytes per entry id, in blocks of which only those that occur exist.
    """

    pairs: dict[str, int] = field(default_factory=dict)
    _blocks: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Count a table with the columns lang and entries.

        Raises:
            ValueError: an entry id is negative.
        """
        codes, languages = language_codes(table)
        encoded = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(languages, pa.string()))
        by_language = pa.table({"lang": encoded, "entries": table["entries"]}).take(pa.array(np.argsort(codes, kind="stable")))
        for (lang, number), (ids, counts) in count_part(by_language, np.ones(len(table), dtype=bool)):
            if number < 0:
                self.pairs[lang] = self.pairs.get(lang, 0) + int(counts.sum())
                continue
            blocks = self._blocks.setdefault(lang, {})
            blocks.setdefault(number, np.zeros(BLOCK, dtype=np.int64))[ids] += counts

    def counts(self, lang: str, entries: int) -> np.ndarray:
        """int64 counts of shape (entries,) of one language.

        Raises:
            ValueError: an id lies outside the list of entries.
        """
        ids = ((number, np.flatnonzero(block)) for number, block in sorted(self._blocks.get(lang, {}).items()))
        return dense_counts(((number, (found, self._blocks[lang][number][found])) for number, found in ids), entries)


@dataclass
class Shown:
    """The ``size`` pairs of each language with the smallest draws, from parts that come one by one: the same in whatever order they do.

    Holds ``size`` positions per language; :meth:`positions` says which rows of which part they are.
    """

    size: int
    seed: int
    _best: dict[str, list[tuple[float, int, int, int]]] = field(default_factory=dict)

    def add(self, part: int, table: pa.Table) -> None:
        """Look at a part: columns lang and pair_key."""
        codes, languages = language_codes(table)
        keys = table["pair_key"].to_numpy()
        draws = uniform(self.seed, 0, SHOW, keys)
        order = np.lexsort((keys, draws, codes))
        first = np.searchsorted(codes[order], np.arange(len(languages) + 1))
        for code, lang in enumerate(languages):
            rows = order[first[code] : min(first[code] + self.size, first[code + 1])]
            found = zip(draws[rows].tolist(), keys[rows].tolist(), [part] * len(rows), rows.tolist(), strict=True)
            self._best[lang] = sorted([*self._best.get(lang, []), *found])[: self.size]

    def positions(self) -> dict[int, list[tuple[str, int, int]]]:
        """Part → its shown rows as (language, place among the language's, row), both in order."""
        out: dict[int, list[tuple[str, int, int]]] = {}
        for lang in sorted(self._best):
            for place, (_, _, part, row) in enumerate(self._best[lang]):
                out.setdefault(part, []).append((lang, place, row))
        return dict(sorted(out.items()))


def histogram(counts: np.ndarray) -> Histogram:
    """How many entries have each positive count."""
    values, entries = np.unique(counts[counts > 0], return_counts=True)
    return values, entries


def add_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of all entries together. A histogram of n matches has at most √(2 n) distinct counts, so sums stay small."""
    each = list(histograms)
    values = np.concatenate([np.zeros(0, dtype=np.int64), *(v for v, _ in each)])
    entries = np.concatenate([np.zeros(0, dtype=np.int64), *(n for _, n in each)])
    distinct, place = np.unique(values, return_inverse=True)
    total = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(total, place, entries)
    return distinct, total


def rank_curve(counted: Histogram, *, points: int = 160) -> list[tuple[int, int]]:
    """(rank, count at that rank) of entries ordered by count, largest first: about ``points`` ranks evenly spread on a log axis.

    The first and the last rank are among them. Empty for no entries.
    """
    values, entries = counted
    if not len(values):
        return []
    last_rank = np.cumsum(entries[::-1])
    ranks = np.unique(np.rint(np.geomspace(1, last_rank[-1], points)).astype(np.int64))
    at = values[::-1][np.searchsorted(last_rank, ranks)]
    return list(zip(ranks.tolist(), at.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Head:
    """The entries of a language that are not in its tail: count ≥ t. ``share``: of all matches, 1 minus the tail share."""

    entries: int
    share: float


def head_of(counts: np.ndarray, t: float) -> Head:
    """The head of a language; empty for an infinite t or no matches."""
    head = counts >= t
    total = int(counts.sum())
    return Head(entries=int(np.count_nonzero(head)), share=int(counts[head].sum()) / total if total else 0.0)


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Positions of the ``n`` largest positive values, largest first; of equal ones the lower position. int64, shape (≤ n,)."""
    candidates = np.flatnonzero(values > 0)
    if len(candidates) > n:
        bar = np.partition(values[candidates], -n)[-n]
        candidates = candidates[values[candidates] >= bar]
    return candidates[np.argsort(-values[candidates], kind="stable")][:n]


def keep_largest(rows: Iterable[tuple[int, str, int]], n: int) -> list[tuple[int, str, int]]:
    """The ``n`` rows (value, language, id) of the largest value; of equal ones the first language and the lower id."""
    return sorted(rows, key=lambda row: (-row[0], row[1], row[2]))[:n]


def rows_per_language(table: pa.Table) -> dict[str, int]:
    """Rows of each language of a table with the column lang, languages ascending."""
    counted = pc.value_counts(table["lang"].cast(pa.string())).to_pylist()
    return {x["values"]: x["counts"] for x in sorted(counted, key=lambda x: x["values"])}
