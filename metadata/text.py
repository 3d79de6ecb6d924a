"""The one set of character tables and text rules: what the metadata builder and the matcher must agree on.

The tables are frozen code points, because Python's own Unicode data changes between versions and a table that moves would move
every result with it. A :class:`RuleSet` names one choice of tables and padding; its name is part of every fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

#: Grows whenever a table or a rule below changes in a way that can change a result.
TEXT_VERSION = 1

_HAN = "4E00-9FFF 3400-4DBF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B820-2CEAF 2CEB0-2EBEF F900-FAFF 2E80-2EFF 2F00-2FDF 2FF0-2FFF"
_THAI_LAO_TIBETAN_MYANMAR_KHMER = "E00-E7F E80-EFF F00-FFF 1000-109F 1780-17FF"
_KANA = "3005-3007 3040-30FF 31F0-31FF FF66-FF9F"
_ASCII_PUNCTUATION = "21-2F 3A-40 5B-60 7B-7E"
_PUBLISHED_WIDE_PUNCTUATION = (
    "FF0C 3002 3001 FF1B FF1A FF1F FF01 201C 201D 2018 2019 FF08 FF09 3010 3011 300A 300B 3008 3009 300C 300D 300E 300F FF5E 2014"
)

# General category P of Unicode 14, and the ASCII symbols and the full-width tilde that the published table counts as punctuation.
_UNICODE_PUNCTUATION = """
    21-23 25-2A 2C-2F 3A-3B 3F-40 5B-5D 5F 7B 7D A1 A7 AB B6-B7 BB BF 37E 387 55A-55F 589-58A 5BE 5C0 5C3 5C6 5F3-5F4 609-60A
    60C-60D 61B 61D-61F 66A-66D 6D4 700-70D 7F7-7F9 830-83E 85E 964-965 970 9FD A76 AF0 C77 C84 DF4 E4F E5A-E5B F04-F12 F14
    F3A-F3D F85 FD0-FD4 FD9-FDA 104A-104F 10FB 1360-1368 1400 166E 169B-169C 16EB-16ED 1735-1736 17D4-17D6 17D8-17DA 1800-180A
    1944-1945 1A1E-1A1F 1AA0-1AA6 1AA8-1AAD 1B5A-1B60 1B7D-1B7E 1BFC-1BFF 1C3B-1C3F 1C7E-1C7F 1CC0-1CC7 1CD3 2010-2027 2030-2043
    2045-2051 2053-205E 207D-207E 208D-208E 2308-230B 2329-232A 2768-2775 27C5-27C6 27E6-27EF 2983-2998 29D8-29DB 29FC-29FD
    2CF9-2CFC 2CFE-2CFF 2D70 2E00-2E2E 2E30-2E4F 2E52-2E5D 3001-3003 3008-3011 3014-301F 3030 303D 30A0 30FB A4FE-A4FF A60D-A60F
    A673 A67E A6F2-A6F7 A874-A877 A8CE-A8CF A8F8-A8FA A8FC A92E-A92F A95F A9C1-A9CD A9DE-A9DF AA5C-AA5F AADE-AADF AAF0-AAF1 ABEB
    FD3E-FD3F FE10-FE19 FE30-FE52 FE54-FE61 FE63 FE68 FE6A-FE6B FF01-FF03 FF05-FF0A FF0C-FF0F FF1A-FF1B FF1F-FF20 FF3B-FF3D FF3F
    FF5B FF5D FF5F-FF65 10100-10102 1039F 103D0 1056F 10857 1091F 1093F 10A50-10A58 10A7F 10AF0-10AF6 10B39-10B3F 10B99-10B9C
    10EAD 10F55-10F59 10F86-10F89 11047-1104D 110BB-110BC 110BE-110C1 11140-11143 11174-11175 111C5-111C8 111CD 111DB
    111DD-111DF 11238-1123D 112A9 1144B-1144F 1145A-1145B 1145D 114C6 115C1-115D7 11641-11643 11660-1166C 116B9 1173C-1173E
    1183B 11944-11946 119E2 11A3F-11A46 11A9A-11A9C 11A9E-11AA2 11C41-11C45 11C70-11C71 11EF7-11EF8 11FFF 12470-12474
    12FF1-12FF2 16A6E-16A6F 16AF5 16B37-16B3B 16B44 16E97-16E9A 16FE2 1BC9F 1DA87-1DA8B 1E95E-1E95F
    24 2B 3C-3E 5E 60 7C 7E FF5E
"""


def _code_points(*tables: str) -> frozenset[str]:
    """The characters of tables written as hexadecimal code points and ranges."""
    characters: set[str] = set()
    for item in " ".join(tables).split():
        first, _, last = item.partition("-")
        characters.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(characters)


#: Scripts written without spaces, as published (Han, Thai, Lao, Tibetan, Myanmar, Khmer): an entry's end in one of these is not padded.
CJK_LIKE_PUBLISHED = _code_points(_HAN, _THAI_LAO_TIBETAN_MYANMAR_KHMER)
#: The same with kana, without which katakana entries hardly ever match in Japanese text.
CJK_LIKE = CJK_LIKE_PUBLISHED | _code_points(_KANA)
#: Punctuation as published: ASCII and the usual full-width marks.
PUNCTUATION_PUBLISHED = _code_points(_ASCII_PUNCTUATION, _PUBLISHED_WIDE_PUNCTUATION)
#: Punctuation of every script: what the tokenizer splits at.
PUNCTUATION = _code_points(_UNICODE_PUNCTUATION)
#: The marks that the published matcher surrounds with spaces in a text.
SPACED_MARKS_PUBLISHED = frozenset(",.;:?!`")


def character_class(characters: Iterable[str]) -> str:
    """A regular-expression class ``[...]`` of the characters, as compact ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(re.escape(chr(a)) + ("" if a == b else "-" + re.escape(chr(b))) for a, b in ranges) + "]"


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """One rule of how entries meet texts.

    ``cjk_like`` and ``punctuation``: an entry is padded with a space at an end unless its character there is in one of them.
    ``spaced_marks``: surrounded with spaces in texts, and in entries too where ``space_entries`` says so.
    ``pad_always``: version 1 of the recipe, every entry is padded at both ends.
    """

    name: str
    cjk_like: frozenset[str]
    punctuation: frozenset[str]
    spaced_marks: frozenset[str]
    space_entries: bool = False
    pad_always: bool = False

    @cached_property
    def unpadded(self) -> frozenset[str]:
        """Characters at which an entry gets no space."""
        return frozenset() if self.pad_always else self.cjk_like | self.punctuation

    @cached_property
    def mark_pattern(self) -> re.Pattern[str]:
        return re.compile(character_class(self.spaced_marks))


def _with_version_1(rules: RuleSet) -> list[RuleSet]:
    fields = {k: v for k, v in vars(rules).items() if k in RuleSet.__dataclass_fields__}
    return [rules, RuleSet(**{**fields, "name": f"{rules.name}-v1", "pad_always": True})]


_RULE_SETS = {
    rules.name: rules
    for base in (
        RuleSet(name="published", cjk_like=CJK_LIKE_PUBLISHED, punctuation=PUNCTUATION_PUBLISHED, spaced_marks=SPACED_MARKS_PUBLISHED),
        RuleSet(name="default", cjk_like=CJK_LIKE, punctuation=PUNCTUATION_PUBLISHED, spaced_marks=SPACED_MARKS_PUBLISHED),
        RuleSet(name="unicode", cjk_like=CJK_LIKE, punctuation=PUNCTUATION, spaced_marks=PUNCTUATION, space_entries=True),
    )
    for rules in _with_version_1(base)
}
#: Names of the rule sets; ``-v1`` is the padding of the first recipe.
RULE_SETS: tuple[str, ...] = tuple(_RULE_SETS)


def rule_set(name: str) -> RuleSet:
    """The rule set of that name.

    Raises:
        ValueError: no such rule set; the message lists them.
    """
    if name not in _RULE_SETS:
        raise ValueError(f"unknown rule set {name!r}; known: {', '.join(RULE_SETS)}")
    return _RULE_SETS[name]


_WHITE = str.maketrans("\t\n\r", "   ")


def normalize_text(text: str) -> str:
    """The text that is stored, hashed and de-duplicated: tab, newline and carriage return become spaces, ends are stripped.

    Lone surrogates, which no encoding can store, become U+FFFD.
    """
    text = text.translate(_WHITE).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def space_texts(texts: Sequence[str], rules: RuleSet) -> list[str]:
    """Texts as the matcher reads them: one space of padding at both ends, spaces around every spaced mark.

    ``texts`` are normalized (they hold no newline), so that the whole batch is one string for C code and is cut apart afterwards.
    """
    if not texts:
        return []
    joined = "\n".join(texts)
    if len(rules.spaced_marks) <= 16:
        for mark in sorted(rules.spaced_marks):
            joined = joined.replace(mark, f" {mark} ")
    else:
        joined = rules.mark_pattern.sub(r" \g<0> ", joined)
    spaced = (" " + joined.replace("\n", " \n ") + " ").split("\n")
    if len(spaced) != len(texts):
        raise ValueError("texts must be normalized: one of them holds a newline")
    return spaced


def pattern_of_entry(entry: str, rules: RuleSet) -> str:
    """What is searched in a spaced text for an entry: padded with a space at each end that asks for one."""
    unpadded = rules.unpadded
    left = "" if entry[0] in unpadded else " "
    right = "" if entry[-1] in unpadded else " "
    if rules.space_entries:
        entry = rules.mark_pattern.sub(r" \g<0> ", entry)
        # The padding of a mark at an end is its own spaces.
        return (left or entry[: len(entry) - len(entry.lstrip())]) + entry.strip(" ") + (right or entry[len(entry.rstrip()) :])
    return left + entry + right


def can_match(entry: str, rules: RuleSet) -> bool:
    """Whether any text can hold the entry: without ``space_entries`` most entries with a spaced mark inside are never found.

    Taking one space away at each side of every mark gives the one text that can hold the pattern: every mark brings two spaces of its own,
    so a mark that touches a letter, or shares its space with another mark, matches nothing.
    """
    if rules.space_entries:
        return True
    pattern = pattern_of_entry(entry, rules)
    marks = character_class(rules.spaced_marks)
    text = re.sub(f" ?({marks}) ?", r"\1", pattern)
    return pattern in space_texts([normalize_text(f"x{text}x")], rules)[0]
