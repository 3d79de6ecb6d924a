"""Draws a subject as a small JPEG: one to four coloured shapes before a scene, with jitter in place, size, angle, colour and noise."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from tests.world.subjects import Subject

#: Edge of a picture in pixels.
EDGE = 64
# Shapes are drawn on a canvas twice as wide and shrunk, which smooths their edges.
_CANVAS = 2 * EDGE

_Point = tuple[float, float]
#: A shape is polygons in the square from -1 to 1, each with a factor of brightness, drawn in order.
_Polygon = tuple[float, list[_Point]]

_PALETTE = {
    "red": (212, 36, 40),
    "blue": (36, 82, 214),
    "green": (34, 158, 66),
    "yellow": (246, 216, 44),
    "black": (26, 26, 30),
    "grey": (142, 142, 148),
    "purple": (138, 52, 182),
    "orange": (242, 132, 26),
}
_DARK_COLOURS = ("black", "blue", "purple", "green")
_SIZE_FACTOR = {"small": 0.72, "medium": 1.0, "large": 1.3}
#: Centres of one to four shapes and their half width, as shares of the canvas.
_LAYOUTS: dict[int, tuple[float, tuple[_Point, ...]]] = {
    1: (0.28, ((0.5, 0.52),)),
    2: (0.19, ((0.28, 0.5), (0.72, 0.55))),
    3: (0.17, ((0.27, 0.3), (0.73, 0.34), (0.5, 0.72))),
    4: (0.16, ((0.28, 0.29), (0.72, 0.27), (0.27, 0.72), (0.73, 0.73))),
}


def _arc(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0, steps: int = 24) -> list[_Point]:
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def _star() -> list[_Polygon]:
    radius = (1.0, 0.42)
    return [(1.0, [(radius[i % 2] * math.sin(math.pi * i / 5), -radius[i % 2] * math.cos(math.pi * i / 5)) for i in range(10)])]


def _heart() -> list[_Polygon]:
    points = []
    for i in range(32):
        a = 2 * math.pi * i / 32
        y = 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
        points.append((math.sin(a) ** 3, -(y + 2.5) / 15))
    return [(1.0, points)]


def _moon() -> list[_Polygon]:
    return [(1.0, _arc(0, 0, 1, 1, 60, 300) + _arc(0.55, 0, 0.87, 0.87, 276, 84))]


def _house() -> list[_Polygon]:
    walls = [(-0.75, 1.0), (-0.75, -0.1), (0.75, -0.1), (0.75, 1.0)]
    roof = [(-1.0, -0.1), (0.0, -1.0), (1.0, -0.1)]
    door = [(-0.2, 1.0), (-0.2, 0.35), (0.2, 0.35), (0.2, 1.0)]
    return [(1.0, walls), (0.75, roof), (0.4, door)]


def _tree() -> list[_Polygon]:
    trunk = [(-0.14, 1.0), (-0.14, 0.4), (0.14, 0.4), (0.14, 1.0)]
    return [(0.5, trunk), (1.0, [(-0.8, 0.55), (0.0, -0.35), (0.8, 0.55)]), (1.0, [(-0.6, -0.05), (0.0, -1.0), (0.6, -0.05)])]


def _fish() -> list[_Polygon]:
    return [(0.8, [(0.4, 0.0), (1.0, -0.55), (1.0, 0.55)]), (1.0, _arc(-0.2, 0, 0.8, 0.5)), (0.2, _arc(-0.6, -0.1, 0.09, 0.09, steps=8))]


def _leaf() -> list[_Polygon]:
    blade = [(0.5 * math.sin(math.pi * i / 12), -1 + 1.6 * i / 12) for i in range(13)]
    blade += [(-x, y) for x, y in reversed(blade)]
    return [
        (0.6, [(-0.06, 1.0), (-0.06, 0.4), (0.06, 0.4), (0.06, 1.0)]),
        (1.0, blade),
        (0.6, [(-0.04, 0.6), (-0.04, -0.7), (0.04, -0.7), (0.04, 0.6)]),
    ]


def _boat() -> list[_Polygon]:
    hull = [(-1.0, 0.35), (1.0, 0.35), (0.6, 0.95), (-0.6, 0.95)]
    return [(0.8, hull), (1.0, [(-0.05, 0.2), (-0.05, -1.0), (0.8, 0.2)]), (1.0, [(-0.15, 0.2), (-0.15, -0.7), (-0.7, 0.2)])]


def _butterfly() -> list[_Polygon]:
    wings: list[_Polygon] = [(1.0, _arc(side * 0.52, -0.35, 0.48, 0.5)) for side in (-1, 1)]
    wings += [(0.85, _arc(side * 0.42, 0.45, 0.36, 0.4)) for side in (-1, 1)]
    return [*wings, (0.3, _arc(0, 0, 0.1, 0.75))]


def _cup() -> list[_Polygon]:
    handle = _arc(0.5, 0.0, 0.5, 0.45, -90, 90) + _arc(0.5, 0.0, 0.28, 0.25, 90, -90)
    return [(0.8, handle), (1.0, [(-0.85, -0.75), (0.6, -0.75), (0.4, 0.85), (-0.65, 0.85)])]


_SHAPES: dict[str, list[_Polygon]] = {
    "star": _star(),
    "heart": _heart(),
    "moon": _moon(),
    "house": _house(),
    "tree": _tree(),
    "fish": _fish(),
    "leaf": _leaf(),
    "boat": _boat(),
    "butterfly": _butterfly(),
    "cup": _cup(),
}


_Colour = tuple[int, int, int]


def _shade(colour: np.ndarray, factor: float) -> _Colour:
    r, g, b = np.clip(colour * factor, 0, 255).astype(int).tolist()
    return r, g, b


#: Upper and lower colour of a scene, and where the horizon lies (a share of the height; 1: none).
_BACKGROUNDS = {
    "night": ((14, 18, 60), (40, 44, 104), 1.0),
    "sea": ((172, 214, 240), (30, 104, 160), 0.55),
    "snow": ((206, 220, 236), (244, 248, 252), 0.5),
    "meadow": ((168, 214, 246), (112, 176, 70), 0.6),
    "desert": ((244, 222, 178), (214, 170, 104), 0.5),
    "forest": ((70, 104, 74), (34, 62, 40), 0.75),
    "mountains": ((186, 208, 232), (120, 140, 120), 0.8),
    "city": ((248, 190, 150), (120, 100, 110), 0.85),
}


def _stars(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: _Colour) -> None:
    for x, y in rng.uniform(0, _CANVAS, (18, 2)).tolist():
        draw.ellipse((x, y, x + 2.4, y + 2.4), fill=colour)


def _waves(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: _Colour) -> None:
    for y in rng.uniform(0.58 * _CANVAS, _CANVAS, 6).tolist():
        x = float(rng.uniform(-20, 100))
        draw.line((x, y, x + 36, y), fill=colour, width=2)


def _trunks(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: _Colour) -> None:
    for x in rng.uniform(0, _CANVAS, 9).tolist():
        draw.rectangle((x, 0, x + 5, 0.8 * _CANVAS), fill=colour)


def _peaks(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: _Colour) -> None:
    for x in (0.15, 0.5, 0.85):
        middle, top = _CANVAS * (x + float(rng.uniform(-0.1, 0.1))), _CANVAS * float(rng.uniform(0.2, 0.45))
        draw.polygon([(middle - 45, 0.8 * _CANVAS), (middle, top), (middle + 45, 0.8 * _CANVAS)], fill=colour)


def _blocks(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: _Colour) -> None:
    for i, height in enumerate(rng.uniform(0.2, 0.6, 7).tolist()):
        draw.rectangle((i * 19, _CANVAS * (0.9 - height), i * 19 + 15, _CANVAS), fill=colour)


_DETAILS: dict[str, tuple[Callable[[ImageDraw.ImageDraw, np.random.Generator, _Colour], None], _Colour]] = {
    "night": (_stars, (220, 220, 200)),
    "sea": (_waves, (150, 196, 224)),
    "snow": (_stars, (255, 255, 255)),
    "meadow": (_stars, (236, 236, 190)),
    "desert": (_waves, (190, 146, 84)),
    "forest": (_trunks, (48, 44, 34)),
    "mountains": (_peaks, (128, 134, 152)),
    "city": (_blocks, (110, 84, 96)),
}


def _background(scene: str, rng: np.random.Generator) -> Image.Image:
    upper, lower, horizon = _BACKGROUNDS[scene]
    rows = np.linspace(0, 1, _CANVAS)[:, None]
    top, bottom = np.array(upper) + rng.normal(0, 8, 3), np.array(lower) + rng.normal(0, 8, 3)
    if horizon < 1:
        height = horizon + float(rng.uniform(-0.06, 0.06))
        colours = np.where(rows < height, top * (0.9 + 0.1 * rows), bottom * (1.1 - 0.2 * rows))
    else:
        colours = top * (1 - rows) + bottom * rows
    pixels = np.broadcast_to(np.clip(colours, 0, 255)[:, None, :], (_CANVAS, _CANVAS, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    detail, colour = _DETAILS[scene]
    detail(ImageDraw.Draw(image), rng, colour)
    return image


def draw_picture(subject: Subject, rng: np.random.Generator) -> bytes:
    """The subject as JPEG bytes, EDGE x EDGE pixels, RGB. The same generator state gives the same bytes."""
    image = _background(subject.scene, rng)
    draw = ImageDraw.Draw(image)
    half, centres = _LAYOUTS[subject.count]
    outline = (236, 236, 236) if subject.colour in _DARK_COLOURS else (44, 40, 40)
    base = np.array(_PALETTE[subject.colour], dtype=float) + rng.normal(0, 7, 3)
    for cx, cy in centres:
        x, y = (np.array((cx, cy)) + rng.normal(0, 0.03, 2)) * _CANVAS
        radius = half * _CANVAS * _SIZE_FACTOR[subject.size] * float(rng.uniform(0.85, 1.15))
        angle = math.radians(float(rng.normal(0, 9)))
        cos, sin = radius * math.cos(angle), radius * math.sin(angle)
        for factor, polygon in _SHAPES[subject.shape]:
            points = [(float(x) + px * cos - py * sin, float(y) + px * sin + py * cos) for px, py in polygon]
            draw.polygon(points, fill=_shade(base, factor), outline=outline, width=2)
    pixels = np.asarray(image.resize((EDGE, EDGE), Image.Resampling.BOX), dtype=np.float32)
    noisy = pixels + rng.normal(0, 6, pixels.shape) + rng.normal(0, 6)
    out = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=int(rng.integers(75, 93)))
    return out.getvalue()
