"""The books of a stage: the sum of what its parts say, and which files are damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metadata.tally import Tally, add_counters

#: What counts as one file: its path, and a name where a path does not tell them apart.
File = tuple[str, str]


def account(parts: Iterable[tuple[File, Mapping[str, Any]]]) -> dict[str, Any]:
    """The sum of the counters of parts. A file counts once, however many parts are of it."""
    counters: dict[str, Any] = Tally().counters()
    files, bad_files = set(), set()
    for file, of_part in parts:
        counters = add_counters(counters, dict(of_part))
        files.add(file)
        if of_part.get("bad_files"):
            bad_files.add(file)
    return counters | {"files": len(files), "bad_files": len(bad_files)}


def damaged_files(parts: Iterable[tuple[File, Mapping[str, Any]]]) -> list[str]:
    """The paths of the files that are damaged, with the reasons of their dead letters, sorted."""
    reasons: dict[File, dict[str, int]] = {}
    for file, of_part in parts:
        if of_part.get("bad_files"):
            reasons[file] = add_counters(reasons.get(file, {}), of_part.get("dead_letter_reasons", {}))
    return [f"{path}: {', '.join(f'{reason} {n}' for reason, n in of.items())}" for (path, _), of in sorted(reasons.items())]


def first_few(names: Sequence[str], most: int = 10) -> str:
    """Names in a message: the first of them, and how many there are more."""
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")
