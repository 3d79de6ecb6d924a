"""Zero-shot classification: which class's texts an image is nearest to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from train.config import InputError
from train.model import Model, Tokenizer

BATCH_SIZE = 256


def embed_images(model: Model, images: Iterable[Image.Image]) -> torch.Tensor:
    """Normalized embeddings, fp32 on the CPU, shape (images, dim). One batch of images is in memory at a time."""
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return _embed(model, model.encode_image, torch.stack, map(preprocess, images))


def embed_classes(model: Model, tokenizer: Tokenizer, class_prompts: Sequence[Sequence[str]]) -> torch.Tensor:
    """Per class the mean of its prompts' normalized embeddings, normalized (CLIP, section 3.1.4). fp32 on the CPU, shape (classes, dim)."""
    prompts = _embed(model, model.encode_text, tokenizer, chain.from_iterable(class_prompts))
    means = [of_class.mean(dim=0) for of_class in prompts.split([len(of_class) for of_class in class_prompts])]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def _embed(model: Model, encode: Any, prepare: Callable[[list[Any]], torch.Tensor], items: Iterator[Any]) -> torch.Tensor:
    found = []
    while batch := list(islice(items, BATCH_SIZE)):
        found.append(encode(prepare(batch).to(model.logit_scale.device), normalize=True).float().cpu())
    return torch.cat(found)


def accuracy_per_class(images: torch.Tensor, labels: Sequence[int], classes: torch.Tensor) -> np.ndarray:
    """Share of each class's images whose nearest class is their own, the first of equally near ones; NaN for a class without images.

    ``images`` (images, dim) and ``classes`` (classes, dim): embeddings; ``labels``: class index per image. float64, shape (classes,).
    """
    truth = np.asarray(labels, dtype=np.int64)
    right = (images @ classes.T).argmax(dim=1).numpy() == truth
    with np.errstate(invalid="ignore"):
        return np.bincount(truth[right], minlength=len(classes)) / np.bincount(truth, minlength=len(classes))


def evaluate(model: Model, tokenizer: Tokenizer, images: str, prompts: str) -> dict[str, dict[str, Any]]:
    """For each language: ``accuracy`` over all images, and ``per_class`` (None for a class without images).

    ``images``: a folder of folders named 0, 1, … by class. ``prompts``: a JSON file {language: [[prompt of class 0, …], …]}, or
    {language: {"names": [name of class 0, …], "templates": ["a photo of a {}.", …]}}.

    Raises InputError: no image, or a class without prompts.
    """
    folders = sorted((f for f in Path(images).glob("*") if f.name.isdecimal()), key=lambda folder: int(folder.name))
    files = [(int(folder.name), file) for folder in folders for file in sorted(folder.iterdir())]
    if not files:
        raise InputError(f"no image in {images}: it must hold a folder per class, named 0, 1, …")
    labels, training, out = [label for label, _ in files], model.training, {}
    model.eval()
    embeddings = embed_images(model, (_open_image(file) for _, file in files))
    for language, given in json.loads(Path(prompts).read_text(encoding="utf-8")).items():
        if isinstance(given, dict):
            given = [[template.format(name) for template in given["templates"]] for name in given["names"]]
        if not all(given) or len(given) <= labels[-1]:
            raise InputError(f"{prompts}: {language} needs prompts for each of the {labels[-1] + 1} classes in {images}")
        per_class = accuracy_per_class(embeddings, labels, embed_classes(model, tokenizer, given))
        accuracy = float(np.mean(per_class[labels]))
        out[language] = {"accuracy": accuracy, "per_class": [None if np.isnan(a) else float(a) for a in per_class]}
    model.train(training)
    return out


def _open_image(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="Zero-shot classification with a model.")
    parser.add_argument("--model", required=True, help="folder that the trainer wrote (its --output), or a name of open_clip's")
    parser.add_argument("--pretrained", help="with a name: a file of weights, such as a checkpoint, or a name of published ones")
    parser.add_argument("--images", required=True, help="folder of folders named 0, 1, … by class")
    parser.add_argument("--prompts", required=True, help="JSON: {language: [[prompt, …] per class]} or {language: {names, templates}}")
    parser.add_argument("--output", help="also write the result to this JSON file")
    arguments = parser.parse_args()
    name = f"local-dir:{arguments.model}" if Path(arguments.model).is_dir() else arguments.model
    try:
        model = open_clip.create_model(name, arguments.pretrained, require_pretrained=True)
        result = json.dumps(evaluate(model, open_clip.get_tokenizer(name), arguments.images, arguments.prompts), indent=2)
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(2, f"error: {error}\n")
    print(result)
    if arguments.output:
        Path(arguments.output).write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
