"""How thresholds are chosen on a command line, and of which counts and pairs: what the jobs thresholds and plan have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from balancing.thresholds import Threshold, parse_t, solve_thresholds
from pipelines.errors import JobError
from pipelines.expectation import Counted
from pipelines.options import option, share
from pipelines.part import read_part
from pipelines.pool import check_counts, check_siblings, open_pool
from pipelines.stage import FinishedStage, open_stage

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    counts: str = option("the finished stage of the job count", metavar="DIR")
    t_en: float | None = option("threshold for English", default=None, parse=parse_t, metavar="T")
    p: float | None = option(
        "tail share: the share of all matches that fall on entries below t", default=None, parse=share, metavar="SHARE"
    )
    t: tuple[str, ...] = option(
        "one threshold for every language, or inf; LANG=T: that of this language, whatever the others have", default=(), metavar="T"
    )
    min_language_matches: int = option("a language with fewer matches is kept whole", default=0, metavar="N")
    matched: tuple[str, ...] = option("the pairs that were counted, to say how many are kept", default=(), metavar="DIR")
    siblings: str = option("their siblings, for the same purpose", default="", metavar="DIR")

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.t_en, self.p, self.t_all)) > 1:
            raise ValueError("give only one of --t-en, --p and --t")
        own = self.t_of
        if self.t_en is not None and "en" in own:
            raise ValueError("--t-en and --t en=: give t for English once")
        if bool(self.matched) != bool(self.siblings):
            raise ValueError("give --matched and --siblings together, or neither")

    @property
    def t_all(self) -> float | None:
        """The t that all languages have."""
        plain = [value for value in self.t if "=" not in value]
        if len(plain) > 1:
            raise ValueError(f"--t {' '.join(plain)}: give one threshold for every language")
        return _told("--t", parse_t, plain[0]) if plain else None

    @property
    def t_of(self) -> dict[str, float]:
        """t of the languages that have one of their own."""
        return of_languages("--t", parse_t, [value for value in self.t if "=" in value])

    def solve(
        self, counts: Mapping[str, Any], *, p: float | None = None, t_of: Mapping[str, float] | None = None
    ) -> tuple[float, dict[str, Threshold]]:
        """p and the thresholds of all languages with counts; ``p`` and ``t_of``: found elsewhere, beside the options.

        Raises:
            JobError: the options do not fit the counts.
        """
        try:
            return solve_thresholds(
                counts,
                t_en=self.t_en,
                p=self.p if p is None else p,
                t_all=self.t_all,
                t_of={**self.t_of, **(t_of or {})},
                min_matches=self.min_language_matches,
            )
        except ValueError as error:
            raise JobError(f"{self.counts}: {error}") from error

    def open_counted(self, counts: FinishedStage) -> Counted | None:
        """The pairs that were counted, if they are given.

        Raises:
            JobError: they are others.
        """
        if not self.matched:
            return None
        pool, siblings = open_pool(self.matched), open_stage(self.siblings, "dedup")
        check_siblings(pool, siblings)
        check_counts(pool, siblings, counts)
        return Counted(pool=pool, siblings=siblings, counts=counts)


def of_languages(flag: str, read: Callable[[str], T], values: Sequence[str]) -> dict[str, T]:
    """Language → value of options that are written LANG=VALUE.

    Raises:
        ValueError: one is not, or names a language for the second time.
    """
    out: dict[str, T] = {}
    for value in values:
        lang, sign, said = value.partition("=")
        if not lang or not sign:
            raise ValueError(f"{flag} {value}: write LANG=..., for instance de=...")
        if lang in out:
            raise ValueError(f"{flag} names {lang} twice")
        out[lang] = _told(f"{flag} {lang}", read, said)
    return out


def _told(flag: str, read: Callable[[str], T], said: str) -> T:
    try:
        return read(said)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{flag}: {error}") from None


def read_counts(counts: FinishedStage) -> dict[str, Any]:
    """int64 counts per entry id, per language."""
    return {p["name"].removesuffix(".parquet"): read_part(counts.part_url(p["name"]))["count"].to_numpy() for p in counts.parts}
