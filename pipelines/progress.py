"""How far a job is, in lines on stderr."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

#: Seconds between two lines.
PROGRESS_SECONDS = 10.0


def say(text: str) -> None:
    print(f"download: {text}", file=sys.stderr, flush=True)


def size_text(n_bytes: float) -> str:
    """``1.5 MB``: in powers of 1,000, as disks and clouds are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:,.0f} {unit}" if unit == "bytes" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def time_text(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def told(line: Callable[[], str], every: float = PROGRESS_SECONDS) -> Iterator[None]:
    """While the block runs, say the line on stderr every so many seconds, also when nothing arrives; an empty one is left out.

    ``line`` is called by a thread of its own. What it raises is no reason for a job to stop.
    """
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            with contextlib.suppress(Exception):
                if said := line():
                    print(said, file=sys.stderr, flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Progress:
    """Says a line every :data:`PROGRESS_SECONDS`. ``sizes``: bytes of each file, None where its host does not tell; ``begun``: what
    earlier runs brought of each, which counts as there and not for the speed."""

    def __init__(self, sizes: Mapping[str, int | None], begun: Mapping[str, int], clock: Callable[[], float]) -> None:
        self._sizes, self._bytes = dict(sizes), dict(begun)
        self._before, self._done = sum(begun.values()), 0
        self._clock = clock
        self._started = self._said = clock()

    def reached(self, name: str, n_bytes: int) -> None:
        self._bytes[name] = n_bytes
        if self._clock() - self._said >= PROGRESS_SECONDS:
            self._said = self._clock()
            say(self.line())

    def finished(self) -> None:
        self._done += 1

    def gave_up(self, name: str) -> None:
        """No more of a file is waited for."""
        self._sizes[name] = self._bytes.get(name, 0)

    def line(self) -> str:
        there = sum(self._bytes.values())
        speed = max((there - self._before) / max(self._clock() - self._started, 1e-3), 0.0)
        line = f"{self._done} of {len(self._sizes)} files, {size_text(there)}"
        sizes = [size for size in self._sizes.values() if size is not None]
        if len(sizes) < len(self._sizes):
            return f"{line}, {size_text(speed)}/s"
        left = f", {time_text((sum(sizes) - there) / speed)} left" if speed else ""
        return f"{line} of {size_text(sum(sizes))}, {size_text(speed)}/s{left}"
