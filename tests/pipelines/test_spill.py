from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipelines.spill
from pipelines.spill import Spill

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers()), max_size=20)


def in_runs(tables: list[list[tuple[int, int]]], runs: int) -> Iterator[list[str] | None]:
    with Spill.opened(runs) as spill:
        for rows in tables:
            numbers = np.array([number % runs for number, _ in rows], dtype=np.int64)
            spill.add(numbers, pa.table({"x": pa.array([str(x) for _, x in rows], pa.string())}))
        for table in spill.read():
            yield None if table is None else table["x"].to_pylist()


@given(st.lists(ROWS, max_size=5), st.integers(1, 5), st.integers(1, 30))
def test_every_row_comes_back_in_its_run(tables: list[list[tuple[int, int]]], runs: int, waiting: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.spill, "_WAITING_ROWS", waiting)
        found = list(in_runs(tables, runs))
    expected = [[str(x) for rows in tables for number, x in rows if number % runs == run] for run in range(runs)]
    assert found == [rows or None for rows in expected]


def test_nothing_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(pipelines.spill, "_WAITING_ROWS", 1)
    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle(tmp_path)
    assert not list(tmp_path.iterdir())


def fail_in_the_middle(folder: Path) -> None:
    with Spill.opened(2) as spill:
        spill.add(np.array([1]), pa.table({"x": [1]}))
        assert len(list(folder.iterdir())) == 1
        raise ZeroDivisionError
