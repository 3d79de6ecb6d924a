"""thresholds: from counts to t per language, and in words what that means. Small enough to need no Beam, but for --target-pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from balancing.expectation import SCALE, SHARED, groups_for
from balancing.thresholds import INFINITE, Threshold, parse_t
from pipelines import storage
from pipelines.errors import JobError
from pipelines.expectation import Counted, expected_of_unit, search
from pipelines.options import JobConfig, option, positive, share
from pipelines.stage import digest, open_stage
from pipelines.threshold_options import ThresholdOptions, of_languages, read_counts

ABOUT = """Find the balancing threshold t of every language.

--t-en sets t for English, whose tail share p then gives t of every other language; --p sets the tail share itself; --t the same t
everywhere (inf: no balancing). With none of them the tail share is 6 %, as in both published settings. --t LANG=T gives one language a t
of its own, whatever the others have.

--target-pairs looks for the tail share with which about so many pairs are kept, a text of an image at most, in a set of all languages. It
goes over --matched and --siblings once or twice, on Beam; what a pass found is kept beside the output, in FILE.passes.

    worldclip thresholds ... --target-pairs 50000000 --language-share de=10% fr=10%

Prints what they mean, and how they differ from those that were in the file before. With --matched and --siblings, which change nothing in
the file, also the share of the pairs that balance can be expected to keep."""

FORMAT_VERSION = 1
#: Languages that the printed table shows.
MOST_LANGUAGES = 20
#: Matched parts from which the share of pairs is taken, spread over all of them: some million pairs, a minute or two.
SAMPLE_PARTS = 16


@dataclass(frozen=True, kw_only=True)
class ThresholdsConfig(ThresholdOptions, JobConfig):
    target_pairs: int | None = option(
        "find the tail share with which so many pairs can be expected to be kept; needs --matched and --siblings",
        default=None,
        parse=positive,
        metavar="N",
    )
    language_share: tuple[str, ...] = option(
        "with --target-pairs: the share of them that is to be of this language, which gets a t of its own for it",
        default=(),
        metavar="LANG=SHARE",
    )
    output: str = option("the JSON file to write", metavar="FILE")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shares and self.target_pairs is None:
            raise ValueError("--language-share needs --target-pairs, of which it is a share")
        if self.target_pairs is not None and (self.t_en or self.p is not None or self.t_all):
            raise ValueError("give only one of --t-en, --p, --t and --target-pairs")
        if self.target_pairs is not None and not self.matched:
            raise ValueError("--target-pairs needs --matched and --siblings: counts do not say which entries stand in one text")

    @property
    def shares(self) -> dict[str, float]:
        """Of --target-pairs, per language that has a share of its own."""
        return of_languages("--language-share", share, self.language_share)


def main(config: ThresholdsConfig, beam_args: Sequence[str]) -> None:
    if beam_args and config.target_pairs is None:
        raise JobError(f"thresholds does not know {beam_args[0]}")
    stage = open_stage(config.counts, "count")
    counted = config.open_counted(stage)
    counts = read_counts(stage)
    aim = take_aim(config, counts, counted, beam_args) if counted and config.target_pairs else None
    p, solved = config.solve(counts, p=aim.p if aim else None, t_of=aim.t_of if aim else None)
    body = {
        "format_version": FORMAT_VERSION,
        "p": p,
        "languages": {lang: threshold.to_json() for lang, threshold in solved.items()},
        "counts": stage.id,
        "counts_path": storage.relative(config.counts, storage.parent(config.output)),
        "upstream": stage.upstream,
    }
    body["id"] = digest({k: v for k, v in body.items() if k != "counts_path"})
    if aim:
        body["expected_pairs"] = {lang: round(n) for lang, n in aim.expected.items()}
    before = read_before(config.output)
    changed = before is not None and before[0]["id"] != body["id"]
    if not config.dry_run:
        storage.write_json(config.output, body)
    kept = aim.kept if aim else kept_shares(counted, {lang: x.t for lang, x in solved.items()}) if counted else {}
    matches = {lang: float(np.minimum(counts[lang], x.t).sum() / x.matches) for lang, x in solved.items()}
    print("\n".join([*table(solved, matches=matches, kept=kept, before=before[1] if before and changed else {}), "", in_words(kept)]))
    if aim:
        print(f"\n{aim.said}")
    if unmatched := [lang for lang in counts if lang not in solved]:
        print(f"\nNo pair matches an entry of {', '.join(unmatched)}: no threshold.")
    if before:
        print(f"\n{compared(body, solved, *before)}")


# -- a number of pairs that is wanted --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What --target-pairs found: p of the languages that share one (None: there are none), t of the others, what can be expected per
    language, which share of its pairs that is, and all this in words."""

    p: float | None
    t_of: Mapping[str, float]
    expected: Mapping[str, float]
    kept: Mapping[str, float]
    said: str


def take_aim(config: ThresholdsConfig, counts: Mapping[str, np.ndarray], counted: Counted, beam_args: Sequence[str]) -> Aim:
    """Find the thresholds with which about --target-pairs pairs are kept.

    Raises:
        JobError: so many, or so few, there cannot be; the languages with a share are not those of the counts, or the shares do not add up.
    """
    # Beam takes a second to import, for which whoever only reads thresholds need not wait.
    from pipelines.passes import Passes

    target = config.target_pairs or 0
    passes = Passes(directory=f"{config.output}.passes", beam_args=beam_args, workers=config.workers)
    whole = {lang: math.inf for lang, of in counts.items() if 0 < of.sum() < config.min_language_matches and lang not in config.shares}
    # At its largest count a language is whole; the passes look at no larger t.
    fixed = {lang: min(t, float(counts[lang].max())) for lang, t in {**whole, **config.t_of}.items() if lang in counts}
    try:
        groups = groups_for(counts, target, shares=config.shares, fixed=fixed)
    except ValueError as error:
        raise JobError(f"{config.counts}: {error}") from error
    found, answers, pairs = search(counted, groups, fixed, passes)
    t = {lang: of for answer in answers.values() for lang, of in answer.t.items()}
    expected = found.expected({**fixed, **t})
    p = answers[SHARED].knob if SHARED in answers else None
    total, step = math.fsum(expected.values()), max((answer.step for answer in answers.values()), default=0.0)
    said = f"{total:,.0f} pairs can be expected, {target:,} were asked for; a draw differs from that by some {2 * math.sqrt(total):,.0f}."
    said += f" The next thresholds that there are give {step:,.0f} more or less." if step > 2 * math.sqrt(total) else ""
    said += f"\nThe tail share is {p:.6g}: --p {p:.6g} gives the same." if p is not None and not config.shares else ""
    return Aim(
        p=p,
        t_of={lang: of for name, answer in answers.items() if name != SHARED for lang, of in answer.t.items()},
        expected=expected,
        kept={lang: n / pairs[lang] for lang, n in expected.items() if pairs.get(lang)},
        said=said,
    )


# -- what is said of them --------------------------------------------------------------------------------------------------------------


def kept_shares(counted: Counted, t: Mapping[str, float]) -> dict[str, float]:
    """Share of each language's unique pairs that can be expected to be kept, from at most SAMPLE_PARTS parts; one of them in memory."""
    units, unique, kept = counted.pool.units(), Counter[str](), Counter[str]()
    thresholds = {lang: np.array([of]) for lang, of in t.items()}
    for unit in units[:: -(-len(units) // SAMPLE_PARTS) or 1]:
        for lang, (pairs, sums) in expected_of_unit(unit, counted.place, t=thresholds):
            unique[lang] += int(pairs)
            kept[lang] += int(sums)
    return {lang: kept[lang] / SCALE / n for lang, n in unique.items() if n}


def table(
    solved: Mapping[str, Threshold], *, matches: Mapping[str, float], kept: Mapping[str, float], before: Mapping[str, float]
) -> list[str]:
    """A line per language, most matches first, of those that have most. ``matches`` and ``kept``: shares of matches and pairs that stay."""
    columns: list[tuple[str, int, Any]] = [
        ("matches", 14, lambda lang, x: f"{x.matches:,}"),
        ("t", 12, lambda lang, x: _written(x.t)),
        ("t before", 12, lambda lang, x: _written(before[lang]) if lang in before else "-"),
        ("tail share", 11, lambda lang, x: f"{x.p:.2%}"),
        ("matches kept", 13, lambda lang, x: f"{matches[lang]:.2%}"),
        ("pairs kept", 11, lambda lang, x: f"{kept[lang]:.2%}" if lang in kept else "-"),
    ]
    shown = [column for column in columns if (column[0] != "t before" or before) and (column[0] != "pairs kept" or kept)]
    rows = sorted(solved.items(), key=lambda item: (-item[1].matches, item[0]))
    out = [f"{'language':12}" + "".join(f" {name:>{width}}" for name, width, _ in shown)]
    for lang, x in rows[:MOST_LANGUAGES]:
        out.append(f"{lang:12}" + "".join(f" {of(lang, x):>{width}}" for _, width, of in shown) + ("  kept whole" if x.whole else ""))
    return out if len(rows) <= MOST_LANGUAGES else [*out, f"... and {len(rows) - MOST_LANGUAGES} more languages"]


def in_words(kept: Mapping[str, float]) -> str:
    """What the columns of the table are, for somebody who sees it for the first time."""
    pairs = (
        ["pairs kept    share of the pairs that balance can be expected to keep, one text of an image at most"]
        if kept
        else ["              more of the pairs are: most have several entries, and one is enough (--matched says how many)"]
    )
    return "\n".join(
        [
            "t             an entry that t pairs or more match keeps each of them with probability t / count, a rarer one all",
            "tail share    share of all matches that fall on the rarer ones",
            "matches kept  share of all matches that are kept",
            *pairs,
        ]
    )


def _written(t: float) -> str:
    return INFINITE if math.isinf(t) else f"{t:,.0f}"


def read_before(url: str) -> tuple[dict[str, Any], dict[str, float]] | None:
    """The thresholds that are in the place of the new ones, if there are any."""
    try:
        return read_thresholds(url) if storage.exists(url) else None
    except JobError:
        return None


def compared(body: Mapping[str, Any], solved: Mapping[str, Threshold], before: Mapping[str, Any], t_before: Mapping[str, float]) -> str:
    """How new thresholds differ from those that were in their place, and what that means for a set drawn with them."""
    if body["id"] == before["id"]:
        return "The same thresholds were there before."
    if body["counts"] != before["counts"]:
        return "Those that were there before were made from other counts: a set drawn with these is another one."
    rose, fell = (sum(sign * x.t > sign * t_before[lang] for lang, x in solved.items() if lang in t_before) for sign in (1, -1))
    if not rose and not fell:
        return "t is what it was in every language: with the same seed the set is the same."
    relation = "a part of" if not rose else "more than" if not fell else "neither a part of nor more than"
    return (
        f"t rose in {rose} of {len(solved)} languages and fell in {fell}. With the same seed the new set is {relation} the one before;\n"
        "give balance another --output for it."
    )


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
