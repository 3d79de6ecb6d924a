"""Every job on every engine, a real Flink cluster among them: the same bytes. Slow: ``make test-flink``."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psutil
import pytest

from tests.engines.cluster import Cluster
from tests.engines.commands import run_command, with_children
from tests.engines.processes import Started
from tests.world.chain import PLACES, Chain, arguments, contents

TABLE = pathlib.Path("build", "flink.json")
BEAM_JOBS = [job for job in PLACES if job != "thresholds"]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """A row per job and engine, which is printed at the end and written as JSON."""
    rows: list[dict[str, Any]] = []
    yield rows
    lines = [f"{'job':10} {'engine':15} {'seconds':>8} {'peak MB':>8}  SHA-256 of the outputs"]
    lines += [f"{r['job']:10} {r['engine']:15} {r['seconds']:8.1f} {r['peak_mb']:8,.0f}  {r['sha256'][:16]}" for r in rows]
    load = "load of the machine: " + ", ".join(f"{x:.1f}" for x in os.getloadavg())
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join([*lines, load]))
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(json.dumps(rows, indent=1) + "\n")


def digest(directory: pathlib.Path) -> str:
    """SHA-256 over the names and checksums of all files of a stage that the engine may not change."""
    return hashlib.sha256(json.dumps(contents(directory), sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("job", BEAM_JOBS)
def test_every_engine_gives_the_same_bytes(
    cluster: Cluster, chain: Chain, tmp_path: pathlib.Path, pool: Started, portable: list[str], table: list[dict[str, Any]], job: str
) -> None:
    argv = arguments(job, chain.world, chain.work)[:-1]
    # JVMs hold what they were given, whatever the job does: the Python workers and the command are what a job takes.
    engines: dict[str, tuple[list[str], Callable[[], Iterable[psutil.Process]]]] = {
        "in process": ([], tuple),
        "2 processes": (["--workers", "2"], tuple),
        "external worker": (portable, lambda: with_children(pool.process)),
        "Flink": (cluster.beam_arguments(), cluster.workers),
    }
    rows = []
    for number, (engine, (options, workers)) in enumerate(engines.items()):
        outcome = run_command(job, [*argv, str(tmp_path / str(number)), *options], tmp_path / "log", also=workers)
        assert outcome.code == 0, outcome.said
        about = {"seconds": round(outcome.seconds, 1), "peak_mb": round(outcome.memory / 1e6)}
        rows.append({"job": job, "engine": engine, **about, "sha256": digest(tmp_path / str(number))})
    table += rows
    assert {row["sha256"] for row in rows} == {digest(chain.work / PLACES[job])}


def test_the_jvms_stay_within_their_bounds(cluster: Cluster) -> None:
    """After all jobs no JVM has taken more than 1.3 GB, which is what the documents say of a TaskManager."""
    for number, process in enumerate(cluster.jvms()):
        assert process.memory_info().rss < 1.3e9, number


def test_what_a_worker_refuses_reaches_the_user_as_it_was_said(cluster: Cluster, chain: Chain, tmp_path: pathlib.Path) -> None:
    """Once, without a traceback; the attempts that Flink makes are not told. What is refused stays refused."""
    argv = ["--curated", f"{chain.work}/curated", "--retries", "0"]
    embedded = run_command("images", [*argv, "--output", f"{tmp_path}/embedded"], tmp_path / "log")
    flink = run_command("images", [*argv, "--output", f"{tmp_path}/flink", *cluster.beam_arguments()], tmp_path / "log")
    assert (flink.code, embedded.code) == (1, 1)
    lines = [[line for line in outcome.said.splitlines() if "units," not in line] for outcome in (embedded, flink)]
    assert lines[1] == lines[0]
    assert "--allow-private" in flink.said
