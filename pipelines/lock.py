"""The right to write to a directory of this machine: one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pipelines.errors import JobError


@contextlib.contextmanager
def alone(directory: str | os.PathLike[str], refusal: str) -> Iterator[None]:
    """Hold a directory. The lock ends with the process, however that ends; a file system without locks lets everybody in.

    Raises:
        JobError: another process has it; ``refusal`` says so.
        OSError: there is no such directory, or it may not be read.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(refusal) from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
