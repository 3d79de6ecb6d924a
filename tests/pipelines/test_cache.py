"""The machine's cache, its source in fsspec's memory file system."""

from __future__ import annotations

import io
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines import storage
from pipelines.cache import cache_directory, file_number, local_copy
from pipelines.errors import JobError

URL = "memory://bucket/big"
CONTENT = bytes(range(256)) * 10_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    storage.write_bytes(URL, CONTENT)
    yield tmp_path / "cache"
    MemoryFileSystem.store.clear()


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith(".lock-"))


def test_a_file_is_fetched_once(cache: Path) -> None:
    path = local_copy(URL, "big-1")
    assert path == cache / "big-1"
    assert path.read_bytes() == CONTENT
    storage.remove(URL)
    assert local_copy(URL, "big-1").read_bytes() == CONTENT
    assert names(cache) == ["big-1"]


def test_a_local_file_is_used_where_it_is(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"x")
    assert local_copy(str(tmp_path / "here"), "here-1") == tmp_path / "here"
    assert local_copy(f"file://{tmp_path}/here", "here-1", not_file=1) == tmp_path / "here"
    assert not cache.exists()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WORLDCLIP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / "home" / ".cache" / "worldclip"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "worldclip"
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"


def test_a_damaged_copy_is_fetched_anew_and_only_that_one(cache: Path) -> None:
    damaged = file_number(local_copy(URL, "big-1"))
    (cache / "big-1").write_bytes(b"damaged")
    assert file_number(cache / "big-1") == damaged
    assert local_copy(URL, "big-1").read_bytes() == b"damaged"
    assert local_copy(URL, "big-1", not_file=damaged).read_bytes() == CONTENT
    # Another process found the same damage: the good copy stays.
    storage.remove(URL)
    assert local_copy(URL, "big-1", not_file=damaged).read_bytes() == CONTENT


def test_what_a_killed_process_left_is_overwritten(cache: Path) -> None:
    cache.mkdir()
    (cache / ".tmp-big-1").write_bytes(b"x" * (len(CONTENT) + 1))
    assert local_copy(URL, "big-1").read_bytes() == CONTENT
    assert names(cache) == ["big-1"]


def test_the_directory_may_be_deleted_at_any_time(cache: Path) -> None:
    local_copy(URL, "big-1")
    shutil.rmtree(cache)
    assert local_copy(URL, "big-1").read_bytes() == CONTENT


class Slow(io.RawIOBase):
    """Time enough for others to want the same file; every reading is written down in a file beside the cache."""

    def __init__(self, log: Path) -> None:
        self._rest = io.BytesIO(CONTENT)
        with log.open("a") as file:
            file.write("read\n")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        time.sleep(0.1)
        return self._rest.read(size)


def _want(url: str, log: Path) -> bytes:
    def slow(_: str) -> BinaryIO:
        return Slow(log)  # type: ignore[return-value]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open_read", slow)
        return local_copy(url, "big-1").read_bytes()


def test_processes_that_want_it_at_once_fetch_it_once(cache: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_want, [URL] * 4, [tmp_path / "log"] * 4))
    assert found == [CONTENT] * 4
    assert (tmp_path / "log").read_text() == "read\n"
    assert names(cache) == ["big-1"]


def test_threads_that_want_it_at_once_fetch_it_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "open_read", lambda _: Slow(tmp_path / "log"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: local_copy(URL, "big-1").read_bytes(), range(8)))
    assert found == [CONTENT] * 8
    assert (tmp_path / "log").read_text() == "read\n"


def test_a_source_that_breaks_off_leaves_no_copy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(Slow):
        def read(self, size: int = -1) -> bytes:
            if self._rest.tell():
                raise ConnectionResetError(104, "Connection reset by peer")
            return self._rest.read(100)

    told = f"^{URL}: cannot be copied to {cache}/big-1 .Connection reset by peer.; WORLDCLIP_CACHE names"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "open_read", lambda _: Breaking(cache.parent / "log"))
        with pytest.raises(JobError, match=told):
            local_copy(URL, "big-1")
    assert names(cache) == []
    assert local_copy(URL, "big-1").read_bytes() == CONTENT


def test_an_absent_source_is_told(cache: Path) -> None:
    with pytest.raises(JobError, match="memory://bucket/absent"):
        local_copy("memory://bucket/absent", "x")
    assert names(cache) == []


def test_a_cache_that_cannot_be_written_to_is_told(cache: Path) -> None:
    cache.write_bytes(b"no directory")
    with pytest.raises(JobError, match="WORLDCLIP_CACHE names a directory on a disk of this machine"):
        local_copy(URL, "big-1")
