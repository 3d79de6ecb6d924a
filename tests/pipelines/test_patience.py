"""What is tried again, how long, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.patience import Patience, passes, patiently, status_of


class Refused(Exception):
    """As aiohttp and gcsfs say it."""

    def __init__(self, **about: Any) -> None:
        super().__init__("refused")
        for name, value in about.items():
            setattr(self, name, value)


class ServerDisconnectedError(Exception):
    pass


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
        (FileNotFoundError("x"), None, False),
        (ValueError("x"), None, False),
    ],
)
def test_what_passes(error: Exception, status: int | None, passing: bool) -> None:
    assert (status_of(error), passes(error)) == (status, passing)


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
