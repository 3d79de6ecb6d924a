"""The books of a stage: the sum of what its parts say, and which files are damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metadata.tally import Tally, add_counters

#: What counts as one file: its path, and a name where a path does not tell them apart.
File = tuple[str, str]
#: In the counters of a pack of files: the damaged ones by their paths, with the reasons of their dead letters.
_DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class FileRead:
    """What became of one file while it was read. ``letters``: how many of the dead letters that are kept are of it; those of a unit stand
    in the order of its files. ``reasons``: of all its dead letters. ``sha256``: empty where it was not read as a whole."""

    path: str
    sha256: str = ""
    letters: int = 0
    reasons: Mapping[str, int]
    damaged: bool = False


def counters_of_pack(counters: Mapping[str, Any], files: Sequence[FileRead]) -> dict[str, Any]:
    """The counters of a unit that are the sum over several files, with what must be known of each of them."""
    damaged = {file.path: dict(sorted(file.reasons.items())) for file in files if file.damaged}
    return {**counters, "files": len(files), "bad_files": len(damaged), **({_DAMAGED: damaged} if damaged else {})}


def account(parts: Iterable[tuple[File, Mapping[str, Any]]]) -> dict[str, Any]:
    """The sum of the counters of parts. A file counts once, however many parts are of it; a pack for as many as are in it."""
    counters: dict[str, Any] = Tally().counters()
    files: dict[File, int] = {}
    damaged: set[File] = set()
    for file, of_part in parts:
        counters = add_counters(counters, {name: of_part[name] for name in of_part if name != _DAMAGED})
        files[file] = of_part.get("files", 1)
        damaged.update(_damage(file, of_part))
    return counters | {"files": sum(files.values()), "bad_files": len(damaged)}


def _damage(file: File, of_part: Mapping[str, Any]) -> dict[File, Mapping[str, int]]:
    """The damaged files that a part is of, with the reasons of their dead letters."""
    if _DAMAGED in of_part:
        return {(path, ""): reasons for path, reasons in of_part[_DAMAGED].items()}
    return {file: of_part.get("dead_letter_reasons", {})} if of_part.get("bad_files") else {}


def damaged_files(parts: Iterable[tuple[File, Mapping[str, Any]]]) -> list[str]:
    """The paths of the files that are damaged, with the reasons of their dead letters, sorted."""
    reasons: dict[File, dict[str, int]] = {}
    for part in parts:
        for file, of_file in _damage(*part).items():
            reasons[file] = add_counters(reasons.get(file, {}), dict(of_file))
    return [f"{path}: {', '.join(f'{reason} {n}' for reason, n in of.items())}" for (path, _), of in sorted(reasons.items())]


def first_few(names: Sequence[str], most: int = 10) -> str:
    """Names in a message: the first of them, and how many there are more."""
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")
