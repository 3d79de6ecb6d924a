"""HTML bytes → text, by the encoding that a browser would take."""

from __future__ import annotations

import codecs
import re

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


def codec_of_label(label: str) -> str | None:
    """Python's codec for an encoding label as browsers read it (iso-8859-1 is windows-1252 ...), or None for no known encoding."""
    label = label.strip().lower()
    try:
        name = codecs.lookup(_LABELS.get(label, label)).name
    except (LookupError, ValueError):
        return None
    name = _SUPERSETS.get(name, name)
    return name if name in _ENCODINGS or name.replace("_", "-") in _ENCODINGS else None


def utf8_of_html(page: bytes, content_type: str = "") -> bytes:
    """A page in UTF-8, by byte order mark, charset of the HTTP header ``content_type``, ``<meta>`` or XML declaration in the first 8 KiB;
    else UTF-8 if it is that, else windows-1252. Bytes that the encoding does not know become U+FFFD, but those of a page in UTF-8 stay, for
    whoever decodes them."""
    codec, body = _codec_of_html(page, content_type)
    return body if codec == "utf-8" else body.decode(codec, "replace").encode()


def _codec_of_html(page: bytes, content_type: str) -> tuple[str, bytes]:
    """Python's codec for a page, and the page without a byte order mark."""
    for mark, codec in _BYTE_ORDER_MARKS:
        if page.startswith(mark):
            return codec, page[len(mark) :]
    if (charset := _HTTP_CHARSET.search(content_type)) and (named := codec_of_label(charset[1])):
        return named, page
    beginning = _COMMENT.sub(b"", page[:_PRESCAN_BYTES])
    if (declared := _META_CHARSET.search(beginning) or _XML_ENCODING.match(beginning)) and (
        named := codec_of_label(declared[1].decode("latin-1"))
    ):
        # What could be read as ASCII is not UTF-16, whatever it says.
        return "utf-8" if named.startswith("utf-16") else named, page
    try:
        page.decode()
    except UnicodeDecodeError:
        return "cp1252", page
    return "utf-8", page
