"""Every job on a real Flink cluster: the bytes of the embedded run. Slow: ``make test-flink``."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.cluster import Cluster
from tests.engines.commands import Outcome, run_command
from tests.world.chain import PLACES, Chain, arguments, contents

TABLE = pathlib.Path("build", "flink.json")
BEAM_JOBS = [job for job in PLACES if job != "thresholds"]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """A row per job, which is printed at the end and written as JSON."""
    rows: list[dict[str, Any]] = []
    yield rows
    lines = [f"{'job':10} {'engine':9} {'seconds':>8} {'peak MB':>8}  the same bytes"]
    lines += [f"{r['job']:10} {r['engine']:9} {r['seconds']:8.1f} {r['peak_mb']:8,.0f}  {r['same']}" for r in rows]
    load = "load of the machine: " + ", ".join(f"{x:.1f}" for x in os.getloadavg())
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join([*lines, load]))
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(json.dumps(rows, indent=1) + "\n")


def row(job: str, engine: str, outcome: Outcome, same: bool) -> dict[str, Any]:
    return {"job": job, "engine": engine, "seconds": round(outcome.seconds, 1), "peak_mb": round(outcome.memory / 1e6), "same": same}


@pytest.mark.parametrize("job", BEAM_JOBS)
def test_the_bytes_of_the_embedded_run(
    chain: Chain, tmp_path: pathlib.Path, cluster: Cluster, table: list[dict[str, Any]], job: str
) -> None:
    argv = arguments(job, chain.world, chain.work)[:-1]
    expected = contents(chain.work / PLACES[job])
    embedded = run_command(job, [*argv, str(tmp_path / "embedded")], tmp_path / "log")
    assert embedded.code == 0, embedded.said
    assert contents(tmp_path / "embedded") == expected
    # JVMs hold what they were given, whatever the job does: the Python workers and the command are what a job takes.
    flink = run_command(job, [*argv, str(tmp_path / "flink"), *cluster.beam_arguments()], tmp_path / "log", also=cluster.workers)
    assert flink.code == 0, flink.said
    same = contents(tmp_path / "flink") == expected
    table += [row(job, "embedded", embedded, True), row(job, "flink", flink, same)]
    assert same


def test_the_jvms_stay_within_their_bounds(cluster: Cluster) -> None:
    """What the documents say that a cluster needs: 1.3 GB a TaskManager, JobManager and job server 1 GB together."""
    for number, process in enumerate(cluster.jvms()):
        assert process.memory_info().rss < 1.3e9, number


def test_what_a_worker_refuses_reaches_the_user_as_it_was_said(chain: Chain, tmp_path: pathlib.Path, cluster: Cluster) -> None:
    """Once, without a traceback; the attempts that Flink makes are not told. What is refused stays refused."""
    argv = ["--curated", f"{chain.work}/curated", "--retries", "0"]
    embedded = run_command("images", [*argv, "--output", f"{tmp_path}/embedded"], tmp_path / "log")
    flink = run_command("images", [*argv, "--output", f"{tmp_path}/flink", *cluster.beam_arguments()], tmp_path / "log")
    assert (flink.code, embedded.code) == (1, 1)
    lines = [[line for line in outcome.said.splitlines() if "units," not in line] for outcome in (embedded, flink)]
    assert lines[1] == lines[0]
    assert "--allow-private" in flink.said
