"""Wikipedia dumps: compressed bytes to pages. One pass over the input, with bounded memory.

A dump in bzip2, of one stream or many, is read in ranges: a reader has the pages that begin in the blocks that begin in its range of the
file (``metadata.bzip2``), as with a text file that is split between lines. Nothing has to be known of the file but its size. No index is
read, which may be missing or of another dump, no scan goes before the work, and it is all the same whether a dump has many streams, cut
between pages or anywhere, or one. The reader of a range passes over what stands before its first ``<page>``, and goes on behind its end up
to the next one: in the text of a page "<" is always escaped. Together they read what one reader of the whole reads. (All but in a comment
or a CDATA section that holds ``<page>``, which no dump has: there it is told as damage.)
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlsplit
from xml.parsers import expat

from metadata.bzip2 import BZIP2_MAGIC, read_blocks
from metadata.compressed import DamageError, Piece, decompressed
from metadata.languages import language_of_pageview_code
from metadata.tally import Tally

#: A page whose title or text is longer, in characters, is a dead letter; no more of it than this is ever held.
MAX_PAGE_CHARACTERS = 1 << 24
#: Grows whenever a rule below changes in a way that can change which pages are read.
DUMP_VERSION = 1

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


class _Reader:
    """An expat parser that knows its depth and refuses whatever would make expat itself grow without bound.

    ``fault``: the byte, of those given to the parser, at which it refused to go on.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.fault = 0
        self._given = 0
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._refuse_doctype
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

    def refuse(self, reason: str, detail: str, *, at: int | None = None) -> DamageError:
        """The damage at a byte, or at the beginning of the tag that is being read: the parser runs on to the end of what it was given."""
        self.fault = self.parser.CurrentByteIndex if at is None else at
        return DamageError(reason, detail)

    def _refuse_doctype(self, *_: object) -> None:
        raise self.refuse("xml_entities", "a dump holds no document type and no entity declarations")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.refuse("invalid_xml", f"elements nested more than {_MAX_DEPTH} deep")
        if self.depth == 1 and name != "mediawiki":
            raise self.refuse("invalid_xml", f"the root element is <{name[:100]}>, not <mediawiki>")
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

    def give(self, data: bytes) -> None:
        """Parse on.

        Raises:
            DamageError: this is not the XML of a dump.
        """
        self._given += len(data)
        try:
            self.parser.Parse(data)
        except expat.ExpatError as error:
            raise self.refuse("invalid_xml", str(error), at=self.parser.ErrorByteIndex) from error
        if self._given - self.parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
            raise self.refuse("invalid_xml", f"a tag or comment longer than {_MAX_TOKEN_BYTES} bytes", at=self._given)
        if len(self.parser.intern) > _MAX_NAMES:
            raise self.refuse("invalid_xml", f"more than {_MAX_NAMES} names of elements and attributes", at=self._given)


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
            reader.give(chunk)
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
#: Where a page begins, for who begins in the middle: as every dump writes it.
_PAGE = b"<page>"
#: Bytes to keep of what was searched, where such a tag may be cut in two.
_KEPT_BYTES = len(_PAGE) - 1
_ROOT = b"<mediawiki>"
_SPACE = b" \t\r\n"
#: Bytes that are parsed at a time, and of which the rest is parsed again behind a fault.
_SLICE_BYTES = 1 << 16
#: Damaged places in one range; after so many, what is left of it is not read. Bounds the time that they can take.
_MAX_DAMAGED = 1_000


class _PageReader(_Reader):
    """Reads the XML of a dump, or of its pages from one in the middle on: keeps the books of complete pages and gives out the articles.

    ``place_of``: where in the file a byte of the content given here stands.
    """

    def __init__(self, tally: Tally, *, exact: bool, middle: bool) -> None:
        super().__init__()
        self.articles: list[Page] = []
        self._tally = tally
        self._exact = exact
        self._head: bytes | None = None if middle else b""
        # A byte of the content is so many bytes behind the one of the parser's input.
        self._shift = 0
        self._fed = 0
        # (byte of the content, place) of the last pieces.
        self._places: deque[tuple[int, int]] = deque(maxlen=64)
        self._last = b""
        self._in_page = False
        self._forget_page()
        if middle:
            self._insert_root()

    def _insert_root(self) -> None:
        self._shift -= len(_ROOT)
        self.give(_ROOT)

    def _forget_page(self) -> None:
        self._fields: dict[str, str] = {}
        self._page_place = 0
        self._redirect = False
        self._too_large: set[str] = set()

    def place_of(self, index: int) -> int:
        """Where in the file a byte of the parser's input stands."""
        byte = index + self._shift
        first, place = next((known for known in reversed(self._places) if known[0] <= byte), (byte, 0))
        return place + byte - first if self._exact else place

    def feed(self, data: bytes, place: int) -> None:
        """Read on; ``place``: where the data stand in the file.

        Raises:
            DamageError: as :meth:`give`.
        """
        if not self._exact or not self._places:
            self._places.append((self._fed, place))
        self._fed += len(data)
        self._last = self._last[-_KEPT_BYTES:] + data
        if self._head is not None:
            head = self._head + data
            self._head = head.lstrip(_SPACE)
            self._shift += len(head) - len(self._head)
            if len(self._head) > _KEPT_BYTES:
                self._begin()
        else:
            self.give(data)

    def _begin(self) -> None:
        head, self._head = self._head or b"", None
        if head.startswith(_PAGE):
            self._insert_root()
        self.give(head)

    def behind_fault(self) -> bytes:
        """What was fed, lately, behind the beginning of the tag at which reading failed."""
        # One byte is left out at least: the next reader must not begin where this one did.
        behind = self._fed - max(1, self.fault + self._shift)
        return self._last[-behind:] if behind > 0 else b""

    def finish(self, *, at_end: bool) -> None:
        """What was to be read has ended: the dump (``at_end``), or what stands before the page at which another reader begins.

        Raises:
            DamageError: it ended too early.
        """
        if self._head is not None:
            if not self._head:
                raise self.refuse("empty", "no content", at=0)
            self._begin()
        try:
            if not at_end and self.depth != 1:
                raise self.refuse("invalid_xml", "a page begins inside another one, or behind the end of the dump")
            self.parser.Parse(b"" if at_end else b"</mediawiki>", True)
        except expat.ExpatError as error:
            raise self.refuse("truncated" if at_end else "invalid_xml", str(error)) from error

    def opened(self, name: str) -> None:
        if name == "page":
            # Wherever it stands, another reader may begin at it.
            if self.depth != 2:
                raise self.refuse("invalid_xml", "a page begins inside another element")
            self._in_page = True
            self._forget_page()
            self._page_place = self.place_of(self.parser.CurrentByteIndex)
        elif self._in_page and self.depth == 3:
            if name in _PAGE_FIELDS:
                self.collect()
            elif name == "redirect":
                self._redirect = True
        elif self._in_page and name == "text" and self.depth == 4:
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
            tally.dead_letter("page_too_large", place=self._page_place, detail=detail, payload=title.encode())
        elif not title or not (page_id.isascii() and page_id.isdigit() and len(page_id) < 19):
            tally.dead_letter(
                "page_without_title_or_id", place=self._page_place, detail=f"{title[:200]!r} {page_id[:50]!r}", payload=title.encode()
            )
        elif not text or text.isspace():
            tally.drop("empty_text")
        else:
            self.articles.append(Page(title=title, text=text, page_id=int(page_id)))


class _Pages:
    """The pages of a range, from one reader to the next: damage ends one, and the next begins at the next page.

    ``idle``: no page has begun, since the beginning of the range or since damage. ``over``: nothing more will be read.
    """

    def __init__(self, tally: Tally, *, exact: bool, middle: bool) -> None:
        self._tally, self._exact = tally, exact
        self._reader = None if middle else _PageReader(tally, exact=exact, middle=False)
        self._searched = b""
        self._damaged = 0
        self.over = False

    @property
    def idle(self) -> bool:
        return self._reader is None

    def read(self, data: bytes, place: int) -> Iterator[Page]:
        """Read on; ``place``: where the data stand in the file."""
        for first in range(0, len(data), _SLICE_BYTES):
            rest = self._searched + data[first : first + _SLICE_BYTES]
            self._searched = b""
            behind = place + min(first + _SLICE_BYTES, len(data))
            while rest and not self.over:
                rest = yield from self._read_to_fault(rest, behind - len(rest) if self._exact else place)

    def _read_to_fault(self, data: bytes, place: int) -> Generator[Page, None, bytes]:
        """Read some data; what of it stands behind a fault."""
        if self._reader is None:
            page = data.find(_PAGE)
            if page < 0:
                self._searched = data[-_KEPT_BYTES:]
                return b""
            data = data[page:]
            place += page if self._exact else 0
            self._reader = _PageReader(self._tally, exact=self._exact, middle=True)
        reader = self._reader
        try:
            reader.feed(data, place)
            rest = b""
        except DamageError as damage:
            rest = reader.behind_fault()
            self.damaged(damage, place=reader.place_of(reader.fault))
        yield from self._taken(reader)
        return rest

    def damaged(self, damage: DamageError, *, place: int) -> None:
        """The content is damaged here: what comes next does not continue what came before."""
        self._damaged += 1
        self.over = self._damaged == _MAX_DAMAGED
        detail = f"{damage.detail} (the {_MAX_DAMAGED}th place: the rest is not read)" if self.over else damage.detail
        self._tally.damaged(damage.reason, place=place, detail=detail)
        self._reader, self._searched = None, b""

    def _taken(self, reader: _PageReader) -> Iterator[Page]:
        articles, reader.articles = reader.articles, []
        for page in articles:
            self._tally.emitted += 1
            yield page

    def finish(self, *, at_end: bool) -> Iterator[Page]:
        """All is read; ``at_end``: to the end of the file."""
        if self._reader is None:
            return
        reader = self._reader
        try:
            reader.finish(at_end=at_end)
        except DamageError as damage:
            self.damaged(damage, place=reader.place_of(reader.fault))
        yield from self._taken(reader)


def _unsplit(dump: BinaryIO, begun: bytes) -> Iterator[Piece]:
    """The content of a dump that is not read in ranges; places are offsets in it."""
    place = 0
    try:
        for data in decompressed(dump, begun=begun):
            yield Piece(place=place, data=data)
            place += len(data)
    except DamageError as damage:
        yield Piece(place=place, damage=damage)


def read_pages(dump: BinaryIO, *, tally: Tally, start: int = 0, end: int | None = None) -> Iterator[Page]:
    """The articles of a dump, or of a range of it: pages of namespace 0 that are no redirects and have a text.

    Ranges that cover a dump have together what the whole has, pages and books, wherever they are cut.

    Args:
        dump: bzip2, gzip, xz or plain XML, told by its first bytes. It stands at ``start``; only ``read`` is used.
        tally: every page is read; drops ``other_namespace``, ``redirect``, ``empty_text``; dead letters ``page_too_large`` and
            ``page_without_title_or_id``. Damage costs the page and the block of bzip2 that it is in, and is one dead letter: ``truncated``,
            ``empty``, ``invalid_compression``, ``false_mark`` (see ``metadata.bzip2``), ``invalid_xml``, ``xml_entities``. Reading goes on
            at the next page; but not in gzip and xz, whose content ends where it is damaged. Places are bytes of the file, of bzip2
            those where a block begins, of gzip and xz bytes of the content.
        start: more than 0 in a bzip2 file only.
        end: None for the end of the file; given for bzip2 files only.

    Memory: one block (see :func:`read_blocks`) or three chunks of 1 MiB, and one page (:data:`MAX_PAGE_CHARACTERS`).
    """
    begun = b"" if start else dump.read(len(BZIP2_MAGIC))
    is_bzip2 = start > 0 or begun == BZIP2_MAGIC
    pages = _Pages(tally, exact=not is_bzip2, middle=start > 0)
    # What follows the range belongs to it up to the page that begins there: the first one of the next reader.
    ahead, seen, place = b"", 0, start
    for piece in read_blocks(dump, start=start, end=end, begun=begun) if is_bzip2 else _unsplit(dump, begun):
        before, place = place, piece.place
        if pages.over:
            return
        if piece.own:
            if piece.damage is None:
                yield from pages.read(piece.data, place)
            else:
                pages.damaged(piece.damage, place=place)
            continue
        if piece.damage is not None:
            # The reader whose range it is in tells of it. The last page may have ended before.
            yield from pages.read(ahead, before)
            return
        if pages.idle and seen >= _KEPT_BYTES:
            return
        joined = ahead + piece.data
        next_page = joined.find(_PAGE)
        cut = next_page if next_page >= 0 else max(0, len(joined) - _KEPT_BYTES)
        yield from pages.read(ahead[:cut], before)
        yield from pages.read(joined[len(ahead) : cut], place)
        if next_page >= 0:
            yield from pages.finish(at_end=False)
            return
        ahead, seen = joined[cut:], seen + cut
    yield from pages.read(ahead, place)
    yield from pages.finish(at_end=True)
