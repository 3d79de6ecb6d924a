"""What matched pairs and their siblings say of the number that can be expected to be kept, and the search for a number that is wanted.
The passes over many parts, which run on Beam, are in pipelines/passes.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from balancing.expectation import SHARED, Answer, Group, Search, expected_of_part, inverse_counts
from balancing.left_out import LeftOut
from pipelines import storage
from pipelines.errors import JobError
from pipelines.left_out import left_out_at
from pipelines.part import read_part
from pipelines.pool import MatchedPool, read_with_siblings
from pipelines.stage import FinishedStage, Unit, open_stage

#: Matched pairs of the sample in which a search finds out where to look: a tenth of a percent or so of noise.
SAMPLE_PAIRS = 2_000_000
#: Passes of a search over the same pairs. It takes one or two over a large pool, and four over one so small that it is its own sample.
_MOST_PASSES = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker finds what belongs to a matched part. ``counts_id`` tells remade counts from the old."""

    siblings: str
    counts: str
    counts_id: str


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Pairs that belong together: matched, their siblings and their counts."""

    pool: MatchedPool
    siblings: FinishedStage
    counts: FinishedStage

    @property
    def place(self) -> Place:
        return Place(siblings=self.siblings.url, counts=self.counts.url, counts_id=self.counts.id)

    def sample(self, pairs: int) -> list[Unit]:
        """Matched parts spread evenly over the pool that have about so many pairs, or all."""
        return self.pool.units()[:: max(1, self.pool.rows // pairs)]

    def rows_of(self, units: Sequence[Unit]) -> int:
        places = {unit.url for unit in units}
        return sum(p["rows"] for stage in self.pool.stages for p in stage.parts if stage.part_url(p["name"]) in places)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a pass found: per language the unique pairs that count, and threshold → the number of them that can be expected to be kept."""

    pairs: Mapping[str, int]
    kept: Mapping[str, Mapping[float, float]]

    def scaled(self, factor: float) -> Expected:
        """The whole of which this is a sample."""
        kept = {lang: {t: n * factor for t, n in of.items()} for lang, of in self.kept.items()}
        return Expected(pairs={lang: round(n * factor) for lang, n in self.pairs.items()}, kept=kept)


@cache
def inverse_of(place: Place, lang: str) -> np.ndarray:
    """1 / count per entry of a language, held by the process: 4 bytes an entry."""
    return inverse_counts(read_part(storage.join(place.counts, f"{lang}.parquet"), columns=["count"])["count"].to_numpy())


@cache
def left_out_by(place: Place) -> LeftOut:
    """What the counts leave out, looked up once by the process."""
    return left_out_at(place.counts, open_stage(place.counts, "count").parameters)


def expected_of_unit(unit: Unit, place: Place, *, t: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """What one matched part has of a pass: (language, rows that count and the sums at its thresholds)."""
    left_out = left_out_by(place)
    columns = ["lang", "entries", *left_out.columns]
    matched, siblings = read_with_siblings(unit, place.siblings, columns=columns, siblings_columns=["keep", "n"])
    lists = siblings["n"].combine_chunks()
    texts = np.concatenate(([0], np.cumsum(lists.flatten().field("n").to_numpy(), dtype=np.int64)))
    edges = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    unique = siblings["keep"].to_numpy() & (left_out.reasons(matched) == 0)
    try:
        yield from expected_of_part(matched, texts[edges[1:]] - texts[edges[:-1]], unique, t=t, inverse=partial(inverse_of, place))
    except ValueError as error:
        raise JobError(f"{unit.url}: {error} that {place.counts} counts: they belong to other entries; match or count again") from error


#: Some matched parts and thresholds per language, ascending → what can be expected of them.
Pass = Callable[[Counted, Sequence[Unit], Mapping[str, Sequence[float]]], Expected]


# -- the search ----------------------------------------------------------------------------------------------------------------------


def search(
    counted: Counted,
    groups: Sequence[Group],
    fixed: Mapping[str, float],
    make_pass: Pass,
) -> tuple[Search, dict[str, Answer], Mapping[str, int]]:
    """Find the knobs of groups: first in a sample where the pool is much larger than one, then in all pairs, once or twice.

    Gives the search, its answers and the unique pairs per language.

    Raises:
        JobError: what is wanted is less or more than there can be; says how much there can be.
    """
    around: dict[str, float] = {}
    sample, everything = counted.sample(SAMPLE_PAIRS), counted.pool.units()
    for units in [sample, everything] if len(sample) < len(everything) else [everything]:
        factor = counted.pool.rows / max(1, counted.rows_of(units))
        found = Search(groups=groups, fixed=fixed, around=around)
        for _ in range(_MOST_PASSES):
            expected = make_pass(counted, units, found.grid()).scaled(factor)
            found.add(expected.kept)
            if found.is_done():
                break
        around = {name: answer.knob for name, answer in found.answers().items()}
    check_reach(found)
    return found, found.answers(), expected.pairs


def check_reach(found: Search) -> None:
    """Raises JobError where a number cannot be reached."""
    reach = found.reach()
    for group in found.groups:
        least, most = reach[group.name]
        wanted = found.wanted(group)
        # A pair more or less is rounding.
        if not least - 1 <= wanted <= most + 1:
            whose = "the languages without a threshold or a share of their own" if group.name == SHARED else group.name
            raise JobError(
                f"--target-pairs: {wanted:,.0f} pairs are wanted of {whose}, but between {least:,.0f} (every t the smallest count) and "
                f"{most:,.0f} (one text of every image) can be had; choose a number between them"
            )
