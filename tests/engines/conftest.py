"""What the tests of engines share: a Flink cluster, and a chain with more inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engines.cluster import Cluster
from tests.engines.crowd import make_crowd
from tests.world.chain import Chain


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Flink with two TaskManagers, for all tests."""
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
