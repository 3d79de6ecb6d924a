"""What a picture can show, apart from any language: colours, shapes, scenes, and the classes with their frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "blue", "green", "yellow", "black", "grey", "purple", "orange")
SHAPES = ("star", "heart", "moon", "house", "tree", "fish", "leaf", "boat", "butterfly", "cup")
SCENES = ("night", "sea", "snow", "meadow", "desert", "forest", "mountains", "city")
SIZES = ("small", "medium", "large")

#: A class is a coloured shape; its index is its place here.
CLASSES = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

ZIPF_EXPONENT = 1.2
#: Decides which class has which rank. It belongs to the world, not to a run: every seed has the same head and the same tail.
CLASS_SEED = 20_260_901

#: Share of pictures with one, two, three and four shapes.
COUNT_SHARES = (0.7, 0.14, 0.1, 0.06)
SIZE_SHARES = (0.2, 0.6, 0.2)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What one picture shows; ``count`` from 1 to 4, ``size`` one of SIZES."""

    colour: str
    shape: str
    scene: str
    count: int
    size: str


def class_ranks() -> np.ndarray:
    """Rank per class, 1 is the most frequent. int64, shape (classes,)."""
    return np.random.Generator(np.random.PCG64(CLASS_SEED)).permutation(len(CLASSES)) + 1


def class_shares() -> np.ndarray:
    """Share of pictures per class: Zipf's law over the ranks. float64, shape (classes,), sums to 1."""
    weights = class_ranks().astype(np.float64) ** -ZIPF_EXPONENT
    return weights / weights.sum()


def draw_subject(rng: np.random.Generator, class_index: int) -> Subject:
    """A subject of the class: scene, count and size at random."""
    colour, shape = CLASSES[class_index]
    return Subject(
        colour=colour,
        shape=shape,
        scene=SCENES[rng.integers(len(SCENES))],
        count=1 + int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES)),
        size=SIZES[rng.choice(len(SIZES), p=SIZE_SHARES)],
    )
