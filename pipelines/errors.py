"""The one kind of failure that is told to the user as it is: what is wrong, where, and the remedy."""

from __future__ import annotations

import re


class JobError(Exception):
    """A job cannot go on. The message names the file, the place and what to do; it is printed without a traceback."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_IN_WORKER = re.compile(r"JobError: (.*?)(?= \[while running|\n\n|\nTraceback|\Z)", re.DOTALL)


def message_of(error: BaseException) -> str | None:
    """The message of the :class:`JobError` behind an exception, or None: a runner hands a worker's exception on as the text of another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, JobError):
            return str(seen).split(" [while running")[0]
        seen = seen.__cause__
    found = _IN_WORKER.findall(str(error))
    return found[-1].strip() if found else None
