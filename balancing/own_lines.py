"""Pairs of one's own as JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from balancing.own import BATCH_ROWS, OWN_COLUMNS, OwnColumns, pairs_of_rows
from metadata.compressed import DamageError, decompressed
from metadata.tally import Tally

#: Longest line that is read; no more of a longer one is ever held.
LINE_BYTES = 1 << 20
#: Characters of a batch, if it has not reached its rows before.
BATCH_CHARACTERS = 64 << 20

_decode = msgspec.json.Decoder().decode

_Line = tuple[int, bytes]


def lines_of_range(file: BinaryIO, *, offset: int, length: int) -> Iterator[_Line]:
    """(offset, line) of the lines that begin in a range of a plain file, so that ranges which meet give each line once.

    A line that is longer than ``LINE_BYTES`` comes cut off, one byte too long. Memory: one line.
    """
    # The byte before tells whether a line begins at the offset; of a line that began before, the rest is passed over.
    file.seek(max(0, offset - 1))
    place = offset if offset == 0 else offset - 1 + _skip_line(file)
    while place < offset + length:
        line = file.readline(LINE_BYTES + 1)
        if not line:
            return
        yield place, line
        place += len(line) if line.endswith(b"\n") else len(line) + _skip_line(file)


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; how many bytes that were."""
    skipped = 0
    while piece := file.readline(LINE_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def lines_of_compressed(file: BinaryIO, *, tally: Tally) -> Iterator[_Line]:
    """(offset in the content, line) of a compressed file, front to back; damage is told to ``tally``, what comes before counts."""
    place, held, too_long = 0, b"", False
    try:
        for chunk in decompressed(file):
            *whole, rest = (held + chunk).split(b"\n")
            for line in whole:
                if not too_long:
                    yield place, line[: LINE_BYTES + 1]
                too_long = False
                place += len(line) + 1
            held = rest
            if len(held) > LINE_BYTES:
                if not too_long:
                    yield place, held[: LINE_BYTES + 1]
                place, held, too_long = place + len(held), b"", True
    except DamageError as damage:
        tally.damaged(damage.reason, place=place, detail=damage.detail)
        return
    if held and not too_long:
        yield place, held


def read_own_lines(lines: Iterable[_Line], *, tally: Tally, columns: OwnColumns = OWN_COLUMNS) -> Iterator[pa.Table]:
    """The pairs of JSON lines, as tables of :func:`balancing.own.pairs_of_rows`; what is carried is text, or the JSON of what is none.

    Blank lines are nothing. Dead letters: ``invalid_json`` (also what is no object), ``line_too_long`` (``LINE_BYTES``), ``not_text``
    (an address, text or id that is neither string, number nor null). Their place is the offset of the line.
    Memory: a batch of 65,536 rows or ``BATCH_CHARACTERS``.
    """
    names = {"image_id": columns.image_id, "url": columns.url, "text": columns.text} | {name: name for name in columns.carry}
    rows: list[list[str | None]] = []
    characters = 0
    for place, line in lines:
        if not (record := line.strip()):
            continue
        tally.read += 1
        if len(line) > LINE_BYTES and not line.endswith(b"\n"):
            tally.dead_letter("line_too_long", place=place, detail=f"more than {LINE_BYTES} bytes", payload=line)
            continue
        try:
            values = json_object(record)
        except ValueError as error:
            tally.dead_letter("invalid_json", place=place, detail=str(error), payload=line)
            continue
        try:
            row = [text_of_field(values.get(theirs), theirs, carried=ours in columns.carry) for ours, theirs in names.items()]
        except ValueError as error:
            tally.dead_letter("not_text", place=place, detail=str(error), payload=line)
            continue
        rows.append(row)
        characters += len(record)
        if len(rows) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield pairs_of_rows(rows, [*names], tally=tally)
            rows, characters = [], 0
    if rows:
        yield pairs_of_rows(rows, [*names], tally=tally)


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else, lone surrogates among it."""
    try:
        value = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, dict):
        raise ValueError(f"no object but {type(value).__name__}")
    return value


def text_of_field(value: Any, name: str, *, carried: bool) -> str | None:
    """A field as text: numbers as they are written; what is carried may be anything, and is JSON then.

    Raises:
        ValueError: it holds no text.
    """
    if value is None or isinstance(value, str):
        return value
    if carried:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{name} holds no text but {type(value).__name__}")
