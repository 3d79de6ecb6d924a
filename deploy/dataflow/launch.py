"""What a Flex template starts: one job, of the template's parameters. ``options`` is its command line, the rest is Dataflow's own."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from pipelines.__main__ import main as worldclip


def command_line(arguments: Sequence[str]) -> list[str]:
    """worldclip's command line out of the parameters that the template's launcher hands on, in whatever order."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--job", required=True)
    parser.add_argument("--options", required=True)
    known, of_dataflow = parser.parse_known_args(arguments)
    return [known.job, *shlex.split(known.options), *of_dataflow]


if __name__ == "__main__":
    sys.exit(worldclip(command_line(sys.argv[1:])))
