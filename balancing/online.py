"""What a trainer takes in an epoch: one text of each image, drawn anew. With online curation epoch 0 is what ``balance`` draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancing.sampling import CHOOSE, kept, uniform

#: The stream of draws that thins out languages, apart from those that choose and keep.
LANGUAGE = "language"


@dataclass(frozen=True, kw_only=True)
class TextDraw:
    """How the texts of an epoch are drawn.

    ``seed``: of all draws. ``online``: a text is kept with its probability, and an image whose text is not kept is absent from the epoch.
    ``languages``: the share of each language's images that takes part (:func:`language_shares`); None: all.
    """

    seed: int
    online: bool = False
    languages: Mapping[str, float] | None = None

    @property
    def fields(self) -> list[str]:
        """The fields of a text that decide which images an epoch takes; none where it takes all."""
        return [*(["pair_key", "probability"] if self.online else []), *(["lang"] if self.languages is not None else [])]


def draw_texts(image_keys: np.ndarray, texts: pa.ListArray, draw: TextDraw, *, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The images that an epoch takes, and the text of each.

    ``image_keys``: uint64, shape (images,); ``texts``: their texts in the order in which balancing numbers them, structures with the fields
    of ``draw``. Returns the images' row numbers, ascending, and the places of their texts in ``texts.values``; both int64. An image
    without texts is taken with place -1: it is bad input, and for the reader to tell.

    Raises:
        ValueError: a text has no probability, no key, or no language where these decide.
    """
    offsets = texts.offsets.to_numpy().astype(np.int64)
    n = np.diff(offsets)
    places = offsets[:-1] + np.floor(uniform(draw.seed, epoch, CHOOSE, image_keys) * n).astype(np.int64)
    stays = np.ones(len(n), dtype=bool)
    some = np.flatnonzero(n)
    chosen, takes_part = places[some], stays[some]
    if draw.online:
        _refuse_nulls(texts, "pair_key")
        probability = pc.struct_field(texts.values, "probability").to_numpy(zero_copy_only=False)
        if not (probability >= 0).all():
            raise ValueError("a text has no probability")
        takes_part &= kept(pc.struct_field(texts.values, "pair_key").to_numpy()[chosen], probability[chosen], seed=draw.seed, epoch=epoch)
    if draw.languages is not None:
        _refuse_nulls(texts, "lang")
        encoded = pc.struct_field(texts.values, "lang").dictionary_encode()
        shares = np.array([draw.languages.get(lang, 1.0) for lang in encoded.dictionary.to_pylist()])
        takes_part &= uniform(draw.seed, epoch, LANGUAGE, image_keys[some]) < shares[encoded.indices.to_numpy()[chosen]]
    stays[some] = takes_part
    rows = np.flatnonzero(stays)
    return rows, np.where(n[rows] > 0, places[rows], -1)


def _refuse_nulls(texts: pa.ListArray, field: str) -> None:
    if pc.struct_field(texts.values, field).null_count:
        raise ValueError(f"a text has no {field}")


def count_drawn(image_keys: np.ndarray, texts: pa.ListArray, rows: np.ndarray, *, draw: TextDraw, epochs: range) -> np.ndarray:
    """How many images each of the epochs takes of each row group: int32, shape (epochs, row groups).

    ``rows``: the row groups' lengths; the rest as in :func:`draw_texts`.
    """
    group = np.repeat(np.arange(len(rows)), rows)
    drawn = (draw_texts(image_keys, texts, draw, epoch=epoch)[0] for epoch in epochs)
    return np.stack([np.bincount(group[taken], minlength=len(rows)).astype(np.int32) for taken in drawn])


def languages_drawn(image_keys: np.ndarray, texts: pa.ListArray, rows: np.ndarray, *, draw: TextDraw) -> Counter[str]:
    """How many images epoch 0 takes by the language of their text. Arguments as in :func:`count_drawn`."""
    _, places = draw_texts(image_keys, texts, draw, epoch=0)
    return Counter(pc.struct_field(texts.values, "lang").take(pa.array(places[places >= 0])).to_pylist())


def language_shares(images: Mapping[str, int], temperature: float) -> dict[str, float]:
    """The share of each language's images that an epoch takes, so that languages occur in proportion to n^(1/T).

    ``images``: n, the images of each language; ``temperature``: T ≥ 1. As in multilingual pre-training (arXiv 1907.05019),
    but without repeating anything: the smallest language is kept whole, and another one by the share (n / n_smallest)^(1/T − 1).
    Rounded to nine decimals, since processors differ in the last digit of a power.
    """
    present = [n for n in images.values() if n]
    return {lang: round((n / min(present)) ** (1 / temperature - 1), 9) if n else 1.0 for lang, n in images.items()}


def rows_of_epochs(rows: np.ndarray, count: Callable[[range], np.ndarray] | None, *, steps: int, batch_size: int) -> np.ndarray:
    """How many rows each row group gives in each epoch of a run of ``steps`` batches: shape (epochs, row groups).

    ``rows``: how many each has. ``count``: how many of them the epochs of a range take, by a pass over the set, of which two or three
    suffice; None: every epoch takes all.

    Raises:
        ValueError: an epoch has fewer rows than a batch.
    """
    whole = -(-steps // max(int(rows.sum()) // batch_size, 1))
    taken = count(range(1)) if count else np.broadcast_to(rows, (whole, len(rows)))
    while True:
        images = taken.sum(axis=1, dtype=np.int64)
        batches = images // batch_size
        if not batches.all():
            which = f" in epoch {batches.argmin()}" if count else ""
            raise ValueError(f"{images.min()} images{which} are less than one batch of {batch_size}")
        missing = steps - int(batches.sum())
        if missing <= 0 or not count:
            return taken
        # A few more than expected: the epochs differ by chance, and a pass costs more than an epoch.
        more = math.ceil(1.02 * missing / batches.mean()) + 1
        taken = np.concatenate([taken, count(range(len(taken), len(taken) + more))])
