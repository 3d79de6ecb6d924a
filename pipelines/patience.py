"""Trying again what a network or an object store refuses for a while."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pipelines.errors import causes_of

T = TypeVar("T")

#: Statuses that pass. A public bucket that is asked too much answers 403, 429 or 503.
PASSING = frozenset({403, 408, 429, 500, 502, 503, 504})
#: Classes of errors that say that a connection broke or took too long: aiohttp's, fsspec's, botocore's.
_BROKEN = frozenset(
    {
        *("ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "FSTimeoutError"),
        *("ConnectTimeoutError", "ConnectionClosedError", "EndpointConnectionError", "ReadTimeoutError"),
        *("IncompleteReadError", "ResponseStreamingError"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """``tries``: how often in a row. The pause before the n-th is ``first_s`` · 2^n, at most ``longest_s``, and up to half as much again by
    process, so that workers that were refused together do not come back together: 5 to 8 minutes in all. ``sleep`` is for tests."""

    tries: int = 10
    first_s: float = 1.0
    longest_s: float = 90.0
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp, gcsfs or botocore speaks of."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    for name in ("status", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int | str) and str(value).isdigit():
            return int(value)
    # gcsfs says of this status nothing but that.
    return 502 if type(error).__name__ == "ProxyError" else None


def _answered(error: BaseException) -> int | None:
    """The HTTP status that an error, or what caused it, speaks of: s3fs raises others than botocore's."""
    return next((status for status in map(status_of, causes_of(error)) if status is not None), None)


def passes(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    for seen in causes_of(error):
        if (status := status_of(seen)) is not None:
            return status in PASSING
        names = {kind.__name__ for kind in type(seen).__mro__}
        if isinstance(seen, ConnectionError | TimeoutError) or names & _BROKEN:
            return True
    return False


def is_busy(error: BaseException) -> bool:
    """Whether a server answered, and asked for patience: not where there is none, or where it knows who may not read."""
    return _answered(error) in PASSING - {403}


def passes_for_writers(error: BaseException) -> bool:
    """As :func:`passes`; but a server that refuses who writes has its reasons, where a public one that is only read may be busy."""
    return passes(error) and _answered(error) != 403


def patiently(
    call: Callable[[], T], what: str, patience: Patience | None = None, *, passing: Callable[[BaseException], bool] = passes
) -> T:
    """The result of a call that is tried again while it fails with an error that passes; the last error, if it does not pass in time."""
    patience = patience or PATIENCE
    for n in range(patience.tries):
        try:
            return call()
        except Exception as error:
            if n + 1 == patience.tries or not passing(error):
                raise
            pause = min(patience.longest_s, patience.first_s * 2**n) * (1 + os.getpid() % 97 / 194)
            if n >= 2:
                print(f"{what}: {type(error).__name__} {error}; again in {pause:.0f} s", file=sys.stderr, flush=True)
            patience.sleep(pause)
    raise AssertionError("unreachable")
