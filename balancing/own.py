"""Pairs of one's own in Parquet: a column of addresses, one of texts, and optionally one of image ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.pairs import MATCHED_SCHEMA, MAX_TEXT, PAIR_SCHEMA, image_id_of_url
from metadata.tally import Tally
from metadata.text import normalize_text

BATCH_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class OwnColumns:
    """What the columns are called. ``image_id`` may be absent from a file; ``carry``: columns that stay beside the pairs as they are."""

    url: str = "url"
    text: str = "text"
    image_id: str = "image_id"
    carry: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        taken = {*MATCHED_SCHEMA.names, "probability"} & {*self.carry}
        if taken:
            raise ValueError(f"a column that is carried along cannot be called {min(taken)}: matched pairs have one of their own")

    @property
    def needed(self) -> tuple[str, ...]:
        return self.url, self.text, *self.carry


#: The columns of pairs that nobody renamed.
OWN_COLUMNS = OwnColumns()
#: What img2dataset calls them in the Parquet files that it leaves beside its shards.
IMG2DATASET_COLUMNS = OwnColumns(text="caption", image_id="key")


def pairs_of_columns(table: pa.Table, *, tally: Tally) -> pa.Table:
    """Rows of string columns ``url``, ``text``, perhaps ``image_id``, and any that are carried → PAIR_SCHEMA and those.

    Image ids of one's own are taken verbatim; where there are none they are made from the URL. Rows without a URL (and without an id) are
    dropped as ``no_url``, those without a text as ``empty_text``, longer ones than MAX_TEXT as ``text_too_long``. The rows are read by the
    caller, and emitted here.
    """
    no_url = _is_missing(table["url"])
    if "image_id" in table.column_names:
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
    given = table["image_id"].to_pylist() if "image_id" in table.column_names else [None] * len(urls)
    ids = [own or image_id_of_url(url) for own, url in zip(given, urls, strict=True)]
    tally.emitted += len(table)
    own = pa.array(["own"] * len(table), pa.string())
    columns = [pa.array(ids, pa.string()), table["url"], pa.nulls(len(table), pa.string()), texts, own]
    carried = [field for field in table.schema if field.name not in ("url", "text", "image_id")]
    schema = pa.schema([*PAIR_SCHEMA, *carried])
    return pa.Table.from_arrays([*columns, *(table[field.name] for field in carried)], schema=schema).combine_chunks()


def pairs_of_rows(rows: Sequence[Sequence[str | None]], names: Sequence[str], *, tally: Tally) -> pa.Table:
    """The same of rows of strings; ``names`` are those of their columns."""
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return pairs_of_columns(pa.table(columns, names=list(names)), tally=tally)


def _is_missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.fill_null(column, ""), "")


# -- Parquet -------------------------------------------------------------------------------------------------------------------------


def _present(parquet: pq.ParquetFile, columns: OwnColumns) -> dict[str, str]:
    """Our name → the file's name of the columns of text that are there."""
    names = {"image_id": columns.image_id, "url": columns.url, "text": columns.text}
    return {ours: theirs for ours, theirs in names.items() if theirs in parquet.schema_arrow.names}


@dataclass(frozen=True, kw_only=True)
class ParquetLayout:
    """``groups``: (rows, bytes uncompressed) of each row group, so that a big file becomes several units; ``carried``: the types of the
    columns that are carried, so that small files which are alike become one."""

    groups: tuple[tuple[int, int], ...]
    carried: tuple[pa.DataType, ...]


def layout_of(file: BinaryIO, columns: OwnColumns = OWN_COLUMNS) -> ParquetLayout:
    """What the footer of a Parquet file says.

    Raises:
        ValueError: no Parquet, or a column is missing or holds no text; says which.
    """
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        raise ValueError(f"no Parquet file ({error})") from None
    missing = [name for name in columns.needed if name not in parquet.schema_arrow.names]
    if missing:
        raise ValueError(f"no column {' and no column '.join(missing)}; there are {', '.join(parquet.schema_arrow.names)}")
    for name in _present(parquet, columns).values():
        kind = parquet.schema_arrow.field(name).type
        try:
            pa.nulls(0, kind).cast(pa.string())
        except pa.ArrowNotImplementedError:
            raise ValueError(f"column {name} holds no text but {kind}") from None
    groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    return ParquetLayout(
        groups=tuple((group.num_rows, group.total_byte_size) for group in groups),
        carried=tuple(parquet.schema_arrow.field(name).type for name in columns.carry),
    )


def is_damage(error: Exception) -> bool:
    """Whether the bytes are at fault: Arrow's own OSError has no number, that of a failing disk or network has one, or another class."""
    return isinstance(error, pa.ArrowInvalid) or (type(error) is OSError and error.errno is None)


def _until_damage(batches: Iterator[pa.RecordBatch], *, tally: Tally) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(rows before it, batch) of the batches before the first that cannot be decoded."""
    rows = 0
    try:
        for batch in batches:
            yield rows, batch
            rows += len(batch)
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        tally.damaged("damaged_parquet", place=rows, detail=str(error))


def _decode(batch: pa.Table, names: Sequence[str], *, place: int, tally: Tally) -> pa.Table:
    """These columns as strings, and the others, without the rows in which one is no UTF-8 (Parquet files do not promise it)."""
    table = pa.table({name: batch[name].cast(pa.string(), safe=False) if name in names else batch[name] for name in batch.column_names})
    texts = table.select(names)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        good = []
        for row, values in enumerate(zip(*(column.cast(pa.binary()).to_pylist() for column in texts.columns), strict=True)):
            payload = b"\t".join(value or b"" for value in values)
            try:
                payload.decode()
                good.append(row)
            except UnicodeDecodeError as error:
                tally.dead_letter("not_utf8", place=place + row, detail=str(error), payload=payload)
        table = table.take(pa.array(good, pa.int64()))
    return table


def read_own_pairs(file: BinaryIO, row_groups: Sequence[int], *, tally: Tally, columns: OwnColumns = OWN_COLUMNS) -> Iterator[pa.Table]:
    """The pairs of some row groups of a Parquet file, as tables of :func:`pairs_of_columns`.

    A row that is no UTF-8 is a dead letter, its place the row within ``row_groups``. Where the data are damaged, what comes before still
    counts. Memory: one batch of 65,536 rows beside what Arrow holds of a row group.
    """
    parquet = pq.ParquetFile(file)
    present = _present(parquet, columns)
    names = [*present.values(), *columns.carry]
    batches = parquet.iter_batches(BATCH_ROWS, row_groups=list(row_groups), columns=names)
    for place, batch in _until_damage(batches, tally=tally):
        # Renamed by position: the text of one file may be called what the id of another is.
        ours = pa.table([batch.column(name) for name in names], names=[*present, *columns.carry])
        strings = [name for name in columns.carry if pa.types.is_string(ours.schema.field(name).type)]
        table = _decode(ours, [*present, *strings], place=place, tally=tally)
        tally.read += len(batch)
        yield pairs_of_columns(table, tally=tally)
