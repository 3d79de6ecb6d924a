"""What a run tells: a line for people, ``log.jsonl`` for programs, TensorBoard, and Weights & Biases if asked."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from train.config import Config, InputError

log = logging.getLogger("train")
#: Dense bf16 operations per second, 1e12, of GPUs by what their names hold, from NVIDIA's data sheets (half of "with sparsity").
PEAKS = {"A100": 312, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200 NVL": 835, "H200": 989, "B200": 2250, "L40S": 362}


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 floating-point operations per second of a GPU; None where the table has not got it, and of a CPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return next((peak * 1e12 for part, peak in PEAKS.items() if part in name), None)


class Logbook:
    """A run's figures, written by its first rank. Started again at ``step``, it drops what was written after that step.

    ``peak``: FLOP/s of this rank's GPU, None where it is not known. Since the last report this rank has computed ``flops``, and spent
    ``waited`` seconds in waiting for data and ``paused`` in what is no training.

    Raises InputError where ``log.wandb`` is set and the package is not there, and where the log has a line that is none of its own.
    """

    def __init__(self, config: Config, folder: Path, *, step: int, peak: float | None) -> None:
        self._config, self._peak, self.waited, self.flops, self.paused = config, peak, 0.0, 0.0, 0.0
        self._reported, self._start = step, time.perf_counter()
        self._file = folder / "log.jsonl"
        if self._file.exists():
            lines = [line for line in self._file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            partial = self._file.with_suffix(".partial")
            try:
                partial.write_bytes(b"".join(line for line in lines if json.loads(line)["step"] <= step))
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{self._file} has a line that is no report: delete the line, or move the file away") from None
            partial.replace(self._file)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._wandb = start_wandb(config, folder) if config.log.wandb else None

    def report(self, step: int, **values: float) -> None:
        """Tells how the steps since the last report went."""
        train, seconds = self._config.train, time.perf_counter() - self._start - self.paused
        speed = (step - self._reported) * train.batch_size / seconds
        values |= {"samples_per_second": speed, "data_wait": self.waited / seconds} | (
            {"mfu": self.flops / seconds / self._peak} if self._peak else {}
        )
        left = timedelta(seconds=round((train.steps - step) * train.batch_size / speed))
        self._reported, self._start = step, time.perf_counter()
        self.waited = self.flops = self.paused = 0.0
        self.write(step, **values)
        figures = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        log.info("step %s/%s  %s  left %s", step, train.steps, figures, left)

    def write(self, step: int, **values: Any) -> None:
        """Adds figures of a step, which may be in nested dicts."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "samples": step * self._config.train.batch_size, **values}) + "\n")
        scalars = dict(flatten(values))
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)
        self._tensorboard.flush()
        if self._wandb:
            self._wandb.log(scalars, step=step)


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dicts, with the keys on the way to each joined by ``/``."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value


def start_wandb(config: Config, folder: Path) -> Any:
    try:
        import wandb
    except ImportError:
        raise InputError("log.wandb needs the package wandb: pip install wandb, or leave log.wandb empty") from None
    # The same folder is the same run, which goes on; W&B drops what it has of a step already.
    name = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    return wandb.init(project=config.log.wandb, id=name, name=folder.name, dir=str(folder), resume="allow")
