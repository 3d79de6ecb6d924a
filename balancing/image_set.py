"""A set of images with texts as row groups of Parquet files: what it is, its texts read ahead of its images, an epoch's part of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.epochs import Epochs, Shuffle, crop_draws
from balancing.online import TextDraw, count_drawn, draw_texts, language_shares, languages_drawn, rows_of_epochs
from balancing.pairs import image_keys

#: What a trainer reads of an image.
COLUMNS = ["image_id", "jpeg", "texts"]
#: Rows whose texts are in memory at once, per thread, when they are read ahead.
_RUN_ROWS = 1 << 16
_THREADS = 16
Result = TypeVar("Result")
#: Opens a file by its name for a ``with`` block.
Open = Callable[[str], AbstractContextManager[pq.ParquetFile]]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Every row group of the input, in the order of the input: its file, its number in that, and how many rows it has.

    ``fingerprint``: digest of file names (without their folders) and row counts, by which a resumed run knows its data.
    """

    groups: list[tuple[str, int]]
    rows: np.ndarray
    fingerprint: str

    @cached_property
    def firsts(self) -> np.ndarray:
        """The number of each row group's first row in the set."""
        return np.cumsum(self.rows) - self.rows


def image_set(files: Mapping[str, Sequence[int]]) -> ImageSet:
    """The set of some files, from the number of rows in each row group of them."""
    names = [[file.rpartition("/")[2], list(rows)] for file, rows in files.items()]
    fingerprint = hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()
    rows = np.array([n for of_file in files.values() for n in of_file], dtype=np.int64)
    groups = [(file, number) for file, of_file in files.items() for number in range(len(of_file))]
    return ImageSet(groups=groups, rows=rows, fingerprint=fingerprint)


def rows_of_groups(parquet: pq.ParquetFile, fields: Sequence[str]) -> list[int]:
    """How many rows each row group has. Raises ValueError where a column is missing, or a text lacks one of ``fields``."""
    schema = parquet.schema_arrow
    if missing := [column for column in COLUMNS if column not in schema.names]:
        raise ValueError(f"has no column {', '.join(missing)}; the trainer reads {', '.join(COLUMNS)}")
    kind = schema.field("texts").type
    text = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else pa.null()
    if missing := [field for field in fields if not pa.types.is_struct(text) or text.get_field_index(field) < 0]:
        raise ValueError(f"has texts without {', '.join(missing)} ({kind}); the job images writes all that the trainer reads")
    return [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]


def map_texts(
    images: ImageSet, groups: range, draw: TextDraw, open_file: Open, work: Callable[[np.ndarray, pa.ListArray, np.ndarray], Result]
) -> Iterator[Result]:
    """What ``work`` makes of the image keys, texts and lengths of some neighbouring row groups at a time, in order.

    Of the texts only what decides the draw is read: about 50 bytes an image. Raises ValueError with the place.
    """

    def of_run(numbers: list[int]) -> Result:
        (file, first), (_, last) = images.groups[numbers[0]], images.groups[numbers[-1]]
        with open_file(file) as parquet:
            paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
            columns = ["image_id", *(path for path in paths if path.startswith("texts.") and path.rpartition(".")[2] in draw.fields)]
            table = parquet.read_row_groups(range(first, last + 1), columns=columns, use_threads=False)
        try:
            return work(_keys(table), _texts(table), images.rows[numbers])
        except ValueError as error:
            raise ValueError(f"{file}, row groups {first} to {last}: {error}") from None

    runs = [list(run) for _, run in groupby(groups, key=lambda n: (images.groups[n][0], images.firsts[n] // _RUN_ROWS))]
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(of_run, runs)


def _keys(table: pa.Table) -> np.ndarray:
    return image_keys([str(image_id) for image_id in table["image_id"].to_pylist()])


def _texts(table: pa.Table) -> pa.ListArray:
    return table["texts"].combine_chunks()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set as a run reads it. ``streams``: those of every batch that are its own; ``draw``, ``epochs``: what an epoch takes of it.

    ``identity``: what tells it from the source of another run, in words.
    """

    images: ImageSet
    streams: range
    shuffle: Shuffle
    draw: TextDraw
    epochs: Epochs
    identity: str


def plan_epochs(
    images: ImageSet,
    draw: TextDraw,
    over_texts: Callable[[Callable[[np.ndarray, pa.ListArray, np.ndarray], Any]], list[Any]],
    *,
    temperature: float,
    steps: int,
    batch_size: int,
) -> tuple[TextDraw, np.ndarray]:
    """The draw with the shares of languages for a ``temperature``, and the rows of a run's epochs as in :func:`rows_of_epochs`.

    ``over_texts``: what work makes of all texts of the set, as :func:`map_texts` gives it. Raises ValueError.
    """
    if temperature > 1:
        drawn = sum(over_texts(partial(languages_drawn, draw=draw)), Counter[str]())
        draw = replace(draw, languages=language_shares(drawn, temperature))

    def count(epochs: range) -> np.ndarray:
        return np.concatenate(over_texts(partial(count_drawn, draw=draw, epochs=epochs)), axis=1)

    return draw, rows_of_epochs(images.rows, count if draw.fields else None, steps=steps, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """What an epoch takes of the row group at ``place``: numbers of its rows, and of each the id, encoded image, text and crop's draws."""

    place: str
    rows: np.ndarray
    ids: pa.ChunkedArray
    jpegs: pa.ChunkedArray
    texts: pa.Array
    crops: np.ndarray


def take(table: pa.Table, draw: TextDraw, place: str, *, epoch: int, crop_seed: int, first: int) -> Taken:
    """The part of a row group (COLUMNS) that an epoch takes. ``first``: number of its first row in the set. Raises ValueError."""
    texts = _texts(table)
    rows, places = draw_texts(_keys(table), texts, draw, epoch=epoch)
    images = table.select(["image_id", "jpeg"])
    if len(rows) < len(table):
        images = images.take(rows)
    chosen = pc.struct_field(texts.values, "text").take(pa.array(places, mask=places < 0))
    crops = crop_draws(crop_seed, epoch, first + rows)
    return Taken(place=place, rows=rows, ids=images["image_id"], jpegs=images["jpeg"], texts=chosen, crops=crops)
