"""What came and what went between two lists of entries of one language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Columns of a list as it is compared; ``source`` is null where nobody says it.
LIST_SCHEMA = pa.schema([pa.field("entry", pa.string(), nullable=False), pa.field("source", pa.string())])
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Change:
    """Entries that stand in one of two lists only: how many, how many by source, and the first (entry, source) in order of their ids."""

    entries: int
    by_source: dict[str, int]
    first: list[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        first = [{"entry": entry, "source": source} for entry, source in self.first]
        return {"entries": self.entries, "by_source": self.by_source, "first": first}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two lists compared. ``before``, ``after``: entries of each. ``kept``: entries of both; ``other_source``: those among them whose
    source is another one now. ``same``: the entries and their ids are the same; in another order the same entries have other ids.
    """

    before: int
    after: int
    kept: int
    other_source: int
    same: bool
    went: Change
    came: Change

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "went": self.went.to_json(), "came": self.came.to_json()}


def compare_lists(before: pa.Table, after: pa.Table, *, show: int) -> Difference:
    """The difference of two lists in ``LIST_SCHEMA``, in order of ids. ``show``: how many entries that came and that went are named.

    Memory: a hash table of each list, about 100 bytes an entry.

    Raises:
        ValueError: an entry occurs twice in a list.
    """
    for table in (before, after):
        if pc.count_distinct(table["entry"]).as_py() != len(table):
            raise ValueError("it is no list of entries: one occurs twice")
    place = pc.index_in(before["entry"], value_set=after["entry"])
    stays = pc.is_valid(place)
    kept = before.filter(stays)
    sources_now = after["source"].take(place.filter(stays))
    other_source = pc.sum(pc.not_equal(kept["source"], sources_now)).as_py() or 0
    is_new = np.ones(len(after), dtype=bool)
    is_new[place.filter(stays).to_numpy()] = False
    return Difference(
        before=len(before),
        after=len(after),
        kept=len(kept),
        other_source=other_source,
        same=before["entry"].equals(after["entry"]),
        went=_change(before.filter(pc.invert(stays)), show),
        came=_change(after.filter(pa.array(is_new)), show),
    )


def _change(rows: pa.Table, show: int) -> Change:
    sources = pc.fill_null(rows["source"], _UNKNOWN)
    counted = {x["values"]: x["counts"] for x in pc.value_counts(sources).to_pylist()}
    first = zip(rows["entry"].slice(0, show).to_pylist(), sources.slice(0, show).to_pylist(), strict=True)
    return Change(entries=len(rows), by_source=dict(sorted(counted.items())), first=list(first))
