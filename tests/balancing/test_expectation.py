"""The expected number of pairs against a loop over pairs, and the search against the best of all thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.counts import BLOCK
from balancing.expectation import (
    GRID,
    SCALE,
    SHARED,
    TOLERANCE,
    Search,
    expected_of_part,
    expected_of_texts,
    groups_for,
    guess_of_counts,
    inverse_counts,
    spread,
)
from balancing.pairs import MATCHED_SCHEMA
from balancing.sampling import entry_probabilities, text_probabilities
from balancing.thresholds import threshold_of_share

COUNTS = st.lists(st.integers(1, 30) | st.integers(1, 10**9), min_size=1, max_size=12)
TEXTS = st.lists(st.tuples(st.sets(st.integers(0, 11), min_size=1, max_size=12).map(sorted), st.integers(1, 9), st.booleans()), max_size=20)
THRESHOLDS = st.lists(st.integers(1, 40) | st.integers(1, 10**9) | st.just(math.inf), min_size=1, max_size=GRID + 3)


def probability(counts: list[int], entries: list[int], t: float) -> float:
    miss = 1.0
    for entry in entries:
        miss *= 1.0 - (1.0 if counts[entry] < t else t / counts[entry])
    return 1.0 - miss


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([i for ids in lists for i in ids], dtype=np.int32), np.cumsum([0, *map(len, lists)]).astype(np.int32)


@settings(max_examples=200)
@given(counts=COUNTS, texts=TEXTS, ts=THRESHOLDS)
def test_expected_is_the_sum_over_texts(counts: list[int], texts: list[tuple[list[int], int, bool]], ts: list[float]) -> None:
    lists = [[i % len(counts) for i in ids] for ids, _, _ in texts]
    lists = [sorted(set(ids)) for ids in lists]
    n = np.array([n for _, n, _ in texts], dtype=np.int64)
    found = expected_of_texts(inverse_counts(np.array(counts)), *flat(lists), 1.0 / n, np.array(ts, dtype=float))
    assert found.dtype == np.int64
    for sums, t in zip(found.tolist(), ts, strict=True):
        exact = math.fsum(probability(counts, ids, t) / k for ids, k in zip(lists, n.tolist(), strict=True))
        # Each text is rounded down to a whole unit, and its float32 is off by some 10^-7 of itself.
        assert sums / SCALE == pytest.approx(exact, rel=3e-6, abs=2 * (len(lists) + 1) / SCALE)


def test_more_texts_than_are_evaluated_together() -> None:
    rng = np.random.default_rng(0)
    counts = (10 ** rng.uniform(0, 7, 5_000)).astype(np.int64)
    lists = [rng.integers(0, 5_000, 1 + i % 7 + 40 * (i % 1000 == 0)).tolist() for i in range(20_000)]
    entries, offsets = flat(lists)
    n = rng.integers(1, 6, len(lists))
    ts = np.array([1, 10, 1_000, 50_000, math.inf])
    found = expected_of_texts(inverse_counts(counts), entries, offsets, 1 / n, ts)
    exact = [(text_probabilities(entry_probabilities(counts, t), entries, offsets) / n).sum() for t in ts]
    assert found / SCALE == pytest.approx(exact, rel=1e-6)
    shuffled = rng.permutation(len(lists))
    moved = expected_of_texts(inverse_counts(counts), *flat([lists[i] for i in shuffled]), 1 / n[shuffled], ts)
    assert moved.tolist() == found.tolist()
    halves = [expected_of_texts(inverse_counts(counts), *flat(lists[a:b]), 1 / n[a:b], ts) for a, b in ((0, 9_999), (9_999, 20_000))]
    assert (halves[0] + halves[1]).tolist() == found.tolist()


def test_nothing_is_nothing() -> None:
    assert expected_of_texts(np.ones(3, np.float32), *flat([]), np.zeros(0), np.array([1.0, 2.0])).tolist() == [0, 0]


@pytest.mark.parametrize("entry", [-1, 3, BLOCK])
def test_ids_outside_are_refused(entry: int) -> None:
    with pytest.raises(ValueError, match=f"entry id {entry} is outside the list of 3 entries"):
        expected_of_texts(np.ones(3, np.float32), *flat([[0, entry]]), np.ones(1), np.ones(1))


Row = tuple[str, list[int], int, bool]
ROWS = st.lists(
    st.tuples(st.sampled_from(["de", "en", "zh"]), st.sets(st.integers(0, 5), min_size=1).map(sorted), st.integers(1, 4), st.booleans()),
    max_size=25,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))
COUNTS_OF = {"de": [3, 9, 27, 81, 243, 1], "en": [1000, 1, 10, 10, 500, 2]}


def to_table(rows: list[Row]) -> pa.Table:
    lang = pa.array([row[0] for row in rows], pa.string()).dictionary_encode().cast(MATCHED_SCHEMA.field("lang").type)
    return pa.table({"lang": lang, "entries": pa.array([row[1] for row in rows], MATCHED_SCHEMA.field("entries").type)})


@given(rows=ROWS, first=st.integers(0, 10))
def test_expected_of_a_part(rows: list[Row], first: int) -> None:
    """Languages without thresholds are passed over, rows that do not count are, and a slice is a table of its own."""
    t = {"de": np.array([1.0, 5.0, 300.0]), "en": np.array([2.0])}
    cut = rows[first:]
    n, unique = np.array([row[2] for row in cut], dtype=np.int64), np.array([row[3] for row in cut], dtype=bool)
    found = dict(
        expected_of_part(to_table(rows).slice(first), n, unique, t=t, inverse=lambda lang: inverse_counts(np.array(COUNTS_OF[lang])))
    )
    assert set(found) == {row[0] for row in cut} & set(t)
    for lang, sums in found.items():
        mine = [row for row in cut if row[0] == lang and row[3]]
        assert sums[0] == len(mine)
        exact = [math.fsum(probability(COUNTS_OF[lang], ids, of) / k for _, ids, k, _ in mine) for of in t[lang]]
        assert (sums[1:] / SCALE).tolist() == pytest.approx(exact, rel=1e-6, abs=1e-6)


def test_the_language_of_a_bad_id_is_named() -> None:
    with pytest.raises(ValueError, match="en: entry id 6 is outside the list of 6 entries"):
        list(
            expected_of_part(
                to_table([("en", [0, 6], 1, True)]),
                np.ones(1),
                np.ones(1, dtype=bool),
                t={"en": np.ones(1)},
                inverse=lambda lang: inverse_counts(np.array(COUNTS_OF[lang])),
            )
        )


# -- the search ----------------------------------------------------------------------------------------------------------------------


class World:
    """Languages with counts, and the expected number of each at any t, told as a pass does."""

    def __init__(self, seed: int, languages: int, entries: int) -> None:
        rng = np.random.default_rng(seed)
        self.counts, self.texts = {}, {}
        for i in range(languages):
            counts = np.maximum(1, (rng.uniform(1e3, 1e6) / (np.arange(entries) + 3.0) ** 1.2)).astype(np.int64)
            lists = [np.unique(rng.zipf(1.3, 4) % entries).tolist() for _ in range(1_500 // (i + 1))]
            self.counts[f"l{i}"], self.texts[f"l{i}"] = counts, (flat(lists), 1.0 / rng.integers(1, 4, len(lists)))
        self.passes = 0

    def expected(self, lang: str, ts: list[float]) -> dict[float, float]:
        (entries, offsets), weight = self.texts[lang]
        sums = expected_of_texts(inverse_counts(self.counts[lang]), entries, offsets, weight, np.array(ts))
        return dict(zip(ts, (sums / SCALE).tolist(), strict=True))

    def at(self, t: Mapping[str, float]) -> float:
        return math.fsum(self.expected(lang, [of])[of] for lang, of in t.items())

    def solve(self, search: Search) -> Search:
        for _ in range(8):
            grid = search.grid()
            assert max(map(len, grid.values())) <= GRID + 2
            assert all(ts == sorted(set(ts)) for ts in grid.values())
            search.add({lang: self.expected(lang, ts) for lang, ts in grid.items()})
            self.passes += 1
            if search.is_done():
                return search
        raise AssertionError("no end")


def all_steps(world: World) -> list[float]:
    """The expected number at every set of thresholds that any tail share gives."""
    cums = [np.cumsum(np.sort(c)) / c.sum() for c in world.counts.values()]
    edges = np.unique(np.concatenate([np.concatenate(([0.0], (c[1:] + c[:-1]) / 2, [1.0])) for c in cums]))
    shares = np.concatenate((edges, (edges[1:] + edges[:-1]) / 2))
    sets = {tuple(sorted((lang, float(threshold_of_share(c, p))) for lang, c in world.counts.items())) for p in shares.tolist()}
    return sorted(world.at(dict(one)) for one in sets)


@pytest.mark.parametrize("languages", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_found_is_the_best_there_is(seed: int, languages: int) -> None:
    """Few entries, so that every set of thresholds can be tried; wanted: the least and the most, and five between."""
    world = World(seed, languages, 30)
    steps = all_steps(world)
    for wanted in (steps[0], *np.linspace(steps[0], steps[-1], 7)[1:-1].tolist(), steps[-1]):
        search = world.solve(Search(groups=groups_for(world.counts, wanted, shares={}, fixed=())))
        answer = search.answers()[SHARED]
        assert answer.t == {lang: threshold_of_share(c, answer.knob) for lang, c in world.counts.items()}
        found, best = world.at(answer.t), min(steps, key=lambda n: abs(n - wanted))
        assert answer.expected == pytest.approx(found, abs=TOLERANCE * wanted)
        assert abs(found - wanted) <= abs(best - wanted) + 1e-3 * wanted


@pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5, 0.7, 0.95])
def test_many_entries_are_hit_to_a_step(wanted: float) -> None:
    world = World(5, 3, 20_000)
    most = world.at({lang: float(c.max()) for lang, c in world.counts.items()})
    least = world.at(dict.fromkeys(world.counts, 1.0))
    target = least + (most - least) * wanted
    search = world.solve(Search(groups=groups_for(world.counts, target, shares={}, fixed=())))
    answer = search.answers()[SHARED]
    assert abs(answer.expected - target) <= answer.step
    assert world.at(answer.t) == pytest.approx(answer.expected, rel=1e-4)
    assert world.passes <= 5
    # A search that was told where to look needs one pass.
    world.passes = 0
    for guess in (answer.knob, answer.knob * 1.004):
        again = world.solve(Search(groups=groups_for(world.counts, target, shares={}, fixed=()), around={SHARED: guess}))
        assert again.answers()[SHARED].t == pytest.approx(answer.t, rel=1e-3)
    assert world.passes == 2
    far = world.solve(Search(groups=groups_for(world.counts, target, shares={}, fixed=()), around={SHARED: min(1.0, answer.knob * 50)}))
    assert world.at(far.answers()[SHARED].t) == pytest.approx(world.at(answer.t), abs=2 * answer.step + 1e-3 * target)


def test_a_language_by_itself_is_hit_to_a_pair() -> None:
    world = World(7, 1, 3_000)
    most = world.at({"l0": float(world.counts["l0"].max())})
    for wanted in (0.2 * most, 0.5 * most, 0.9 * most):
        group = groups_for(world.counts, wanted, shares={"l0": 1.0}, fixed=())
        assert [g.name for g in group] == ["l0"]
        answer = world.solve(Search(groups=group)).answers()["l0"]
        neighbours = [world.at({"l0": answer.t["l0"] + d}) for d in (-1, 0, 1)]
        assert abs(neighbours[1] - wanted) <= max(abs(neighbours[2] - neighbours[0]), 1e-3 * wanted)


def test_shares_and_fixed_languages() -> None:
    world = World(3, 4, 2_000)
    fixed = {"l3": 50.0}
    shares = {"l1": 0.2}
    target = 600.0
    search = world.solve(Search(groups=groups_for(world.counts, target, shares=shares, fixed=fixed), fixed=fixed))
    answers = search.answers()
    assert set(answers) == {"l1", SHARED}
    assert set(answers[SHARED].t) == {"l0", "l2"}
    t = {**fixed, **answers["l1"].t, **answers[SHARED].t}
    assert world.at(answers["l1"].t) == pytest.approx(0.2 * target, rel=0.01)
    assert world.at(t) == pytest.approx(target, rel=0.01)
    assert search.expected(t) == pytest.approx({lang: world.at({lang: of}) for lang, of in t.items()}, rel=1e-2)


def test_what_cannot_be_reached_is_known() -> None:
    world = World(1, 1, 50)
    for wanted, knob in ((1e-3, 0.0), (1e9, 1.0)):
        search = world.solve(Search(groups=groups_for(world.counts, wanted, shares={}, fixed=())))
        least, most = search.reach()[SHARED]
        assert least == pytest.approx(world.at({"l0": float(world.counts["l0"].min())}))
        assert most == pytest.approx(world.at({"l0": float(world.counts["l0"].max())}))
        assert search.answers()[SHARED].expected == pytest.approx(least if knob == 0 else most)


@pytest.mark.parametrize(
    ("shares", "fixed", "said"),
    [
        ({"xx": 0.5}, (), "a share is given for xx, of which there are no counts"),
        ({"none": 0.5}, (), "a share is given for none, of which there are no counts"),
        ({"de": 0.5}, ("de",), "both a t and a share are given for de"),
        ({"de": 0.7, "en": 0.6}, (), r"the shares of languages are 1\.3 of the whole together"),
        ({"de": 0.5, "en": 0.4}, (), r"leave 0\.1 of the whole for the others, and there is no language without a share"),
        ({"de": 1.0}, (), "leave 0 of the whole for the others, and there is en and whatever else has no share"),
    ],
)
def test_shares_that_do_not_add_up(shares: dict[str, float], fixed: tuple[str, ...], said: str) -> None:
    counts = {"de": np.array([3, 4]), "en": np.array([0, 9]), "none": np.zeros(2, dtype=np.int64)}
    with pytest.raises(ValueError, match=said):
        groups_for(counts, 100, shares=shares, fixed=fixed)


def test_a_spread_of_knobs() -> None:
    assert spread(0.0, 1.0, finest=1e-2, n=4) == [0.0, 0.01, 0.1, 1.0]
    assert spread(1.0, 1000.0, finest=1.0, n=4) == [1.0, 10.0, 100.0, 1000.0]
    assert spread(5.0, 5.0, finest=1.0, n=4) == [5.0]
    assert spread(0.0, 1e-9, finest=1e-7, n=5) == [0.0, 1e-9]
    assert spread(2.0, 3.0, finest=1.0, n=30)[:2] == [2.0, 2.02816]


def test_a_language_has_whole_thresholds() -> None:
    counts = {"de": np.array([1, 5, 9])}
    (group,) = groups_for(counts, 2, shares={"de": 1.0}, fixed=())
    assert (group.low, group.high) == (1.0, 9.0)
    assert group.thresholds(3.4) == {"de": 3.0}


def test_the_guess_from_counts_is_right_for_texts_of_independent_entries() -> None:
    """Texts of three entries drawn by the counts: the assumption that it makes."""
    rng = np.random.default_rng(4)
    texts = rng.choice(2_000, (60_000, 3), p=(w := 1 / (np.arange(2_000) + 5.0)) / w.sum())
    counts = np.bincount(texts.ravel(), minlength=2_000)
    for t in (5, 50, 500, 5_000):
        exact = text_probabilities(entry_probabilities(counts, t), texts.ravel(), np.arange(0, 180_001, 3)).sum()
        assert guess_of_counts(counts, 60_000, t) == pytest.approx(exact, rel=0.02)
    assert guess_of_counts(counts, 60_000, math.inf) == 60_000
    assert guess_of_counts(np.zeros(3, dtype=np.int64), 0, 5) == 0
