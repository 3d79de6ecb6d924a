"""``worldclip <job>``, the same as ``python -m pipelines <job>``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from pipelines.errors import JobError
from pipelines.jobs import JOBS, run_job


def usage() -> str:
    lines = [
        "usage: worldclip <job> [options]     (worldclip <job> --help explains the job)",
        "",
        "Balanced image-text pairs in every language, from Wikipedia and Common Crawl, and CLIP trained on them.",
        "",
        "jobs, in the order in which data walks through them:",
        *(f"  {name:11} {about}" for name, (_, about) in JOBS.items()),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    job, *rest = arguments
    if job not in JOBS:
        print(f"worldclip: there is no job {job!r}\n\n{usage()}", file=sys.stderr)
        return 2
    # Beam's modules warn about parts of it that this project does not use.
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        run_job(job, rest)
    except JobError as error:
        print(f"worldclip {job}: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, RuntimeError) as error:
        # A runner hands an interruption on as its own error.
        if "KeyboardInterrupt" not in f"{type(error).__name__}: {error}":
            raise
        print(f"worldclip {job}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    finally:
        root.setLevel(before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
