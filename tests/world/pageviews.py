"""Hourly page-view files in the published format: ``domain title views bytes``, sorted, with the odd lines of real ones."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.world.dumps import DATE, titles
from tests.world.vocabulary import Language

HOURS = 3


@dataclass(frozen=True, kw_only=True)
class PageviewTruth:
    """All hours together. ``views``: per language and title (spaces, no underscores), desktop and mobile summed.

    ``dropped``: lines that count for nothing, by reason; ``dead_letters``: broken lines, by reason.
    """

    lines: int
    views: Mapping[str, Mapping[str, int]]
    dropped: Mapping[str, int]
    dead_letters: Mapping[str, int]


def _useless_lines(code: str) -> list[tuple[str, str]]:
    """(reason, line) of whole lines that give no views of an article."""
    return [
        ("other_project", f"{code}.b Cookbook 19 0"),
        ("other_project", f"{code}.d free 77 0"),
        ("other_project", f"{code}.m.d free 7 0"),
        ("title_with_colon", f"{code} Special:Search 2629 0"),
        ("title_with_colon", f"{code}.m Special:Search 911 0"),
        ("zero_views", f"{code} Nobody_came 0 0"),
    ]


def _broken_lines(code: str) -> list[tuple[str, str]]:
    """(reason, line) of lines that cannot be read."""
    return [("views_not_a_number", f"{code} Letters_for_a_number many 0"), ("not_four_fields", f"{code} Cut_off")]


def write_pageviews(folder: Path, languages: Sequence[Language], count: int, rng: np.random.Generator) -> PageviewTruth:
    """Write HOURS files with ``count`` titles per language; views fall with the place of a title."""
    views: dict[str, Counter[str]] = {language.code: Counter() for language in languages}
    dropped: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    total = 0
    wanted = {language.code: list(itertools.islice(titles(language), count)) for language in languages}
    for hour in range(HOURS):
        lines = []
        for language in languages:
            mean = 200.0 / np.sqrt(1 + np.arange(count))
            for domain in (language.code, f"{language.code}.m"):
                drawn = 1 + rng.poisson(mean)
                for title, n in zip(wanted[language.code], drawn.tolist(), strict=True):
                    lines.append(f"{domain} {title.replace(' ', '_')} {n} 0")
                    views[language.code][title] += n
            useless, broken = _useless_lines(language.code), _broken_lines(language.code)
            lines += [line for _, line in useless + broken]
            dropped.update(reason for reason, _ in useless)
            dead.update(reason for reason, _ in broken)
        lines.append("commons.m File:Red_star.svg 30 0")
        dropped["other_project"] += 1
        total += len(lines)
        body = "".join(f"{line}\n" for line in sorted(lines)).encode()
        (folder / f"pageviews-{DATE}-{hour:02d}0000.gz").write_bytes(gzip.compress(body, 6, mtime=0))
    return PageviewTruth(lines=total, views={k: dict(v) for k, v in views.items()}, dropped=dict(dropped), dead_letters=dict(dead))
