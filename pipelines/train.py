"""train: hand over to the trainer, which needs torch and lives in a process of its own."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
from collections.abc import Sequence

from pipelines.errors import JobError
from pipelines.processes import module_environment, python_module

#: Signals by which schedulers announce the end: the trainer saves a checkpoint.
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def main(argv: Sequence[str]) -> None:
    """Run ``python -m train`` with the same arguments and its exit status; several processes are started with torchrun instead.

    Raises:
        JobError: torch is not installed, or training did not reach its end (it has said why).
    """
    if importlib.util.find_spec("torch") is None:
        raise JobError("training needs torch and open_clip: pip install 'worldclip[train]'")
    process = subprocess.Popen([*python_module("train"), *argv], env=module_environment())
    before = {number: signal.signal(number, lambda signum, _: process.send_signal(signum)) for number in _PASSED_ON}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise JobError(f"training ended with exit code {code}", exit_code=code if code > 0 else 128 - code)
