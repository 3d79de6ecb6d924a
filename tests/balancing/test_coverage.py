from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from statistics import mean, median

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing import coverage
from balancing.automaton import build_automaton, open_automaton
from balancing.coverage import BUCKETS, Coverage, CoverageCounter, count_words, in_buckets
from metadata.languages import all_languages, language
from metadata.tally import Tally
from metadata.text import PUNCTUATION, pattern_of_entry, rule_set, space_texts

RULES = rule_set("default")


def counter(lists: dict[str, list[str]], *, memory: int = 1 << 20) -> CoverageCounter:
    opened = {
        lang: open_automaton(io.BytesIO(build_automaton(entries, RULES, entries_checksum="x")), entries_checksum="x")
        for lang, entries in lists.items()
    }
    return CoverageCounter(
        sizes={lang: len(entries) for lang, entries in lists.items()},
        open_matcher=opened.__getitem__,
        words_of=all_languages().get,
        memory=memory,
    )


def english(texts: Sequence[str]) -> list[str]:
    return ["en"] * len(texts)


def entries_of(entries: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(entries, pa.string())])


def test_captions_are_held_against_their_list() -> None:
    lists = {"en": ["dog", "a dog", "red", "the", "cat"], "ja": ["犬", "赤い"]}
    found, tally = counter(lists), Tally()
    of_text = {"犬が走る": "ja", "猫": "ja", "ein Hund": "de", "un chien": "fr"}
    batches = [
        ["a dog", "a red dog, the dog", "no such thing", "犬が走る", "a dog", "ein Hund"],
        ["no such thing", "Red things", "猫", "un chien", "ein Hund"],
    ]
    for batch in batches:
        found.add(batch, lambda texts: [of_text.get(text, "en") for text in texts], tally=tally)
    assert found.lists() == ["en", "ja"]
    assert found.coverage("en", entries_of(lists["en"]), 2) == Coverage(
        captions=6,
        matched=3,
        mean=(2 + 3 + 2) / 6,
        median=1.0,
        by_matches={"0": 3, "1": 0, "2": 2, "3-5": 1, "6+": 0},
        entries=5,
        entries_met=4,
        words=17,
        # a, a, a, no, such, thing, no, such, thing, Red, things.
        words_missing=11,
        missing=[("a", 3), ("no", 2)],
        unmatched=[("no such thing", 2), ("Red things", 1)],
    )
    japanese = found.coverage("ja", entries_of(lists["ja"]), 9)
    assert (japanese.captions, japanese.matched, japanese.entries_met) == (2, 1, 1)
    assert (japanese.missing, japanese.unmatched) == ([("が", 1), ("猫", 1), ("走る", 1)], [("猫", 1)])
    assert (tally.read, tally.emitted, tally.dropped) == (11, 4, {"no_match": 4, "language_not_built": 3})
    assert tally.balanced


def test_a_result_as_json() -> None:
    found = counter({"en": ["dog"]})
    found.add(["dog house", "cat"], english, tally=Tally())
    assert json.loads(json.dumps(found.coverage("en", entries_of(["dog"]), 1).to_json())) == {
        "captions": 2,
        "matched": 1,
        "mean": 0.5,
        "median": 0.5,
        "by_matches": {"0": 1, "1": 1, "2": 0, "3-5": 0, "6+": 0},
        "entries": 1,
        "entries_met": 1,
        "words": 3,
        "words_missing": 2,
        "missing": [{"word": "cat", "count": 1}],
        "unmatched": [{"caption": "cat", "count": 1}],
    }


def test_more_words_than_memory_are_counted_as_far_as_it_goes() -> None:
    found = counter({"en": ["dog"]}, memory=2_000)
    for i in range(20):
        found.add([f"the w{i}x{j} often" for j in range(10)], english, tally=Tally())
    result = found.coverage("en", entries_of(["dog"]), 2)
    assert found.words.error > 0
    assert result.words == 600
    assert [word for word, _ in result.missing] == ["often", "the"]
    assert all(200 - found.words.error <= n <= 200 for _, n in result.missing)
    assert result.words_missing <= 600


@pytest.mark.parametrize(
    ("lang", "text", "words"),
    [
        ("en", "It's a dog, a DOG. «Rex» (no. 7)", ["It", "s", "a", "dog", "a", "DOG", "Rex", "no", "7"]),
        ("ja", "私は昨日、本を読みました。", ["私", "は", "昨日", "本", "を", "読み", "ま", "した"]),
        ("th", "วันนี้อากาศดีมาก", ["วัน", "นี้", "อากาศ", "ดี", "มาก"]),
        ("", "red 犬", ["red", "犬"]),
    ],
)
def test_words_are_those_that_the_builder_counts(lang: str, text: str, words: list[str]) -> None:
    assert count_words([text, text], language(lang) if lang else None) == {word: 2 * n for word, n in Counter(words).items()}


def test_buckets_hold_everything_once() -> None:
    assert in_buckets(dict.fromkeys(range(1_000), 1)) == {"0": 1, "1": 1, "2": 1, "3-5": 3, "6+": 994}
    assert [least for _, least, _ in BUCKETS][1:] == [most + 1 for _, _, most in BUCKETS[:-1] if most is not None]


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 4), min_size=1))
def test_the_median_is_that_of_all_captions(by_value: dict[int, int]) -> None:
    assert coverage.median(by_value) == median(value for value, times in by_value.items() for _ in range(times))


_TEXT = st.lists(st.sampled_from(["dog", "a dog", "Dog", "red", "the", ",", "犬", "(dog)", "x"]), min_size=1, max_size=5).map(" ".join)
_ENTRY = st.sampled_from(["dog", "a dog", "red", "the", "犬", "red dog", ",", "7"])


@given(st.lists(st.lists(_TEXT, max_size=6), max_size=3), st.lists(_ENTRY, unique=True, max_size=6))
def test_coverage_is_what_a_naive_scan_finds(batches: list[list[str]], entries: list[str]) -> None:
    found, tally = counter({"en": entries}), Tally()
    for batch in batches:
        found.add(batch, english, tally=tally)
    captions = [text for batch in batches for text in batch]
    if not captions:
        assert found.lists() == []
        return
    patterns = [pattern_of_entry(entry, RULES) for entry in entries]
    spaced = space_texts(captions, RULES)
    matches = [sum(pattern in text for pattern in patterns) for text in spaced]
    words = Counter(
        word
        for text in captions
        for word in text.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()
        if word not in PUNCTUATION
    )
    missing = {word: n for word, n in words.items() if word not in entries}
    unmatched = Counter(text for text, n in zip(captions, matches, strict=True) if not n)

    def best(counts: dict[str, int]) -> list[tuple[str, int]]:
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]

    assert found.coverage("en", entries_of(entries), 3) == Coverage(
        captions=len(captions),
        matched=sum(n > 0 for n in matches),
        mean=pytest.approx(mean(matches)),
        median=median(matches),
        by_matches={
            "0": matches.count(0),
            "1": matches.count(1),
            "2": matches.count(2),
            "3-5": sum(3 <= n <= 5 for n in matches),
            "6+": sum(n > 5 for n in matches),
        },
        entries=len(entries),
        entries_met=sum(any(pattern in text for text in spaced) for pattern in patterns),
        words=words.total(),
        words_missing=sum(missing.values()),
        missing=best(missing),
        unmatched=best(unmatched),
    )
    assert (tally.read, tally.emitted, tally.dropped["no_match"]) == (len(captions), sum(n > 0 for n in matches), unmatched.total())
