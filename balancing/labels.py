"""What others say of images: tables of ids and labels, as a classifier of unsafe content leaves them, joined to the images of a set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.pairs import IMAGES_SCHEMA, image_keys

#: A row per image and label; null stands for an image that was looked at and has none.
LABELS_SCHEMA = pa.schema([pa.field("image_key", pa.uint64(), nullable=False), pa.field("label", pa.string())])
_BATCH_ROWS = 65_536


def read_labels(file: BinaryIO) -> Iterator[pa.Table]:
    """The labels in a Parquet file, some at a time: LABELS_SCHEMA.

    The file has a column ``image_id`` and a column ``label`` (a string; null: none) or ``labels`` (a list of strings, empty: none; null
    says nothing).

    Raises:
        ValueError: it has not; says what there is.
    """
    try:
        parquet = pq.ParquetFile(file)
        kinds = {field.name: field.type for field in parquet.schema_arrow}
        column = next((name for name in ("labels", "label") if name in kinds), None)
        if column is None or not _is_text(kinds.get("image_id")) or not _is_text(getattr(kinds[column], "value_type", kinds[column])):
            there = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise ValueError(f"no columns image_id and label, or labels, that hold text; there are {there}")
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=["image_id", column]):
            ids, labels = batch.column("image_id"), batch.column(column)
            if not _is_text(labels.type):
                bare = pc.indices_nonzero(pc.fill_null(pc.equal(pc.list_value_length(labels), 0), False))
                rows = pa.concat_arrays([pc.list_parent_indices(labels).cast(pa.uint64()), bare.cast(pa.uint64())])
                labels = pa.concat_arrays([pc.list_flatten(labels).cast(pa.string()), pa.nulls(len(bare), pa.string())])
                ids = ids.take(rows)
            named = ids.is_valid()
            keys = pa.array(image_keys(ids.filter(named).to_pylist()))
            yield pa.Table.from_arrays([keys, labels.filter(named).cast(pa.string())], schema=LABELS_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"no Parquet file, or a damaged one ({error})") from error


def holds_labels(schema: pa.Schema) -> bool:
    """Whether a file has a column of labels, as images/ has it."""
    return "labels" in schema.names and _is_text(getattr(schema.field("labels").type, "value_type", None))


def _is_text(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def labels_of_images(image_ids: Iterable[str], tables: Iterable[pa.Table]) -> pa.Array:
    """The labels of each image, ascending, each once: the column of IMAGES_SCHEMA, null for images of which nothing is said.

    ``tables``: LABELS_SCHEMA, also of other images.
    """
    found: dict[int, set[str | None]] = defaultdict(set)
    for table in tables:
        for key, label in zip(table["image_key"].to_pylist(), table["label"].to_pylist(), strict=True):
            found[key].add(label)
    keys = image_keys(list(image_ids)).tolist()
    return _column(found.get(key) for key in keys)


def merge_labels(some: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.Array:
    """The labels of images from two columns of IMAGES_SCHEMA: those of either; null where both are."""
    pairs = zip(some.to_pylist(), others.to_pylist(), strict=True)
    return _column(None if one is None and other is None else {*(one or ()), *(other or ())} for one, other in pairs)


def _column(labels: Iterable[set[str | None] | None]) -> pa.Array:
    lists = [None if of is None else sorted(label for label in of if label is not None) for of in labels]
    return pa.array(lists, type=IMAGES_SCHEMA.field("labels").type)
