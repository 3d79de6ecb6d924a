"""Zero-shot classification: which class's texts an image is nearest to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from train.config import InputError
from train.distributed import Ranks, join_ranks
from train.model import Model, Tokenizer


@torch.no_grad()
def embed(model: Model, encode: Any, prepare: Callable[[list[Any]], torch.Tensor], items: Iterable[Any], batch: int = 256) -> torch.Tensor:
    """Normalized embeddings of what ``prepare`` makes tensors of, fp32 on the CPU, shape (items, dim). In memory: one batch at a time."""
    found, left = [torch.empty(0)], iter(items)  # without items there is a tensor too
    while here := list(islice(left, batch)):
        found.append(encode(prepare(here).to(model.logit_scale.device), normalize=True).float().cpu())
    return torch.cat(found)


def embed_classes(model: Model, tokenizer: Tokenizer, class_prompts: Sequence[Sequence[str]]) -> torch.Tensor:
    """Per class the mean of its prompts' normalized embeddings, normalized (CLIP, section 3.1.4). fp32 on the CPU, shape (classes, dim)."""
    prompts = embed(model, model.encode_text, tokenizer, chain.from_iterable(class_prompts))
    means = [of_class.mean(dim=0) for of_class in prompts.split([len(of_class) for of_class in class_prompts])]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def hits_per_class(images: torch.Tensor, labels: Sequence[int], classes: torch.Tensor) -> np.ndarray:
    """How many of each class's images have it as their nearest class, the first of equally near ones. int64, shape (classes,).

    ``images`` (images, dim) and ``classes`` (classes, dim): embeddings; ``labels``: class index per image.
    """
    truth = np.asarray(labels, dtype=np.int64)
    right = (images.reshape(-1, classes.shape[1]) @ classes.T).argmax(dim=1).numpy() == truth
    return np.bincount(truth[right], minlength=len(classes))


def evaluate(model: Model, tokenizer: Tokenizer, images: str, prompts: str, ranks: Ranks) -> dict[str, dict[str, Any]]:
    """For each language: ``accuracy`` over all images, and ``per_class`` (None for a class without images).

    ``images``: a folder of folders named 0, 1, … by class. ``prompts``: a JSON file {language: [[prompt of class 0, …], …]}, or
    {language: {"names": [name of class 0, …], "templates": ["a photo of a {}.", …]}}. Every rank calls this and embeds its share of the
    images: if one did all, the others would wait for it until the process group's time-out.

    Raises InputError: no image, or a class without prompts.
    """
    files = sorted((int(file.parent.name), file) for file in Path(images).glob("*/*") if file.parent.name.isdecimal())
    if not files:
        raise InputError(f"no image in {images}: it must hold a folder per class, named 0, 1, …")
    labels, training, out, mine = [label for label, _ in files], model.training, {}, slice(ranks.rank, None, ranks.count)
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    model.eval()
    embeddings = embed(model, model.encode_image, torch.stack, (preprocess(Image.open(file).convert("RGB")) for _, file in files[mine]))
    for language, given in json.loads(Path(prompts).read_text(encoding="utf-8")).items():
        if isinstance(given, dict):
            given = [[template.format(name) for template in given["templates"]] for name in given["names"]]
        if not all(given) or len(given) <= labels[-1]:
            raise InputError(f"{prompts}: {language} needs prompts for each of the {labels[-1] + 1} classes in {images}")
        hits = ranks.sum(hits_per_class(embeddings, labels[mine], embed_classes(model, tokenizer, given)))
        shares = [hit / n if n else None for hit, n in zip(hits, np.bincount(labels, minlength=len(given)).tolist(), strict=True)]
        out[language] = {"accuracy": sum(hits) / len(files), "per_class": shares}
    model.train(training)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="Zero-shot classification with a model.")
    add = parser.add_argument
    add("--model", required=True, help="folder that the trainer wrote (its --output), or a name of open_clip's")
    add("--pretrained", help="with a name: a file of weights, such as a checkpoint, or a name of published ones")
    add("--images", required=True, help="folder of folders named 0, 1, … by class")
    add("--prompts", required=True, help="JSON: {language: [[prompt, …] per class]} or {language: {names, templates}}")
    add("--output", help="also write the result to this JSON file")
    given = parser.parse_args()
    name = f"local-dir:{given.model}" if Path(given.model).is_dir() else given.model
    try:
        model = open_clip.create_model(name, given.pretrained, require_pretrained=True)
        found = evaluate(model, open_clip.get_tokenizer(name), given.images, given.prompts, join_ranks("cpu"))
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(2, f"error: {error}\n")
    print(result := json.dumps(found, indent=2))
    if given.output:
        Path(given.output).write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
