"""Keyed draws: frozen values, uniform, independent, exact to the last bit, nested, one text an image."""

from __future__ import annotations

import math
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancing.sampling import CHOOSE, KEEP, chosen, entry_probabilities, kept, place_among_languages, text_probabilities, uniform

KEYS = np.array([0, 1, 2, 0x0123456789ABCDEF, 2**63, 2**64 - 1], dtype=np.uint64)


def _random_keys(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def _splitmix(key: int, salt: int) -> float:
    """SplitMix64's finalizer in Python integers."""
    mask = 2**64 - 1
    x = (key + (salt | 1) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    x ^= x >> 31
    return (x >> 11) / 2**53


# Any change here makes another set of every card that was ever published.
GOLDEN = {
    (0, 0, CHOOSE): [
        "0x1.7b424860dcbd0p-5",
        "0x1.8f1ebf743e520p-3",
        "0x1.e8c6b3be1da60p-6",
        "0x1.a380f1d9b2c4ap-2",
        "0x1.438fcb37c34dfp-1",
        "0x1.ba35079a3e9d6p-1",
    ],
    (0, 0, KEEP): [
        "0x1.eefaf65397146p-2",
        "0x1.50054a4e95edbp-1",
        "0x1.4f650c69b784bp-1",
        "0x1.fc0d83a0de1e7p-1",
        "0x1.2b96804c55976p-1",
        "0x1.93810f94f2b40p-5",
    ],
    (0, 1, KEEP): [
        "0x1.4dc3ba9429778p-2",
        "0x1.35a1d23716004p-3",
        "0x1.71222e837af48p-4",
        "0x1.ad5f8a150d3f8p-2",
        "0x1.19f023d4ae5dep-1",
        "0x1.840bb815d1bf6p-2",
    ],
    (7, 0, KEEP): [
        "0x1.68717162c43fap-1",
        "0x1.f52abc677d094p-3",
        "0x1.09180dcff3cc0p-2",
        "0x1.1486ce3399330p-3",
        "0x1.3283611080daep-1",
        "0x1.2863038c77d78p-4",
    ],
    (-1, 3, CHOOSE): [
        "0x1.08aff0c20e099p-1",
        "0x1.d20df26859600p-6",
        "0x1.2e363b7447a6ap-1",
        "0x1.1158e76310110p-2",
        "0x1.c4cc44ef6dda8p-1",
        "0x1.f010e1f0eaa28p-4",
    ],
}


@pytest.mark.parametrize(("seed", "epoch", "purpose"), GOLDEN)
def test_golden_values(seed: int, epoch: int, purpose: str) -> None:
    assert [u.hex() for u in uniform(seed, epoch, purpose, KEYS).tolist()] == GOLDEN[seed, epoch, purpose]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(0, 2**32), st.integers(0, 100), st.sampled_from([CHOOSE, KEEP]))
def test_draws_are_splitmix_of_key_and_salt(keys: list[int], seed: int, epoch: int, purpose: str) -> None:
    salt = int.from_bytes(blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest(), "little")
    drawn = uniform(seed, epoch, purpose, np.array(keys, dtype=np.uint64))
    assert drawn.dtype == np.float64
    assert drawn.tolist() == [_splitmix(key, salt) for key in keys]
    assert ((drawn >= 0) & (drawn < 1)).all()


def test_a_draw_depends_on_nothing_but_its_key() -> None:
    keys = _random_keys(1000)
    drawn = uniform(3, 1, KEEP, keys)
    order = np.random.default_rng(1).permutation(1000)
    assert (uniform(3, 1, KEEP, keys[order]) == drawn[order]).all()
    assert (uniform(3, 1, KEEP, keys[10:11]) == drawn[10:11]).all()


def _chi_square(observed: np.ndarray, expected: float) -> float:
    return float(((observed - expected) ** 2).sum() / expected)


@pytest.mark.parametrize(
    "keys", [_random_keys(200_000), np.arange(200_000, dtype=np.uint64), np.arange(200_000, dtype=np.uint64) << np.uint64(40)]
)
@pytest.mark.parametrize("purpose", [CHOOSE, KEEP])
def test_draws_are_uniform(keys: np.ndarray, purpose: str) -> None:
    """Chi-square with 255 degrees of freedom: 367 is its 99.9999 % point; consecutive keys must do as well as random ones."""
    observed = np.bincount((uniform(0, 0, purpose, keys) * 256).astype(int), minlength=256)
    assert 140 < _chi_square(observed, len(keys) / 256) < 367


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 0, CHOOSE), (0, 0, KEEP)),
        ((0, 0, KEEP), (0, 1, KEEP)),
        ((0, 0, KEEP), (1, 0, KEEP)),
        ((1, 11, KEEP), (11, 1, KEEP)),
    ],
)
def test_streams_are_independent(first: tuple[int, int, str], second: tuple[int, int, str]) -> None:
    """The joint distribution on the same keys, 16 × 16 cells: chi-square with 255 degrees of freedom."""
    keys = _random_keys(200_000, seed=5)
    cells = (uniform(*first, keys) * 16).astype(int) * 16 + (uniform(*second, keys) * 16).astype(int)
    assert 140 < _chi_square(np.bincount(cells, minlength=256), len(keys) / 256) < 367


@given(st.lists(st.integers(0, 10**12), max_size=20), st.integers(1, 10**6))
@example([0, 1, 6, 7, 8, 9], 7)
def test_entry_probabilities(counts: list[int], t: int) -> None:
    p = entry_probabilities(np.array(counts, dtype=np.int64), t)
    assert p.dtype == np.float64
    assert p.tolist() == [1.0 if c < t else t / c for c in counts]
    assert entry_probabilities(np.array(counts, dtype=np.int64), math.inf).tolist() == [1.0] * len(counts)


def _lists(parts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    flat = [e for part in parts for e in part]
    return np.array(flat, dtype=np.int32), np.cumsum([0, *map(len, parts)]).astype(np.int32)


def _left_to_right(probability: np.ndarray, ids: list[int]) -> float:
    miss = 1.0
    for i in ids:
        miss *= 1.0 - float(probability[i])
    return 1.0 - miss


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12).flatmap(
        lambda p: st.tuples(st.just(p), st.lists(st.lists(st.integers(0, len(p) - 1), max_size=30), max_size=8))
    )
)
def test_text_probabilities_are_a_left_to_right_loop_bit_for_bit(case: tuple[list[float], list[list[int]]]) -> None:
    probability, texts = np.array(case[0]), case[1]
    assert text_probabilities(probability, *_lists(texts)).tolist() == [_left_to_right(probability, ids) for ids in texts]


def test_long_products_are_a_left_to_right_loop_bit_for_bit() -> None:
    """Lengths at which numpy's own reductions regroup."""
    rng = np.random.default_rng(2)
    probability = rng.random(5000) * 0.01
    texts = [rng.integers(0, 5000, n).tolist() for n in [0, 1, 7, 8, 9, 127, 128, 129, 1000, 5000, 3, 0]]
    assert text_probabilities(probability, *_lists(texts)).tolist() == [_left_to_right(probability, ids) for ids in texts]


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=3), st.integers(1, 1000), st.integers(1, 1000))
def test_kept_sets_are_nested_in_t(counts: list[int], t: int, more: int) -> None:
    keys = _random_keys(64)
    entries, offsets = _lists([[i % 3, (i + 1) % 3][: 1 + i % 2] for i in range(64)])
    small, large = (text_probabilities(entry_probabilities(np.array(counts), x), entries, offsets) for x in (t, t + more))
    assert (small <= large).all()
    inside, outside = (kept(keys, p, seed=4, epoch=2) for p in (small, large))
    assert not (inside & ~outside).any()


def test_certain_and_impossible() -> None:
    keys = _random_keys(1000)
    assert kept(keys, np.ones(1000), seed=0, epoch=0).all()
    assert not kept(keys, np.zeros(1000), seed=0, epoch=0).any()


@pytest.mark.parametrize("epoch", [0, 3])
def test_keep_rates_are_the_probabilities(epoch: int) -> None:
    """A text of some entries is kept 1 − Π (1 − p) of the time: per tenth of probability within 4.5 standard deviations."""
    rng = np.random.default_rng(3)
    n = 300_000
    counts = (10 ** rng.uniform(0, 4, 1000)).astype(np.int64)
    texts = rng.integers(0, 1000, (n, 3)).astype(np.int32)
    p = text_probabilities(entry_probabilities(counts, 20), texts.ravel(), np.arange(0, 3 * n + 1, 3))
    stays = kept(_random_keys(n, seed=9), p, seed=1, epoch=epoch)
    for decile in range(10):
        mine = (p >= decile / 10) & ((p < (decile + 1) / 10) | (decile == 9))
        assert mine.sum() > 200
        deviation = math.sqrt(float((p[mine] * (1 - p[mine])).sum()))
        assert abs(stays[mine].sum() - p[mine].sum()) <= 4.5 * deviation


def test_a_chosen_text_is_kept_no_more_often_than_any() -> None:
    """With one stream for both draws, a text of three with probability 0.30 would be kept 0.66 of the time."""
    n = 100_000
    images, pairs = _random_keys(n, seed=1), _random_keys(n, seed=2)
    for keys in (pairs, images):  # even when the pair's key is the image's own
        mine = chosen(images, np.zeros(n), np.zeros(n), np.full(n, 3), seed=0, epoch=0)
        rate = kept(keys, np.full(n, 0.30), seed=0, epoch=0)[mine].mean()
        assert abs(rate - 0.30) < 4.5 * math.sqrt(0.3 * 0.7 / mine.sum())


def _images(n: int, seed: int) -> np.ndarray:
    """Per image the numbers of its texts in three languages, 1 to 5 in all."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(rng.integers(1, 6, n), [0.5, 0.3, 0.2])


@pytest.mark.parametrize("selected", [[1, 1, 1], [1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 0]])
def test_exactly_one_text_an_image_and_each_equally_often(selected: list[int]) -> None:
    """100,000 images, their texts scattered over the table, any subset of the languages."""
    n = 100_000
    images = _images(n, seed=8)
    present = images > 0
    rows_image, rows_lang = np.nonzero(present)
    repeat = images[rows_image, rows_lang]
    rank = np.arange(repeat.sum()) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    row_image, row_lang = np.repeat(rows_image, repeat), np.repeat(rows_lang, repeat)
    shuffled = np.random.default_rng(4).permutation(len(rank))
    rank, row_image, row_lang = rank[shuffled], row_image[shuffled], row_lang[shuffled]
    n_lengths = present.sum(axis=1)[row_image]
    n_lang, n_count = np.nonzero(present[row_image])[1], images[row_image][present[row_image]]
    offsets = np.concatenate(([0], np.cumsum(n_lengths)))
    before, total = place_among_languages(row_lang, n_lang, n_count, offsets, np.array(selected, dtype=bool))

    chosen_of = np.array(selected)
    assert (total == (images * chosen_of).sum(axis=1)[row_image]).all()
    keys = _random_keys(n, seed=6)
    in_language = chosen_of[row_lang].astype(bool)
    is_chosen = chosen(keys[row_image], np.where(in_language, rank, -1), before, total, seed=2, epoch=0)
    assert not is_chosen[~in_language].any()
    per_image = np.bincount(row_image[is_chosen], minlength=n)
    totals = (images * chosen_of).sum(axis=1)
    assert (per_image == (totals > 0)).all()
    number = (before + rank)[is_chosen]
    for size in range(2, 6):
        drawn = np.bincount(number[total[is_chosen] == size], minlength=size)
        if drawn.sum():
            assert len(drawn) == size
            # 32 is beyond the 99.999 % point for up to 4 degrees of freedom.
            assert _chi_square(drawn, drawn.sum() / size) < 32


@settings(max_examples=50)
@given(st.data())
def test_place_among_languages_is_a_loop(data: st.DataObject) -> None:
    lists = data.draw(st.lists(st.dictionaries(st.integers(0, 4), st.integers(1, 2**31 - 1), max_size=5), max_size=8))
    row_lang = np.array([data.draw(st.integers(0, 4)) for _ in lists], dtype=np.int32)
    selected = data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
    langs = np.array([lang for n in lists for lang in sorted(n)], dtype=np.int32)
    counts = np.array([n[lang] for n in lists for lang in sorted(n)], dtype=np.int32)
    before, total = place_among_languages(row_lang, langs, counts, np.cumsum([0, *map(len, lists)]), selected)
    assert before.tolist() == [
        sum(c for lang, c in n.items() if selected[lang] and lang < mine) for n, mine in zip(lists, row_lang, strict=True)
    ]
    assert total.tolist() == [sum(c for lang, c in n.items() if selected[lang]) for n in lists]
    assert (before.dtype, total.dtype) == (np.int64, np.int64)


def test_a_draw_next_to_one_never_passes_the_last_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancing.sampling.uniform", lambda *_: np.full(100_000, 1 - 2.0**-53))
    total = np.arange(1, 100_001)
    assert chosen(np.zeros(100_000, dtype=np.uint64), total - 1, np.zeros(100_000, dtype=np.int64), total, seed=0, epoch=0).all()
