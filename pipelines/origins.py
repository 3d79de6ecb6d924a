"""What a finished stage was made from, as its card says it: every input by name, size and checksum."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from balancing.lid import embedded_model
from pipelines import storage
from pipelines.datacard import CORPUS, EXTRA, FILE, LEFT_OUT, LIST, MODEL, Input, Range
from pipelines.errors import JobError
from pipelines.stage import MERGED_FROM, FinishedStage, Limits, Stage, Unit, open_stage

_LID = "lid"


def inputs_of(stage: FinishedStage) -> tuple[Input, ...]:
    """The inputs of a stage that come from outside the chain, sorted by name.

    A checksum that was not taken while the stage read (of Parquet files and ranges of JSON lines) is taken here, if the file lies where it
    lay and its size and time are those of then; otherwise it stays empty.

    Raises:
        JobError: the stage's own account of its inputs is absent.
    """
    kind, parameters = str(stage.manifest["stage"]), stage.parameters
    if kind in MERGED_FROM:
        return _files_of(open_stage(storage.join(stage.url, "blocks"), MERGED_FROM[kind]))
    if kind == "wordnet":
        return _corpora_of(stage)
    if kind == "match":
        return (*_files_of(stage), *_model_of(parameters))
    if kind == "entries":
        lists, extra = parameters.get("lists", {}), parameters.get("extra", {})
        return (*_by_checksum(LIST, lists), *_by_checksum(EXTRA, extra))
    if kind == "count":
        places = {name: storage.join(stage.url, LEFT_OUT, name) for name in parameters.get(LEFT_OUT, {})}
        return tuple(_by_checksum(LEFT_OUT, {name: sha256_of(place) for name, place in places.items()}))
    return ()


def packs_of(stage: FinishedStage) -> tuple[tuple[str, ...], ...]:
    """The names of the files that were read together for one part, of every part of several, in the order of the first names."""
    if stage.manifest["stage"] != "match":
        return ()
    return tuple(sorted(tuple(file.path for file in unit.members) for unit, _ in _units_and_parts(stage) if unit.members))


def _by_checksum(kind: Any, checksums: Mapping[str, str]) -> list[Input]:
    return [Input(kind=kind, name=name, sha256=checksums[name]) for name in sorted(checksums)]


def _model_of(parameters: Mapping[str, Any]) -> list[Input]:
    """The language identification model, unless it is the one that is installed with worldclip."""
    try:
        embedded = sha256_of(str(embedded_model()))
    except FileNotFoundError:
        embedded = ""
    return [] if parameters["lid"] == embedded else [Input(kind=MODEL, name=_LID, sha256=parameters["lid"])]


def _corpora_of(stage: FinishedStage) -> tuple[Input, ...]:
    from pipelines.wordnet import corpus_of  # Beam takes a second to import

    found = {corpus_of(unit): part["input_sha256"] for unit, part in _units_and_parts(stage)}
    return tuple(Input(kind=CORPUS, name=name, sha256=found[name]) for name in sorted(found))


def _units_and_parts(stage: FinishedStage) -> list[tuple[Unit, Mapping[str, Any]]]:
    begun = Stage.begun(stage.url, Limits())
    units = {begun.part_name(unit): unit for unit in begun.units()}
    try:
        return [(units[part["name"]], part) for part in stage.parts]
    except KeyError as error:
        raise JobError(f"{stage.url}: {error} of its manifest is not in its units.parquet: run its job again") from error


def _files_of(stage: FinishedStage) -> tuple[Input, ...]:
    """The files that a stage read, one or several parts of each."""
    files: dict[str, list[tuple[Unit, str]]] = {}
    for unit, part in _units_and_parts(stage):
        checksums = part["input_sha256"].split() or [""] * len(unit.inputs)
        for file, checksum in zip(unit.inputs, checksums, strict=True):
            files.setdefault(file.path, []).append((file, checksum))
    return tuple(_file(name, files[name]) for name in sorted(files))


def _file(name: str, units: list[tuple[Unit, str]]) -> Input:
    first, checksum = units[0]
    size = first.size if first.etag else None
    if len(units) == 1 and first.length < 0 and checksum:
        return Input(kind=FILE, name=name, size=size, sha256=checksum)
    if all(checksum for _, checksum in units):
        ordered = sorted(units, key=lambda item: item[0].offset)
        return Input(kind=FILE, name=name, size=size, ranges=tuple(Range(offset=u.offset, length=u.length, sha256=x) for u, x in ordered))
    return Input(kind=FILE, name=name, size=size, sha256=sha256_of(first.url) if _is_unchanged(first) else "")


def _is_unchanged(unit: Unit) -> bool:
    """Whether the file of a unit is the one that was listed when the stage began."""
    try:
        (file,) = storage.expand((literal(unit.url),))
    except JobError:
        return False
    return bool(unit.etag) and (file.size, file.etag) == (unit.size, unit.etag)


def literal(url: str) -> str:
    """A pattern that names a file whatever characters are in its name."""
    return re.sub(r"([*?\[])", r"[\1]", url)


def sha256_of(url: str, *, offset: int = 0, length: int = -1) -> str:
    """SHA-256 of a file, or of a range of it. Memory: a megabyte."""
    with storage.open_hashing(url, offset=offset, length=length) as (_, reader):
        return reader.hexdigest()
