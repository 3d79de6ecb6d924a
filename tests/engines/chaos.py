"""Random deaths on a Flink cluster: ``python -m tests.engines.chaos --seed 1 --times 10``.

Each job runs so many times, and each time a random process is killed at a random moment; the job must end with the bytes of an
undisturbed run, by itself or after the same command, and no part that was done may be done again. The same seed makes the same choices;
what a moment meets depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import sys
import tempfile
import time
from dataclasses import asdict

from metadata.ending import end_process
from tests.engines.cluster import Cluster
from tests.engines.crowd import make_crowd
from tests.engines.faults import BY_ITSELF, FAULTS, run_with_fault
from tests.world.chain import Chain, run_chain
from tests.world.generate import generate

JOBS = ("ngrams", "match", "dedup", "balance")
#: Seconds from the start of a command: the start of the job, its middle, its end and the time after it.
LATEST_S = 8.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engines.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=10, help="deaths of each job (default 10)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/chaos.json"))
    arguments = parser.parse_args()
    choose, stories = random.Random(arguments.seed), []  # noqa: S311  no secret
    with tempfile.TemporaryDirectory(prefix="worldclip-chaos-") as folder:
        root = pathlib.Path(folder)
        world = generate(root / "world", pages=12, images=80, base_url="http://127.0.0.1:9", test_images=1)
        small = Chain(world=world, work=root / "W")
        run_chain(world, small.work, jobs=("ngrams", "titles", "wordnet", "entries"))
        crowd = make_crowd(small, root / "crowd")
        cluster = Cluster(root=root / "flink")
        try:
            cluster.start()
            for n, job in enumerate(JOBS * arguments.times):
                fault, moment = choose.choice(sorted(FAULTS)), choose.uniform(1, LATEST_S)
                begun = time.monotonic()
                story = run_with_fault(
                    crowd,
                    cluster,
                    job,
                    root / f"out-{n}",
                    fault,
                    when=lambda _, end=begun + moment: time.monotonic() >= end,
                    choose=choose,
                )
                well = story.same and not story.again and story.codes[-1] == 0 and (fault not in BY_ITSELF or story.codes == (0,))
                told = f"killed after {moment:.1f} s with {story.done} parts there" if story.killed else "was done before"
                seconds = time.monotonic() - begun
                line = f"{n + 1:2}: {job:8} {fault:12} {told}: exit codes {story.codes}, {seconds:.0f} s"
                print(f"{line}, {'the same bytes' if well else 'WRONG'}", flush=True)
                if not well:
                    print(story.again, *story.said, sep="\n", file=sys.stderr)
                stories.append({"job": job, "fault": fault, "moment": moment, "well": well, **asdict(story)})
                cluster.wait_for_task_managers(2)
        finally:
            cluster.end()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"seed": arguments.seed, "stories": stories}, indent=1) + "\n")
    return 0 if all(story["well"] for story in stories) else 1


if __name__ == "__main__":
    end_process(main())
