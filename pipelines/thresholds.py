"""thresholds: from counts to t per language. Small enough to need no Beam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from balancing.thresholds import INFINITE, Threshold, parse_t, solve_thresholds
from pipelines import storage
from pipelines.errors import JobError
from pipelines.options import option, share
from pipelines.stage import FinishedStage, digest, open_stage, read_part

ABOUT = """Find the balancing threshold t of every language.

--t-en sets t for English, whose tail share p then gives t of every other language; --p sets the tail share itself; --t the same t
everywhere (inf: no balancing). With none of them the tail share is 6 %, as in both published settings."""

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ThresholdsConfig:
    counts: str = option("the finished stage of the job count", metavar="DIR")
    t_en: float | None = option("threshold for English", default=None, parse=parse_t, metavar="T")
    p: float | None = option(
        "tail share: the share of all matches that fall on entries below t", default=None, parse=share, metavar="SHARE"
    )
    t: float | None = option("one threshold for every language, or inf", default=None, parse=parse_t, metavar="T")
    min_language_matches: int = option("a language with fewer matches is kept whole", default=0, metavar="N")
    output: str = option("the JSON file to write", metavar="FILE")

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.t_en, self.p, self.t)) > 1:
            raise ValueError("give only one of --t-en, --p and --t")


def read_counts(counts: FinishedStage) -> dict[str, Any]:
    """int64 counts per entry id, per language."""
    return {p["name"].removesuffix(".parquet"): read_part(counts.part_url(p["name"]))["count"].to_numpy() for p in counts.parts}


def main(config: ThresholdsConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"thresholds does not know {beam_args[0]}")
    counts = open_stage(config.counts, "count")
    try:
        p, solved = solve_thresholds(
            read_counts(counts), t_en=config.t_en, p=config.p, t_all=config.t, min_matches=config.min_language_matches
        )
    except ValueError as error:
        raise JobError(f"{config.counts}: {error}") from error
    body = {
        "format_version": FORMAT_VERSION,
        "p": p,
        "languages": {lang: threshold.to_json() for lang, threshold in solved.items()},
        "counts": counts.id,
        "counts_path": storage.relative(config.counts, storage.parent(config.output)),
        "upstream": counts.upstream,
    }
    storage.write_json(config.output, {**body, "id": digest({k: v for k, v in body.items() if k != "counts_path"})})
    print_thresholds(solved)


def print_thresholds(solved: dict[str, Threshold]) -> None:
    """A line per language, most matches first."""
    print(f"{'language':12} {'matches':>14} {'t':>12} {'tail share':>11}")
    for lang, x in sorted(solved.items(), key=lambda item: (-item[1].matches, item[0])):
        t = INFINITE if math.isinf(x.t) else f"{x.t:,.0f}"
        print(f"{lang:12} {x.matches:14,} {t:>12} {x.p:11.2%}{'  kept whole' if x.whole else ''}")


def read_thresholds(url: str) -> tuple[dict[str, Any], dict[str, float]]:
    """A thresholds file, and t per language.

    Raises:
        JobError: absent, no thresholds file, or one that somebody changed by hand into nonsense.
    """
    body = storage.read_json(url)
    try:
        if body["format_version"] > FORMAT_VERSION:
            raise JobError(f"{url} was written by a newer worldclip: update worldclip")
        t = {lang: parse_t(x["t"]) for lang, x in body["languages"].items()}
        for key in ("id", "counts", "counts_path", "upstream"):
            body[key]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise JobError(f"{url} is no thresholds file of worldclip ({type(error).__name__}: {error})") from error
    return body, t
