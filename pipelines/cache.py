"""The machine's cache: big read-only files of object stores, fetched once per machine whatever the number of processes.

It is a directory on a disk of the machine itself: WORLDCLIP_CACHE, or ~/.cache/worldclip (below XDG_CACHE_HOME where that is set). A name
in it stands for one content, so that nothing there goes stale. Nothing is removed either: whoever needs the room deletes the directory, at
any time, since what runs has read its files whole, and fetches again what it wants next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines import storage
from pipelines.errors import JobError


def cache_directory() -> Path:
    given = os.environ.get("WORLDCLIP_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "worldclip")


def local_copy(url: str, name: str, *, not_file: int | None = None) -> Path:
    """Where a file lies on this machine: a local one where it is, another in the cache under ``name``, fetched unless it is there.

    ``name`` identifies the content. ``not_file``: the number (:func:`file_number`) of a copy that turned out to be damaged; it is fetched
    anew, once for all processes that found it so.

    Raises:
        JobError: it cannot be read, or the cache not written to.
    """
    if storage.is_local(url):
        return Path(storage.local_path(url))
    target = cache_directory() / name
    with _told(url, target):
        if file_number(target) in (None, not_file):
            with _locked(target):
                # Another process may have fetched it meanwhile.
                if file_number(target) in (None, not_file):
                    _fetch(url, target)
    return target


def file_number(path: Path) -> int | None:
    """What tells one copy from the next of the same name; None where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _fetch(url: str, target: Path) -> None:
    """For one process at a time: what another one left unfinished is overwritten."""
    unfinished = target.with_name(f".tmp-{target.name}")
    try:
        with storage.open_read(url) as source, unfinished.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        # The old copy is still there, so that the new one has another number.
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """The right to write a file of the cache; it ends with the process, however that ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".lock-{target.name}").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _told(url: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{url}: cannot be copied to {target} ({error.strerror or error})"
        raise JobError(f"{what}; WORLDCLIP_CACHE names a directory on a disk of this machine with room for all automata") from error
