"""``torchrun … -m train --config FILE --data DIR --output DIR``, or ``python -m train`` for one process.

Exit status: 0 the last step is done; 143 SIGTERM, 138 SIGUSR1: a checkpoint was saved, the same command goes on; 1 the run failed; 2 the
input or the configuration cannot be used.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import os
import warnings
from pathlib import Path

from metadata.ending import end_process
from train.config import InputError, NotFiniteError, load_config


def main() -> int:
    parser = argparse.ArgumentParser("python -m train", description="Train CLIP on curated Parquet; started again, go on where it was.")
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="TOML file, or the name of one that comes with the package, such as toy.toml")
    add("--data", nargs="+", default=[], metavar="DIR", help="images: directories of part-*.parquet or files, local or fsspec URLs")
    add("--output", required=True, type=Path, metavar="DIR", help="local folder for checkpoints, log.jsonl and the model")
    add("--set", nargs="+", action="extend", default=[], metavar="TABLE.KEY=VALUE", help="overrides the file, e.g. train.steps=100")
    arguments = parser.parse_args()
    # open_clip tells through the root logger how it builds a model, and torch warns of what open_clip uses; other ranks say it all again.
    warnings.simplefilter("ignore", FutureWarning)
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log = logging.getLogger("train")
    log.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    try:
        config = load_config(arguments.config, overrides=arguments.set, data=arguments.data)
        # With it come torch and open_clip, for which a command that is mistyped need not wait.
        loop = importlib.import_module("train.loop")
        stopped = loop.train(config, arguments.output)
        return 128 + stopped if stopped else 0
    except (InputError, NotFiniteError, OSError, ImportError) as error:
        log.error("error: %s", error)
        return 2 if isinstance(error, InputError) else 1


if __name__ == "__main__":
    status = main()
    # A loader's workers outlive the signals that end a job: without this, the end of a run that failed would wait for them for ever.
    for worker in multiprocessing.active_children():
        worker.kill()
    end_process(status)
