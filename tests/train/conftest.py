"""The images and the configuration that the tests of the trainer share."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import open_clip
import pytest

from tests.train.tiny import COLOURS, encode, image_row, square, write_images
from train.config import Config, parse


@pytest.fixture(scope="session", autouse=True)
def _tokenizers_made_once() -> Iterator[None]:
    """open_clip's own takes half a second to make, as much as a run of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "SimpleTokenizer", functools.cache(open_clip.SimpleTokenizer))
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """83 images in 3 parts: epochs of 5 batches of 16 and 3 images that are left over."""
    names = list(COLOURS)
    rows = [
        image_row(f"image {i:03d}", encode(square(COLOURS[names[i % 4]], i)), [f"a {names[i % 4]} square", f"{names[i % 4]} {i}"])
        for i in range(83)
    ]
    return write_images(tmp_path_factory.mktemp("images"), rows)


@pytest.fixture(scope="session")
def config(images: pathlib.Path) -> Callable[..., Config]:
    """A configuration of the tiny model on ``images``; keywords such as ``train={"steps": 3}`` change tables."""

    def make(**changes: dict[str, Any]) -> Config:
        tables: dict[str, Any] = {
            "model": {
                "name": "tiny",
                "custom": {
                    "embed_dim": 8,
                    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
                    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
                },
            },
            "data": {"paths": [str(images)], "streams": 4, "workers": 0, "shuffle_rows": 5},
            "optimizer": {"lr": 0.01},
            "train": {"steps": 12, "batch_size": 16, "device": "cpu"},
            "log": {"every": 1},
            "checkpoint": {"every": 4},
        }
        return parse({name: {**tables.get(name, {}), **changes.get(name, {})} for name in tables | changes})

    return make
