"""The one kind of failure that is told to the user as it is: what is wrong, where, and the remedy."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class JobError(Exception):
    """A job cannot go on. The message names the file, the place and what to do; it is printed without a traceback."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_IN_WORKER = re.compile(r"JobError: (.*?)(?= \[while running|\n\n|\nTraceback|\Z)", re.DOTALL)

#: Packages whose exceptions speak of a network, a server or credentials, never of a defect here.
_REMOTE = frozenset({"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "requests", "s3fs"})
#: What the operating system refuses for reasons that are not in this program either.
_REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE})


def message_of(error: BaseException) -> str | None:
    """What to tell the user of an exception, or None for a defect, whose traceback is wanted.

    That is the message of the :class:`JobError` behind it, which a runner hands on from a worker as the text of another exception; or what
    a disk, a network or an object store said.
    """
    chain = list(causes_of(error))
    for seen in chain:
        if isinstance(seen, JobError):
            return str(seen).split(" [while running")[0]
    found = _IN_WORKER.findall(str(error))
    if found:
        return str(found[-1]).strip()
    return next((told for told in map(_of_the_world, chain) if told), None)


def causes_of(error: BaseException) -> Iterable[BaseException]:
    """An exception, the one that caused it, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _of_the_world(error: BaseException) -> str | None:
    said = f"{type(error).__name__}: {error}".split(" [while running")[0]
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.partition(".")[0] in _REMOTE:
        return f"no answer, or a refusal ({said}): mend the address, the network or the credentials, and run the same command again"
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return f"the machine refuses ({said}); what was done is kept: mend it and run the same command again"
    return None


def did_you_mean(name: str, known: Iterable[str], *, form: str = "{}") -> str:
    """``"; did you mean X?"`` for the one of the known names that is nearest, nothing where none is near. ``form``: how X is written."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {form.format(close[0])}?" if close else ""
