"""Images that are taken from files instead of the web. Which image of the curated set lies in which file is found by small records; then
every file is read once, front to back. Images are never shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancing.image_files import MEMBER_BYTES, Place, bodies_in_parquet, bodies_in_tar, places_in_parquet, places_in_tar
from balancing.labels import merge_labels
from balancing.pairs import IMAGES_SCHEMA, image_keys
from balancing.siblings import range_of
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.fetch import Fetched
from pipelines.image_part import ImageRules, write_images
from pipelines.stage import STAGE_FILE, Stage, Unit, open_stage, units_of_files

_TAR = ".tar"
_FLAG = "--take-from"
_BATCH_PLACES = 65_536
#: Where images lie: the row of a file (``source``: the name of its unit), or why there is none.
PLACES_SCHEMA = pa.schema([("image_key", pa.uint64()), ("source", pa.string()), ("row", pa.int64()), ("problem", pa.string())])
#: The same with the labels that they have there.
_LABELLED_PLACES = PLACES_SCHEMA.append(IMAGES_SCHEMA.field("labels"))


def source_units(url: str) -> list[Unit]:
    """The files with images in a directory, a unit each: the parts of a finished stage of images, or else tars, or else Parquet files.

    Raises:
        JobError: there are none.
    """
    if storage.exists(storage.join(url, STAGE_FILE)):
        return open_stage(url, "images").units()
    files = storage.expand((url,), flag=_FLAG)
    for ending in (_TAR, ".parquet"):
        if found := [file for file in files if file.url.endswith(ending)]:
            return units_of_files(found)
    raise JobError(f"{_FLAG} {url}: there is neither a .tar nor a .parquet file in it")


def places_of_unit(unit: Unit, *, id_field: str, ranges: int) -> Iterator[tuple[int, pa.Table]]:
    """The images of a file by the range of their keys: PLACES_SCHEMA and a column labels.

    Beside a shard img2dataset leaves a Parquet file of the same name, which says of what is not in it why.
    """
    places = _places(unit.url, id_field)
    while batch := list(islice(places, _BATCH_PLACES)):
        ids, rows, problems, labels = zip(*batch, strict=True)
        keys = image_keys(ids)
        table = pa.table([pa.array(keys), [unit.name] * len(keys), rows, problems, labels], schema=_LABELLED_PLACES)
        numbers = range_of(keys, ranges)
        for number in np.unique(numbers).tolist():
            yield number, table.filter(pa.array(numbers == number))


def _places(url: str, id_field: str) -> Iterator[Place]:
    try:
        with storage.open_read(url) as file:
            yield from places_in_tar(file, id_field) if url.endswith(_TAR) else places_in_parquet(file, id_field)
        beside = url.removesuffix(_TAR) + ".parquet"
        if url.endswith(_TAR) and storage.exists(beside):
            with storage.open_read(beside) as file:
                yield from (place for place in places_in_parquet(file, id_field) if place.problem)
    except ValueError as error:
        raise JobError(f"{_FLAG} {url}: {error}; --image-id says where the ids of the images stand") from error


def assign_to_sources(wanted: pa.Table, places: Sequence[pa.Table], sources: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The wanted images (with columns image_id and labels) of a range by the file in which they lie, with the columns of PLACES_SCHEMA.

    Of several places the first counts that has an image; its labels are added to those that the image has. What lies nowhere is spread over
    all files, with nulls, for their books.
    """
    keys = image_keys(wanted["image_id"].to_pylist())
    order = [("image_key", "ascending"), ("problem", "ascending"), ("source", "ascending"), ("row", "ascending")]
    known = pa.concat_tables([_LABELLED_PLACES.empty_table(), *places]).sort_by(order)
    known_keys = known["image_key"].to_numpy()
    at = np.searchsorted(known_keys, keys)
    is_known = np.append(known_keys, np.uint64(0))[at] == keys if len(known_keys) else np.zeros(len(keys), dtype=bool)
    is_known &= at < len(known_keys)
    found = known.take(pa.array(at, mask=~is_known))
    spread = pa.array([sources[key % len(sources)] for key in keys.tolist()])
    place = wanted.schema.get_field_index("labels")
    wanted = wanted.set_column(place, wanted.field(place), merge_labels(wanted["labels"], found["labels"]))
    for name in PLACES_SCHEMA.names:
        wanted = wanted.append_column(name, pc.coalesce(found[name], spread) if name == "source" else found[name])
    for source in pc.unique(wanted["source"]).to_pylist():
        yield source, wanted.filter(pc.equal(wanted["source"], source))


def count_found(element: tuple[str, pa.Table]) -> int:
    """How many of the images that were assigned to a file lie in one."""
    _, wanted = element
    return len(wanted) - wanted["row"].null_count


def bodies_of_unit(wanted: pa.Table, tally: Tally, *, unit: Unit) -> Iterator[Fetched]:
    """What became of each image that is wanted of a file: first those without a place, then in the order of the file."""
    left: dict[int, int] = {}
    for index, (row, problem) in enumerate(zip(wanted["row"].to_pylist(), wanted["problem"].to_pylist(), strict=True)):
        if row is None:
            yield _missing(index, "not_in_source", "")
        elif problem:
            yield _missing(index, "not_fetched", problem)
        else:
            left[row] = index
    read = bodies_in_tar if unit.url.endswith(_TAR) else bodies_in_parquet
    with storage.open_read(unit.url) as file:
        try:
            for row, body in read(file, list(left), tally=tally):
                yield _fetched(left.pop(row), body)
        except ValueError as error:
            raise JobError(f"{_FLAG} {unit.url}: {error}") from error
    for index in left.values():
        yield _missing(index, "not_in_source", "it lies behind the damage of the file")


def _fetched(index: int, body: bytes | None) -> Fetched:
    if not body:
        return _missing(index, "not_fetched", "there is no image in its place")
    if len(body) > MEMBER_BYTES:
        return _missing(index, "too_large", f"more than {MEMBER_BYTES} bytes")
    return Fetched(index, body, "", "")


def _missing(index: int, reason: str, detail: str) -> Fetched:
    return Fetched(index, None, reason, detail)


def write_taken(
    element: tuple[str, dict[str, Iterable[Any]]], found: int, *, stage: Stage, id_field: str, rules: ImageRules, empty: pa.Schema
) -> int:
    """Take the images of one file and write its part, unless it is there; 1, so that the files can be counted.

    ``found``: how many of the wanted images lie in any file; ``empty``: the schema of what is wanted, for a file of which nothing is.

    Raises:
        JobError: images are wanted and none lies in any file.
    """
    _, joined = element
    (unit,) = joined["unit"]
    if not stage.has_part(unit):
        schema = pa.schema([*empty, *PLACES_SCHEMA])
        wanted = pa.concat_tables([schema.empty_table(), *joined["wanted"]]).sort_by([("row", "ascending"), ("image_id", "ascending")])
        if not found and len(wanted):
            raise JobError(nothing_found(wanted["image_id"][0].as_py(), unit, id_field))
        write_images(wanted.combine_chunks(), partial(bodies_of_unit, unit=unit), unit=unit, stage=stage, rules=rules)
    return 1


def nothing_found(wanted_id: str, unit: Unit, id_field: str) -> str:
    """What to tell when the files have not one of the wanted images: most likely the ids are of two kinds."""
    there = next(_places(unit.url, id_field), None)
    example = f"has images such as {there.image_id}" if there else "has none"
    return (
        f"{_FLAG}: none of the wanted images is in any of the files. {wanted_id} is wanted, for example, and {unit.url} {example}. If "
        "their ids stand elsewhere, --image-id says where (url: they are made of addresses)"
    )
