from __future__ import annotations

import pytest

from metadata.recipes import RECIPES, Recipe, recipe
from metadata.text import RULE_SETS, rule_set


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
        max_characters=256,
        rules="default",
    )


def test_padding_differs_between_the_versions() -> None:
    assert {name: recipe(name).rules in RULE_SETS for name in RECIPES} == {"metaclip1": True, "metaclip2": True}
    assert [rule_set(recipe(name).rules).pad_always for name in ("metaclip1", "metaclip2")] == [True, False]


def test_an_unknown_recipe_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'metaclip3'; known: metaclip1, metaclip2"):
        recipe("metaclip3")
