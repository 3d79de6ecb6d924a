"""Training crops: where they lie, and what becomes of the pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from train.images import crop_box, crop_image


@given(st.integers(1, 3000), st.integers(1, 3000), st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_crop_lies_in_the_image_and_has_an_allowed_ratio(width: int, height: int, draws: list[float]) -> None:
    left, top, w, h = crop_box(width, height, np.array(draws), (0.3, 1.0))
    assert left >= 0
    assert top >= 0
    assert left + w <= width * (1 + 1e-9)
    assert top + h <= height * (1 + 1e-9)
    assert 3 / 4 - 1e-6 <= w / h <= 4 / 3 + 1e-6
    if 3 / 4 <= width / height <= 4 / 3:
        assert w * h == pytest.approx(width * height * (0.3 + 0.7 * draws[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("mode", "size", "kind"), [("L", (1, 1), "PNG"), ("CMYK", (40, 30), "JPEG"), ("P", (300, 7), "GIF"), ("RGBA", (9, 200), "PNG")]
)
def test_any_kind_of_image_becomes_rgb(mode: str, size: tuple[int, int], kind: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    assert crop_image(buffer.getvalue(), 16, np.array([0.5, 0.5, 0.99, 0.99]), (0.9, 1.0)).shape == (16, 16, 3)


def test_a_jpeg_decoded_at_a_fraction_of_its_size_is_nearly_the_same_picture() -> None:
    x = np.linspace(0, 255, 640)
    picture = np.stack(np.broadcast_arrays(x[None, :], x[::-1, None], 100.0), axis=-1).astype(np.uint8)
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG", quality=95)
    Image.fromarray(picture).save(png, "PNG")
    draws = np.array([0.2, 0.4, 0.6, 0.8])
    fast, exact = (crop_image(b.getvalue(), 64, draws, (0.5, 1.0)).numpy().astype(int) for b in (jpeg, png))
    assert np.abs(fast - exact).max() <= 4


@pytest.mark.parametrize("shape", [(50, 70), (300, 200), (64, 64), (1, 1), (3, 500)])
def test_pixels_are_those_of_pillow(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    draws = np.array([0.3, 0.5, 0.7, 0.1])
    left, top, width, height = crop_box(shape[1], shape[0], draws, (0.4, 0.9))
    x, y = round(left), round(top)
    box = (x, y, max(round(left + width), x + 1), max(round(top + height), y + 1))
    expected = np.asarray(Image.fromarray(picture).crop(box).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(crop_image(buffer.getvalue(), 64, draws, (0.4, 0.9)).numpy() - expected).max() <= 2
