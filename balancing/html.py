"""HTML bytes → the images of a page."""

from __future__ import annotations

import codecs
import re
from operator import methodcaller

from selectolax.lexbor import LexborHTMLParser

from balancing.wat import Image

#: Lexbor takes time quadratic in the depth of a page and in the attributes of one tag: 50,000 nested elements or attributes of one tag
#: take 12 s. Beyond these limits a page is not parsed; the largest of 1,000 real pages has 35,000 tags.
#: A tag takes up to 330 bytes of the tree, so the number of ``<`` is limited too.
MAX_TAGS = 100_000
MAX_MARKS = 500_000
MAX_UNCLOSED = 10_000
MAX_ATTRIBUTES = 2_000
#: Characters read in search of such a tag, those that are read again counted again: 4 s.
MAX_SCANNED = 1 << 29

_PRESCAN_BYTES = 8_192
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_META_CHARSET = re.compile(rb"<meta[\s/][^>]*?charset\s*=\s*[\"']?\s*([^\s\"'/>;]+)", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([^\"'>]+)")
_HTTP_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)

# Labels that https://encoding.spec.whatwg.org reads otherwise than Python does, by Python's name for the label.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "utf-16": "utf-16-le",
}
# Labels that Python does not know.
_LABELS = {
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "windows-949": "cp949",
    "ks_c_5601-1987": "cp949",
    "x-gbk": "gb18030",
    "big5-hkscs": "big5hkscs",
    "x-x-big5": "big5hkscs",
    "windows-874": "cp874",
    "dos-874": "cp874",
    "x-mac-roman": "mac_roman",
    "macintosh": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "iso-8859-8-i": "iso8859-8",
    "x-user-defined": "cp1252",
    "unicode-1-1-utf-8": "utf-8",
    "x-euc-jp": "euc_jp",
    "unicode": "utf-16-le",
}
# Encodings of the standard, in Python's names; what else Python can decode (utf-7, punycode, zip ...) no browser would.
_ENCODINGS = frozenset(
    {f"cp{n}" for n in (866, 874, 932, 949, *range(1250, 1259))}
    | {f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)}
    | {"utf-8", "utf-16-le", "utf-16-be", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic"}
)

_BASE_TAG = re.compile(r"<base[\s/]", re.IGNORECASE)
_IMAGE_TAG = re.compile(r"<ima?ge?[\s/>]", re.IGNORECASE)
_ATTRIBUTE = r"""[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>"'][^\s>]*+)?+)?+"""
_CROWDED_TAG = re.compile(r"<[a-z][^\s/>]*+(?:" + _ATTRIBUTE + r"){" + str(MAX_ATTRIBUTES) + "}", re.IGNORECASE)
# Any tag; its group is there if the tag is a crowded one.
_TAG = re.compile(r"<[a-z][^\s/>]*+(?:" + _ATTRIBUTE + "){0," + str(MAX_ATTRIBUTES - 1) + "}+(" + _ATTRIBUTE + ")?+", re.IGNORECASE)
_TAG_START = re.compile(r"<[a-z]", re.IGNORECASE)
# A tag is looked for wherever one may begin, comments and values too, so that a page of tags that do not end is read again and again.
# The search for one regular expression does so unnoticed; it is three times faster where no such thing can happen.
_SHORT_PAGE = 1 << 18
_UNENDED = 64
# Elements that hold nothing, or end where the next of their kind begins: not closed in many pages, and no depth.
_OPEN_TAG = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr|dd|dt|li|option|p|td|th|tr)[\s/>])[a-z]", re.IGNORECASE
)


class PageTooComplex(ValueError):
    """A page that would take the parser minutes."""


def codec_of_label(label: str) -> str | None:
    """Python's codec for an encoding label as browsers read it (iso-8859-1 is windows-1252 ...), or None for no known encoding."""
    label = label.strip().lower()
    try:
        name = codecs.lookup(_LABELS.get(label, label)).name
    except (LookupError, ValueError):
        return None
    name = _SUPERSETS.get(name, name)
    return name if name in _ENCODINGS or name.replace("_", "-") in _ENCODINGS else None


def decode_html(page: bytes, content_type: str = "") -> str:
    """The text of a page: by byte order mark, charset of the HTTP header ``content_type``, ``<meta>`` or XML declaration in the first
    8 KiB; else UTF-8 if it is that, else windows-1252. Bytes that the encoding does not know become U+FFFD."""
    for mark, codec in _BYTE_ORDER_MARKS:
        if page.startswith(mark):
            return page[len(mark) :].decode(codec, "replace")
    if (charset := _HTTP_CHARSET.search(content_type)) and (named := codec_of_label(charset[1])):
        return page.decode(named, "replace")
    beginning = _COMMENT.sub(b"", page[:_PRESCAN_BYTES])
    if (declared := _META_CHARSET.search(beginning) or _XML_ENCODING.match(beginning)) and (
        named := codec_of_label(declared[1].decode("latin-1"))
    ):
        # What could be read as ASCII is not UTF-16, whatever it says.
        return page.decode("utf-8" if named.startswith("utf-16") else named, "replace")
    try:
        return page.decode()
    except UnicodeDecodeError:
        return page.decode("cp1252", "replace")


def images_of_html(text: str) -> tuple[str | None, list[Image]]:
    """``<base href>`` (the first) and the ``img`` elements of a page in document order, entities decoded; ``""`` for an attribute
    without a value. Scripting is off: images in ``noscript`` count. Those in ``template`` do not.

    Memory: the parser's tree, some copies of ``text`` and up to 170 MB for ``MAX_MARKS`` tags.

    Raises:
        PageTooComplex: more than ``MAX_MARKS`` tags, ``MAX_TAGS`` of elements that nest, ``MAX_UNCLOSED`` of them
            unclosed, or ``MAX_ATTRIBUTES`` in one tag.
    """
    if not _IMAGE_TAG.search(text):
        return None, []
    marks = text.count("<")
    if marks > MAX_MARKS:
        raise PageTooComplex(f"{marks} tags")
    if marks > MAX_UNCLOSED:
        opened = len(_OPEN_TAG.findall(text))
        if opened > MAX_TAGS or opened - text.count("</") > MAX_UNCLOSED:
            raise PageTooComplex(f"{opened} tags, {opened - text.count('</')} unclosed")
    if _has_crowded_tag(text):
        raise PageTooComplex(f"a tag with more than {MAX_ATTRIBUTES} attributes, or many that do not end")
    base: str | None = None
    images: list[Image] = []
    tree = LexborHTMLParser(text)
    if _BASE_TAG.search(text) and (node := tree.css_first("base[href]")):
        base = node.attributes.get("href") or ""
    for node in tree.css("img"):
        attributes = {name: value or "" for name, value in node.attributes.items()}
        get = attributes.get
        images.append((get("src"), get("alt"), get("title"), get("data-image-title")))
    return base, images


def _has_crowded_tag(text: str) -> bool:
    """Whether a tag of the page has ``MAX_ATTRIBUTES``, or finding that out means reading more than ``MAX_SCANNED`` characters."""
    if len(text) <= _SHORT_PAGE and max(map(methodcaller("count", "<"), text.split(">"))) < _UNENDED:
        return _CROWDED_TAG.search(text) is not None
    left = MAX_SCANNED
    for start in _TAG_START.finditer(text):
        tag = _TAG.match(text, start.start())
        assert tag is not None
        left -= len(tag[0])
        if tag[1] is not None or left < 0:
            return True
    return False
