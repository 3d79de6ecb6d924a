from __future__ import annotations

import pytest

from pipelines.errors import JobError, message_of


def chained(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise outer from error
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (JobError("no such file"), "no such file"),
        (JobError("no such file [while running 'ProcessUnit-ptransform-7']"), "no such file"),
        (chained(RuntimeError("job failed"), JobError("no such file")), "no such file"),
        (RuntimeError("Traceback …\npipelines.errors.JobError: no such file [while running 'X']\n\nmore"), "no such file"),
        (RuntimeError("pipelines.errors.JobError: first\nTraceback …\npipelines.errors.JobError: last\n"), "last"),
        (RuntimeError("something else"), None),
        (ValueError("books"), None),
        (chained(KeyError("x"), ValueError("y")), None),
    ],
)
def test_message_of(error: BaseException, message: str | None) -> None:
    assert message_of(error) == message
