from __future__ import annotations

import aiohttp
import pytest

from pipelines.errors import JobError, did_you_mean, message_of


def chained(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise outer from error
    except Exception as error:
        return error


MEND = "mend the address, the network or the credentials, and run the same command again"


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
        (FileNotFoundError(2, "No such file"), None),
        (OSError(22, "Invalid argument"), None),
        (
            OSError(28, "No space left on device"),
            "the machine refuses (OSError: [Errno 28] No space left on device); what was done is kept: mend it and run the same command "
            "again",
        ),
        (
            PermissionError(13, "Permission denied", "/x"),
            "the machine refuses (PermissionError: [Errno 13] Permission denied: '/x'); what was done is kept: mend it and run the same "
            "command again",
        ),
        (ConnectionResetError("by peer [while running 'X']"), f"no answer, or a refusal (ConnectionResetError: by peer): {MEND}"),
        (TimeoutError("30 s"), f"no answer, or a refusal (TimeoutError: 30 s): {MEND}"),
        (aiohttp.ClientError("gone"), f"no answer, or a refusal (ClientError: gone): {MEND}"),
        (chained(RuntimeError("job failed"), aiohttp.ClientError("gone")), f"no answer, or a refusal (ClientError: gone): {MEND}"),
        (chained(JobError("told"), TimeoutError("30 s")), "told"),
        (chained(KeyError("x"), ValueError("y")), None),
    ],
)
def test_message_of(error: BaseException, message: str | None) -> None:
    assert message_of(error) == message


@pytest.mark.parametrize(
    ("name", "form", "said"),
    [
        ("macth", "{}", "; did you mean match?"),
        ("cuont", "--{}", "; did you mean --count?"),
        ("match", "{}", "; did you mean match?"),
        ("zzz", "{}", ""),
        ("", "{}", ""),
    ],
)
def test_did_you_mean(name: str, form: str, said: str) -> None:
    assert did_you_mean(name, ["count", "match"], form=form) == said
    assert did_you_mean(name, [], form=form) == ""
