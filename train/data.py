"""Images and texts from Parquet, in one order that ranks, workers and interruptions cannot change (balancing.epochs says which)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from balancing.epochs import Sample, Shuffle, crop_draws, crop_image, share, walk
from balancing.pairs import image_keys
from balancing.sampling import CHOOSE, uniform
from train.config import Config, InputError
from train.model import Tokenizer

COLUMNS = ["image_id", "jpeg", "texts"]


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
        counts = list(zip(files, pool.map(_rows_of_groups, files), strict=True))
    rows = np.array([n for _, of_file in counts for n in of_file], dtype=np.int64)
    if not rows.sum():
        raise InputError(f"no images in {', '.join(paths)}" if paths else "no images: give --data, or data.paths in the configuration")
    names = [[file.rpartition("/")[2], of_file] for file, of_file in counts]
    fingerprint = hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()
    return ImageSet([(file, number) for file, of_file in counts for number in range(len(of_file))], rows, fingerprint)


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


class Part(NamedTuple):
    """A worker's part of a batch: ``images`` uint8 (n, size, size, 3), ``tokens`` int64 (n, context), ``bad`` what could not be read."""

    images: torch.Tensor
    tokens: torch.Tensor
    bad: list[str]


@dataclass
class Reader(IterableDataset[Part]):
    """A rank's share of every global batch from ``first_step`` to the last, or the part of it that is a worker's.

    ``streams``: those of the rank; ``size``: side of the images that it gives, in pixels. Memory of a worker: see balancing.epochs.walk.
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
        worker, train, data = get_worker_info(), self.config.train, self.config.data
        streams = share(self.streams, worker.id, worker.num_workers) if worker else self.streams
        shuffle = Shuffle(seed=train.seed, batch_size=train.batch_size, streams=data.streams, shuffle_rows=data.shuffle_rows)
        for epoch, samples in walk(self.images.rows, shuffle, streams, steps=range(self.first_step, train.steps), read=self._read):
            yield self._part(samples, epoch)

    def _read(self, group: int) -> pa.Table:
        file, number = self.images.groups[group]
        with _open_parquet(file) as parquet:
            return parquet.read_row_group(number, columns=COLUMNS, use_threads=False)

    def _part(self, samples: list[Sample], epoch: int) -> Part:
        seed, starts = self.config.train.seed, np.cumsum(self.images.rows) - self.images.rows
        draws = crop_draws(seed, epoch, np.array([starts[group] + row for group, row, _ in samples]))
        choices = uniform(seed, epoch, CHOOSE, image_keys([str(table["image_id"][row]) for _, row, table in samples]))
        images, texts, bad = np.zeros((len(samples), self.size, self.size, 3), dtype=np.uint8), [""] * len(samples), []
        for i, (group, row, table) in enumerate(samples):
            try:
                candidates = table["texts"][row].as_py()
                if not candidates:
                    raise ValueError("no text")
                texts[i] = candidates[int(choices[i] * len(candidates))]["text"]
                images[i] = crop_image(table["jpeg"][row].as_py(), self.size, draws[i], self.config.data.crop_scale)
            # Image decoders raise whatever their format made them raise: all of it means that this one image is bad.
            except Exception as error:
                file, number = self.images.groups[group]
                bad.append(f"{file}, row group {number}, row {row}, {table['image_id'][row]}: {error or type(error).__name__}")
        return Part(torch.from_numpy(images), self.tokenizer(texts), bad)
