"""Texts → their languages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import fasttext
import pytest

from balancing.fasttext_batch import BatchModel
from balancing.fasttext_file import read_model
from balancing.lid import embedded_model
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare, long_benchmark
from tests.world.models import SOFTMAX, write_model


def both_ways(name: str, path: Path, texts: Sequence[str], *, command: str, model: str = "", within: float = 1e-6) -> Row:
    """The library a text at a time, and in batches."""
    library = fasttext.load_model(str(path)).f
    ours = BatchModel(read_model(path))
    about = f"{len(texts):,} distinct texts, {sum(map(len, texts)) / len(texts):.0f} characters each{model}"
    return compare(
        name,
        "texts/s",
        amount=len(texts),
        fast=lambda: ours.predict(texts),
        naive=lambda: [library.predict(text + "\n", 1, 0.0, "strict")[0] for text in texts],
        fast_result=lambda found: ([ours.labels[i] for i in found[0].tolist()], found[1].tolist()),
        naive_result=lambda found: (
            [label.removeprefix("__label__") for _, label in found],
            pytest.approx([min(score, 1.0) for score, _ in found], rel=0, abs=within),
        ),
        input=f"{about}; naive: fasttext, a text at a time",
        command=command,
    )


@benchmark
def lid(material: Material) -> Iterator[Row]:
    """Distinct texts of pages, and captions of four languages, by the embedded model."""
    for name, texts in {"lid_pages": list(dict.fromkeys(material.alternative_texts)), "lid_captions": material.texts}.items():
        yield both_ways(name, embedded_model(), texts, command="lid")


@long_benchmark
def lid_large(material: Material) -> Iterator[Row]:
    """Models of random numbers in the shape of those that are not embedded: lid.176.bin, and GlotLID with a tenth of its rows."""
    texts = list(dict.fromkeys(material.alternative_texts))
    words = ["</s>", *dict.fromkeys(word for text in texts for word in text.split())]
    path = material.folder / "model.bin"
    n = material.size.entries
    write_model(path, dim=16, bucket=4 * n, words=words, n_labels=176)
    yield both_ways("lid_dense", path, texts, command="lid_large", model=f"; {4 * n:,} buckets of 16 columns, 176 labels in a tree")
    write_model(path, loss=SOFTMAX, dim=256, maxn=5, bucket=n // 5, words=words, n_labels=2_102)
    about = f"; {n // 5:,} buckets of 256 columns, 2,102 labels"
    yield both_ways("lid_wide", path, texts[:2_000], command="lid_large", model=about, within=1e-4)
    path.unlink()
