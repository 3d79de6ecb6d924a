"""``torchrun … -m train --config FILE --data DIR --output DIR``, or ``python -m train`` for one process.

Exit status: 0 the last step is done; 143 SIGTERM: a checkpoint was saved, the same command goes on; 1 the run failed; 2 the input or the
configuration cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from train.checkpoint import CheckpointError
from train.config import ConfigError, load_config
from train.data import DataError
from train.loop import NotFiniteError, train

STOPPED = 143


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="train", description="Train a CLIP model on curated Parquet; started again, it goes on where it was."
    )
    parser.add_argument(
        "--config", required=True, help="TOML file, or the name of one that comes with the package (toy.toml, flickr8k.toml, …)"
    )
    parser.add_argument("--data", nargs="+", default=[], help="images: directories of part-*.parquet or files, local or fsspec URLs")
    parser.add_argument("--output", required=True, help="local folder for checkpoints, log.jsonl and the model")
    parser.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="overrides the file, e.g. --set train.steps=100"
    )
    arguments = parser.parse_args()
    first = os.environ.get("RANK", "0") == "0"
    # open_clip tells through the root logger how it builds a model; other ranks repeat what the first one says.
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("train").setLevel(logging.INFO if first else logging.ERROR)
    try:
        return 0 if train(load_config(arguments.config, overrides=arguments.set, data=arguments.data), Path(arguments.output)) else STOPPED
    except (ConfigError, DataError, CheckpointError, NotFiniteError) as error:
        logging.getLogger("train").error("error: %s", error)
        return 1 if isinstance(error, NotFiniteError) else 2


if __name__ == "__main__":
    sys.exit(main())
