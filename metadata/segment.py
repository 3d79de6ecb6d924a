"""Word segmentation of the languages that are written without spaces."""

from __future__ import annotations

import re
from importlib.metadata import version
from itertools import accumulate, groupby, pairwise

import icu4py
from icu4py.breakers import WordBreaker

from metadata.text import PUNCTUATION, character_class

#: Names the rules below and the library whose dictionaries move word breaks: part of every fingerprint of segmented text.
SEGMENT_VERSION = f"3/icu4py-{version('icu4py')}/icu-{icu4py.icu_version}"

_ICU_LOCALES = {"icu:ja": "ja", "icu:zh": "zh", "icu:th": "th", "icu:km": "km", "icu:lo": "lo", "icu:my": "my"}
#: Names of the segmenters.
SEGMENTERS: tuple[str, ...] = (*_ICU_LOCALES, "tibetan", "myanmar")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_TSHEG = "\u0f0b\u0f0c"
_MARK = character_class(PUNCTUATION - set(_TSHEG))
_NEITHER_MARK_NOR_SPACE = rf"[^\s{_MARK[1:-1]}{_TSHEG}]"
_TIBETAN = re.compile(rf"\s+|{_MARK}|{_NEITHER_MARK_NOR_SPACE}*[{_TSHEG}]+|{_NEITHER_MARK_NOR_SPACE}+")

# The Myanmar script with its extensions for Shan, Mon, Karen, Pa'O and others: what stands in a syllable, and what can begin one. A
# consonant that is killed (asat) or stacked (virama) ends the syllable before it, but for one that is stacked after a closed syllable.
# The dot below comes before the asat in the order that Unicode normalizes to.
_MYANMAR_LETTER = "\u1000-\u103f\u1050-\u108f\u109a-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"
_BASE = (
    "[\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e"
    "\ua9e0-\ua9e4\ua9e7-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa6f\uaa71-\uaa76\uaa7a\uaa7e\uaa7f]"
)
_ONSET = rf"(?<!\u1039){_BASE}(?!\u1037?\u103a)(?:(?!\u1039)|(?<=[\u1036-\u1038\u103a]{_BASE}))"
_ANY_MARK = character_class(PUNCTUATION)
_MYANMAR = re.compile(rf"\s+|{_ANY_MARK}|[{_MYANMAR_LETTER}](?:(?!{_ONSET})[{_MYANMAR_LETTER}])*|[^\s{_ANY_MARK[1:-1]}{_MYANMAR_LETTER}]+")

# Vowels, tones and signs that belong to the letter before them; vowels and conjoiners that belong to the letter after them.
_AFTER_A_LETTER = "[\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0eb0-\u0ebd\u0ec8-\u0ece\u17b6-\u17d3]"
_BEFORE_A_LETTER = "[\u0e40-\u0e44\u0ec0-\u0ec4\u1039\u17d2]"
# Small kana, the mark of length and the final n of katakana belong to what is before them, be it kana or a stem in Han: "行|っ|た",
# "ウ|ィ|ー|ン". Not the small ka and ke, which count things ("3|ヶ月"), nor the n of hiragana, which is short for a word ("する|んだ").
_AFTER_KANA = (
    "[\u3041\u3043\u3045\u3047\u3049\u3063\u3083\u3085\u3087\u308e\u30a1\u30a3\u30a5\u30a7\u30a9\u30c3\u30e3\u30e5\u30e7\u30ee\u30f3\u30fc"
    "\u31f0-\u31ff\uff67-\uff70\uff9d]"
)
_JAPANESE = "[\u3005\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uff66-\uff9f]"
_IN_A_WORD = f"[\u0e01-\u0e3a\u0e40-\u0e45\u0e47-\u0e4e\u0e81-\u0ec4\u0ec8-\u0ece\u1780-\u17d3{_MYANMAR_LETTER}]"
_INSIDE_SYLLABLE = re.compile(
    rf"(?<={_IN_A_WORD})(?:{_AFTER_A_LETTER}|(?!{_ONSET})[{_MYANMAR_LETTER}]|(?<={_BEFORE_A_LETTER}){_IN_A_WORD})"
    rf"|(?<={_JAPANESE}){_AFTER_KANA}"
)
_MAY_BE_TORN = re.compile(
    rf"{_AFTER_A_LETTER}|{_AFTER_KANA}|(?!{_BASE}(?!\u1037?[\u1039\u103a]))[{_MYANMAR_LETTER}]|.*{_BEFORE_A_LETTER}\Z", re.DOTALL
)


def segment(text: str, segmenter: str) -> list[str]:
    """Cut a text into words, punctuation and white space; the segments joined are the text.

    ``icu:<locale>``: the dictionaries of ICU. A line break always is a segment boundary, so lines that are segmented together give
    the segments that each gives alone. A word that a dictionary lacks may be cut anywhere; cuts inside a Thai, Lao, Khmer, Burmese or
    Japanese syllable, which no word ends at, are taken back.
    ``tibetan``: syllables. A syllable keeps the tsheg that ends it, since words joined out of syllables must read as they stand in
    a text; runs of white space and single marks are segments of their own.
    ``myanmar``: syllables too, for the languages in the Myanmar script of which ICU has no dictionary.

    Time and memory are linear in the text (about 100 bytes a segment): cut long texts at line breaks.

    Raises:
        ValueError: no such segmenter; the message lists them.
    """
    if segmenter in _ICU_LOCALES:
        return _mended(_icu_segments(text, _ICU_LOCALES[segmenter]))
    if segmenter == "tibetan":
        return _TIBETAN.findall(text)
    if segmenter == "myanmar":
        return _MYANMAR.findall(text)
    raise ValueError(f"unknown segmenter {segmenter!r}; known: {', '.join(SEGMENTERS)}")


def _icu_segments(text: str, locale: str) -> list[str]:
    # Iteration yields strings; the breaker's positions would be UTF-16 units, wrong after the first character beyond U+FFFF.
    try:
        return list(WordBreaker(text, locale))
    except UnicodeEncodeError:
        stand_in = WordBreaker(_LONE_SURROGATE.sub("\ufffd", text), locale)
        return [text[a:b] for a, b in pairwise(accumulate(map(len, stand_in), initial=0))]


def _mended(segments: list[str]) -> list[str]:
    """The segments, those that are parts of one syllable joined."""
    torn = {word for word in set(segments) if _MAY_BE_TORN.match(word)}
    cuts = sorted({cut for place, word in enumerate(segments) if word in torn for cut in (place, place + 1)})
    inside = [cut for cut in cuts if 0 < cut < len(segments) and _INSIDE_SYLLABLE.match(segments[cut - 1][-1] + segments[cut], 1)]
    mended: list[str] = []
    done = 0
    # Cuts one after the other have the same distance to their numbers: one syllable in several pieces.
    for _, run in groupby(enumerate(inside), key=lambda numbered: numbered[1] - numbered[0]):
        cuts = [cut for _, cut in run]
        first, end = cuts[0] - 1, cuts[-1] + 1
        mended += [*segments[done:first], "".join(segments[first:end])]
        done = end
    return mended + segments[done:]
