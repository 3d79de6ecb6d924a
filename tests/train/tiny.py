"""A small world for the trainer: generated pictures of coloured squares, and a model of a few thousand weights."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from balancing.pairs import IMAGES_SCHEMA, pair_keys
from tests.ports import free_ports
from train.config import Config

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "белый": (250, 250, 250)}


def square(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """A noisy square of a colour, 24 x 20."""
    noise = np.random.default_rng(seed).integers(-25, 25, (20, 24, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def image_row(image_id: str, jpeg: bytes, texts: Sequence[str]) -> dict[str, Any]:
    keys = pair_keys([image_id] * len(texts), texts).tolist()
    listed = [{"text": t, "lang": "en", "entries": [1], "pair_key": k, "probability": 1.0} for t, k in zip(texts, keys, strict=True)]
    return {"image_id": image_id, "url": None, "jpeg": jpeg, "width": 24, "height": 20, "sha256": "", "texts": listed}


def write_images(folder: pathlib.Path, rows: Sequence[dict[str, Any]], *, parts: int = 3, row_group_size: int = 7) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        table = pa.Table.from_pylist(list(rows[part::parts]), schema=IMAGES_SCHEMA)
        pq.write_table(table, folder / f"part-{part:05d}.parquet", row_group_size=row_group_size)
    return folder


def read_log(output: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("samples_per_second", "data_wait")} for line in lines]


def _train(config: Config, output: pathlib.Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    # As in a run of one's own: workers are forks, and end with their trainer. A child of a fork server would make another server.
    multiprocessing.set_start_method("fork", force=True)
    from train.loop import train

    stopped = train(config, output)
    sys.exit(128 + stopped if stopped else 0)


def start(config: Config, output: pathlib.Path, *, ranks: int = 1) -> list[Any]:
    """The processes of a run, started. They are forks of a server that has torch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.loop", "pandas"])
    (port,) = free_ports(1)
    processes = []
    for rank in range(ranks):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        arguments = (config, output, {key: str(value) for key, value in environment.items()})
        processes.append(context.Process(target=_train, args=arguments))
        processes[-1].start()
    return processes


def run(config: Config, output: pathlib.Path, *, ranks: int = 1) -> None:
    """Trains to the end with several ranks."""
    processes = start(config, output, ranks=ranks)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * ranks
