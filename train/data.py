"""Images and texts from Parquet, in one order that ranks, workers and interruptions cannot change (balancing.epochs says which)."""

from __future__ import annotations

import errno
import logging
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from fsspec.implementations.local import LocalFileSystem
from PIL import UnidentifiedImageError
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from balancing.epochs import Epochs, Shuffle, share, stream_shares, walk
from balancing.file_cache import FileCache
from balancing.image_set import COLUMNS, ImageSet, Source, Taken, image_set, map_texts, plan_epochs, rows_of_groups, take
from balancing.online import TextDraw
from train.config import Config, InputError, SetConfig
from train.distributed import Ranks
from train.images import crop_image
from train.model import Tokenizer

log = logging.getLogger("train")


def find_images(paths: Sequence[str], *, fields: Sequence[str] = ()) -> ImageSet:
    """The row groups in ``part-*.parquet`` of directories, or in files; fsspec URLs or local paths.

    ``fields``: what a text must have beside the text itself. Raises InputError: nothing found, a stage that is not finished, a file that
    is not Parquet or lacks a column or field, no rows.
    """
    files = [file for path in paths for file in _list_parts(path)]
    with ThreadPoolExecutor(16) as pool:
        images = image_set(dict(zip(files, pool.map(partial(_rows_of_groups, fields=["text", *fields]), files), strict=True)))
    if not images.rows.sum():
        raise InputError(f"no images in {', '.join(paths)}" if paths else "no images: give --data, or data.paths in the configuration")
    return images


def _list_parts(path: str) -> list[str]:
    try:
        fs, root = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"{path}: {error}") from None
    if fs.isfile(root):
        return [path]
    if fs.exists(f"{root}/stage.json") and not fs.exists(f"{root}/_SUCCESS"):
        raise InputError(f"the stage {path} is not finished: it has no _SUCCESS")
    parts = sorted(fs.unstrip_protocol(part) for part in fs.glob(f"{root}/part-*.parquet"))
    if not parts:
        raise InputError(f"no part-*.parquet in {path}")
    return parts


def _find_copy(fs: fsspec.AbstractFileSystem, path: str, cache: FileCache) -> Path | None:
    about = fs.info(path)

    def fetch(out: BinaryIO) -> None:
        with fs.open(path) as remote:
            shutil.copyfileobj(remote, out)

    content = [fs.unstrip_protocol(path), *(str(about.get(key)) for key in ("size", "ETag", "etag", "mtime"))]
    try:
        return about["size"] and cache.find(content, about["size"], fetch)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        log.warning("%s: the disk is full; %s is read where it is", cache.folder, path)
        return None


@contextmanager
def _open_parquet(url: str, cache: FileCache | None = None) -> Iterator[pq.ParquetFile]:
    """A file, or a copy of it where it is remote and there is a cache that has room."""
    fs, path = fsspec.core.url_to_fs(url)
    try:
        if cache and not isinstance(fs, LocalFileSystem) and (copy := _find_copy(fs, path, cache)):
            fs, path = None, copy
        with pq.ParquetFile(path, filesystem=fs) as parquet:
            yield parquet
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{url} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _rows_of_groups(url: str, fields: Sequence[str]) -> list[int]:
    with _open_parquet(url) as parquet:
        try:
            return rows_of_groups(parquet, fields)
        except ValueError as error:
            raise InputError(f"{url} {error}") from None


def open_sources(config: Config, ranks: Ranks) -> list[Source]:
    """The sets of a run, the same on every rank. Raises InputError, also where a set gets no stream, or has too few images for a batch."""
    sets = config.data.sets or (SetConfig(paths=config.data.paths),)
    shares = stream_shares([of.weight for of in sets], config.data.streams)
    return [_open_source(config, of.paths, streams, ranks) for of, streams in zip(sets, shares, strict=True)]


def _open_source(config: Config, paths: Sequence[str], streams: range, ranks: Ranks) -> Source:
    data, train = config.data, config.train
    if not streams:
        raise InputError(f"the set {', '.join(paths)} has too small a weight for one of {data.streams} data.streams: give more of either")
    online, temperature = data.curation == "online", data.language_temperature
    draw = TextDraw(seed=data.curation_seed if online else train.seed, online=online, languages={} if temperature > 1 else None)
    images, batch = find_images(paths, fields=draw.fields), train.batch_size // data.streams * len(streams)

    def over_texts(work: Callable[..., Any]) -> list[Any]:
        mine = share(range(len(images.groups)), ranks.rank, ranks.count)
        found = [list(map_texts(images, mine, draw, _open_parquet, work))] * ranks.count
        if ranks.count > 1:
            dist.all_gather_object(found, found[0])
        return list(chain.from_iterable(found))

    try:
        draw, rows = plan_epochs(images, draw, over_texts, temperature=temperature, steps=train.steps, batch_size=batch)
    except ValueError as error:
        raise InputError(str(error)) from None
    log.info("%s: %s images, %s in epoch 0", ", ".join(paths), images.rows.sum(), rows[0].sum())
    identity = images.fingerprint + (f", online with seed {draw.seed}" if online else "")
    identity += f", language temperature {temperature:g}" if temperature > 1 else ""
    identity += f", {len(streams)} streams" if len(data.sets) > 1 else ""
    shuffle = Shuffle(seed=train.seed, batch_size=batch, streams=len(streams), shuffle_rows=data.shuffle_rows)
    return Source(images=images, streams=streams, shuffle=shuffle, draw=draw, epochs=Epochs(rows, batch), identity=identity)


def _outlive_signals(_: int) -> None:
    """Slurm signals every process of a job, and the trainer needs its workers until it has saved."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class Part(NamedTuple):
    """A worker's part of a batch: ``images`` uint8 (n, size, size, 3), ``tokens`` int64 (n, context), ``bad`` what could not be read.

    ``failed``: why there are no more parts.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    bad: list[str]
    failed: str = ""


@dataclass
class Reader(IterableDataset[Part]):
    """A rank's share of every global batch from ``first_step`` to the last, or the part of it that is a worker's.

    ``streams``: those of the rank; ``size``: side of the images that it gives, in pixels. Memory of a worker: see balancing.epochs.walk.
    """

    sources: Sequence[Source]
    config: Config
    streams: range
    tokenizer: Tokenizer
    size: int
    first_step: int

    def __post_init__(self) -> None:
        data = self.config.data
        self.cache = FileCache(folder=Path(data.cache), limit=int(data.cache_gb * 1e9)) if data.cache else None

    def batches(self, *, pin_memory: bool) -> Iterator[list[Part]]:
        """The shares as the parts that the rank's workers give, in order. Raises InputError."""
        workers = min(self.config.data.workers, len(self.streams))
        prefetch = self.config.data.prefetch if workers else None
        options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": prefetch, "worker_init_fn": _outlive_signals}
        loader = DataLoader(self, batch_size=None, pin_memory=pin_memory, **options)
        # The loader asks its workers in turn, so that one round of them is one batch.
        for parts in zip(*[iter(loader)] * max(workers, 1), strict=True):
            if failed := next((part.failed for part in parts if part.failed), ""):
                raise InputError(failed)
            yield list(parts)

    def __iter__(self) -> Iterator[Part]:
        try:
            yield from self._parts()
        except InputError as error:
            # Raised in a worker, it would come out of the loader as a traceback.
            yield Part(torch.empty(0), torch.empty(0), [], str(error))

    def _parts(self) -> Iterator[Part]:
        worker, walks = get_worker_info(), []
        streams = share(self.streams, worker.id, worker.num_workers) if worker else self.streams
        for of in self.sources:
            start, steps = of.streams.start, range(self.first_step, self.config.train.steps)
            own = range(max(streams.start, start) - start, max(streams.start, start, min(streams.stop, of.streams.stop)) - start)
            walks.append(walk(of.epochs, of.shuffle, own, steps=steps, read=partial(self.read, of)))
        for samples in zip(*walks, strict=True):
            yield self._part(list(chain.from_iterable(samples)))

    def read(self, of: Source, epoch: int, group: int) -> Taken:
        """What an epoch takes of a row group. Raises InputError."""
        file, number = of.images.groups[group]
        with _open_parquet(file, self.cache) as parquet:
            table = parquet.read_row_group(number, columns=COLUMNS, use_threads=False)
        taken = take(table, of.draw, f"{file}, row group {number}", epoch=epoch, crop_seed=of.shuffle.seed, first=of.images.firsts[group])
        if len(taken.rows) != of.epochs.rows[epoch, group]:
            raise InputError(f"{file} is another one than when the run began: start the run again, or put the file back")
        return taken

    def _part(self, samples: list[tuple[int, Taken]]) -> Part:
        images, texts, bad = torch.zeros(len(samples), self.size, self.size, 3, dtype=torch.uint8), [""] * len(samples), []
        for i, (n, taken) in enumerate(samples):
            try:
                texts[i] = taken.texts[n].as_py() or ""
                if not texts[i]:
                    raise ValueError("no text")
                images[i] = crop_image(taken.jpegs[n].as_py(), self.size, taken.crops[n], self.config.data.crop_scale)
            # Image decoders raise whatever their format made them raise: all of it means that this one image is bad. What takes its
            # place is black, and its text empty.
            except Exception as error:
                why = "not an image" if isinstance(error, UnidentifiedImageError) else error or type(error).__name__
                bad.append(f"{taken.place}, row {taken.rows[n]}, {taken.ids[n]}: {why}")
                texts[i] = ""
        return Part(images, self.tokenizer(texts), bad)
