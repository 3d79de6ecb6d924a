"""What the tests of engines share: Beam's job service, a Flink cluster, and a chain with more inputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from pipelines.processes import python_module
from tests.engines.cluster import Cluster
from tests.engines.crowd import make_crowd
from tests.engines.processes import Started, running, wait_until
from tests.world.chain import Chain


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A side-car as on Kubernetes, on a free port."""
    with running([*python_module("pipelines.boot"), "--serve", "0"], tmp_path_factory.mktemp("pool") / "log") as started:
        yield started


@pytest.fixture(scope="session")
def portable(pool: Started, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Beam's options for a job service with workers of the pool."""
    root = tmp_path_factory.mktemp("service")
    port = root / "port"
    service = [sys.executable, "-P", "-m", "apache_beam.runners.portability.local_job_service_main"]
    with running([*service, "--port_file", str(port), "--staging_dir", str(root / "staged")], root / "log"):
        wait_until(port.exists, "the job service")
        address = pool.said(r"ready on (\S+)")[1]
        where = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port.read_text()}"]
        yield [*where, "--environment_type=EXTERNAL", f"--environment_config={address}"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Flink with two TaskManagers, for all tests. The first argument of a test, so that without Flink nothing else is made for it."""
    if not os.environ.get("WORLDCLIP_TEST_FLINK"):
        pytest.skip("needs Java, Maven and some minutes: make test-flink")
    cluster = Cluster(root=tmp_path_factory.mktemp("flink"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="session")
def crowd(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The same world with many more inputs, so that there is a middle of a job at which something can die."""
    return make_crowd(chain, tmp_path_factory.mktemp("crowd"))
