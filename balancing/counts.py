"""How many unique pairs match each entry: sparse blocks that are summed across parts, then one dense list per language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

#: Entry ids of one block: small enough to be summed anywhere, large enough that a language is a handful of them.
BLOCK = 65_536

COUNTS_SCHEMA = pa.schema([pa.field("id", pa.int32(), nullable=False), pa.field("count", pa.int64(), nullable=False)])

#: (ids within the block, their counts): two arrays of equal length, ids ascending.
Block = tuple[np.ndarray, np.ndarray]


def rows_by_language(matched: pa.Table) -> Iterator[tuple[str, int, int]]:
    """The runs (lang, first row, end row) of a matched table, which is sorted by lang."""
    column = matched.column("lang").combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    codes = column.indices.to_numpy()
    edges = np.concatenate(([0], np.flatnonzero(codes[1:] != codes[:-1]) + 1, [len(codes)])) if len(codes) else np.zeros(1, dtype=int)
    for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield column.dictionary[codes[first]].as_py(), first, end


def list_arrays(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values and offsets (n + 1) of a list column as numpy; offsets start at 0."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    offsets = array.offsets.to_numpy()
    return array.flatten().to_numpy(zero_copy_only=False), offsets - offsets[0]


def count_part(matched: pa.Table, keep: np.ndarray, reasons: np.ndarray | None = None) -> Iterator[tuple[tuple[str, int], Block]]:
    """Counts of the living rows of one matched part, as ((lang, block number), block).

    ``reasons``: per row the number of why it is left out, 0 where it is not (balancing.left_out). Under block −1 stands how many living
    rows have each number, so under id 0 how many are counted.

    Raises:
        ValueError: an entry id is negative.
    """
    entries, offsets = list_arrays(matched.column("entries"))
    for lang, first, end in rows_by_language(matched):
        unique = keep[first:end]
        why = np.zeros(end - first, dtype=np.int8) if reasons is None else reasons[first:end]
        numbers = np.bincount(why[unique], minlength=1)
        yield (lang, -1), (np.arange(len(numbers), dtype=np.int32), numbers.astype(np.int64))
        counted = unique & (why == 0)
        ids = entries[offsets[first] : offsets[end]][np.repeat(counted, np.diff(offsets[first : end + 1]))]
        found, counts = np.unique(ids, return_counts=True)
        last = int(found[-1]) if len(found) else -1
        if len(found) and found[0] < 0:
            raise ValueError(f"{lang}: entry id {found[0]} is negative")
        edges = np.searchsorted(found, np.arange(0, last + BLOCK + 1, BLOCK))
        for number, (a, b) in enumerate(pairwise(edges)):
            if a < b:
                yield (lang, number), ((found[a:b] - number * BLOCK).astype(np.int32), counts[a:b].astype(np.int64))


def sum_blocks(blocks: Iterable[Block]) -> Block:
    """Sum of blocks of one (language, block number); associative and commutative."""
    total = np.zeros(BLOCK, dtype=np.int64)
    for ids, counts in blocks:
        total[ids] += counts
    ids = np.flatnonzero(total).astype(np.int32)
    return ids, total[ids]


def dense_counts(blocks: Iterable[tuple[int, Block]], entries: int) -> np.ndarray:
    """int64 counts of shape (entries,) of one language from its summed blocks.

    Raises:
        ValueError: an id lies outside the list of entries.
    """
    total = np.zeros(entries, dtype=np.int64)
    for number, (ids, counts) in blocks:
        positions = ids.astype(np.int64) + number * BLOCK
        if len(positions) and int(positions.max()) >= entries:
            raise ValueError(f"entry id {int(positions.max())} is outside the list of {entries} entries")
        total[positions] += counts
    return total
