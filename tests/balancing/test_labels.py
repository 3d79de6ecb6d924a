"""What others say of images: read from files, joined to images, and merged."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.labels import LABELS_SCHEMA, holds_labels, labels_of_images, merge_labels, read_labels
from balancing.pairs import IMAGES_SCHEMA

LISTS = pa.list_(pa.large_string())


def labels_in(table: pa.Table, ids: list[str]) -> list[list[str] | None]:
    file = io.BytesIO()
    pq.write_table(table, file)
    tables = list(read_labels(file))
    assert all(table.schema == LABELS_SCHEMA for table in tables)
    found: list[list[str] | None] = labels_of_images(ids, tables).to_pylist()
    return found


def test_who_is_not_in_the_file_was_not_looked_at() -> None:
    table = pa.table({"image_id": ["a", "b", "c", "b", None, "b"], "label": ["x", "z", None, "y", "x", "z"]})
    assert labels_in(table, ["a", "b", "c", "d"]) == [["x"], ["y", "z"], [], None]
    lists = pa.array([["x"], ["z", "y", "z"], [], None, ["x"]], LISTS)
    table = pa.table({"image_id": ["a", "b", "c", "d", None], "labels": lists})
    assert labels_in(table, ["a", "b", "c", "d", "e"]) == [["x"], ["y", "z"], [], None, None]
    # A list that says something beside one that is empty.
    table = pa.table({"image_id": ["a", "a", "a"], "labels": pa.array([[], ["x"], None], LISTS)})
    assert labels_in(table, ["a"]) == [["x"]]
    assert labels_in(table.slice(0, 0), ["a"]) == [None]


def test_labels_of_two_columns() -> None:
    kind = IMAGES_SCHEMA.field("labels").type
    some, others = ([["b"], [], None, None, ["c", "d"]], [["a", "b"], None, None, ["a"], []])
    merged = merge_labels(*(pa.chunked_array([pa.array(lists, kind)]) for lists in (some, others)))
    assert merged.to_pylist() == [["a", "b"], [], None, ["a"], ["c", "d"]]
    assert merged.type == kind


@pytest.mark.parametrize(("field", "expected"), [("list", True), ("text", False), ("numbers", False), ("none", False)])
def test_a_column_of_labels(field: str, expected: bool) -> None:
    kinds: dict[str, Any] = {"list": LISTS, "text": pa.string(), "numbers": pa.list_(pa.int64())}
    schema = pa.schema([("labels", kinds[field])] if field in kinds else [("label", LISTS)])
    assert holds_labels(schema) is expected
