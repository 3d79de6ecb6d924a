"""How well embeddings find one another, as pure functions of them.

Near is what has a large cosine. Which of equally near candidates comes first would be an accident of their order, so a hit counts with its
probability over all orders of the equal ones: a model that embeds everything alike gets the figures of chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

#: Cosines that differ by no more are equal: fp32 products of the same two vectors differ by a few 1e-7 with their place in the matrix.
EQUAL = 1e-6


def hit_probabilities(similarities: np.ndarray, relevant: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Probability that one of a query's relevant candidates is among the k nearest; float64, shape (queries, ks).

    ``similarities`` (queries, candidates), -inf for what is no candidate; ``relevant``: boolean, of that shape, at least one in each row.
    With ``ahead`` candidates nearer than the nearest relevant one, and ``wrong`` and ``right`` ones as near as that, the first
    s = k - ahead of the equal ones are all wrong with probability C(wrong, s) / C(wrong + right, s) (hypergeometric).
    """
    best = np.where(relevant, similarities, -np.inf).max(axis=1, keepdims=True)
    ahead = (similarities > best + EQUAL).sum(axis=1)
    equal = np.abs(similarities - best) <= EQUAL
    right = (equal & relevant).sum(axis=1)
    wrong = equal.sum(axis=1) - right
    missed = np.ones((len(ks), len(similarities)))
    for row, k in zip(missed, ks, strict=True):
        for i in range(k):
            row *= np.where(i < k - ahead, np.maximum(wrong - i, 0) / np.maximum(wrong + right - i, 1), 1)
    return (1 - missed.T) * (right > 0)[:, None]  # what is not a number is near nothing


def hits(queries: np.ndarray, candidates: np.ndarray, wanted: np.ndarray, labels: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """The same from normalized embeddings (n, dim). A candidate is relevant to a query if its label is the one that the query wants."""
    blocks = [slice(start, start + 1024) for start in range(0, len(queries), 1024)]  # the whole matrix may be too large
    found = [hit_probabilities(queries[rows] @ candidates.T, wanted[rows, None] == labels, ks) for rows in blocks]
    return np.concatenate(found)


def class_embeddings(prompts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Per class the mean of its prompts' normalized embeddings, normalized (CLIP, arXiv 2103.00020, section 3.1.4); (classes, dim).

    ``prompts`` (prompts, dim), those of a class behind one another; ``counts``: how many each class has, at least one.
    """
    sums = np.add.reduceat(prompts, np.cumsum([0, *counts[:-1]]), axis=0)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def classification(images: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> tuple[dict[str, float], list[float | None]]:
    """``accuracy``, ``accuracy@5`` of more than five classes, ``mean_class_accuracy``; and each class's accuracy, None if it has no image.

    ``images`` (images, dim) and ``classes`` (classes, dim): normalized embeddings; ``labels``: int64 (images,), each image's class.
    """
    ks = [1, 5] if len(classes) > 5 else [1]
    found = hits(images, classes, labels, np.arange(len(classes)), ks)
    right, images_of = np.bincount(labels, found[:, 0], len(classes)), np.bincount(labels, minlength=len(classes))
    per_class = [hit / n if n else None for hit, n in zip(right.tolist(), images_of.tolist(), strict=True)]
    figures = dict(zip(["accuracy", "accuracy@5"], found.mean(axis=0).tolist(), strict=False))
    return {**figures, "mean_class_accuracy": fmean(share for share in per_class if share is not None)}, per_class


def retrieval(images: np.ndarray, texts: np.ndarray, image_of: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall@k: the share of images with one of their texts among the k nearest, and of texts with their image among the k nearest.

    ``images`` (images, dim) and ``texts`` (texts, dim): normalized embeddings; ``image_of``: int64 (texts,), each text's image.
    """
    numbers = np.arange(len(images))
    ways = {"image_to_text": (images, texts, numbers, image_of), "text_to_image": (texts, images, image_of, numbers)}
    return {f"{way}@{k}": value for way, given in ways.items() for k, value in zip(ks, hits(*given, ks).mean(axis=0).tolist(), strict=True)}


def multiple_choice(images: np.ndarray, options: np.ndarray, counts: Sequence[int], answers: np.ndarray) -> float:
    """The share of questions whose right option is nearest to their image.

    ``images`` (questions, dim) and ``options`` (options, dim): normalized embeddings, the options of a question behind one another;
    ``counts``: how many each question has; ``answers``: int64 (questions,), the number of the right one among them.
    """
    places = np.arange(max(counts))
    there = places < np.asarray(counts)[:, None]
    similarities = np.full(there.shape, -np.inf, dtype=np.float32)
    similarities[there] = np.einsum("nd,nd->n", np.repeat(images, counts, axis=0), options)
    return float(hit_probabilities(similarities, places == answers[:, None], [1]).mean())
