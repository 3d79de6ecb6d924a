"""Where downloads lie: the files under their published names, the unfinished ones, and ``download.json``, which says what was fetched."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from metadata.compressed import DamageError, decompressed
from metadata.published import SITE, PublishedFile
from pipelines import storage
from pipelines.cache import cache_directory
from pipelines.errors import JobError
from pipelines.lock import alone
from pipelines.stage import digest
from pipelines.transfer import Partial

RECORD = "download.json"
FORMAT_VERSION = 1
_PARTIAL = ".partial"
_GZIP = b"\x1f\x8b"
#: An object store takes a new version of an object once a second.
_SAVE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A file as it lies there: its bytes, their SHA-1, and what is wrong with it, or nothing."""

    size: int
    sha1: str
    fault: str = ""


def examine(file: BinaryIO, about: PublishedFile) -> Found:
    """Read a file and compare it with what is published; where that is no SHA-1, with the CRC that gzip carries."""
    sha1 = hashlib.file_digest(cast(Any, file), partial(hashlib.sha1, usedforsecurity=False)).hexdigest()
    found = Found(size=file.seek(0, os.SEEK_END), sha1=sha1)
    if about.sha1:
        return found if sha1 == about.sha1 else replace(found, fault=f"its SHA-1 is {sha1} and {about.sha1} is published")
    file.seek(0)
    if file.read(len(_GZIP)) != _GZIP:
        return replace(found, fault="it is no gzip file")
    file.seek(0)
    try:
        for _ in decompressed(file):
            pass
    except DamageError as error:
        return replace(found, fault=f"it is damaged ({error})")
    return found


class Shelf:
    """The output of a download. ``partials``: the local directory of what is under way.

    An object store takes whole files only, so those for it are under way in the cache directory.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = url.rstrip("/") or url
        self.is_local = storage.is_local(self.url)
        if self.is_local:
            self.partials = Path(storage.local_path(self.url), _PARTIAL)
        else:
            self.partials = cache_directory() / "downloads" / digest(self.url)
        self._read_only = read_only
        self._record = self._read_record()
        self._saved = dict(self._record)
        self._saved_at = -_SAVE_SECONDS

    @staticmethod
    @contextmanager
    def opened(url: str, *, read_only: bool) -> Iterator[Shelf]:
        """The output, for this process alone unless it is only looked at.

        Raises:
            JobError: another process downloads to it, it cannot be written to, or its record is damaged.
        """
        shelf = Shelf(url, read_only=read_only)
        if read_only:
            yield shelf
            return
        with _locked(shelf.partials, url):
            storage.remove_temporary(str(shelf.partials))
            yield shelf
            shelf.save()
            # Where something failed it is not empty: it is gone on with.
            with suppress(OSError):
                shelf.partials.rmdir()

    def at(self, name: str) -> str:
        return storage.join(self.url, name)

    def names(self) -> list[str]:
        return storage.listing(self.url)

    def partial(self, file: PublishedFile) -> Partial:
        return Partial(self.partials / file.name, sha1=file.sha1)

    def unfinished(self) -> dict[str, int]:
        """The files under way and their bytes."""
        found = sorted(self.partials.glob("*")) if self.partials.exists() else []
        return {path.name: path.stat().st_size for path in found if path.suffix != ".json"}

    def find(self, file: PublishedFile) -> Found | None:
        """What lies there under the file's name; None if nothing does.

        Local files are read. From an object store only those are that download.json does not know.
        """
        if not storage.exists(self.at(file.name)):
            return None
        known = self._record.get(file.name)
        with storage.open_read(self.at(file.name)) as opened:
            size = opened.seek(0, os.SEEK_END)
            if file.size is not None and size != file.size:
                return Found(size=size, sha1="", fault=f"it has {size:,} bytes and {file.size:,} are published")
            if known and not self.is_local and known["size"] == size and file.sha1 in ("", known["sha1"]):
                return Found(size=size, sha1=known["sha1"])
            opened.seek(0)
            found = examine(opened, file)
        if known and not file.sha1 and known["sha1"] != found.sha1:
            return replace(found, fault="it is not what was fetched")
        return found

    def add(self, file: PublishedFile, found: Found) -> None:
        """Note a file that is there and right; what is under way of it is of no use any more."""
        if not self._read_only:
            self.partial(file).discard()
        about = {"name": file.name, "url": f"{SITE}/{file.path}", "date": file.date, "wiki": file.wiki}
        self._record[file.name] = {**about, "size": found.size, "sha1": found.sha1}
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the record, if there is anything new: the same files give the same bytes."""
        if self._read_only or self._record == self._saved:
            return
        there = set(self.names())
        files = [about for name, about in sorted(self._record.items()) if name in there]
        storage.write_json(self.at(RECORD), {"format_version": FORMAT_VERSION, "files": files})
        self._saved, self._saved_at = dict(self._record), time.monotonic()

    def _read_record(self) -> dict[str, dict[str, Any]]:
        if not storage.exists(self.at(RECORD)):
            return {}
        body = storage.read_json(self.at(RECORD))
        try:
            if body["format_version"] > FORMAT_VERSION:
                raise JobError(f"{self.at(RECORD)} was written by a newer worldclip: update worldclip")
            return {str(about["name"]): {**about, "size": int(about["size"]), "sha1": str(about["sha1"])} for about in body["files"]}
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"{self.at(RECORD)} is damaged ({type(error).__name__}: {error}): delete it, it is made anew") from error


@contextmanager
def _locked(directory: Path, url: str) -> Iterator[None]:
    """Two processes would write to the same unfinished files."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{directory}: cannot be written to ({error.strerror or error}); choose another --output") from error
    with alone(directory, f"another process is downloading to {url}: wait for it, or choose another --output"):
        yield
