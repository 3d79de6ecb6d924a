"""bzip2 as a chain of blocks that are decompressed one by one: a file is read from the middle, by many at once, and past damage.

The format: a stream is the header ``BZh1`` to ``BZh9``, then blocks, one after the other bit by bit, then an end; a file is any number of
streams. A block begins with a mark of 48 bits and the CRC-32 of its content, the end of a stream with another mark and a CRC of those
CRCs. The length of a block stands nowhere. It is found by looking for the next mark, and proved by decompressing.

Why that is exact. What lies between two marks is given to the decompressor as a stream of its own. From a right beginning it reads the same
bits as in the file, so it succeeds (the block's last symbol just before the mark, the CRC right) only where the block ends. A mark that
stands inside a block by chance, which happens once in 17 TB, ends nothing and is passed over. So whoever begins at a right place goes from
block to block like one who began at the front.

Whoever begins in the middle begins at the first mark there. Should that be one by chance, or made on purpose, the reader of the range
before knows it, since its last block goes on across that mark, and reports ``false_mark``: nothing is lost or read twice without a word.
"""

from __future__ import annotations

import bz2
import contextlib
import re
from collections import deque
from collections.abc import Iterator
from itertools import takewhile
from typing import BinaryIO, NamedTuple

from metadata.compressed import DamageError, Piece

#: How bzip2 files begin.
BZIP2_MAGIC = b"BZh"

_BLOCK, _END = 0x314159265359, 0x177245385090
_MARK_BITS, _CRC_BITS = 48, 32
#: Bytes that hold a mark, wherever in its first byte it begins.
_MARK_BYTES = 7
#: What is searched for: the five bytes inside a mark that begins at this bit of a byte; and whether it is the one of a block.
_NEEDLES = [
    ((mark >> shift & (1 << 40) - 1).to_bytes(5, "big"), shift, mark, mark == _BLOCK) for mark in (_BLOCK, _END) for shift in range(8)
]
#: How a stream begins.
_BEGINNINGS = [b"BZh9" + mark.to_bytes(6, "big") for mark in (_BLOCK, _END)]
_BEGINNING_BYTES = 10
_BEGINNING = re.compile(b"|".join(b"BZh[1-9]" + re.escape(begin[4:]) for begin in _BEGINNINGS), re.DOTALL)

_READ_BYTES = 1 << 20
_PADDING_BYTES = 1 << 12
#: No block is shorter, nor longer: 900,001 symbols of at most 20 bits each, and tables.
_MIN_BLOCK_BITS = 160
_MAX_BLOCK_BITS = 8 * 2_400_000
#: Marks inside a block that are passed over. One is rare, more were put there.
_MAX_FALSE_MARKS = 3


class _Mark(NamedTuple):
    """The beginning of a block or the end of a stream; ``bit`` is counted from the beginning of the file."""

    bit: int
    is_block: bool


def read_blocks(file: BinaryIO, *, start: int = 0, end: int | None = None, begun: bytes = b"") -> Iterator[Piece]:
    """The blocks that begin in the bytes [start, end) of a file, as its ``own`` pieces; then, for as long as they are asked for, the next.

    Ranges that cover a file have each block once, whatever the ranges are. A damaged block is a piece with its damage; reading goes on
    with the next block of the range. (The CRC of every block is checked, not the one over a stream, which cannot be known in the middle.)

    Args:
        file: stands at ``start``; only ``read`` is used.
        start: 0 or anything else inside the file. At 0 it must begin as bzip2 files do.
        end: None for the end of the file.
        begun: bytes of the file at ``start`` that were read already; it stands behind them.

    Memory: 3.4 MB of the file and one block: 0.9 MB as a rule, 46 MB at most, if it is of one byte over and over.
    """
    window = _Window(file, start, begun)
    last = None if end is None else 8 * end
    try:
        block = _stream(window, 0) if start == 0 else window.next_block(8 * start, last)
    except DamageError as damage:
        yield Piece(place=0, damage=damage)
        block = window.next_block(0, last)
    while block is not None:
        window.forget(block)
        own = last is None or block < last
        at = block
        try:
            data, stop = _content(window, block)
            yield Piece(place=block // 8, data=data, own=own)
            at = stop.bit if stop else 8 * window.end
            if own and last is not None and window.holds_block(last, at):
                raise DamageError("false_mark", "what looks like the beginning of a block stands inside another one")
            block = _next(window, stop)
        except DamageError as damage:
            yield Piece(place=at // 8, damage=damage, own=own)
            block = window.next_block(at + 1, last)


def _content(window: _Window, block: int) -> tuple[bytes, _Mark | None]:
    """Content of the block that begins at a bit, and the mark behind it; None where the file ends before that.

    Raises:
        DamageError: the block is damaged.
    """
    false_marks = 0
    for mark in window.marks_after(block):
        data = _decompressed(window, block, mark.bit)
        if data is not None:
            return data, mark
        false_marks += 1
        if false_marks > _MAX_FALSE_MARKS:
            break
    if not false_marks and window.complete:
        rest = b"BZh9" + window.rest(block)
        # The last byte is filled up, which can make the beginning of the mark behind the block look like another one.
        for data in (rest, rest[:-1]):
            with contextlib.suppress(OSError):
                return bz2.BZ2Decompressor().decompress(data), None
    raise DamageError("invalid_compression", "a block cannot be decompressed")


def _decompressed(window: _Window, block: int, stop: int) -> bytes | None:
    """Content of the bits of one block; None if they are anything else."""
    if stop - block < _MIN_BLOCK_BITS:
        return None
    head = _MARK_BITS + _CRC_BITS
    # The CRC over a stream of one block is the one of that block.
    crc = window.bits(block + _MARK_BITS, block + head)
    stream = window.bits(block, stop) << head | _END << _CRC_BITS | crc
    length = stop - block + head
    decoder = bz2.BZ2Decompressor()
    try:
        data = decoder.decompress(b"BZh9" + (stream << -length % 8).to_bytes(-(-length // 8), "big"))
    except OSError:
        return None
    return data if decoder.eof and not decoder.unused_data else None


def _next(window: _Window, stop: _Mark | None) -> int | None:
    """The block that follows, given the mark at which one ended; None at the end of the file.

    Raises:
        DamageError: neither a block nor the end follows.
    """
    if stop is None:
        raise DamageError("truncated", "the compressed stream ends early")
    return stop.bit if stop.is_block else _stream(window, -(-(stop.bit + _MARK_BITS + _CRC_BITS) // 8))


def _stream(window: _Window, at: int) -> int | None:
    """The first block of the streams that begin at a byte; None if all that follows is padding and streams without content.

    Raises:
        DamageError: there is something else.
    """
    while True:
        at = _behind_zeros(window, at)
        beginning = window.peek(at, _BEGINNING_BYTES)
        if not beginning and at == window.end:
            return None
        if not any(_BEGINNING.fullmatch(beginning + whole[len(beginning) :]) for whole in _BEGINNINGS):
            raise DamageError("invalid_compression", "no stream begins where one should")
        if len(beginning) < _BEGINNING_BYTES:
            raise DamageError("truncated", "the compressed stream ends early")
        if beginning[4:] == _BEGINNINGS[0][4:]:
            return 8 * (at + 4)
        at += _BEGINNING_BYTES + _CRC_BITS // 8


def _behind_zeros(window: _Window, at: int) -> int:
    """The first byte from there on that is not zero, or the end of the file: zeros between streams are padding."""
    while ahead := window.peek(at, _PADDING_BYTES):
        content = ahead.lstrip(b"\0")
        at += len(ahead) - len(content)
        window.forget(8 * at)
        if content:
            break
    return at


class _Window:
    """Some bytes of a file and the marks in them: grows at its end, forgets at its beginning."""

    def __init__(self, file: BinaryIO, start: int, begun: bytes) -> None:
        self._file = file
        self._first = start
        self._data = bytearray(begun)
        self._marks: deque[_Mark] = deque()
        #: Whether the file has been read to its end.
        self.complete = False

    @property
    def end(self) -> int:
        """The byte of the file behind the last one that was read."""
        return self._first + len(self._data)

    def _grow(self) -> bool:
        if self.complete:
            return False
        more = self._file.read(_READ_BYTES)
        self.complete = not more
        known = max(0, len(self._data) - _MARK_BYTES + 1)
        self._data += more
        found = []
        for needle, shift, mark, is_block in _NEEDLES:
            at = self._data.find(needle, known + 1)
            while at >= 0:
                around = self._data[at - 1 : at - 1 + _MARK_BYTES]
                # At the end of the file a mark may fill its last byte.
                if len(around) == _MARK_BYTES or (self.complete and not shift):
                    bits = int.from_bytes(around.ljust(_MARK_BYTES, b"\0"), "big") >> 8 - shift
                    if bits & (1 << _MARK_BITS) - 1 == mark:
                        found.append(_Mark(8 * (self._first + at - 1) + shift, is_block))
                at = self._data.find(needle, at + 1)
        self._marks.extend(sorted(found))
        return True

    def forget(self, bit: int) -> None:
        """Let go of what stands before the byte of a bit."""
        count = min(max(0, bit // 8 - self._first), len(self._data))
        del self._data[:count]
        self._first += count
        while self._marks and self._marks[0].bit < bit:
            self._marks.popleft()

    def next_block(self, bit: int, last: int | None) -> int | None:
        """The first mark of a block at or after a bit and before ``last``; all before it is forgotten."""
        while True:
            self.forget(bit)
            found = next((mark.bit for mark in self._marks if mark.is_block), None)
            if found is not None:
                return found if last is None or found < last else None
            bit = max(bit, 8 * (self.end - _MARK_BYTES + 1))
            if (last is not None and bit >= last) or not self._grow():
                return None

    def holds_block(self, first: int, stop: int) -> bool:
        """Whether the mark of a block begins at a bit in [first, stop)."""
        return any(mark.is_block and mark.bit >= first for mark in takewhile(lambda mark: mark.bit < stop, self._marks))

    def marks_after(self, bit: int) -> Iterator[_Mark]:
        """The marks at which a block that begins at a bit may end, given that what is before it was forgotten."""
        number = 0
        while True:
            while number < len(self._marks):
                mark = self._marks[number]
                if mark.bit > bit + _MAX_BLOCK_BITS:
                    return
                number += 1
                if mark.bit > bit:
                    yield mark
            if 8 * self.end > bit + _MAX_BLOCK_BITS or not self._grow():
                return

    def peek(self, at: int, count: int) -> bytes:
        """So many bytes from a byte on, or what there is of them."""
        while self.end < at + count and self._grow():
            pass
        return bytes(self._data[at - self._first : at - self._first + count])

    def bits(self, first: int, stop: int) -> int:
        """The bits [first, stop) of what was read, as a number."""
        data = self._data[first // 8 - self._first : -(-stop // 8) - self._first]
        return int.from_bytes(data, "big") >> -stop % 8 & (1 << stop - first) - 1

    def rest(self, bit: int) -> bytes:
        """All from a bit on, as bytes."""
        length = 8 * self.end - bit
        return (self.bits(bit, 8 * self.end) << -length % 8).to_bytes(-(-length // 8), "big")
