"""The report as HTML: figures in, one self-contained page out. Knows no stage and reads no file but its template.

Everything that comes from the data is hostile until it went through :func:`text`. The page's own policy forbids every request and every
script but the one in the template, whose hash it names, so that even a mistake here could not run a caption.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from metadata.languages import OTHER, all_languages
from pipelines.balance import KEEP_SIBLINGS

#: Languages of the bar chart; the table has all of them.
BARS = 40
#: Characters of a caption, a URL and an entry that are shown, and entries of a pair.
LONGEST_TEXT, LONGEST_ENTRY, MOST_ENTRIES = 400, 80, 24

ABSENT, UNFINISHED, FINISHED, ELSEWHERE = "not there", "begun, not finished", "finished", "made from another"


@dataclass(frozen=True, kw_only=True)
class StageFigures:
    """One stage. ``state`` is one of the four above; ``of`` names what its books count; without an account ``counters`` is None."""

    name: str
    of: str
    state: str
    detail: str = ""
    id: str = ""
    rows: int | None = None
    counters: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] | None = None
    upstream: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageFigures:
    """One language; None where the stage that knows is absent. ``t`` may be infinite; shares lie between 0 and 1."""

    code: str
    matched: int | None
    unique: int | None
    kept: int | None
    t: float | None
    tail_share: float | None
    entries: int | None
    unmatched: int | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Counts by rank before and after balancing (``after`` is None without a curated set). ``t``: smallest and largest finite t."""

    title: str
    note: str
    before: Sequence[tuple[int, int]]
    after: Sequence[tuple[int, int]] | None
    t: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class EntryFigures:
    entry: str
    lang: str
    before: int
    after: int | None


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A curated pair. ``more``: how many entries it matches beyond those in ``entries``."""

    caption: str
    url: str
    entries: Sequence[str]
    more: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All that the page says. ``languages`` are in the order of the table; ``training`` are lines of (what, value)."""

    stages: Sequence[StageFigures]
    languages: Sequence[LanguageFigures]
    curves: Sequence[Curve]
    largest: Sequence[EntryFigures]
    lost: Sequence[EntryFigures]
    pairs: Mapping[str, Sequence[ShownPair]]
    training: Sequence[tuple[str, str]]

    def stage(self, name: str) -> StageFigures:
        return next(s for s in self.stages if s.name == name)


# -- words and numbers ---------------------------------------------------------------------------------------------------------------

#: Characters that a browser would not show, or read as markup errors.
_CONTROLS = {c: "\N{REPLACEMENT CHARACTER}" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}


def text(value: str, longest: int | None = None) -> str:
    """Text from the data, escaped for HTML text and quoted attributes; cut to ``longest`` characters."""
    cut = value if longest is None or len(value) <= longest else value[: longest - 1] + "…"
    return html.escape(cut.translate(_CONTROLS))


def number(n: float | None) -> str:
    """``12,345``; a dash for what is not known; ``∞``."""
    return "–" if n is None else "∞" if math.isinf(n) else f"{n:,.0f}"


def short(n: float) -> str:
    """At most five characters or so: ``9,999``, ``12.3 k``, ``4.56 M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if n >= size:
            value = n / (1e3 if unit == "k" else size)
            return f"{value:.{max(0, 2 - int(math.log10(value)))}f} {unit}"
    return f"{n:,.0f}"


def share(part: float | None, whole: float | None = 1) -> str:
    """``14.3 %``, two digits of what is less than 0.1 %; a dash where there is nothing to divide."""
    if part is None or not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.2g} %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def language_name(code: str) -> str:
    known = all_languages().get(code)
    return "Other languages" if code == OTHER else known.name if known else code


def plural(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _cell(shown: str, value: float | None = None) -> str:
    """A cell with a number, and the value to sort it by."""
    return f'<td class="n" data-v="{"" if value is None else "Infinity" if math.isinf(value) else repr(value)}">{shown}</td>'


def _table(head: str, rows: Iterable[str], kind: str, *, tall: bool = False) -> str:
    """A table that scrolls sideways where the page is narrow, and in a window of its own if it is ``tall``."""
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _absent(what: str) -> str:
    return f'<p class="absent">{what}</p>'


# -- the parts of the page -----------------------------------------------------------------------------------------------------------


def _counter(figures: Figures, stage: str, name: str) -> int | None:
    counters = figures.stage(stage).counters
    return None if counters is None else int(counters[name])


def _drawn_by_trainer(figures: Figures) -> bool:
    return bool((figures.stage("curated").parameters or {}).get(KEEP_SIBLINGS))


def lead(figures: Figures) -> str:
    """The set in one sentence, as far as it is there."""
    read, matched = _counter(figures, "matched", "read"), _counter(figures, "matched", "emitted")
    unique, kept = _counter(figures, "siblings", "emitted"), _counter(figures, "curated", "emitted")
    if read is None:
        return '<p class="lead">No pairs have been matched here yet.</p>'
    said = [f"{matched:,} matched an entry of their language"]
    if unique is not None:
        said.append(f"{unique:,} of these were unique")
    if kept is not None:
        where = "for a trainer that draws from them anew in each epoch" if _drawn_by_trainer(figures) else "in the balanced set"
        said.append(f"{kept:,} were kept {where}: {share(kept, read)} of what was read, {share(kept, unique)} of the unique")
    joined = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    return f'<p class="lead">Of {plural(read, "candidate pair", "candidate pairs")} that were read, {joined}.</p>'


def headline(figures: Figures) -> str:
    """The seven figures that everything below explains."""
    read, matched = _counter(figures, "matched", "read"), _counter(figures, "matched", "emitted")
    unique, kept = _counter(figures, "siblings", "emitted"), _counter(figures, "curated", "emitted")
    images, wanted = _counter(figures, "images", "emitted"), _counter(figures, "images", "read")
    lists = sum(x.entries is not None for x in figures.languages)
    # The furthest stage that knows languages decides which of them count as there.
    rows = next(
        (column for column in ([getattr(x, f) for x in figures.languages] for f in ("kept", "unique", "matched")) if any(column)), []
    )
    shown = [
        ("pairs read", read, ""),
        ("matched", matched, f"{share(matched, read)} of read" if matched is not None else ""),
        ("unique", unique, f"{share(unique, matched)} of matched" if unique is not None else ""),
        ("to draw from" if _drawn_by_trainer(figures) else "kept", kept, f"{share(kept, unique)} of unique" if kept is not None else ""),
        ("entries", figures.stage("entries").rows, f"in {plural(lists, 'list', 'lists')}" if lists else ""),
        ("languages", sum(bool(n) for n in rows) if rows else None, f"of {lists:,} with a list" if lists else ""),
        ("images", images, f"{share(images, wanted)} of {wanted:,} wanted" if images is not None else ""),
    ]
    return "\n".join(f"<div><dt>{name}</dt><dd>{number(n)}<small>{note}</small></dd></div>" for name, n, note in shown)


def flow(figures: Figures) -> str:
    """The books, stage by stage."""

    rows = []
    for stage in figures.stages:
        name = f'<th scope="row">{stage.name}<br><span class="of">{stage.of}</span></th>'
        if stage.counters is None:
            if stage.state != FINISHED:
                rows.append(f'<tr>{name}<td colspan="5" class="absent">{stage.state} {text(stage.detail)}</td></tr>')
            continue
        c = stage.counters
        letters = _reasons(c["dead_letter_reasons"])
        if c["bad_files"]:
            letters += f'<span class="of">in {plural(c["bad_files"], "damaged file", "damaged files")} of {c["files"]:,}</span>'
        off = c["read"] - c["emitted"] - sum(c["dropped"].values()) - c["dead_letters"]
        books = f'<span class="bad">do not close: {off:+,}</span>' if off else "close"
        rows.append(
            f'<tr>{name}<td class="n" data-what="read">{c["read"]:,}</td><td class="n" data-what="emitted">{c["emitted"]:,}</td>'
            f"{_flow_cell('dropped', _reasons(c['dropped']))}{_flow_cell('dead letters', letters)}{_flow_cell('books', books)}</tr>"
        )
    head = '<th>stage</th><th class="n">read</th><th class="n">emitted</th><th>dropped</th><th>dead letters</th><th>books</th>'
    return _table(head, rows, "wide flow")


def _reasons(counted: Mapping[str, int]) -> str:
    """Reasons and their counts, most frequent first; nothing where there are none."""
    most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    lines = "".join(f"<dt>{text(reason.replace('_', ' '))}</dt><dd>{n:,}</dd>" for reason, n in most)
    return f'<dl class="reasons">{lines}</dl>' if counted else ""


def _flow_cell(what: str, shown: str) -> str:
    """A cell that says what it is where there is no room for a heading."""
    return f'<td data-what="{what}">{shown}</td>' if shown else '<td class="none">–</td>'


def curves(figures: Figures) -> str:
    """Rank against count, log-log."""
    if not figures.curves:
        return _absent("Nothing has been counted here yet: this needs the stage counts.")
    about = (
        "<p>How many unique pairs match each entry, entries ordered by that number: a few match a large part of all pairs, most match "
        "hardly any. Balancing lowers the head; the tail loses only texts that were not chosen among several of one image. Both axes are "
        "logarithmic, and each line has an order of its own.</p>"
    )
    plots = []
    for curve in figures.curves:
        keys = '<span><i class="key was"></i>all unique pairs</span>&ensp; '
        keys += '<span><i class="key"></i>balanced set</span>&ensp; ' if curve.after is not None else ""
        keys += '<span><i class="key at"></i>threshold t</span>' if curve.t else ""
        plots.append(
            f"<figure><h3>{text(curve.title)}</h3>{curve_svg(curve)}<figcaption>{keys}<br>{text(curve.note)}</figcaption></figure>"
        )
    return f'{about}<div class="plots">{"".join(plots)}</div>'


def curve_svg(curve: Curve) -> str:
    """A log-log plot of 360 × 270 units, which is its size on a phone."""
    left, right, top, bottom = 40.0, 350.0, 10.0, 232.0
    lines = [curve.before, curve.after or []]
    # A decade at least, so that a single entry has an axis.
    decades_x, decades_y = (
        max(1, math.ceil(math.log10(max([1, *(point[axis] for line in lines for point in line)])) - 1e-9)) for axis in (0, 1)
    )

    def x(rank: float) -> float:
        return left + (right - left) * math.log10(rank) / decades_x

    def y(count: float) -> float:
        return bottom - (bottom - top) * math.log10(count) / decades_y

    out = [f'<svg viewBox="0 0 360 270" role="img" aria-label="{text(curve.title)}: count by rank of entry">']
    for d in range(decades_y + 1):
        kind = "axis" if d == 0 else "grid"
        out.append(f'<line class="{kind}" x1="{left:.0f}" x2="{right:.0f}" y1="{y(10**d):.1f}" y2="{y(10**d):.1f}"/>')
        out.append(f'<text x="{left - 6:.0f}" y="{y(10**d) + 4:.1f}" text-anchor="end">{_decade(d)}</text>')
    for d in range(decades_x + 1):
        kind = "axis" if d == 0 else "grid"
        out.append(f'<line class="{kind}" x1="{x(10**d):.1f}" x2="{x(10**d):.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>')
        out.append(f'<text x="{x(10**d):.1f}" y="{bottom + 16:.0f}" text-anchor="middle">{_decade(d)}</text>')
    out.append(f'<text x="{right:.0f}" y="{bottom + 33:.0f}" text-anchor="end">rank of the entry</text>')
    if curve.t:
        low, high = (min(t, 10.0**decades_y) for t in curve.t)
        label = f"t = {short(curve.t[0])}" if curve.t[0] == curve.t[1] else f"t from {short(curve.t[0])} to {short(curve.t[1])}"
        if low < high:
            out.append(
                f'<rect class="t-band" x="{left:.0f}" y="{y(high):.1f}" width="{right - left:.0f}" height="{y(low) - y(high):.1f}"/>'
            )
        out += [f'<line class="t-line" x1="{left:.0f}" x2="{right:.0f}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>' for t in sorted({low, high})]
        out.append(f'<text class="t-name" x="{right - 4:.0f}" y="{y(high) - 5:.1f}" text-anchor="end">{label}</text>')
    for kind, line in zip(("before", "after"), lines, strict=True):
        if line:
            path = " ".join(f"{x(rank):.1f},{y(count):.1f}" for rank, count in line)
            out.append(f'<polyline class="{kind}" points="{path}"/>')
    return "".join(out) + "</svg>"


def _decade(d: int) -> str:
    return f"{10 ** (d % 3)}{('', ' k', ' M', ' G', ' T')[d // 3]}"


def languages(figures: Figures) -> str:
    """The bar chart and the table of all languages with a list or a pair."""
    if not figures.languages:
        return _absent("No language is known here yet: this needs the stage entries or matched.")
    counted = [x for x in figures.languages if x.unique or x.matched]
    return (bars(counted) if counted else _absent("No pairs have been matched here yet.")) + language_table(figures.languages)


def bars(found: Sequence[LanguageFigures]) -> str:
    """Unique and kept pairs of the languages that have most, in one column or two."""
    shown, rest = found[:BARS], found[BARS:]
    largest = max(x.unique or x.matched or 1 for x in shown)
    half = -(-len(shown) // 2) if len(shown) > 10 else len(shown)
    columns = [shown[i : i + half] for i in range(0, len(shown), half)]
    plots = "".join(f"<figure>{bars_svg(column, largest)}</figure>" for column in columns)
    kept = any(x.kept is not None for x in shown)
    what = "unique pairs" if any(x.unique is not None for x in shown) else "matched pairs"
    note = f"Pairs per language{' (kept / unique)' if kept else f' ({what})'}, logarithmic from 1; the broad bar: all {what}"
    note += "; the thin bar: the balanced set." if kept else "."
    if rest:
        pairs = sum(x.unique or x.matched or 0 for x in rest)
        note += f" {plural(len(rest), 'more language', 'more languages')} with {plural(pairs, 'pair', 'pairs')} stand in the table."
    return f'<div class="plots">{plots}</div><p class="soft">{note}</p>'


def bars_svg(column: Sequence[LanguageFigures], largest: int) -> str:
    """Bars on a log axis that starts at 1, the least that a language with pairs has."""
    left, right, height = 112.0, 262.0, 17
    decades = max(1, math.ceil(math.log10(largest) - 1e-9))
    bottom = height * len(column) + 2

    def x(n: int) -> float:
        # A little more than nothing for a single pair, whose logarithm is 0.
        return left + max(1.5, (right - left) * math.log10(n) / decades) if n else left

    out = [f'<svg viewBox="0 0 360 {bottom + 18}" role="img" aria-label="Pairs per language, before and after balancing">']
    for d in range(decades + 1):
        at = left + (right - left) * d / decades
        out.append(f'<line class="{"grid" if d else "axis"}" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{bottom}"/>')
        out.append(f'<text x="{at:.1f}" y="{bottom + 13}" text-anchor="middle">{_decade(d)}</text>')
    for i, lang in enumerate(column):
        y, unique = i * height, lang.matched if lang.unique is None else lang.unique
        out.append(f'<text class="name" x="0" y="{y + 13}">{text(language_name(lang.code), 18)}</text>')
        out.append(f'<rect class="bar-before" x="{left}" y="{y + 3}" width="{x(unique or 0) - left:.1f}" height="12"/>')
        said = short(unique or 0)
        if lang.kept is not None:
            out.append(f'<rect class="bar-after" x="{left}" y="{y + 6}" width="{x(lang.kept) - left:.1f}" height="6"/>')
            said = f"{short(lang.kept)} / {said}"
        out.append(f'<text x="360" y="{y + 13}" text-anchor="end">{said}</text>')
    return "".join(out) + "</svg>"


def language_table(found: Sequence[LanguageFigures]) -> str:
    """A table that sorts; without scripts it stands in the order of its rows."""
    heads = ("matched", "unique", "kept", "kept share", "t", "tail share", "entries", "without match")
    head = '<th><button type="button">language</button></th>'
    ordered = ' aria-sort="descending"'
    head += "".join(f'<th class="n"{ordered if h == "unique" else ""}><button type="button">{h}</button></th>' for h in heads)
    rows = []
    for x in found:
        name = text(language_name(x.code))
        kept_share = x.kept / x.unique if x.kept is not None and x.unique else None
        cells = [_cell(number(n), n) for n in (x.matched, x.unique, x.kept)]
        cells += [_cell(share(kept_share), kept_share), _cell(number(x.t), x.t), _cell(share(x.tail_share), x.tail_share)]
        cells += [_cell(number(n), n) for n in (x.entries, x.unmatched)]
        rows.append(f'<tr><td data-v="{name}">{name} <span class="code">{text(x.code)}</span></td>{"".join(cells)}</tr>')
    about = (
        "<p>t: the threshold of the language. Tail share: the share of its matches that fall on entries below t. Without match: entries "
        "that no unique pair matches. Click a heading to sort.</p>"
    )
    return about + _table(head, rows, "wide sortable languages", tall=True)


def entries(figures: Figures) -> str:
    """The entries that lost most, and the largest ones."""
    if not figures.largest:
        return _absent("Nothing has been counted here yet: this needs the stage counts.")

    def rows(found: Iterable[EntryFigures]) -> Iterable[str]:
        for x in found:
            after = "" if x.after is None else f'<td class="n">{x.after:,}</td><td class="n">{share(x.after, x.before)}</td>'
            entry = f'<td class="entry" dir="auto"{_lang(x.lang)}>{text(x.entry, LONGEST_ENTRY)}</td>'
            yield f'<tr>{entry}<td class="code">{text(x.lang)}</td><td class="n">{x.before:,}</td>{after}</tr>'

    head = '<th>entry</th><th>in</th><th class="n">before</th><th class="n">after</th><th class="n">left</th>'
    if figures.stage("curated").counters is None:
        head = '<th>entry</th><th>in</th><th class="n">pairs</th>'
    tables = f"<div><h3>The largest</h3>{_table(head, rows(figures.largest), 'wide')}</div>"
    if figures.lost:
        tables = f"<div><h3>Those that lost most</h3>{_table(head, rows(figures.lost), 'wide')}</div>{tables}"
    return f'<p>Unique pairs that match an entry, before balancing and after it.</p><div class="pair-of-tables">{tables}</div>'


def _lang(code: str) -> str:
    """A lang attribute, by which browsers choose the right Han glyphs; only for codes that are language tags."""
    return f' lang="{code}"' if len(code) in (2, 3) and code.isascii() and code.isalpha() else ""


def pairs(figures: Figures) -> str:
    """A few curated pairs of each language, all but the first language's folded away."""
    if figures.stage("curated").counters is None:
        return _absent("There is no balanced set here yet: this needs the stage curated.")
    if not figures.pairs:
        return _absent("The balanced set is empty.")
    kept = {x.code: x.kept or 0 for x in figures.languages}
    out = [
        "<p>Drawn at random from the balanced set, the same ones every time. The marked words are the entries that the caption matches.</p>"
    ]
    for i, (code, found) in enumerate(figures.pairs.items()):
        items = "".join(_pair(pair, code) for pair in found)
        name = f'{text(language_name(code))} <span class="code">{text(code)}</span> <span class="n">{kept.get(code, 0):,} kept</span>'
        out.append(f'<details{" open" if i == 0 else ""}><summary>{name}</summary><ul class="pairs">{items}</ul></details>')
    return "\n".join(out)


def _pair(pair: ShownPair, code: str) -> str:
    lang = _lang(code)
    matched = " ".join(f'<bdi dir="auto"{lang}>{text(entry, LONGEST_ENTRY)}</bdi>' for entry in pair.entries)
    more = f" and {pair.more:,} more" if pair.more else ""
    return (
        f'<li><p class="caption" dir="auto"{lang}>{text(pair.caption, LONGEST_TEXT)}</p>'
        f'<p class="meta">kept with probability {pair.probability:.3g}: {matched}{more}<br>'
        f'<bdi class="url">{text(pair.url, LONGEST_TEXT)}</bdi></p></li>'
    )


def training(figures: Figures) -> str:
    if not figures.training:
        return _absent("No model has been trained here yet.")
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in figures.training)
    return f'<dl class="settings">{lines}</dl>'


def settings(figures: Figures) -> str:
    """Ids and parameters of what is there."""
    out = []
    for stage in figures.stages:
        if not stage.id:
            continue
        made_from = ", ".join(f"{kind} {id}" for kind, id in (stage.upstream or {}).items()) or "inputs"
        lines = [("id", stage.id), ("made from", made_from)]
        lines += [
            (key.replace("_", " "), json.dumps(value, ensure_ascii=False, sort_keys=True))
            for key, value in (stage.parameters or {}).items()
        ]
        shown = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in lines)
        rows = "" if stage.rows is None else f"{plural(stage.rows, 'row', 'rows')}"
        out.append(f'<details><summary>{stage.name} <span class="n">{rows}</span></summary><dl class="settings">{shown}</dl></details>')
    return "\n".join(out) or _absent("No stage is finished here yet.")


def render(figures: Figures) -> bytes:
    """The page. The same figures give the same bytes."""
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    page = Template(template).substitute(
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lead=lead(figures),
        headline=headline(figures),
        flow=flow(figures),
        curves=curves(figures),
        languages=languages(figures),
        entries=entries(figures),
        pairs=pairs(figures),
        training=training(figures),
        settings=settings(figures),
    )
    return page.encode()
