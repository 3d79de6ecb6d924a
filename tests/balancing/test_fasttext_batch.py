"""The evaluation in batches against the library, which reads the same file and takes a text at a time."""

from __future__ import annotations

import contextlib
import gzip
import heapq
import os
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from balancing import fasttext_batch, fasttext_output
from balancing.fasttext_batch import BatchModel, before_the_end, split, sum_runs
from balancing.fasttext_file import UnsupportedModelError, read_model
from balancing.fasttext_output import Products, huffman
from balancing.lid import BatchIdentifier, FastTextIdentifier, check_agreement, embedded_model, load_lid
from metadata.tally import Tally
from metadata.wikitext import read_pages
from tests.world.models import NEGATIVE, ONE_VS_ALL, SOFTMAX, WORDS, write_model

KINDS: dict[str, dict[str, Any]] = {
    "tree": {},
    "softmax": {"loss": SOFTMAX},
    "pruned, quantized": {"kept": 0.4, "width": 2, "norms": True},
    "quantized": {"width": 4, "dim": 9, "quantized_output": True},
    "quantized softmax": {"width": 5, "dim": 9, "kept": 0.1, "loss": SOFTMAX},
    "all n-grams pruned away": {"kept": 0.0, "width": 2},
    "single characters": {"minn": 1, "maxn": 3},
    "n-grams of no least length": {"minn": 0, "maxn": 2},
    "long n-grams": {"minn": 3, "maxn": 6, "n_labels": 2},
    "words only": {"minn": 0, "maxn": 0, "bucket": 0},
    "no words": {"words": []},
    "nothing at all": {"words": [], "minn": 0, "maxn": 0, "bucket": 0, "loss": SOFTMAX},
    "no end of line": {"words": WORDS[1:], "minn": 0, "maxn": 0, "bucket": 0},
    "many labels": {"n_labels": 300, "dim": 20},
    "many columns": {"dim": 256, "loss": SOFTMAX, "n_labels": 60},
}


Models = tuple[BatchIdentifier, FastTextIdentifier]


def both(path: Path) -> Models:
    about = {"family": "lid.176", "checksum": ""}
    return BatchIdentifier(BatchModel(read_model(path)), **about), FastTextIdentifier(fasttext.load_model(str(path)), **about)


def assert_same(models: Models, texts: Sequence[str], *, within: float = 1e-6) -> int:
    """Labels are the library's, and scores almost. Returns the number of near ties: texts whose two best labels lie so close to each other
    that either is right."""
    (labels, scores), (expected, expected_scores) = models[0].identify(texts), models[1].identify(texts)
    assert (scores.dtype, scores.shape, len(labels)) == (np.float32, (len(texts),), len(texts))
    far = np.flatnonzero(np.abs(scores - expected_scores) > within)
    assert [(texts[i][:50], labels[i], scores[i], expected_scores[i]) for i in far] == []
    differing = [i for i, (a, b) in enumerate(zip(labels, expected, strict=True)) if a != b]
    for i in differing:
        (best, _), (second, label) = models[1]._model.f.predict(texts[i] + "\n", 2, 0.0, "strict")
        assert (label.removeprefix("__label__"), best - second <= within) == (labels[i], True), (texts[i][:50], labels[i], expected[i])
    return len(differing)


@pytest.fixture(scope="module")
def embedded() -> Models:
    return both(embedded_model())


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return both(write_model(tmp_path_factory.mktemp("model") / "model.bin", **KINDS[request.param]))


SPECIAL = [
    *" \0\t\r\v\f\x0b<>_",
    "</s>",
    "__label__",
    "__label__aa",
    "__label__en",
    "\u0301",
    "\u200d",
    "👩‍👩‍👧",
    "\ufffd",
    "\U0010ffff",
    "\x85",
    "\xa0",
]
CHARACTERS = st.characters(exclude_characters="\n", exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=40),
    st.lists(st.one_of(st.sampled_from([*SPECIAL, *WORDS]), st.text(CHARACTERS, max_size=5)), max_size=12).map("".join),
    st.lists(st.sampled_from([*WORDS, "dogs", "</s>", "__label__ab", "xyz"]), max_size=12).map(" ".join),
)
HOSTILE = [
    *("", " ", "\0", "!", "<", ">", "</s>", "a </s> b", "</s> a", "a</s>", "</s></s>", "__label__aa", "x __label__zz y", "__label_"),
    *("x" * 10_000, "x " * 5_000, "犬" * 10_000, "👩‍👩‍👧" * 1_500, "e" + "\u0301" * 3_000, "\0".join("abc"), "a\r\tb\vc\fd", "\U0010ffff"),
]


@given(st.lists(TEXTS, max_size=20))
@example(HOSTILE)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_kind_of_model_gives_the_answers_of_the_library(kind: Models, texts: list[str]) -> None:
    # The library is off by a few millionths where it adds up 256 columns of such great numbers, one after the other.
    assert_same(kind, texts, within=1e-6 if kind[0]._model._model.dim < 256 else 5e-6)


@given(st.lists(TEXTS, max_size=30))
@example(HOSTILE)
@settings(max_examples=300)
def test_the_embedded_model_gives_the_answers_of_the_library(embedded: Models, texts: list[str]) -> None:
    assert assert_same(embedded, texts) == 0


def test_captions_get_the_answers_of_the_library(embedded: Models, shared_data: Path) -> None:
    texts: dict[str, None] = {}
    for path in sorted((shared_data / "captions").glob("*.gz")):
        if "images" not in path.name:
            texts.update(dict.fromkeys(gzip.decompress(path.read_bytes()).decode().split("\n")))
    assert len(texts) > 120_000
    assert assert_same(embedded, list(texts)) == 0


def test_titles_and_lines_of_all_languages_get_the_answers_of_the_library(embedded: Models, shared_data: Path) -> None:
    dumps = sorted((shared_data / "dumps").glob("*wiki-mini.xml.bz2"))
    assert len(dumps) > 100
    texts: dict[str, None] = {}
    for path in dumps:
        with path.open("rb") as file:
            for page in read_pages(file, tally=Tally()):
                texts.update(dict.fromkeys((page.title, *page.text.split("\n"))))
    assert assert_same(embedded, list(texts)) == 0


# -- what a text gets does not depend on the texts beside it -------------------------------------------------------------------------


@given(st.lists(TEXTS, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_gets_the_same_bits_in_any_batch(kind: Models, texts: list[str], rng: random.Random) -> None:
    labels, scores = kind[0].identify(texts)
    alone = [kind[0].identify([text]) for text in texts]
    assert ([a for (a,), _ in alone], [s.tolist() for _, s in alone]) == (labels, [[s] for s in scores.tolist()])
    order = rng.sample(range(len(texts)), len(texts)) + [rng.randrange(len(texts)) for _ in texts]
    shuffled, shuffled_scores = kind[0].identify([texts[i] for i in order])
    assert (shuffled, shuffled_scores.tobytes()) == ([labels[i] for i in order], scores[order].tobytes())


def test_the_same_bits_over_chunks_tiles_and_runs(embedded: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)  # noqa: S311
    texts = ["".join(rng.choices("abcdefgh äßж犬 ", k=rng.randrange(80))) for _ in range(5_000)]
    labels, scores = embedded[0].identify(texts)
    monkeypatch.setattr(fasttext_batch, "_CHUNK", 16 * 3_000)
    monkeypatch.setattr(fasttext_batch, "_TILE", 1_000)
    monkeypatch.setattr(fasttext_batch, "_ROWS", 16 * 500)
    monkeypatch.setattr(fasttext_output, "_BLAS_TEXTS", 7)
    found, found_scores = embedded[0].identify(texts)
    assert (found, found_scores.tobytes()) == (labels, scores.tobytes())


def test_the_same_bits_in_any_process(embedded: Models) -> None:
    code = """if True:
        import hashlib, sys
        from balancing.lid import load_lid
        labels, scores = load_lid().identify([f"{i} small dogs und große Hunde 犬" for i in range(500)])
        print(hashlib.sha256(repr(labels).encode() + scores.tobytes()).hexdigest())"""
    printed = set()
    for seed in ("0", "7"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": str(1 + int(seed) % 2)}
        root = Path(__file__).resolve().parents[2]
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=environment)
        printed.add(run.stdout)
    assert len(printed) == 1


def test_threads_share_a_model(embedded: Models) -> None:
    batches = [[f"{word} {i}" for i in range(400)] for word in ("dog", "Hund", "犬", "собака")]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(embedded[0].identify, batches * 3))
    for batch, (labels, scores) in zip(batches * 3, found, strict=True):
        alone, alone_scores = embedded[0].identify(batch)
        assert (labels, scores.tobytes()) == (alone, alone_scores.tobytes())


# -- bounds and refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [["x " * 1_000] * 3_000, ["犬" * 2_000] * 1_500, [f"{i:x}" for i in range(300_000)], [""] * 300_000],
    ids=["short words", "long words", "distinct texts", "empty texts"],
)
def test_memory_is_bounded(embedded: Models, texts: list[str]) -> None:
    tracemalloc.start()
    try:
        embedded[0].identify(texts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - 40 * len(texts) < 150 << 20


def test_texts_that_no_line_can_hold_are_refused(embedded: Models) -> None:
    with pytest.raises(ValueError, match="newline"):
        embedded[0].identify(["a", "b\nc"])
    with pytest.raises(ValueError, match="surrogates"):
        embedded[0].identify(["\ud800"])


def test_nothing(embedded: Models) -> None:
    labels, scores = embedded[0].identify([])
    assert (labels, scores.dtype, scores.shape) == ([], np.float32, (0,))


@pytest.mark.parametrize(
    ("kind_of_model", "said"),
    [
        ({"loss": ONE_VS_ALL}, "its loss is one vs all, over 9 labels"),
        ({"loss": NEGATIVE}, "its loss is negative sampling, over 9 labels"),
        ({"word_ngrams": 2}, "it looks at pairs of words"),
    ],
)
def test_other_kinds_of_models_are_left_to_the_library_and_that_is_told(tmp_path: Path, kind_of_model: dict[str, Any], said: str) -> None:
    path = write_model(tmp_path / "model.bin", **kind_of_model)
    lid = load_lid(str(path))
    assert (lid.method, lid.note) == ("library", f"the model {path} is evaluated a text at a time, which takes longer: {said}")
    labels, scores = lid.identify(["a dog"])
    ((score, label),) = fasttext.load_model(str(path)).f.predict("a dog\n", 1, 0.0, "strict")
    assert (labels, scores.tolist()) == ([label.removeprefix("__label__")], [pytest.approx(score)])


def test_a_model_that_is_no_classifier_is_no_concern_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="it is no classifier"):
        read_model(write_model(tmp_path / "model.bin", classifier=False))


def test_answers_that_differ_are_found_when_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "model.bin")
    monkeypatch.setattr(fasttext_batch, "_FNV_PRIME", np.uint32(16_777_621))
    lid = load_lid(str(path))
    assert (lid.method, lid.note.rpartition(": ")[2]) == ("library", "in batches it gives other answers than the library")
    with pytest.raises(UnsupportedModelError):
        check_agreement(both(path)[0], lid)


@pytest.mark.parametrize("name", ["pruned, quantized", "softmax"])
def test_damaged_files_are_errors_not_crashes(name: str, tmp_path: Path) -> None:
    whole = write_model(tmp_path / "model.bin", **KINDS[name]).read_bytes()
    rng = random.Random(11)  # noqa: S311
    path = tmp_path / "damaged.bin"
    read = 0
    for size in [*range(0, 700, 3), *rng.sample(range(len(whole)), 100)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"."):
            read_model(path)
    for at in [*range(0, 700, 3), *rng.sample(range(len(whole)), 100)]:
        path.write_bytes(whole[:at] + rng.randbytes(4) + whole[at + 4 :])
        with contextlib.suppress(ValueError):
            BatchModel(read_model(path)).predict(["a dog", "犬"])
            read += 1
    # Most numbers are weights, and any number is one.
    assert read > 50


# -- the pieces ----------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 700), max_size=30), st.integers(1, 5), st.integers(0, 99))
def test_runs_are_added_up_from_first_to_last(counts: list[int], dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, dim)).astype(np.float32)
    ids = rng.integers(20, size=sum(counts), dtype=np.int32)
    found = sum_runs(rows.view(np.uint8), ids, np.array(counts, np.int64))
    expected = np.zeros((len(counts), dim), np.float32)
    left = iter(ids.tolist())
    for run, n in enumerate(counts):
        for _ in range(n):
            expected[run] += rows[next(left)]
    assert (found.dtype, found.tolist()) == (np.float32, expected.tolist())


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_products_are_those_of_rounded_numbers(dim: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)) * 10.0 ** rng.integers(-6, 6, size=(n, dim))
    rows = rng.normal(size=(m, dim)).astype(np.float32)
    found = Products(rows).of(vectors)
    size = np.abs(rows).max(axis=1)[:, None] * np.abs(vectors).max(axis=1)
    np.testing.assert_array_less(np.abs(found - rows.astype(float) @ vectors.T), dim * size * 2.0**-23)
    for i in range(n):
        assert Products(rows).of(vectors[i : i + 1])[:, 0].tolist() == found[:, i].tolist()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=25))
def test_the_tree_is_a_huffman_tree(counts: list[int]) -> None:
    counts.sort(reverse=True)
    children = huffman(counts)
    n = len(counts)

    def cost(node: int, depth: int) -> int:
        return counts[node] * depth if node < n else sum(cost(child, depth + 1) for child in children[node])

    heap = list(counts)
    heapq.heapify(heap)
    least = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        least += joined
        heapq.heappush(heap, joined)
    assert cost(2 * n - 2, 0) == least
    assert sorted(child for pair in children.values() for child in pair) == list(range(2 * n - 2))


@given(st.lists(st.text(st.sampled_from("ab犬 \t\r\v\f\0\xa0"), max_size=9), max_size=9))
def test_texts_are_split_at_the_separators_of_the_library(texts: list[str]) -> None:
    words, n_words = split(texts)
    expected = [[word for word in re.split("[ \t\r\v\f\0]+", text) if word] for text in texts]
    assert [word.decode() for word in words.to_pylist()] == [word for text in expected for word in text]
    assert n_words.tolist() == [len(text) for text in expected]


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6))
def test_a_text_is_cut_off_before_its_end_mark(texts: list[list[int]]) -> None:
    codes, n_words = np.array([word for text in texts for word in text], np.int64), np.array([len(text) for text in texts], np.int64)
    left, n_left = before_the_end(codes, n_words, 3)
    expected = [text[: text.index(3)] if 3 in text else text for text in texts]
    assert (left.tolist(), n_left.tolist()) == ([word for text in expected for word in text], [len(text) for text in expected])
