"""What is tried again, how long, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.patience import Patience, is_busy, passes, passes_for_writers, patiently, status_of


class Refused(Exception):
    """As aiohttp and gcsfs say it."""

    def __init__(self, **about: Any) -> None:
        super().__init__("refused")
        for name, value in about.items():
            setattr(self, name, value)


class ServerDisconnectedError(Exception):
    pass


class ConnectionClosedError(Exception):
    """As botocore says that a connection broke."""


class ProxyError(OSError):
    """As gcsfs says 502, whoever answered so."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "passing"),
    [
        (Refused(status=503), 503, True),
        (Refused(code="429"), 429, True),
        (Refused(status=403), 403, True),
        (Refused(status=404), 404, False),
        (Refused(response={"ResponseMetadata": {"HTTPStatusCode": 500}}), 500, True),
        (Refused(response={"Error": {}}), None, False),
        (Refused(code="NoSuchKey"), None, False),
        (caused(OSError("SlowDown"), Refused(response={"ResponseMetadata": {"HTTPStatusCode": 503}})), None, True),
        (ConnectionResetError(), None, True),
        (TimeoutError(), None, True),
        (ServerDisconnectedError(), None, True),
        (ConnectionClosedError(), None, True),
        (ProxyError(), 502, True),
        (FileNotFoundError("x"), None, False),
        (ValueError("x"), None, False),
    ],
)
def test_what_passes(error: Exception, status: int | None, passing: bool) -> None:
    assert (status_of(error), passes(error)) == (status, passing)


def refusal(status: int) -> Exception:
    """As s3fs says it: an error of the operating system, which botocore's has caused."""
    return caused(OSError(16, "busy"), Refused(response={"ResponseMetadata": {"HTTPStatusCode": status}}))


@pytest.mark.parametrize(
    ("error", "busy", "for_writers"),
    [
        (Refused(status=503), True, True),
        (refusal(503), True, True),
        (refusal(429), True, True),
        (ProxyError(), True, True),
        (Refused(status=403), False, False),
        (refusal(403), False, False),
        (refusal(404), False, False),
        (ConnectionClosedError(), False, True),
        (ConnectionRefusedError(), False, True),
        (FileNotFoundError("x"), False, False),
    ],
)
def test_who_is_busy_and_for_whom_it_passes(error: Exception, busy: bool, for_writers: bool) -> None:
    assert (is_busy(error), passes_for_writers(error)) == (busy, for_writers)


def failing(times: int, error: Exception) -> Any:
    left = iter([error] * times)

    def call() -> str:
        for e in left:
            raise e
        return "done"

    return call


def test_pauses_grow_up_to_the_longest(capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []
    patience = Patience(tries=7, first_s=1, longest_s=8, sleep=pauses.append)
    assert patiently(failing(6, Refused(status=503)), "gs://b/x", patience) == "done"
    assert all(base <= pause <= base * 1.5 for base, pause in zip([1, 2, 4, 8, 8, 8], pauses, strict=True))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[0].startswith("gs://b/x: Refused refused; again in ")


def test_the_last_error_is_told() -> None:
    pauses: list[float] = []
    with pytest.raises(Refused):
        patiently(failing(3, Refused(status=429)), "x", Patience(tries=3, sleep=pauses.append))
    assert len(pauses) == 2


def test_what_does_not_pass_is_told_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        patiently(failing(1, FileNotFoundError("x")), "x", Patience(sleep=lambda _: pytest.fail("slept")))


def test_all_pauses_together_are_minutes() -> None:
    pauses: list[float] = []
    with pytest.raises(ConnectionError):
        patiently(failing(99, ConnectionError()), "x", Patience(sleep=pauses.append))
    assert 240 < sum(pauses) < 600
