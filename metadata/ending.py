"""How a program of this project ends."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End the process with an exit status; what was registered with :mod:`atexit` is done first.

    Arrow's threads let go of Python objects a moment after they were needed. An interpreter that is being taken apart by then ends such a
    thread, and with it the process: "terminate called without an active exception", exit status 134, after all the work is done. So it is
    not taken apart.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()
    os._exit(code)
