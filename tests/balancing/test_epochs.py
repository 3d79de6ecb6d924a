"""The order of an epoch and the crops: each sample once, the same from any step on, for any split over ranks and workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.epochs import EpochOrder, Epochs, Shuffle, crop_draws, share, stream_shares, walk

GOLDEN_ORDER = [[(3, 1), (2, 0), (3, 0), (2, 1)], [(0, 0), (2, 4), (2, 3), (0, 1)]]
GOLDEN_CROPS = [
    [0.021790619804831657, 0.65808171630555, 0.6961566651067249, 0.9349203360771368],
    [0.9434822584826786, 0.8456220913280728, 0.21350537683183735, 0.5313348170571401],
]


def samples(order: EpochOrder, streams: int, step: int = 0) -> list[list[tuple[int, int]]]:
    """(row group, row) of every sample of each stream from a step on."""
    return [[pair for g, r in order.blocks(s, step) for pair in zip(g.tolist(), r.tolist(), strict=True)] for s in range(streams)]


@st.composite
def orders(draw: st.DrawFn) -> tuple[np.ndarray, Shuffle, EpochOrder]:
    rows = np.array(draw(st.lists(st.integers(0, 30), min_size=1, max_size=12)))
    streams, per_step = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    seed, shuffle_rows = draw(st.integers(0, 5)), draw(st.integers(1, 17))
    shuffle = Shuffle(batch_size=streams * per_step, streams=streams, shuffle_rows=shuffle_rows, seed=seed)
    return rows, shuffle, EpochOrder(rows, shuffle, draw(st.integers(0, 5)))


@given(orders())
@settings(max_examples=200, deadline=None)
def test_an_epoch_gives_each_sample_once_and_leaves_out_less_than_a_batch(drawn: tuple[np.ndarray, Shuffle, EpochOrder]) -> None:
    rows, shuffle, order = drawn
    per_stream = samples(order, shuffle.streams)
    seen = [sample for stream in per_stream for sample in stream]
    everything = {(g, r) for g, n in enumerate(rows) for r in range(n)}
    assert {len(stream) for stream in per_stream} == {order.steps * order.per_step}
    assert len(set(seen)) == len(seen)
    assert set(seen) <= everything
    assert len(everything) - len(seen) == rows.sum() % shuffle.batch_size


@given(orders(), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_from_a_step_on_is_the_end_of_the_whole(drawn: tuple[np.ndarray, Shuffle, EpochOrder], step: int) -> None:
    _, shuffle, order = drawn
    whole = samples(order, shuffle.streams)
    assert samples(order, shuffle.streams, step) == [stream[step * order.per_step :] for stream in whole]


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 8))
def test_shares_laid_side_by_side_are_the_whole(n: int, ranks: int, workers: int) -> None:
    whole = [x for r in range(ranks) for w in range(workers) for x in share(share(range(n), r, ranks), w, workers)]
    assert whole == list(range(n))


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    rows = np.array([40, 40, 40])
    shuffles = [Shuffle(batch_size=12, streams=3, shuffle_rows=16, seed=seed) for seed in (0, 0, 1, 0)]
    found = [samples(EpochOrder(rows, shuffle, epoch), 3) for shuffle, epoch in zip(shuffles, (0, 0, 0, 1), strict=True)]
    assert found[0] == found[1]
    assert len({str(order) for order in found}) == 3


def test_the_order_of_an_epoch_is_frozen() -> None:
    # Any change here makes another run of every one that is to go on from a checkpoint.
    order = EpochOrder(np.array([3, 0, 5, 2]), Shuffle(seed=7, batch_size=4, streams=2, shuffle_rows=3), epoch=1)
    assert (order.steps, order.per_step) == (2, 2)
    assert samples(order, 2) == GOLDEN_ORDER
    assert crop_draws(7, 1, np.arange(2)).tolist() == GOLDEN_CROPS


def test_a_walk_goes_through_the_epochs_and_reads_a_row_group_once_for_neighbouring_streams() -> None:
    # The second epoch takes fewer rows, of which one batch is made instead of three.
    rows, shuffle = np.array([[6, 6, 6, 6], [2, 6, 0, 3], [6, 6, 6, 6]]), Shuffle(seed=3, batch_size=8, streams=4, shuffle_rows=3)
    read: list[Group] = []

    def reader(epoch: int, group: int) -> Group:
        read.append(Group(epoch, group))
        return read[-1]

    found = list(walk(Epochs(rows, 8), shuffle, range(1, 3), steps=range(2, 6), read=reader))
    expected = []
    for epoch, step in ((0, 2), (1, 0), (2, 0), (2, 1)):
        of_streams = samples(EpochOrder(rows[epoch], shuffle, epoch), 4, step)
        expected.append([(epoch, *sample) for stream in of_streams[1:3] for sample in stream[:2]])
    assert [[(of.epoch, of.number, row) for row, of in here] for here in found] == expected
    assert len(read) <= 9


@dataclass(eq=False)
class Group:
    """What is read in a walk."""

    epoch: int
    number: int


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(lambda rows: sum(rows) >= 4), min_size=1, max_size=5))
def test_every_step_of_a_run_has_its_place_in_an_epoch(rows: list[list[int]]) -> None:
    places = [(epoch, step) for epoch, of_groups in enumerate(rows) for step in range(sum(of_groups) // 4)]
    epochs = Epochs(np.array(rows), 4)
    assert [epochs.place(step) for step in range(len(places))] == places
    passed = [epochs.progress(step) for step in range(len(places) + 1)]
    assert passed[-1] == len(rows)
    assert [int(p) for p in passed[:-1]] == [epoch for epoch, _ in places]
    assert passed == sorted(set(passed))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(1, 40))
def test_sets_have_neighbouring_streams_by_their_weights(weights: list[float], streams: int) -> None:
    shares = stream_shares(weights, streams)
    assert [s for share in shares for s in share] == list(range(streams))
    exact = [streams * weight / sum(weights) for weight in weights]
    assert all(abs(len(share) - ideal) < 1 for share, ideal in zip(shares, exact, strict=True))


@pytest.mark.parametrize(
    ("weights", "streams", "lengths"),
    [([3, 1], 16, [12, 4]), ([1, 1, 1], 16, [6, 5, 5]), ([5, 3, 1], 4, [2, 1, 1]), ([1000, 1], 8, [8, 0]), ([0.1], 3, [3])],
)
def test_what_is_left_goes_to_the_largest_remainders(weights: list[float], streams: int, lengths: list[int]) -> None:
    assert [len(share) for share in stream_shares(weights, streams)] == lengths


def test_a_part_without_streams_makes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def order(rows: np.ndarray, shuffle: Shuffle, epoch: int) -> EpochOrder:
        made.append(epoch)
        return EpochOrder(rows, shuffle, epoch)

    monkeypatch.setattr("balancing.epochs.EpochOrder", order)
    epochs, shuffle = Epochs(np.full((2, 3), 4), 4), Shuffle(seed=1, batch_size=4, streams=2, shuffle_rows=2)

    def read(epoch: int, group: int) -> str:
        raise AssertionError("nothing is to be read")

    assert list(walk(epochs, shuffle, range(0), steps=range(6), read=read)) == [[]] * 6
    assert made == [0, 1]
