"""Images and texts from Parquet, in one order that ranks, workers and interruptions cannot change.

An epoch shuffles all row groups, lays their rows end to end and cuts the line into ``streams`` equal spans; each stream is shuffled within
blocks of ``shuffle_rows`` rows. A global batch is the next ``batch_size / streams`` samples of every stream, streams in order. Ranks, and
workers within a rank, own runs of neighbouring streams: their parts laid side by side are the same batch for any number of either, each
row group is read by the one or two workers in whose spans it lies, and the step is all that must be kept for an exact resume.

Memory of a worker: per stream of its own, the row groups that one shuffle block touches (``shuffle_rows`` rows and at most two row groups).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple
from weakref import WeakValueDictionary

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from balancing.pairs import image_keys
from balancing.sampling import CHOOSE, uniform
from train.config import Config, InputError
from train.model import Tokenizer

COLUMNS = ["image_id", "jpeg", "texts"]
#: Aspect ratios that a training crop may have, as in open_clip.
CROP_RATIO = (3 / 4, 4 / 3)


class ImageSet(NamedTuple):
    """Every row group of the input, in the order of the input: its file, its number in that, and how many rows it has.

    ``fingerprint``: digest of file names (without their folders) and row counts, by which a resumed run knows its data.
    """

    groups: list[tuple[str, int]]
    rows: np.ndarray
    fingerprint: str


def find_images(paths: Sequence[str]) -> ImageSet:
    """The row groups in ``part-*.parquet`` of directories, or in files; fsspec URLs or local paths.

    Raises InputError: nothing found, a stage that is not finished, a file that is not Parquet or lacks a column, no rows.
    """
    files = [file for path in paths for file in _list_parts(path)]
    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(_rows_of_groups, files))
    rows = np.array([n for of_file in counts for n in of_file], dtype=np.int64)
    if not rows.sum():
        raise InputError(f"no images in {', '.join(paths)}" if paths else "no images: give --data, or data.paths in the configuration")
    groups = [(file, number) for file, of_file in zip(files, counts, strict=True) for number in range(len(of_file))]
    names = [[file.rpartition("/")[2], of_file] for file, of_file in zip(files, counts, strict=True)]
    return ImageSet(groups, rows, hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest())


def _list_parts(path: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(path)
    if fs.isfile(root):
        return [path]
    if fs.exists(f"{root}/stage.json") and not fs.exists(f"{root}/_SUCCESS"):
        raise InputError(f"the stage {path} is not finished: it has no _SUCCESS")
    parts = sorted(fs.unstrip_protocol(part) for part in fs.glob(f"{root}/part-*.parquet"))
    if not parts:
        raise InputError(f"no part-*.parquet in {path}")
    return parts


@contextmanager
def _open_parquet(url: str) -> Iterator[pq.ParquetFile]:
    fs, path = fsspec.core.url_to_fs(url)
    try:
        with pq.ParquetFile(path, filesystem=fs) as parquet:
            yield parquet
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{url} cannot be read as Parquet: {error}") from None


def _rows_of_groups(url: str) -> list[int]:
    with _open_parquet(url) as parquet:
        if missing := [column for column in COLUMNS if column not in parquet.schema_arrow.names]:
            raise InputError(f"{url} has no column {', '.join(missing)}; the trainer reads {', '.join(COLUMNS)}")
        return [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]


class EpochOrder:
    """The order of one epoch of a set with ``rows`` rows per row group: a pure function of the arguments.

    ``steps`` global batches of ``per_step`` samples of every stream fit into it; which rows are left over differs from epoch to epoch.
    """

    def __init__(self, rows: np.ndarray, config: Config, epoch: int) -> None:
        self._key, self._shuffle_rows = (config.train.seed, epoch), config.data.shuffle_rows
        self._groups = np.argsort(uniform(*self._key, "order of row groups", np.arange(len(rows))), kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(rows[self._groups])])
        self._span = int(rows.sum()) // config.data.streams
        self.steps, self.per_step = int(rows.sum()) // config.train.batch_size, config.train.batch_size // config.data.streams

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


#: Row group, row within it, and the row group's table.
Sample = tuple[int, int, pa.Table]


class Part(NamedTuple):
    """A worker's part of a batch: ``images`` uint8 (n, size, size, 3), ``tokens`` int64 (n, context), ``bad`` what could not be read."""

    images: torch.Tensor
    tokens: torch.Tensor
    bad: list[str]


@dataclass
class Reader(IterableDataset[Part]):
    """A rank's share of every global batch from ``first_step`` to the last, or the part of it that is a worker's.

    ``streams``: those of the rank; ``size``: side of the images that it gives, in pixels.
    """

    images: ImageSet
    config: Config
    streams: range
    tokenizer: Tokenizer
    size: int
    first_step: int

    def batches(self, *, pin_memory: bool) -> Iterator[list[Part]]:
        """The shares as the parts that the rank's workers give, in order."""
        workers = min(self.config.data.workers, len(self.streams))
        prefetch = self.config.data.prefetch if workers else None
        loader = DataLoader(self, batch_size=None, num_workers=workers, prefetch_factor=prefetch, pin_memory=pin_memory)
        # The loader asks its workers in turn, so that one round of them is one batch.
        yield from map(list, zip(*[iter(loader)] * max(workers, 1), strict=True))

    def __iter__(self) -> Iterator[Part]:
        worker = get_worker_info()
        streams = share(self.streams, worker.id, worker.num_workers) if worker else self.streams
        # Streams that are inside the same row group share it; it goes when the last of them has passed.
        shared: WeakValueDictionary[int, pa.Table] = WeakValueDictionary()
        cursors: list[Iterator[Sample]] = []
        steps_per_epoch = int(self.images.rows.sum()) // self.config.train.batch_size
        for step in range(self.first_step, self.config.train.steps):
            epoch, within = divmod(step, steps_per_epoch)
            if within == 0 or not cursors:
                order = EpochOrder(self.images.rows, self.config, epoch)
                cursors = [self._samples(order.blocks(stream, within), shared) for stream in streams]
            yield self._part([sample for cursor in cursors for sample in islice(cursor, order.per_step)], epoch)

    def _samples(self, blocks: Iterator[tuple[np.ndarray, np.ndarray]], shared: WeakValueDictionary[int, pa.Table]) -> Iterator[Sample]:
        held: dict[int, pa.Table] = {}
        for groups, rows in blocks:
            needed = np.unique(groups).tolist()
            held = {group: held[group] for group in needed if group in held}
            for group in needed:
                held[group] = shared[group] = held.get(group) or shared.get(group) or self._read(group)
            yield from ((group, row, held[group]) for group, row in zip(groups.tolist(), rows.tolist(), strict=True))

    def _read(self, group: int) -> pa.Table:
        file, number = self.images.groups[group]
        with _open_parquet(file) as parquet:
            return parquet.read_row_group(number, columns=COLUMNS, use_threads=False)

    def _part(self, samples: list[Sample], epoch: int) -> Part:
        seed, scale, starts = self.config.train.seed, self.config.data.crop_scale, np.cumsum(self.images.rows) - self.images.rows
        numbers = np.array([starts[group] + row for group, row, _ in samples])
        crops = np.stack([uniform(seed, epoch, f"crop {what}", numbers) for what in ("area", "ratio", "left", "top")], axis=1)
        choices = uniform(seed, epoch, CHOOSE, image_keys([str(table["image_id"][row]) for _, row, table in samples]))
        images, texts, bad = np.zeros((len(samples), self.size, self.size, 3), dtype=np.uint8), [""] * len(samples), []
        for i, (group, row, table) in enumerate(samples):
            try:
                candidates = table["texts"][row].as_py()
                if not candidates:
                    raise ValueError("no text")
                texts[i] = candidates[int(choices[i] * len(candidates))]["text"]
                images[i] = decode(table["jpeg"][row].as_py(), self.size, crops[i], scale)
            # Image decoders raise whatever their format made them raise: all of it means that this one image is bad.
            except Exception as error:
                file, number = self.images.groups[group]
                bad.append(f"{file}, row group {number}, row {row}, {table['image_id'][row]}: {error or type(error).__name__}")
        return Part(torch.from_numpy(images), self.tokenizer(texts), bad)


def decode(jpeg: bytes, size: int, draws: np.ndarray, scale: Sequence[float]) -> np.ndarray:
    """A training crop of an encoded image, resized: uint8 (size, size, 3). ``draws`` and ``scale`` as in :func:`crop_box`."""
    with Image.open(io.BytesIO(jpeg)) as image:
        full_width, full_height = image.size
        left, top, width, height = crop_box(full_width, full_height, draws, scale)
        # A JPEG decoder gives a half, quarter or eighth of the size for a fraction of the time; never less than the crop needs.
        image.draft(None, (math.ceil(size * full_width / width), math.ceil(size * full_height / height)))
        x, y = image.width / full_width, image.height / full_height
        # Pillow refuses a box that rounding has pushed over the edge.
        box = (left * x, top * y, min((left + width) * x, image.width), min((top + height) * y, image.height))
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box))


def crop_box(width: int, height: int, draws: np.ndarray, scale: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, width and height of a random crop, in pixels.

    ``draws``: four numbers in [0, 1) for area, aspect ratio, left and top. The area is uniform in ``scale`` (shares of the image), the
    ratio log-uniform within what CROP_RATIO allows and the image holds; an image too long for any ratio gives its largest crop of an
    allowed one.
    """
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    ratio = width / height
    low, high = max(CROP_RATIO[0], area * ratio), min(CROP_RATIO[1], ratio / area)
    if low <= high:
        ratio = low * (high / low) ** draws[1]
        crop_height = min(height, math.sqrt(width * height * area / ratio))
    else:
        ratio = min(max(ratio, CROP_RATIO[0]), CROP_RATIO[1])
        crop_height = min(height, width / ratio)
    crop_width = min(width, crop_height * ratio)
    return float((width - crop_width) * draws[2]), float((height - crop_height) * draws[3]), float(crop_width), float(crop_height)
