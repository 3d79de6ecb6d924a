"""Which scores real texts get from language identification: the shares below each, and texts of every band for a person to judge.

The texts that are shown are drawn by a hash of the text alone, so anyone draws the same ones, whatever stands beside them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balancing.captions import read_captions
from balancing.lid import load_lid
from metadata.tally import Tally

#: Where one band of scores ends and the next begins.
BOUNDS = (0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A text that is to be judged. ``key``: the first 12 hex digits of its hash, by which the table of verdicts names it."""

    band: int
    key: str
    label: str
    score: float
    text: str


def key_of(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def band_name(band: int) -> str:
    return f"{(0, *BOUNDS)[band]:g}-{(*BOUNDS, 1)[band]:g}"


def bands_of(scores: np.ndarray) -> np.ndarray:
    """Band of each score: a score on a bound is of the band above it, as it is for ``--lid-min-score``."""
    return np.searchsorted(np.array(BOUNDS, np.float32), scores, side="right")


def drawn(texts: Sequence[str], labels: Sequence[str], scores: np.ndarray, count: int) -> Iterator[Judged]:
    """Up to ``count`` of these distinct texts per band, those with the least hashes, bands and hashes ascending."""
    bands = bands_of(scores).tolist()
    keyed = sorted((band, key_of(text), i) for i, (band, text) in enumerate(zip(bands, texts, strict=True)))
    shown = dict.fromkeys(range(len(BOUNDS) + 1), 0)
    for band, key, i in keyed:
        shown[band] += 1
        if shown[band] <= count:
            yield Judged(band=band, key=key, label=labels[i], score=float(scores[i]), text=texts[i])


def shares(scores: np.ndarray) -> list[float]:
    """The share of scores below each bound."""
    return [float(np.mean(scores < np.float32(bound))) for bound in BOUNDS]


def read(paths: Sequence[Path]) -> list[str]:
    texts: list[str] = []
    for path in paths:
        with path.open("rb") as file:
            for captions in read_captions(file, column="text", tally=Tally()):
                texts += captions
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.lid_shares", description=__doc__)
    parser.add_argument("texts", metavar="FILE", nargs="+", type=Path, help="texts: lines, or the column text of a Parquet file")
    parser.add_argument("--model", metavar="FILE", help="a fastText model (default: the embedded lid.176.ftz)")
    parser.add_argument("--sample", metavar="N", type=int, default=0, help="texts to show of each band (default: none)")
    arguments = parser.parse_args()
    texts = read(arguments.texts)
    lid = load_lid(arguments.model)
    labels, scores = lid.identify(texts)
    place = {text: i for i, text in enumerate(texts)}
    first = list(place.values())
    columns = {"texts": scores, "distinct": scores[first]}
    (nothing,), nothing_score = lid.identify([""])
    print("below", *(f"{name} ({len(column):,})" for name, column in columns.items()), sep="\t")
    for bound, *row in zip(BOUNDS, *map(shares, columns.values()), strict=True):
        print(f"{bound:g}", *(f"{share:.1%}" for share in row), sep="\t")
    unknown = (np.array(labels) == nothing) & (scores == nothing_score[0])
    row = (f"{column.mean():.1%}" for column in (unknown, unknown[first]))
    print("as empty", *row, f"({nothing}, {nothing_score[0]:.4f})", sep="\t")
    for judged in drawn(list(place), [labels[i] for i in first], scores[first], arguments.sample):
        print(band_name(judged.band), judged.key, judged.label, f"{judged.score:.3f}", judged.text, sep="\t")


if __name__ == "__main__":
    main()
