"""A page of HTML → its images, as the tokenizer of a browser sees them.

One pass over the tags (``balancing/tags.py``), without a tree: time and memory are linear in the page, whatever it is made of. A tree takes
time quadratic in its depth and in the attributes of a tag, and several times as long on pages of every day. What a tree knows and this pass
does not: ``img`` in ``select`` and ``frameset``, which some parsers leave out, count here; images are in the order of the text also where a
tree moves them, out of tables; and what is text in HTML (styles, titles …) is text within SVG as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import unescape
from html.entities import html5

from balancing.extraction import LAZY_ADDRESSES, LAZY_SETS, PUBLISHED, Extraction, Image, largest_of_srcset
from balancing.tags import MARKUP, RAW, SCRIPT, SPACE, tag_scanner

_SPACE = SPACE.encode()
#: What follows the name of a tag; the last group holds what stands between the last attribute and the end. Every part is possessive, and a
#: quotation mark that does not come again takes the rest of the page with it: nothing is read twice.
_REST = re.compile(
    rb"""([%b/]*+)(?:[^%b/>][^%b/>=]*+(?:[%b]*+=[%b]*+(?:"[^"]*+"?|'[^']*+'?|[^%b>"'][^%b>]*+)?+)?+([%b/]*+))*+>""" % ((_SPACE,) * 8)
)
#: An attribute of a whole tag, its name and its value, however that is quoted.
_NAME_AND_VALUE = re.compile(rb"""([^%b/>][^%b/>=]*+)(?:[%b]*+=[%b]*+(?:"([^"]*+)"|'([^']*+)'|([^%b>"'][^%b>]*+))?+)?+""" % ((_SPACE,) * 6))
#: The last of these is where a page can be left.
_IMAGE_OR_BASE = re.compile(rb"<(?i:base|image|img)[%b/>]" % _SPACE)
_LONGEST = len("<image>")
_CODE = re.compile(rb"<(script|style)(?=[%b/>]).*?(?:</\1(?=[%b/>])[^>]*+>|\Z)" % (_SPACE, _SPACE), re.IGNORECASE | re.DOTALL)
#: No address of a picture: nothing, the picture itself, or settings for a script.
_NO_ADDRESS = re.compile(r"\s*+(?:\Z|data:|[\[{])", re.IGNORECASE)
_PIXEL = frozenset({"0", "1", "0px", "1px"})

# -- content that is no markup -----------------------------------------------------------------------------------------------------

_RAW_END = {name.encode(): re.compile(rb"</(?i:%b)(?=[%b/>])" % (name.encode(), _SPACE)) for name in (*RAW, SCRIPT)}
_IN_SCRIPT = re.compile(rb"<!--|-->|<(/?)(?i:script)(?=[%b/>])" % _SPACE)

#: A longer value of an attribute is neither address nor text, and stays as it is. In bytes.
MAX_VALUE = 1 << 20

# -- character references ----------------------------------------------------------------------------------------------------------

_REFERENCE = re.compile(r"&(?:#(?:[xX]([0-9a-fA-F]++)|([0-9]++));?|([a-zA-Z][a-zA-Z0-9]*+);?)")
# https://html.spec.whatwg.org/multipage/parsing.html#numeric-character-reference-end-state: C1 controls are meant as windows-1252.
_CONTROLS = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
_LARGEST = 0x10FFFF


def images_of_html(page: bytes, take: Extraction = PUBLISHED) -> tuple[str | None, list[Image]]:
    """``<base href>`` (the first) and the ``img`` elements of a page in the order of the text, character references decoded; ``""`` for an
    attribute without a value. ``page`` is UTF-8; what is not becomes U+FFFD. A page without images has no base either.

    Scripting is off: images in ``noscript`` count. Those in ``template``, in comments, and in elements whose content is text do not.
    """
    base: str | None = None
    images: list[Image] = []
    figures = _Figures(page, images, take.texts.index("figcaption")) if "figcaption" in take.texts else None
    # The caption of a figure may come after its image.
    last = len(page) if figures else _end_of_last_image(page)
    in_html, in_svg = (tag_scanner(figures=figures is not None, foreign=foreign) for foreign in (False, True))
    wanted = _attributes_of(take)
    at = templates = foreign = 0
    while found := (in_svg if foreign else in_html).match(page, at, last):
        behind = found.end()
        start, at = page.rfind(b"<", at, behind), behind - 1
        name = page[start + 1 : at].lower()
        if name == b"!":
            is_cdata = foreign and page.startswith(b"[CDATA[", at)
            at = page.find(b"]]>" if is_cdata else b">", at)
            if at < 0:
                break
            continue
        if name == b"!-":
            if not (end := _end_of_script(page, start)):
                break
            at = end.start()
            continue
        if not (rest := _REST.match(page, at)):
            # The page ends inside the tag.
            break
        closed = b"/" in rest[rest.lastindex or 1]
        if name == b"img" or (name == b"image" and not foreign):
            # In SVG an image is another element; an img ends the SVG.
            foreign = 0
            if not templates:
                images.append(_image(_attributes(page, at, rest.end(), wanted), take))
        elif name == b"base":
            if base is None and not templates:
                base = _attributes(page, at, rest.end(), _BASE).get("href")
        elif name == b"template":
            templates += 1
        elif name == b"/template":
            templates = max(0, templates - 1)
        elif name == b"svg":
            foreign += not closed
        elif name == b"/svg":
            foreign = max(0, foreign - 1)
        elif name == b"plaintext":
            break
        elif name in _RAW_END:
            # Noticed in SVG alone, where such an element may end where it begins.
            if not closed:
                end = _end_of_script(page, rest.end()) if name == b"script" else _RAW_END[name].search(page, rest.end())
                if not end:
                    break
                at = end.start()
                continue
        elif figures and not templates:
            figures.see(name, start, rest.end())
        at = rest.end()
    if figures:
        figures.end()
    return base if images else None, images


def _end_of_last_image(page: bytes) -> int:
    """Where the name of the last tag of an image or a base ends that there may be, or 0: looked for from behind, further each time."""
    end, size = len(page), 1 << 14
    while end > 0:
        start = max(0, end - size)
        found = [tag.end() for tag in _IMAGE_OR_BASE.finditer(page, start, min(len(page), end + _LONGEST))]
        if found:
            return found[-1]
        end, size = start, 2 * size
    return 0


#: Names of attributes as pages have them, and as we do.
_BASE = {b"href": "href"}


@cache
def _attributes_of(take: Extraction) -> Mapping[bytes, str]:
    names = ("src", "width", "height", *take.texts, *((*LAZY_ADDRESSES, *LAZY_SETS) if take.lazy else ()))
    return {name.encode(): name for name in names}


def _image(attributes: dict[str, str], take: Extraction) -> Image:
    src = attributes.get("src")
    if take.lazy:
        addresses = (attributes.get(name, "") for name in (*LAZY_ADDRESSES, "src"))
        sets = (largest_of_srcset(attributes.get(name, "")) for name in LAZY_SETS)
        src = next((found for found in (*addresses, *sets) if not _NO_ADDRESS.match(found)), src)
    pixel = attributes.get("width") in _PIXEL and attributes.get("height") in _PIXEL
    return Image(src, tuple([attributes.get(name) for name in take.texts]), pixel)


class _Figures:
    """Gives the images of a ``figure`` the text of its ``figcaption``."""

    def __init__(self, page: bytes, images: list[Image], place: int) -> None:
        self._page, self._images, self._place = page, images, place
        self._first = len(images)
        self._caption: str | None = None
        self._open = False
        self._caption_at = -1

    def see(self, name: bytes, start: int, end: int) -> None:
        """A tag of a figure that stands from ``start`` to ``end``."""
        if name == b"figcaption":
            self._caption_at = end
        elif name == b"/figcaption":
            if self._open and self._caption is None and self._caption_at >= 0:
                self._caption = _text_of(self._page[self._caption_at : start])
            self._caption_at = -1
        else:
            self.end()
            self._open = name == b"figure"

    def end(self) -> None:
        """The figure that is open ends here."""
        if self._open and self._caption is not None:
            for i in range(self._first, len(self._images)):
                image = self._images[i]
                texts = (*image.texts[: self._place], self._caption, *image.texts[self._place + 1 :])
                self._images[i] = image._replace(texts=texts)
        self._first, self._caption, self._open = len(self._images), None, False


def _text_of(markup: bytes) -> str:
    """The words of some markup: tags that break a line are spaces, others and code nothing."""
    text = MARKUP.sub(lambda tag: b" " if tag[1] else b"", _CODE.sub(b"", markup))
    return " ".join(unescape(text.decode("utf-8", "replace")).split())


def _attributes(page: bytes, start: int, end: int, wanted: Mapping[bytes, str]) -> dict[str, str]:
    """The attributes of a tag that stand between two places and are wanted; the first of a name counts."""
    attributes: dict[str, str] = {}
    for name, double, single, bare in _NAME_AND_VALUE.findall(page, start, end):
        if (known := wanted.get(name.lower())) and known not in attributes:
            attributes[known] = _decoded(double or single or bare)
    return attributes


def _decoded(written: bytes) -> str:
    """An attribute's value, its character references decoded."""
    value = written.decode("utf-8", "replace")
    if len(written) > MAX_VALUE:
        return value
    if "\r" in value:
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    return _REFERENCE.sub(_referenced, value) if "&" in value else value


def _referenced(reference: re.Match[str]) -> str:
    hexadecimal, decimal, name = reference.groups()
    if name:
        if reference[0].endswith(";"):
            return html5.get(f"{name};", reference[0])
        # Without a semicolon the old names alone, and not before "=": so that "?a=1&copy=2" stays as it is.
        return reference[0] if reference.string.startswith("=", reference.end()) else html5.get(name, reference[0])
    digits = (hexadecimal or decimal).lstrip("0")[:8]
    code = int(digits or "0", 16 if hexadecimal else 10)
    if not 0 < code <= _LARGEST or 0xD800 <= code < 0xE000:
        return "\ufffd"
    return _CONTROLS.get(code) or chr(code)


def _end_of_script(page: bytes, start: int) -> re.Match[bytes] | None:
    """The end tag of a script; one within ``<!-- <script> … -->`` is none."""
    end = _RAW_END[b"script"].search(page, start)
    if not end or page.find(b"<!--", start, end.start()) < 0:
        return end
    escaped = doubly = False
    at = start
    while found := _IN_SCRIPT.search(page, at):
        at = found.end()
        if found[0] == b"<!--":
            # The dashes may be those of "-->" too.
            at -= 2
            escaped = True
        elif found[0] == b"-->":
            escaped = doubly = False
        elif not found[1]:
            doubly = escaped
        elif doubly:
            doubly = False
        else:
            return found
    return None
