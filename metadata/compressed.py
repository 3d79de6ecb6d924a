"""Compressed files → their bytes, front to back, with bounded memory."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

_CHUNK_BYTES = 1 << 20
_XZ_MEMORY = 1 << 28


class DamageError(Exception):
    """A file cannot be read any further; ``reason`` is a stable snake_case name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some content of a file, or the damage that stands in its place.

    ``place``: an offset that says where. ``own``: whether it belongs to the range of the file that was asked for, or follows it.
    """

    place: int
    data: bytes = b""
    damage: DamageError | None = None
    own: bool = True


class _Decompressor(Protocol):
    """One compressed stream, as ``bz2`` and ``lzma`` offer it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecompressor:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length
        return out


_CODECS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"BZh", bz2.BZ2Decompressor),
    (b"\x1f\x8b", _GzipDecompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
)


def decompressed(file: BinaryIO, *, feed: int = 1 << 16, begun: bytes = b"") -> Iterator[bytes]:
    """The content of a bzip2, gzip, xz or plain file, told by its first bytes, in chunks of at most 1 MiB whatever the ratio.

    Streams that follow one another are one. ``feed``: compressed bytes that are read at a time, and lost where the data are corrupt.
    ``begun``: the first bytes, if they were read already.

    Raises:
        DamageError: the compressed data end early or are corrupt. Errors of reading ``file`` pass: they say nothing of its content.
    """
    data = begun + file.read(feed)
    new_decoder = next((new for magic, new in _CODECS if data.startswith(magic)), None)
    if new_decoder is None:
        while data:
            yield data
            data = file.read(_CHUNK_BYTES)
        return
    decoder = new_decoder()
    while True:
        try:
            out = decoder.decompress(data, _CHUNK_BYTES)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DamageError("invalid_compression", str(error)) from error
        if out:
            yield out
        data = b""
        if decoder.eof:
            # Zeros between streams are padding, as gzip and xz allow it.
            data = decoder.unused_data.lstrip(b"\0")
            while not data:
                raw = file.read(feed)
                if not raw:
                    return
                data = raw.lstrip(b"\0")
            decoder = new_decoder()
        elif decoder.needs_input:
            data = file.read(feed)
            if not data:
                raise DamageError("truncated", "the compressed stream ends early")
