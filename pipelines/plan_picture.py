"""The picture of a plan: one SVG file that needs nothing else. The same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.page import language_name, share, short, text

_STYLE = """
svg { --paper: #fffffb; --ink: #1c1c1a; --soft: #5f5f58; --rule: #dcdcd2; --before: #8a8a80; --after: #0067a5; --t: #b84a00;
  background: var(--paper); font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #161614; --ink: #e6e6de; --soft: #a2a298; --rule: #3a3a34; --before: #9a9a90; --after: #63b3e8; --t: #f0914a; }
}
.paper { fill: var(--paper); }
text { fill: var(--soft); font-variant-numeric: tabular-nums; }
.title { font-size: 19px; fill: var(--ink); }
.name { fill: var(--ink); }
.head { fill: var(--ink); font-style: italic; }
.grid { stroke: var(--rule); stroke-width: .7; }
.axis { stroke: var(--soft); stroke-width: .9; }
.all { stroke: var(--after); stroke-width: 2.2; fill: none; }
.one { stroke: var(--before); stroke-width: 1.1; fill: none; }
.at { stroke: var(--t); stroke-width: 1; stroke-dasharray: 4 3; }
.dot { fill: var(--t); }
.chosen { fill: var(--t); }
.bar-before { fill: var(--before); opacity: .45; }
.bar-after { fill: var(--after); }
"""
_WIDTH = 760.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 600.0, 112.0, 372.0
_ROW = 18.0
#: Languages with a line of their own.
_LINES = 4
#: Tail shares that are written above the plot.
_SHARES = (0.001, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Point:
    """Thresholds that a tail share gives, and the number of pairs that is kept with them, per language."""

    p: float
    t: Mapping[str, float]
    kept: Mapping[str, float]

    @property
    def total(self) -> float:
        return math.fsum(self.kept.values())


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is drawn. ``languages``: those of the bars, in order; ``disk`` and ``work``: (what, how much)."""

    title: str
    note: str
    main: str
    curve: Sequence[Point]
    chosen: Point
    pairs: Mapping[str, float]
    languages: Sequence[str]
    disk: Sequence[tuple[str, str]]
    work: Sequence[tuple[str, str]]


def draw(picture: Picture) -> bytes:
    """The SVG file."""
    rows = max(len(picture.languages), len(picture.disk), len(picture.work))
    height = _BOTTOM + 120 + _ROW * rows
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img">',
        f"<title>{text(picture.title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH:.0f}" height="{height:.0f}"/>',
        f'<text class="title" x="24" y="38">{text(picture.title)}</text>',
        f'<text x="24" y="58">{text(picture.note)}.</text>',
        *_plot(picture),
        *_bars(picture, _BOTTOM + 92),
        *_columns(picture, _BOTTOM + 92),
        "</svg>\n",
    ]
    return "\n".join(body).encode()


def _plot(picture: Picture) -> list[str]:
    """Pairs kept against t of the main language, which has a logarithmic axis."""
    points = sorted([*picture.curve, picture.chosen], key=lambda point: (point.t[picture.main], point.total))
    low, high = math.log10(points[0].t[picture.main]), math.log10(points[-1].t[picture.main])
    first, last = math.floor(low + 1e-9), max(math.floor(low + 1e-9) + 1, math.ceil(high - 1e-9))
    most = _round_up(max(point.total for point in points))

    def x(t: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (math.log10(t) - first) / (last - first)

    def y(pairs: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * pairs / most

    def line(kind: str, values: Sequence[tuple[float, float]]) -> str:
        return f'<polyline class="{kind}" points="{" ".join(f"{x(t):.1f},{y(n):.1f}" for t, n in values)}"/>'

    out = []
    for i in range(5):
        at, n = y(most * i / 4), most * i / 4
        out.append(f'<line class="{"grid" if i else "axis"}" x1="{_LEFT:.0f}" x2="{_RIGHT:.0f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8:.0f}" y="{at + 4:.1f}" text-anchor="end">{_tick(n)}</text>')
    for d in range(first, last + 1):
        at = x(10.0**d)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP:.0f}" y2="{_BOTTOM:.0f}"/>')
        out.append(f'<text x="{at:.1f}" y="{_BOTTOM + 17:.0f}" text-anchor="middle">{_tick(10.0**d)}</text>')
    out.append(f'<text x="{_RIGHT:.0f}" y="{_BOTTOM + 34:.0f}" text-anchor="end">t of {text(language_name(picture.main))}</text>')
    out.append(f'<text x="{_LEFT:.0f}" y="{_TOP - 24:.0f}">pairs kept</text>')
    out.append(f'<text x="{_RIGHT:.0f}" y="{_TOP - 24:.0f}" text-anchor="end">tail share</text>')
    out += _share_ticks(picture, x)
    names = [lang for lang in picture.languages[:_LINES] if len(picture.languages) > 1]
    ends: list[tuple[float, str, str]] = []
    for lang in names:
        out.append(line("one", [(point.t[picture.main], point.kept.get(lang, 0.0)) for point in picture.curve]))
        ends.append((y(points[-1].kept.get(lang, 0.0)), "", language_name(lang)))
    out.append(line("all", [(point.t[picture.main], point.total) for point in picture.curve]))
    ends.append((y(points[-1].total), "name", "all languages" if len(picture.pairs) > 1 else language_name(picture.main)))
    out += _labels_at_the_end(ends, x(10.0**high) + 8)
    chosen_x, chosen_y = x(picture.chosen.t[picture.main]), y(picture.chosen.total)
    out.append(f'<line class="at" x1="{chosen_x:.1f}" x2="{chosen_x:.1f}" y1="{_TOP:.0f}" y2="{_BOTTOM:.0f}"/>')
    out.append(f'<circle class="dot" cx="{chosen_x:.1f}" cy="{chosen_y:.1f}" r="4"/>')
    said = f"t = {short(picture.chosen.t[picture.main])}: {short(picture.chosen.total)} pairs"
    # In the corner where the curve, which rises to the right, is not.
    width, left_half = 6.6 * len(said), chosen_x <= (_LEFT + _RIGHT) / 2
    label_x, label_y = (chosen_x + 8, _TOP + 17) if left_half else (chosen_x - 8 - width, _BOTTOM - 9)
    out.append(f'<rect class="paper" x="{label_x - 2:.1f}" y="{label_y - 11:.1f}" width="{width + 2:.1f}" height="15"/>')
    anchor = f'x="{label_x:.1f}"' if left_half else f'x="{chosen_x - 8:.1f}" text-anchor="end"'
    out.append(f'<text class="chosen" {anchor} y="{label_y:.1f}">{said}</text>')
    return out


def _share_ticks(picture: Picture, x: Callable[[float], float]) -> list[str]:
    """Tail shares above the plot, those that have room."""
    out, end = [], -math.inf
    for point in picture.curve:
        at = x(point.t[picture.main])
        if point.p in _SHARES and at - end > 34:
            out.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 5:.0f}" y2="{_TOP:.0f}"/>')
            out.append(f'<text x="{at:.1f}" y="{_TOP - 8:.0f}" text-anchor="middle">{100 * point.p:g} %</text>')
            end = at
    return out


def _labels_at_the_end(ends: Sequence[tuple[float, str, str]], x: float) -> list[str]:
    """Names of lines at their right ends, moved apart where they would meet."""
    out, above = [], -math.inf
    for at, kind, name in sorted(ends):
        above = max(at + 4, above + 14)
        out.append(f'<text class="{kind}" x="{x:.1f}" y="{above:.1f}">{text(name, 18)}</text>')
    return out


def _bars(picture: Picture, top: float) -> list[str]:
    """Pairs of each language and those of them that are kept, on a logarithmic axis that begins at 1."""
    left, right = 130.0, 300.0
    decades = max(1.0, math.log10(max([10.0, *picture.pairs.values()])))
    out = [f'<text class="head" x="24" y="{top - 10:.0f}">Languages: kept of their pairs (logarithmic)</text>']
    for i, lang in enumerate(picture.languages):
        y, pairs, kept = top + _ROW * i, picture.pairs[lang], picture.chosen.kept.get(lang, 0.0)
        width = [(right - left) * max(0.0, math.log10(max(1.0, n))) / decades for n in (pairs, kept)]
        out.append(f'<text class="name" x="24" y="{y + 13:.0f}">{text(language_name(lang), 16)}</text>')
        out.append(f'<rect class="bar-before" x="{left:.0f}" y="{y + 3:.0f}" width="{width[0]:.1f}" height="12"/>')
        out.append(f'<rect class="bar-after" x="{left:.0f}" y="{y + 6:.0f}" width="{width[1]:.1f}" height="6"/>')
        out.append(
            f'<text x="{right + 160:.0f}" y="{y + 13:.0f}" text-anchor="end">{short(kept)} / {short(pairs)}, {share(kept, pairs)}</text>'
        )
    return out


def _columns(picture: Picture, top: float) -> list[str]:
    """Disk and core time of the stages."""
    out = []
    for left, right, head, rows in ((490.0, 610.0, "Disk", picture.disk), (630.0, 736.0, "Core time", picture.work)):
        out.append(f'<text class="head" x="{left:.0f}" y="{top - 10:.0f}">{head}</text>')
        for i, (what, size) in enumerate(rows):
            y = top + _ROW * i + 13
            out.append(f'<text x="{left:.0f}" y="{y:.0f}">{text(what)}</text>')
            out.append(f'<text class="name" x="{right:.0f}" y="{y:.0f}" text-anchor="end">{text(size)}</text>')
    return out


def _tick(n: float) -> str:
    """A number at an axis: ``10 k``."""
    digits, _, unit = short(n).partition(" ")
    return f"{digits.rstrip('0').rstrip('.')} {unit}" if "." in digits else f"{digits} {unit}".strip()


def _round_up(value: float) -> float:
    """The next of 1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8 and 10 times a power of ten, whose quarters are short numbers."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if value <= step * unit * (1 + 1e-9))
