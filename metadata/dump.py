"""Wikipedia dumps: compressed bytes to pages. One pass over the input, with bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlsplit
from xml.parsers import expat

from metadata.compressed import DamageError, decompressed
from metadata.languages import language_of_pageview_code
from metadata.tally import Tally

#: A page whose title or text is longer, in characters, is a dead letter; no more of it than this is ever held.
MAX_PAGE_CHARACTERS = 1 << 24

_SITE_BYTES = 1 << 20
# Bounds on what expat keeps for itself: one token, the open elements, the names it has seen.
_MAX_TOKEN_BYTES = 1 << 24
_MAX_DEPTH = 64
_MAX_NAMES = 10_000


class DumpError(ValueError):
    """The file is not a Wikipedia dump."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """An article; ``text`` is its raw wikitext."""

    title: str
    text: str
    page_id: int


def _refuse_doctype(*_: object) -> None:
    raise DamageError("xml_entities", "a dump holds no document type and no entity declarations")


class _Reader:
    """An expat parser that knows its depth and refuses whatever would make expat itself grow without bound."""

    def __init__(self) -> None:
        self.depth = 0
        self._fed = 0
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = _refuse_doctype
        self.parser = parser
        self._parts: list[str] | None = None
        self._room = 0

    def opened(self, name: str) -> None:
        raise NotImplementedError

    def closed(self, name: str, value: str | None) -> None:
        """``value``: the element's text, if :meth:`collect` was called for it and it fits; else None."""
        raise NotImplementedError

    def collect(self) -> None:
        """Keep the text of the element that was opened just now."""
        self._parts = []
        self._room = MAX_PAGE_CHARACTERS
        self.parser.CharacterDataHandler = self._characters

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise DamageError("invalid_xml", f"elements nested more than {_MAX_DEPTH} deep")
        if self.depth == 1 and name != "mediawiki":
            raise DamageError("invalid_xml", f"the root element is <{name[:100]}>, not <mediawiki>")
        self.opened(name)

    def _characters(self, data: str) -> None:
        # The handler stays in place: expat's buffer is flushed through it when it is replaced, which would end here again.
        self._room -= len(data)
        if self._room < 0:
            self._parts = None
        if self._parts is not None:
            self._parts.append(data)

    def _end(self, name: str) -> None:
        self.depth -= 1
        value = None if self._parts is None else "".join(self._parts)
        self._parts = None
        self.parser.CharacterDataHandler = None
        self.closed(name, value)

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            DamageError: this is not the XML of a dump.
        """
        try:
            self.parser.Parse(data)
        except expat.ExpatError as error:
            raise DamageError("invalid_xml", str(error)) from error
        self._fed += len(data)
        if self._fed - self.parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
            raise DamageError("invalid_xml", f"a tag or comment longer than {_MAX_TOKEN_BYTES} bytes")
        if len(self.parser.intern) > _MAX_NAMES:
            raise DamageError("invalid_xml", f"more than {_MAX_NAMES} names of elements and attributes")


class _SiteReader(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.done = False

    def opened(self, name: str) -> None:
        if name in ("dbname", "base") and self.depth == 3:
            self.collect()

    def closed(self, name: str, value: str | None) -> None:
        if value is not None and not self.done:
            self.fields.setdefault(name, value.strip())
        self.done = self.done or name in ("siteinfo", "page")


def read_site(dump: BinaryIO) -> str:
    """Name of the dump's site (``enwiki``), from ``<dbname>`` or else from the ``<base>`` address; reads only the head of ``dump``.

    Raises:
        DumpError: the file does not begin as a dump does, or names no site.
    """
    reader = _SiteReader()
    seen = 0
    problem = "no <siteinfo> with a <dbname> or a <base> address of a Wikipedia"
    try:
        for chunk in decompressed(dump):
            reader.feed(chunk)
            seen += len(chunk)
            if reader.done or seen > _SITE_BYTES:
                break
    except DamageError as damage:
        problem = str(damage)
    dbname = reader.fields.get("dbname", "")
    if not dbname:
        code, _, rest = (_host(reader.fields.get("base", ""))).partition(".")
        if rest == "wikipedia.org":
            known = language_of_pageview_code(code)
            dbname = known.dbname if known else code.replace("-", "_") + "wiki"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", dbname):
        raise DumpError(f"not a Wikipedia dump: {problem}")
    return dbname


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


_PAGE_FIELDS = frozenset({"title", "ns", "id"})
_FRAGMENT_STARTS = (b"<page", b"</mediawiki")
_HEAD_BYTES = 64


class _PageReader(_Reader):
    """Feeds on chunks, keeps the books of the pages that are complete, and hands over those that are articles."""

    def __init__(self, tally: Tally, *, whole: bool) -> None:
        super().__init__()
        self._tally = tally
        self._whole = whole
        self._head: bytes | None = b""
        self._prefix_bytes = 0
        self._articles: list[Page] = []
        self._in_page = False
        self._forget_page()

    def _forget_page(self) -> None:
        self._fields: dict[str, str] = {}
        self._place = self._prefix_bytes
        self._redirect = False
        self._too_large: set[str] = set()

    @property
    def place(self) -> int:
        """Offset in the decompressed bytes."""
        return max(0, self.parser.CurrentByteIndex - self._prefix_bytes)

    def take(self) -> Iterator[Page]:
        articles, self._articles = self._articles, []
        for page in articles:
            self._tally.emitted += 1
            yield page

    def feed(self, data: bytes) -> None:
        if self._head is not None:
            self._head = (self._head + data).lstrip(b" \t\r\n")
            if len(self._head) < _HEAD_BYTES:
                return
            data = self._begin(self._head)
        super().feed(data)

    def _begin(self, head: bytes) -> bytes:
        self._head = None
        if head.startswith(_FRAGMENT_STARTS):
            self._whole = False
            self._prefix_bytes = len(b"<mediawiki>")
            return b"<mediawiki>" + head
        return head

    def finish(self) -> None:
        """The dump has ended.

        Raises:
            DamageError: it ended too early.
        """
        if self._head is not None:
            if not self._head:
                raise DamageError("empty", "no content")
            super().feed(self._begin(self._head))
        try:
            self.parser.Parse(b"</mediawiki>" if self.depth == 1 and not self._whole else b"", True)
        except expat.ExpatError as error:
            raise DamageError("truncated", str(error)) from error

    def opened(self, name: str) -> None:
        if not self._in_page:
            if name == "page" and self.depth == 2:
                self._in_page = True
                self._forget_page()
                self._place = self.place
        elif self.depth == 3:
            if name in _PAGE_FIELDS:
                self.collect()
            elif name == "redirect":
                self._redirect = True
        elif name == "text" and self.depth == 4:
            # A history dump has many revisions: the last one counts, and what is dropped anyway is not collected.
            self._fields.pop("text", None)
            self._too_large.discard("text")
            if not self._redirect and self._fields.get("ns", "0") == "0":
                self.collect()

    def closed(self, name: str, value: str | None) -> None:
        if not self._in_page:
            return
        if self.depth == 1:
            self._in_page = False
            self._account()
        elif value is not None:
            self._fields[name] = value if name == "text" else value.strip()
        elif (self.depth == 2 and name in _PAGE_FIELDS) or (self.depth == 3 and name == "text"):
            self._too_large.add(name)

    def _account(self) -> None:
        tally, fields = self._tally, self._fields
        tally.read += 1
        title, page_id, text = fields.get("title", ""), fields.get("id", ""), fields.get("text", "")
        if fields.get("ns", "0") != "0":
            tally.drop("other_namespace")
        elif self._redirect:
            tally.drop("redirect")
        elif self._too_large:
            detail = f"{title[:200]}: more than {MAX_PAGE_CHARACTERS} characters"
            tally.dead_letter("page_too_large", place=self._place, detail=detail, payload=title.encode())
        elif not title or not (page_id.isascii() and page_id.isdigit() and len(page_id) < 19):
            tally.dead_letter(
                "page_without_title_or_id", place=self._place, detail=f"{title[:200]!r} {page_id[:50]!r}", payload=title.encode()
            )
        elif not text or text.isspace():
            tally.drop("empty_text")
        else:
            self._articles.append(Page(title=title, text=text, page_id=int(page_id)))


def read_pages(dump: BinaryIO, *, tally: Tally, whole: bool = True) -> Iterator[Page]:
    """The articles of a dump: pages of namespace 0 that are no redirects and have a text.

    ``dump``: bz2 (one stream or many), gzip, xz or plain XML, told by its first bytes. It may also be a part of a dump that was cut
    between pages: one that begins with ``<page>`` is known as such; for the first one, which begins as a dump does, ``whole=False`` says
    that a missing end is not damage.

    Tally: every page is read; drops ``other_namespace``, ``redirect``, ``empty_text``; dead letters ``page_too_large`` and
    ``page_without_title_or_id``; the file is damaged as ``empty``, ``truncated``, ``invalid_compression``, ``invalid_xml`` or
    ``xml_entities``, after all pages that stand before the damage. Places are offsets in the decompressed bytes.

    Memory: three chunks of 1 MiB and one page (:data:`MAX_PAGE_CHARACTERS`).
    """
    reader = _PageReader(tally, whole=whole)
    try:
        for chunk in decompressed(dump):
            reader.feed(chunk)
            yield from reader.take()
        reader.finish()
    except DamageError as damage:
        yield from reader.take()
        tally.damaged(damage.reason, place=reader.place, detail=damage.detail)
        return
    yield from reader.take()
