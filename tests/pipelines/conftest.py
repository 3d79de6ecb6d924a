"""What the tests of the frame share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines import inputs, storage
from pipelines.jobs import run_job


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty directory, on disk and in fsspec's memory file system, which stands for an object store."""
    if request.param == "local":
        yield str(tmp_path)
        return
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://bucket"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """A part of each file, however small it is: for tests of what needs several parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PACK_BYTES", {})
        yield


def english_entries(root: Path, words: list[str]) -> str:
    """A stage of entries with an English list alone, ``root``/entries, made from ``root``/list.json."""
    (root / "list.json").write_text(json.dumps(words))
    run_job("entries", ["--metadata-json", f"en={root}/list.json", "--output", f"{root}/entries"])
    return f"{root}/entries"


def contents(root: str | os.PathLike[str]) -> dict[str, bytes]:
    """All files below a directory, hidden ones included: relative path → bytes."""
    return {storage.relative(url, str(root)): storage.read_bytes(url) for url in storage.walk(str(root))}
