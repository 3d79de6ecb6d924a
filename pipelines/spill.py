"""Tables cut into runs on the local disk: what does not fit into memory at once is taken run by run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

#: Rows that are waited for before they are cut and written: slices of single small parts would be mostly headers.
_WAITING_ROWS = 1_000_000


class Spill:
    """Rows by the number of their run, ``0 … runs − 1``. Memory: a million rows, and the run that is read.

    The files lie in a temporary directory (TMPDIR says where) while :meth:`opened` lasts.
    """

    def __init__(self, folder: Path, runs: int) -> None:
        self.runs = runs
        self._folder = folder
        self._waiting: list[tuple[np.ndarray, pa.Table]] = []
        self._writers: dict[int, pa.RecordBatchFileWriter] = {}

    @staticmethod
    @contextmanager
    def opened(runs: int) -> Iterator[Spill]:
        with tempfile.TemporaryDirectory(prefix="worldclip-") as folder:
            spill = Spill(Path(folder), runs)
            try:
                yield spill
            finally:
                spill._close()

    def add(self, numbers: np.ndarray, table: pa.Table) -> None:
        """Rows and the run of each. All tables have the same schema, without dictionaries."""
        self._waiting.append((numbers, table))
        if sum(len(waiting) for waiting, _ in self._waiting) >= _WAITING_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        numbers = np.concatenate([waiting for waiting, _ in self._waiting])
        table = pa.concat_tables([waiting for _, waiting in self._waiting])
        self._waiting = []
        order = np.argsort(numbers, kind="stable")
        edges = np.searchsorted(numbers[order], np.arange(self.runs + 1))
        for run in np.flatnonzero(np.diff(edges)).tolist():
            if run not in self._writers:
                self._writers[run] = pa.ipc.new_file(str(self._path(run)), table.schema)
            self._writers[run].write_table(table.take(pa.array(order[edges[run] : edges[run + 1]])))

    def _path(self, run: int) -> Path:
        return self._folder / str(run)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def read(self) -> Iterator[pa.Table | None]:
        """The rows of each run in the order of the runs, in no order within one; None for a run without rows. Nothing is added after it."""
        self._flush()
        self._close()
        written, self._writers = self._writers.keys(), {}
        for run in range(self.runs):
            if run in written:
                with pa.OSFile(str(self._path(run))) as file:
                    yield pa.ipc.open_file(file).read_all()
            else:
                yield None
