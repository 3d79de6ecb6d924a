"""Files wherever they are: the one user of fsspec outside ``train/``. Paths are local, or URLs that fsspec knows (gs://, s3://, memory://…)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import posixpath
import re
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

# gcsfs probes every bucket's type over gRPC, up to a minute each, unless told not to before it is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipelines.errors import JobError, message_of
from pipelines.patience import is_busy, passes_for_writers, patiently

T = TypeVar("T")

_GLOB = frozenset("*?[")
#: Packages that fsspec asks for, by the extra of this one that brings them.
_EXTRAS = {"s3fs": "'worldclip[s3]'"}
#: How it is said that there is no such file, or that it is something else.
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS}) | _NO_ROOM
#: Bytes that are read at once of a file that is read whole.
_PIECE = 16 << 20
#: Unfinished local files carry this prefix; readers never list them.
_TEMPORARY = ".tmp-"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """A file as a listing shows it. ``etag`` changes when the content does (mtime for local files)."""

    url: str
    size: int
    etag: str


def _file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        asked = re.search(r"[Ii]nstall (\w+)", str(error))
        remedy = f"pip install {_EXTRAS.get(asked[1], asked[1])}" if asked else str(error)
        raise JobError(f"{url}: what reads such addresses is not installed: {remedy}") from error
    except (ValueError, OSError) as error:
        raise JobError(f"{url}: {str(error).partition(chr(10))[0]} (local paths, gs://, s3:// and http:// are understood)") from error
    if getattr(getattr(fs, "dircache", None), "use_listings_cache", False):
        # Others write too: what a listing showed is old at once, and a file that came since would be taken for absent.
        fs.dircache.use_listings_cache = False
        fs.dircache.clear()
    return fs, path


@contextlib.contextmanager
def _answering(url: str) -> Iterator[None]:
    """What a disk, a network or an object store refuses, as a JobError that names the address; not that there is no such file."""
    try:
        yield
    except (JobError, *_ABSENT):
        raise
    except Exception as error:
        said = message_of(error)
        if said is None and isinstance(error, OSError) and not error.errno:
            # gcsfs says so that it may not, and how a server behind a broken proxy answers.
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            said = f"a refusal ({reason}): mend the address, the network or the credentials, and run the same command again"
        if said is None:
            raise
        raise JobError(f"{url}: {said}") from error


def _ask(url: str, question: Callable[[], T]) -> T:
    """The answer to a question about ``url``, which is asked again while the server says that it is busy.

    Raises:
        JobError: the server refuses, or does not answer.
    """
    with _answering(url):
        # What does not answer at all when it is first asked is a wrong address rather than a bad hour.
        return patiently(question, url, passing=is_busy)


def is_local(url: str) -> bool:
    return isinstance(_file_system(url)[0], LocalFileSystem)


def local_path(url: str) -> str:
    """The plain path of a local URL, absolute."""
    return str(_file_system(url)[1])


def join(root: str, *parts: str) -> str:
    """A path below ``root``, or beside it: ``..`` is resolved. A part that is a URL or an absolute path stands for itself."""
    if parts and "://" in parts[-1]:
        return parts[-1]
    joined = posixpath.join(root.rstrip("/") or "/", *parts)
    if ".." not in posixpath.join("", *parts).split("/"):
        return joined
    # An object store takes ".." for a name.
    protocol, colon, path = joined.rpartition("://")
    return protocol + colon + posixpath.normpath(path)


def parent(url: str) -> str:
    """The directory of a file; of a bare name the current one."""
    return posixpath.dirname(url) or "."


def relative(url: str, directory: str) -> str:
    """``url`` as seen from ``directory``, so that both can move together; unchanged where they do not share a file system."""
    (fs_a, a), (fs_b, b) = _file_system(url), _file_system(directory)
    return posixpath.relpath(a, b) if type(fs_a) is type(fs_b) else url


def _info(fs: fsspec.AbstractFileSystem, detail: dict[str, Any]) -> FileInfo:
    tag = next((detail[k] for k in ("etag", "ETag", "md5Hash", "generation", "mtime", "created") if detail.get(k)), "")
    return FileInfo(url=str(fs.unstrip_protocol(detail["name"])), size=int(detail.get("size") or 0), etag=str(tag))


def _named(fs: fsspec.AbstractFileSystem, path: str) -> list[dict[str, Any]]:
    """What a path or a glob names."""
    if not _GLOB.isdisjoint(path):
        return list(fs.glob(path, detail=True).values())
    if fs.isdir(path):
        return list(fs.ls(path, detail=True))
    try:
        return [fs.info(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def expand(patterns: tuple[str, ...], *, flag: str = "--input") -> list[FileInfo]:
    """The files that paths, globs or URLs name, each once, sorted by URL. A directory stands for the files directly in it.

    Raises:
        JobError: a pattern names nothing.
    """
    found: dict[str, FileInfo] = {}
    for pattern in patterns:
        fs, path = _file_system(pattern)
        details = _ask(f"{flag} {pattern}", partial(_named, fs, path))
        shown = [d for d in details if not posixpath.basename(d["name"]).startswith(".")]
        # fsspec calls a symbolic link "other", whatever it leads to.
        files = [_info(fs, d) for d in shown if d["type"] == "file" or (d["type"] == "other" and fs.isfile(d["name"]))]
        if not files:
            raise JobError(f"{flag} {pattern}: no such file (globs are read by worldclip itself when they are quoted)")
        found.update((f.url, f) for f in files)
    return [found[url] for url in sorted(found)]


def listing(directory: str) -> list[str]:
    """Names directly in a directory, sorted; without temporary files. An absent directory has none."""
    names = [posixpath.basename(detail["name"].rstrip("/")) for detail in _ls(directory)]
    return sorted(name for name in names if not name.startswith(_TEMPORARY))


def _ls(directory: str) -> list[dict[str, Any]]:
    fs, path = _file_system(directory)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return _ask(directory, lambda: list(fs.ls(path, detail=True)))
    return []


def modified(directory: str) -> dict[str, datetime | None]:
    """Names directly in a directory, sorted, without temporary files, and when each was written; None where the file system keeps no
    times."""
    found: dict[str, datetime | None] = {}
    for detail in _ls(directory):
        time = next((detail[k] for k in ("mtime", "LastModified", "updated", "last_modified", "created") if detail.get(k)), None)
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        elif isinstance(time, int | float):
            time = datetime.fromtimestamp(time, UTC)
        if time is not None and time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        found[posixpath.basename(detail["name"].rstrip("/"))] = time
    return {name: found[name] for name in sorted(found) if not name.startswith(_TEMPORARY)}


def walk(directory: str) -> list[str]:
    """URLs of all files below a directory, sorted. An absent one has none."""
    fs, path = _file_system(directory)
    return sorted(str(fs.unstrip_protocol(name)) for name in _ask(directory, lambda: list(fs.find(path))))


def exists(url: str) -> bool:
    fs, path = _file_system(url)
    return _ask(url, lambda: bool(fs.exists(path)))


def open_read(url: str) -> BinaryIO:
    """The bytes of a file as they are stored, seekable.

    Raises:
        JobError: it is not there or may not be read.
    """
    try:
        return _open(url)
    except (*_ABSENT, PermissionError) as error:
        raise JobError(f"{url}: cannot be read ({type(error).__name__})") from error


def open_if_there(url: str) -> BinaryIO | None:
    """As :func:`open_read`, but None where there is no such file: of an object store half the requests of asking first.

    Raises:
        JobError: it may not be read.
    """
    try:
        return _open(url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, PermissionError) as error:
        raise JobError(f"{url}: cannot be read ({type(error).__name__})") from error


def _open(url: str) -> BinaryIO:
    fs, path = _file_system(url)
    with _answering(url):
        if isinstance(fs, LocalFileSystem):
            return cast(BinaryIO, fs.open(path, "rb"))
        return cast(BinaryIO, io.BufferedReader(_PersistentReader(fs, path, url), buffer_size=1 << 16))


class _PersistentReader(io.RawIOBase):
    """A remote file that is opened again, at the same place, where its connection breaks."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, url: str) -> None:
        self._fs, self._path, self._url = fs, path, url
        # What does not answer at all when it is first asked is a wrong address rather than a bad hour.
        self._file: Any = patiently(self._open, url, passing=is_busy)
        self._at = 0

    def _open(self) -> Any:
        # What gcsfs does unless told otherwise makes a request of every small read.
        ahead = {"cache_type": "readahead"} if "gs" in self._fs.protocol else {}
        return self._fs.open(self._path, "rb", **ahead)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: 0}[whence]
        self._at = self._file.seek(0, os.SEEK_END) + offset if whence == os.SEEK_END else start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = patiently(lambda: self._read(len(buffer)), self._url)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """The rest, asked for in large pieces: Python's own way would be 8 KB at a time."""
        at = self._at
        left = max(0, self.seek(0, os.SEEK_END) - at)
        self.seek(at)
        pieces = []
        while left and (piece := self.read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._open()
            self._file.seek(self._at)
            return bytes(self._file.read(size))
        except Exception:
            self._file = None
            raise

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


def read_bytes(url: str) -> bytes:
    with open_read(url) as f:
        return f.read()


def read_json(url: str) -> Any:
    """The content of a JSON file.

    Raises:
        JobError: absent, or not JSON.
    """
    try:
        return json.loads(read_bytes(url))
    except ValueError as error:
        raise JobError(f"{url}: not valid JSON ({error})") from error


@contextlib.contextmanager
def writing(url: str) -> Iterator[pathlib.Path]:
    """A local path to write to; when the block ends well the file appears at ``url`` whole, otherwise nothing does.

    Raises:
        JobError: the place cannot be written to.
    """
    fs, path = _file_system(url)
    local = isinstance(fs, LocalFileSystem)
    with _refusal_told(url):
        if local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = pathlib.Path(os.path.dirname(path) if local else tempfile.gettempdir(), f"{_TEMPORARY}{uuid.uuid4().hex}")
        # mkstemp's files are their owner's alone, and a process can only learn its umask by setting it, under the feet of its threads.
        temporary.touch(exist_ok=False)
    try:
        with _refusal_told(url if local else str(temporary.parent), only=_NO_ROOM):
            yield temporary
        if local:
            with _refusal_told(url):
                os.replace(temporary, path)
        else:
            with _answering(url), _refusal_told(url, only=_DENIED):
                patiently(lambda: fs.put_file(str(temporary), path), url, passing=passes_for_writers)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _refusal_told(url: str, *, only: frozenset[int] | None = None) -> Iterator[None]:
    """Errors of the place where ``url`` lies as a JobError with the remedy; all of them, or those with ``only`` these numbers."""
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno in _NO_ROOM:
            raise JobError(f"{url}: no room is left ({reason}); make some and run the same command again, what was done is kept") from error
        raise JobError(f"{url}: cannot be written to ({reason}); choose another --output or mend its permissions") from error


def write_bytes(url: str, data: bytes) -> None:
    with writing(url) as path:
        path.write_bytes(data)


def write_json(url: str, value: Any) -> None:
    """Write as indented JSON with sorted keys: the same value gives the same bytes."""
    write_bytes(url, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def remove(url: str) -> None:
    """Delete a file; an absent one is no mistake."""
    fs, path = _file_system(url)
    with contextlib.suppress(FileNotFoundError):
        _ask(url, lambda: fs.rm_file(path))


def remove_temporary(directory: str) -> None:
    """Delete what killed workers left half-written below a local directory."""
    if is_local(directory):
        for path in pathlib.Path(local_path(directory)).rglob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)


class HashingReader(io.RawIOBase):
    """Reads through to another file and keeps the SHA-256 of what went by, or of the first ``length`` bytes of it; :meth:`hexdigest` reads
    the rest of them first."""

    def __init__(self, raw: BinaryIO, length: int = -1) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self._left = sys.maxsize if length < 0 else length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._sha256.update(data[: self._left])
        self._left = max(0, self._left - len(data))
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        while self._left and self.read(1 << 20):
            pass
        return self._sha256.hexdigest()


@contextlib.contextmanager
def open_hashing(url: str, *, offset: int = 0, length: int = -1) -> Iterator[tuple[BinaryIO, HashingReader]]:
    """A buffered reader of a file, from ``offset`` on, and the reader that knows the SHA-256 of ``length`` bytes of it (-1: all)."""
    with open_read(url) as raw:
        raw.seek(offset)
        reader = HashingReader(raw, length)
        yield cast(BinaryIO, io.BufferedReader(reader, buffer_size=1 << 20)), reader
