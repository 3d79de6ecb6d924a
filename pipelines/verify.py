"""verify: whether a stage, or a whole chain, is as it was written. Needs no Beam."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from balancing.automaton import AutomatonError, open_automaton
from balancing.counts import COUNTS_SCHEMA
from balancing.own import is_damage
from balancing.pairs import CURATED_SCHEMA, IMAGES_SCHEMA, MATCHED_SCHEMA, SIBLINGS_SCHEMA
from metadata.entries import ENTRIES_SCHEMA, entries_checksum
from metadata.ngrams import BLOCK_SCHEMA, NGRAM_SCHEMA
from metadata.tally import LETTERS_KEPT
from metadata.titles import VIEWS_SCHEMA
from metadata.wordnet import LEMMA_SCHEMA
from pipelines import storage
from pipelines.automata import CHECKSUM, automaton_url
from pipelines.books import account, first_few
from pipelines.chain import OUTPUTS
from pipelines.errors import JobError
from pipelines.left_out import LEFT_OUT
from pipelines.options import option
from pipelines.page import plural
from pipelines.part import Footer, read_footer, read_part
from pipelines.pool import MatchedPool
from pipelines.progress import size_text
from pipelines.shards import EXPORT_SCHEMA, faults_of_shards
from pipelines.stage import MANIFEST, MERGED_FROM, STAGE_FILE, SUCCESS, FinishedStage, Limits, Stage, digest, open_stage
from pipelines.status import directories
from pipelines.thresholds import read_thresholds

ABOUT = """Say whether a stage, or every stage of a chain, is as it was written.

Reads every part: its checksum, rows and schema, and what it says of itself, against the manifest; the books against the sum of the parts;
the automata against the entries; the tars of an export against the parts that list them; and, in a chain, whether each stage was made from
those that lie beside it. Says what differs, and ends with exit code 1 if anything does.

    worldclip verify W/curated     one stage
    worldclip verify W             every stage of a chain"""

#: Faults of a stage that are printed.
_MOST_SHOWN = 10
_READERS = 8
_NGRAMS = pa.schema([pa.field("lang", pa.dictionary(pa.int8(), pa.string())), pa.field("n", pa.int8()), *NGRAM_SCHEMA])
#: Columns of the parts, by kind of stage. In those of pairs, columns of the user's own may follow.
_SCHEMAS = {
    "ngram_blocks": BLOCK_SCHEMA,
    "ngrams": _NGRAMS,
    "title_blocks": VIEWS_SCHEMA,
    "titles": VIEWS_SCHEMA,
    "wordnet": LEMMA_SCHEMA,
    "entries": ENTRIES_SCHEMA,
    "match": MATCHED_SCHEMA,
    "dedup_pass": SIBLINGS_SCHEMA,
    "dedup": SIBLINGS_SCHEMA,
    "count": COUNTS_SCHEMA,
    "balance": CURATED_SCHEMA,
    "images": IMAGES_SCHEMA,
    "export": EXPORT_SCHEMA,
}
_CARRY = frozenset({"match", "balance"})
_THRESHOLDS = "thresholds"
#: Of a thresholds file: where the counts lie, and what is expected of a set, change nothing in it.
_NOT_IN_ID = ("id", "counts_path", "expected_pairs")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    directory: str = option("a stage, or the directory in which the stages of a chain lie", metavar="DIR", positional=True)


@dataclass(kw_only=True)
class Checked:
    """What was looked at, and what is wrong with it. ``stage``: None where there is no manifest to speak of."""

    url: str
    kind: str
    stage: FinishedStage | None = None
    parts: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


# -- parts ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Checksums:
    """SHA-256 of a file, and of its data: all up to the Parquet footer."""

    whole: str
    data: str


def checksums_of(url: str) -> Checksums | None:
    """The checksums of a part, or None if it is no Parquet file. Memory: a megabyte."""
    whole, data = hashlib.sha256(), hashlib.sha256()
    with storage.open_read(url) as file:
        size = file.seek(0, os.SEEK_END)
        # A Parquet file ends with its footer, the length of the footer (4 bytes, little endian), and "PAR1".
        file.seek(max(0, size - 8))
        end = file.read(8)
        left = size - 8 - int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or left < 4:
            return None
        file.seek(0)
        while chunk := file.read(1 << 20):
            whole.update(chunk)
            data.update(chunk[: max(0, left)])
            left -= len(chunk)
    return Checksums(whole=whole.hexdigest(), data=data.hexdigest())


def faults_of_part(stage: FinishedStage, part: Mapping[str, Any]) -> tuple[list[str], Footer | None]:
    """What is wrong with a part, and what it says of itself."""
    name, url = part["name"], stage.part_url(part["name"])
    footer = read_footer(url)
    found = checksums_of(url) if footer else None
    if footer is None or found is None:
        return [f"{name} is {'no whole part' if storage.exists(url) else 'gone'}"], None
    unit = name.removeprefix("part-").removesuffix(".parquet")
    compared = (
        ("bytes", footer.bytes, part["bytes"]),
        ("rows", footer.rows, part["rows"]),
        ("checksum of its data", found.data, part["data_sha256"]),
        ("checksum in its footer", footer.data_sha256, part["data_sha256"]),
        ("checksum of its input", footer.input_sha256, part["input_sha256"]),
        ("fingerprint", footer.fingerprint, stage.manifest["fingerprint"]),
        ("unit", footer.unit, unit),
    )
    faults = [f"{name}: {what} {_short(here)}, the manifest says {_short(there)}" for what, here, there in compared if here != there]
    return [*faults, *faults_of_schema(str(stage.manifest["stage"]), name, url)], footer


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text or "none"


def faults_of_schema(kind: str, name: str, url: str) -> list[str]:
    """Whether a part has the columns of its kind of stage."""
    if kind not in _SCHEMAS:
        return []
    with storage.open_read(url) as file:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and not is_damage(error):
                raise
            return [f"{name} cannot be read ({error})"]
    expected = _SCHEMAS[kind]
    there = list(schema)[: len(expected)] if kind in _CARRY else list(schema)
    wanted = {field.name: field.type for field in expected}
    if [(field.name, field.type) for field in there] == [*wanted.items()]:
        return []
    differing = [f"{x.name} {x.type}" for x in there if wanted.get(x.name) != x.type]
    missing = [name for name in wanted if name not in schema.names]
    return [f"{name} has other columns than a part of {kind} ({', '.join([*differing, *(f'no {x}' for x in missing)]) or 'another order'})"]


def faults_of_letters(stage: FinishedStage, footers: Mapping[str, Footer]) -> list[str]:
    """Whether the dead letters of every part are all there: a file where it has any."""
    place = storage.join(stage.url, "dead_letters")
    there = {name for name in storage.listing(place) if name.endswith(".parquet")}
    expected = {
        name: min(footer.counters["dead_letters"], LETTERS_KEPT) for name, footer in footers.items() if footer.counters["dead_letters"]
    }
    faults = [f"dead_letters/{name} is gone" for name in sorted(expected.keys() - there)]
    faults += [f"dead_letters/{name} belongs to no part that has any" for name in sorted(there & footers.keys() - expected.keys())]
    for name in sorted(expected.keys() & there):
        with storage.open_read(storage.join(place, name)) as file:
            try:
                rows = pq.read_metadata(file).num_rows
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and not is_damage(error):
                    raise
                rows = -1
        if rows != expected[name]:
            faults.append(f"dead_letters/{name}: {max(rows, 0)} rows, the part says {expected[name]}")
    return faults


# -- stages --------------------------------------------------------------------------------------------------------------------------


def check_stage(url: str) -> Checked:
    """Look at everything in a stage. Reads eight parts at a time; holds a footer per part, and of entries a list and its automaton."""
    begun = Stage.begun(url, Limits())
    checked = Checked(url=url, kind=begun.kind)
    if not storage.exists(storage.join(url, SUCCESS)):
        checked.faults.append(f"not finished: worldclip status {url} says how far it is")
        return checked
    try:
        stage = open_stage(url, begun.kind)
        checked.faults += faults_of_manifest(stage, begun)
        checked.stage, checked.parts = stage, len(stage.parts)
        with ThreadPoolExecutor(_READERS) as pool:
            looked = list(pool.map(lambda part: faults_of_part(stage, part), stage.parts))
        footers = {part["name"]: footer for part, (_, footer) in zip(stage.parts, looked, strict=True) if footer}
        checked.bytes = sum(footer.bytes for footer in footers.values())
        checked.faults += [fault for faults, _ in looked for fault in faults]
        checked.faults += faults_of_letters(stage, footers)
        if len(footers) == len(stage.parts):
            checked.faults += faults_of_books(stage, begun, footers)
        if begun.kind == "entries":
            checked.faults += [fault for name in footers for fault in faults_of_list(stage, name)]
        if begun.kind == "export" and len(footers) == len(stage.parts):
            checked.faults += faults_of_shards(begun, footers)
        if begun.kind == "count":
            checked.faults += faults_of_left_out(stage)
    except (KeyError, TypeError, AttributeError) as error:
        checked.faults.append(f"{MANIFEST} is damaged ({type(error).__name__}: {error})")
    except JobError as error:
        checked.faults.append(str(error))
    return checked


def faults_of_manifest(stage: FinishedStage, begun: Stage) -> Iterator[str]:
    """Whether the manifest is what it says it is, and of the stage that was begun."""
    manifest = dict(stage.manifest)
    if digest({key: value for key, value in manifest.items() if key != "id"}) != manifest["id"]:
        yield f"{MANIFEST} was changed: its id is not that of its content"
    if manifest["fingerprint"] != begun.fingerprint:
        yield f"{MANIFEST} has fingerprint {manifest['fingerprint']}, {STAGE_FILE} stands for {begun.fingerprint}"
    parts = {part["name"] for part in stage.parts}
    units = {begun.part_name(unit) for unit in begun.units()}
    if parts != units:
        yield f"{MANIFEST} and units.parquet speak of other parts ({first_few(sorted(parts ^ units), 3)})"
    strangers = [name for name in storage.listing(stage.url) if name.endswith(".parquet") and name not in {*parts, "units.parquet"}]
    if strangers:
        yield f"{first_few(strangers, 3)}: no part of the stage"
    if stage.rows != sum(part["rows"] for part in stage.parts):
        yield f"{MANIFEST} has {stage.rows} rows, its parts have {sum(part['rows'] for part in stage.parts)}"


def faults_of_books(stage: FinishedStage, begun: Stage, footers: Mapping[str, Footer]) -> Iterator[str]:
    """Whether the counters of the manifest are the sum of those of the parts, and close."""
    counters = dict(stage.counters)
    if begun.kind not in MERGED_FROM:
        total = account((unit.file, footers[begun.part_name(unit)].counters) for unit in begun.units() if begun.part_name(unit) in footers)
        for name in sorted({*total, *counters}):
            if total.get(name) != counters.get(name):
                yield f"the parts have {name} {total.get(name)}, the manifest {counters.get(name)}"
    read, accounted = counters["read"], counters["emitted"] + sum(counters["dropped"].values()) + counters["dead_letters"]
    if read != accounted:
        yield f"the books do not close: {read} read, {accounted} accounted for"


def faults_of_list(stage: FinishedStage, name: str) -> list[str]:
    """Whether a list of entries and its automaton belong together."""
    lang = name.removesuffix(".parquet")
    table = read_part(stage.part_url(name))
    checksum = (table.schema.metadata or {}).get(CHECKSUM, b"").decode()
    if entries_checksum(table) != checksum:
        return [f"{name} does not hold the entries that it says (checksum {checksum or 'none'})"]
    url = automaton_url(stage.url, lang)
    if not storage.exists(url):
        return [f"automata/{lang} is gone"]
    try:
        with storage.open_read(url) as file:
            open_automaton(file, entries_checksum=checksum)
    except AutomatonError as error:
        return [f"automata/{lang}: {error}"]
    return []


def faults_of_left_out(stage: FinishedStage) -> Iterator[str]:
    """Whether the lists of what counts leave out are those that they were made with."""
    for name, about in stage.parameters.get(LEFT_OUT, {}).items():
        url = storage.join(stage.url, LEFT_OUT, name)
        if not storage.exists(url):
            yield f"{LEFT_OUT}/{name} is gone"
            continue
        with storage.open_read(url) as file:
            found = hashlib.file_digest(cast(Any, file), lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        if found != about["digest"]:
            yield f"{LEFT_OUT}/{name} is another list than the counts were made with"


def check_thresholds(url: str) -> Checked:
    """Look at a thresholds file."""
    checked = Checked(url=url, kind=_THRESHOLDS, parts=1)
    try:
        body, _ = read_thresholds(url)
        checked.bytes = len(storage.read_bytes(url))
        if digest({key: value for key, value in body.items() if key not in _NOT_IN_ID}) != body["id"]:
            checked.faults.append("it was changed: its id is not that of its content")
    except JobError as error:
        checked.faults.append(str(error))
    return checked


# -- a chain -------------------------------------------------------------------------------------------------------------------------


def stages_in(url: str) -> list[str]:
    """The stages that a directory is or holds: those of the chain in its order, then others directly in it."""
    found = directories(url)
    others = [storage.join(url, name) for name in storage.listing(url)]
    return [*found, *(place for place in others if place not in found and storage.exists(storage.join(place, STAGE_FILE)))]


def check_links(all_checked: Sequence[Checked], thresholds: Mapping[str, Any] | None) -> None:
    """Add to each stage of a chain whether it was made from those that lie beside it. Stages that lie elsewhere are not missed."""
    stages = [checked.stage for checked in all_checked if checked.stage]
    ids: dict[str, list[str]] = {}
    for stage in stages:
        ids.setdefault(str(stage.manifest["stage"]), []).append(stage.id)
    matched = sorted((stage for stage in stages if stage.manifest["stage"] == "match"), key=lambda stage: stage.id)
    if len(matched) > 1:
        ids["match"].append(MatchedPool(tuple(matched)).id)
    if thresholds:
        ids[_THRESHOLDS] = [thresholds["id"]]
    for checked in all_checked:
        upstream: dict[str, str] = dict(checked.stage.upstream) if checked.stage else {}
        if checked.kind == "balance" and checked.stage:
            upstream[_THRESHOLDS] = checked.stage.parameters["thresholds"]["id"]
        if checked.kind == _THRESHOLDS and thresholds:
            upstream = {**thresholds["upstream"], "count": thresholds["counts"]}
        for job, made_from in upstream.items():
            if job in ids and made_from not in ids[job]:
                checked.faults.append(f"made from {OUTPUTS.get(job, job)} {made_from}, but here lies {' and '.join(ids[job])}")
    _check_rows(all_checked, ids, MatchedPool(tuple(matched)))


def _check_rows(all_checked: Sequence[Checked], ids: Mapping[str, Sequence[str]], pool: MatchedPool) -> None:
    """Siblings have a row for each matched one."""
    if not pool.stages:
        return
    rows = {unit.path: part["rows"] for unit, part in zip(pool.units(), (p for stage in pool.stages for p in stage.parts), strict=True)}
    for checked in all_checked:
        if checked.kind == "dedup" and checked.stage and checked.stage.upstream["match"] == pool.id:
            differing = [p["name"] for p in checked.stage.parts if p["rows"] != rows.get(p["name"])]
            if differing:
                checked.faults.append(f"{first_few(differing, 3)}: other numbers of rows than the matched parts")


def check(url: str) -> list[Checked]:
    """Look at a stage, or at a chain.

    Raises:
        JobError: the directory holds none.
    """
    places = stages_in(url)
    if not places:
        raise JobError(f"{url} is no stage and holds none: there is no {STAGE_FILE} in it, nor in a directory in it")
    checked = [_guarded(check_stage, place) for place in places]
    file, thresholds = storage.join(url, OUTPUTS[_THRESHOLDS]), None
    if url not in places and storage.exists(file):
        checked.append(check_thresholds(file))
        thresholds = None if checked[-1].faults else read_thresholds(file)[0]
    if len(checked) > 1:
        check_links(checked, thresholds)
    return checked


def _guarded(look: Callable[[str], Checked], url: str) -> Checked:
    """One stage that cannot be looked at does not keep the others from it."""
    try:
        return look(url)
    except JobError as error:
        return Checked(url=url, kind="stage", faults=[str(error)])


def lines_of(checked: Checked) -> Iterator[str]:
    """A line of a stage, and one for each of the first of its faults."""
    what = f"{checked.kind}, {plural(checked.parts, 'part', 'parts')}, {size_text(checked.bytes)}"
    yield f"{checked.url}: {what if checked.parts else checked.kind}: {'DIFFERS' if checked.faults else 'as written'}"
    yield from (f"  {fault}" for fault in checked.faults[:_MOST_SHOWN])
    if len(checked.faults) > _MOST_SHOWN:
        yield f"  and {len(checked.faults) - _MOST_SHOWN:,} more"


def main(config: VerifyConfig, _: Sequence[str]) -> None:
    found = check(config.directory)
    for checked in found:
        print("\n".join(lines_of(checked)))
    wrong = sum(bool(checked.faults) for checked in found)
    if wrong:
        raise JobError(f"{wrong} of {len(found)} are not as they were written")
