"""Pairs of one's own in Parquet: columns ``url`` and ``text``, and optionally ``image_id``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.pairs import MAX_TEXT, PAIR_SCHEMA, image_id_of_url
from metadata.tally import Tally
from metadata.text import normalize_text

BATCH_ROWS = 65_536


def _columns(parquet: pq.ParquetFile) -> list[str]:
    return [name for name in ("image_id", "url", "text") if name in parquet.schema_arrow.names]


def row_groups_of(file: BinaryIO) -> list[tuple[int, int]]:
    """(rows, bytes uncompressed) of each row group, so that a big file becomes several units.

    Raises:
        ValueError: no Parquet, or a column is missing or holds no text; says which.
    """
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        raise ValueError(f"no Parquet file ({error})") from None
    missing = [name for name in ("url", "text") if name not in parquet.schema_arrow.names]
    if missing:
        raise ValueError(f"no column {' and no column '.join(missing)}; there are {', '.join(parquet.schema_arrow.names)}")
    for name in _columns(parquet):
        kind = parquet.schema_arrow.field(name).type
        try:
            pa.nulls(0, kind).cast(pa.string())
        except pa.ArrowNotImplementedError:
            raise ValueError(f"column {name} holds no text but {kind}") from None
    groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    return [(group.num_rows, group.total_byte_size) for group in groups]


def is_damage(error: Exception) -> bool:
    """Whether the bytes are at fault: Arrow's own OSError has no number, that of a failing disk or network has one, or another class."""
    return isinstance(error, pa.ArrowInvalid) or (type(error) is OSError and error.errno is None)


def _until_damage(batches: Iterator[pa.RecordBatch], *, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The batches before the first that cannot be decoded."""
    try:
        yield from batches
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        tally.damaged("damaged_parquet", place=tally.read, detail=str(error))


def _decode(batch: pa.RecordBatch, *, place: int, tally: Tally) -> pa.Table:
    """The columns as strings without the rows in which one is no UTF-8 (Parquet files do not promise it)."""
    table = pa.table({name: batch.column(name).cast(pa.string(), safe=False) for name in batch.schema.names})
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        good = []
        for row, values in enumerate(zip(*(column.cast(pa.binary()).to_pylist() for column in table.columns), strict=True)):
            payload = b"\t".join(value or b"" for value in values)
            try:
                payload.decode()
                good.append(row)
            except UnicodeDecodeError as error:
                tally.dead_letter("not_utf8", place=place + row, detail=str(error), payload=payload)
        table = table.take(pa.array(good, pa.int64()))
    return table


def _is_missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.fill_null(column, ""), "")


def read_own_pairs(file: BinaryIO, row_groups: Sequence[int], *, tally: Tally) -> Iterator[pa.Table]:
    """The pairs of some row groups of a Parquet file, as PAIR_SCHEMA tables.

    Image ids of one's own are taken verbatim; where there are none they are made from the URL. Rows without a URL (and without an id) or
    text, and texts over MAX_TEXT, are dropped; a row that is no UTF-8 is a dead letter, its place the row within ``row_groups``. Where
    the data are damaged, what comes before still counts. Memory: one batch of 65,536 rows beside what Arrow holds of a row group.
    """
    parquet = pq.ParquetFile(file)
    names = _columns(parquet)
    batches = parquet.iter_batches(BATCH_ROWS, row_groups=list(row_groups), columns=names)
    for batch in _until_damage(batches, tally=tally):
        table = _decode(batch.select(names), place=tally.read, tally=tally)
        tally.read += len(batch)
        no_url = _is_missing(table["url"])
        if "image_id" in names:
            no_url = pc.and_(no_url, _is_missing(table["image_id"]))
        tally.drop("no_url", pc.sum(no_url).as_py() or 0)
        table = table.filter(pc.invert(no_url))
        texts = pa.array([normalize_text(text or "") for text in table["text"].to_pylist()], pa.string())
        length = pc.utf8_length(texts)
        tally.drop("empty_text", pc.sum(pc.equal(length, 0)).as_py() or 0)
        tally.drop("text_too_long", pc.sum(pc.greater(length, MAX_TEXT)).as_py() or 0)
        fit = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_TEXT))
        table, texts = table.filter(fit), texts.filter(fit)
        urls = table["url"].to_pylist()
        given = table["image_id"].to_pylist() if "image_id" in names else [None] * len(urls)
        ids = [own or image_id_of_url(url) for own, url in zip(given, urls, strict=True)]
        tally.emitted += len(table)
        columns = [
            pa.array(ids, pa.string()),
            table["url"].combine_chunks(),
            pa.nulls(len(table), pa.string()),
            texts,
            pa.array(["own"] * len(table), pa.string()),
        ]
        yield pa.table([c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns], schema=PAIR_SCHEMA)
