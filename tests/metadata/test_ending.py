from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import atexit, sys
from metadata.ending import end_process
class Kept:
    def __del__(self):
        print("taken apart")
kept = Kept()
atexit.register(print, "done first")
print("said", end=" ")
print("told", end="", file=sys.stderr)
end_process(7)
"""


def test_a_process_ends_with_its_status_and_all_it_said_but_is_not_taken_apart() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "said done first\n", "told")
