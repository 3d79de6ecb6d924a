from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import balancing.payload
from balancing.payload import PageTooLarge, decode_body, looks_like_html, says_html, split_message

PAGE = b"<html>" + b"".join(b"<p>%d</p>" % i for i in range(50_000))


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": zstandard.compress,
}


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("coding", ENCODERS)
def test_content_codings(coding: str) -> None:
    assert decode_body({"content-encoding": coding}, ENCODERS[coding](PAGE)) == PAGE


@pytest.mark.parametrize("coding", ENCODERS)
def test_body_that_was_stored_decoded(coding: str) -> None:
    assert decode_body({"content-encoding": coding, "transfer-encoding": "chunked"}, PAGE) == PAGE


@pytest.mark.parametrize("coding", ENCODERS)
def test_body_that_is_cut_off_gives_its_beginning(coding: str) -> None:
    encoded = ENCODERS[coding](PAGE)
    beginning = decode_body({"content-encoding": coding}, encoded[: len(encoded) * 3 // 4])
    assert PAGE.startswith(beginning)
    assert len(beginning) > 10_000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_damaged_body(coding: str) -> None:
    mark = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}.get(coding, b"\xff")
    with pytest.raises(ValueError, match=f"the {coding} coding is damaged"):
        decode_body({"content-encoding": coding}, mark + b"\0\xff\0\xff" * 50)


@pytest.mark.parametrize("coding", ["identity", *ENCODERS])
def test_bomb(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing.payload, "PAGE_BYTES", 1 << 20)
    encode = ENCODERS.get(coding, bytes)
    assert len(decode_body({"content-encoding": coding}, encode(b"x" * (1 << 20)))) == 1 << 20
    with pytest.raises(PageTooLarge):
        decode_body({"content-encoding": coding}, encode(b"x" * ((1 << 20) + 1)))


def test_codings_are_undone_in_reverse() -> None:
    assert decode_body({"content-encoding": "gzip, br"}, brotli.compress(gzip.compress(PAGE), quality=1)) == PAGE


@given(st.binary(max_size=300), st.integers(1, 50))
def test_chunks(data: bytes, size: int) -> None:
    assert decode_body({"transfer-encoding": "chunked"}, chunked(data, size)) == data


def test_chunks_that_are_cut_off() -> None:
    assert decode_body({"transfer-encoding": "Chunked"}, b"4\r\nabcd\r\n6\r\nef") == b"abcdef"


def test_split_message() -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\ncontent-type: text/plain\r\nX:  y \r\n\r\nbody\r\n\r\n"
    assert split_message(block) == (200, {"content-type": "text/html", "x": "y"}, b"body\r\n\r\n")
    assert split_message(b"HTTP/1.0 404 No\nA: b\n\nbody") == (404, {"a": "b"}, b"body")
    assert split_message(b"HTTP/1.0 200 OK\r\nA: b") == (200, {"a": "b"}, b"")
    assert split_message(b"20240101\nwww.example.org A 1.2.3.4") is None


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("text/html", True),
        ("Text/HTML; charset=x", True),
        ("application/xhtml+xml", True),
        ("image/png", False),
        ("", None),
        ("unknown/unknown", None),
    ],
)
def test_says_html(value: str, answer: bool | None) -> None:
    assert says_html({"content-type": value} if value else {}) is answer


def test_looks_like_html() -> None:
    assert looks_like_html(b"\xef\xbb\xbf \n<!DOCTYPE html><p>")
    assert looks_like_html(b"<!-- x --><rss>")
    assert not looks_like_html(b"<?xml version='1.0'?><rss>")
    assert not looks_like_html(b"<htmlx>")
