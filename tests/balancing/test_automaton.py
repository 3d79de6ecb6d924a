"""Both engines against a naive scan, and the file against every kind of damage."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancing import automaton
from balancing.automaton import AutomatonError, Matcher, PyahocorasickMatcher, build_automaton, open_automaton, patterns, read_header
from metadata.text import CJK_LIKE, CJK_LIKE_PUBLISHED, PUNCTUATION, PUNCTUATION_PUBLISHED, RULE_SETS, normalize_text, rule_set, space_texts

CHECKSUM = "entries-1"


def _daachorse(entries: list[str], rules_name: str) -> Matcher:
    data = build_automaton(entries, rule_set(rules_name), entries_checksum=CHECKSUM)
    return open_automaton(data, entries_checksum=CHECKSUM)


def _pyahocorasick(entries: list[str], rules_name: str) -> Matcher:
    return PyahocorasickMatcher(entries, rule_set(rules_name))


Build = Callable[[list[str], str], Matcher]
ENGINES = pytest.mark.parametrize("build", [_daachorse, _pyahocorasick])
ALL_RULES = pytest.mark.parametrize("rules_name", RULE_SETS)


@cache
def _tables(rules_name: str) -> tuple[frozenset[str], frozenset[str]]:
    """The spaced marks, and the characters at which an entry is not padded."""
    base, _, version = rules_name.partition("-")
    marks = PUNCTUATION if base == "unicode" else frozenset(",.;:?!`")
    cjk = CJK_LIKE_PUBLISHED if base == "published" else CJK_LIKE
    # Under ``unicode`` a mark at an entry's end brings a space of its own, which stands for the padding.
    glue = cjk - marks if base == "unicode" else cjk | PUNCTUATION_PUBLISHED
    return marks, frozenset() if version == "v1" else glue


def naive_matches(entry: str, text: str, rules_name: str) -> bool:
    """Section 3 of the recipe, one entry against one text, with nothing of the program but its character tables."""
    marks, glue = _tables(rules_name)

    def spaced(s: str) -> str:
        return "".join(f" {c} " if c in marks else c for c in s)

    middle = spaced(entry).strip(" ") if rules_name.startswith("unicode") else entry
    left, right = ("" if end in glue else " " for end in (entry[0], entry[-1]))
    return f"{left}{middle}{right}" in f" {spaced(text)} "


# Few characters of every script, so that entries occur, nest and overlap.
CHARACTERS = "aab  .,'!«।·東京カタ・ไทยཡ་ខម가éя😀𠮷"
WORDS = st.text(alphabet=CHARACTERS, min_size=1, max_size=5).map(str.strip).filter(bool)
ENTRIES = st.lists(WORDS, max_size=12, unique=True)
TEXTS = st.lists(st.text(alphabet=CHARACTERS, max_size=25) | st.lists(WORDS, max_size=6).map(" ".join), max_size=5)


@ENGINES
@ALL_RULES
@settings(max_examples=50, deadline=None)
@given(entries=ENTRIES, texts=TEXTS)
@example(entries=["a", "aa", "a a", "東", "東京", "カ"], texts=["a a aa", "東京カタ", "", "a.a"])
def test_engines_match_like_a_naive_scan(build: Build, rules_name: str, entries: list[str], texts: list[str]) -> None:
    texts = [normalize_text(text) for text in texts]
    matcher = build(entries, rules_name)
    ids, offsets = matcher.find(space_texts(texts, matcher.rules))
    assert matcher.rules.name == rules_name
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int32)
    assert (offsets[0], offsets[-1], len(offsets)) == (0, len(ids), len(texts) + 1)
    found = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    assert found == [[i for i, entry in enumerate(entries) if naive_matches(entry, text, rules_name)] for text in texts]


@ENGINES
def test_overlapping_and_nested_entries_are_each_found_once(build: Build) -> None:
    entries = ["new york", "new york city", "york", "york city hall", "city", "a", "A"]
    matcher = build(entries, "default")
    ids, offsets = matcher.find(space_texts(["new york city hall in new york city", "york", "a A newyork", "yorks"], matcher.rules))
    assert ids.tolist() == [0, 1, 2, 3, 4, 2, 5, 6]
    assert offsets.tolist() == [0, 5, 6, 8, 8]


@ENGINES
@ALL_RULES
def test_empty_list(build: Build, rules_name: str) -> None:
    matcher = build([], rules_name)
    ids, offsets = matcher.find([" a ", " b "])
    assert ids.tolist() == []
    assert offsets.tolist() == [0, 0, 0]
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int32)
    assert matcher.find([])[1].tolist() == [0]


@ENGINES
def test_no_texts(build: Build) -> None:
    ids, offsets = build(["a"], "default").find([])
    assert (ids.tolist(), offsets.tolist()) == ([], [0])


@ENGINES
def test_a_long_text_and_many_entries(build: Build) -> None:
    entries = [f"w{i}" for i in range(3000)]
    matcher = build(entries, "default")
    ids, offsets = matcher.find(space_texts([" ".join(reversed(entries)) * 2, "w1 w2999 w3000"], matcher.rules))
    assert offsets.tolist() == [0, 3000, 3002]
    assert ids.tolist() == [*range(3000), 1, 2999]


@ENGINES
@pytest.mark.parametrize(("entries", "message"), [(["a", ""], "entry 1 is empty"), (["a", "b", "a"], "twice: ' a '")])
def test_lists_that_are_none(build: Build, entries: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(entries, "default")


@ALL_RULES
@given(entries=ENTRIES)
def test_distinct_entries_have_distinct_patterns(rules_name: str, entries: list[str]) -> None:
    assert len(set(patterns(entries, rule_set(rules_name)))) == len(entries)


def test_the_file_is_deterministic_and_says_what_it_is() -> None:
    data = build_automaton(["a", "b"], rule_set("unicode-v1"), entries_checksum=CHECKSUM)
    assert data == build_automaton(["a", "b"], rule_set("unicode-v1"), entries_checksum=CHECKSUM)
    assert data[:8] == b"WCLIPAC\x01"
    header, payload = read_header(data)
    assert header == {"version": 1, "engine": "daachorse", "rules": "unicode-v1", "entries": 2, "entries_checksum": CHECKSUM}
    assert 0 < payload < len(data)


def test_foreign_entries_are_refused() -> None:
    data = build_automaton(["a"], rule_set("default"), entries_checksum=CHECKSUM)
    with pytest.raises(AutomatonError, match=r"belongs to other entries \(entries-1, not entries-2\)"):
        open_automaton(data, entries_checksum="entries-2")


def test_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(automaton, "FORMAT_VERSION", 2)
        newer = build_automaton(["a"], rule_set("default"), entries_checksum=CHECKSUM)
    with pytest.raises(AutomatonError, match="format 2, newer than 1 of this program: update"):
        open_automaton(newer, entries_checksum=CHECKSUM)


@pytest.mark.parametrize("data", [b"", b"WCLIPAC", b"WCLIPAC\x01", b"PK\x03\x04" + bytes(100), b"WCLIPAC\x02" + bytes(100), bytes(64)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(AutomatonError):
        open_automaton(data, entries_checksum=CHECKSUM)


def _small_file() -> bytes:
    """An empty list: header and no payload, so that every bit and every cut can be tried."""
    return build_automaton([], rule_set("default"), entries_checksum=CHECKSUM)


def test_every_cut_is_noticed() -> None:
    data = _small_file()
    for length in range(len(data)):
        with pytest.raises(AutomatonError):
            open_automaton(data[:length], entries_checksum=CHECKSUM)
    with pytest.raises(AutomatonError):
        open_automaton(data + b"\0", entries_checksum=CHECKSUM)


def test_every_flipped_bit_is_noticed() -> None:
    data = _small_file()
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AutomatonError):
            open_automaton(bytes(broken), entries_checksum=CHECKSUM)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_payload_is_noticed(data: st.DataObject) -> None:
    file = build_automaton(["cat", "東京", "a b"], rule_set("default"), entries_checksum=CHECKSUM)
    place = data.draw(st.integers(0, len(file) - 1))
    flipped = bytearray(file)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), file[:place]):
        with pytest.raises(AutomatonError):
            open_automaton(broken, entries_checksum=CHECKSUM)


def test_a_forged_payload_does_not_crash() -> None:
    """With a right checksum over wrong bytes, which no accident makes: the engine itself must refuse or survive them."""
    file = build_automaton(["cat", "dog", "東京"], rule_set("default"), entries_checksum=CHECKSUM)
    _, start = read_header(file)
    rng = random.Random(5)  # noqa: S311
    refused = 0
    for _ in range(200):
        broken = bytearray(file[40:])
        for _ in range(3):
            broken[rng.randrange(start - 40, len(broken))] ^= 1 << rng.randrange(8)
        forged = file[:8] + hashlib.sha256(broken).digest() + bytes(broken)
        try:
            matcher = open_automaton(forged, entries_checksum=CHECKSUM)
        except AutomatonError:
            refused += 1
        else:
            matcher.find([" the cat and the dog "])
    assert refused > 0


def test_a_forged_header_is_refused() -> None:
    def forged(header: object) -> bytes:
        encoded = json.dumps(header).encode()
        body = len(encoded).to_bytes(4, "little") + encoded
        return file[:8] + hashlib.sha256(body).digest() + body

    file = _small_file()
    good, _ = read_header(file)
    assert open_automaton(forged(good), entries_checksum=CHECKSUM).find([" a "])[1].tolist() == [0, 0]
    others = [[], 1, {}, {**good, "version": "x"}, {**good, "rules": "no such"}, {k: v for k, v in good.items() if k != "rules"}]
    for header in others:
        with pytest.raises(AutomatonError):
            open_automaton(forged(header), entries_checksum=CHECKSUM)
