"""fastText model files, version 12 → the arrays that a prediction is made of. Nothing in them is executed, and no size is believed that the
file does not have.

Layout (little endian): magic and version; 12 int32 and a double of training arguments; the dictionary (counts, words ended by NUL, how
often each occurred, word or label, and which n-gram buckets a pruned model kept); the input matrix (a row per word and per bucket); the
output matrix (a row per label, or per inner node of the tree of labels). Either matrix may be quantized: a code of a byte for every few
columns of a row, and perhaps one for its norm. Source of these facts: the fastText library, MIT.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: The magic number and the version of the files that are read here.
MAGIC = struct.pack("<ii", 793_712_314, 12)
LABEL_PREFIX = b"__label__"
#: Names of ``loss`` in the file.
LOSSES = {1: "hierarchical softmax", 2: "negative sampling", 3: "softmax", 4: "one vs all"}

#: More than all labels occurred together: what the library gives to a node of the tree of labels that is not made yet.
MOST_COUNTED = 10**15

_SUPERVISED = 3
_CENTROIDS = 256
#: A quantized matrix is expanded to float32, and the buckets of a pruned model to a table: not where these would be larger than this.
_MAX_EXPANDED = 1 << 30
_ARGUMENTS = ["dim", "window", "epochs", "min_count", "negatives", "word_ngrams", "loss", "model", "bucket", "minn", "maxn", "rate"]


class UnsupportedModelError(ValueError):
    """The file may be well, but it is of a kind that is not evaluated here; the message says which."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What a file holds.

    ``words``: the dictionary, labels last. ``label_counts``: how often each label occurred. ``bucket``, ``minn``, ``maxn``: number of
    buckets, and lengths of the n-grams that are hashed into them (``maxn`` 0: none). ``kept``: row of each bucket, -1 for one that was
    pruned away, shape (bucket,); None where bucket b has row ``n_words + b``. ``input``: rows of ``dim`` float32, as bytes of shape (rows,
    4 dim), since they may stand in the file at any address. ``output``: float32 of shape (labels, dim).
    """

    loss: str
    dim: int
    bucket: int
    minn: int
    maxn: int
    words: Sequence[bytes]
    label_counts: Sequence[int]
    kept: np.ndarray | None
    input: np.ndarray
    output: np.ndarray

    @property
    def n_words(self) -> int:
        return len(self.words) - len(self.label_counts)

    @property
    def labels(self) -> list[str]:
        return [label.decode().removeprefix(LABEL_PREFIX.decode()) for label in self.words[self.n_words :]]


class _Reader:
    """Reads from a mapped file front to back; a read beyond its end is a ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def fields(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return found

    def array(self, kind: str, n: int) -> np.ndarray:
        if n < 0:
            raise ValueError(f"an array of {n} numbers")
        dtype = np.dtype(kind)
        # frombuffer takes no empty array at the end of a file.
        found = np.frombuffer(self._data, dtype, n, self._at) if n else np.zeros(0, dtype)
        self._at += n * dtype.itemsize
        return found

    def word(self) -> bytes:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ValueError("a word does not end")
        found = self._data[self._at : end]
        self._at = end + 1
        return found


def _centroids(reader: _Reader) -> tuple[np.ndarray, int]:
    """A product quantizer: what each code stands for in each column, float32 of shape (256, dim), and how many columns share a code; the
    last code may have fewer."""
    dim, parts, width, last = reader.fields("4i")
    if not (dim >= 1 and width >= 1 and parts == -(-dim // width) and last == dim - width * (parts - 1)):
        raise ValueError(f"a quantizer of {parts} parts for {dim} columns")
    flat = reader.array("<f4", dim * _CENTROIDS)
    cuts = np.arange(width, dim, width) * _CENTROIDS
    return np.concatenate([part.reshape(_CENTROIDS, -1) for part in np.split(flat, cuts)], axis=1), width


def _quantized_matrix(reader: _Reader) -> np.ndarray:
    has_norms, rows, dim, size = reader.fields("?qqi")
    if rows < 0 or dim < 1 or 4 * rows * dim > _MAX_EXPANDED:
        raise UnsupportedModelError(f"its quantized matrix has {rows:,} rows of {dim:,}")
    codes = reader.array("u1", size)
    centroids, width = _centroids(reader)
    parts = -(-dim // width)
    if centroids.shape[1] != dim or size != rows * parts:
        raise ValueError(f"{size} codes for {rows} rows of {dim}")
    matrix = np.empty((rows, dim), np.float32)
    for column in range(dim):
        matrix[:, column] = centroids[:, column].take(codes[column // width :: parts])
    if has_norms:
        norms = reader.array("u1", rows)
        matrix *= _centroids(reader)[0][:, 0].take(norms)[:, None]
    return matrix


def _matrix(reader: _Reader, *, quantized: bool) -> np.ndarray:
    """A matrix as bytes, (rows, 4 dim): in the file itself where it is stored as it is."""
    if quantized:
        return _quantized_matrix(reader).view(np.uint8)
    rows, dim = reader.fields("qq")
    if rows < 0 or dim < 1:
        raise ValueError(f"a matrix of {rows} rows of {dim}")
    return reader.array("u1", rows * 4 * dim).reshape(rows, 4 * dim)


def _read(reader: _Reader) -> ModelFile:
    if reader.fields("8s") != (MAGIC,):
        raise ValueError("no fastText model of version 12")
    arguments = dict(zip(_ARGUMENTS, reader.fields("12i"), strict=True))
    reader.fields("d")
    if arguments["model"] != _SUPERVISED:
        raise UnsupportedModelError("it is no classifier")
    if arguments["word_ngrams"] > 1:
        raise UnsupportedModelError("it looks at pairs of words")

    n_entries, n_words, n_labels, _, n_kept = reader.fields("3i2q")
    if not 0 <= n_words <= n_entries or n_labels < 1 or n_words + n_labels != n_entries:
        raise ValueError(f"a dictionary of {n_entries} entries, {n_words} words and {n_labels} labels")
    words, counts = [], []
    for entry in range(n_entries):
        words.append(reader.word())
        count, kind = reader.fields("qb")
        counts.append(count)
        if kind != (entry >= n_words):
            raise UnsupportedModelError("labels stand among the words of its dictionary")

    if min(counts[n_words:]) < 0 or sum(counts[n_words:]) >= MOST_COUNTED:
        raise ValueError("its labels occurred impossibly often")

    bucket = arguments["bucket"]
    if not 0 <= 4 * bucket <= _MAX_EXPANDED:
        raise UnsupportedModelError(f"it has {bucket:,} buckets")
    kept = None
    if n_kept >= 0:
        pairs = reader.array("<i4", 2 * n_kept).reshape(-1, 2)
        if pairs.min(initial=0) < 0:
            raise ValueError("a bucket or a row below 0")
        kept = np.full(bucket, -1, np.int32)
        kept[pairs[:, 0]] = pairs[:, 1] + n_words

    (quantized,) = reader.fields("?")
    rows = _matrix(reader, quantized=quantized)
    (quantized_output,) = reader.fields("?")
    output = _matrix(reader, quantized=quantized and quantized_output)
    needed = n_words + bucket if kept is None else int(kept.max(initial=n_words - 1)) + 1
    if rows.shape[1] != 4 * arguments["dim"] or len(rows) < needed or output.shape != (n_labels, rows.shape[1]):
        raise ValueError(f"matrices of {rows.shape} and {output.shape} bytes for {needed} rows and {n_labels} labels of {arguments['dim']}")
    return ModelFile(
        loss=LOSSES.get(arguments["loss"], "unknown"),
        dim=arguments["dim"],
        bucket=bucket,
        minn=arguments["minn"],
        maxn=arguments["maxn"],
        words=words,
        label_counts=counts[n_words:],
        kept=kept,
        input=rows,
        output=output.copy().view("<f4"),
    )


def read_model(path: Path) -> ModelFile:
    """Read a model. A dense input matrix stays in the file, mapped: the processes of a machine share its pages.

    Memory: the dictionary, and at most 1 GiB each for an expanded matrix and the table of buckets.

    Raises:
        UnsupportedModelError: see there.
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _read(_Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as error:
            raise ValueError(f"not a whole fastText model: {error}") from error
