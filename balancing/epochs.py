"""What a trainer draws anew in each epoch beside the text: the order of the images and the crop of each. Keyed draws, no generator's state.

An epoch shuffles all row groups, lays their rows end to end and cuts the line into ``streams`` equal spans; each stream is shuffled within
blocks of ``shuffle_rows`` rows. A global batch is the next ``batch_size / streams`` samples of every stream, streams in order. Ranks, and
workers within a rank, own runs of neighbouring streams: their parts laid side by side are the same batch for any number of either, each
row group is read by the one or two workers in whose spans it lies, and the step is all that must be kept for an exact resume. Where each
epoch takes other rows (balancing.online), they are counted before the first step: the same set and seed give the same counts again.

Of several sets each has some of the streams, and so its share of every batch, and goes through epochs of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np

from balancing.sampling import uniform

#: What is read of a row group; must allow weak references and be true.
Rows = TypeVar("Rows")


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """How an epoch is shuffled, see above. ``streams`` divides ``batch_size``."""

    seed: int
    batch_size: int
    streams: int
    shuffle_rows: int


class EpochOrder:
    """The order of one epoch of a set with ``rows`` rows per row group: a pure function of the arguments.

    ``steps`` global batches of ``per_step`` samples of every stream fit into it; which rows are left over differs from epoch to epoch.
    """

    def __init__(self, rows: np.ndarray, shuffle: Shuffle, epoch: int) -> None:
        self._key, self._shuffle_rows = (shuffle.seed, epoch), shuffle.shuffle_rows
        self._groups = np.argsort(uniform(*self._key, "order of row groups", np.arange(len(rows))), kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(rows[self._groups])])
        self._span = int(rows.sum()) // shuffle.streams
        self.steps, self.per_step = int(rows.sum()) // shuffle.batch_size, shuffle.batch_size // shuffle.streams

    def blocks(self, stream: int, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row group, and row within it, of a stream's samples from ``step`` of the epoch on; one pair of int64 arrays per shuffle block."""
        first, end = step * self.per_step, self.steps * self.per_step
        for start in range(first - first % self._shuffle_rows, end, self._shuffle_rows):
            positions = np.arange(start, min(start + self._shuffle_rows, end)) + stream * self._span
            order = np.argsort(uniform(*self._key, "order of rows", positions), kind="stable")
            positions = positions[order][max(first - start, 0) :]
            place = np.searchsorted(self._starts, positions, side="right") - 1
            yield self._groups[place], positions - self._starts[place]


def share(whole: range, part: int, parts: int) -> range:
    """The ``part``-th of ``parts`` neighbouring runs of a range, as equal as possible."""
    return whole[len(whole) * part // parts : len(whole) * (part + 1) // parts]


def stream_shares(weights: Sequence[float], streams: int) -> list[range]:
    """The streams of each set: neighbouring runs, as long as the weights say, by the largest remainder (of equal ones the first set's)."""
    exact = [streams * weight / math.fsum(weights) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: math.floor(exact[i]) - exact[i])
    more = set(by_remainder[: streams - sum(map(math.floor, exact))])
    ends = list(accumulate(math.floor(share) + (i in more) for i, share in enumerate(exact)))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class Epochs:
    """The epochs of a set, one after the other. ``rows``: how many each row group gives in each of them, shape (epochs, row groups)."""

    def __init__(self, rows: np.ndarray, batch_size: int) -> None:
        self.rows = rows
        self._steps = rows.sum(axis=1, dtype=np.int64) // batch_size
        self._ends = np.cumsum(self._steps)

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step of the run, and the step's number in that."""
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        return epoch, step - int(self._ends[epoch] - self._steps[epoch])

    def progress(self, step: int) -> float:
        """How many epochs have passed before a step, which may be the end of the last one."""
        epoch, within = self.place(step) if step < self._ends[-1] else (len(self._ends), 0)
        return epoch + within / int(self._steps[epoch]) if within else float(epoch)


def walk(
    epochs: Epochs, shuffle: Shuffle, streams: range, *, steps: range, read: Callable[[int, int], Rows]
) -> Iterator[list[tuple[int, Rows]]]:
    """For each of the ``steps`` of a run the samples of some of the streams, streams in order: number among the rows read, and those.

    ``read`` gives the rows of an epoch's row group. Memory: per stream the row groups that one shuffle block touches (``shuffle_rows`` rows
    and at most two row groups more).
    """
    order, cursors = None, list[Iterator[tuple[int, Rows]]]()
    for step in steps:
        epoch, within = epochs.place(step)
        if within == 0 or order is None:
            order, cursors = EpochOrder(epochs.rows[epoch], shuffle, epoch), []
            # Streams that are inside the same row group share it; it goes when the last of them has passed.
            shared: WeakValueDictionary[int, Rows] = WeakValueDictionary()
            cursors = [_samples(order.blocks(stream, within), shared, partial(read, epoch)) for stream in streams]
        yield [sample for cursor in cursors for sample in islice(cursor, order.per_step)]


def _samples(
    blocks: Iterator[tuple[np.ndarray, np.ndarray]], shared: WeakValueDictionary[int, Rows], read: Callable[[int], Rows]
) -> Iterator[tuple[int, Rows]]:
    held: dict[int, Rows] = {}
    for groups, rows in blocks:
        needed = np.unique(groups).tolist()
        held = {group: held[group] for group in needed if group in held}
        for group in needed:
            held[group] = shared[group] = held.get(group) or shared.get(group) or read(group)
        yield from ((row, held[group]) for group, row in zip(groups.tolist(), rows.tolist(), strict=True))


def crop_draws(seed: int, epoch: int, numbers: np.ndarray) -> np.ndarray:
    """What decides the crops of images, by their numbers in the set: float64 in [0, 1), shape (images, 4)."""
    return np.stack([uniform(seed, epoch, f"crop {what}", numbers) for what in ("area", "ratio", "left", "top")], axis=1)
