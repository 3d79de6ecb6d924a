"""Which pairs are kept: keyed hashes instead of random numbers, the same online and offline.

Offline curation is epoch 0 of online curation; both call the functions here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

#: The two separate streams of draws. With one stream for both, a chosen text would be kept more often than its probability says.
CHOOSE = "choose"
KEEP = "keep"

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniform(seed: int, epoch: int, purpose: str, keys: np.ndarray) -> np.ndarray:
    """Draws in [0, 1) that depend on nothing but the arguments.

    The finalizer of SplitMix64 (Steele, Lea, Flood 2014) over ``keys`` (uint64, shape (n,)) plus a salt of seed, epoch and purpose;
    the upper 53 bits as float64, shape (n,). Integer arithmetic only, so every processor gives the same bits.
    """
    salt = np.frombuffer(hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest(), dtype="<u8")[0]
    with np.errstate(over="ignore"):
        x = keys.astype(np.uint64) + (salt | np.uint64(1)) * _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _MIX_1
        x = (x ^ (x >> np.uint64(27))) * _MIX_2
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)) * 2.0**-53


def entry_probabilities(counts: np.ndarray, t: float) -> np.ndarray:
    """Probability per entry: 1 where count < t, else t / count (MetaCLIP, section 3.3). float64, shape of ``counts``.

    ``t`` may be infinite: nothing is balanced away.
    """
    if np.isinf(t):
        return np.ones(counts.shape)
    return np.where(counts < t, 1.0, t / np.maximum(counts, 1))


def text_probabilities(probability: np.ndarray, entries: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Probability per text: 1 − Π (1 − p_e) over its entries, in float64.

    ``probability`` is per entry id; text i has the ids ``entries[offsets[i]:offsets[i + 1]]``. Shape (len(offsets) − 1,).
    The product runs strictly from left to right: ``np.multiply.reduceat`` may regroup it, and then processors would differ in the last bit.
    """
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets)
    by_length = np.argsort(-lengths, kind="stable")
    starts, sorted_lengths = starts[by_length], lengths[by_length]
    miss = 1.0 - probability
    product = np.ones(len(lengths))
    for position in range(int(sorted_lengths[0]) if len(lengths) else 0):
        longer = int(np.searchsorted(-sorted_lengths, -position, side="left"))
        product[:longer] *= miss[entries[starts[:longer] + position]]
    out = np.empty(len(lengths))
    out[by_length] = 1.0 - product
    return out


def chosen(image_keys: np.ndarray, rank: np.ndarray, before: np.ndarray, total: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Whether each text is the one chosen of its image's texts. Boolean, shape (n,).

    An image's texts are numbered over the selected languages in order: ``before`` (texts of earlier selected languages) plus ``rank`` (its
    place within its own); ``total`` counts them. The one whose number is floor(u(image) · total) is chosen: O(1) a row, no grouping.
    """
    drawn = np.floor(uniform(seed, epoch, CHOOSE, image_keys) * total)
    return (rank >= 0) & (before + rank == drawn)


def kept(pair_keys: np.ndarray, probability: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Whether each text is kept: u(pair) < probability. Boolean, shape (n,). Nested: a higher probability keeps all of a lower one."""
    return uniform(seed, epoch, KEEP, pair_keys) < probability


def place_among_languages(
    row_lang: np.ndarray, n_lang: np.ndarray, n: np.ndarray, offsets: np.ndarray, selected: Sequence[bool] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``before`` and ``total`` of :func:`chosen` from the siblings' column ``n``.

    Languages are codes in ascending order of their names. ``row_lang``: code of each row's language, shape (rows,); row i's counts are
    ``n[offsets[i]:offsets[i + 1]]`` of the languages ``n_lang[...]``; ``selected``: per code, whether the language takes part.
    Returns two int64 arrays of shape (rows,).
    """
    counted = np.where(np.asarray(selected, dtype=bool)[n_lang], n, 0)
    earlier = np.where(n_lang < np.repeat(row_lang, np.diff(offsets)), counted, 0)
    return _sums(earlier, offsets), _sums(counted, offsets)


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum of ``values[offsets[i]:offsets[i + 1]]`` for each i, int64: unlike ``np.add.reduceat``, 0 where that is empty."""
    running = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return running[offsets[1:]] - running[offsets[:-1]]
