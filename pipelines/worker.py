"""A worker process of the embedded runner: Beam's own, but quiet. What it fails with is told once, by the process that the user started."""

from __future__ import annotations

import logging
import sys


def main() -> None:
    # Beam sets its log level to INFO and writes 50 lines a worker, and a traceback of a hundred more for every failure.
    logging.disable(logging.ERROR)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
