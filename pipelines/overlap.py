"""Two curated sets compared: for the job diff."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from balancing.overlap import LanguageOverlap, Overlap, total
from balancing.siblings import range_of
from balancing.summary import largest
from pipelines.errors import JobError
from pipelines.part import read_part
from pipelines.spill import Spill
from pipelines.stage import FinishedStage, open_stage

FORMAT_VERSION = 1
#: Pairs of both sets that are compared at a time, in 350 MB; and into how many runs they are cut at most.
_RUN_PAIRS = 1_000_000
_MOST_RUNS = 256
_COLUMNS = ("image_key", "pair_key", "lang", "entries")


@dataclass(frozen=True, kw_only=True)
class EntryChange:
    """How many pairs with an entry are in one of the sets only."""

    entry: str
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sets compared. ``went``, ``came``: entries by language, most pairs first; empty where the lists are not at hand."""

    before: FinishedStage
    after: FinishedStage
    languages: Mapping[str, LanguageOverlap]
    went: Mapping[str, Sequence[EntryChange]]
    came: Mapping[str, Sequence[EntryChange]]

    def to_json(self) -> dict[str, Any]:
        entries = {"went": self.went, "came": self.came}
        return {
            "format_version": FORMAT_VERSION,
            "kind": "balance",
            **{name: {"path": stage.url, "id": stage.id} for name, stage in (("before", self.before), ("after", self.after))},
            "pairs": asdict(total(self.languages)),
            "languages": {
                lang: {**asdict(x), "entries": {name: [asdict(y) for y in of.get(lang, ())] for name, of in entries.items()}}
                for lang, x in self.languages.items()
            },
        }


def compare_sets(before_url: str, after_url: str, *, languages: frozenset[str], entries: Sequence[str], show: int) -> Comparison:
    """Compare two curated sets. ``languages``: all if empty; ``entries``: stages with the lists that the sets were matched with, one for
    both or one each; ``show``: how many entries of each language are named.

    Cuts both sets into runs by image key on the local disk, about 50 bytes a pair (TMPDIR says where). Memory: a run, of
    :data:`_RUN_PAIRS` pairs up to 256 million in both, and 8 bytes per entry id.

    Raises:
        JobError: a stage is not finished, a part is damaged, or the lists are not those of the sets.
    """
    before, after = open_stage(before_url, "balance"), open_stage(after_url, "balance")
    lists = [open_stage(url, "entries") for url in entries]
    runs = min(_MOST_RUNS, -(-(before.rows + after.rows) // _RUN_PAIRS) or 1)
    overlap = Overlap()
    with Spill.opened(runs) as one, Spill.opened(runs) as other:
        for spill, stage in ((one, before), (other, after)):
            for part in stage.parts:
                table = read_part(stage.part_url(part["name"]), columns=_COLUMNS).select(_COLUMNS).cast(_SPILT)
                spill.add(range_of(table["image_key"].to_numpy(), runs), table)
        for a, b in zip(one.read(), other.read(), strict=True):
            try:
                overlap.add(_SPILT.empty_table() if a is None else a, _SPILT.empty_table() if b is None else b)
            except ValueError as error:
                raise JobError(f"{before_url}, {after_url}: {error}") from error
    absent = sorted(languages - overlap.languages.keys())
    if absent:
        raise JobError(f"--languages {', '.join(absent)}: neither {before_url} nor {after_url} has a pair of it")
    found = {lang: overlap.languages[lang] for lang in sorted(languages or overlap.languages)}
    went, came = changes(overlap, lists[:1], lists[-1:], found, show) if lists else ({}, {})
    return Comparison(before=before, after=after, languages=found, went=went, came=came)


_SPILT = pa.schema(
    [("image_key", pa.uint64()), ("pair_key", pa.uint64()), ("lang", pa.string()), ("entries", pa.list_(pa.field("element", pa.int32())))]
)


def changes(
    overlap: Overlap, before: Sequence[FinishedStage], after: Sequence[FinishedStage], languages: Collection[str], show: int
) -> tuple[dict[str, list[EntryChange]], dict[str, list[EntryChange]]]:
    """The entries of each of the languages with most pairs that went, and that came. Holds one list at a time."""
    out: list[dict[str, list[EntryChange]]] = []
    for recount, (stage,) in ((overlap.went, before), (overlap.came, after)):
        there = {part["name"] for part in stage.parts}
        found: dict[str, list[EntryChange]] = {}
        for lang in sorted(recount.pairs.keys() & {*languages}):
            if f"{lang}.parquet" not in there:
                raise JobError(f"{stage.url} has no list for {lang}, of which there are pairs: --entries names the lists of the sets")
            names = read_part(stage.part_url(f"{lang}.parquet"), columns=["entry"])["entry"]
            try:
                counts = recount.counts(lang, len(names))
            except ValueError as error:
                raise JobError(f"{stage.url} is not what the pairs were matched with: {lang}: {error}") from error
            top: np.ndarray = largest(counts, show)
            found[lang] = [EntryChange(entry=names[i].as_py(), pairs=int(counts[i])) for i in top.tolist()]
        out.append(found)
    return out[0], out[1]
