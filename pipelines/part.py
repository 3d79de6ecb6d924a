"""The parts of a stage: how one is written, what it says of itself in its footer, and how it is read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from balancing.own import is_damage
from metadata.tally import DeadLetter
from pipelines import storage
from pipelines.books import FileRead
from pipelines.errors import JobError

if TYPE_CHECKING:
    from pipelines.stage import FinishedStage

#: Rows of a row group: what a reader holds at once. Selecting one language of a sorted part reads little more than its rows.
ROW_GROUP_ROWS = 65_536

#: Columns that hardly repeat: a dictionary of their values would be begun in every row group, and given up.
_UNIQUE = frozenset({"image_id", "url", "page_url", "text", "image_key", "pair_key", "gram", "title", "entry", "jpeg", "sha256", "dhash"})

_FOOTER = b"worldclip"

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("input", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What a part says of itself. ``data_sha256``: of the file's bytes up to its footer. ``input_sha256``: of the file that it was made of;
    of a pack those of all its files in their order, with spaces; empty where none was taken."""

    unit: str
    fingerprint: str
    input_sha256: str
    data_sha256: str
    counters: dict[str, Any]
    rows: int
    bytes: int


def read_footer(url: str) -> Footer | None:
    """Footer of a part, or None if there is no whole part."""
    if (file := storage.open_if_there(url)) is None:
        return None
    with file as f:
        size = f.seek(0, os.SEEK_END)
        # Arrow says OSError of a footer that it cannot decode; TypeError: the account is another program's.
        try:
            metadata = pq.read_metadata(f)
            about = json.loads((metadata.metadata or {})[_FOOTER])
            return Footer(**about, rows=metadata.num_rows, bytes=size)
        except OSError as error:
            if not is_damage(error):
                raise
            return None
        except (KeyError, ValueError, TypeError):
            return None


def _leaves(field: pa.Field, above: str = "") -> list[str]:
    """The columns that Parquet makes of a field, by their paths."""
    path, kind = above + field.name, field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _leaves(kind.value_field.with_name("element"), f"{path}.list.")
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(child, f"{path}.")]
    return [path]


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How the parts of a stage are written: Arrow's names for it."""
    repeating = [path for field in schema for path in _leaves(field) if path.rpartition(".")[2] not in _UNIQUE]
    return {"compression": "zstd", "use_dictionary": repeating, "write_statistics": True}


class PartWriter:
    """Writes one part in row groups, with the memory of one of them. ``input_sha256`` is set once the input is read, and ``files`` where
    the unit is a pack of them."""

    def __init__(self, path: os.PathLike[str], schema: pa.Schema, fingerprint: str, unit: str) -> None:
        self.input_sha256 = ""
        self.files: Sequence[FileRead] = ()
        self._path = path
        self._file = open(path, "wb")  # noqa: SIM115  closed in close(), which part() always calls
        self._writer = pq.ParquetWriter(self._file, schema, **parquet_options(schema))
        self._about = {"unit": unit, "fingerprint": fingerprint}

    def write(self, table: pa.Table, *, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._writer.write_table(table, row_group_size=row_group_rows)

    def close(self, *, counters: Mapping[str, Any]) -> None:
        self._file.flush()
        with open(self._path, "rb") as written:
            data = hashlib.file_digest(written, "sha256").hexdigest()
        about = {**self._about, "input_sha256": self.input_sha256, "data_sha256": data, "counters": counters}
        self._writer.add_key_value_metadata({_FOOTER: json.dumps(about, sort_keys=True).encode()})
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        # An open ParquetWriter writes when it is collected, to a file that is closed by then. What it writes now is deleted.
        with contextlib.suppress(OSError):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()


def write_letters(url: str, letters: Sequence[DeadLetter], inputs: Sequence[str]) -> None:
    """Write the dead letters of a part; ``inputs``: the path of the file that each is of."""
    rows = [
        {"input": path, "place": letter.place, "reason": letter.reason, "detail": letter.detail, "payload": letter.payload}
        for path, letter in zip(inputs, letters, strict=True)
    ]
    with storage.writing(url) as path:
        pq.write_table(pa.Table.from_pylist(rows, schema=DEAD_LETTER_SCHEMA), path, compression="zstd")


def read_part(
    url: str, *, columns: Sequence[str] | None = None, filters: Any = None, dictionaries: Sequence[str] | None = None
) -> pa.Table:
    """One part as a table. ``dictionaries``: columns of text to be left as dictionaries, which costs less where few values repeat.

    Raises:
        JobError: it is absent or damaged.
    """
    with storage.open_read(url) as f:
        try:
            return pq.read_table(f, columns=None if columns is None else list(columns), filters=filters, read_dictionary=dictionaries)
        except (pa.ArrowInvalid, OSError) as error:
            if not is_damage(error):
                raise
            raise JobError(f"{url} is damaged ({error}): delete it and run its job again") from error


def read_parts(stage: FinishedStage, *, columns: Sequence[str] | None = None) -> Iterable[pa.Table]:
    """The tables of all parts, one at a time, in order of their names."""
    for part in stage.parts:
        yield read_part(stage.part_url(part["name"]), columns=columns)
