"""Which images of a set are copies of others: by the hash of their pixels, or nearly, by their difference hash."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

#: Bits of 64 in which the hashes of near copies differ at most. Of 1,000 photos 98 % or more of the copies in other sizes and qualities are
#: within it, and no two of the photos are, which differ in 9 bits at least.
DISTANCE = 3
#: Bits that must be set in a hash that is compared, and as many that must not. The hash of a picture on a plain ground, such as a word, a
#: drawing or a logo, has fewer, and differs in 3 from those of many others: its near copies are not looked for. So it is with 23 of 1,000
#: photos.
TELLING_BITS = 20
#: Hashes that share a key are compared with so many that follow; only pictures that are nearly alike come in longer runs.
_NEIGHBOURS = 1_000
#: Times that the images which are near to copies alone are looked at once more. Those in the order of their keys need 4 or so; only a long
#: film, picture by picture, needs more, and what is left of it then stays.
_ROUNDS = 32
#: Six blocks: two hashes that differ in three bits are equal in at least three of them.
_BLOCKS = tuple(((1 << width) - 1) << start for start, width in zip((0, 11, 22, 33, 44, 54), (11, 11, 11, 11, 10, 10), strict=True))


def exact_duplicates(hashes: np.ndarray) -> np.ndarray:
    """For each image the first one of the same hash, which may be itself. ``hashes``: uint64 or bytes, shape (n,); int64, shape (n,)."""
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    return first[number].astype(np.int64)


def near_duplicates(hashes: np.ndarray) -> np.ndarray:
    """For each image an earlier one that stays and whose hash differs in at most DISTANCE bits; or itself, where it stays.

    In the order of the images each stays that is near to none that stays before it, so that no copy is far from what it is a copy of, and
    no two that stay are near. ``hashes``: difference hashes, uint64, shape (n,); those without TELLING_BITS are like no other, not even
    their equals. int64, shape (n,).
    """
    set_bits = np.bitwise_count(hashes)
    tells = (set_bits >= TELLING_BITS) & (set_bits <= 64 - TELLING_BITS)
    same = exact_duplicates(hashes)
    firsts = np.flatnonzero(tells & (same == np.arange(len(hashes))))
    out = np.arange(len(hashes))
    out[firsts] = firsts[_first_that_stays(hashes[firsts])]
    out[tells] = out[same[tells]]
    return out


def _first_that_stays(distinct: np.ndarray) -> np.ndarray:
    """:func:`near_duplicates` of hashes that all tell, each once."""
    out = np.arange(len(distinct))
    left = out
    for _ in range(_ROUNDS):
        follows, leads = np.zeros((2, len(left)), dtype=bool)
        for before, behind in _near_pairs(distinct[left]):
            leads[before] = follows[behind] = True
        left, follows = left[leads | follows], follows[leads | follows]
        # What follows none stays, and what is near to it is a copy; whether the others stay depends on others that are left.
        nearest = np.full(len(left), len(left))
        for before, behind in _near_pairs(distinct[left]):
            counts = ~follows[before] & follows[behind]
            np.minimum.at(nearest, behind[counts], before[counts])
        copies = np.flatnonzero(nearest < len(left))
        out[left[copies]] = left[nearest[copies]]
        left = left[follows & (nearest == len(left))]
        if not len(left):
            break
    return out


def _near_pairs(distinct: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs of hashes that differ in at most DISTANCE bits: indices of the earlier ones and of the later ones. Pairs come repeatedly.

    Hashes are sorted once for every three of six blocks, and those that agree in these compared (Manku, Jain, Das Sarma: Detecting
    Near-Duplicates for Web Crawling, WWW 2007), so that time and memory grow with n and not with its square.
    """
    for blocks in combinations(_BLOCKS, 3):
        keys = distinct & np.uint64(sum(blocks))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for step in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
            together = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(together):
                break
            # The order is stable, so that the image behind is the later one.
            before, behind = order[together], order[together + step]
            near = np.bitwise_count(distinct[before] ^ distinct[behind]) <= DISTANCE
            yield before[near], behind[near]
