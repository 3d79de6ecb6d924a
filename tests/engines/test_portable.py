"""Beam's portable way without Java: a job service and workers in processes of their own, as Flink and Dataflow have them. What works only
because driver and workers share a process (closures, __main__, caches, relative paths) fails here."""

from __future__ import annotations

import pathlib

import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from tests.world.chain import PLACES, Chain, arguments, contents


@pytest.mark.parametrize("job", ["ngrams", "match", "dedup", "count", "balance"])
def test_the_bytes_of_the_embedded_run(chain: Chain, tmp_path: pathlib.Path, portable: list[str], job: str) -> None:
    argv = arguments(job, chain.world, chain.work)
    run_job(job, [*argv[:-1], str(tmp_path / "out"), *portable])
    assert contents(tmp_path / "out") == contents(chain.work / PLACES[job])


def test_what_a_worker_refuses_reaches_the_user_as_it_was_said(chain: Chain, tmp_path: pathlib.Path, portable: list[str]) -> None:
    """The images of the world are at private addresses, which are fetched only on request."""
    argv = ["--curated", f"{chain.work}/curated", "--retries", "0"]
    with pytest.raises(JobError) as embedded:
        run_job("images", [*argv, "--output", str(tmp_path / "embedded")])
    with pytest.raises(JobError) as elsewhere:
        run_job("images", [*argv, "--output", str(tmp_path / "portable"), *portable])
    assert str(elsewhere.value) == str(embedded.value)
    assert "--allow-private" in str(embedded.value)
    assert not (tmp_path / "portable" / "_SUCCESS").exists()


@pytest.mark.parametrize("job", [job for job in PLACES if job != "thresholds"])
def test_bundles_that_are_done_again_change_nothing(chain: Chain, tmp_path: pathlib.Path, job: str) -> None:
    """Engines retry a bundle, or run it twice at once; the embedded runner can do each of them three times."""
    argv = arguments(job, chain.world, chain.work)
    run_job(job, [*argv[:-1], str(tmp_path / "out"), "--direct_runner_bundle_repeat=2"])
    assert contents(tmp_path / "out") == contents(chain.work / PLACES[job])
