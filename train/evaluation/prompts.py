"""What stands for a class, per language: its names, in templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip

from train.config import InputError
from train.evaluation.layouts import Classes, read_lines, reading

#: In place of a file: what comes with open_clip.
IMAGENET = {"names": list(open_clip.IMAGENET_CLASSNAMES), "templates": [fill("{}") for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]}


class Prompts(NamedTuple):
    """Of the classes of one language: the names of each by its number, ascending, and the templates, with ``{}`` in the place of a name."""

    names: dict[int, list[str]]
    templates: list[str]

    def of_classes(self) -> list[list[str]]:
        return [[template.replace("{}", name) for name in names for template in self.templates] for names in self.names.values()]


def read_prompts(task: Classes, classes: Sequence[str]) -> tuple[np.ndarray, dict[str, Prompts]]:
    """Numbers of the images' classes, int64 (images,), and the prompts of each language that the task wants.

    ``classes``: of each image what the data call its class: a number, or a name; names are numbered in their order, as ImageNet's are.
    Raises InputError: a class without a name, a language without templates.
    """
    numbered = all(name.isdecimal() for name in classes)
    called = [] if numbered else sorted(set(classes))
    count = max(map(int, classes)) + 1 if numbered else len(called)
    if numbered and not task.names:
        raise InputError("the classes are numbers: give the file with their `names`")
    names = _per_language(task, "names") if task.names else {task.language: [name.replace("_", " ") for name in called]}
    templates = _per_language(task, "templates") if task.templates else {language: ["{}"] for language in names}
    found = {}
    for language, given in task.wanted(names).items():
        with reading(f"{task.names}, {language},"):
            if len(given) == 2 and all(isinstance(number, int) for number in given[0]):  # Babel-ImageNet: some of the classes
                of_classes = {number: [str(name)] for number, name in sorted(zip(*given, strict=True))}
                complete = min(of_classes) >= 0 and max(of_classes) < count
            else:
                of_classes = {i: [name] if isinstance(name, str) else [*map(str, name)] for i, name in enumerate(given)}
                complete = all(of_classes.values()) and (len(given) == count or (numbered and len(given) > count))
        if not complete:
            raise InputError(f"{task.names}, {language}: there must be a name for each of the {count} classes, not for {len(of_classes)}")
        around = [template.replace("{c}", "{}") for template in templates.get(language, [])]
        if not around or not all("{}" in template for template in around):
            raise InputError(f"{task.templates}, {language}: there must be templates, each with {{}} in the place of the name")
        found[language] = Prompts(of_classes, around)
    return np.array([*map(int, classes)]) if numbered else np.searchsorted(called, classes), found


def _per_language(task: Classes, key: str) -> dict[str, list[Any]]:
    source: str = getattr(task, key)
    if source == "imagenet":
        return {"en": IMAGENET[key]}
    if not source.endswith(".json"):
        return {task.language: read_lines(source)}
    with reading(source):
        return dict(json.loads(Path(source).read_bytes()))
