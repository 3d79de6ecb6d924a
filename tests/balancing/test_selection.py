"""The curated set against a loop over pairs, whatever the parts; expected numbers; every drop counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.counts import list_arrays, rows_by_language
from balancing.expectation import SCALE, expected_of_part, inverse_counts
from balancing.pairs import MATCHED_SCHEMA, SIBLINGS_SCHEMA, image_keys, pair_keys
from balancing.sampling import CHOOSE, KEEP, entry_probabilities, kept, uniform
from balancing.selection import chosen_rows, row_probabilities, select_rows, sibling_rows
from balancing.siblings import RECORD, siblings_table, verdicts_by_part
from metadata.tally import Tally
from tests.pipelines.pools import PoolShape, draw_part

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


@pytest.mark.parametrize("languages", [[], ["de"], ["de", "zh"], LANGUAGES])
def test_all_siblings_are_what_a_draw_could_take(languages: list[str]) -> None:
    pool = make_pool(200, seed=8)
    unique = set(pool)
    expected = {(pair[0], pair[1]): probability_of(pair) for pair in unique if pair[2] in languages}
    for parts in (1, 3):
        tally, found = Tally(), dict[tuple[str, str], float]()
        for matched, siblings in zip(*to_parts(pool, parts), strict=True):
            rows, odds = sibling_rows(matched, siblings, probability={lang: PROBABILITY[lang] for lang in languages}, tally=tally)
            taken = matched.take(pa.array(rows))
            found |= dict(zip(zip(taken["image_id"].to_pylist(), taken["text"].to_pylist(), strict=True), odds.tolist(), strict=True))
        assert found == expected
        stored = sum(len(set(pool[part::parts])) for part in range(parts))
        drops = {"duplicate": stored - len(unique), "language_not_selected": len(unique) - len(expected)}
        assert (tally.read, tally.emitted, tally.dropped) == (stored, len(expected), +Counter(drops))
        assert tally.balanced


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


def test_of_texts_spread_over_parts_one_is_chosen_evenly_however_many_parts_there_are() -> None:
    """A hundred thousand images of seven texts in three languages; with seven parts each text of an image lies in another."""
    images, texts = 100_000, 7
    rng = np.random.default_rng(7)
    number = np.arange(images * texts)
    image = np.repeat(rng.integers(0, 2**64, images, dtype=np.uint64), texts)
    pair = rng.integers(0, 2**64, images * texts, dtype=np.uint64)
    lang = (number % texts % len(LANGUAGES)).astype(np.int32)
    draws = []
    for parts in (1, 3, 7):
        stored = [mine[np.lexsort((pair[mine], image[mine], lang[mine]))] for mine in (number[part::parts] for part in range(parts))]
        record = np.zeros(len(number), dtype=RECORD)
        order = np.concatenate(stored)
        record["image_key"], record["pair_key"], record["lang"] = image[order], pair[order], lang[order]
        record["part"] = np.repeat(np.arange(parts), [len(mine) for mine in stored])
        record["row"] = np.concatenate([np.arange(len(mine)) for mine in stored])
        verdicts = verdicts_by_part(record)
        taken = []
        for part, mine in enumerate(stored):
            langs = pa.DictionaryArray.from_arrays(pa.array(lang[mine]), pa.array(LANGUAGES))
            matched = pa.table({"lang": langs, "image_key": image[mine]})
            siblings = siblings_table(len(mine), [verdicts[part]], LANGUAGES)
            taken.append(mine[chosen_rows(matched, siblings, selected=frozenset(LANGUAGES), seed=1, epoch=0)])
        draws.append(np.sort(np.concatenate(taken)))
        assert (draws[-1] // texts == np.arange(images)).all()
        assert (draws[-1] == draws[0]).all()
    times = np.bincount(draws[0] % texts, minlength=texts)
    # 27.9 is the 99.99 % point of chi-square with 6 degrees of freedom.
    assert ((times - images / texts) ** 2 / (images / texts)).sum() < 27.9


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


# -- a million pairs -----------------------------------------------------------------------------------------------------------------

#: The 99.99 % point of chi-square with 10 degrees of freedom.
_BEYOND_CHANCE = 35.6
_MANY_T = (10, 100, 1_000)


@dataclass(frozen=True, eq=False)
class Many:
    """A million unique pairs, their siblings, how many texts each one's image has, and the smallest count of each one's entries."""

    matched: pa.Table
    siblings: pa.Table
    texts: np.ndarray
    counts: Mapping[str, np.ndarray]
    rarest: np.ndarray

    def probability(self, t: float) -> dict[str, np.ndarray]:
        return {lang: entry_probabilities(counts, t) for lang, counts in self.counts.items()}

    @cache  # noqa: B019 (there is one)
    def odds(self, t: float) -> np.ndarray:
        """Probability of every row; tests only read it."""
        return row_probabilities(self.matched, self.probability(t))

    @cache  # noqa: B019 (there is one)
    def selected(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are drawn with seed 5, and their probabilities; tests only read them."""
        return select_rows(self.matched, self.siblings, probability=self.probability(t), seed=5, tally=Tally())


@pytest.fixture(scope="module")
def many() -> Many:
    shape = PoolShape(pairs=1_000_000, entries=50_000, texts=4, seed=1)
    matched = draw_part(np.random.default_rng(shape.seed), shape, shape.pairs)
    record = np.zeros(len(matched), dtype=RECORD)
    record["image_key"], record["pair_key"] = matched["image_key"].to_numpy(), matched["pair_key"].to_numpy()
    record["lang"], record["row"] = matched["lang"].combine_chunks().indices.to_numpy(), np.arange(len(matched))
    siblings = siblings_table(len(matched), [verdicts_by_part(record)[0]], sorted(shape.languages))
    _, image, texts = np.unique(matched["image_key"].to_numpy(), return_inverse=True, return_counts=True)
    entries, offsets = list_arrays(matched["entries"])
    counts, rarest = {}, np.zeros(len(matched), dtype=np.int64)
    for lang, first, end in rows_by_language(matched):
        ids = entries[offsets[first] : offsets[end]]
        counts[lang] = np.bincount(ids, minlength=shape.entries)
        rarest[first:end] = np.minimum.reduceat(counts[lang][ids], offsets[first:end] - offsets[first])
    return Many(matched, siblings, texts[image], counts, rarest)


def chi_square(stays: np.ndarray, odds: np.ndarray, rarest: np.ndarray) -> float:
    """How far the number kept is from the sum of probabilities, in tenths of the pairs by the count of their rarest entry."""
    total = 0.0
    for tenth in np.array_split(np.argsort(rarest, kind="stable"), 10):
        variance = float((odds[tenth] * (1 - odds[tenth])).sum())
        off = float(stays[tenth].sum() - odds[tenth].sum())
        # Where all is certain, nothing may be off.
        total += off**2 / variance if variance > 1e-6 else (0.0 if abs(off) < 1e-6 else math.inf)
    return total


@pytest.mark.parametrize("t", _MANY_T)
def test_pairs_are_kept_as_often_as_their_probability_says(many: Many, t: int) -> None:
    odds = many.odds(t)
    keys = many.matched["pair_key"].to_numpy()
    assert 0.02 < odds.mean() < 0.95
    assert chi_square(kept(keys, odds, seed=5, epoch=0), odds, many.rarest) < _BEYOND_CHANCE
    # The test sees a keep rate that is off by a hundredth of itself.
    assert chi_square(kept(keys, odds * 0.99, seed=5, epoch=0), odds, many.rarest) > 2 * _BEYOND_CHANCE


@pytest.mark.parametrize("t", _MANY_T)
def test_so_are_the_chosen_texts_of_images_with_several(many: Many, t: int) -> None:
    odds = many.odds(t)
    rows, of_kept = many.selected(t)
    stays = np.zeros(len(odds), dtype=bool)
    stays[rows] = True
    assert (odds[rows] == of_kept).all()
    chosen = chosen_rows(many.matched, many.siblings, selected=frozenset(many.counts), seed=5, epoch=0)
    for texts in (2, 3, 4, 5):
        mine = chosen & (many.texts == texts)
        assert mine.sum() > 20_000
        assert np.count_nonzero(mine) * texts == np.count_nonzero(many.texts == texts)
        assert chi_square(stays[mine], odds[mine], many.rarest[mine]) < _BEYOND_CHANCE


def test_sets_of_rising_t_are_nested(many: Many) -> None:
    sets = [set(many.selected(t)[0].tolist()) for t in (*_MANY_T, math.inf)]
    assert [len(s) for s in sets] == sorted({len(s) for s in sets})
    for small, large in pairwise(sets):
        assert small < large
    assert len(sets[-1]) == len(np.unique(many.matched["image_key"].to_numpy()))


def test_a_pass_expects_what_is_drawn(many: Many) -> None:
    """The sum over pairs of probability over number of texts, and the number that a draw keeps."""
    ts = np.array(_MANY_T, dtype=float)
    sums = expected_of_part(
        many.matched,
        many.texts,
        np.ones(len(many.texts), dtype=bool),
        t=dict.fromkeys(many.counts, ts),
        inverse=lambda lang: inverse_counts(many.counts[lang]),
    )
    expected = sum(of[1:] for _, of in sums) / SCALE
    for t, n in zip(_MANY_T, expected.tolist(), strict=True):
        exact = (many.odds(t) / many.texts).sum()
        assert n == pytest.approx(exact, rel=1e-6)
        assert abs(len(many.selected(t)[0]) - n) < 4 * math.sqrt(n)


def test_the_trainer_draws_in_epoch_0_what_is_curated_offline(many: Many) -> None:
    """Online: of an image's texts, in the order of language and pair key, the one at floor(u · texts), kept if its own u says so."""
    probability = many.probability(100)
    odds = many.odds(100)
    image, pair = (many.matched[name].to_numpy() for name in ("image_key", "pair_key"))
    # The table is sorted by language, then image, then pair: stable by image it is each image's texts in order.
    order = np.argsort(image, kind="stable")
    starts = np.flatnonzero(np.concatenate(([True], np.diff(image[order]) != 0)))
    lengths = np.diff(np.append(starts, len(order)))
    for epoch in (0, 3):
        drawn = order[starts + np.floor(uniform(5, epoch, CHOOSE, image[order][starts]) * lengths).astype(np.int64)]
        online = drawn[uniform(5, epoch, KEEP, pair[drawn]) < odds[drawn]]
        offline, _ = select_rows(many.matched, many.siblings, probability=probability, seed=5, epoch=epoch, tally=Tally())
        assert sorted(online.tolist()) == offline.tolist()
