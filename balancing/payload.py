"""A WARC response block → the HTML page in it: status, content type, transfer and content codings."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import brotli
import zstandard

#: Longest page that is parsed, decoded. Common Crawl cuts pages at 1 or 5 MiB.
PAGE_BYTES = 32 << 20
_STEP = 64 << 10

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"\s*HTTP/[\d.]+\s+(\d{3})")
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_UNKNOWN_TYPES = frozenset({"", "unknown/unknown", "application/unknown", "*/*"})
# The tags by which https://mimesniff.spec.whatwg.org tells HTML.
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*<(?:(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[ >]|!--)",
    re.IGNORECASE,
)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[^\r\n]{0,1000}\r?\n")


class PageTooLarge(ValueError):
    """The page is longer than ``PAGE_BYTES``."""


def split_message(block: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Status, header fields (names in lower case; the first of a name counts) and body of an HTTP response; None if it is none."""
    status = _STATUS.match(block)
    if not status:
        return None
    end = _HEAD_END.search(block)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\n")[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return int(status[1]), headers, body


def says_html(headers: dict[str, str]) -> bool | None:
    """Whether the content type is one of HTML; None where there is none, or one that says nothing."""
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    return None if media_type in _UNKNOWN_TYPES else media_type in _HTML_TYPES


def looks_like_html(body: bytes) -> bool:
    """Whether a body begins as HTML, by the tags of the WHATWG MIME sniffing standard."""
    return _HTML_START.match(body) is not None


def decode_body(headers: dict[str, str], body: bytes) -> bytes:
    """The body without its transfer and content codings.

    Crawlers often store bodies decoded and leave the header as it was: a body that does not begin as its coding says is taken as it is.
    A body that is cut off, or damaged after its first 64 KiB, gives what comes before, as in browsers.

    Raises:
        PageTooLarge: more than ``PAGE_BYTES``; no more than that and one step is ever held.
        ValueError: nothing of the body can be decoded.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    for coding in reversed(headers.get("content-encoding", "").lower().split(",")):
        if decode := _DECODERS.get(coding.strip()):
            body = decode(body)
    if len(body) > PAGE_BYTES:
        raise PageTooLarge(f"the page has more than {PAGE_BYTES} bytes")
    return body


def _join_chunks(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while size := _CHUNK_SIZE.match(body, at):
        length = int(size[1], 16)
        if not length:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        at = size.end() + length
        if body.startswith(b"\r\n", at):
            at += 2
        elif body.startswith(b"\n", at):
            at += 1
        elif at < len(body):
            break
    return b"".join(parts) if parts and at >= len(body) else body


def _collect(step: Callable[[bytes], bytes], body: bytes, errors: type[Exception]) -> bytes | None:
    """What a decoder makes of the body up to its end or its first error; None if it fails at once.

    ``step`` gives at most about ``_STEP`` bytes a call, and more of the same input when it is called with none.
    """
    parts: list[bytes] = []
    length, at = 0, 0
    try:
        while at < len(body):
            data = body[at : at + _STEP]
            at += len(data)
            while part := step(data):
                parts.append(part)
                length += len(part)
                if length > PAGE_BYTES:
                    raise PageTooLarge(f"the page has more than {PAGE_BYTES} bytes")
                data = b""
    except errors:
        if not parts:
            return None
    return b"".join(parts)


def _inflate(body: bytes, wbits: int) -> bytes | None:
    inflater = zlib.decompressobj(wbits)

    def step(data: bytes) -> bytes:
        # Without input, the tail that the last step left over comes first.
        return inflater.decompress(inflater.unconsumed_tail + data, _STEP) if not inflater.eof else b""

    return _collect(step, body, zlib.error)


def _gzip(body: bytes) -> bytes:
    if not body.startswith(b"\x1f\x8b"):
        return body
    page = _inflate(body, 31)
    if page is None:
        raise ValueError("the gzip coding is damaged")
    return page


def _deflate(body: bytes) -> bytes:
    """zlib as the standard says, raw deflate as some servers send it."""
    for wbits in (15, -15):
        page = _inflate(body, wbits)
        if page:
            return page
    return _as_it_is(body, "deflate")


def _brotli(body: bytes) -> bytes:
    decoder = brotli.Decompressor()
    waiting = b""

    def step(data: bytes) -> bytes:
        nonlocal waiting
        waiting += data
        if decoder.is_finished():
            return b""
        if decoder.can_accept_more_data():
            data, waiting = waiting, b""
            return bytes(decoder.process(data, output_buffer_limit=_STEP))
        return bytes(decoder.process(b"", output_buffer_limit=_STEP))

    page = _collect(step, body, brotli.error)
    return page if page else _as_it_is(body, "br")


def _zstd(body: bytes) -> bytes:
    if not body.startswith(b"\x28\xb5\x2f\xfd"):
        return body
    parts: list[bytes] = []
    length = 0
    try:
        stated = zstandard.get_frame_parameters(body).content_size
        if PAGE_BYTES < stated != zstandard.CONTENTSIZE_UNKNOWN:
            raise PageTooLarge(f"the page has {stated} bytes")
        with zstandard.ZstdDecompressor(max_window_size=PAGE_BYTES).stream_reader(body, read_across_frames=True) as reader:
            while part := reader.read(_STEP):
                parts.append(part)
                length += len(part)
                if length > PAGE_BYTES:
                    raise PageTooLarge(f"the page has more than {PAGE_BYTES} bytes")
    except zstandard.ZstdError as error:
        if not parts:
            raise ValueError("the zstd coding is damaged") from error
    return b"".join(parts)


def _as_it_is(body: bytes, coding: str) -> bytes:
    """A body that does not decode and has no mark to tell it by: text was stored decoded, anything else is damaged."""
    if b"<" not in body[:1024] or b"\0" in body[:1024]:
        raise ValueError(f"the {coding} coding is damaged")
    return body


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
