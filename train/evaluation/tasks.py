"""What is measured: the files of tasks are read and checked first, then a model embeds their images and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from train.config import InputError
from train.distributed import Ranks
from train.evaluation import metrics
from train.evaluation.embedding import Embedder
from train.evaluation.layouts import AnyLayout, Caption, Captions, Classes, Picture, Question, refuse_too_many
from train.evaluation.prompts import Prompts, read_prompts
from train.model import Model, Tokenizer

#: Texts to their normalized embeddings, fp32, (texts, dim).
Embed = Callable[[Sequence[str]], np.ndarray]
#: Task → language → metric → value.
Result = dict[str, dict[str, dict[str, Any]]]


class Part(NamedTuple):
    """A task in one language.

    ``images``: places of its images among the task's, ascending. ``measure``: metrics from embeddings of all the task's images, (images,
    dim), and the places of those that take part.
    """

    images: np.ndarray
    measure: Callable[[np.ndarray, np.ndarray, Embed], dict[str, Any]]


class Task(NamedTuple):
    """A task of which only the images are still to be read."""

    name: str
    pictures: list[Picture]
    languages: Mapping[str, Part]


def classification(labels: np.ndarray, prompts: Prompts, *, per_class: bool) -> Part:
    """``labels``: int64 (images,), the number of each image's class."""
    numbers = [*prompts.names]

    def measure(images: np.ndarray, chosen: np.ndarray, embed: Embed) -> dict[str, Any]:
        texts = prompts.of_classes()
        classes = metrics.class_embeddings(embed([text for of_class in texts for text in of_class]), [*map(len, texts)])
        figures, shares = metrics.classification(images[chosen], np.searchsorted(numbers, labels[chosen]), classes)
        return {**figures, "per_class": shares} if per_class else figures

    return Part(np.flatnonzero(np.isin(labels, numbers)), measure)


def retrieval(captions: Sequence[Caption]) -> Part:
    image_of = np.array([caption.image for caption in captions])

    def measure(images: np.ndarray, chosen: np.ndarray, embed: Embed) -> dict[str, Any]:
        there = np.isin(image_of, chosen)
        texts = embed([caption.text for caption in captions])[there]
        return metrics.retrieval(images[chosen], texts, np.searchsorted(chosen, image_of[there]))

    return Part(np.unique(image_of), measure)


def multiple_choice(questions: Sequence[Question], template: str) -> Part:
    image_of = np.array([question.image for question in questions])

    def measure(images: np.ndarray, chosen: np.ndarray, embed: Embed) -> dict[str, Any]:
        asked = [question for question, there in zip(questions, np.isin(image_of, chosen), strict=True) if there]
        texts = [template.replace("{question}", q.text).replace("{option}", option) for q in asked for option in q.options]
        counts, answers = [len(q.options) for q in asked], np.array([q.answer for q in asked])
        accuracy = metrics.multiple_choice(images[[q.image for q in asked]], embed(texts), counts, answers)
        return {"accuracy": accuracy, "questions": len(asked)}

    return Part(np.unique(image_of), measure)


def load_task(table: Mapping[str, Any]) -> Task:
    """A task from its table, its files read and checked. Raises InputError, or msgspec's ValidationError."""
    layout = msgspec.convert(table, AnyLayout)
    if isinstance(layout, Classes):
        pictures, classes = map(list, zip(*layout.read(), strict=True))
        labels, prompts = read_prompts(layout, classes)
        parts = {language: classification(labels, given, per_class=layout.per_class) for language, given in prompts.items()}
    elif isinstance(layout, Captions):
        pictures, captions = layout.read()
        parts = {language: retrieval(given) for language, given in layout.wanted(captions).items()}
    else:
        pictures, questions = layout.read()
        parts = {language: multiple_choice(given, layout.template) for language, given in layout.wanted(questions).items()}
    if empty := [language for language, part in parts.items() if not len(part.images)]:
        raise InputError(f"no image in {empty[0]}: `languages` chooses those that are wanted")
    return Task(layout.name, pictures, parts)


def load_tasks(tables: Sequence[Mapping[str, Any]]) -> list[Task]:
    """Tasks from their tables. Raises InputError, which names the task."""
    tasks = dict[str, Task]()
    for number, table in enumerate(tables, 1):
        try:
            task = load_task(table)
            if tasks.setdefault(task.name, task) is not task:
                raise InputError("another task has the same name")
        except (msgspec.ValidationError, InputError) as error:
            raise InputError(f"task {table.get('name', number)}: {error}") from None
    return [*tasks.values()]


def evaluate(model: Model, tokenizer: Tokenizer, tasks: Sequence[Task], ranks: Ranks) -> Result:
    """What was measured, with ``images``: how many took part, and ``excluded``: how many could not be read.

    Every rank calls this, embeds its share and gets the whole. The model is left in the mode it was in. InputError: too many are broken.
    """
    found, training, embedder = Result(), model.training, Embedder(model, tokenizer, ranks)
    model.eval()
    try:
        for task in tasks:
            images, good = embedder.images(task.pictures)
            found[task.name] = {}
            for language, part in task.languages.items():
                chosen = (asked := part.images)[good[asked]]
                broken = len(asked) - len(chosen)
                refuse_too_many(broken, len(asked), f"of the task {task.name}, {language}, are broken; the log names them")
                figures = part.measure(images, chosen, embedder.texts)
                found[task.name][language] = {**figures, "images": len(chosen), "excluded": broken}
    finally:
        model.train(training)
    return found
