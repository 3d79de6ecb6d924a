"""HTML text → the images of a page, as the tokenizer of a browser sees them.

One pass over what the HTML standard calls tags (https://html.spec.whatwg.org/multipage/parsing.html#tokenization), without a tree: time and
memory are linear in the page, whatever it is made of. A tree takes time quadratic in its depth and in the attributes of a tag, and four
times as long on pages of every day. What a tree knows and this pass does not: ``img`` in ``select`` and ``frameset``, which some parsers
leave out, count here; images are in the order of the text also where a tree moves them, out of tables; and what is text in HTML (scripts,
titles …) is text within SVG as well.
"""

from __future__ import annotations

import re
from html.entities import html5

from balancing.wat import Image

_ATTRIBUTES = frozenset({"href", "src", "alt", "title", "data-image-title"})
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
_NOTICED_ENDS = r"/(?i:svg|template)"
_NOTICED = (
    rf"(?:{_NOTICED_ENDS}|(?i:base|i(?:mg|mage|frame)|no(?:embed|frames)|plaintext|s(?:cript|tyle|vg)|t(?:emplate|extarea|itle)|xmp))"
    rf"(?=[{_SPACE}/>])|!\[CDATA\["
)
# Not one of these: told by the first letter where it can be, for this is where the time goes.
_OTHER_TAG = (
    rf"[ac-hj-moqru-wyzAC-HJ-MOQRU-WYZ][a-zA-Z0-9]*+{_TO_END}"
    rf"|/(?!{_NOTICED_ENDS[1:]}[{_SPACE}/>])[a-zA-Z][a-zA-Z0-9]*+{_TO_END}"
    rf"|(?!{_NOTICED})[a-zA-Z][a-zA-Z0-9]*+{_TO_END}"
)
# Half of all tags that matter, up to their end tag; those with a comment in them have rules of their own.
_PLAIN_SCRIPT = rf"(?i:script)(?=[{_SPACE}/>]){_TO_END}[^<]*+(?:<(?!/(?i:script)[{_SPACE}/>]|!--)[^<]*+)*+(?=</)"
#: Everything up to the next tag that matters, or to the end of the last tag that is whole.
_UNNOTICED = re.compile(rf"[^<]*+(?:<(?:{_OTHER_TAG}|{_PLAIN_SCRIPT}|{_COMMENT}|(?!!\[CDATA\[){_BOGUS_COMMENT}|(?![a-zA-Z!?/]))[^<]*+)*+")
_TAG = re.compile(rf"<({_NOTICED})")
#: What follows the name of a tag; the last group holds what stands between the last attribute and the end.
_REST = re.compile(rf"({_BETWEEN})(?:{_ATTRIBUTE}({_BETWEEN}))*+>")
#: An attribute of a whole tag, its name and its value, however that is quoted.
_NAME_AND_VALUE = re.compile(
    rf"""([^{_SPACE}/>][^{_SPACE}/>=]*+)(?:[{_SPACE}]*+=[{_SPACE}]*+(?:"([^"]*+)"|'([^']*+)'|([^{_SPACE}>"'][^{_SPACE}>]*+))?+)?+"""
)

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


def images_of_html(text: str) -> tuple[str | None, list[Image]]:
    """``<base href>`` (the first) and the ``img`` elements of a page in the order of the text, character references decoded; ``""`` for an
    attribute without a value.

    Scripting is off: images in ``noscript`` count. Those in ``template``, in comments, and in elements whose content is text do not.
    """
    base: str | None = None
    images: list[Image] = []
    if not _IMAGE_TAG.search(text):
        return base, images
    at = templates = foreign = 0
    while True:
        at = _UNNOTICED.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if not (tag := _TAG.match(text, at)):
            return base, images
        name, at = tag[1].lower(), tag.end()
        if name == "![cdata[":
            at = text.find("]]>" if foreign else ">", at)
            if at < 0:
                return base, images
            continue
        if not (rest := _REST.match(text, at)):
            # The page ends inside the tag.
            return base, images
        closed = "/" in rest[rest.lastindex or 1]
        if name == "img" or (name == "image" and not foreign):
            # In SVG an image is another element; an img ends the SVG.
            foreign = 0
            if not templates:
                get = _attributes(text, at, rest.end()).get
                images.append((get("src"), get("alt"), get("title"), get("data-image-title")))
        elif name == "base":
            if base is None and not templates:
                base = _attributes(text, at, rest.end()).get("href")
        elif name == "template":
            templates += 1
        elif name == "/template":
            templates = max(0, templates - 1)
        elif name == "svg":
            foreign += not closed
        elif name == "/svg":
            foreign = max(0, foreign - 1)
        elif name == "plaintext":
            return base, images
        elif name in _RAW and not (foreign and closed):
            end = _end_of_script(text, rest.end()) if name == "script" else _RAW[name].search(text, rest.end())
            if not end:
                return base, images
            at = end.start()
            continue
        at = rest.end()


def _attributes(text: str, start: int, end: int) -> dict[str, str]:
    """The attributes of a tag that stand between two places and matter; the first of a name counts."""
    attributes: dict[str, str] = {}
    for name, *values in _NAME_AND_VALUE.findall(text, start, end):
        if (name := name.lower()) in _ATTRIBUTES and name not in attributes:
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
