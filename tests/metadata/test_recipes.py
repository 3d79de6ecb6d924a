from __future__ import annotations

import pathlib
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata.entries import Candidates, merge_lists, select_entries
from metadata.ngrams import NGRAM_SCHEMA, count_ngrams, merge_blocks, with_ratio
from metadata.recipes import RECIPES, Recipe, recipe
from metadata.tally import Tally
from metadata.text import CJK_LIKE, PUNCTUATION, RULE_SETS, rule_set
from metadata.titles import VIEWS_SCHEMA
from metadata.wordnet import english_synset_names


def test_version_1_has_the_published_figures() -> None:
    assert recipe("metaclip1") == Recipe(
        name="metaclip1",
        numbers=100,
        english_wordnet="synset_names",
        multilingual_wordnet=False,
        unigram_min_count=100,
        unigram_top_share=None,
        unigram_cap=251_465,
        bigram_share=None,
        bigram_cap=100_646,
        bigram_pmi_floor=None,
        title_min_views=70,
        title_top_share=None,
        title_cap=61_235,
        trimmed=False,
        max_characters=256,
        rules="default-v1",
    )


def test_version_2_has_the_published_figures() -> None:
    assert recipe("metaclip2") == Recipe(
        name="metaclip2",
        numbers=100,
        english_wordnet="lemma_names",
        multilingual_wordnet=True,
        unigram_min_count=None,
        unigram_top_share=0.10,
        unigram_cap=251_465,
        bigram_share=100_646 / 251_465,
        bigram_cap=100_646,
        bigram_pmi_floor=None,
        title_min_views=None,
        title_top_share=0.76,
        title_cap=61_235,
        trimmed=True,
        max_characters=256,
        rules="default",
    )


def test_padding_differs_between_the_versions() -> None:
    assert {name: recipe(name).rules in RULE_SETS for name in RECIPES} == {"metaclip1": True, "metaclip2": True}
    assert [rule_set(recipe(name).rules).pad_always for name in ("metaclip1", "metaclip2")] == [True, False]


def test_an_unknown_recipe_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'metaclip3'; known: metaclip1, metaclip2"):
        recipe("metaclip3")


def test_wordnet_and_the_numbers_are_the_published_86654(shared_data: pathlib.Path) -> None:
    with (shared_data / "nltk_data" / "corpora" / "wordnet.zip").open("rb") as archive:
        names = english_synset_names(archive, lang="en", tally=Tally())["lemma"].to_pylist()
    table = select_entries(Candidates(wordnet=names), recipe("metaclip1"))
    assert len(table) == 86_654
    assert 86_654 + 251_465 + 100_646 + 61_235 == 500_000


# -- the whole recipe, from text to a list, said once more as plainly as possible ------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Wiki:
    """What one Wikipedia gives: lines of text, views per title, lemmas."""

    lines: list[str]
    titles: dict[str, int]
    lemmas: list[str]


def _plain_tokens(line: str) -> list[str]:
    """White space separates, and every CJK-like character and every punctuation mark is a token of its own, but apostrophes in words."""
    if "l'a" in line.split():
        return [token for word in line.split() for token in ([word] if word == "l'a" else _plain_tokens(word))]
    for character in CJK_LIKE & set(line) | PUNCTUATION & set(line):
        line = line.replace(character, f" {character} ")
    return line.split()


def _ties(text: str, size: int) -> bytes:
    digest = blake2b(text.encode(), digest_size=size).digest()
    return digest[::-1] if size == 8 else digest


def _ranked(scores: dict[str, Any], size: int = 16) -> list[str]:
    return sorted(scores, key=lambda text: (-scores[text], _ties(text, size)))


def _top(ranking: list[str], share: float | None) -> list[str]:
    return ranking if share is None else ranking[: round(Fraction(str(share)) * len(ranking))]


def _plain_list(wiki: _Wiki, used: Recipe, min_bigram_count: int) -> dict[str, str]:
    """Entry → source of one Wikipedia, in order."""
    entries: dict[str, str] = {}

    def take(source: str, ranking: list[str], cap: float) -> int:
        added = 0
        for text in ranking:
            entry = text.strip()
            marks_only = all(character in PUNCTUATION or character == " " for character in entry)
            piece = used.trimmed and source in ("unigram", "bigram") and "07" in entry.split()
            if added < cap and not marks_only and not piece and len(entry) <= used.max_characters and entry not in entries:
                entries[entry] = source
                added += 1
        return added

    tokens = [_plain_tokens(line) for line in wiki.lines]
    unigrams = Counter(token for line in tokens for token in line)
    pairs = [pair for line in tokens for pair in pairwise(line) if not {*pair} & PUNCTUATION]
    bigrams = {
        f"{a} {b}": Fraction(n * unigrams.total(), unigrams[a] * unigrams[b])
        for (a, b), n in Counter(pairs).items()
        if n >= min_bigram_count
    }
    titles = wiki.titles
    if used.trimmed:
        titles = Counter()
        for title, views in wiki.titles.items():
            titles[title.replace(" (b)", "")] += views
    take("number", [str(number) for number in range(used.numbers)], used.numbers)
    take("wordnet", sorted(lemma.strip() for lemma in wiki.lemmas), float("inf"))
    frequent = [word for word in _top(_ranked(unigrams), used.unigram_top_share) if unigrams[word] >= (used.unigram_min_count or 0)]
    selected = take("unigram", frequent, used.unigram_cap)
    share = float("inf") if used.bigram_share is None else round(Fraction(str(used.bigram_share)) * selected)
    above = [gram for gram in _ranked(bigrams) if used.bigram_pmi_floor is None or bigrams[gram] >= 2**used.bigram_pmi_floor]
    take("bigram", above, min(share, used.bigram_cap))
    viewed = [title for title in _top(_ranked(titles, 8), used.title_top_share) if titles[title] >= (used.title_min_views or 0)]
    take("title", viewed, used.title_cap)
    return entries


def _plain_merge(lists: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Source by source, then list by list; the first to name an entry keeps it."""
    merged: dict[str, str] = {}
    for source in ("number", "wordnet", "unigram", "bigram", "title"):
        for entries in lists:
            for entry, its_source in entries.items():
                if its_source == source:
                    merged.setdefault(entry, source)
    return list(merged.items())


def _candidates(wiki: _Wiki, min_bigram_count: int) -> Candidates:
    blocks = merge_blocks(count_ngrams(wiki.lines, spaced=True, segmenter=""))
    singles, pairs = (blocks.filter(pc.equal(blocks["n"], n)) for n in (1, 2))
    titles = [["lv"] * len(wiki.titles), [0] * len(wiki.titles), [*wiki.titles], [*wiki.titles.values()]]
    return Candidates(
        wordnet=wiki.lemmas,
        unigrams=pa.table([singles["gram"], singles["count"], pa.nulls(len(singles), pa.float64())], schema=NGRAM_SCHEMA),
        bigrams=with_ratio(pairs, singles, spaced=True, min_count=min_bigram_count),
        tokens=pc.sum(singles["count"]).as_py() or 0,
        titles=pa.table([pa.array(x, f.type) for x, f in zip(titles, VIEWS_SCHEMA, strict=True)], schema=VIEWS_SCHEMA),
    )


_WORD = st.sampled_from(["a", "b", "A", "bb", "B", "7", "07", "ā", "犬", "l'a", "b.", ",", "«a»", "x" * 5])
_WIKI = st.builds(
    _Wiki,
    lines=st.lists(st.lists(_WORD, max_size=8).map(" ".join), max_size=8),
    titles=st.dictionaries(
        st.builds("{}{}".format, st.lists(_WORD, min_size=1, max_size=2).map(" ".join), st.sampled_from(["", "", " (b)"])),
        st.integers(1, 4),
        max_size=8,
    ),
    lemmas=st.lists(st.lists(_WORD, min_size=1, max_size=2).map(" ".join), max_size=4),
)
_SMALL = st.builds(
    replace,
    st.sampled_from([recipe(name) for name in RECIPES]),
    numbers=st.sampled_from([0, 2, 8]),
    unigram_min_count=st.none() | st.integers(1, 3),
    unigram_top_share=st.sampled_from([None, 0.10, 0.5, 0.8]),
    unigram_cap=st.integers(0, 8),
    bigram_share=st.sampled_from([None, 100_646 / 251_465, 1.0]),
    bigram_cap=st.integers(0, 6),
    # No rational PMI lies at these floors.
    bigram_pmi_floor=st.sampled_from([None, 0.3, 2.1]),
    title_min_views=st.none() | st.integers(1, 3),
    title_top_share=st.sampled_from([None, 0.76, 0.3]),
    title_cap=st.integers(0, 5),
    max_characters=st.sampled_from([3, 4, 256]),
)


@settings(max_examples=150)
@given(st.lists(_WIKI, min_size=1, max_size=3), _SMALL, st.integers(1, 2))
def test_a_list_is_what_the_recipe_says_from_the_text_on(wikis: list[_Wiki], used: Recipe, min_bigram_count: int) -> None:
    table = merge_lists(select_entries(_candidates(wiki, min_bigram_count), used) for wiki in wikis)
    found = list(zip(table["entry"].to_pylist(), table["source"].cast(pa.string()).to_pylist(), strict=True))
    assert found == _plain_merge([_plain_list(wiki, used, min_bigram_count) for wiki in wikis])


def test_a_tie_at_a_cap_prefers_no_alphabet() -> None:
    """Words seen once: of a hundred Latin and a hundred Cyrillic ones, a cap of a hundred takes about as many of both."""
    words = [chr(first + i // 10) + chr(first + i % 10) for first in (ord("a"), ord("а")) for i in range(100)]
    assert len({*words}) == 200
    used = replace(recipe("metaclip2"), numbers=0, unigram_top_share=0.5, bigram_cap=0)
    entries = select_entries(_candidates(_Wiki(lines=[" ".join(words)], titles={}, lemmas=[]), 1), used)["entry"].to_pylist()
    assert len(entries) == 100
    assert 35 <= sum(entry.isascii() for entry in entries) <= 65
