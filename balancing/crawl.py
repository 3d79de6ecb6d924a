"""Common Crawl files, WARC or WAT → tables of (image, text) pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa

from balancing.encoding import utf8_of_html
from balancing.extraction import PUBLISHED, PUBLISHED_TEXTS, Extraction, Image
from balancing.html import images_of_html
from balancing.pairs import MAX_TEXT, PAIR_SCHEMA, image_id_of_url
from balancing.payload import PageTooLarge, decode_body, looks_like_html, says_html, split_message
from balancing.urls import MAX_URL, Resolver, clean_url, is_http
from balancing.warc import Record, read_records
from balancing.wat import images_of_wat
from metadata.tally import Tally
from metadata.text import normalize_text

#: A table is given when its columns reach this many characters, if it has not reached its rows before.
BATCH_CHARACTERS = 64 << 20


class RecordError(Exception):
    """A record that cannot be used, with the reason of its dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Batch:
    """Rows on their way to a table."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._clear()

    def _clear(self) -> None:
        self.ids: list[str] = []
        self.urls: list[str] = []
        self.pages: list[str | None] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.characters = 0

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, image_id: str, url: str, page_url: str | None, text: str, source: str) -> None:
        self.ids.append(image_id)
        self.urls.append(url)
        self.pages.append(page_url)
        self.texts.append(text)
        self.sources.append(source)
        self.characters += len(url) + len(text) + (len(page_url) if page_url else 0)

    def take(self) -> pa.Table:
        columns = [self.ids, self.urls, self.pages, self.texts, self.sources]
        table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=PAIR_SCHEMA)
        self._tally.emitted += len(self)
        self._clear()
        return table


def _add_images(
    images: list[Image],
    page_url: str | None,
    base: str | None,
    *,
    sources: Sequence[str],
    place: int,
    batch: _Batch,
    batch_rows: int,
    tally: Tally,
) -> Iterator[pa.Table]:
    """Put the pairs of one page into the batch; give a table whenever it is full. ``sources`` names the texts of an image."""
    page_url = normalize_text(clean_url(page_url)) if page_url else None
    read = no_text = 0
    long_base = len(page_url or "") > MAX_URL or len(base or "") > MAX_URL
    try:
        resolver = None if long_base else Resolver(page_url or "", base)
    except ValueError:
        # A base that is no URL counts for nothing, as in browsers.
        try:
            resolver = Resolver(page_url or "")
        except ValueError:
            resolver = Resolver("")
    for src, texts, pixel in images:
        n = len(texts) - texts.count(None)
        if not n:
            no_text += 1
            continue
        read += n
        if not src or not (src := clean_url(src)):
            tally.drop("no_url", n)
            continue
        if src[:5].lower() == "data:":
            tally.drop("data_url", n)
            continue
        if resolver is None or len(src) > MAX_URL:
            tally.drop("url_too_long", n)
            continue
        if pixel:
            tally.drop("tracking_pixel", n)
            continue
        try:
            url = resolver.resolve(src)
            image_id = image_id_of_url(url)
        except ValueError as error:
            # UnicodeEncodeError is one: a lone surrogate.
            for _ in range(n):
                tally.dead_letter("invalid_url", place=place, detail=str(error), payload=src.encode("utf-8", "replace"))
            continue
        if not is_http(url):
            tally.drop("not_http", n)
            continue
        if len(url) > MAX_URL:
            tally.drop("url_too_long", n)
            continue
        for source, text in zip(sources, texts, strict=True):
            if text is None:
                continue
            # Printable text holds nothing to replace. NUL separates the parts of keys, and no caption needs one.
            text = text.strip(" ") if text.isprintable() else normalize_text(text.replace("\0", " "))
            if not text:
                tally.drop("empty_text")
            elif len(text) > MAX_TEXT:
                tally.drop("text_too_long")
            else:
                batch.add(image_id, url, page_url, text, source)
        if len(batch.ids) >= batch_rows or batch.characters >= BATCH_CHARACTERS:
            yield batch.take()
    tally.read += read + no_text
    tally.drop("no_text", no_text)


def _images_of_response(record: Record, take: Extraction) -> tuple[str | None, list[Image]]:
    """``<base href>`` and images of a response record; none of what is not HTML, or not answered with a status of 2xx.

    Raises:
        RecordError: the page is broken; its ``reason`` is that of a dead letter.
    """
    message = split_message(record.block)
    if message is None:
        return None, []
    status, headers, body = message
    html = says_html(headers)
    if not 200 <= status < 300 or html is False:
        return None, []
    if not record.whole:
        if html:
            raise RecordError("record_too_large", "the record is longer than a page can be")
        return None, []
    try:
        page = decode_body(headers, body)
    except PageTooLarge as error:
        raise RecordError("page_too_large", str(error)) from error
    except ValueError as error:
        raise RecordError("undecodable_html", str(error)) from error
    if html is None and not looks_like_html(page):
        return None, []
    return images_of_html(utf8_of_html(page, headers.get("content-type", "")), take)


def _images_of_record(record: Record, take: Extraction) -> tuple[str | None, str | None, list[Image]]:
    """Page URL, ``<base href>`` and images of a record of any kind; of most kinds none.

    Raises:
        RecordError: see :func:`_images_of_response`; for WAT ``invalid_json`` or ``record_too_large``.
    """
    kind = record.headers.get("warc-type", "").lower()
    content_type = record.headers.get("content-type", "").lower()
    page_url: str | None = record.headers.get("warc-target-uri")
    base: str | None = None
    images: list[Image] = []
    if kind == "response":
        base, images = _images_of_response(record, take)
    elif kind == "metadata" and content_type.startswith("application/json"):
        if not record.whole:
            raise RecordError("record_too_large", "the record is longer than a page's metadata can be")
        try:
            inner_url, base, images = images_of_wat(record.block)
        except ValueError as error:
            raise RecordError("invalid_json", str(error)) from error
        if take.texts != PUBLISHED_TEXTS:
            images = [image._replace(texts=_asked_for(image.texts, take.texts)) for image in images]
        page_url = inner_url or page_url
    if page_url and page_url.startswith("<") and page_url.endswith(">"):
        # WARC 1.0 of old crawlers.
        page_url = page_url[1:-1]
    return page_url, base, images


def _asked_for(published: Sequence[str | None], names: Sequence[str]) -> tuple[str | None, ...]:
    """The texts of these names out of the published ones."""
    texts = dict(zip(PUBLISHED_TEXTS, published, strict=True))
    return tuple([texts.get(name) for name in names])


def read_crawl(
    raw: BinaryIO,
    *,
    tally: Tally,
    take: Extraction = PUBLISHED,
    batch_rows: int = 100_000,
) -> Iterator[pa.Table]:
    """Pairs of a WARC or WAT file (or a mixture; plain or gzip; told by content), as tables of ``PAIR_SCHEMA`` in file order.

    One pair per image and text that is to be taken; the image's address is resolved against the page, ``<base href>`` respected.

    The books: an image reads one candidate per text attribute it has; an image without any reads one, dropped as ``no_text``.
    Other drops, in the order in which they are tried: ``no_url``, ``data_url``, ``url_too_long`` (``MAX_URL``), ``tracking_pixel``
    (shown in one pixel; WAT files do not say it), ``not_http``,
    ``empty_text``, ``text_too_long`` (``MAX_TEXT``). Dead letters: ``invalid_url`` (one per candidate); one per record for
    ``invalid_json``, ``undecodable_html``, ``page_too_large``, ``record_too_large``; and the damage of the file
    that :func:`balancing.warc.read_records` reports. Records that are no HTML pages are not in the books.

    Memory: one record (64 MiB) with its page (32 MiB) twice, and one batch of ``batch_rows`` rows or
    ``BATCH_CHARACTERS``, whichever comes first.
    """
    batch = _Batch(tally)
    for record in read_records(raw, tally=tally):
        try:
            page_url, base, images = _images_of_record(record, take)
        except RecordError as error:
            tally.read += 1
            tally.dead_letter(error.reason, place=record.place, detail=str(error), payload=record.block)
            continue
        if images:
            yield from _add_images(
                images, page_url, base, sources=take.texts, place=record.place, batch=batch, batch_rows=batch_rows, tally=tally
            )
    if len(batch):
        yield batch.take()
