from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.metrics import EQUAL, class_embeddings, classification, hit_probabilities, hits, multiple_choice, retrieval


def by_trying_all_orders(similarities: list[int], relevant: list[bool], k: int) -> Fraction:
    """The share of the orders of the candidates, of those that put the nearest first, in which a relevant one is among the first k."""
    orders = [order for order in permutations(range(len(similarities))) if sorted(similarities)[::-1] == [similarities[i] for i in order]]
    return Fraction(sum(any(relevant[i] for i in order[:k]) for order in orders), len(orders))


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.integers(1, 7))
def test_a_hit_is_as_probable_as_among_all_orders_of_the_equal_ones(candidates: list[tuple[int, bool]], k: int) -> None:
    similarities, relevant = map(list, zip(*candidates, strict=True))
    relevant[0] = True
    found = hit_probabilities(np.array([similarities], dtype=np.float32), np.array([relevant]), [k])
    assert found.tolist() == [[pytest.approx(float(by_trying_all_orders(similarities, relevant, k)), abs=1e-12)]]


def test_what_is_certain_is_exact_and_what_is_almost_equal_is_equal() -> None:
    similarities = np.array([[0.5, 0.7, 0.6], [0.5, 0.5 + EQUAL / 2, 0.1], [0.5, 0.5 + EQUAL * 2, 0.1]])
    relevant = np.array([[True, False, False]] * 3)
    assert hit_probabilities(similarities, relevant, [1, 2, 3]).tolist() == [[0, 0, 1], [0.5, 1, 1], [0, 1, 1]]


def test_what_is_not_a_number_is_no_hit() -> None:
    relevant = np.array([[True, False], [True, False], [False, True]])
    similarities = np.array([[np.nan, np.nan], [0.5, np.nan], [0.5, np.nan]], dtype=np.float32)
    assert hit_probabilities(similarities, relevant, [1]).tolist() == [[0], [1], [0]]


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_hits_do_not_depend_on_the_blocks_in_which_they_are_counted() -> None:
    rng = np.random.default_rng(1)
    queries, candidates, wanted, labels = unit(rng, 2100, 8), unit(rng, 30, 8), rng.integers(0, 10, 2100), np.arange(30) % 10
    nearest = np.argsort(-(queries.astype(np.float64) @ candidates.T.astype(np.float64)), axis=1)
    expected = [[float(label in labels[order[:k]]) for k in (1, 4)] for order, label in zip(nearest, wanted, strict=True)]
    assert hits(queries, candidates, wanted, labels, [1, 4]).tolist() == expected


def test_classification_against_a_loop() -> None:
    rng = np.random.default_rng(3)
    images, classes, labels = unit(rng, 50, 6), unit(rng, 8, 6), rng.integers(0, 7, 50)  # the last class has no image
    order = [sorted(range(8), key=lambda c: -float(image @ classes[c])) for image in images]
    right = [order[i][0] == labels[i] for i in range(50)]
    per_class = [float(np.mean([right[i] for i in range(50) if labels[i] == c])) for c in range(7)]
    figures, shares = classification(images, labels, classes)
    assert shares == [*map(pytest.approx, per_class), None]
    assert figures == {
        "accuracy": pytest.approx(np.mean(right)),
        "accuracy@5": pytest.approx(np.mean([labels[i] in order[i][:5] for i in range(50)])),
        "mean_class_accuracy": pytest.approx(np.mean(per_class)),
    }
    assert 0 < figures["accuracy"] < figures["accuracy@5"] < 1


def test_a_model_that_embeds_everything_alike_has_the_figures_of_chance() -> None:
    same = np.ones((20, 4), dtype=np.float32) / 2
    labels = np.array([0] * 15 + [1] * 5)
    assert classification(same, labels, same[:4]) == ({"accuracy": 0.25, "mean_class_accuracy": 0.25}, [0.25, 0.25, None, None])
    assert retrieval(same, same, np.arange(20), [1, 5]) == pytest.approx(
        {"image_to_text@1": 0.05, "image_to_text@5": 0.25, "text_to_image@1": 0.05, "text_to_image@5": 0.25}
    )
    assert multiple_choice(same[:2], same[:6], [2, 4], np.array([1, 0])) == 0.375


def test_retrieval_with_several_texts_per_image_against_a_loop() -> None:
    rng = np.random.default_rng(5)
    images, image_of = unit(rng, 12, 5), rng.permutation(np.r_[np.arange(12), rng.integers(0, 12, 20)])
    texts = unit(rng, 32, 5) + images[image_of]
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    expected = {}
    for k in (1, 5, 10):
        of_image = [any(image_of[t] == i for t in np.argsort(-(texts @ images[i]))[:k]) for i in range(12)]
        of_text = [image_of[t] in np.argsort(-(images @ texts[t]))[:k] for t in range(32)]
        expected |= {f"image_to_text@{k}": np.mean(of_image), f"text_to_image@{k}": np.mean(of_text)}
    found = retrieval(images, texts, image_of)
    assert found == pytest.approx(expected)
    assert 0 < found["text_to_image@1"] < found["text_to_image@5"] < 1


def test_multiple_choice_with_uneven_options_against_a_loop() -> None:
    rng = np.random.default_rng(6)
    counts = [2, 4, 3, 2, 5, 4, 2, 3] * 5
    images, options = unit(rng, 40, 5), unit(rng, sum(counts), 5)
    answers = np.array([int(rng.integers(n)) for n in counts])
    starts = np.cumsum([0, *counts])
    right = [int(np.argmax(options[starts[i] : starts[i + 1]] @ images[i])) == answers[i] for i in range(40)]
    assert multiple_choice(images, options, counts, answers) == np.mean(right)
    assert 0 < sum(right) < 40


def test_classes_are_embedded_as_open_clip_does_it() -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        8, {"image_size": 8, "patch_size": 4, "width": 8, "head_width": 8, "layers": 1}, {"width": 8, "heads": 1, "layers": 1}
    )
    words, templates = ["cat", "собака", "猫"], ["a photo of a {}.", "{}!"]
    tokenize = open_clip.SimpleTokenizer()
    with torch.no_grad():
        prompts = model.encode_text(tokenize([t.format(w) for w in words for t in templates]), normalize=True).numpy()
    expected = open_clip.build_zero_shot_classifier(model, tokenize, words, templates).T.numpy()
    np.testing.assert_allclose(class_embeddings(prompts, [2, 2, 2]), expected, rtol=1e-5, atol=1e-6)
    uneven = class_embeddings(prompts, [3, 1, 2])
    np.testing.assert_allclose(uneven[1], prompts[3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(uneven, axis=1), 1, rtol=1e-6)
