"""What an epoch takes of a set: against a loop over its images, by the counts, and by the shares of its languages."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.gather import CURATED_COLUMNS, gather_images
from balancing.online import (
    LANGUAGE,
    TextDraw,
    count_drawn,
    draw_texts,
    language_shares,
    languages_drawn,
    rows_of_epochs,
)
from balancing.pairs import IMAGE_TEXT, IMAGES_SCHEMA, image_keys
from balancing.sampling import CHOOSE, KEEP, entry_probabilities, uniform
from balancing.selection import select_rows, sibling_rows
from balancing.siblings import RECORD, siblings_table, verdicts_by_part
from metadata.tally import Tally
from tests.pipelines.pools import PoolShape, draw_part

TEXTS = IMAGES_SCHEMA.field("texts").type
Texts = list[list[tuple[str, int, float]]]  # per image: language, pair key, probability


def as_lists(images: Texts) -> pa.ListArray:
    return pa.array(
        [
            [{"text": f"{key}", "lang": lang, "entries": [], "pair_key": key, "probability": p} for lang, key, p in texts]
            for texts in images
        ],
        TEXTS,
    )


def drawn(images: Texts, draw: TextDraw, epoch: int) -> list[tuple[int, str | None]]:
    """Rows that are taken, with their texts."""
    lists = as_lists(images)
    rows, places = draw_texts(keys_of(images), lists, draw, epoch=epoch)
    return [(row, lists.values[place]["text"].as_py() if place >= 0 else None) for row, place in zip(rows, places.tolist(), strict=True)]


def keys_of(images: Texts) -> np.ndarray:
    return image_keys([f"image {i}" for i in range(len(images))])


def by_a_loop(images: Texts, draw: TextDraw, epoch: int) -> list[tuple[int, str | None]]:
    def u(purpose: str, key: int) -> float:
        return float(uniform(draw.seed, epoch, purpose, np.array([key], dtype=np.uint64))[0])

    out: list[tuple[int, str | None]] = []
    for row, (texts, key) in enumerate(zip(images, keys_of(images).tolist(), strict=True)):
        if not texts:
            out.append((row, None))
            continue
        lang, pair, probability = texts[math.floor(u(CHOOSE, key) * len(texts))]
        if draw.online and u(KEEP, pair) >= probability:
            continue
        if draw.languages is not None and u(LANGUAGE, key) >= draw.languages.get(lang, 1.0):
            continue
        out.append((row, f"{pair}"))
    return out


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["de", "en", "zh"]), st.integers(0, 2**64 - 1), st.floats(0, 1)), max_size=5), max_size=20),
    st.builds(
        TextDraw,
        seed=st.integers(0, 3),
        online=st.booleans(),
        languages=st.none() | st.dictionaries(st.sampled_from(["de", "en"]), st.floats(0, 1)),
    ),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_takes_what_a_loop_takes(images: Texts, draw: TextDraw, epoch: int) -> None:
    expected = by_a_loop(images, draw, epoch)
    assert drawn(images, draw, epoch) == expected
    half = len(images) // 2
    lists, lengths, epochs = as_lists(images), np.array([half, 0, len(images) - half]), range(epoch, epoch + 3)
    counts = count_drawn(keys_of(images), lists, lengths, draw=draw, epochs=epochs)
    taken = [[row for row, _ in by_a_loop(images, draw, e)] for e in epochs]
    assert counts.tolist() == [[sum(row < half for row in rows), 0, sum(row >= half for row in rows)] for rows in taken]
    languages = {f"{key}": lang for texts in images for lang, key, _ in texts}
    if len(languages) == sum(map(len, images)):
        by_language = Counter(languages[text] for _, text in by_a_loop(images, draw, 0) if text)
        assert languages_drawn(keys_of(images), lists, lengths, draw=draw) == by_language


@pytest.mark.parametrize(("field", "online"), [("pair_key", True), ("lang", False)])
def test_a_text_without_what_decides_is_told(field: str, online: bool) -> None:
    fields = [f.with_nullable(True) for f in IMAGE_TEXT]
    text = {"text": "t", "lang": "en", "entries": [], "pair_key": 1, "probability": 1.0, field: None}
    draw = TextDraw(seed=1, online=online, languages=None if online else {"en": 0.5})
    with pytest.raises(ValueError, match=f"a text has no {field}"):
        draw_texts(keys_of([[]]), pa.array([[text]], pa.list_(pa.struct(fields))), draw, epoch=0)


@pytest.mark.parametrize("value", [None, math.nan, -0.5])
def test_a_text_without_a_probability_is_told(value: float | None) -> None:
    fields = [f.with_nullable(True) for f in IMAGE_TEXT]
    lists = pa.array([[{"text": "t", "lang": "en", "entries": [], "pair_key": 1, "probability": value}]], pa.list_(pa.struct(fields)))
    with pytest.raises(ValueError, match="a text has no probability"):
        draw_texts(image_keys(["a"]), lists, TextDraw(seed=0, online=True), epoch=0)


@pytest.mark.parametrize("languages", [("de", "en", "ja"), ("de", "ja"), ("en",)])
def test_epoch_0_is_the_set_that_is_drawn_offline(languages: tuple[str, ...]) -> None:
    """From one pool, whose images have one text to some: the rows that balance selects, and what a trainer draws of all."""
    shape = PoolShape(pairs=30_000, entries=400, seed=3)
    matched = draw_part(np.random.default_rng(3), shape, shape.pairs)
    record = np.zeros(len(matched), dtype=RECORD)
    record["image_key"], record["pair_key"] = matched["image_key"].to_numpy(), matched["pair_key"].to_numpy()
    record["lang"], record["row"] = matched["lang"].combine_chunks().indices.to_numpy(), np.arange(len(matched))
    siblings = siblings_table(len(matched), [verdicts_by_part(record)[0]], sorted(shape.languages))
    odds = entry_probabilities(np.arange(1, shape.entries + 1) ** 2, 500)
    probability = dict.fromkeys(languages, odds)
    rows, kept_odds = sibling_rows(matched, siblings, probability=probability, tally=Tally())
    curated = matched.take(pa.array(rows)).append_column("probability", pa.array(kept_odds))
    images = gather_images([curated.select(CURATED_COLUMNS)])
    texts = images["texts"].combine_chunks()
    assert {2, 3, 4, 5} <= set(texts.value_lengths().to_pylist())
    for seed, epoch in ((0, 0), (9, 0), (9, 2)):
        _, places = draw_texts(image_keys(images["image_id"].to_pylist()), texts, TextDraw(seed=seed, online=True), epoch=epoch)
        offline, offline_odds = select_rows(matched, siblings, probability=probability, seed=seed, epoch=epoch, tally=Tally())
        online = sorted((text["pair_key"].as_py(), text["probability"].as_py()) for text in texts.values.take(pa.array(places)))
        assert online == sorted(zip(matched["pair_key"].to_numpy()[offline].tolist(), offline_odds.tolist(), strict=True))
        assert 1_000 < len(online) < len(images)


# -- languages -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 1.5, 2.0, 5.0])
def test_languages_occur_as_their_temperature_says(temperature: float) -> None:
    sizes = {"de": 4_000, "en": 16_000, "ga": 500, "none": 0}
    rng = np.random.default_rng(1)
    order = rng.permutation(np.repeat(list(sizes), list(sizes.values()))).tolist()
    images: Texts = [[(lang, i, 0.8)] for i, lang in enumerate(order)]
    keys, lists, lengths = keys_of(images), as_lists(images), np.array([len(images)])
    before = languages_drawn(keys, lists, lengths, draw=TextDraw(seed=4, online=True, languages={}))
    shares = language_shares(before, temperature)
    assert max(shares.values()) == 1.0
    draw = TextDraw(seed=4, online=True, languages=shares)
    weights = {lang: n ** (1 / temperature) for lang, n in before.items()}
    for epoch in (0, 1):
        _, places = draw_texts(keys, lists, draw, epoch=epoch)
        after = Counter(lists.values.take(pa.array(places)).field("lang").to_pylist())
        total = sum(after.values())
        for lang, n in after.items():
            share = weights[lang] / sum(weights.values())
            assert abs(n / total - share) < 5 * math.sqrt(share * (1 - share) / total), (lang, epoch)


def test_shares_of_languages() -> None:
    assert language_shares({"en": 1_600, "de": 400, "ga": 100, "xx": 0}, 2.0) == {"en": 0.25, "de": 0.5, "ga": 1.0, "xx": 1.0}
    assert language_shares({"en": 1_600, "de": 400}, 1.0) == {"en": 1.0, "de": 1.0}
    assert language_shares({}, 2.0) == {}


# -- the epochs of a run -------------------------------------------------------------------------------------------------------------


def test_epochs_are_counted_until_they_suffice() -> None:
    rng = np.random.default_rng(0)
    everything = rng.integers(2, 9, (400, 5))
    asked: list[range] = []

    def count(epochs: range) -> np.ndarray:
        asked.append(epochs)
        return everything[epochs.start : epochs.stop]

    for steps in (1, 6, 7, 900):
        asked.clear()
        taken = rows_of_epochs(np.full(5, 9), count, steps=steps, batch_size=4)
        assert taken.tolist() == everything[: len(taken)].tolist()
        assert (taken.sum(axis=1) // 4).sum() >= steps
        assert [n for epochs in asked for n in epochs] == list(range(len(taken)))
        assert len(asked) <= 4
    assert rows_of_epochs(np.array([3, 5]), None, steps=7, batch_size=3).tolist() == [[3, 5]] * 4


def test_an_epoch_with_less_than_a_batch_is_told() -> None:
    with pytest.raises(ValueError, match=r"^8 images are less than one batch of 9$"):
        rows_of_epochs(np.array([3, 5]), None, steps=1, batch_size=9)
    rows = np.array([[4, 4], [1, 2], [4, 4], [4, 4]])
    with pytest.raises(ValueError, match=r"^3 images in epoch 1 are less than one batch of 4$"):
        rows_of_epochs(np.array([4, 4]), lambda epochs: rows[epochs.start : epochs.stop], steps=4, batch_size=4)
