"""Which images of a set are copies of others: by the hash of their pixels, or nearly, by their difference hash."""

from __future__ import annotations

from itertools import combinations

import numpy as np

#: Bits of 64 in which the hashes of near copies differ at most. Of 1,000 photos 98 % or more of the copies in other sizes and qualities are
#: within it, and no two of the photos are, which differ in 9 bits at least.
DISTANCE = 3
#: Hashes that share a key are compared with so many that follow; only pictures with next to nothing in them come in longer runs.
_NEIGHBOURS = 1_000
#: Six blocks: two hashes that differ in three bits are equal in at least three of them.
_BLOCKS = tuple(((1 << width) - 1) << start for start, width in zip((0, 11, 22, 33, 44, 54), (11, 11, 11, 11, 10, 10), strict=True))


def exact_duplicates(hashes: np.ndarray) -> np.ndarray:
    """For each image the first one of the same hash, which may be itself. ``hashes``: uint64 or bytes, shape (n,); int64, shape (n,)."""
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    return first[number].astype(np.int64)


def near_duplicates(hashes: np.ndarray) -> np.ndarray:
    """For each image the first one that it leads to over steps of at most DISTANCE bits, always to an earlier image; or itself.

    ``hashes``: difference hashes, uint64, shape (n,); 0, a picture without any rise in brightness, is like no other. int64, shape (n,).

    Hashes are sorted once for every three of six blocks, and those that agree in these compared (Manku, Jain, Das Sarma: Detecting
    Near-Duplicates for Web Crawling, WWW 2007), so that time and memory grow with n and not with its square.
    """
    same = exact_duplicates(hashes)
    firsts = np.flatnonzero((same == np.arange(len(hashes))) & (hashes != 0))
    distinct = hashes[firsts]
    earliest = np.arange(len(firsts))
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
            np.minimum.at(earliest, behind[near], before[near])
    while not np.array_equal(earliest, earliest[earliest]):
        earliest = earliest[earliest]
    out = np.arange(len(hashes))
    out[firsts] = firsts[earliest]
    seen = hashes != 0
    out[seen] = out[same[seen]]
    return out
