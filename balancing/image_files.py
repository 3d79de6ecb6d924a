"""Images that lie in files already: webdataset shards or Parquet, as img2dataset writes them, or parts of images/."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from balancing.labels import holds_labels
from balancing.own import is_damage
from balancing.own_lines import json_object
from balancing.own_tar import DAMAGE, image_id_of_sample, members_of_shard, open_shard
from balancing.pairs import image_id_of_url
from metadata.tally import Tally

#: Columns, and fields of descriptions, that are taken unless others are named.
IMAGE_ID, URL, LABELS = "image_id", "url", "labels"
#: Columns, and extensions of a shard's members, that hold an image.
IMAGE_NAMES = ("jpeg", "jpg", "png", "webp", "gif", "bmp")
#: Longest image, or description of one, that is read; of a longer one comes one byte too many.
MEMBER_BYTES = 20 << 20
#: Rows that are read at a time: of images, and of what stands beside them.
_IMAGE_ROWS, _ROWS = 64, 65_536
#: Bytes that are asked for at a time. Otherwise all images of a row group would be, which other programs make as large as a file.
_READ_BYTES = 8 << 20


class Place(NamedTuple):
    """Where an image lies: the how-manieth row or sample of a file. ``problem``: why there is none, in the words of who looked for it.
    ``labels``: those that it has there; None where there is no column of them."""

    image_id: str
    row: int
    problem: str
    labels: list[str] | None


def places_in_parquet(file: BinaryIO, id_column: str) -> Iterator[Place]:
    """The images of a Parquet file that img2dataset wrote, or of a part of images/.

    ``id_column``: that of the image ids; if it is empty, ``image_id`` where there is one. Where no id stands, it is made of ``url``. Damage
    ends the places, and is told where the images are read.

    Raises:
        ValueError: the columns are not there.
    """
    parquet = _parquet(file)
    if parquet is None:
        return
    names = parquet.schema_arrow.names
    ids = id_column or (IMAGE_ID if IMAGE_ID in names else URL)
    if ids not in names:
        raise ValueError(f"no column {ids}; there are {', '.join(names)}")
    also = ["status", "error_message", *([LABELS] if holds_labels(parquet.schema_arrow) else [])]
    wanted = [name for name in dict.fromkeys([ids, URL, *also]) if name in names]
    row = 0
    for batch in _until_damage(parquet, _ROWS, wanted, tally=Tally()):
        columns = {name: batch.column(name).to_pylist() for name in wanted}
        nothing = [None] * len(batch)
        statuses, labels = columns.get("status", nothing), columns.get(LABELS, nothing)
        messages = columns.get("error_message", statuses)
        for i, (given, url) in enumerate(zip(columns[ids], columns.get(URL, nothing), strict=True)):
            problem = "" if "status" not in columns or statuses[i] == "success" else str(messages[i] or statuses[i])
            own = "" if given is None or ids == URL else str(given)
            if own or url:
                yield Place(own or image_id_of_url(url), row + i, problem, labels[i])
        row += len(batch)


def bodies_in_parquet(file: BinaryIO, rows: Sequence[int], *, tally: Tally) -> Iterator[tuple[int, bytes | None]]:
    """(row, image) of some rows of a Parquet file, ascending. A damaged file is told to ``tally``, and gives what stands before.

    Raises:
        ValueError: no column holds images.
    """
    parquet = _parquet(file, tally)
    if parquet is None:
        return
    names = parquet.schema_arrow.names
    column = next((name for name in IMAGE_NAMES if name in names), None)
    if column is None:
        raise ValueError(f"no column {' or '.join(IMAGE_NAMES)}; there are {', '.join(names)}")
    if not rows:
        return
    wanted, start = frozenset(rows), 0
    for batch in _until_damage(parquet, _IMAGE_ROWS, [column], tally=tally):
        for row in range(start, start + len(batch)):
            if row in wanted:
                yield row, batch.column(0)[row - start].as_py()
        start += len(batch)


def _parquet(file: BinaryIO, tally: Tally | None = None) -> pq.ParquetFile | None:
    try:
        return pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        if tally:
            tally.damaged("damaged_parquet", place=0, detail=str(error))
        return None


def _until_damage(parquet: pq.ParquetFile, rows: int, columns: list[str], *, tally: Tally) -> Iterator[pa.RecordBatch]:
    try:
        yield from parquet.iter_batches(rows, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        tally.damaged("damaged_parquet", place=tally.read, detail=str(error))


def _samples(file: BinaryIO, extensions: Sequence[str], *, tally: Tally) -> Iterator[tuple[int, str, bytes | None]]:
    """(number, name, content) of the samples of a shard: of the first of their members with one of these extensions, if they have one."""
    number, key, content, place = -1, "", None, 0
    try:
        with open_shard(file, "r:") as shard:
            for member, name, extension in members_of_shard(shard):
                place = member.offset
                if name != key:
                    if key:
                        yield number, key, content
                    number, key, content = number + 1, name, None
                if extension in extensions and content is None:
                    data = shard.extractfile(member)
                    content = data.read(MEMBER_BYTES + 1) if data else b""
                    if len(content) < min(member.size, MEMBER_BYTES):
                        raise tarfile.ReadError("unexpected end of data")
    except DAMAGE as error:
        tally.damaged("damaged_tar", place=place, detail=str(error))
        return
    if key:
        yield number, key, content


def places_in_tar(file: BinaryIO, id_field: str) -> Iterator[Place]:
    """The images of a webdataset shard, with the ids of :func:`balancing.own_tar.image_id_of_sample`; otherwise as
    :func:`places_in_parquet`. A description that is no JSON says nothing."""
    for number, key, content in _samples(file, ("json",), tally=Tally()):
        try:
            image_id = image_id_of_sample(key, json_object(content) if content else {}, id_field=id_field or IMAGE_ID, url_field=URL)
        except ValueError:
            image_id = key
        yield Place(image_id, number, "", None)


def bodies_in_tar(file: BinaryIO, rows: Sequence[int], *, tally: Tally) -> Iterator[tuple[int, bytes | None]]:
    """(number, image) of some samples of a shard; otherwise as :func:`bodies_in_parquet`."""
    wanted = frozenset(rows)
    for number, _, content in _samples(file, IMAGE_NAMES, tally=tally):
        if number in wanted:
            yield number, content
