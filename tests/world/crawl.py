"""Crawl files out of pages: WARC as crawlers write it, and WAT in Common Crawl's published shape. One gzip member a record."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.world.pages import ImageElement, Page, Pair, pairs_of

_DATE = "2026-09-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class CrawlTruth:
    """One crawl file: its records of every kind, its HTML pages, the pairs that a reader must find, in order, and what it must drop.

    A text attribute of an image is one candidate, and so is an image without any. ``dropped`` counts candidates: ``no_text`` (no text
    attribute), ``empty_text``, ``data_url`` (the image stands in its own address), ``no_url``.
    """

    records: int
    pages: int
    pairs: tuple[Pair, ...]
    dropped: Mapping[str, int]


def _dropped(image: ImageElement) -> Iterator[str]:
    for _, text in image.texts:
        if image.src is None:
            yield "no_url"
        elif image.src.startswith("data:"):
            yield "data_url"
        elif not text.strip():
            yield "empty_text"
    if not image.texts:
        yield "no_text"


def _truth(pages: Sequence[Page], records: int) -> CrawlTruth:
    return CrawlTruth(
        records=records,
        pages=len(pages),
        pairs=tuple(pair for page in pages for pair in pairs_of(page)),
        dropped=Counter(reason for page in pages for image in page.images for reason in _dropped(image)),
    )


def _record(kind: str, url: str, content_type: str, body: bytes) -> bytes:
    """One WARC 1.0 record as a gzip member. Its id comes from its content, so the same world has the same ids."""
    identity = hashlib.blake2b(f"{kind} {url} ".encode() + body, digest_size=16).digest()
    digest = base64.b32encode(hashlib.sha1(body).digest()).decode()
    target = f"WARC-Target-URI: {url}\r\n" if url else ""
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Date: {_DATE}\r\nWARC-Record-ID: <urn:uuid:{uuid.UUID(bytes=identity, version=4)}>\r\n"
        f"{target}WARC-Block-Digest: sha1:{digest}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(header.encode() + body + b"\r\n\r\n", 6, mtime=0)


_WARC_INFO = b"software: worldclip test world\r\nformat: WARC File Format 1.0\r\n"


def _http(status: str, content_type: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _element(image: ImageElement) -> str:
    attributes = [] if image.src is None else [("src", image.src)]
    return "<img " + " ".join(f'{name}="{html.escape(value)}"' for name, value in [*attributes, ("class", "picture"), *image.texts]) + ">"


def page_html(page: Page) -> bytes:
    """The page in its encoding."""
    meta = f'<meta charset="{page.encoding}">' if page.charset_in == "meta" else ""
    base = f'<base href="{page.base}">' if page.base else ""
    direction = ' dir="rtl"' if page.language.code == "ar" else ""
    title = page.language.scene_titles["sea"]
    body = "\n".join(f'<p>{title} {i}</p>\n<a href="/{i}.html">{_element(image)}</a>' for i, image in enumerate(page.images))
    text = (
        f'<!DOCTYPE html>\n<html lang="{page.language.code}"{direction}>\n<head>{meta}<title>{title}</title>{base}\n'
        f'<link rel="stylesheet" href="/style.css"></head>\n<body>\n{body}\n</body>\n</html>\n'
    )
    return text.encode(page.encoding, "xmlcharrefreplace")


def _warc_records(pages: Sequence[Page]) -> Iterator[bytes]:
    yield _record("warcinfo", "", "application/warc-fields", _WARC_INFO)
    for page in pages:
        path = "/" + page.url.split("/", 3)[3]
        yield _record("request", page.url, "application/http; msgtype=request", f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        charset = f"; charset={page.encoding}" if page.charset_in == "header" else ""
        response = _http("200 OK", f"text/html{charset}", page_html(page))
        yield _record("response", page.url, "application/http; msgtype=response", response)
        yield _record("metadata", page.url, "application/warc-fields", b"fetchTimeMs: 12\r\n")
    # A crawl holds other things than pages.
    pdf = _http("200 OK", "application/pdf", b"%PDF-1.4 <img src='/a.jpg' alt='not a page'>")
    yield _record("response", "http://www.paper.example/a.pdf", "application/http; msgtype=response", pdf)


def write_warc(path: Path, pages: Sequence[Page]) -> CrawlTruth:
    """Write the pages as WARC responses, each with its request and metadata record."""
    records = list(_warc_records(pages))
    path.write_bytes(b"".join(records))
    return _truth(pages, len(records))


def _wat_links(page: Page) -> list[dict[str, str]]:
    links = [{"path": "LINK@/href", "url": "/style.css", "rel": "stylesheet"}]
    for i, image in enumerate(page.images):
        links.append({"path": "A@/href", "url": f"/{i}.html"})
        address = {} if image.src is None else {"url": image.src}
        links.append({"path": "IMG@/src", **address, **dict(image.texts)})
    return links


def _envelope(kind: str, url: str, content_type: str, payload: dict[str, Any]) -> bytes:
    record = {
        "Container": {"Filename": "CC-MAIN-20260901000000.warc.gz", "Compressed": True, "Offset": "0"},
        "Envelope": {
            "Format": "WARC",
            "WARC-Header-Length": "600",
            "WARC-Header-Metadata": {"WARC-Type": kind, "WARC-Date": _DATE, "WARC-Target-URI": url, "Content-Type": content_type},
            "Payload-Metadata": payload,
        },
    }
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    return _record("metadata", url, "application/json", body)


def _wat_records(pages: Sequence[Page]) -> Iterator[bytes]:
    yield _record("warcinfo", "", "application/warc-fields", _WARC_INFO)
    for page in pages:
        request = {"Request-Message": {"Method": "GET", "Path": "/", "Version": "HTTP/1.1"}, "Headers": {"Host": "x"}}
        kind = "application/http; msgtype=request"
        yield _envelope("request", page.url, kind, {"Actual-Content-Type": kind, "HTTP-Request-Metadata": request})
        head: dict[str, Any] = {"Title": page.language.scene_titles["sea"], "Link": [{"path": "LINK@/href", "url": "/style.css"}]}
        if page.base:
            head["Base"] = page.base
        response = {
            "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
            "Headers": {"Server": "nginx", "Content-Type": "text/html; charset=UTF-8"},
            "HTML-Metadata": {"Head": head, "Links": _wat_links(page)},
        }
        kind = "application/http; msgtype=response"
        yield _envelope("response", page.url, kind, {"Actual-Content-Type": kind, "HTTP-Response-Metadata": response})


def write_wat(path: Path, pages: Sequence[Page]) -> CrawlTruth:
    """Write what Common Crawl extracts of the pages: a request and a response record each."""
    records = list(_wat_records(pages))
    path.write_bytes(b"".join(records))
    return _truth(pages, len(records))
