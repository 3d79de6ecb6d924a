"""A worker process of the embedded runner: Beam's own, but quiet. What it fails with is told once, by the process that the user started."""

from __future__ import annotations

import logging
import sys


def main() -> None:
    # Beam sets its level to INFO here, whatever the options say: 50 lines a worker, and the traceback of a failure.
    logging.disable(logging.ERROR)
    from apache_beam.runners.worker import sdk_worker, sdk_worker_main

    # It prints that traceback as well, and hands it on in its answer, where it is needed.
    vars(sdk_worker)["print"] = lambda *_, **__: None
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
