"""The curated set against a loop over pairs, whatever the parts; expected numbers; every drop counted."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.pairs import MATCHED_SCHEMA, SIBLINGS_SCHEMA, image_keys, pair_keys
from balancing.sampling import CHOOSE, KEEP, uniform
from balancing.selection import chosen_rows, row_probabilities, select_rows
from balancing.siblings import RECORD, siblings_table, verdicts_by_part
from metadata.tally import Tally

LANGUAGES = ["de", "en", "zh"]
PROBABILITY = {
    "de": np.array([1.0, 0.5, 0.25, 0.0]),
    "en": np.array([0.01, 0.1, 0.3, 0.9, 1.0]),
    "zh": np.array([0.4, 0.4, 0.4, 0.4]),
}

Pair = tuple[str, str, str, tuple[int, ...]]  # image, text, language, entries


def make_pool(images: int, seed: int, *, copies: float = 0.3) -> list[Pair]:
    """Images of 1 to 5 texts in 1 to 3 languages, some pairs more than once, in random order."""
    rng = np.random.default_rng(seed)
    pool: list[Pair] = []
    for i in range(images):
        for j in range(rng.integers(1, 6)):
            lang = LANGUAGES[rng.integers(0, 3)]
            entries = tuple(np.flatnonzero(rng.random(4) < 0.5).tolist()) or (2,)
            pool += [(f"image{i}", f"text{j}", lang, entries)] * (1 + (rng.random() < copies))
    return [pool[i] for i in rng.permutation(len(pool))]


def to_parts(pool: list[Pair], parts: int) -> tuple[list[pa.Table], list[pa.Table]]:
    """Matched parts in stored order (only the columns that selection reads), and their siblings."""
    tables, records = [], []
    for part in range(parts):
        mine = sorted(set(pool[part::parts]), key=lambda pair: (pair[2], pair[0], pair[1]))
        images, texts = [pair[0] for pair in mine], [pair[1] for pair in mine]
        columns = {
            "image_id": pa.array(images, pa.string()),
            "text": pa.array(texts, pa.string()),
            "lang": pa.array([pair[2] for pair in mine], pa.string()).dictionary_encode(),
            "entries": pa.array([list(pair[3]) for pair in mine], MATCHED_SCHEMA.field("entries").type),
            "image_key": pa.array(image_keys(images)),
            "pair_key": pa.array(pair_keys(images, texts)),
        }
        tables.append(pa.table(columns))
        record = np.zeros(len(mine), dtype=RECORD)
        record["image_key"], record["pair_key"] = image_keys(images), pair_keys(images, texts)
        record["lang"], record["part"], record["row"] = [LANGUAGES.index(pair[2]) for pair in mine], part, np.arange(len(mine))
        records.append(record)
    verdicts = verdicts_by_part(np.concatenate(records))
    return tables, [siblings_table(len(t), [verdicts[i]] if i in verdicts else [], LANGUAGES) for i, t in enumerate(tables)]


def probability_of(pair: Pair) -> float:
    miss = 1.0
    for entry in pair[3]:
        miss *= 1.0 - float(PROBABILITY[pair[2]][entry])
    return 1.0 - miss


def brute_force(pool: list[Pair], languages: list[str], seed: int, epoch: int) -> dict[tuple[str, str], float]:
    """The curated pairs and their probabilities by a loop: one text of the selected languages an image, then its own draw."""
    by_image: dict[str, set[Pair]] = {}
    for pair in pool:
        if pair[2] in languages:
            by_image.setdefault(pair[0], set()).add(pair)
    out = {}
    for image, pairs in by_image.items():
        texts = sorted(pairs, key=lambda pair: (pair[2], int(pair_keys([image], [pair[1]])[0])))
        pair = texts[math.floor(uniform(seed, epoch, CHOOSE, image_keys([image]))[0] * len(texts))]
        if uniform(seed, epoch, KEEP, pair_keys([image], [pair[1]]))[0] < probability_of(pair):
            out[image, pair[1]] = probability_of(pair)
    return out


def select(pool: list[Pair], *, parts: int, languages: list[str], seed: int, epoch: int) -> tuple[dict[tuple[str, str], float], Tally]:
    chosen_pairs: dict[tuple[str, str], float] = {}
    tally = Tally()
    rows_in = rows_out = 0
    for matched, siblings in zip(*to_parts(pool, parts), strict=True):
        rows, odds = select_rows(
            matched, siblings, probability={lang: PROBABILITY[lang] for lang in languages}, seed=seed, epoch=epoch, tally=tally
        )
        assert rows.tolist() == sorted(set(rows.tolist()))
        taken = matched.take(pa.array(rows))
        keys = list(zip(taken["image_id"].to_pylist(), taken["text"].to_pylist(), strict=True))
        assert not set(keys) & set(chosen_pairs)
        chosen_pairs.update(zip(keys, odds.tolist(), strict=True))
        rows_in, rows_out = rows_in + len(matched), rows_out + len(rows)
    assert (tally.read, tally.emitted) == (rows_in, rows_out)
    assert tally.balanced
    return chosen_pairs, tally


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    images=st.integers(1, 12),
    parts=st.integers(1, 4),
    languages=st.sets(st.sampled_from(LANGUAGES)).map(sorted),
    epoch=st.integers(0, 3),
)
def test_selection_is_that_of_a_loop(seed: int, images: int, parts: int, languages: list[str], epoch: int) -> None:
    pool = make_pool(images, seed)
    found, _ = select(pool, parts=parts, languages=languages, seed=seed, epoch=epoch)
    assert found == brute_force(pool, languages, seed, epoch)


def test_parts_do_not_show_and_every_drop_is_counted() -> None:
    pool = make_pool(300, seed=5)
    languages = ["de", "zh"]
    expected = brute_force(pool, languages, 11, 0)
    unique = {pair[:3] for pair in pool}
    candidates = {pair[0] for pair in unique if pair[2] in languages}
    for parts in (1, 3, 7):
        found, tally = select(pool, parts=parts, languages=languages, seed=11, epoch=0)
        assert found == expected
        stored = sum(len(set(pool[part::parts])) for part in range(parts))
        assert tally.dropped == +Counter(
            {
                "duplicate": stored - len(unique),
                "language_not_selected": sum(pair[2] not in languages for pair in unique),
                "not_chosen": sum(pair[2] in languages for pair in unique) - len(candidates),
                "balanced_away": len(candidates) - len(expected),
            }
        )
    assert 0 < len(expected) < len(candidates)


def test_expected_number_is_the_sum_of_p_over_n() -> None:
    pool = make_pool(1500, seed=1)
    unique = set(pool)
    texts = Counter(pair[0] for pair in unique)
    expected = sum(probability_of(pair) / texts[pair[0]] for pair in unique)
    runs = [len(select(pool, parts=1, languages=LANGUAGES, seed=3, epoch=epoch)[0]) for epoch in range(8)]
    # The variance of one image's draw is at most 1/4.
    deviation = math.sqrt(len(texts) / 4 * len(runs))
    assert abs(sum(runs) - expected * len(runs)) < 4 * deviation
    assert abs(sum(runs) / len(runs) - len(texts)) > 4 * deviation / len(runs)


def test_seed_and_epoch_matter_and_nothing_else() -> None:
    pool = make_pool(200, seed=2)
    first = select(pool, parts=2, languages=LANGUAGES, seed=0, epoch=0)[0]
    assert select(pool, parts=2, languages=LANGUAGES, seed=0, epoch=0)[0] == first
    assert select(pool[::-1], parts=2, languages=LANGUAGES[::-1], seed=0, epoch=0)[0] == first
    others = [select(pool, parts=2, languages=LANGUAGES, seed=seed, epoch=epoch)[0] for seed, epoch in ((0, 1), (1, 0), (1, 1))]
    assert len({tuple(sorted(found)) for found in (first, *others)}) == 4


def test_epoch_zero_is_the_default() -> None:
    (matched,), (siblings,) = to_parts(make_pool(50, seed=3), 1)
    rows, odds = select_rows(matched, siblings, probability=PROBABILITY, seed=1, tally=Tally())
    again, same = select_rows(matched, siblings, probability=PROBABILITY, seed=1, epoch=0, tally=Tally())
    assert rows.tolist() == again.tolist()
    assert odds.tolist() == same.tolist()


def test_over_the_epochs_every_text_of_an_image_is_chosen() -> None:
    pool = make_pool(40, seed=4)
    (matched,), (siblings,) = to_parts(pool, 1)
    draws = [chosen_rows(matched, siblings, selected=frozenset(LANGUAGES), seed=0, epoch=epoch) for epoch in range(100)]
    times = np.sum(draws, axis=0)
    assert (times > 0).all()
    assert times.sum() == 100 * 40


def test_row_probabilities_of_a_part() -> None:
    pool = make_pool(60, seed=6)
    (matched,), _ = to_parts(pool, 1)
    rows = matched.select(["image_id", "text", "lang", "entries"]).to_pylist()
    pairs = [(row["image_id"], row["text"], row["lang"], tuple(row["entries"])) for row in rows]
    assert row_probabilities(matched, PROBABILITY).tolist() == [probability_of(pair) for pair in pairs]
    without = row_probabilities(matched, {"en": PROBABILITY["en"]}).tolist()
    assert without == [probability_of(pair) if pair[2] == "en" else 0.0 for pair in pairs]
    assert row_probabilities(matched.slice(7, 20), PROBABILITY).tolist() == [probability_of(pair) for pair in pairs[7:27]]


@pytest.mark.parametrize("entry", [-1, 4, 99])
def test_ids_outside_are_refused(entry: int) -> None:
    (matched,), _ = to_parts([("i", "t", "zh", (1, entry))], 1)
    with pytest.raises(ValueError, match=f"zh: entry id {entry} is outside the list of 4 entries"):
        row_probabilities(matched, PROBABILITY)


def test_an_empty_part_and_no_language() -> None:
    tally = Tally()
    rows, odds = select_rows(MATCHED_SCHEMA.empty_table(), SIBLINGS_SCHEMA.empty_table(), probability=PROBABILITY, seed=0, tally=tally)
    assert (rows.tolist(), odds.tolist(), tally.read) == ([], [], 0)
    (matched,), (siblings,) = to_parts(make_pool(5, seed=1, copies=0), 1)
    rows, _ = select_rows(matched, siblings, probability={}, seed=0, tally=tally)
    assert rows.tolist() == []
    assert tally.dropped == {"language_not_selected": len(matched)}
