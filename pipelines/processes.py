"""How this program starts itself in another process."""

from __future__ import annotations

import os
import pathlib
import sys


def python_module(name: str) -> list[str]:
    """The command that runs one of this project's modules. Whoever trains has a train.py of their own in the current folder: it is not on
    the path (``-P``)."""
    return [sys.executable, "-P", "-m", name]


def module_environment() -> dict[str, str]:
    """The environment for it: this project is found where it is, installed or not."""
    root = str(pathlib.Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
