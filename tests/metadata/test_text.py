"""Character tables, spacing, padding and normalization, against the recipe's rules written out once more by hand."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancing.automaton import Matcher, PyahocorasickMatcher, build_automaton, open_automaton
from metadata import text as tables
from metadata.text import RULE_SETS, can_match, character_class, normalize_text, pattern_of_entry, rule_set, space_texts

ALL_RULES = pytest.mark.parametrize("rules_name", RULE_SETS)
PUBLISHED_MARKS = ",.;:?!`"
PUBLISHED_WIDE = "，。、；：？！“”‘’（）【】《》〈〉「」『』～—"  # as the recipe prints them
# Letters, marks, spaces and the unlike: tight, so that marks meet marks and entries are found.
ALPHABET = "ab .,!?`:;-'«»।،·東。「カ・ก་\u3000é😀"
WORDS = st.text(alphabet=ALPHABET, min_size=1, max_size=7)
TEXTS = WORDS.map(normalize_text)
ENTRIES = WORDS.map(str.strip).filter(bool)


@pytest.mark.parametrize(
    ("name", "size", "digest"),
    [
        ("CJK_LIKE_PUBLISHED", 89_632, "31a053d8f8e750c2"),
        ("CJK_LIKE", 89_901, "3ce47e27589338db"),
        ("PUNCTUATION_PUBLISHED", 57, "1f92afb0d3ee12ef"),
        ("PUNCTUATION", 829, "5edef50fa8f25b14"),
        ("SPACED_MARKS_PUBLISHED", 7, "3fe35d854d6150b5"),
    ],
)
def test_tables_are_frozen(name: str, size: int, digest: str) -> None:
    """A table that moves moves every result: then TEXT_VERSION must grow and these figures with it."""
    table = getattr(tables, name)
    assert len(table) == size
    assert hashlib.sha256("".join(sorted(table)).encode()).hexdigest()[:16] == digest
    assert tables.TEXT_VERSION == 1


def test_tables_are_those_of_the_recipe() -> None:
    assert set(PUBLISHED_WIDE) | {c for c in map(chr, range(33, 127)) if not c.isalnum()} == tables.PUNCTUATION_PUBLISHED
    assert set(PUBLISHED_MARKS) == tables.SPACED_MARKS_PUBLISHED
    blocks = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF)]
    blocks += [(0x2CEB0, 0x2EBEF), (0xF900, 0xFAFF), (0x2E80, 0x2EFF), (0x2F00, 0x2FDF), (0x2FF0, 0x2FFF)]
    blocks += [(0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF)]
    published = {chr(c) for first, last in blocks for c in range(first, last + 1)}
    assert published == tables.CJK_LIKE_PUBLISHED
    kana = [(0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)]
    assert published | {chr(c) for first, last in kana for c in range(first, last + 1)} == tables.CJK_LIKE


def test_punctuation_covers_every_script() -> None:
    assert tables.PUNCTUATION_PUBLISHED < tables.PUNCTUATION
    assert set("¿¡«»،؛؟।॥။៕་༌·・…–—„‚‹›՞־׃።፣᠂꓿𒑰") <= tables.PUNCTUATION
    # Categories of assigned characters have been stable for years, so any Python's table may be asked about them.
    wrong = [c for c in tables.PUNCTUATION if unicodedata.category(c)[0] not in "PS"]
    assert wrong == []
    assert {c for c in tables.PUNCTUATION if unicodedata.category(c)[0] == "S"} == set("$+<=>^`|~～")


@given(st.sets(st.characters(exclude_categories=["Cs"]) | st.sampled_from(r"]^-\[&|~ a"), min_size=1, max_size=12))
def test_character_class_holds_these_and_no_other(characters: set[str]) -> None:
    pattern = re.compile(character_class(characters))
    near = {chr(ord(c) + d) for c in characters for d in (-1, 0, 1) if 0 <= ord(c) + d < 0x110000} | set(ALPHABET)
    assert {c for c in near if pattern.fullmatch(c)} == near & characters


def test_rule_sets() -> None:
    assert RULE_SETS == ("published", "published-v1", "default", "default-v1", "unicode", "unicode-v1")
    assert [rule_set(name).name for name in RULE_SETS] == list(RULE_SETS)
    assert [name for name in RULE_SETS if rule_set(name).pad_always] == ["published-v1", "default-v1", "unicode-v1"]
    assert [name for name in RULE_SETS if rule_set(name).space_entries] == ["unicode", "unicode-v1"]
    with pytest.raises(ValueError, match=r"unknown rule set 'v1'; known: published, published-v1, default"):
        rule_set("v1")


@ALL_RULES
def test_each_rule_set_has_the_tables_of_its_name(rules_name: str) -> None:
    rules = rule_set(rules_name)
    base, version_1 = rules_name.removesuffix("-v1"), rules_name.endswith("-v1")
    assert rules.cjk_like == (tables.CJK_LIKE_PUBLISHED if base == "published" else tables.CJK_LIKE)
    assert rules.punctuation == (tables.PUNCTUATION if base == "unicode" else tables.PUNCTUATION_PUBLISHED)
    assert rules.spaced_marks == (tables.PUNCTUATION if base == "unicode" else tables.SPACED_MARKS_PUBLISHED)
    assert rules.unpadded == (frozenset() if version_1 else rules.cjk_like | rules.punctuation)


@pytest.mark.parametrize(
    ("rules_name", "expected"),
    [
        # Of the published table only Han is unpadded: an entry in kana stands between spaces or is not found.
        ("published", ["京都", "駅"]),
        ("default", ["コーヒー", "京都", "駅", "カフェ", "ｶﾌｪ", "のカ", "フェ", "時々", "々", "アイヌㇷ゚"]),
        ("unicode", ["コーヒー", "京都", "駅", "カフェ", "ｶﾌｪ", "のカ", "フェ", "時々", "々", "アイヌㇷ゚"]),
        ("published-v1", []),
        ("default-v1", []),
        ("unicode-v1", []),
    ],
)
@pytest.mark.parametrize("engine", ["daachorse", "pyahocorasick"])
def test_kana_entries_are_found_inside_japanese_text(rules_name: str, expected: list[str], engine: str) -> None:
    """From the entry to its pattern, from the text to its spaces, and through the matchers."""
    entries = ["コーヒー", "京都", "駅", "カフェ", "ｶﾌｪ", "のカ", "フェ", "時々", "々", "アイヌㇷ゚", "ティー", "カフェラテ"]
    text = normalize_text("京都駅前のカフェで時々コーヒーとｶﾌｪｵﾚを飲むアイヌㇷ゚です")
    rules = rule_set(rules_name)
    matcher: Matcher = PyahocorasickMatcher(entries, rules)
    if engine == "daachorse":
        matcher = open_automaton(io.BytesIO(build_automaton(entries, rules, entries_checksum="x")), entries_checksum="x")
    ids, offsets = matcher.find(space_texts([text, "カフェ ティー"], rules))
    assert [entries[i] for i in ids[: offsets[1]]] == expected
    # Between spaces every rule finds kana.
    assert [entries[i] for i in ids[offsets[1] :]] == (["カフェ", "フェ", "ティー"] if expected[2:] else ["カフェ", "ティー"])


@pytest.mark.parametrize(
    ("rules_name", "entry", "pattern"),
    [
        ("published", "cat", " cat "),
        ("published", "東京", "東京"),
        ("published", "東京 tower", "東京 tower "),
        ("published", "T恤", " T恤"),
        ("published", "カ", " カ "),
        ("default", "カ", "カ"),
        ("published", "(a)", "(a)"),
        ("published", "『a』", "『a』"),
        ("published", "«a»", " «a» "),
        ("published", "U.S.", " U.S."),
        ("published", "ไทย", "ไทย"),
        ("published-v1", "東京", " 東京 "),
        ("published-v1", "(a)", " (a) "),
        ("default-v1", "カ", " カ "),
        ("unicode", "cat", " cat "),
        ("unicode", "カ", "カ"),
        ("unicode", "St. Louis", " St .  Louis "),
        ("unicode", "U.S.", " U . S . "),
        ("unicode", "«a»", " « a » "),
        ("unicode", "東京。", "東京 。 "),
        ("unicode-v1", "東京", " 東京 "),
        ("unicode-v1", "(a)", " ( a ) "),
    ],
)
def test_padding(rules_name: str, entry: str, pattern: str) -> None:
    assert pattern_of_entry(entry, rule_set(rules_name)) == pattern


@pytest.mark.parametrize("rules_name", ["published", "published-v1", "default", "default-v1"])
def test_published_spacing(rules_name: str) -> None:
    texts = ["a cat", "St. Louis", "a,b", "?!", "l'été «x»", "", "日本,東京。", "x`y"]
    spaced = [" a cat ", " St .  Louis ", " a , b ", "  ?  !  ", " l'été «x» ", "  ", " 日本 , 東京。 ", " x ` y "]
    assert space_texts(texts, rule_set(rules_name)) == spaced


@pytest.mark.parametrize("rules_name", ["unicode", "unicode-v1"])
def test_unicode_spacing(rules_name: str) -> None:
    texts = ["a cat", "St. Louis", "l'été «x»", "", "東京。", "नमस्ते।"]
    assert space_texts(texts, rule_set(rules_name)) == [" a cat ", " St .  Louis ", " l ' été  « x »  ", "  ", " 東京 。  ", " नमस्ते ।  "]


@ALL_RULES
@given(texts=st.lists(TEXTS, max_size=5))
def test_spacing_is_the_rule_character_by_character(rules_name: str, texts: list[str]) -> None:
    marks = set(PUBLISHED_MARKS) if not rules_name.startswith("unicode") else tables.PUNCTUATION
    assert space_texts(texts, rule_set(rules_name)) == [" " + "".join(f" {c} " if c in marks else c for c in text) + " " for text in texts]


def test_spacing_refuses_a_newline() -> None:
    with pytest.raises(ValueError, match="normalized"):
        space_texts(["a\nb", "c"], rule_set("default"))


@ALL_RULES
@settings(max_examples=200)
@given(entry=ENTRIES)
def test_an_entry_without_marks_matches_itself(rules_name: str, entry: str) -> None:
    rules = rule_set(rules_name)
    if rules.space_entries or not set(entry) & set(PUBLISHED_MARKS):
        assert can_match(entry, rules)
        found = [pattern_of_entry(entry, rules) in spaced for spaced in space_texts([entry, f"b {entry} b"], rules)]
        assert found == [True, True]


@pytest.mark.parametrize("rules_name", ["published", "default", "published-v1", "default-v1"])
@pytest.mark.parametrize(
    ("entry", "possible"),
    [
        ("cat", True),
        ("St. Louis", False),
        ("Washington, D.C.", False),
        ("a . b", True),
        (".", True),
        ("?!", False),
        ("? !", False),
        ("?  !", True),
        (". a", True),
        ("a .", True),
        ("a.", False),
        ("x's", True),
        ("a\tb", False),
    ],
)
def test_what_can_match(rules_name: str, entry: str, possible: bool) -> None:
    assert can_match(entry, rule_set(rules_name)) is possible


@ALL_RULES
@settings(max_examples=300)
@given(entry=ENTRIES, texts=st.lists(TEXTS, min_size=1, max_size=4))
@example(entry=". .", texts=[".  .", ". .", "..", ".   ."])
@example(entry=": - -", texts=[":"])
@example(entry="a ,b", texts=["a ,b", "a,b", "a , b", "a  ,b"])
def test_what_cannot_match_is_in_no_text(rules_name: str, entry: str, texts: list[str]) -> None:
    rules = rule_set(rules_name)
    pattern = pattern_of_entry(entry, rules)
    marks = rules.mark_pattern.pattern
    cuts = (" ", " (?=.)", "(?<=.) ", r" ?(?=\W)|(?<=\W) ", f" ?(?={marks})|(?<={marks}) ")
    fewer_spaces = [re.sub(cut, "", entry) for cut in cuts]
    around = [f"{left}{text}{right}" for text in [entry, *fewer_spaces] for left in ("", "b", "東") for right in ("", "b", "東")]
    spaced = space_texts([normalize_text(text) for text in texts + around], rules)
    if not can_match(entry, rules):
        assert not [text for text in spaced if pattern in text]
    else:
        # The text that takes back the two spaces of every mark holds what can be held at all.
        assert any(pattern in text for text in spaced)


@pytest.mark.parametrize("rules_name", ["published", "published-v1"])
def test_can_match_is_exact_for_all_short_entries(rules_name: str) -> None:
    """All entries of up to 5 and all texts of up to 5 characters out of a letter, a mark and a space."""
    rules = rule_set(rules_name)
    words = [""]
    for _ in range(5):
        words += sorted({word + c for word in words for c in "a. "} - set(words))
    everything = "\0".join(space_texts(sorted({word.strip() for word in words}), rules))
    entries = sorted({word.strip() for word in words} - {""})
    held = {entry for entry in entries if pattern_of_entry(entry, rules) in everything}
    assert {entry for entry in entries if can_match(entry, rules)} == held
    assert len(held) < len(entries)


@given(st.text(alphabet=st.characters() | st.sampled_from("\t\n\r \u3000\ud800\udc00\ufeff"), max_size=12))
def test_normalization(text: str) -> None:
    normal = normalize_text(text)
    white = "".join(" " if c in "\t\n\r" else c for c in text).strip()
    paired = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), white)
    assert normal == re.sub("[\ud800-\udfff]", "\ufffd", paired)
    assert normalize_text(normal) == normal
    assert normal.encode().decode() == normal


def test_normalization_keeps_inner_white_space() -> None:
    assert normalize_text("\u3000 a \t\r\n b\u00a0\x1f") == "a     b"
    assert normalize_text("\n\t ") == ""
