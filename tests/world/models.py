"""fastText models of random numbers, in the library's file format."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: Values of ``loss`` in the file.
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
WORDS = ["</s>", "a", "the", "dog", "Hund", "собака", "犬", "é", "😀", "of", "__label__"]


def write_model(
    path: Path,
    *,
    loss: int = HIERARCHICAL,
    dim: int = 6,
    minn: int = 2,
    maxn: int = 4,
    bucket: int = 300,
    words: Sequence[str] = WORDS,
    n_labels: int = 9,
    kept: float | None = None,
    width: int = 0,
    norms: bool = False,
    quantized_output: bool = False,
    word_ngrams: int = 1,
    classifier: bool = True,
) -> Path:
    """A model of random numbers in the library's format. ``kept``: the share of buckets that was not pruned away; ``width``: columns that
    share a code of a quantized matrix, 0 for numbers as they are."""
    rng = np.random.default_rng(7)
    file = [struct.pack("<ii", 793_712_314, 12)]
    file.append(struct.pack("<12id", dim, 5, 5, 1, 5, word_ngrams, loss, 3 if classifier else 2, bucket, minn, maxn, 100, 1e-4))
    labels = [f"__label__{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(n_labels)]
    rows_kept = rng.permutation(bucket)[: int(bucket * kept)] if kept is not None else None
    sizes = len(words) + n_labels, len(words), n_labels, 1_000, -1 if rows_kept is None else len(rows_kept)
    file.append(struct.pack("<3i2q", *sizes))
    for place, entry in enumerate([*words, *labels]):
        # Many counts are alike, so the tree of labels is made with ties.
        file.append(entry.encode() + b"\0" + struct.pack("<qb", 10_000 >> (place % 7), place >= len(words)))
    if rows_kept is not None:
        file.append(np.stack([rows_kept, rng.permutation(len(rows_kept))], axis=1).astype("<i4").tobytes())
    n_rows = len(words) + (bucket if rows_kept is None else len(rows_kept))

    def quantizer(columns: int, width: int, low: float) -> bytes:
        parts = -(-columns // width)
        head = struct.pack("<4i", columns, parts, width, columns - width * (parts - 1))
        return head + rng.uniform(low, 1.5, 256 * columns).astype("<f4").tobytes()

    def matrix(n_rows: int, quantized: bool) -> bytes:
        if not quantized:
            return struct.pack("<2q", n_rows, dim) + rng.normal(size=(n_rows, dim)).astype("<f4").tobytes()
        codes = rng.integers(256, size=n_rows * -(-dim // width), dtype=np.uint8)
        stored = struct.pack("<?2qi", norms, n_rows, dim, len(codes)) + codes.tobytes() + quantizer(dim, width, -1.5)
        return stored + (rng.integers(256, size=n_rows, dtype=np.uint8).tobytes() + quantizer(1, 1, 0.5) if norms else b"")

    file += [struct.pack("?", width > 0), matrix(n_rows, width > 0)]
    file += [struct.pack("?", quantized_output), matrix(n_labels, width > 0 and quantized_output)]
    path.write_bytes(b"".join(file))
    return path
