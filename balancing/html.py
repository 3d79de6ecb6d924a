"""HTML text → the images of a page, as the tokenizer of a browser sees them.

One pass over what the HTML standard calls tags (https://html.spec.whatwg.org/multipage/parsing.html#tokenization), without a tree: time and
memory are linear in the page, whatever it is made of. A tree takes time quadratic in its depth and in the attributes of a tag, and four
times as long on pages of every day. What a tree knows and this pass does not: ``img`` in ``select`` and ``frameset``, which some parsers
leave out, count here; images are in the order of the text also where a tree moves them, out of tables; and what is text in HTML (scripts,
titles …) is text within SVG as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from html import unescape
from html.entities import html5
from string import ascii_letters

from balancing.extraction import LAZY_ADDRESSES, LAZY_SETS, PUBLISHED, Extraction, Image, largest_of_srcset

_IMAGE_TAG = re.compile(r"<ima?ge?[\s/>]", re.IGNORECASE)

# -- the grammar of tags -----------------------------------------------------------------------------------------------------------

_SPACE = r"\t\n\f\r "
# Every part is possessive, and a quotation mark that does not come again takes the rest of the page with it: nothing is read twice.
_VALUE = rf"""[{_SPACE}]*+=[{_SPACE}]*+(?:"[^"]*+"?|'[^']*+'?|[^{_SPACE}>"'][^{_SPACE}>]*+)?+"""
_ATTRIBUTE = rf"[^{_SPACE}/>][^{_SPACE}/>=]*+(?:{_VALUE})?+"
_BETWEEN = rf"[{_SPACE}/]*+"
_COMMENT = r"!--(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+(?:--!?>)?)"
_BOGUS_COMMENT = r"(?:[!?]|/(?![a-zA-Z]))[^>]*+>"

# To the end of a tag whose name is read, in the common form first: any value is in double quotation marks.
_TO_END = rf"""(?:>|[^>"'=]*+(?:(?<![{_SPACE}/])="[^"]*+"[^>"'=]*+)*+>|[^{_SPACE}/>]*+{_BETWEEN}(?:{_ATTRIBUTE}{_BETWEEN})*+>)"""

# The tags that matter: images and the base; elements whose content is no markup, or is not part of the page; SVG, where other rules hold.
_NAMES = r"base|i(?:mg|mage|frame)|no(?:embed|frames)|plaintext|s(?:cript|tyle|vg)|t(?:emplate|extarea|itle)|xmp"
_ENDS = r"svg|template"
_FIGURES = r"|fig(?:caption|ure)"


@cache
def _scanner(figures: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Everything up to the next tag that matters, or to the end of the last tag that is whole; and that tag, its name in a group."""
    names, ends = (_NAMES + _FIGURES, _ENDS + _FIGURES) if figures else (_NAMES, _ENDS)
    noticed = rf"(?:(?i:{names})|/(?i:{ends}))(?=[{_SPACE}/>])|!\[CDATA\["
    # The others are told by the first letter where they can be, for this is where the time goes.
    letters = "".join(letter for letter in ascii_letters if letter.lower() not in "binpstx" + "f" * figures)
    other = (
        rf"[{letters}][a-zA-Z0-9]*+{_TO_END}"
        rf"|/(?!(?i:{ends})[{_SPACE}/>])[a-zA-Z][a-zA-Z0-9]*+{_TO_END}"
        rf"|(?!{noticed})[a-zA-Z][a-zA-Z0-9]*+{_TO_END}"
    )
    # Half of all tags that matter, up to their end tag; those with a comment in them have rules of their own.
    script = rf"(?i:script)(?=[{_SPACE}/>]){_TO_END}[^<]*+(?:<(?!/(?i:script)[{_SPACE}/>]|!--)[^<]*+)*+(?=</)"
    rest = rf"{_COMMENT}|(?!!\[CDATA\[){_BOGUS_COMMENT}|(?![a-zA-Z!?/])"
    return re.compile(rf"[^<]*+(?:<(?:{other}|{script}|{rest})[^<]*+)*+"), re.compile(rf"<({noticed})")


#: What follows the name of a tag; the last group holds what stands between the last attribute and the end.
_REST = re.compile(rf"({_BETWEEN})(?:{_ATTRIBUTE}({_BETWEEN}))*+>")
#: An attribute of a whole tag, its name and its value, however that is quoted.
_NAME_AND_VALUE = re.compile(
    rf"""([^{_SPACE}/>][^{_SPACE}/>=]*+)(?:[{_SPACE}]*+=[{_SPACE}]*+(?:"([^"]*+)"|'([^']*+)'|([^{_SPACE}>"'][^{_SPACE}>]*+))?+)?+"""
)

_MARKUP = re.compile(
    rf"<(?:/?+(?:((?i:address|br|div|dd|dt|h[1-6]|hr|li|p|t[dhr])(?=[{_SPACE}/>]))|[a-zA-Z]){_TO_END}|{_COMMENT}|{_BOGUS_COMMENT})"
)
_CODE = re.compile(rf"<(script|style)(?=[{_SPACE}/>]).*?(?:</\1(?=[{_SPACE}/>])[^>]*+>|\Z)", re.IGNORECASE | re.DOTALL)
#: No address of a picture: nothing, the picture itself, or settings for a script.
_NO_ADDRESS = re.compile(r"\s*+(?:\Z|data:|[\[{])", re.IGNORECASE)
_PIXEL = frozenset({"0", "1", "0px", "1px"})

# -- content that is no markup -----------------------------------------------------------------------------------------------------

_RAW = {
    name: re.compile(rf"</{name}(?=[{_SPACE}/>])", re.IGNORECASE)
    for name in ("iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp")
}
_IN_SCRIPT = re.compile(rf"<!--|-->|<(/?)script(?=[{_SPACE}/>])", re.IGNORECASE)

#: A longer value of an attribute is neither address nor text, and stays as it is.
MAX_VALUE = 1 << 20

# -- character references ----------------------------------------------------------------------------------------------------------

_REFERENCE = re.compile(r"&(?:#(?:[xX]([0-9a-fA-F]++)|([0-9]++));?|([a-zA-Z][a-zA-Z0-9]*+);?)")
# https://html.spec.whatwg.org/multipage/parsing.html#numeric-character-reference-end-state: C1 controls are meant as windows-1252.
_CONTROLS = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
_LARGEST = 0x10FFFF


def images_of_html(text: str, take: Extraction = PUBLISHED) -> tuple[str | None, list[Image]]:
    """``<base href>`` (the first) and the ``img`` elements of a page in the order of the text, character references decoded; ``""`` for an
    attribute without a value.

    Scripting is off: images in ``noscript`` count. Those in ``template``, in comments, and in elements whose content is text do not.
    """
    base: str | None = None
    images: list[Image] = []
    if not _IMAGE_TAG.search(text):
        return base, images
    wanted = _attributes_of(take)
    figures = _Figures(text, images, take.texts.index("figcaption")) if "figcaption" in take.texts else None
    unnoticed, noticed = _scanner(figures is not None)
    at = templates = foreign = 0
    while tag := noticed.match(text, unnoticed.match(text, at).end()):  # type: ignore[union-attr]  # the scan matches nothing, too
        name, at = tag[1].lower(), tag.end()
        if name == "![cdata[":
            at = text.find("]]>" if foreign else ">", at)
            if at < 0:
                break
            continue
        if not (rest := _REST.match(text, at)):
            # The page ends inside the tag.
            break
        closed = "/" in rest[rest.lastindex or 1]
        if name == "img" or (name == "image" and not foreign):
            # In SVG an image is another element; an img ends the SVG.
            foreign = 0
            if not templates:
                images.append(_image(_attributes(text, at, rest.end(), wanted), take))
        elif name == "base":
            if base is None and not templates:
                base = _attributes(text, at, rest.end(), ("href",)).get("href")
        elif name == "template":
            templates += 1
        elif name == "/template":
            templates = max(0, templates - 1)
        elif name == "svg":
            foreign += not closed
        elif name == "/svg":
            foreign = max(0, foreign - 1)
        elif name == "plaintext":
            break
        elif name in _RAW:
            if not (foreign and closed):
                end = _end_of_script(text, rest.end()) if name == "script" else _RAW[name].search(text, rest.end())
                if not end:
                    break
                at = end.start()
                continue
        elif figures and not templates:
            figures.see(name, tag.start(), rest.end())
        at = rest.end()
    if figures:
        figures.end()
    return base, images


@cache
def _attributes_of(take: Extraction) -> frozenset[str]:
    return frozenset({"src", "width", "height", *take.texts, *((*LAZY_ADDRESSES, *LAZY_SETS) if take.lazy else ())})


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

    def __init__(self, text: str, images: list[Image], place: int) -> None:
        self._text, self._images, self._place = text, images, place
        self._first = len(images)
        self._caption: str | None = None
        self._open = False
        self._caption_at = -1

    def see(self, name: str, start: int, end: int) -> None:
        """A tag of a figure that stands from ``start`` to ``end``."""
        if name == "figcaption":
            self._caption_at = end
        elif name == "/figcaption":
            if self._open and self._caption is None and self._caption_at >= 0:
                self._caption = _text_of(self._text[self._caption_at : start])
            self._caption_at = -1
        else:
            self.end()
            self._open = name == "figure"

    def end(self) -> None:
        """The figure that is open ends here."""
        if self._open and self._caption is not None:
            for i in range(self._first, len(self._images)):
                image = self._images[i]
                texts = (*image.texts[: self._place], self._caption, *image.texts[self._place + 1 :])
                self._images[i] = image._replace(texts=texts)
        self._first, self._caption, self._open = len(self._images), None, False


def _text_of(markup: str) -> str:
    """The words of some markup: tags that break a line are spaces, others and code nothing."""
    return " ".join(unescape(_MARKUP.sub(lambda tag: " " if tag[1] else "", _CODE.sub("", markup))).split())


def _attributes(text: str, start: int, end: int, wanted: Collection[str]) -> dict[str, str]:
    """The attributes of a tag that stand between two places and are wanted; the first of a name counts."""
    attributes: dict[str, str] = {}
    for name, *values in _NAME_AND_VALUE.findall(text, start, end):
        if (name := name.lower()) in wanted and name not in attributes:
            attributes[name] = _decoded("".join(values))
    return attributes


def _decoded(value: str) -> str:
    """An attribute's value, its character references decoded."""
    if len(value) > MAX_VALUE:
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


def _end_of_script(text: str, start: int) -> re.Match[str] | None:
    """The end tag of a script; one within ``<!-- <script> … -->`` is none."""
    end = _RAW["script"].search(text, start)
    if not end or text.find("<!--", start, end.start()) < 0:
        return end
    escaped = doubly = False
    at = start
    while found := _IN_SCRIPT.search(text, at):
        at = found.end()
        if found[0] == "<!--":
            # The dashes may be those of "-->" too.
            at -= 2
            escaped = True
        elif found[0] == "-->":
            escaped = doubly = False
        elif not found[1]:
            doubly = escaped
        elif doubly:
            doubly = False
        else:
            return found
    return None
