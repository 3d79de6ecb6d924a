"""``worldclip <job>``, the same as ``python -m pipelines <job>``."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence

from metadata.ending import end_process
from pipelines.errors import JobError, did_you_mean, message_of
from pipelines.jobs import JOBS, LAST_OF_CHAIN, run_job


def usage() -> str:
    lines = [f"  {name:11} {about}" for name, (_, about) in JOBS.items()]
    beside = [*JOBS].index(LAST_OF_CHAIN) + 1
    return "\n".join(
        [
            "usage: worldclip <job> [options]     worldclip <job> --help explains the job",
            "       worldclip --version",
            "",
            "Balanced image-text pairs in every language, from Wikipedia and Common Crawl; CLIP trained on them.",
            "",
            "the chain, in the order in which data walks through it:",
            *lines[:beside],
            "",
            "beside the chain:",
            *lines[beside:],
        ]
    )


def version() -> str:
    try:
        return f"worldclip {importlib.metadata.version('worldclip')}"
    except importlib.metadata.PackageNotFoundError:
        return "worldclip, not installed: run from its sources"


def command(arguments: Sequence[str]) -> int:
    """Do what a command line says; the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(version())
        return 0
    job, *rest = arguments
    if job not in JOBS:
        print(f"worldclip: there is no job {job!r}{did_you_mean(job, JOBS)}\n\n{usage()}", file=sys.stderr)
        return 2
    # Beam's modules warn about parts of it that this project does not use.
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        run_job(job, rest)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            raise
        # A runner hands an interruption on as its own error.
        if "KeyboardInterrupt" in f"{type(error).__name__}: {error}":
            print(f"worldclip {job}: interrupted; the same command goes on where it stopped", file=sys.stderr)
            return 128 + signal.SIGINT
        message = message_of(error)
        if message is None:
            raise
        print(f"worldclip {job}: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, JobError) else 1
    finally:
        root.setLevel(before)
    return 0


def _reader_has_gone() -> bool:
    """Whether nobody reads stdout any more, as after ``| head``."""
    try:
        stdout = select.poll()
        stdout.register(sys.stdout.fileno(), 0)
        return bool(stdout.poll(0))
    except (OSError, ValueError):  # no file at all
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; gives the exit status. Without ``argv`` it is the program's own, which ends with it."""
    try:
        try:
            code = command(sys.argv[1:] if argv is None else argv)
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        # What is left to say is dropped. Python would try once more at its end, and tell of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    if argv is None:
        end_process(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
