"""``make bench-flink``: the job match on a Flink cluster with one TaskManager, and with two. Each has one slot and one Python worker."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from metadata.ending import end_process
from pipelines.part import read_parts
from pipelines.stage import open_stage
from tests.benchmarks.material import Material, Size, real_data
from tests.benchmarks.measure import Row, row
from tests.engines.cluster import Cluster
from tests.engines.commands import run_command
from tests.world.chain import contents


def match_on(cluster: Cluster, inputs: Sequence[Path], material: Material, *, parallelism: int) -> tuple[float, str]:
    """Seconds of the command, start-up included, and the stage that it made."""
    output = material.output()
    argv = ["--input", *map(str, inputs), "--entries", material.entries, "--output", output, *cluster.beam_arguments(parallelism)]
    outcome = run_command("match", argv, material.folder / "log", limit_s=3_600)
    if outcome.code:
        raise SystemExit(outcome.said)
    return outcome.seconds, output


def measure(cluster: Cluster, material: Material, *, files: int, pages: int) -> Row:
    """The rate with two TaskManagers, and with one as the baseline; what the same job takes for next to nothing is taken off both."""
    paths = [material.wat("distinct", pages=pages, seed=seed) for seed in range(1, files + 1)]
    tiny = [material.wat("distinct", pages=20, seed=seed) for seed in (files + 1, files + 2)]
    seconds, start_up, found = [], [], []
    for task_managers in (1, 2):
        while len(cluster.task_managers) < task_managers:
            cluster.start_task_manager()
        cluster.wait_for_task_managers(task_managers)
        started, _ = match_on(cluster, tiny, material, parallelism=task_managers)
        whole, output = match_on(cluster, paths, material, parallelism=task_managers)
        print(f"{task_managers} TaskManagers: {whole:.1f} s, of which {started:.1f} s are start-up", flush=True)
        seconds.append(whole)
        start_up.append(started)
        found.append(output)
    if contents(Path(found[0])) != contents(Path(found[1])):
        raise AssertionError("one TaskManager and two give different bytes")
    pairs = sum(len(part) for part in read_parts(open_stage(found[0], "match")))
    one, two = (pairs / (whole - started) for whole, started in zip(seconds, start_up, strict=True))
    about = f"{files} WAT files of {pages:,} pages, {pairs:,} matched pairs, wall time without start-up"
    return row("flink_match", two, "pairs/s", one, input=f"{about}; baseline: one TaskManager", command="")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.flink", description=__doc__)
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--pages", type=int, default=2_500, help="of each file (default 2500)")
    parser.add_argument("--output", type=Path, default=Path("build/bench-flink.json"), metavar="FILE")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="worldclip-bench-flink-") as folder:
        material = Material(Path(folder), size=Size(), data=real_data())
        cluster = Cluster(root=Path(folder) / "flink")
        try:
            cluster.start(task_managers=1)
            found = measure(cluster, material, files=given.files, pages=given.pages)
        finally:
            cluster.end()
    about = {**asdict(found), "command": "python -m tests.benchmarks.flink", "processors": os.cpu_count()}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps([about], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{found.value:,.0f} pairs/s, {found.ratio:.2f} times that of one TaskManager; {given.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
    end_process(0)
