"""card: what a curated set was made from and what came out, in a small file from which anyone can rebuild it. Needs no Beam."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from balancing.card import head_ids, tail_ids
from balancing.fingerprint import SET_FINGERPRINT, fingerprint_of, pair_digests, run_of_digest
from balancing.summary import Recount, rows_per_language
from metadata.entries import entries_checksum
from pipelines import storage
from pipelines.balance import KEEP_SIBLINGS
from pipelines.chain import OUTPUTS
from pipelines.datacard import (
    FORMAT_VERSION,
    KIND,
    Card,
    EntryRecord,
    LanguageRecord,
    PartRecord,
    SetRecord,
    StageRecord,
    ThresholdsRecord,
    library_versions,
    write_card,
)
from pipelines.errors import JobError
from pipelines.options import option
from pipelines.origins import inputs_of, packs_of
from pipelines.page import plural
from pipelines.part import read_footer, read_part
from pipelines.pool import MatchedPool, check_siblings, open_pool
from pipelines.progress import size_text
from pipelines.spill import Spill
from pipelines.stage import MANIFEST, STAGE_FILE, FinishedStage, digest, open_stage
from pipelines.thresholds import read_thresholds
from pipelines.verify import checksums_of

ABOUT = """Write the card of a curated set: what went in, what came out, and all that it takes to rebuild the set.

Names every input with its checksum, the parameters and checksums of every stage, the thresholds, the versions of code and libraries, the
pairs and entries of every language, and a fingerprint of the set. It holds no times, hosts or local paths, and none of the pairs. Reads the
curated set and a column of the matched pairs; needs 32 bytes a pair of temporary disk space (TMPDIR says where).

worldclip run --from-card FILE rebuilds the set. Make the card before you delete what it is made from."""

#: Entries of each language that are shown of the head, and of the tail.
ENTRIES_SHOWN = 5
#: Pairs of a run of the fingerprint: 130 MB of digests.
_RUN_PAIRS = 4_000_000
_MOST_RUNS = 256
#: What entries are made from, in the order of the chain.
_SOURCES = ("ngrams", "titles", "wordnet")


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    work: str = option("the directory of the chain", metavar="DIR")
    curated: str = option("the finished stage of the job balance, where it is not curated in --work", default="", metavar="DIR")
    thresholds: str = option("the thresholds that it was drawn with, where they are not in --work", default="", metavar="FILE")
    counts: str = option("the finished stage of the job count, where it is not counts in --work", default="", metavar="DIR")
    siblings: str = option("the finished stage of the job dedup, where it is not siblings in --work", default="", metavar="DIR")
    matched: tuple[str, ...] = option(
        "the finished stages of the job match, one or more, where the pool is not matched in --work", default=(), metavar="DIR"
    )
    entries: str = option("the finished stage of the job entries, where it is not entries in --work", default="", metavar="DIR")
    ngrams: str = option("the finished stage of the job ngrams, where it is not ngrams in --work", default="", metavar="DIR")
    titles: str = option("the finished stage of the job titles, where it is not titles in --work", default="", metavar="DIR")
    wordnet: str = option("the finished stage of the job wordnet, where it is not wordnet in --work", default="", metavar="DIR")
    output: str = option("the JSON file to write", metavar="FILE")

    def place(self, job: str) -> str:
        """Where the result of a job lies, of all but match."""
        option_of = {"balance": "curated", "count": "counts", "dedup": "siblings"}
        return getattr(self, option_of.get(job, job)) or storage.join(self.work, OUTPUTS[job])

    def pool(self) -> tuple[str, ...]:
        """Where the matched pairs lie."""
        return self.matched or (storage.join(self.work, OUTPUTS["match"]),)


# -- the stages ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What a set was made from, all of it of one piece. ``sources``: those of the entries, none where one of them is not at hand."""

    curated: FinishedStage
    thresholds: Mapping[str, Any]
    t: Mapping[str, float]
    counts: FinishedStage
    siblings: FinishedStage
    pool: MatchedPool
    entries: FinishedStage
    sources: Sequence[FinishedStage]


def open_chain(config: CardConfig) -> Chain:
    """The stages behind a set.

    Raises:
        JobError: one is absent, or another one than the set was made from; names the option that says where the right one lies.
    """
    curated, counts, siblings = (open_stage(config.place(job), job) for job in ("balance", "count", "dedup"))
    body, t = read_thresholds(config.place("thresholds"))
    pool = open_pool(config.pool())
    entries = open_stage(config.place("entries"), "entries")
    for flag, place, there, wanted in (
        ("thresholds", config.place("thresholds"), body["id"], curated.parameters["thresholds"]["id"]),
        ("counts", counts.url, counts.id, curated.upstream["count"]),
        ("siblings", siblings.url, siblings.id, curated.upstream["dedup"]),
        ("matched", str(pool), pool.id, curated.upstream["match"]),
        ("entries", entries.url, entries.id, pool.entries),
    ):
        if there != wanted:
            raise JobError(
                f"{curated.url} was made from {flag} {wanted}, but {place} is {there}: say with --{flag} where the right one lies"
            )
    check_siblings(pool, siblings)
    return Chain(
        curated=curated,
        thresholds=body,
        t=t,
        counts=counts,
        siblings=siblings,
        pool=pool,
        entries=entries,
        sources=_sources_of(entries, config),
    )


def _sources_of(entries: FinishedStage, config: CardConfig) -> list[FinishedStage]:
    """The stages that the entries were made from; none, and a line that says so, where one is not at hand with its account of inputs."""
    found = []
    for job in _SOURCES:
        if job not in entries.upstream:
            continue
        place = config.place(job)
        stage, why = _source_at(place, job)
        if stage is None or stage.id != entries.upstream[job]:
            print(
                f"card: {place}, from which the entries were made, {why or 'is another one'}: the card takes the entries as given, and a "
                "rebuild needs them",
                file=sys.stderr,
            )
            return []
        found.append(stage)
    return found


def _source_at(place: str, job: str) -> tuple[FinishedStage | None, str]:
    """The stage in a place, or why there is none."""
    own = place if job == "wordnet" else storage.join(place, "blocks")
    if not all(storage.exists(storage.join(url, STAGE_FILE)) for url in (place, own)):
        return None, "is not there" if own == place else "is not there with its blocks"
    try:
        return open_stage(place, job), ""
    except JobError:
        return None, "is not finished"


def record_of(stage: FinishedStage, name: str, *, given: bool = False) -> StageRecord:
    """The record of a stage, with its inputs unless it is given itself.

    Raises:
        JobError: its manifest was changed.
    """
    manifest = stage.manifest
    if digest({key: value for key, value in manifest.items() if key != "id"}) != stage.id:
        raise JobError(f"{stage.url}/{MANIFEST} is not as it was written: worldclip verify {stage.url} says more")
    inputs = () if given else inputs_of(stage)
    unknown = [x.name for x in inputs if not x.is_known]
    if unknown:
        print(
            f"card: no checksum is known of {len(unknown)} inputs of {stage.url} (the first: {unknown[0]}): none was taken while they were "
            "read, and they are gone, or it cannot be told that they are the same still. A rebuild compares what is made of them",
            file=sys.stderr,
        )
    return StageRecord(
        name=name,
        job=manifest["stage"],
        format_version=manifest["format_version"],
        id=stage.id,
        fingerprint=manifest["fingerprint"],
        parameters=dict(stage.parameters),
        upstream=dict(stage.upstream),
        counters=dict(stage.counters),
        rows=stage.rows,
        parts={part["name"]: part["data_sha256"] for part in stage.parts},
        inputs=inputs,
        packs=() if given else packs_of(stage),
        given=given,
    )


def records_of(chain: Chain) -> tuple[StageRecord, ...]:
    """The records of all stages, in the order in which they are made. Several matched stages are numbered in the order of the pool."""
    stages = chain.pool.stages
    matched = [OUTPUTS["match"]] if len(stages) == 1 else [f"{OUTPUTS['match']}-{i}" for i in range(len(stages))]
    given = bool(chain.entries.upstream) and not chain.sources
    return (
        *(record_of(stage, OUTPUTS[str(stage.manifest["stage"])]) for stage in chain.sources),
        record_of(chain.entries, OUTPUTS["entries"], given=given),
        *(record_of(stage, name) for stage, name in zip(stages, matched, strict=True)),
        *(record_of(stage, OUTPUTS[str(stage.manifest["stage"])]) for stage in (chain.siblings, chain.counts, chain.curated)),
    )


# -- the set -------------------------------------------------------------------------------------------------------------------------


def read_set(curated: FinishedStage, recount: Recount) -> SetRecord:
    """Read the curated set part by part: checksums of its files and the fingerprint of its pairs; ``recount`` gets its languages and
    entries.

    Memory: one part, 8 bytes per entry id, and a run of the fingerprint, of at most :data:`_RUN_PAIRS` pairs up to a thousand million.
    """
    parts = []
    runs = min(_MOST_RUNS, -(-curated.rows // _RUN_PAIRS) or 1)
    with Spill.opened(runs) as spill:
        for part in curated.parts:
            url = curated.part_url(part["name"])
            table = read_part(url, columns=["image_id", "text", "lang", "entries", "probability"])
            found = checksums_of(url)
            if found is None or found.data != part["data_sha256"]:
                raise JobError(f"{url} is not as it was written: worldclip verify {curated.url} says more")
            try:
                recount.add(table)
            except ValueError as error:
                raise JobError(f"{url}: {error}") from error
            digests = pair_digests(table)
            spill.add(run_of_digest(digests, runs), _as_table(digests))
            parts.append(PartRecord(name=part["name"], rows=len(table), bytes=part["bytes"], sha256=found.whole))
        fingerprint = fingerprint_of(_as_digests(run) for run in spill.read())
    return SetRecord(
        pairs=curated.rows,
        seed=curated.parameters["seed"],
        fingerprint_method=SET_FINGERPRINT,
        fingerprint=fingerprint,
        parts=tuple(parts),
    )


_DIGEST = pa.binary(32)


def _as_table(digests: np.ndarray) -> pa.Table:
    column = pa.FixedSizeBinaryArray.from_buffers(_DIGEST, len(digests), [None, pa.py_buffer(digests.tobytes())])
    return pa.table({"digest": column})


def _as_digests(table: pa.Table | None) -> np.ndarray:
    chunks = [] if table is None else [chunk for chunk in table["digest"].chunks if len(chunk)]
    found = [np.frombuffer(c.buffers()[1], dtype=np.uint8)[32 * c.offset : 32 * (c.offset + len(c))] for c in chunks]
    return np.concatenate([np.zeros(0, dtype=np.uint8), *found]).reshape(-1, 32)


def matched_per_language(pool: MatchedPool) -> Counter[str]:
    """Matched pairs of each language; reads one column of every part."""
    total: Counter[str] = Counter()
    for unit in pool.units():
        total.update(rows_per_language(read_part(unit.url, columns=["lang"])))
    return total


def languages_of(chain: Chain, recount: Recount) -> dict[str, LanguageRecord]:
    """What there is of every language that has entries, and of the set's. Holds one language's entries and counts at a time."""
    matched = matched_per_language(chain.pool)
    out = {}
    for part in chain.entries.parts:
        lang = part["name"].removesuffix(".parquet")
        entries = read_part(chain.entries.part_url(part["name"]))
        url = chain.counts.part_url(part["name"])
        counts, footer = read_part(url, columns=["count"])["count"].to_numpy(), read_footer(url)
        if footer is None or len(counts) != len(entries):
            raise JobError(f"{url} does not count the entries of {chain.entries.url}: worldclip verify {chain.counts.url} says more")
        try:
            after = recount.counts(lang, len(counts))
        except ValueError as error:
            raise JobError(f"{chain.curated.url} holds other entries than the counts: {lang}: {error}") from error

        def shown(ids: Sequence[int], names: pa.ChunkedArray, before: np.ndarray, after: np.ndarray) -> tuple[EntryRecord, ...]:
            return tuple(EntryRecord(entry=names[i].as_py(), before=int(before[i]), after=int(after[i])) for i in ids)

        of_lang = (entries["entry"], counts, after)
        out[lang] = LanguageRecord(
            entries=len(entries),
            checksum=entries_checksum(entries),
            matched=matched[lang],
            unique=footer.counters["read"],
            kept=recount.pairs.get(lang, 0),
            entries_without_match=float(np.mean(counts == 0)) if len(counts) else 0.0,
            top=shown(head_ids(counts, ENTRIES_SHOWN), *of_lang),
            tail=shown(tail_ids(counts, chain.t.get(lang, math.inf), ENTRIES_SHOWN), *of_lang),
        )
    return out


def thresholds_of(chain: Chain) -> ThresholdsRecord:
    """The thresholds of the set.

    Raises:
        JobError: the file is not as it was written.
    """
    body = {key: value for key, value in chain.thresholds.items() if key != "counts_path"}
    try:
        record = msgspec.convert(body, ThresholdsRecord)
    except msgspec.ValidationError as error:
        raise JobError(f"the thresholds are not as they were written ({error}): make them again") from error
    if record.body(counts=record.counts, upstream=record.upstream) != body:
        raise JobError("the thresholds are not as they were written (their id is not that of their content): make them again")
    return record


def card_of(chain: Chain) -> Card:
    """The card of a set; its checksum is made when it is written."""
    recount = Recount()
    return Card(
        kind=KIND,
        format_version=FORMAT_VERSION,
        checksum="",
        libraries=library_versions(),
        set=read_set(chain.curated, recount),
        languages=languages_of(chain, recount),
        thresholds=thresholds_of(chain),
        stages=records_of(chain),
    )


def lines_of(card: Card) -> list[str]:
    """What the card says, in two lines."""
    inputs = [x for record in card.stages for x in record.inputs]
    size = size_text(sum(x.size or 0 for x in inputs))
    given = [f"the stage {record.name}" for record in card.stages if record.given]
    kept = sum(x.kept > 0 for x in card.languages.values())
    drawn = any(record.parameters.get(KEEP_SIBLINGS) for record in card.stages)
    sources = ", ".join([f"{plural(len(inputs), 'input', 'inputs')} ({size})", *given])
    return [
        f"{plural(card.set.pairs, 'pair', 'pairs')} in {plural(kept, 'language', 'languages')}, "
        f"{plural(len(card.set.parts), 'part', 'parts')}; fingerprint {card.set.fingerprint}"
        + (", for a trainer that draws from all texts of an image" if drawn else ""),
        f"made from {sources}, in {len(card.stages)} stages",
    ]


def main(config: CardConfig, _: Sequence[str]) -> None:
    card = write_card(config.output, card_of(open_chain(config)))
    print("\n".join([f"card: {config.output}", *(f"  {line}" for line in lines_of(card))]))
