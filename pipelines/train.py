"""train: hand over to the trainer, which needs torch and lives in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

from pipelines.errors import JobError


def main(argv: Sequence[str]) -> None:
    """Run ``python -m train`` with the same arguments; several processes are started with torchrun instead.

    Raises:
        JobError: torch is not installed, or training failed (it has said why).
    """
    if importlib.util.find_spec("torch") is None:
        raise JobError("training needs torch and open_clip: pip install 'worldclip[train]'")
    code = subprocess.run([sys.executable, "-m", "train", *argv], check=False).returncode
    if code:
        raise JobError(f"training ended with exit code {code}")
