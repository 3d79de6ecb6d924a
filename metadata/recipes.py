"""The published recipes as named sets of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What becomes an entry. Figures are those of MetaCLIP (arXiv 2309.16671: version 1) and Meta CLIP 2 (arXiv 2507.22062: version 2).

    A limit that is None is none. Every cap counts the entries that its source adds to those of the sources before it; a cap cuts ties by
    BLAKE2b of the candidate, so that no alphabet is preferred. Where several Wikipedias share a list, all this holds in each of them.

    ``numbers``: the integers from 0 below this are entries; 100 in both. With version 1's synset names they are its 86,654 of WordNet.
    ``english_wordnet``: what English takes from WordNet: names of synsets up to the first dot (version 1), or all lemmas (version 2).
    ``multilingual_wordnet``: whether other languages take the lemmas of the Open Multilingual Wordnet, without a cap (version 2).
    ``unigram_min_count``: least count in the Wikipedia; 100 in version 1.
    ``unigram_top_share``: share of the distinct unigrams, by count, rounded; 10 % in version 2.
    ``unigram_cap``: 251,465, what version 1 has, and the most that version 2 takes.
    ``bigram_share``: bigrams per selected unigram, rounded; 40 % in version 2.
    ``bigram_cap``: 100,646, as for unigrams. Bigrams come from the top of the ranking by PMI; how often one must be seen to be ranked is
    decided when n-grams are counted (``metadata.ngrams.min_bigram_count``).
    ``bigram_pmi_floor``: least PMI in bits. As published, 30 in version 1, it leaves words seen some 4 times in English and nothing in
    smaller languages, so neither recipe sets it.
    ``title_min_views``: least sum of page views; 70 over 26 sampled days in version 1.
    ``title_top_share``: share of the titles seen, by views, rounded; 76 % in version 2.
    ``title_cap``: 61,235, as for unigrams.
    ``trimmed``: whether titles lose an explanation in brackets at their end ("Android (robot)"), and grams with a piece of a number that
    was cut at a comma or a space ("000 km") are left out: in a caption they mean nothing, or do not stand. Version 1 takes them as
    published.
    ``max_characters``: a longer entry is dropped; 256 in the reference of both.
    ``rules``: name of the rule set of ``metadata.text`` by which entries meet texts; version 1 pads both ends of every entry.
    """

    name: str
    numbers: int = 100
    english_wordnet: Literal["synset_names", "lemma_names"]
    multilingual_wordnet: bool
    unigram_min_count: int | None
    unigram_top_share: float | None
    unigram_cap: int = 251_465
    bigram_share: float | None
    bigram_cap: int = 100_646
    bigram_pmi_floor: float | None = None
    title_min_views: int | None
    title_top_share: float | None
    title_cap: int = 61_235
    trimmed: bool
    max_characters: int = 256
    rules: str


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="metaclip1",
            english_wordnet="synset_names",
            multilingual_wordnet=False,
            unigram_min_count=100,
            unigram_top_share=None,
            bigram_share=None,
            title_min_views=70,
            title_top_share=None,
            trimmed=False,
            rules="default-v1",
        ),
        Recipe(
            name="metaclip2",
            english_wordnet="lemma_names",
            multilingual_wordnet=True,
            unigram_min_count=None,
            unigram_top_share=0.10,
            # The published proportion of English, 0.40, exactly: with it the whole of enwiki gives the published sizes.
            bigram_share=100_646 / 251_465,
            title_min_views=None,
            title_top_share=0.76,
            trimmed=True,
            rules="default",
        ),
    )
}
#: Names of the recipes.
RECIPES: tuple[str, ...] = tuple(_RECIPES)


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: no such recipe; the message lists them.
    """
    if name not in _RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return _RECIPES[name]
