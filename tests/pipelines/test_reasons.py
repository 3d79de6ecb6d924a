from __future__ import annotations

import pytest

from metadata.reasons import FILES, REASONS
from pipelines.errors import JobError
from pipelines.jobs import JOBS, run_job
from pipelines.reasons import explained

SOME = """\
entries:
  blank_entry               An entry of nothing but spaces.
  entry_too_long            An entry with more characters than the recipe allows.
  only_punctuation          An entry of punctuation only.
  repeated_entry            An entry that the list has already.
dedup:
  duplicate                 A copy of a pair, the same text of the same image, that stands in
                            another place and lives there.
balance:
  duplicate                 A copy of a pair that lives in another place.
any file:
  truncated                 The file ends early: it was cut off, or is not fully downloaded.
"""


def test_jobs_and_reasons_are_explained(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run_job("reasons", ["truncated", "entries", "duplicate"])
    assert capsys.readouterr().out == SOME


def test_all_are_explained_and_fit_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run_job("reasons", [])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 100] == []
    assert [line for line in lines if not line.startswith(" ")] == [*(f"{job}:" for job in REASONS), "any file:"]
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "] == [
        reason for of in (*REASONS.values(), FILES) for reason in of
    ]


def test_every_group_is_a_job_in_the_order_of_the_chain() -> None:
    assert [*REASONS] == [job for job in JOBS if job in REASONS]


def test_a_name_that_is_neither_is_told() -> None:
    with pytest.raises(JobError) as error:
        explained(["match", "no_mach"], 100)
    assert str(error.value) == "no_mach is neither a job nor a reason; did you mean no_match?"
