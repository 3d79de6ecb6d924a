"""A stage is a directory: what was asked (stage.json), of which inputs (units.parquet), what came out (part files whose footers hold their
own account), what was broken (dead_letters/), the sum of it (manifest.json), and ``_SUCCESS`` last.

A part is written once, whole, and is the commit of its unit: a job that was killed anywhere and is started again does only what is missing
and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from metadata.tally import Tally
from pipelines import storage
from pipelines.books import File, FileRead, account, counters_of_pack, damaged_files, first_few
from pipelines.errors import JobError
from pipelines.part import Footer, PartWriter, read_footer, write_letters

#: Grows when the layout of a stage changes, or how its parts are written. A newer directory is refused.
FORMAT_VERSION = 2

#: Stages whose parts are <lang>.parquet; the others' are part-<unit>.parquet.
NAMED_BY_LANGUAGE = frozenset({"entries", "count"})
#: Stages that merge the blocks of another one, which lies in their directory and has the account of the records.
MERGED_FROM = {"ngrams": "ngram_blocks", "titles": "title_blocks"}

SUCCESS = "_SUCCESS"
MANIFEST = "manifest.json"
STAGE_FILE = "stage.json"
UNITS = "units.parquet"

#: Whether jobs are to write nothing and to stop where they would begin to: see pipelines/dry_run.py.
DRY_RUN: ContextVar[bool] = ContextVar("DRY_RUN", default=False)


def digest(value: Any) -> str:
    """32 hexadecimal digits that identify a JSON value: BLAKE2b of its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One piece of work: an input file, a range of it or a pack of several, or a share of a key space.

    ``name`` names its part; ``path`` is what people see; ``group`` and ``index`` carry what the job needs (a language, a key range).
    ``members``: the files of a pack, each a unit, read one after the other.
    """

    name: str
    path: str
    url: str = ""
    size: int = 0
    etag: str = ""
    offset: int = 0
    length: int = -1
    group: str = ""
    index: int = 0
    members: tuple[Unit, ...] = ()

    @property
    def file(self) -> File:
        """What counts as one file: units that are ranges of one are one file."""
        return self.path, "" if self.length >= 0 else self.name

    @property
    def inputs(self) -> tuple[Unit, ...]:
        """The files that it is of: the members of a pack, or itself."""
        return self.members or (self,)

    def without_urls(self) -> Unit:
        """The same wherever its inputs lie."""
        return replace(self, url="", members=tuple(replace(member, url="") for member in self.members))


_FIELDS = [name for name in Unit.__dataclass_fields__ if name != "members"]
_UNIT_SCHEMA = pa.schema([(name, pa.int64() if name in ("size", "offset", "length", "index") else pa.string()) for name in _FIELDS])
#: With packs in it; a directory without any is written as if there were none.
_PACKED_SCHEMA = _UNIT_SCHEMA.append(pa.field("members", pa.list_(pa.struct(list(_UNIT_SCHEMA)))))


def unit_name(path: str, *, offset: int = 0) -> str:
    """Name of a unit: a hash of its path under the root of the inputs, and of its range, so that moved inputs give the same names."""
    return hashlib.blake2b(f"{path}\0{offset}".encode(), digest_size=8).hexdigest()


def pack_of(files: Sequence[Unit]) -> Unit:
    """The unit of some whole files, named after the first of them; a single file is its own."""
    if len(files) == 1:
        return files[0]
    first, last = files[0], files[-1]
    path = f"{first.path} to {last.path}, {len(files)} files"
    name = unit_name(f"{first.path}\0pack")
    return Unit(name=name, path=path, url=first.url, size=sum(file.size for file in files), members=tuple(files))


def units_of_files(files: Sequence[storage.FileInfo]) -> list[Unit]:
    """A unit per file. The root is the directory that all of them share."""
    root = os.path.commonpath([os.path.dirname(f.url) for f in files]) if files else ""
    paths = [os.path.relpath(f.url, root) for f in files]
    return [Unit(name=unit_name(p), path=p, url=f.url, size=f.size, etag=f.etag) for p, f in zip(paths, files, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much bad input a stage stands: shares of the records read and of the files; one file is always allowed."""

    bad_records: float = 0.01
    bad_files: float = 0.001

    def check(self, counters: Mapping[str, Any], stage_url: str, damaged: Sequence[str] = ()) -> None:
        """Raises :class:`JobError` when there is more; says what, where to look, and how to go on. ``damaged``: the files, with reasons."""
        letters, read = counters.get("dead_letters", 0), counters.get("read", 0)
        files, bad_files = counters.get("files", 0), counters.get("bad_files", 0)
        # A damaged file is one dead letter; it is judged as a file, not a second time as a record.
        bad_records = letters - bad_files
        look = f"; see {storage.join(stage_url, 'dead_letters')}. What was done is kept: run the same command with a higher"
        reasons = ", ".join(f"{reason} {n}" for reason, n in counters.get("dead_letter_reasons", {}).items())
        if bad_records > self.bad_records * read:
            raise JobError(
                f"{bad_records} of {read} records could not be used ({reasons}), more than --max-bad-records {self.bad_records:.3%} allows"
                f"{look} --max-bad-records to accept it"
            )
        if bad_files > max(1.0, self.bad_files * files):
            raise JobError(
                f"{bad_files} of {files} files are damaged ({first_few(damaged) or reasons}), more than --max-bad-files "
                f"{self.bad_files:.3%} allows{look} --max-bad-files to accept it"
            )


class WouldRunError(Exception):
    """In a dry run: the stage that would be begun now, its units, and the names of those whose input has changed."""

    def __init__(self, stage: Stage, units: Sequence[Unit], changed: Sequence[str]) -> None:
        super().__init__(stage.url)
        self.stage, self.units, self.changed = stage, units, changed


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage to be made. ``parameters`` are those that change the result; ``upstream`` names the finished stages it reads, by id.

    Small and picklable: workers get it and find everything else in the directory.
    """

    url: str
    kind: str
    parameters: Mapping[str, Any]
    upstream: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def fingerprint(self) -> str:
        return digest({"stage": self.kind, "format": FORMAT_VERSION, "parameters": dict(self.parameters), "upstream": dict(self.upstream)})

    def at(self, *names: str) -> str:
        return storage.join(self.url, *names)

    def part_name(self, unit: Unit) -> str:
        return f"{'' if self.kind in NAMED_BY_LANGUAGE else 'part-'}{unit.name}.parquet"

    def part_url(self, unit: Unit) -> str:
        return self.at(self.part_name(unit))

    def letters_url(self, unit: Unit) -> str:
        return self.at("dead_letters", self.part_name(unit))

    # -- beginning ---------------------------------------------------------------------------------------------------------------

    def begin(self, units: Sequence[Unit], *, derived: bool = False) -> bool:
        """Prepare the directory; True if there is anything to do, False if the stage is finished already.

        More inputs than before extend the stage, a changed input is done again. ``derived``: the units are not inputs but follow from
        them, so that those that are gone are no mistake of the user.

        Raises:
            JobError: the directory holds a stage of another kind, of other parameters, of fewer inputs, or of a newer program.
            WouldRunError: in a dry run, where there is anything to do.
        """
        self._check_about()
        units = sorted(units, key=lambda u: u.name)
        twice = [name for name, n in Counter(u.name for u in units).items() if n > 1]
        if twice:
            raise JobError(f"two inputs would make the same part {twice[0]} of {self.url}")
        before = {u.name: u for u in self.units()} if storage.exists(self.at(UNITS)) else {}
        now = {u.name: u for u in units}
        gone = sorted(before.keys() - now.keys())
        # A changed file may be cut into fewer units than before, or go into another pack, and is still given.
        inputs = [file for u in units for file in u.inputs]
        paths = {file.path for file in inputs}
        lost = [file for name in sorted(before) for file in before[name].inputs if file.path not in paths]
        if lost and not derived:
            given = {file.url for file in inputs}
            renamed = [file for file in lost if file.url in given]
            if renamed:
                root = renamed[0].url.removesuffix(renamed[0].path)
                raise JobError(
                    f"{self.url} names its inputs by their paths below the folder that all of them share. That was {root}, and with the "
                    f"inputs given now it is another one, so that {len(renamed)} of them have new names (the first: {renamed[0].url}). Put "
                    f"what is new below {root} too (a link will do), or choose another --output"
                )
            raise JobError(
                f"{self.url} was begun with {len(lost)} inputs that are not given now (the first: {lost[0].path}): "
                f"give them again, or choose another --output"
            )
        # All but the URL: inputs may move. A unit that stands for another range of its input is another unit, whatever its name.
        changed = sorted(n for n in before.keys() & now.keys() if before[n].without_urls() != now[n].without_urls())
        if before.keys() == now.keys() and not changed and storage.exists(self.at(SUCCESS)):
            return False
        if DRY_RUN.get():
            raise WouldRunError(self, units, changed)
        storage.remove(self.at(SUCCESS))
        for name in [*changed, *gone]:
            storage.remove(self.part_url(before[name]))
            storage.remove(self.letters_url(before[name]))
        schema = _PACKED_SCHEMA if any(u.members for u in units) else _UNIT_SCHEMA
        table = pa.Table.from_pylist([asdict(u) for u in units], schema=schema)
        with storage.writing(self.at(UNITS)) as path:
            pq.write_table(table, path)
        return True

    def _check_about(self) -> None:
        about = {
            "stage": self.kind,
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "parameters": dict(self.parameters),
            "upstream": dict(self.upstream),
        }
        if not storage.exists(self.at(STAGE_FILE)):
            strangers = [n for n in storage.listing(self.url) if n.endswith(".parquet") or n == MANIFEST]
            if strangers:
                raise JobError(f"{self.url} holds {strangers[0]} but no {STAGE_FILE}: it is no stage of worldclip; choose another --output")
            if not DRY_RUN.get():
                storage.write_json(self.at(STAGE_FILE), about)
            return
        there = _read_about(self.url)
        if there.get("format_version", 0) > FORMAT_VERSION:
            raise JobError(f"{self.url} was written by a newer worldclip (format {there['format_version']}): update worldclip")
        if there.get("stage") != self.kind:
            raise JobError(f"{self.url} holds a stage '{there.get('stage')}', not '{self.kind}': choose another --output")
        if there.get("fingerprint") != self.fingerprint:
            raise JobError(
                f"{self.url} was made with other settings (fingerprint {there.get('fingerprint')}, now {self.fingerprint}): "
                f"{_differences(there, about)}. Choose another --output, or delete the directory"
            )

    @staticmethod
    def begun(url: str, limits: Limits) -> Stage:
        """The stage that was begun in a directory.

        Raises:
            JobError: there is none.
        """
        if not storage.exists(storage.join(url, STAGE_FILE)):
            raise JobError(f"{url} is no stage: there is no {STAGE_FILE} in it")
        about = _read_about(url)
        stage = Stage(url=url, kind=about["stage"], parameters=about["parameters"], upstream=about["upstream"], limits=limits)
        stage._check_about()
        return stage

    def units(self) -> list[Unit]:
        """The units of the stage, sorted by name."""
        with storage.open_read(self.at(UNITS)) as f:
            rows = pq.read_table(f).to_pylist()
        return [Unit(**row | {"members": tuple(Unit(**member) for member in row.get("members") or ())}) for row in rows]

    # -- working -----------------------------------------------------------------------------------------------------------------

    def has_part(self, unit: Unit) -> bool:
        """Whether the unit's part is there, whole and of this fingerprint."""
        return self._footer(unit) is not None

    def _footer(self, unit: Unit) -> Footer | None:
        footer = read_footer(self.part_url(unit))
        return footer if footer and (footer.unit, footer.fingerprint) == (unit.name, self.fingerprint) else None

    def footers(self, units: Sequence[Unit]) -> list[Footer | None]:
        """What the units' parts say of themselves; None where there is none yet."""
        with ThreadPoolExecutor(max_workers=32) as pool:
            return list(pool.map(self._footer, units))

    def to_do(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units whose parts are not there yet. Parts that a listing does not show are not asked for."""
        there = set(storage.listing(self.url))
        maybe = [unit for unit in units if self.part_name(unit) in there]
        done = {unit.name for unit, footer in zip(maybe, self.footers(maybe), strict=True) if footer}
        return [unit for unit in units if unit.name not in done]

    @contextlib.contextmanager
    def part(self, unit: Unit, schema: pa.Schema, tally: Tally) -> Iterator[PartWriter]:
        """A writer for the unit's part; at the end of the block its dead letters are written, then the part appears.

        ``tally`` is read at the end of the block. Raises ValueError if its books do not close: a defect, never the input's fault.
        """
        with storage.writing(self.part_url(unit)) as path:
            writer = PartWriter(path, schema, self.fingerprint, unit.name)
            try:
                yield writer
                if not tally.balanced:
                    raise ValueError(f"the books of {unit.path} do not close: {tally.counters()}")
                counters, inputs = tally.counters(), [unit.path] * len(tally.letters)
                if unit.members:
                    counters = counters_of_pack(counters, writer.files)
                    inputs = [file.path for file in writer.files for _ in range(file.letters)]
                if tally.letters:
                    write_letters(self.letters_url(unit), tally.letters, inputs)
                writer.close(counters=counters)
            except BaseException:
                writer.abandon()
                raise

    def write_part(self, unit: Unit, table: pa.Table, tally: Tally, *, input_sha256: str = "", files: Sequence[FileRead] = ()) -> None:
        """Write a part that is one table. ``files``: what became of each member, where the unit is a pack."""
        with self.part(unit, table.schema, tally) as writer:
            writer.write(table)
            writer.input_sha256, writer.files = input_sha256, files

    # -- ending ------------------------------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Sum the footers into manifest.json and set ``_SUCCESS``; returns the counters.

        Raises:
            JobError: a part is missing, or there was too much bad input.
        """
        units = self.units()
        footers = self.footers(units)
        missing = [u for u, f in zip(units, footers, strict=True) if f is None]
        if missing:
            raise JobError(
                f"{self.url}: {len(missing)} of {len(units)} units have no part yet (the first: {missing[0].path}); run the job again"
            )
        done = [(unit, footer) for unit, footer in zip(units, footers, strict=True) if footer is not None]
        books = [(unit.file, footer.counters) for unit, footer in done]
        counters = account(books)
        parts: list[dict[str, Any]] = []
        for unit, footer in done:
            parts.append(
                {
                    "name": self.part_name(unit),
                    "input": unit.path,
                    "rows": footer.rows,
                    "bytes": footer.bytes,
                    "data_sha256": footer.data_sha256,
                    "input_sha256": footer.input_sha256,
                }
            )
        if self.kind in MERGED_FROM:
            counters = dict(open_stage(self.at("blocks"), MERGED_FROM[self.kind]).counters)
        self.limits.check(counters, self.url, damaged_files(books))
        manifest = {
            "stage": self.kind,
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "parameters": dict(self.parameters),
            "upstream": dict(self.upstream),
            "counters": counters,
            "rows": sum(p["rows"] for p in parts),
            "parts": parts,
        }
        manifest["id"] = digest(manifest)
        for directory in (self.url, self.at("dead_letters")):
            storage.remove_temporary(directory)
        storage.write_json(self.at(MANIFEST), manifest)
        storage.write_bytes(self.at(SUCCESS), b"")
        return counters


def _read_about(url: str) -> dict[str, Any]:
    """The content of a directory's stage.json.

    Raises:
        JobError: it is damaged.
    """
    about = storage.read_json(storage.join(url, STAGE_FILE))
    if not isinstance(about, dict) or not {"stage", "format_version", "parameters", "upstream"} <= about.keys():
        raise JobError(f"{storage.join(url, STAGE_FILE)} is damaged: choose another --output, or delete the directory")
    return about


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two stage.json, in words."""
    out = []
    for section in ("parameters", "upstream"):
        a, b = there.get(section) or {}, now.get(section) or {}
        out += [f"{key} was {a.get(key)!r} and is {b.get(key)!r}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    return "; ".join(out) or "the code's format differs"


@dataclass(frozen=True, kw_only=True)
class FinishedStage:
    """A stage that another one reads."""

    url: str
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    @property
    def parameters(self) -> Mapping[str, Any]:
        return dict(self.manifest["parameters"])

    @property
    def upstream(self) -> Mapping[str, str]:
        return dict(self.manifest["upstream"])

    @property
    def counters(self) -> Mapping[str, Any]:
        return dict(self.manifest["counters"])

    @property
    def rows(self) -> int:
        return int(self.manifest["rows"])

    @property
    def parts(self) -> list[Mapping[str, Any]]:
        """The parts in order of their names, each with name, input, rows, bytes and checksums."""
        return list(self.manifest["parts"])

    def part_url(self, name: str) -> str:
        return storage.join(self.url, name)

    def units(self) -> list[Unit]:
        """A unit per part, of the same name and in the same order: what a stage with one part per part of this one works on."""
        return [
            Unit(
                name=p["name"].removeprefix("part-").removesuffix(".parquet"),
                path=p["name"],
                url=self.part_url(p["name"]),
                etag=p["data_sha256"],
                index=i,
            )
            for i, p in enumerate(self.parts)
        ]


def open_stage(url: str, kind: str) -> FinishedStage:
    """A finished stage of that kind.

    Raises:
        JobError: it is absent, not finished, of another kind or of a newer program.
    """
    if not storage.exists(storage.join(url, SUCCESS)):
        if not storage.exists(storage.join(url, STAGE_FILE)):
            raise JobError(f"{url} is no stage '{kind}': there is no {STAGE_FILE} in it")
        raise JobError(f"{url} is not finished (no {SUCCESS}): run its job again with the same command, it goes on where it stopped")
    manifest = storage.read_json(storage.join(url, MANIFEST))
    if manifest["format_version"] > FORMAT_VERSION:
        raise JobError(f"{url} was written by a newer worldclip (format {manifest['format_version']}): update worldclip")
    if manifest["stage"] != kind:
        raise JobError(f"{url} holds a stage '{manifest['stage']}', not '{kind}'")
    return FinishedStage(url=url, manifest=manifest)
