"""A job as the command that a user types, watched while it runs."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from pipelines.processes import python_module
from tests.engines.processes import Started, running


@dataclass(kw_only=True)
class Peak:
    """The most memory, in bytes, that some processes had at a time."""

    bytes: int = 0


@contextlib.contextmanager
def peak_memory(processes: Callable[[], Iterable[psutil.Process]], every: float = 0.2) -> Iterator[Peak]:
    """Looks at the resident memory of the processes while the block runs."""
    peak, stop = Peak(), threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            total = 0
            for process in processes():
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            peak.bytes = max(peak.bytes, total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def with_children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


@contextlib.contextmanager
def job_running(job: str, argv: Sequence[str], log: pathlib.Path) -> Iterator[Started]:
    """``worldclip JOB ...`` as a process."""
    with running([*python_module("pipelines"), job, *argv], log) as started:
        yield started


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended; ``memory`` is the peak of what was watched, in bytes."""

    code: int
    said: str
    seconds: float
    memory: int


def run_command(
    job: str, argv: Sequence[str], log: pathlib.Path, *, also: Callable[[], Iterable[psutil.Process]] = tuple, limit_s: float = 600
) -> Outcome:
    """Run a job to its end. ``also``: processes whose memory counts beside its own."""
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    with job_running(job, argv, log) as command, peak_memory(lambda: [*with_children(command.process), *also()]) as peak:
        code = command.process.wait(timeout=limit_s)
        seconds = time.monotonic() - begun
    return Outcome(code=code, said=log.read_text(errors="replace"), seconds=seconds, memory=peak.bytes)
