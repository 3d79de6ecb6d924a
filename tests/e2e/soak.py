"""The chain again and again, its commands killed at random moments: ``python -m tests.e2e.soak --seed 1 --minutes 30``.

Every command is the one that a user types. It is killed, with all that it started, as often as chance will have it, and given again until
it ends; whatever the number of workers, each stage must have the bytes of an undisturbed run. The most memory that a command took is told
for the first half of the time and for the second. The same seed makes the same choices; what a moment meets depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass

from metadata.ending import end_process
from tests.engines.commands import job_running, peak_memory, with_children
from tests.world.chain import PLACES, Chain, arguments, contents, make_chain

#: Seconds after which a command is killed: while it starts, works, or writes the end.
LATEST_S = 6.0
#: Kills of one command before it is left alone.
MOST_KILLS = 3


@dataclass(frozen=True, kw_only=True)
class Round:
    """One chain. ``peak``: the most memory of a command and its workers, in bytes; ``wrong``: jobs whose stage has other bytes."""

    workers: int
    kills: int
    seconds: float
    peak: int
    wrong: tuple[str, ...]


def run_round(chain: Chain, work: pathlib.Path, choose: random.Random) -> Round:
    """The whole chain in an empty directory.

    Raises:
        AssertionError: a command that nobody killed failed; with what it said.
    """
    begun, kills, peak, wrong, workers = time.monotonic(), 0, 0, list[str](), choose.choice((1, 2))
    for job in PLACES:
        argv = [*arguments(job, chain.world, work), *(["--workers", str(workers)] if job != "thresholds" else [])]
        for attempt in range(MOST_KILLS + 1):
            log = work.with_suffix(".log")
            log.unlink(missing_ok=True)
            limit = choose.uniform(0.5, LATEST_S) if attempt < MOST_KILLS and choose.random() < 0.5 else None
            with job_running(job, argv, log) as command, peak_memory(lambda: with_children(command.process)) as used:
                end = time.monotonic() + (limit or 600.0)
                while command.process.poll() is None and time.monotonic() < end:
                    time.sleep(0.02)
                if (code := command.process.poll()) is None:
                    command.kill()
            peak = max(peak, used.bytes)
            if code is not None:
                assert code == 0, f"{job}: {log.read_text()}"
                break
            kills += 1
        if contents(work / PLACES[job]) != contents(chain.work / PLACES[job]):
            wrong.append(job)
    return Round(workers=workers, kills=kills, seconds=round(time.monotonic() - begun, 1), peak=peak, wrong=tuple(wrong))


def soak(root: pathlib.Path, *, seed: int, minutes: float) -> list[Round]:
    """Rounds until the time is over; one at least."""
    choose, rounds, end = random.Random(seed), list[Round](), time.monotonic() + 60 * minutes  # noqa: S311  no secret
    with make_chain(root / "undisturbed") as chain:
        while not rounds or time.monotonic() < end:
            found = run_round(chain, root / "W", choose)
            rounds.append(found)
            shutil.rmtree(root / "W")
            told = f"{found.kills} kills, {found.seconds:.0f} s, {found.peak / 1e6:,.0f} MB"
            print(
                f"{len(rounds):3}: {found.workers} workers, {told}, {f'WRONG: {found.wrong}' if found.wrong else 'the same bytes'}",
                flush=True,
            )
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/soak.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="worldclip-soak-") as folder:
        rounds = soak(pathlib.Path(folder), seed=given.seed, minutes=given.minutes)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps({"seed": given.seed, "rounds": [asdict(found) for found in rounds]}, indent=1) + "\n")
    kills = sum(found.kills for found in rounds)
    half = len(rounds) // 2
    first, last = (max(found.peak for found in some) / 1e6 for some in (rounds[:half] or rounds, rounds[half:]))
    print(
        f"{len(rounds)} chains, {kills} kills; peak memory {first:,.0f} MB in the first half, {last:,.0f} MB in the second; {given.output}"
    )
    return 1 if any(found.wrong for found in rounds) else 0


if __name__ == "__main__":
    end_process(main())
