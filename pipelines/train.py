"""train: hand over to the trainer, which needs torch and lives in a process of its own."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Sequence
from itertools import takewhile

from pipelines.errors import JobError
from pipelines.options import fill
from pipelines.processes import module_environment, python_module

#: At SIGTERM and SIGUSR1, by which schedulers announce the end, the trainer saves a checkpoint and stops: exit status 143 and 138.
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "train" / "configs"

SEVERAL_GPUS = """\
worldclip train is one process, for a CPU or one GPU. All GPUs of a machine:

    torchrun --standalone --nproc_per_node=gpu -m train --config FILE --data DIR --output DIR

Several machines: the same line on each of them, with HOST the name of one (under Slurm: srun --ntasks-per-node=1 and this line):

    torchrun --nnodes=MACHINES --nproc_per_node=gpu --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 \\
        --rdzv_id=NAME -m train --config FILE --data DIR --output DIR

--output must lie on a disk that all machines share, and the number of processes must divide data.streams. A run goes on with another
number of them: batches, and with them the loss, stay the same. Models too big for one GPU: --set train.parallel=fsdp, with the same
checkpoints. At SIGTERM and SIGUSR1 the trainer saves a checkpoint and stops, with exit status 143 and 138. A train.py in the current
folder would be started instead of this one."""


def about(width: int) -> str:
    """What the trainer's own help does not say: the configurations that come with the package, each with the comment at its head, which
    says what it is and its source; and how several processes are started."""
    lines = ["configurations that come with the package:"]
    for file in sorted(CONFIGS.glob("*.toml")):
        head = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
        says = fill("\n".join(line.removeprefix("# ") for line in head), width - 4)
        lines += [f"  {file.name}", textwrap.indent(says, "    ")]
    return "\n".join([*lines, "", fill(SEVERAL_GPUS, width)])


def main(argv: Sequence[str]) -> None:
    """Run ``python -m train`` with the same arguments and its exit status; several processes are started with torchrun instead.

    Raises:
        JobError: torch is not installed, or training did not reach its end (it has said why).
    """
    help = "" if {"-h", "--help"}.isdisjoint(argv) else about(shutil.get_terminal_size().columns - 2)
    if help and not _torch_is_there():
        print(help)
    hand_over("train", argv, doing="training")
    if help:
        print(f"\n{help}")


def _torch_is_there() -> bool:
    return importlib.util.find_spec("torch") is not None


def hand_over(module: str, argv: Sequence[str], *, doing: str) -> None:
    """Run a module that needs torch in a process of its own, which gets the signals of this one, and end with its exit status.

    Raises:
        JobError: torch is not installed, or the process ended with another status than 0. ``doing`` names what failed.
    """
    if not _torch_is_there():
        raise JobError(f"{doing} needs torch and open_clip: pip install 'worldclip[train]'")
    process = subprocess.Popen([*python_module(module), *argv], env=module_environment())
    before = {number: signal.signal(number, lambda signum, _: process.send_signal(signum)) for number in _PASSED_ON}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise JobError(f"{doing} ended with exit code {code}", exit_code=code if code > 0 else 128 - code)
