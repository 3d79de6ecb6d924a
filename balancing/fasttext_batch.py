"""Predictions of a fastText classifier for many texts at once: the labels and scores that the library gives a text at a time.

What a text is to the model: its words; of each word its row in the dictionary, if it stands there, and the rows of its character n-grams,
hashed into buckets (``<`` and ``>`` mark its borders); the mean of all these rows, and by it a score of every label. Words repeat very
much, so which rows a word has is found out once for each distinct word of a chunk of texts, and for all of these at once.

What a text gets does not depend on the texts beside it: its rows are added in the order of the library, each addition for many texts at
once, and so is all that follows, but for one product: see :mod:`balancing.fasttext_output`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancing.fasttext_file import LABEL_PREFIX, ModelFile, UnsupportedModelError
from balancing.fasttext_output import EPSILON, Softmax, Tree

#: Grows with every change that can change a bit of a score.
BATCH_VERSION = 1

_END = b"</s>"
_SEPARATORS = b" \n\r\t\v\f\0"
#: Characters of the texts of a chunk times columns of the model. A chunk holds one text at least.
_CHUNK = 1 << 24
#: What is worked on at once, so that it stays in a core's cache: scores (texts times labels), or twice as many bytes of words.
_TILE = 1 << 17
#: Rows of texts times columns that are added up together: many, since each further row of the longest text is a step of its own.
_ROWS = 1 << 22
#: Of an n-gram: each length takes room for every character of a tile.
_MAX_CHARACTERS = 32
#: Rows up to which all runs are added up abreast; what longer ones have beyond is added run by run.
_ABREAST = 256
_FNV_BASIS, _FNV_PRIME = np.uint32(2_166_136_261), np.uint32(16_777_619)

_IS_SEPARATOR = np.isin(np.arange(256), list(_SEPARATORS))
#: A byte as the hash takes it: as a signed number.
_SIGNED = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int32).view(np.uint32)
_BORDERS = [pa.scalar(border, pa.binary()) for border in (b"<", b">", b"")]


def sum_runs(rows: np.ndarray, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs of ``rows[ids]``, each run added up from its first to its last, as the library does.

    ``rows``: float32 as bytes, (n, 4 dim). ``counts``: the length of each run, (m,), in all as many as ids. Returns float32, (m, dim).
    Memory: three times the result.
    """
    # The longest runs first: those that have a k-th row are the first so many.
    order = np.argsort(-counts, kind="stable")
    having = len(counts) - np.bincount(counts, minlength=1).cumsum()
    at = (counts.cumsum() - counts)[order]
    sums = np.zeros((len(counts), rows.shape[1] // 4), np.float32)
    for k, n in enumerate(having[:-1][:_ABREAST].tolist()):
        sums[:n] += rows.take(ids.take(at[:n] + k), axis=0).view(np.float32)
    for run in range(having[_ABREAST] if len(having) > _ABREAST else 0):
        first = at[run]
        rest = rows.take(ids[first + _ABREAST : first + counts[order[run]]], axis=0).view(np.float32)
        rest[0] += sums[run]
        sums[run] = rest.cumsum(axis=0, out=rest)[-1]
    result = np.empty_like(sums)
    result[order] = sums
    return result


def _run_sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs of integers: int64, (m,)."""
    total = np.concatenate(([0], values.cumsum()))
    ends = counts.cumsum()
    return total[ends] - total[ends - counts]


class BatchModel:
    """A classifier of hierarchical softmax or softmax, over words and their n-grams.

    Memory beside the model: about 60 MB a call and 40 bytes a text with lid.176.ftz; in general some 50 bytes per character of a chunk,
    which holds 2^24 / dim characters, or one text.

    Raises:
        UnsupportedModelError: it has another loss, or n-grams but no buckets for them, or very long ones.
    """

    def __init__(self, model: ModelFile) -> None:
        if model.loss not in ("hierarchical softmax", "softmax") or len(model.label_counts) < 2:
            raise UnsupportedModelError(f"its loss is {model.loss}, over {len(model.label_counts)} labels")
        if model.maxn > 0 and model.bucket == 0:
            raise UnsupportedModelError("it has n-grams but no buckets")
        if model.maxn > _MAX_CHARACTERS:
            raise UnsupportedModelError(f"its n-grams have up to {model.maxn} characters")
        self.labels = model.labels
        self._model = model
        self._output = Softmax(model) if model.loss == "softmax" else Tree(model)
        self._vocabulary = pa.array(model.words, pa.binary())
        end = model.words.index(_END) if _END in model.words[: model.n_words] else None
        self._end = None if end is None else model.input[end].copy().view(np.float32)

    def predict(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The best label of each text, as an index into ``labels`` (int64, -1 where the model names none), and its score in [0, 1]
        (float32).

        Raises:
            ValueError: a text holds a newline or a lone surrogate.
        """
        best, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
        characters = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
        tile = max(128, _TILE // len(self.labels))
        for start, stop in _cuts(characters, _CHUNK // self._model.dim):
            vectors, n_rows = self._vectors(texts[start:stop])
            for first in range(0, stop - start, tile):
                label, score = self._output.best(vectors[first : first + tile].astype(np.float64))
                best.append(np.where((n_rows[first : first + tile] > 0) & (score >= EPSILON), label, -1))
                scores.append(score)
        found = np.concatenate(best)
        return found, np.where(found >= 0, np.minimum(np.concatenate(scores), 1.0), 0.0).astype(np.float32)

    def _vectors(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The mean of each text's rows, float32 of shape (n, dim), and their number, (n,)."""
        words, n_words = split(texts)
        encoded = words.dictionary_encode()
        codes = encoded.indices.to_numpy().astype(np.int64)
        stop = encoded.dictionary.index(_END).as_py()
        if stop >= 0:
            codes, n_words = before_the_end(codes, n_words, stop)
        ids, counts = self._rows_of_words(encoded.dictionary)
        n_rows = _run_sums(counts[codes], n_words)
        sums = np.empty((len(texts), self._model.dim), np.float32)
        word_ends, row_ends, starts = n_words.cumsum(), n_rows.cumsum(), counts.cumsum() - counts
        for first, end in _cuts(row_ends + np.arange(len(texts)), _ROWS // self._model.dim):
            these = codes[word_ends[first] - n_words[first] : word_ends[end - 1]]
            sums[first:end] = sum_runs(self._model.input, ids.take(_ranges(starts[these], counts[these])), n_rows[first:end])
        if self._end is not None:
            sums += self._end
            n_rows += 1
        return sums * (1.0 / np.maximum(n_rows, 1)).astype(np.float32)[:, None], n_rows

    def _rows_of_words(self, words: pa.BinaryArray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of each of the distinct words, in the library's order, one word after the other: int32; and how many each has: int64."""
        places = pc.index_in(words, value_set=self._vocabulary).fill_null(-1).to_numpy()
        # A label in a text is no word, nor is what looks like one.
        no_word = (places >= self._model.n_words) | ((places < 0) & pc.starts_with(words, LABEL_PREFIX).to_numpy(zero_copy_only=False))
        ids, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for first, end in _cuts(pc.binary_length(words).to_numpy().cumsum() + 2 * np.arange(len(words)), _TILE // 2):
            found = self._rows_of_tile(words[first:end], places[first:end], no_word[first:end])
            ids.append(found[0])
            counts.append(found[1])
        return np.concatenate(ids), np.concatenate(counts)

    def _rows_of_tile(self, words: pa.BinaryArray, places: np.ndarray, no_word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for so many words that all of it stays in a core's cache. ``places``: where a word stands in the dictionary, or -1.
        ``no_word``: those that have no rows."""
        bordered = pc.binary_join_element_wise(_BORDERS[0], words, _BORDERS[1], _BORDERS[2])
        lengths, data = _lengths_and_bytes(bordered)
        is_first = (data & 0xC0) != 0x80
        at = np.flatnonzero(is_first)
        n_chars = _run_sums(is_first, lengths)
        ends = n_chars.cumsum()
        starts = ends - n_chars

        # What begins at each character: the word itself, then an n-gram of each length.
        low, high = max(self._model.minn, 1), max(self._model.maxn, 0)
        found = np.full((len(at), 1 + max(high - low + 1, 0)), -1, np.int32)
        if high >= low:
            for n, hashes in _ngram_hashes(data, at, high):
                if n >= low:
                    found[: len(hashes), 1 + n - low] = self._rows_of(hashes)
            # None of these ends beyond its word, and a border alone is no n-gram.
            for k in range(1, high):
                found[(ends - k)[n_chars >= k], 1 + max(k + 1 - low, 0) :] = -1
            if low == 1:
                found[ends - 1, 1] = found[starts, 1] = -1
        found[starts, 0] = places
        if no_word.any():
            found[np.repeat(no_word, n_chars)] = -1
        flat = found.ravel()
        kept = np.flatnonzero(flat >= 0)
        return flat.take(kept), np.diff(np.searchsorted(kept, np.concatenate(([0], ends)) * found.shape[1]))

    def _rows_of(self, hashes: np.ndarray) -> np.ndarray:
        n = np.uint32(self._model.bucket)
        # Faster than the remainder, which has no vector instruction.
        buckets = hashes - hashes // n * n
        return self._model.n_words + buckets.astype(np.int64) if self._model.kept is None else self._model.kept.take(buckets)


def _ngram_hashes(data: np.ndarray, at: np.ndarray, high: int) -> Iterator[tuple[int, np.ndarray]]:
    """For n from 1 to ``high``: the hashes of the n characters from each character on. FNV-1a over bytes, which are taken as signed.

    ``data``: bytes of the text, ``at``: where each of its characters begins. The array given is written on.
    """
    signed = _SIGNED.take(data)
    first_bytes = signed.take(at)
    width = np.diff(at, append=len(data))
    longer = [(np.flatnonzero(width > k), k) for k in (1, 2, 3)]
    other_bytes = [(chars, signed.take(at.take(chars) + k)) for chars, k in longer if len(chars)]
    hashes = np.full(len(at), _FNV_BASIS)
    for n in range(1, min(high, len(at)) + 1):
        # Each takes in the character n - 1 places on: its first byte, then the others where it has such.
        hashes = hashes[: len(at) - n + 1]
        hashes ^= first_bytes[n - 1 :]
        hashes *= _FNV_PRIME
        for chars, byte in other_bytes:
            skipped = int(np.searchsorted(chars, n - 1))
            here = chars[skipped:] - (n - 1)
            hashes[here] = (hashes.take(here) ^ byte[skipped:]) * _FNV_PRIME
        yield n, hashes


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers from each start on, so many as counts say, one range after the other: int64."""
    ends = counts.cumsum()
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _cuts(ends: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Cut a row of things, which end at ascending ``ends``, into runs of at most ``size`` or of one thing: first and end of each."""
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + size, side="right")))
        yield first, end
        first = end


def _lengths_and_bytes(array: pa.BinaryArray) -> tuple[np.ndarray, np.ndarray]:
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32, len(array) + 1, 4 * array.offset)
    return np.diff(ends).astype(np.int64), np.frombuffer(data, np.uint8, ends[-1] - ends[0], ends[0])


def split(texts: Sequence[str]) -> tuple[pa.BinaryArray, np.ndarray]:
    """The words of all texts, one text after the other, and how many each has: int64, (n,).

    Raises:
        ValueError: a text holds a newline or a lone surrogate.
    """
    data = np.frombuffer("\n".join(["", *texts, ""]).encode(), np.uint8)
    lines = np.flatnonzero(data == ord("\n"))
    if len(lines) != len(texts) + 1:
        raise ValueError("texts must be normalized: one of them holds a newline")
    inside = ~_IS_SEPARATOR.take(data)
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    offsets = np.concatenate(([0], (ends - starts).cumsum())).astype(np.int32)
    words = pa.Array.from_buffers(pa.binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(data[inside])])
    return words, np.diff(np.searchsorted(starts, lines))


def before_the_end(codes: np.ndarray, n_words: np.ndarray, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts cut off before their first word ``stop``: codes of the words that are left, and how many each text has."""
    text_of = np.repeat(np.arange(len(n_words)), n_words)
    stops = (codes == stop).cumsum()
    before = np.concatenate(([0], stops))[n_words.cumsum() - n_words]
    left = stops == before[text_of]
    return codes[left], np.bincount(text_of[left], minlength=len(n_words))
