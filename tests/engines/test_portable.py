"""Beam's portable way without Java: a job service and workers in processes of their own, as Flink and Dataflow have them. What works only
because driver and workers share a process (closures, __main__, caches, relative paths) fails here."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.processes import python_module
from tests.engines.processes import Started, running, wait_until
from tests.world.chain import PLACES, Chain, arguments, contents


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A side-car as on Kubernetes, on a free port."""
    with running([*python_module("pipelines.boot"), "--serve", "0"], tmp_path_factory.mktemp("pool") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def engine(pool: Started, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Beam's options for a job service with workers of the pool."""
    root = tmp_path_factory.mktemp("service")
    port = root / "port"
    service = [sys.executable, "-P", "-m", "apache_beam.runners.portability.local_job_service_main"]
    with running([*service, "--port_file", str(port), "--staging_dir", str(root / "staged")], root / "log"):
        wait_until(port.exists, "the job service")
        address = pool.said(r"ready on (\S+)")[1]
        where = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port.read_text()}"]
        yield [*where, "--environment_type=EXTERNAL", f"--environment_config={address}"]


@pytest.mark.parametrize("job", ["ngrams", "match", "dedup", "count", "balance"])
def test_the_bytes_of_the_embedded_run(chain: Chain, tmp_path: pathlib.Path, engine: list[str], job: str) -> None:
    argv = arguments(job, chain.world, chain.work)
    run_job(job, [*argv[:-1], str(tmp_path / "out"), *engine])
    assert contents(tmp_path / "out") == contents(chain.work / PLACES[job])


def test_what_a_worker_refuses_reaches_the_user_as_it_was_said(chain: Chain, tmp_path: pathlib.Path, engine: list[str]) -> None:
    """The images of the world are at private addresses, which are fetched only on request."""
    argv = ["--curated", f"{chain.work}/curated", "--retries", "0"]
    with pytest.raises(JobError) as embedded:
        run_job("images", [*argv, "--output", str(tmp_path / "embedded")])
    with pytest.raises(JobError) as portable:
        run_job("images", [*argv, "--output", str(tmp_path / "portable"), *engine])
    assert str(portable.value) == str(embedded.value)
    assert "--allow-private" in str(embedded.value)
    assert not (tmp_path / "portable" / "_SUCCESS").exists()


@pytest.mark.parametrize("job", [job for job in PLACES if job != "thresholds"])
def test_bundles_that_are_done_again_change_nothing(chain: Chain, tmp_path: pathlib.Path, job: str) -> None:
    """Engines retry a bundle, or run it twice at once; the embedded runner can do each of them three times."""
    argv = arguments(job, chain.world, chain.work)
    run_job(job, [*argv[:-1], str(tmp_path / "out"), "--direct_runner_bundle_repeat=2"])
    assert contents(tmp_path / "out") == contents(chain.work / PLACES[job])
