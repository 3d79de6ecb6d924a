"""One pool of matched pairs out of one or more finished stages of the job match: several crawls that are curated together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import pyarrow as pa

from metadata.tally import add_counters
from pipelines import storage
from pipelines.errors import JobError
from pipelines.part import read_part
from pipelines.stage import SUCCESS, FinishedStage, Unit, digest, open_stage

#: Columns of a matched part that hold few values.
_FEW_VALUES = ("source", "lid")


@dataclass(frozen=True)
class MatchedPool:
    """Matched pairs of some crawls, in an order that does not depend on how they were named on a command line."""

    stages: tuple[FinishedStage, ...]

    @cached_property
    def id(self) -> str:
        """Identity of the pool: that of its stage, if it is one."""
        ids = [stage.id for stage in self.stages]
        return ids[0] if len(ids) == 1 else digest(ids)

    @property
    def entries(self) -> str:
        """Identity of the entries that all were matched with."""
        return self.stages[0].upstream["entries"]

    @property
    def rows(self) -> int:
        return sum(stage.rows for stage in self.stages)

    @property
    def counters(self) -> Mapping[str, Any]:
        """The books of all stages together."""
        return reduce(add_counters, (dict(stage.counters) for stage in self.stages))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the pool was made with; of several stages their identities."""
        return self.stages[0].parameters if len(self.stages) == 1 else {"stages": [stage.id for stage in self.stages]}

    @property
    def upstream(self) -> Mapping[str, str]:
        return {"entries": self.entries}

    @property
    def languages(self) -> list[str]:
        """All that there are entries of, ascending."""
        return sorted({lang for stage in self.stages for lang in stage.parameters["languages"]})

    def units(self) -> list[Unit]:
        """A unit per matched part: ``url`` is the part, ``path`` the name of the part that a later stage makes of it, ``index`` its place
        in the pool."""
        units = [
            unit if len(self.stages) == 1 else replace(unit, name=f"{i}-{unit.name}", path=f"part-{i}-{unit.name}.parquet")
            for i, stage in enumerate(self.stages)
            for unit in stage.units()
        ]
        return [replace(unit, index=place) for place, unit in enumerate(units)]

    def __str__(self) -> str:
        return ", ".join(stage.url for stage in self.stages)


def open_pool(urls: Sequence[str]) -> MatchedPool:
    """The pool of these directories.

    Raises:
        JobError: one is not finished, two are the same, or they were matched with different entries.
    """
    pool = MatchedPool(tuple(sorted((open_stage(url, "match") for url in urls), key=lambda stage: stage.id)))
    twice = [id for id, n in Counter(stage.id for stage in pool.stages).items() if n > 1]
    if twice:
        same = [stage.url for stage in pool.stages if stage.id == twice[0]]
        raise JobError(f"--matched {' '.join(same)}: these are the same pairs, so all of them would be duplicates; name them once")
    for stage in pool.stages[1:]:
        if stage.upstream["entries"] != pool.entries:
            raise JobError(
                f"{pool.stages[0].url} was matched with entries {pool.entries}, {stage.url} with {stage.upstream['entries']}: match both "
                "with the same"
            )
    return pool


def check_siblings(pool: MatchedPool, siblings: FinishedStage) -> None:
    """Raises JobError when the siblings speak of other matched pairs."""
    if siblings.upstream["match"] != pool.id:
        raise JobError(f"{siblings.url} belongs to matched pairs {siblings.upstream['match']}, but {pool} is {pool.id}: run dedup on them")


def check_counts(pool: MatchedPool, siblings: FinishedStage, counts: FinishedStage) -> None:
    """Raises JobError when the counts are those of other pairs, or of other entries than they were matched with."""
    for job, (there, what) in {"entries": (pool.entries, pool), "match": (pool.id, pool), "dedup": (siblings.id, siblings.url)}.items():
        if counts.upstream[job] != there:
            of = "was matched with" if job == "entries" else "is"
            said = f"{counts.url} was made from {job} {counts.upstream[job]}, but {what} {of} {there}"
            raise JobError(f"{said}: count again, or give what was counted")


def read_with_siblings(
    unit: Unit, siblings_url: str, *, columns: Sequence[str] | None = None, siblings_columns: Sequence[str] | None = None
) -> tuple[pa.Table, pa.Table]:
    """A matched part and its siblings, row by row the same pairs.

    Raises:
        JobError: one of them is absent or damaged, or they have different numbers of rows.
    """
    url = storage.join(siblings_url, unit.path)
    try:
        matched, siblings = read_part(unit.url, columns=columns, dictionaries=_FEW_VALUES), read_part(url, columns=siblings_columns)
    except JobError:
        gone = [part for part in (unit.url, url) if not storage.exists(part)]
        if gone:
            raise JobError(f"{gone[0]} is gone, though its stage is finished: delete its {SUCCESS} and run its job again") from None
        raise
    if len(siblings) != len(matched):
        raise JobError(f"{url} has {len(siblings)} rows, the matched part {unit.url} {len(matched)}: run dedup again")
    return matched, siblings
