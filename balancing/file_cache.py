"""Copies of remote files in a folder of this machine: made once for all processes, within a size."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

#: Between the starts of the processes of one run, in seconds: what one of them has used, the others do not remove.
_START_S = 600.0


@dataclass(frozen=True, kw_only=True)
class FileCache:
    """The folder, and the bytes that its files may take; it may be deleted when nothing runs.

    Where room is needed the least recently used file goes, but none that this run has used: a set that does not fit would else push out
    its own files before they are read again.
    """

    folder: Path
    limit: int
    since: float = field(default_factory=lambda: time.time() - _START_S)

    def find(self, content: Sequence[str], size: int, fetch: Callable[[BinaryIO], None]) -> Path | None:
        """The copy of a file of ``size`` bytes; None where there is no room for it.

        ``content``: what tells it from all others, such as its URL and the date of it. ``fetch`` writes the bytes if need be. Raises what
        that raises, and OSError.
        """
        copy = self.folder / hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
        if not self._use(copy):
            with self._locked(copy.name[:2]):
                if not self._use(copy) and not self._make(copy, size, fetch):
                    return None
        return copy

    def _use(self, copy: Path) -> bool:
        """Whether a copy is there; if so it stays for this run."""
        with self._locked("room"):
            try:
                os.utime(copy)
            except FileNotFoundError:
                return False
        return True

    def _make(self, copy: Path, size: int, fetch: Callable[[BinaryIO], None]) -> bool:
        partial = copy.with_suffix(".partial")
        with self._locked("room"):
            partial.unlink(missing_ok=True)  # of a process that was killed
            if not self._make_room(size):
                return False
            with partial.open("wb") as out:
                out.truncate(size)  # it counts from now on
        with partial.open("r+b") as out:
            fetch(out)
            if out.tell() != size:
                raise OSError(f"{out.tell()} of {size} bytes arrived")
        with self._locked("room"):
            os.replace(partial, copy)  # who makes room meanwhile would find neither
        return True

    def _make_room(self, size: int) -> bool:
        found = [(file, file.stat()) for file in self.folder.iterdir() if not file.name.startswith(".")]
        free = self.limit - sum(about.st_size for _, about in found)
        old = sorted((about.st_mtime, file, about.st_size) for file, about in found if about.st_mtime < self.since)
        if size > free + sum(of_file for _, _, of_file in old):
            return False
        for _, file, of_file in old:
            if size > free:
                file.unlink()
                free += of_file
        return True

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """The right to one kind of work in the folder; it ends with the process, however that ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".lock-{name}").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
