"""Encoded images to training crops."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

#: Images with more are not decoded: one takes 3 bytes a pixel, and one made for the purpose a thousand times the size of its file. The job
#: images lets no larger ones through.
MAX_PIXELS = 50_000_000
#: Aspect ratios that a crop may have, as in open_clip.
CROP_RATIO = (3 / 4, 4 / 3)


def crop_box(width: int, height: int, draws: np.ndarray, scale: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, width and height of a random crop, in pixels.

    ``draws``: four numbers in [0, 1) for area, aspect ratio, left and top. The area is uniform in ``scale`` (shares of the image), the
    ratio log-uniform within what CROP_RATIO allows and the image holds; an image too long for any ratio gives its largest crop of an
    allowed one.
    """
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    ratio = width / height
    low, high = max(CROP_RATIO[0], area * ratio), min(CROP_RATIO[1], ratio / area)
    if low <= high:
        ratio = low * (high / low) ** draws[1]
        crop_height = min(height, math.sqrt(width * height * area / ratio))
    else:
        ratio = min(max(ratio, CROP_RATIO[0]), CROP_RATIO[1])
        crop_height = min(height, width / ratio)
    crop_width = min(width, crop_height * ratio)
    return float((width - crop_width) * draws[2]), float((height - crop_height) * draws[3]), float(crop_width), float(crop_height)


def crop_image(encoded: bytes, size: int, draws: np.ndarray, scale: Sequence[float]) -> torch.Tensor:
    """A random crop of an image, whole pixels of it, resized: uint8 (size, size, 3). ``draws`` and ``scale`` as in :func:`crop_box`.

    Of an animation the first frame. Raises ValueError where the image has more than MAX_PIXELS, and what the decoder raises.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        full_width, full_height = image.size
        if full_width * full_height > MAX_PIXELS:
            raise ValueError(f"{full_width} x {full_height} are more than {MAX_PIXELS} pixels")
        left, top, width, height = crop_box(full_width, full_height, draws, scale)
        # A JPEG decoder gives a half, quarter or eighth of the size for a fraction of the time; never less than the crop needs.
        image.draft(None, (math.ceil(size * full_width / width), math.ceil(size * full_height / height)))
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    rows = _within(top, height, pixels.shape[0], of=full_height)
    columns = _within(left, width, pixels.shape[1], of=full_width)
    crop = torch.from_numpy(np.array(pixels[rows, columns], order="C")).permute(2, 0, 1)[None]
    # Pillow's filter, but with vector instructions where the pixels' bytes lie side by side.
    resized = torch.nn.functional.interpolate(crop, (size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0)


def _within(start: float, length: float, pixels: int, *, of: int) -> slice:
    """What a part of a line ``of`` so many pixels is of the same line in ``pixels``: whole ones, one at least."""
    first = min(round(start * pixels / of), pixels - 1)
    return slice(first, max(round((start + length) * pixels / of), first + 1))
