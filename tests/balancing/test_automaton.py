"""Both engines against a naive scan, and the file against every kind of damage."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancing import phrases
from balancing.automaton import AutomatonError, Matcher, PyahocorasickMatcher, StoredMatcher, build_automaton, open_automaton, patterns
from balancing.phrases import build_phrases
from metadata.text import CJK_LIKE, CJK_LIKE_PUBLISHED, PUNCTUATION, PUNCTUATION_PUBLISHED, RULE_SETS, normalize_text, rule_set, space_texts

CHECKSUM = "entries-1"


def _stored(entries: list[str], rules_name: str) -> Matcher:
    return _open(build_automaton(entries, rule_set(rules_name), entries_checksum=CHECKSUM))


def _open(data: bytes, *, entries_checksum: str = CHECKSUM) -> Matcher:
    return open_automaton(BytesIO(data), entries_checksum=entries_checksum)


def _pyahocorasick(entries: list[str], rules_name: str) -> Matcher:
    return PyahocorasickMatcher(entries, rule_set(rules_name))


Build = Callable[[list[str], str], Matcher]
ENGINES = pytest.mark.parametrize("build", [_stored, _pyahocorasick])
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


def test_a_block_of_texts_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = ["a", "b", "a b", "東"]
    texts = space_texts([" ".join("a東b"[(i >> j) % 3] for j in range(5)) for i in range(32)] + ["", "c"], rule_set("default"))
    ids, offsets = _stored(entries, "default").find(texts)
    for block in (1, 2, 12, 13, 100, 10_000):
        monkeypatch.setattr(phrases, "BLOCK_CHARACTERS", block)
        found = _stored(entries, "default").find(texts)
        assert [x.tolist() for x in found] == [ids.tolist(), offsets.tolist()]


def test_ids_and_texts_that_do_not_fit_32_bits_together() -> None:
    """Of two billion entries two texts at a time: the engine is told to have as many."""
    n = (1 << 31) - 1
    engine = SimpleNamespace(find_overlapping=lambda texts: [(0, 1, 1), (0, 1, 0), (1, 2, 1), (1, 2, 2)] * texts.count(b"\n"))
    table, _ = build_phrases([])
    matcher = StoredMatcher(table, engine, np.array([7, n - 1]), entries=n, rules=rule_set("default"))  # type: ignore[arg-type]
    ids, offsets = matcher.find([" a ", " b ", " c "])
    assert ids.tolist() == [7, n - 1] * 3
    assert offsets.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("text", [" a\nb ", "\n", " a \n"])
def test_a_text_that_is_not_normalized_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one of them holds a newline"):
        _stored(["a", "b"], "default").find([" a ", text])


@ENGINES
@ALL_RULES
def test_an_entry_with_a_newline_inside_is_in_no_text(build: Build, rules_name: str) -> None:
    matcher = build(["a\nb", "a \n b", "b", "東\n東", "東 \n 東"], rules_name)
    ids, offsets = matcher.find([" a ", " b ", " a ", " 東 ", " 東 "])
    assert ids.tolist() == [2]
    assert offsets.tolist() == [0, 0, 1, 1, 1, 1]


def test_the_file_is_deterministic_and_says_what_it_is() -> None:
    entries = ["a", "red car", "東"]
    data = build_automaton(entries, rule_set("default"), entries_checksum=CHECKSUM)
    assert data == build_automaton(entries, rule_set("default"), entries_checksum=CHECKSUM)
    assert data[:8] == b"WCLIPAC\x02"
    header, sections = _parts(data)
    assert [len(section) for section in sections[:3]] == [header["sections"][0], header["sections"][0] // 2, 4]
    assert header == {
        "rules": "default",
        "entries": 3,
        "entries_checksum": CHECKSUM,
        "sections": [len(section) for section in sections],
        "checksum": _crc32c(b"".join(sections)),
    }
    assert int.from_bytes(data[12:16], "little") == _crc32c(data[16 : 16 + int.from_bytes(data[8:12], "little")])


def test_another_hash_would_be_another_format() -> None:
    """What files hold must stay what this program looks for."""
    _, sections = _parts(build_automaton(["a", "red car", "red", "été"], rule_set("default"), entries_checksum=CHECKSUM))
    assert hashlib.sha256(b"".join(sections)).hexdigest() == "9507c575ecfd103e9f90c91f87d20b1404e5ceb80bf3148d499c27e3fb482795"


def _parts(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Header and sections."""
    rest = BytesIO(data[16:])
    header = json.loads(rest.read(int.from_bytes(data[8:12], "little")))
    sections = [rest.read(size) for size in header["sections"]]
    assert rest.read() == b""
    return header, sections


def _crc32c(data: bytes) -> int:
    """RFC 3720, appendix B.4, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_it_is_read_from_where_the_file_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before" + build_automaton(["cat"], rule_set("default"), entries_checksum=CHECKSUM))
    with (tmp_path / "file").open("rb", buffering=0) as file:
        file.seek(6)
        matcher = open_automaton(file, entries_checksum=CHECKSUM)
    assert matcher.find([" a cat "])[0].tolist() == [0]


def test_foreign_entries_are_refused() -> None:
    data = build_automaton(["a"], rule_set("default"), entries_checksum=CHECKSUM)
    with pytest.raises(AutomatonError, match=r"belongs to other entries \(entries-1, not entries-2\)"):
        _open(data, entries_checksum="entries-2")


@pytest.mark.parametrize(("version", "remedy"), [(1, "make the entries again"), (3, "update worldclip")])
def test_another_format_is_refused(version: int, remedy: str) -> None:
    data = bytearray(_small_file())
    data[7] = version
    with pytest.raises(AutomatonError, match=f"format {version} and this program reads 2: {remedy}"):
        _open(bytes(data))


@pytest.mark.parametrize("data", [b"", b"WCLIPAC", b"WCLIPAC\x02", b"PK\x03\x04" + bytes(100), b"wclipac\x02" + bytes(100), bytes(64)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(AutomatonError, match="not an automaton file"):
        _open(data)


def _small_file() -> bytes:
    """So small that every bit and every cut can be tried."""
    return build_automaton(["a b", "b"], rule_set("default"), entries_checksum=CHECKSUM)


def test_every_cut_is_noticed() -> None:
    data = _small_file()
    for length in range(len(data)):
        with pytest.raises(AutomatonError):
            _open(data[:length])
    with pytest.raises(AutomatonError):
        _open(data + b"\0")


def test_every_flipped_bit_is_noticed() -> None:
    data = _small_file()
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AutomatonError):
            _open(bytes(broken))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_payload_is_noticed(data: st.DataObject) -> None:
    """Bits that flipped, a block that was lost, a file that ends too early: daachorse itself takes a good part of them for whole."""
    broken = bytearray(_LARGER)
    place = data.draw(st.integers(0, len(broken) - 1))
    match data.draw(st.sampled_from(["flip", "zero", "cut", "swap"])):
        case "flip":
            for at in {place, *data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=20))}:
                broken[at] ^= data.draw(st.integers(1, 255))
        case "zero":
            broken[place : place + 4096] = bytes(len(broken[place : place + 4096]))
        case "cut":
            del broken[place:]
        case "swap":
            broken = broken[place:] + broken[:place]
    if bytes(broken) != _LARGER:
        with pytest.raises(AutomatonError):
            _open(bytes(broken))


def _larger_file() -> bytes:
    rng = random.Random(5)  # noqa: S311
    words = {"".join(rng.choices("abcdeéж東", k=rng.randint(1, 6))) for _ in range(500)}
    return build_automaton(sorted(words), rule_set("default"), entries_checksum=CHECKSUM)


_LARGER = _larger_file()


def _forged(header: object, sections: list[bytes]) -> bytes:
    """A file with a right checksum, which no accident makes."""
    encoded = json.dumps(header).encode()
    checksum = google_crc32c.value(encoded).to_bytes(4, "little")
    return b"WCLIPAC\x02" + len(encoded).to_bytes(4, "little") + checksum + encoded + b"".join(sections)


def test_a_forged_header_is_refused() -> None:
    good, sections = _parts(_small_file())
    assert _open(_forged(good, sections)).find([" a b "])[0].tolist() == [0, 1]
    absent = [{k: v for k, v in good.items() if k != key} for key in good]
    sizes = [{**good, "sections": sizes} for sizes in ([], 3, ["1"], [sum(good["sections"])], [*good["sections"], 0], [-1, 0, 0, 0], None)]
    others = [[], 1, "x", {}, {**good, "rules": "no such"}, {**good, "rules": []}, {**good, "entries": "x"}, {**good, "checksum": 1}]
    for header in [*absent, *sizes, *others]:
        with pytest.raises(AutomatonError):
            _open(_forged(header, sections))
    with pytest.raises(AutomatonError):
        _open(_forged({**good, "more": "x" * (1 << 16)}, sections))
