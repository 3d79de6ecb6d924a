"""The trainer against open_clip's own training script, on a GPU: samples per second, share of the GPU's peak (MFU), wait for data.

``python -m tests.benchmarks.gpu`` trains each model twice in one run, with the same images, batch, precision (bf16 by autocast), workers
and torch.compile: with this project's trainer on Parquet, and with ``open_clip_train.main`` on webdataset tars of the same images (it needs
the packages webdataset and pandas). It prints a table and writes build/bench-gpu.json. Steps are counted from the third report on, so
that compilation is left out. Where there is no GPU, nothing is measured. ``--tiny`` runs all of it on a CPU with a model of some thousand
weights, to see that it works: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.train.tiny import image_row, write_images
from train.config import ModelConfig
from train.logbook import peak_flops
from train.model import CONFIG_FILE, count_flops, find_architecture

_ROOT = Path(__file__).resolve().parent.parent.parent
#: Reports whose steps do not count.
_WARM_UP = 2
_SHARDS = 32
#: A token each.
_WORDS = [
    "a",
    "the",
    "of",
    "in",
    "on",
    "with",
    "red",
    "blue",
    "old",
    "small",
    "man",
    "dog",
    "house",
    "tree",
    "street",
    "water",
    "sky",
    "car",
]
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
#: Batches that fit a GPU of 80 GB, one GPU.
BATCHES = {"ViT-B-32-quickgelu": 1024, "ViT-B-16-quickgelu": 512, "ViT-L-14-quickgelu": 160}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run: so many ``steps`` of each model, a report after every ``every``, on ``images`` of ``sides`` pixels."""

    models: dict[str, int]
    steps: int
    every: int
    workers: int
    images: int
    sides: tuple[int, int]
    device: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model's figures. ``ratio``: how many times as many samples per second as open_clip's script.

    MFU: of what each computes, None without a GPU's peak; the trainer leaves most of the texts' padding out, open_clip's script does not.
    """

    model: str
    batch: int
    samples_per_second: float
    open_clip_samples_per_second: float
    ratio: float
    mfu: float | None
    open_clip_mfu: float | None
    data_wait: float


def write_pictures(folder: Path, plan: Plan) -> None:
    """The same JPEG images and captions twice: ``images/part-*.parquet`` and ``tars/*.tar``. Smooth pictures with some noise."""
    rows = []
    for i in range(plan.images):
        random = np.random.default_rng(i)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(plan.sides, Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse, dtype=np.int16) + random.integers(-12, 13, (*coarse.size[::-1], 1))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        rows.append(image_row(f"{i:09d}", file.getvalue(), [caption(random)]))
    write_images(folder / "images", rows, parts=_SHARDS, row_group_size=128)
    (folder / "tars").mkdir()
    for shard in range(_SHARDS):
        with tarfile.open(folder / f"tars/{shard:05d}.tar", "w") as tar:
            for row in rows[shard::_SHARDS]:
                for extension, content in (("jpg", row["jpeg"]), ("txt", row["texts"][0]["text"].encode())):
                    member = tarfile.TarInfo(f"{row['image_id']}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def caption(random: np.random.Generator) -> str:
    """A text as long as those of web pages: half of them have 10 tokens or fewer of open_clip's tokenizer, one of 20 has 36 or more."""
    words = int(np.clip(random.lognormal(np.log(8), 0.9), 1, 75))
    return " ".join(random.choice(_WORDS, words).tolist())


def run_script(arguments: Sequence[str], log: Path) -> str:
    """What a module prints. RuntimeError where it fails, with the end of that."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.run([sys.executable, "-m", *arguments], stdout=file, stderr=subprocess.STDOUT, env=environment)
    printed = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} ended with exit code {process.returncode}:\n{printed[-3000:]}")
    return printed


def run_ours(folder: Path, plan: Plan, *, name: str, batch: int) -> dict[str, Any]:
    """What the trainer reports: medians of samples per second, the share of the time that is spent in waiting for data, and MFU."""
    config: dict[str, Any] = {
        "model": {"name": name, "custom": TINY if name == "tiny" else {}},
        "data": {"workers": plan.workers, "streams": 16 if batch % 16 == 0 else batch, "crop_scale": [0.9, 1.0]},
        "schedule": {"warmup": 1},
        "optimizer": {"clip_norm": 0.0},
        "train": {"steps": plan.steps, "batch_size": batch, "precision": "bf16", "compile": plan.device == "cuda", "device": plan.device},
        "checkpoint": {"every": 10**6},
        "log": {"every": plan.every},
    }
    file, output = folder / f"{name}.toml", folder / f"ours-{name}"
    file.write_text("".join(f"[{table}]\n{in_toml(keys)}" for table, keys in config.items()), encoding="utf-8")
    run_script(["train", "--config", str(file), "--data", str(folder / "images"), "--output", str(output)], folder / f"ours-{name}.txt")
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()][_WARM_UP:]
    figures = ("samples_per_second", "data_wait", "mfu")
    return {key: statistics.median(line[key] for line in lines) if key in lines[0] else None for key in figures}


def in_toml(keys: dict[str, Any]) -> str:
    """Lines of a TOML table; a nested one is written inline."""

    def value(of: Any) -> str:
        return "{" + ", ".join(f"{key} = {value(v)}" for key, v in of.items()) + "}" if isinstance(of, dict) else json.dumps(of)

    return "".join(f"{key} = {value(of)}\n" for key, of in keys.items())


def run_open_clip(folder: Path, plan: Plan, *, name: str, batch: int) -> float:
    """Samples per second of open_clip's script: of the mean times per batch that its reports tell, the median."""
    model, logs = name, folder / "open_clip"
    if name == "tiny":
        (folder / "tiny").mkdir()
        (folder / "tiny" / CONFIG_FILE).write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}), encoding="utf-8")
        model = f"local-dir:{folder / 'tiny'}"
    tars = str(folder / "tars" / f"{{00000..{_SHARDS - 1:05d}}}.tar")
    options = {
        "dataset-type": "webdataset",
        "train-data": tars,
        "train-num-samples": plan.steps * batch,
        "batch-size": batch,
        "workers": plan.workers,
        "epochs": 1,
        "model": model,
        "precision": "amp_bf16",
        "device": plan.device,
        "warmup": 1,
        "log-every-n-steps": plan.every,
        "save-frequency": 0,
        "logs": logs,
        "name": name,
    }
    arguments = ["open_clip_train.main", "--dataset-resampled", "--local-loss", "--gather-with-grad"]
    arguments += ["--torchcompile"] if plan.device == "cuda" else []
    printed = run_script(
        [*arguments, *(str(part) for key, value in options.items() for part in (f"--{key}", value))], folder / f"{name}.txt"
    )
    times = [float(found) for found in re.findall(r"Batch \(t\): ([0-9.]+)", printed)]
    # The script also reports after its first step and its last one, however few steps that is after the report before.
    return batch / statistics.median(times[1 + _WARM_UP : -1])


def measure(folder: Path, plan: Plan) -> list[Row]:
    write_pictures(folder, plan)
    peak, rows = peak_flops(torch.device(plan.device)), []
    for name, batch in plan.models.items():
        ours = run_ours(folder, plan, name=name, batch=batch)
        baseline = run_open_clip(folder, plan, name=name, batch=batch)
        config = ModelConfig(name=name, custom=TINY if name == "tiny" else {})
        # Its script computes the padding of all texts.
        flops = sum(count_flops(config, find_architecture(config, loss="clip")))
        rows.append(
            Row(
                model=name,
                batch=batch,
                samples_per_second=ours["samples_per_second"],
                open_clip_samples_per_second=baseline,
                ratio=ours["samples_per_second"] / baseline,
                mfu=ours["mfu"],
                open_clip_mfu=baseline * flops / peak if peak else None,
                data_wait=ours["data_wait"],
            )
        )
        print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    mfu, open_clip_mfu = (f"{share:9.1%}" if share is not None else f"{'-':>9}" for share in (row.mfu, row.open_clip_mfu))
    speeds = f"{row.samples_per_second:10,.1f} {row.open_clip_samples_per_second:10,.1f} {row.ratio:7.2f} x"
    return f"{row.model:20} {row.batch:6} {speeds} {mfu} {open_clip_mfu} {row.data_wait:9.1%}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--tiny", action="store_true", help="on a CPU, with a tiny model: whether it works, not how fast it is")
    add("--models", nargs="+", default=list(BATCHES), choices=list(BATCHES), metavar="NAME", help=f"of {', '.join(BATCHES)}")
    add("--steps", type=int, default=80, help="of each run; a report after every tenth (default 80)")
    add("--workers", type=int, default=os.cpu_count(), help="decoding processes (default: the processors)")
    add("--output", type=Path, default=Path("build/bench-gpu.json"), metavar="FILE")
    given = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns there of models without weights
    if not (given.tiny or torch.cuda.is_available()):
        print("no GPU on this machine: nothing was measured, and nothing is claimed")
        return
    plan = Plan(
        models={name: BATCHES[name] for name in given.models},
        steps=given.steps,
        every=10,
        workers=min(given.workers, _SHARDS),
        images=8192,
        sides=(340, 256),
        device="cuda",
    )
    if given.tiny:
        plan = Plan(models={"tiny": 8}, steps=7, every=1, workers=1, images=64, sides=(48, 40), device="cpu")
    gpu = "CPU" if given.tiny else torch.cuda.get_device_name()
    print(f"{gpu}, torch {torch.__version__}, {plan.workers} workers, {plan.images} images of {plan.sides[0]} x {plan.sides[1]} pixels")
    heads = f"{'ours/s':>10} {'open_clip/s':>10} {'ratio':>8} {'MFU':>9} {'its MFU':>9} {'data wait':>9}"
    print(f"{'model':20} {'batch':>6} {heads}")
    with tempfile.TemporaryDirectory(prefix="worldclip-bench-gpu-") as folder:
        rows = measure(Path(folder), plan)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "gpu": gpu,
        "torch": torch.__version__,
        "workers": plan.workers,
        "steps": plan.steps,
        "command": "python -m tests.benchmarks.gpu",
    }
    given.output.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")
    print(given.output)


if __name__ == "__main__":
    main()
