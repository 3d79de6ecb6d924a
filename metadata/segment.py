"""Word segmentation of the languages that are written without spaces."""

from __future__ import annotations

import re
from importlib.metadata import version
from itertools import accumulate, pairwise

import icu4py
from icu4py.breakers import WordBreaker

from metadata.text import PUNCTUATION, character_class

#: Names the rules below and the library whose dictionaries move word breaks: part of every fingerprint of segmented text.
SEGMENT_VERSION = f"1/icu4py-{version('icu4py')}/icu-{icu4py.icu_version}"

_ICU_LOCALES = {"icu:ja": "ja", "icu:zh": "zh", "icu:th": "th", "icu:km": "km", "icu:lo": "lo", "icu:my": "my"}
#: Names of the segmenters.
SEGMENTERS: tuple[str, ...] = (*_ICU_LOCALES, "tibetan")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_TSHEG = "\u0f0b\u0f0c"
_MARK = character_class(PUNCTUATION - set(_TSHEG))
_NEITHER_MARK_NOR_SPACE = rf"[^\s{_MARK[1:-1]}{_TSHEG}]"
_TIBETAN = re.compile(rf"\s+|{_MARK}|{_NEITHER_MARK_NOR_SPACE}*[{_TSHEG}]+|{_NEITHER_MARK_NOR_SPACE}+")


def segment(text: str, segmenter: str) -> list[str]:
    """Cut a text into words, punctuation and white space; the segments joined are the text.

    ``icu:<locale>``: the dictionaries of ICU. A line break always is a segment boundary, so lines that are segmented together give
    the segments that each gives alone.
    ``tibetan``: syllables. A syllable keeps the tsheg that ends it, since words joined out of syllables must read as they stand in
    a text; runs of white space and single marks are segments of their own.

    Time and memory are linear in the text (about 100 bytes a segment): cut long texts at line breaks.

    Raises:
        ValueError: no such segmenter; the message lists them.
    """
    if segmenter in _ICU_LOCALES:
        return _icu_segments(text, _ICU_LOCALES[segmenter])
    if segmenter == "tibetan":
        return _TIBETAN.findall(text)
    raise ValueError(f"unknown segmenter {segmenter!r}; known: {', '.join(SEGMENTERS)}")


def _icu_segments(text: str, locale: str) -> list[str]:
    # Iteration yields strings; the breaker's positions would be UTF-16 units, wrong after the first character beyond U+FFFF.
    try:
        return list(WordBreaker(text, locale))
    except UnicodeEncodeError:
        stand_in = WordBreaker(_LONE_SURROGATE.sub("\ufffd", text), locale)
        return [text[a:b] for a, b in pairwise(accumulate(map(len, stand_in), initial=0))]
