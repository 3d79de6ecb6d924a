"""The chain of the end-to-end tests serves here too: what every engine must make again, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Chain, chain
from tests.engines.cluster import Cluster
from tests.engines.crowd import make_crowd

__all__ = ["chain", "cluster", "crowd"]


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
