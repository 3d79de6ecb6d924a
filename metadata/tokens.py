"""Plain text to tokens: words, and what stands between words.

Languages written with spaces: text is split at white space, and every CJK-like character and every punctuation mark is a token of its own,
but for apostrophes and the like inside a word ("зв'язок", "l'homme", "c’hoari", "col·lecció", "צה״ל"): the rules by which entries meet
texts leave them where they are, so the halves would meet nothing. English is cut at them, as published ("don't" is three tokens).

Languages written without: the segments of ``metadata.segment``; white space and segments that begin with punctuation are no tokens. (A
segment with an unbalanced bracket is no token either, and needs no rule of its own: no segmenter leaves a bracket anywhere but at the
beginning.) Case is kept.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from metadata.segment import segment
from metadata.text import CJK_LIKE, PUNCTUATION

#: A longer token is no candidate: it breaks the chain like punctuation and is not counted. Bounds the size of a gram.
MAX_TOKEN_CHARACTERS = 256
#: Stands between lines.
BREAK_TOKEN = "\0"
_ZERO_WIDTH_SPACE = "\u200b"
#: Control characters and lone surrogates are no text and no Arrow string; they count as white space.
_NO_TEXT = re.compile("[\0-\x09\x0b-\x1f\x7f\ud800-\udfff]")
#: By code point: what is a token of its own.
_STANDS_ALONE = np.zeros(0x110000, bool)
_STANDS_ALONE[[ord(character) for character in CJK_LIKE | PUNCTUATION | {BREAK_TOKEN}]] = True
#: By code point: what words are made of. White space ends at U+3000.
_OF_WORDS = ~_STANDS_ALONE
_OF_WORDS[[code for code in range(0x3001) if chr(code).isspace()]] = False
_IS_HEBREW_LETTER = np.zeros(0x110000, bool)
_IS_HEBREW_LETTER[0x5D0:0x5EB] = True
#: Marks that between two characters of a word are part of it, of those that Unicode's word boundaries (UAX #29) leave within words: not
#: the dot and the colon, around which the matcher sets spaces. The quotation mark is one between Hebrew letters only.
_APOSTROPHES = tuple(map(ord, "'‘’·՚׳״"))

#: Kinds of tokens: a word; a punctuation mark, which is counted and parts words; what is not counted and parts them; what does neither.
WORD, MARK, BREAK, SKIP = range(4)


def tokens_of(text: str, *, spaced: bool, segmenter: str, cut_apostrophes: bool) -> list[str]:
    """The tokens of a text, and among them tokens that break the chain; the last one does."""
    if _NO_TEXT.search(text):
        text = _NO_TEXT.sub(" ", text)
    tokens = _isolate(text.replace("\n", BREAK_TOKEN), cut_apostrophes).split() if spaced else segment(text, segmenter)
    tokens.append(BREAK_TOKEN)
    if max(map(len, tokens)) > MAX_TOKEN_CHARACTERS:
        tokens = [token if len(token) <= MAX_TOKEN_CHARACTERS else BREAK_TOKEN for token in tokens]
    return tokens


def _isolate(text: str, cut_apostrophes: bool) -> str:
    """The text with spaces around every character that stands alone."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    places = np.flatnonzero(_STANDS_ALONE[codes])
    if not cut_apostrophes:
        places = places[~_is_inside_word(codes, places)]
    return np.insert(codes, np.concatenate([places, places + 1]), ord(" ")).tobytes().decode("utf-32-le")


def _is_inside_word(codes: npt.NDArray[np.uint32], places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether there is an apostrophe inside a word at each of the places. Nothing is inside a word at either end of the text."""
    marks, before, after = codes[places], codes[np.maximum(places - 1, 0)], codes[np.minimum(places + 1, len(codes) - 1)]
    in_word = np.isin(marks, _APOSTROPHES) & _OF_WORDS[before] & _OF_WORDS[after]
    in_hebrew = (marks == ord('"')) & _IS_HEBREW_LETTER[before] & _IS_HEBREW_LETTER[after]
    return in_word | in_hebrew


def kind_spaced(token: str) -> int:
    """Kind of a token of a language with spaces."""
    if token == BREAK_TOKEN:
        return BREAK
    return MARK if token in PUNCTUATION else WORD


def kind_unspaced(token: str) -> int:
    """Kind of a token of a language without."""
    # Khmer, Thai and others set a zero-width space between words that belong together.
    if not token.strip(_ZERO_WIDTH_SPACE):
        return SKIP
    if token == BREAK_TOKEN or token[0] in PUNCTUATION or token.split() != [token]:
        return BREAK
    return WORD
