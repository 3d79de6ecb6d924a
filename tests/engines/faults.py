"""What can die while a job runs on Flink, and whether the job ends right all the same."""

from __future__ import annotations

import pathlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.engines.cluster import Cluster
from tests.engines.commands import job_running
from tests.world.chain import PLACES, Chain, arguments, contents

#: Seconds that a job may take from the fault on.
LIMIT_S = 300.0


def kill_task_manager(cluster: Cluster, choose: random.Random) -> bool:
    """A host is lost, and another one comes."""
    cluster.kill_task_manager(choose.choice(sorted(cluster.task_managers)))
    cluster.start_task_manager()
    return True


def kill_worker(cluster: Cluster, choose: random.Random) -> bool:
    """A Python process dies, as it does when the system has no memory left."""
    # Those of the job before may still be there.
    workers = sorted(cluster.workers(), key=lambda process: process.create_time())[-len(cluster.task_managers) :]
    if workers:
        choose.choice(workers).kill()
    return bool(workers)


def kill_job_server(cluster: Cluster, _: random.Random) -> bool:
    cluster.job_server.kill()
    cluster.start_job_server()
    return True


def kill_job_manager(cluster: Cluster, _: random.Random) -> bool:
    cluster.job_manager.kill()
    cluster.start_job_manager()
    return True


#: Each says whether there was anything to kill.
FAULTS: dict[str, Callable[[Cluster, random.Random], bool]] = {
    "TaskManager": kill_task_manager,
    "worker": kill_worker,
    "job server": kill_job_server,
    "JobManager": kill_job_manager,
}
#: After these a job goes on without its user; after the others the same command goes on.
BY_ITSELF = ("TaskManager", "worker")


@dataclass(frozen=True, kw_only=True)
class Story:
    """What became of a job: exit codes and words of its commands, whether something was killed before the end, how many parts were there
    then and which of them were made again, and whether the result is that of an undisturbed run."""

    codes: tuple[int, ...]
    said: tuple[str, ...]
    killed: bool
    done: int
    again: tuple[str, ...]
    same: bool


def parts_of(stage: pathlib.Path) -> dict[str, int]:
    """The parts of a stage, and of the one that it merges, and when each was written."""
    return {str(p.relative_to(stage)): p.stat().st_mtime_ns for p in stage.rglob("*.parquet") if "part-" in p.name}


def run_with_fault(
    crowd: Chain,
    cluster: Cluster,
    job: str,
    out: pathlib.Path,
    fault: str,
    *,
    when: Callable[[dict[str, int]], bool],
    choose: random.Random,
) -> Story:
    """Run a job, let something die once ``when`` holds of its parts, and give the same command again until it ends well, three times at
    most."""
    argv = [*arguments(job, crowd.world, crowd.work)[:-1], str(out), *cluster.beam_arguments()]
    codes, said, done, killed = list[int](), list[str](), dict[str, int](), False
    for attempt in range(3):
        log = out.with_suffix(f".log{attempt}")
        with job_running(job, argv, log) as command:
            while not attempt and command.process.poll() is None:
                done = parts_of(out)
                if when(done):
                    killed = not (out / "_SUCCESS").exists() and FAULTS[fault](cluster, choose)
                    break
                time.sleep(0.02)
            codes.append(command.process.wait(timeout=LIMIT_S))
        said.append(log.read_text(errors="replace"))
        if codes[-1] == 0:
            break
        cluster.wait_for_task_managers(2)
    after = parts_of(out)
    return Story(
        codes=tuple(codes),
        said=tuple(said),
        killed=killed,
        done=len(done),
        again=tuple(sorted(name for name, time_ns in done.items() if after.get(name) != time_ns)),
        same=contents(out) == contents(crowd.work / PLACES[job]),
    )


def units_of(crowd: Chain, job: str) -> int:
    return len(parts_of(crowd.work / PLACES[job]))
