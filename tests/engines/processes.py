"""Processes that tests start beside themselves: quiet, with their words in a file, and gone when the test ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipelines.processes import module_environment


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process, the leader of a group of its own, and the file with what it says."""

    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def said(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Waits until it has said something; the match. Raises AssertionError when it ended before or took longer."""
        wait_until(lambda: self._found(pattern) or self.process.poll() is not None, f"{pattern!r} in {self.log}", seconds)
        found = self._found(pattern)
        assert found, f"{self.process.args} ended ({self.process.returncode}): {self.log.read_text()[-2000:]}"
        return found

    def _found(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, self.log.read_text(errors="replace"))

    def kill(self, sent: signal.Signals = signal.SIGKILL) -> None:
        """End it alone; what it started lives on."""
        self.process.send_signal(sent)
        self.process.wait(timeout=60)

    def end(self) -> None:
        """End it with all that it started."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(command: Sequence[str], log: pathlib.Path) -> Started:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=module_environment(), start_new_session=True
        )
    return Started(process=process, log=log)


@contextlib.contextmanager
def running(command: Sequence[str], log: pathlib.Path) -> Iterator[Started]:
    started = start(command, log)
    try:
        yield started
    finally:
        started.end()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Raises AssertionError when the condition does not become true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.05)
