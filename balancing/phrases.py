"""Finds patterns that begin and end with a space, in a batch of texts at once, by the hashes of runs of words.

Such a pattern is in a spaced text where two of the text's spaces are its ends. The hash of what lies between two places of a text is a
difference of running sums: a batch takes one pass over its bytes, and a look into the table for every run of words that a pattern begins
with; nothing in Python runs per text or match.

Hash of the bytes b of a window: Σ T[b_i] · B^i modulo 2^64, its lowest bit set; T and B are fixed, and another T or B is another version of
the automata's format. (A rolling hash, as that of Karp and Rabin, 1987.) A window that is no pattern passes for one of n with odds of
n / 2^63: among all texts of a Common Crawl not once is to be expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

#: Characters of texts that are looked at together: few enough that what belongs to them stays in the processor's cache.
BLOCK_CHARACTERS = 1 << 16
#: Of the table.
KEY, VALUE = np.dtype("<u8"), np.dtype("<i4")
_BASE = 0x9E3779B97F4A7C15
_SPACE, _END = ord(" "), ord("\n")


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """64 well-mixed bits of each number (the finalizer of splitmix64): numpy's generators promise no fixed streams."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_OF_BYTE = _mixed(np.arange(256))


@lru_cache(maxsize=2)
def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``n`` powers of the base and of its inverse."""

    def powers(base: int) -> np.ndarray:
        factors = np.full(n, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spaces:
    """The spaces of a block of texts. All arrays have one element per space; sums are uint64."""

    text: np.ndarray
    before: np.ndarray
    after: np.ndarray
    inverse: np.ndarray

    def hashes(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Of the windows from one space to another, both included."""
        return (self.after[last] - self.before[first]) * self.inverse[first] | np.uint64(1)


def _spaces(texts: Sequence[str]) -> _Spaces:
    """The spaces of some texts.

    Raises:
        ValueError: a text holds a newline.
    """
    data = np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)
    ends = data == _END
    if np.count_nonzero(ends) != max(0, len(texts) - 1):
        raise ValueError("texts must be normalized: one of them holds a newline")
    # No block of several texts has more bytes than that, and a longer text has powers made for it.
    powers, inverses = _powers(max(4 * BLOCK_CHARACTERS, 1 << len(data).bit_length()))
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(_OF_BYTE[data] * powers[: len(data)], out=sums[1:])
    places = np.flatnonzero(data == _SPACE)
    text = np.cumsum(ends, dtype=np.uint32)[places]
    return _Spaces(text=text, before=sums[places], after=sums[places + 1], inverse=inverses[places])


def blocks(texts: Sequence[str], most: int) -> Iterator[tuple[int, int]]:
    """First and end of runs of texts of about :data:`BLOCK_CHARACTERS` characters, and of ``most`` texts at most; of one at least."""
    if not texts:
        return
    # The newline between texts counts.
    grown = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1)
    first = 0
    while first < len(texts):
        before = int(grown[first - 1]) if first else 0
        end = min(first + most, int(np.searchsorted(grown, before + BLOCK_CHARACTERS, side="right")))
        yield first, max(end, first + 1)
        first = max(end, first + 1)


class Phrases:
    """A table of hashes, ascending: a hash lies at the place that its high bits name, or in the next free one behind.

    ``values``: twice the id of the pattern with that hash, or -2 where none ends there, and one more where longer patterns begin with it.

    Memory: 12 bytes a slot, of which two thirds at most are taken; and some 40 bytes per byte of the texts that are looked at together.
    """

    def __init__(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.keys, self.values = keys, values
        self._shift = np.uint64(_shift(len(keys)))

    def find(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the text (uint32) and id (int32) of each occurrence in spaced texts, in no order."""
        spaces = _spaces(texts)
        first = np.arange(len(spaces.text))
        found_text, found_id = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=np.int32)]
        words = 0
        while len(first):
            words += 1
            first = first[: np.searchsorted(first, len(spaces.text) - words)]
            first = first[spaces.text[first] == spaces.text[first + words]]
            hit, values = self._look_up(spaces.hashes(first, first + words))
            first = first[hit]
            whole = values >= 0
            found_text.append(spaces.text[first[whole]])
            found_id.append(values[whole] >> 1)
            first = first[values & 1 == 1]
        return np.concatenate(found_text), np.concatenate(found_id)

    def _look_up(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the hashes the table has, and their values."""
        slots = (hashes >> self._shift).view(np.int64)
        keys = self.keys.take(slots)
        behind = np.flatnonzero(keys < hashes)
        while len(behind):
            slots[behind] += 1
            keys[behind] = self.keys.take(slots[behind])
            behind = behind[keys[behind] < hashes[behind]]
        hit = np.flatnonzero(keys == hashes)
        return hit, self.values.take(slots[hit])


def _shift(n_slots: int) -> int:
    """By which the high bits of a hash name one of the slots: those behind the largest power of two take what runs over."""
    return 64 - (n_slots.bit_length() - 1)


def build_phrases(patterns: Sequence[str]) -> tuple[Phrases, np.ndarray]:
    """The table of patterns, by their places in the list, and the places (int32, ascending) of those that it cannot hold: that have no
    space at an end, or the hash of an earlier one.

    Memory: some 100 bytes per word of the patterns.
    """
    mine = [i for i, pattern in enumerate(patterns) if len(pattern) > 1 and pattern[0] == pattern[-1] == " " and "\n" not in pattern]
    texts = [patterns[i] for i in mine]
    hashes, ids = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for start, end in blocks(texts, max(1, len(texts))):
        spaces = _spaces(texts[start:end])
        is_first = np.diff(spaces.text.astype(np.int64), prepend=-1) != 0
        is_last = np.roll(is_first, -1)
        first = np.flatnonzero(is_first)[spaces.text]
        hashes.append(spaces.hashes(first, np.arange(len(first)))[~is_first])
        ids.append(np.where(is_last, np.array(mine[start:end])[spaces.text], -1)[~is_first])
    return _table(np.concatenate(hashes), np.concatenate(ids), len(patterns))


def _table(hashes: np.ndarray, ids: np.ndarray, n_patterns: int) -> tuple[Phrases, np.ndarray]:
    """From the hashes of all beginnings of patterns, and ids: of the pattern that ends there, or -1."""
    keys, node = np.unique(hashes, return_inverse=True)
    ending = np.flatnonzero(ids >= 0)[::-1]
    id_of = np.full(len(keys), -1)
    id_of[node[ending]] = ids[ending]  # of several with one hash the first stays, being the last to be written
    goes_on = np.bincount(node[ids < 0], minlength=len(keys)) > 0
    held = np.zeros(n_patterns, dtype=bool)
    held[id_of[id_of >= 0]] = True

    # At most two of three slots of a power of two are taken. A free one bears the next key behind it, whose own place it is not, so that a
    # search ends there; one at the end bears the largest number.
    n_slots = 1 << max(1, 3 * len(keys) // 2).bit_length()
    order = np.arange(len(keys))
    place = order + np.maximum.accumulate((keys >> np.uint64(_shift(n_slots))).astype(np.int64) - order)
    size = max(n_slots, int(place[-1]) + 1 if len(place) else 0) + 1
    following = np.searchsorted(place, np.arange(size))
    table = Phrases(np.append(keys, ~np.uint64(0))[following].astype(KEY), np.full(size, -2, dtype=VALUE))
    table.values[place] = 2 * id_of + goes_on
    return table, np.flatnonzero(~held).astype(np.int32)
