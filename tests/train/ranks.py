"""Several runs of several ranks in the same processes: starting those, and FSDP's first steps, cost far more than a tiny run."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from tests.ports import free_ports
from train.config import Config


@dataclass(frozen=True)
class Turn:
    """A run into ``output``; with ``half`` it goes on from a copy of that run without its newest checkpoint."""

    config: Config
    output: pathlib.Path
    half: pathlib.Path | None = None


def copy_half(source: pathlib.Path, output: pathlib.Path) -> None:
    """Copies a finished run as it was before its last checkpoint."""
    shutil.copytree(source, output)
    max((output / "checkpoints").glob("step-*.pt")).unlink()


def _train(turns: Sequence[Turn], ports: Sequence[int], rank: int, ranks: int) -> None:
    from train.loop import train

    # As in a run of one's own: workers are forks.
    multiprocessing.set_start_method("fork", force=True)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    for turn, port in zip(turns, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        # The other ranks cannot join, and look at the folder, before this one does.
        if turn.half and rank == 0:
            copy_half(turn.half, turn.output)
        assert train(turn.config, turn.output) is None


def run_in_turn(turns: Sequence[Turn], *, ranks: int) -> None:
    """Trains to the end of each run, one after the other."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.loop", "pandas"])
    ports = free_ports(len(turns))
    processes = [context.Process(target=_train, args=(turns, ports, rank, ranks)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120 + 30 * len(turns))
    assert [process.exitcode for process in processes] == [0] * ranks
