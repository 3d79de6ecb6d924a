"""Counting against a character-by-character oracle, merging, PMI and the cuts."""

from __future__ import annotations

import gzip
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from hashlib import blake2b
from itertools import pairwise
from math import log2

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata import ngrams
from metadata.ngrams import (
    BLOCK_SCHEMA,
    NGRAM_SCHEMA,
    RANGES,
    SELECTED_SCHEMA,
    SEPARATOR,
    count_ngrams,
    gram_range,
    merge_blocks,
    merged_tables,
    min_bigram_count,
    select_bigrams,
    select_unigrams,
    with_ratio,
    words_of,
)
from metadata.segment import segment
from metadata.text import CJK_LIKE, PUNCTUATION, pattern_of_entry, rule_set, space_texts

LANGUAGES = [(True, ""), (False, "icu:ja"), (False, "icu:th"), (False, "tibetan")]
TEXT = st.text(
    alphabet=st.sampled_from("aabbé  ..,(\n\n中日あカก་བོད།。「𠮷😀\u200b\u0301\u3000\x1f\0\r\t\x85\u2028\ud800''’·\"קמ״")
    | st.characters(blacklist_categories=()),
    max_size=30,
)
TEXTS = st.lists(TEXT, max_size=6)

Counts = Counter[tuple[int, str]]


def is_of_words(character: str) -> bool:
    return bool(character) and not character.isspace() and character not in PUNCTUATION and character not in CJK_LIKE


def joins(before: str, mark: str, after: str) -> bool:
    """Whether a mark is part of the word around it."""
    if mark == '"':
        return all("א" <= character <= "ת" for character in (before or "-", after or "-"))
    return mark in "'‘’·՚׳״" and is_of_words(before) and is_of_words(after)


def oracle_tokens(line: str, *, spaced: bool, segmenter: str, cut_apostrophes: bool = False) -> Iterator[str | None]:
    """Tokens of a line, one character after the other; None breaks the chain."""
    line = "".join(" " if ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 else c for c in line)
    if not spaced:
        for piece in segment(line, segmenter):
            if set(piece) != {"\u200b"}:
                yield None if piece[0] in PUNCTUATION or any(c.isspace() for c in piece) else piece
        return
    word = ""
    for place, c in enumerate(line + " "):
        if not cut_apostrophes and joins(line[place - 1 : place], c, line[place + 1 : place + 2]):
            word += c
        elif c.isspace() or c in PUNCTUATION or c in CJK_LIKE:
            if word:
                yield word
            word = ""
            if not c.isspace():
                yield c
        else:
            word += c


def oracle(texts: Iterable[str], *, spaced: bool, segmenter: str, cut_apostrophes: bool = False) -> Counts:
    counts: Counts = Counter()
    for text in texts:
        for line in text.split("\n"):
            previous = None
            for token in oracle_tokens(line, spaced=spaced, segmenter=segmenter, cut_apostrophes=cut_apostrophes):
                if token is None or len(token) > 256:
                    previous = None
                    continue
                counts[1, token] += 1
                if token in PUNCTUATION:
                    previous = None
                    continue
                if previous is not None:
                    counts[2, previous + "\x1f" + token] += 1
                previous = token
    return counts


def as_counts(*blocks: pa.Table) -> Counts:
    counts: Counts = Counter()
    for block in blocks:
        for row in block.to_pylist():
            counts[row["n"], row["gram"]] += row["count"]
    return counts


def counted(*texts: str, spaced: bool = True, segmenter: str = "", cut_apostrophes: bool = False) -> dict[str, int]:
    counts = as_counts(*count_ngrams(texts, spaced=spaced, segmenter=segmenter, cut_apostrophes=cut_apostrophes))
    return {gram.replace(SEPARATOR, "|"): count for (_, gram), count in counts.items()}


def assert_sorted_block(block: pa.Table) -> None:
    assert block.schema == BLOCK_SCHEMA
    rows = block.to_pylist()
    keys = [(row["n"], row["range"], row["gram"].encode()) for row in rows]
    assert keys == sorted(set(keys))
    assert [row["range"] for row in rows] == [gram_range(row["gram"]) for row in rows]


def block_of(n: int, counts: dict[str, int]) -> pa.Table:
    rows = [{"n": n, "range": gram_range(gram), "gram": gram, "count": count} for gram, count in counts.items()]
    return merge_blocks([pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA)])


def test_words_and_marks_of_a_spaced_language() -> None:
    assert counted("The cat, the cat. The cat") == {"The": 2, "the": 1, "cat": 3, ",": 1, ".": 1, "The|cat": 2, "the|cat": 1}


def test_every_mark_and_every_cjk_like_character_stands_alone() -> None:
    assert counted("don't 東京tower", cut_apostrophes=True) == {
        "don": 1, "'": 1, "t": 1, "東": 1, "京": 1, "tower": 1, "t|東": 1, "東|京": 1, "京|tower": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("зв'язок l'homme c’hoari O‘zbek", ["зв'язок", "l'homme", "c’hoari", "O‘zbek"]),
        ('col·lecció Դ՚Աբրուցո ביו"ר ק״מ געשמד׳ט', ["col·lecció", "Դ՚Աբրուցո", 'ביו"ר', "ק״מ", "געשמד׳ט"]),
        ("rock'n'roll 20'000 vis-à-vis", ["rock'n'roll", "20'000", "vis", "-", "à", "-", "vis"]),
        ("'a' b' 'c d''e f'’g", ["'", "a", "'", "b", "'", "'", "c", "d", "'", "'", "e", "f", "'", "’", "g"]),
        ("犬'a a'犬 a'", ["犬", "'", "a", "a", "'", "犬", "a", "'"]),
        ('a"b "ק" ק"a', ["a", '"', "b", '"', "ק", '"', "ק", '"', "a"]),
        ("a'\nb a' b", ["a", "'", "b", "a", "'", "b"]),
        ("s.a a:b", ["s", ".", "a", "a", ":", "b"]),
    ],
)
def test_apostrophes_inside_words(text: str, words: list[str]) -> None:
    assert Counter({gram: n for gram, n in counted(text).items() if "|" not in gram}) == Counter(words)
    cut = "".join(f" {character} " if character in PUNCTUATION else character for character in text).replace("犬", " 犬 ").split()
    assert Counter({gram: n for gram, n in counted(text, cut_apostrophes=True).items() if "|" not in gram}) == Counter(cut)


def test_words_meet_the_text_that_they_come_from_and_halves_do_not() -> None:
    rules = rule_set("default")
    text = "Aujourd'hui, l'homme d’Europe; зв'язок col·lecció ק\"מ."
    [spaced] = space_texts([text], rules)

    def met(cut_apostrophes: bool) -> set[str]:
        words = {gram for gram in counted(text, cut_apostrophes=cut_apostrophes) if "|" not in gram and gram not in PUNCTUATION}
        return {word for word in words if pattern_of_entry(word, rules) in spaced}

    assert met(False) == {"Aujourd'hui", "l'homme", "d’Europe", "зв'язок", "col·lecció", 'ק"מ'}
    assert met(True) == set()


def test_a_word_with_an_apostrophe_has_neighbours() -> None:
    assert counted("l'homme d'Europe") == {"l'homme": 1, "d'Europe": 1, "l'homme|d'Europe": 1}


def test_a_line_break_and_the_end_of_a_text_break_the_chain() -> None:
    assert counted("a b\nc", "d") == {"a": 1, "b": 1, "c": 1, "d": 1, "a|b": 1}


def test_words_of_a_language_without_spaces() -> None:
    assert counted("図書館で本を、本を読む", spaced=False, segmenter="icu:ja") == {
        "図書館": 1, "で": 1, "本": 2, "を": 2, "読む": 1, "図書館|で": 1, "で|本": 1, "本|を": 2, "を|読む": 1,
    }  # fmt: skip


def test_without_spaces_white_space_breaks_the_chain_and_a_zero_width_space_does_not() -> None:
    assert counted("Red Hat", spaced=False, segmenter="icu:ja") == {"Red": 1, "Hat": 1}
    assert counted("ភាសា\u200bខ្មែរ", spaced=False, segmenter="icu:km") == {"ភាសា": 1, "ខ្មែរ": 1, "ភាសា|ខ្មែរ": 1}


def test_tibetan_syllables_make_bigrams() -> None:
    assert counted("བོད་ཡིག་ཡིན། །", spaced=False, segmenter="tibetan") == {
        "བོད་": 1, "ཡིག་": 1, "ཡིན": 1, "བོད་|ཡིག་": 1, "ཡིག་|ཡིན": 1,
    }  # fmt: skip


def test_an_overlong_token_is_not_counted_and_breaks_the_chain() -> None:
    kept, overlong = "x" * 256, "y" * 257
    assert counted(f"a {kept} {overlong} b c") == {"a": 1, kept: 1, "b": 1, "c": 1, f"a|{kept}": 1, "b|c": 1}


def test_a_very_long_line_counts_as_several() -> None:
    assert counted("ab " * 400_000) == {"ab": 399_999, "a": 1, "b": 1, "ab|ab": 399_997, "ab|a": 1, "b|ab": 1}


@pytest.mark.parametrize(("spaced", "segmenter"), LANGUAGES)
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, cut=st.booleans(), max_distinct=st.sampled_from([1, 3, 10, 2_000_000]))
def test_counts_are_those_of_the_oracle(spaced: bool, segmenter: str, texts: list[str], cut: bool, max_distinct: int) -> None:
    written = {"spaced": spaced, "segmenter": segmenter, "cut_apostrophes": cut}
    blocks = list(count_ngrams(iter(texts), **written, max_distinct=max_distinct))  # type: ignore[arg-type]
    assert as_counts(*blocks) == oracle(texts, **written)  # type: ignore[arg-type]
    for block in blocks:
        assert_sorted_block(block)
        assert len(set(block["n"].to_pylist())) == 1


def test_many_distinct_grams_go_out_in_many_tables_with_the_same_sums() -> None:
    texts = [f"w{i % 97} w{i % 89}. w{i}" for i in range(2_000)]
    whole = list(count_ngrams(texts, spaced=True, segmenter=""))
    parts = list(count_ngrams(texts, spaced=True, segmenter="", max_distinct=500))
    assert len(whole) == 2
    assert len(parts) > 10
    # Looked at once in 500 tokens, each at most one new unigram and one new bigram, after a slice that ends at most one line later.
    assert max(block.num_rows for block in parts) <= 500 + 2 * (500 + 500)
    assert merge_blocks(parts).equals(merge_blocks(whole))


def test_a_table_holds_a_bounded_amount_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word{i} word{i + 1}" for i in range(500)]
    whole = list(count_ngrams(texts, spaced=True, segmenter=""))
    monkeypatch.setattr(ngrams, "_TABLE_BYTES", 1_000)
    parts = list(count_ngrams(texts, spaced=True, segmenter=""))
    assert len(parts) > 10
    assert all(sum(len(gram.encode()) for gram in block["gram"].to_pylist()) <= 1_000 for block in parts)
    assert pa.concat_tables(parts).combine_chunks().equals(pa.concat_tables(whole).combine_chunks())


def test_texts_are_read_one_after_the_other() -> None:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for i in range(1_000):
            read += 1
            yield f"a{i} b{i}"

    next(count_ngrams(texts(), spaced=True, segmenter="", max_distinct=10))
    assert read < 20


def test_no_texts_no_tables() -> None:
    assert list(count_ngrams([], spaced=True, segmenter="")) == []
    assert list(count_ngrams(["", "\n", " \n "], spaced=False, segmenter="icu:ja")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spaced": True, "segmenter": "", "max_distinct": 0}, "max_distinct"),
        ({"spaced": True, "segmenter": "", "max_distinct": 1 << 28}, "max_distinct"),
        ({"spaced": True, "segmenter": "icu:ja"}, "no segmenter"),
        ({"spaced": False, "segmenter": ""}, "unknown segmenter"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(count_ngrams(["a"], **arguments))  # type: ignore[arg-type]


def test_gram_range_is_frozen_and_spreads() -> None:
    assert [gram_range(gram) for gram in ("a", "b", "a\x1fb", "b\x1fa", "東京")] == [3, 57, 22, 42, 47]
    sizes = Counter(gram_range(f"w{i}\x1fthe") for i in range(64_000))
    assert set(sizes) == set(range(RANGES))
    assert max(sizes.values()) < 1_200


def test_real_captions_of_four_languages(shared_data: pathlib.Path) -> None:
    for language in ("en", "de", "fr", "cs"):
        with gzip.open(shared_data / "captions" / f"multi30k-val.{language}.gz", "rt", encoding="utf-8") as lines:
            texts = list(lines)
        assert len(texts) > 1_000
        blocks = list(count_ngrams(texts, spaced=True, segmenter="", max_distinct=3_000))
        assert as_counts(*blocks) == oracle(texts, spaced=True, segmenter="")


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, cuts=st.lists(st.integers(0, 6)), data=st.data())
def test_merge_does_not_depend_on_how_texts_were_cut_or_ordered(texts: list[str], cuts: list[int], data: st.DataObject) -> None:
    bounds = [0, *sorted(cuts), len(texts)]
    groups = [texts[a:b] for a, b in pairwise(bounds)]
    blocks = [block for group in groups for block in count_ngrams(group, spaced=True, segmenter="", max_distinct=4)]
    whole = merge_blocks(count_ngrams(texts, spaced=True, segmenter=""))
    blocks = data.draw(st.permutations(blocks))
    middle = data.draw(st.integers(0, len(blocks)))
    assert merge_blocks(blocks).equals(whole)
    assert merge_blocks([merge_blocks(blocks[:middle]), merge_blocks(blocks[middle:])]).equals(whole)
    assert as_counts(whole) == oracle(texts, spaced=True, segmenter="")
    assert_sorted_block(whole)


def test_merge_in_steps_gives_the_same_and_holds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = list(count_ngrams([f"w{i % 7} w{i % 11} w{i % 13}" for i in range(900)], spaced=True, segmenter="", max_distinct=20))
    whole = merge_blocks(blocks)
    held: list[int] = []
    sums = ngrams._sums

    def recorded(runs: list[pa.Table]) -> Iterator[pa.Table]:
        held.append(sum(run.num_rows for run in runs))
        return sums(runs)

    monkeypatch.setattr(ngrams, "_sums", recorded)
    monkeypatch.setattr(ngrams, "_MERGE_ROWS", 10)
    assert merge_blocks(iter(blocks)).equals(whole)
    assert as_counts(whole) == as_counts(*blocks)
    largest = max(block.num_rows for block in blocks)
    assert sum(block.num_rows for block in blocks) > 1.5 * whole.num_rows + 10 + largest >= max(held)
    assert len(held) > 3


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, slice_rows=st.sampled_from([1, 4, 16, 1 << 20]), merge_rows=st.sampled_from([1, 8, 1 << 21]), data=st.data())
def test_merged_tables_are_one_sorted_table_in_pieces(texts: list[str], slice_rows: int, merge_rows: int, data: st.DataObject) -> None:
    blocks = data.draw(st.permutations(list(count_ngrams(texts * 2, spaced=True, segmenter="", max_distinct=3))))
    whole = merge_blocks(blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_SLICE_ROWS", slice_rows)
        patch.setattr(ngrams, "_MERGE_ROWS", merge_rows)
        pieces = list(merged_tables(iter(blocks)))
    assert all(piece.schema == BLOCK_SCHEMA and piece.num_rows for piece in pieces)
    assert pa.concat_tables([BLOCK_SCHEMA.empty_table(), *pieces]).equals(whole)


def test_pieces_are_as_small_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds at most the rows that are summed at a time, whatever the blocks are."""
    summed: list[int] = []
    add = ngrams._sum

    def recorded(rows: pa.Table) -> pa.Table:
        summed.append(rows.num_rows)
        return add(rows)

    blocks = [
        next(count_ngrams([" ".join(f"w{i * k}" for i in range(n))], spaced=True, segmenter="")) for n, k in ((900, 1), (30, 7), (400, 3))
    ]
    monkeypatch.setattr(ngrams, "_sum", recorded)
    monkeypatch.setattr(ngrams, "_SLICE_ROWS", 120)
    merged = merge_blocks(blocks)
    assert as_counts(merged) == as_counts(*blocks)
    assert max(summed) <= 120
    assert len(summed) > 10


def test_blocks_in_any_order_of_rows_are_merged() -> None:
    counts = {f"w{i * 7919 % 1009}": i + 1 for i in range(1_009)}
    rows = [{"n": 1, "range": gram_range(gram), "gram": gram, "count": count} for gram, count in counts.items()]
    for some in (rows, rows[:1], rows[:40], rows * 2):
        block = pa.Table.from_pylist(some, schema=BLOCK_SCHEMA)
        merged = merge_blocks([block, block.slice(3)])
        assert_sorted_block(merged)
        assert as_counts(merged) == as_counts(block, block.slice(3))


def test_words_of_bigrams() -> None:
    bigrams = block_of(2, {"New\x1fYork": 2, "a\x1fNew": 1, "a\x1fa": 3})
    assert sorted(words_of(bigrams).to_pylist()) == ["New", "York", "a"]
    assert words_of(BLOCK_SCHEMA.empty_table()).to_pylist() == []


def test_merge_of_nothing() -> None:
    assert merge_blocks([]).equals(BLOCK_SCHEMA.empty_table())


def test_ratio_and_printed_form() -> None:
    unigrams = block_of(1, {"New": 4, "York": 2, "a": 8, "rare": 1})
    bigrams = block_of(2, {"New\x1fYork": 2, "a\x1fNew": 1, "a\x1fa": 3})
    table = with_ratio(bigrams, unigrams, spaced=True, min_count=2)
    assert table.schema == NGRAM_SCHEMA
    assert sorted(table.to_pylist(), key=lambda row: row["gram"]) == [
        {"gram": "New York", "count": 2, "ratio": 2 / 8},
        {"gram": "a a", "count": 3, "ratio": 3 / 64},
    ]
    assert set(with_ratio(bigrams, unigrams, spaced=False, min_count=1)["gram"].to_pylist()) == {"NewYork", "aNew", "aa"}
    assert with_ratio(bigrams, unigrams, spaced=True, min_count=9).equals(NGRAM_SCHEMA.empty_table())


def test_ratio_does_not_need_unigrams_rarer_than_the_minimum() -> None:
    texts = ["a b a b c", "a b d"]
    merged = merge_blocks(count_ngrams(texts, spaced=True, segmenter=""))
    unigrams, bigrams = (merged.filter(pa.compute.equal(merged["n"], n)) for n in (1, 2))
    frequent = unigrams.filter(pa.compute.greater_equal(unigrams["count"], 2))
    assert frequent.num_rows < unigrams.num_rows
    assert with_ratio(bigrams, frequent, spaced=True, min_count=2).equals(with_ratio(bigrams, unigrams, spaced=True, min_count=2))


def test_a_word_that_was_not_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 words of bigrams"):
        with_ratio(block_of(2, {"a\x1fb": 1}), block_of(1, {"a": 1}), spaced=True, min_count=1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 90_000_000)] * 2, st.integers(1, 1_000)), min_size=1, max_size=20))
def test_ranking_is_that_of_exact_fractions(triples: list[tuple[int, int, int]]) -> None:
    """c1 and c2 below 9e7: the products are exact, so equal ratios tie and greater ones are never ranked below."""
    words, pairs, exact = {}, {}, {}
    for i, (c1, c2, c12) in enumerate(triples):
        words[f"l{i}"], words[f"r{i}"], pairs[f"l{i}\x1fr{i}"] = c1, c2, c12
        exact[f"l{i} r{i}"] = Fraction(c12, c1 * c2)
    table = with_ratio(block_of(2, pairs), block_of(1, words), spaced=True, min_count=1)
    ranked = select_bigrams(table, cap=None, pmi_floor=None, tokens=1)["gram"].to_pylist()
    ratios = [exact[gram] for gram in ranked]
    assert len(ranked) == len(triples)
    assert all(better >= worse or float(better) == float(worse) for better, worse in pairwise(ratios))
    for row in table.to_pylist():
        assert row["ratio"] == float(exact[row["gram"]])


def by_hash(grams: Iterable[str]) -> list[str]:
    return sorted(grams, key=lambda gram: blake2b(gram.encode(), digest_size=16).digest())


def test_most_frequent_unigrams_and_ties_by_hash() -> None:
    tied = [f"tie{i}" for i in range(30)]
    table = block_of(1, {**dict.fromkeys(tied, 5), "top": 9, "low": 1})
    selected = select_unigrams(table, min_count=None, top_share=None, cap=11)
    assert selected.schema == SELECTED_SCHEMA
    assert selected["gram"].to_pylist() == ["top", *by_hash(tied)[:10]]
    assert selected["count"].to_pylist() == [9] + [5] * 10
    assert selected["score"].to_pylist() == [9.0] + [5.0] * 10
    assert by_hash(tied)[:10] != sorted(tied)[:10]


@pytest.mark.parametrize(
    ("min_count", "top_share", "cap", "expected"),
    [
        (None, None, None, 30),
        (100, None, 251_465, 3),
        (101, None, 251_465, 2),
        (None, 0.1, 251_465, 3),
        (None, 0.1, 2, 2),
        (None, 1.0, None, 30),
        (100, 0.5, 1, 1),
        (None, 0.01, None, 0),
        (None, None, 0, 0),
        (1_000, None, None, 0),
    ],
)
def test_limits_of_unigrams(min_count: int | None, top_share: float | None, cap: int | None, expected: int) -> None:
    counts = {f"w{i}": i + 1 for i in range(27)} | {"x": 100, "y": 101, "z": 102}
    selected = select_unigrams(block_of(1, counts), min_count=min_count, top_share=top_share, cap=cap)
    assert selected["gram"].to_pylist() == sorted(counts, key=lambda gram: -counts[gram])[:expected]


def test_selection_from_nothing() -> None:
    nothing = SELECTED_SCHEMA.empty_table()
    assert select_unigrams(BLOCK_SCHEMA.empty_table(), min_count=None, top_share=0.1, cap=10).equals(nothing)
    assert select_bigrams(NGRAM_SCHEMA.empty_table(), cap=10, pmi_floor=30.0, tokens=0).equals(nothing)


def ngram_table(rows: list[tuple[str, int, float]]) -> pa.Table:
    return pa.Table.from_pylist([{"gram": g, "count": c, "ratio": r} for g, c, r in rows], schema=NGRAM_SCHEMA)


def test_bigrams_by_ratio_and_ties_by_hash() -> None:
    tied = [f"tie {i}" for i in range(20)]
    table = ngram_table([*((gram, 5, 0.125) for gram in tied), ("best", 1, 0.5), ("worst", 9, 0.0625)])
    selected = select_bigrams(table, cap=8, pmi_floor=None, tokens=1_024)
    assert selected.schema == SELECTED_SCHEMA
    assert selected["gram"].to_pylist() == ["best", *by_hash(tied)[:7]]
    assert selected["score"].to_pylist() == [9.0] + [7.0] * 7
    assert select_bigrams(table.take(list(range(21, -1, -1))), cap=8, pmi_floor=None, tokens=1_024).equals(selected)


def test_bigrams_that_read_alike_are_both_ranked() -> None:
    rows = [("abc", 2, 0.5), ("abc", 4, 0.5), ("abc", 1, 0.25)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        selected = select_bigrams(ngram_table([rows[i] for i in order]), cap=None, pmi_floor=None, tokens=8)
        assert selected["count"].to_pylist() == [4, 2, 1]
        assert selected["score"].to_pylist() == [2.0, 2.0, 1.0]


def test_pmi_floor_is_in_bits_and_inclusive() -> None:
    table = ngram_table([("a b", 1, 1.0), ("c d", 1, 0.5), ("e f", 1, 0.25)])
    selected = select_bigrams(table, cap=None, pmi_floor=3.0, tokens=16)
    assert selected.to_pylist() == [{"gram": "a b", "count": 1, "score": 4.0}, {"gram": "c d", "count": 1, "score": 3.0}]
    assert select_bigrams(table, cap=None, pmi_floor=30.0, tokens=16).num_rows == 0


def test_pmi_of_a_small_text_from_end_to_end() -> None:
    merged = merge_blocks(count_ngrams(["big apple. a big dog, a big apple"], spaced=True, segmenter=""))
    unigrams, bigrams = (merged.filter(pa.compute.equal(merged["n"], n)) for n in (1, 2))
    tokens = pa.compute.sum(unigrams["count"]).as_py()
    assert tokens == 10
    selected = select_bigrams(with_ratio(bigrams, unigrams, spaced=True, min_count=1), cap=None, pmi_floor=None, tokens=tokens)
    expected = {"big apple": 2 / (3 * 2), "a big": 2 / (2 * 3), "big dog": 1 / (3 * 1)}
    assert selected["gram"].to_pylist() == by_hash(expected)
    assert selected["score"].to_pylist() == [round(log2(10 / 3), 6)] * 3


def test_minimum_count_grows_with_the_cube_root() -> None:
    assert [min_bigram_count(n) for n in (0, 216_000, 216_001, 512_000, 512_001, 10**6, 10**6 + 1)] == [3, 3, 4, 4, 5, 5, 6]
    assert [min_bigram_count(10**k) for k in (5, 6, 7, 8, 9)] == [3, 5, 11, 24, 50]
    assert min_bigram_count(4 * 10**9) == 80
