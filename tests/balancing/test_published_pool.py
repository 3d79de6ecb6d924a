"""A pool with the frequencies of words, as large as the published one: the thresholds land where the papers say.

``python -m tests.balancing.test_published_pool`` prints the figures side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from balancing.expectation import guess_of_counts
from balancing.thresholds import DEFAULT_P, solve_thresholds, tail_share, threshold_of_share

#: MetaCLIP (arXiv 2309.16671): pool 1 and its threshold.
ENTRIES, MATCHED_ENTRIES, PAIRS, MATCHES, T = 500_000, 386_000, 1_600_000_000, 5_600_000_000, 20_000
PUBLISHED = {
    "t at a tail share of 6 %": 20_000,
    "entries at or over it, of all": 0.032,
    "share of the counts that they hold": 0.945,
    "count of the largest entry": 120e6,
    "tail share at t = 20,000": 0.055,
    "pairs kept, guessed from counts": 400e6,
}


def counts_of_words(scale: float = 1.0) -> np.ndarray:
    """Counts by rank: as 1 / rank up to some 8,000 words and as 1 / rank² beyond, the two regimes of large corpora (Ferrer i Cancho and
    Solé 2001); the first few are about as frequent as each other. ``scale`` of the published number of matches."""
    rank = np.arange(MATCHED_ENTRIES) + 1
    share = 1 / ((rank + 7) * (1 + rank / 8_000))
    counts = np.zeros(ENTRIES, dtype=np.int64)
    counts[:MATCHED_ENTRIES] = np.maximum(1, MATCHES * scale * share / share.sum())
    return counts


@dataclass(frozen=True, kw_only=True)
class Figures:
    counts: np.ndarray
    t: int

    @property
    def head(self) -> float:
        return float(np.count_nonzero(self.counts >= self.t)) / ENTRIES

    @property
    def held(self) -> float:
        return int(self.counts[self.counts >= self.t].sum()) / int(self.counts.sum())


def figures(scale: float) -> Figures:
    counts = counts_of_words(scale)
    return Figures(counts=counts, t=threshold_of_share(counts, DEFAULT_P))


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_tail_share_of_six_percent_gives_the_published_head(scale: float) -> None:
    found = figures(scale)
    assert 15_000 * scale < found.t < 25_000 * scale
    assert 0.025 < found.head < 0.037
    assert 0.935 < found.held < 0.945
    assert tail_share(found.counts, T * scale) == pytest.approx(0.06, abs=0.01)


def test_the_published_t_gives_other_languages_their_share() -> None:
    """A language with a tenth of the pairs gets about a tenth of t."""
    p, solved = solve_thresholds({"en": counts_of_words(), "lv": counts_of_words(0.1)}, t_en=T)
    assert p == pytest.approx(0.06, abs=0.01)
    assert solved["en"].t == T
    assert solved["lv"].t == pytest.approx(T / 10, rel=0.02)
    assert solved["lv"].p == pytest.approx(p, abs=1e-4)


def main() -> None:
    found = figures(1.0)
    here = (found.t, found.head, found.held, found.counts[0], tail_share(found.counts, T), guess_of_counts(found.counts, PAIRS, T))
    print(f"{'':36}{'here':>14}{'published':>14}")
    for (what, published), n in zip(PUBLISHED.items(), here, strict=True):
        shown = (f"{x:.1%}" if x < 1 else f"{x:,.0f}" for x in (float(n), float(published)))
        print(f"{what:36}" + "".join(f"{x:>14}" for x in shown))


if __name__ == "__main__":
    main()
