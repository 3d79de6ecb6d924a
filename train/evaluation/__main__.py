"""``python -m train.evaluation --model FOLDER --task FILE``, or ``torchrun … -m train.evaluation`` for several GPUs.

Exit status: 0 done; 1 the evaluation failed; 2 the model, a task or a file of it cannot be used.
"""

from __future__ import annotations

import argparse
import json
import logging
import tomllib
import warnings
from pathlib import Path
from statistics import fmean
from typing import Any

import open_clip
import torch
import torch.distributed as dist

from metadata.ending import end_process
from train.config import InputError
from train.distributed import join_ranks
from train.evaluation.layouts import reading
from train.evaluation.tasks import Result, evaluate, load_tasks
from train.model import Model, Tokenizer

log = logging.getLogger("train")


def main() -> int:
    parser = argparse.ArgumentParser("python -m train.evaluation", description="Zero-shot classification, retrieval and multiple choice.")
    add = parser.add_argument
    add("--model", required=True, help="folder that the trainer wrote (its --output), or a name of open_clip's, such as ViT-B-32")
    add("--pretrained", help="weights: a file (.safetensors, .pt), such as a checkpoint of the trainer; or a name of published ones")
    add("--task", required=True, nargs="+", metavar="FILE", help="TOML files with [[evaluate.tasks]], see docs/evaluation.md")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--output", type=Path, metavar="FILE", help="also write the result to this file, as JSON")
    given = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        tasks = load_tasks([table for path in given.task for table in read_tables(path)])
        if given.output:
            given.output.parent.mkdir(parents=True, exist_ok=True)
        ranks = join_ranks(given.device)
        found = evaluate(*load_model(given.model, given.pretrained, ranks.device), tasks, ranks)
        if ranks.count > 1:
            dist.destroy_process_group()
        if ranks.rank == 0:
            print(as_text(found))
            if given.output:
                given.output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except (InputError, OSError, RuntimeError) as error:
        log.error("error: %s", error)
        return 2 if isinstance(error, InputError) else 1
    return 0


def read_tables(path: str) -> list[dict[str, Any]]:
    """The ``[[evaluate.tasks]]`` of a TOML file. Raises InputError."""
    with reading(path):
        tables: list[dict[str, Any]] = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("evaluate", {}).get("tasks", [])
    if not tables:
        raise InputError(f"{path} has no [[evaluate.tasks]]")
    return tables


def load_model(name: str, pretrained: str | None, device: torch.device) -> tuple[Model, Tokenizer]:
    """A model with its weights, and its tokenizer; of files only numbers are loaded, no objects. Raises InputError.

    ``name``: a folder in open_clip's format or a name that open_clip knows; ``pretrained``: a file of weights, instead of those in the
    folder, or for a name also the name of published ones.
    """
    folder = Path(name).is_dir()
    source = f"local-dir:{name}" if folder else name
    other = folder and pretrained
    try:
        model = open_clip.create_model(
            source,
            None if folder else pretrained,
            load_weights=not other,
            require_pretrained=not other,
            pretrained_text=False,
            device=device,
        )
        if other:
            open_clip.load_checkpoint(model, pretrained)
        return model, open_clip.get_tokenizer(source)
    # open_clip, torch, safetensors and Hugging Face each raise errors of their own.
    except Exception as error:
        says = f"the model {name} cannot be loaded" + (f" with the weights {pretrained}" if pretrained else "")
        raise InputError(f"{says}: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def as_text(found: Result) -> str:
    """The result as a table per task: a line per language, and the mean of several."""
    blocks = []
    for task, languages in found.items():
        metrics = list(dict.fromkeys(metric for figures in languages.values() for metric in figures if metric != "per_class"))
        lines = {language: [figures.get(metric) for metric in metrics] for language, figures in languages.items()}
        if len(lines) > 1:
            shares = [[value for value in column if isinstance(value, float)] for column in zip(*lines.values(), strict=True)]
            lines["mean"] = [fmean(values) if values else None for values in shares]
        cells = [[task, *metrics], *([language, *map(_cell, values)] for language, values in lines.items())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        blocks.append("\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells))
    return "\n\n".join(blocks)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    end_process(main())
