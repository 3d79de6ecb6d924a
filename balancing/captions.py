"""Captions alone, without their images: lines of a text file or a column of a Parquet file → normalized texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from balancing.own import is_damage
from balancing.pairs import MAX_TEXT
from metadata.compressed import DamageError, decompressed
from metadata.tally import Tally
from metadata.text import normalize_text

#: Captions, and characters of them, that travel together.
BATCH_ROWS, BATCH_CHARACTERS = 65_536, 1 << 24
#: A longer line is a caption that is too long, whatever it holds: a character takes at most four bytes.
_LINE_BYTES = 4 * MAX_TEXT
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARQUET = b"PAR1"


def read_captions(file: BinaryIO, *, column: str, tally: Tally) -> Iterator[list[str]]:
    """The captions of an opened, seekable file in their order, in batches: normalized texts (metadata.text.normalize_text).

    Parquet, told by its content, gives its ``column``; any other file is UTF-8 text, a caption a line, plain or compressed with gzip,
    bzip2 or xz. Every line or row is read; it is emitted, dropped as ``empty_text`` or ``text_too_long`` (over MAX_TEXT characters), or a
    dead letter, ``not_utf8``, whose place is the line, from 1, or the row, from 0. Where a file is damaged, what comes before counts.
    Memory: one batch, of a long line 40 kB, and what Arrow holds of a row group.

    Raises:
        ValueError: the Parquet file has no such column, or no text in it; the message says what there is.
    """
    head = file.read(len(_PARQUET))
    file.seek(0)
    texts = _of_rows(file, column, tally) if head == _PARQUET else _of_lines(file, tally)
    yield from _in_batches(texts)


def _of_lines(file: BinaryIO, tally: Tally) -> Iterator[list[str]]:
    place = 1
    rest = b""
    try:
        for piece in decompressed(file):
            lines = (rest + piece).split(b"\n")
            # One byte more than a line may have tells that it is too long.
            rest = lines.pop()[: _LINE_BYTES + 1]
            yield _texts(_without_mark(lines, place), place, tally)
            place += len(lines)
    except DamageError as error:
        tally.damaged(error.reason, place=place, detail=error.detail, payload=rest)
        return
    if rest:
        yield _texts(_without_mark([rest], place), place, tally)


def _without_mark(lines: list[bytes], place: int) -> list[bytes]:
    return [lines[0].removeprefix(_BYTE_ORDER_MARK), *lines[1:]] if place == 1 and lines else lines


def _of_rows(file: BinaryIO, column: str, tally: Tally) -> Iterator[list[str]]:
    try:
        parquet = pq.ParquetFile(file)
        if column not in parquet.schema_arrow.names:
            raise ValueError(f"no column {column}; there are {', '.join(parquet.schema_arrow.names)}")
        try:
            pa.nulls(0, parquet.schema_arrow.field(column).type).cast(pa.string())
        except pa.ArrowNotImplementedError:
            raise ValueError(f"column {column} holds no text but {parquet.schema_arrow.field(column).type}") from None
        place = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=[column]):
            # Parquet files do not promise that their strings are UTF-8.
            values = batch.column(column).cast(pa.string(), safe=False).cast(pa.binary()).to_pylist()
            yield _texts(values, place, tally)
            place += len(values)
    except OSError as error:
        if not is_damage(error):
            raise
        tally.damaged("damaged_parquet", place=tally.read, detail=str(error))
    except pa.ArrowInvalid as error:
        tally.damaged("damaged_parquet", place=tally.read, detail=str(error))


def _texts(values: Sequence[bytes | None], first: int, tally: Tally) -> list[str]:
    """The captions among lines or rows, the first of which has the place ``first``."""
    texts = []
    tally.read += len(values)
    for place, value in enumerate(values, first):
        if value is not None and len(value) > _LINE_BYTES:
            tally.drop("text_too_long")
            continue
        try:
            text = normalize_text((value or b"").decode())
        except UnicodeDecodeError as error:
            tally.dead_letter("not_utf8", place=place, detail=str(error), payload=value or b"")
            continue
        if not text:
            tally.drop("empty_text")
        elif len(text) > MAX_TEXT:
            tally.drop("text_too_long")
        else:
            texts.append(text)
    tally.emitted += len(texts)
    return texts


def _in_batches(lists: Iterable[list[str]]) -> Iterator[list[str]]:
    """The same texts in lists of at most BATCH_ROWS and about BATCH_CHARACTERS."""
    held: list[str] = []
    characters = 0
    for texts in lists:
        for text in texts:
            held.append(text)
            characters += len(text)
            if len(held) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
                yield held
                held, characters = [], 0
    if held:
        yield held
