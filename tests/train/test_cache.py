"""Copies of remote files: made once, within a size, and never a wrong one."""

from __future__ import annotations

import errno
import http.server
import os
import pathlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import fsspec
import pytest
import torch

from balancing.file_cache import FileCache
from balancing.pairs import image_keys
from train import data
from train.config import Config, InputError
from train.data import Reader, open_sources
from train.distributed import Ranks

ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))


@dataclass
class Files:
    """Contents that are fetched, and how often each was."""

    times: Counter[str] = field(default_factory=Counter)

    def find(self, cache: FileCache, name: str, size: int) -> str | None:
        def fetch(out: BinaryIO) -> None:
            self.times[name] += 1
            time.sleep(0.01)
            out.write(name[:1].encode() * size)

        copy = cache.find([name], size, fetch)
        if copy:
            assert copy.read_bytes() == name[:1].encode() * size
        return copy and copy.name


def held(folder: pathlib.Path) -> list[int]:
    return sorted(file.stat().st_size for file in folder.iterdir() if not file.name.startswith("."))


def test_a_file_is_fetched_once_by_all_who_ask_at_the_same_time(tmp_path: pathlib.Path) -> None:
    files, cache = Files(), FileCache(folder=tmp_path / "new", limit=100)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: files.find(cache, "abc"[i % 3], 20), range(48)))
    assert files.times == {"a": 1, "b": 1, "c": 1}
    assert len(set(found)) == 3
    assert None not in found


def test_files_that_are_made_at_the_same_time_do_not_disturb_each_other(tmp_path: pathlib.Path) -> None:
    cache = FileCache(folder=tmp_path, limit=500)

    def fetch(out: BinaryIO) -> None:
        out.write(b"x")

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: cache.find([str(i)], 1, fetch), range(500)))
    assert len(set(found)) == 500
    assert held(tmp_path) == [1] * 500


def test_what_was_not_used_for_longest_goes_first_and_what_the_run_has_used_stays(tmp_path: pathlib.Path) -> None:
    files, before = Files(), FileCache(folder=tmp_path, limit=100, since=0)
    names = [files.find(before, name, 30) for name in "abc"]
    for age, name in zip((300, 100, 200), names, strict=True):
        assert name
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cache = FileCache(folder=tmp_path, limit=100, since=time.time() - 50)
    assert files.find(cache, "b", 30) == names[1]  # used now
    assert files.find(cache, "d", 35)
    assert held(tmp_path) == [30, 30, 35]
    assert not (tmp_path / str(names[0])).exists()
    assert files.find(cache, "e", 40) is None  # the 30 that may go are not enough
    assert held(tmp_path) == [30, 30, 35]
    assert files.find(cache, "e", 35)
    assert held(tmp_path) == [30, 35, 35]
    assert files.find(cache, "x", 101) is None
    assert files.times == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}


def test_what_a_killed_process_left_of_a_file_takes_no_room_from_it(tmp_path: pathlib.Path) -> None:
    cache, files = FileCache(folder=tmp_path, limit=100), Files()
    name = files.find(cache, "a", 80)
    (tmp_path / str(name)).rename(tmp_path / f"{name}.partial")
    assert files.find(cache, "a", 80) == name
    assert held(tmp_path) == [80]


def test_a_full_disk_is_no_damage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def find(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileCache, "find", find)
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/set/part.parquet", b"x")
    assert data._find_copy(fs, "/set/part.parquet", FileCache(folder=tmp_path, limit=100)) is None
    assert "the disk is full; /set/part.parquet is read where it is" in caplog.text


def test_what_does_not_arrive_whole_is_not_kept(tmp_path: pathlib.Path) -> None:
    cache, files = FileCache(folder=tmp_path, limit=100), Files()

    def cut(out: BinaryIO) -> None:
        out.write(b"a" * 7)

    with pytest.raises(OSError, match="7 of 20 bytes arrived"):
        cache.find(["a"], 20, cut)
    assert files.find(cache, "a", 20)
    assert held(tmp_path) == [20]


# -- by HTTP -------------------------------------------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    """Files with their length, and parts of them. ``seen``: bytes sent by path."""

    root: pathlib.Path
    seen: Counter[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        data = (self.root / self.path.lstrip("/")).read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(part[1]), min(int(part[2] or len(data)) + 1, len(data))) if part else (0, len(data))
        self.send_response(206 if part else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.seen[self.path] += end - start
            self.wfile.write(data[start:end])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(images: pathlib.Path) -> Iterator[tuple[str, Counter[str]]]:
    seen: Counter[str] = Counter()
    handler = type("Handler", (_Handler,), {"root": images, "seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", seen
        running.shutdown()


def texts_of(config: Config) -> list[list[int]]:
    def tokenizer(texts: list[str]) -> torch.Tensor:
        return torch.from_numpy(image_keys(texts).astype("int64").reshape(-1, 1))

    reader = Reader(open_sources(config, ALONE), config, range(4), tokenizer=tokenizer, size=8, first_step=0)
    return [torch.cat([part.tokens for part in parts]).flatten().tolist() for parts in reader.batches(pin_memory=False)]


def test_remote_files_are_copied_where_there_is_room_and_else_read_in_place(
    config: Callable[..., Config], images: pathlib.Path, server: tuple[str, Counter[str]], tmp_path: pathlib.Path
) -> None:
    url, seen = server
    local = sorted(images.glob("part-*.parquet"))
    paths, sizes = [f"{url}/{file.name}" for file in local], [file.stat().st_size for file in local]
    expected = texts_of(config())
    assert texts_of(config(data={"paths": paths})) == expected
    assert all(seen[f"/{path.name}"] > 5 * size for path, size in zip(local, sizes, strict=True))
    roomy = {"paths": paths, "cache": str(tmp_path / "roomy"), "cache_gb": 1}
    assert texts_of(config(data=roomy)) == expected
    assert held(tmp_path / "roomy") == sorted(sizes)
    seen.clear()
    assert texts_of(config(data={**roomy, "workers": 2})) == expected
    with_copies = dict(seen)
    seen.clear()
    open_sources(config(data=roomy), ALONE)
    assert with_copies == seen  # nothing but what says how many rows there are
    tight = {"paths": paths, "cache": str(tmp_path / "tight"), "cache_gb": (sum(sizes) - 1) / 1e9}
    assert texts_of(config(data=tight)) == expected
    assert len(held(tmp_path / "tight")) == 2
    assert sum(held(tmp_path / "tight")) < sum(sizes)


def test_files_of_this_machine_are_not_copied(config: Callable[..., Config], images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = {"paths": [f"file://{images}"], "cache": str(tmp_path / "cache"), "cache_gb": 1}
    assert len(texts_of(config(data=data))) == 12
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_to_is_told(
    config: Callable[..., Config], server: tuple[str, Counter[str]], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_text("")
    data = {"paths": [f"{server[0]}/part-00000.parquet"], "cache": str(tmp_path / "file"), "cache_gb": 1}
    with pytest.raises(InputError, match=r"part-00000\.parquet cannot be read as Parquet: .*exists"):
        texts_of(config(data=data))
