"""plan: what would come out with other thresholds, and what it would take in time and disk. Needs no Beam: it reads counts and a sample."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from balancing.expectation import SCALE, guess_of_counts
from balancing.thresholds import TailCurve
from pipelines import costs, storage
from pipelines.costs import Cost
from pipelines.errors import JobError
from pipelines.expectation import Counted, Expected, expected_of_unit
from pipelines.options import option, positive
from pipelines.page import share, short
from pipelines.part import read_footer
from pipelines.plan_picture import Picture, Point, draw
from pipelines.progress import size_text
from pipelines.stage import FinishedStage, Limits, Stage, open_stage
from pipelines.threshold_options import ThresholdOptions, read_counts

ABOUT = """Say what balancing would keep with other thresholds, what of each language, and what the run would take: core-hours and disk.

With --matched and --siblings, the number of pairs is the expected one, from a sample of their parts; with counts alone it is a rough guess.
Match a sample of a crawl (match --sample-inputs 1%, then dedup and count), and --times 100 plans the whole of it: pairs, counts and t grow
as the inputs do. That leaves out that the parts of a whole have more pairs in common than those of a sample, so it is rather too much.

    worldclip plan --counts W/counts --matched W/matched --siblings W/siblings --times 100 --output plan.svg

Prints tables and draws them in one picture."""

#: Tail shares of the curve.
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
#: Those that have a line in the table.
_SHOWN = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0)
#: Languages that are shown.
MOST_LANGUAGES = 12


def times(text: str) -> float:
    """How many times the sample the whole is."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


@dataclass(frozen=True, kw_only=True)
class PlanConfig(ThresholdOptions):
    times: float = option("the whole is so many times what is there, which --t-en and --t are for", default=1.0, parse=times, metavar="N")
    sample_pairs: int = option("matched pairs to look at", default=2_000_000, parse=positive, metavar="N")
    output: str = option("the picture to write, an SVG file", default="plan.svg", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is told. ``chosen``: the thresholds of the options; ``main``: the language of most matches; ``pairs``: unique ones that are
    counted, per language; ``exact``: whether the numbers kept come from pairs, not from counts alone."""

    p: float
    chosen: Point
    curve: Sequence[Point]
    main: str
    pairs: Mapping[str, float]
    disk: Sequence[tuple[str, float, str]]
    work: Sequence[tuple[Cost, float]]
    exact: bool
    times: float

    @property
    def unique(self) -> float:
        return math.fsum(self.pairs.values())

    @property
    def how(self) -> str:
        """Where the number of pairs is from."""
        return "the expected number, from a sample" if self.exact else "a guess from counts alone, as if every image had one text"

    @property
    def languages(self) -> list[str]:
        """Most pairs first."""
        return sorted(self.pairs, key=lambda lang: (-self.pairs[lang], lang))


# -- what is expected ----------------------------------------------------------------------------------------------------------------


def thresholds_to_look_at(config: PlanConfig, counts: Mapping[str, np.ndarray]) -> tuple[float, list[tuple[float, dict[str, float]]]]:
    """p of the options; and (tail share, t per language) of the options' thresholds first, then of the curve's."""
    p, solved = config.solve(counts)
    chosen = {lang: min(x.t, float(counts[lang].max())) for lang, x in solved.items()}
    tails = {lang: TailCurve(counts[lang]) for lang in chosen}
    return p, [(p, chosen), *((x, {lang: float(tails[lang].threshold(x)) for lang in chosen}) for x in SHARES)]


def unique_pairs(counts: FinishedStage) -> dict[str, int]:
    """Unique pairs that were counted, per language: what the parts of the counts say."""
    out = {}
    for part in counts.parts:
        footer = read_footer(counts.part_url(part["name"]))
        if footer is None:
            raise JobError(f"{counts.part_url(part['name'])} is damaged: delete it and count again")
        out[part["name"].removesuffix(".parquet")] = int(footer.counters["emitted"])
    return out


def expect(counted: Counted, asked: Sequence[Mapping[str, float]], sample: int) -> Expected:
    """What can be expected at these thresholds, from about ``sample`` pairs; a part in memory."""
    t = {lang: sorted({of[lang] for of in asked}) for lang in asked[0]}
    units = counted.sample(sample)
    sums: dict[str, np.ndarray] = {}
    for unit in units:
        for lang, of in expected_of_unit(unit, counted.place, t={lang: np.array(ts) for lang, ts in t.items()}):
            sums[lang] = sums.get(lang, 0) + of
    kept = {lang: dict(zip(t[lang], (n / SCALE for n in of[1:].tolist()), strict=True)) for lang, of in sums.items()}
    found = Expected(pairs={lang: int(of[0]) for lang, of in sums.items()}, kept=kept)
    return found.scaled(counted.pool.rows / max(1, counted.rows_of(units)))


def make_plan(config: PlanConfig) -> Plan:
    """Everything that is told.

    Raises:
        JobError: the inputs do not belong together, or nothing matches.
    """
    stage = open_stage(config.counts, "count")
    counted, counts, pairs = config.open_counted(stage), read_counts(stage), unique_pairs(stage)
    p, asked = thresholds_to_look_at(config, counts)
    if not asked[0][1]:
        raise JobError(f"{config.counts}: no pair matches an entry, so there is nothing to plan")
    found = expect(counted, [t for _, t in asked], config.sample_pairs) if counted else None

    def kept_of(lang: str, t: float) -> float:
        return config.times * (found.kept.get(lang, {}).get(t, 0.0) if found else guess_of_counts(counts[lang], pairs[lang], t))

    def point(tail: float, t: Mapping[str, float]) -> Point:
        # In a whole so many times as large an entry has so many times the pairs.
        grown = {lang: of * config.times for lang, of in t.items()}
        return Point(p=tail, t=grown, kept={lang: kept_of(lang, of) for lang, of in t.items()})

    points = [point(tail, t) for tail, t in asked]
    main_language = max(points[0].t, key=lambda lang: (int(counts[lang].sum()), lang))
    return Plan(
        p=p,
        chosen=points[0],
        curve=points[1:],
        main=main_language,
        pairs={lang: n * config.times for lang, n in pairs.items() if n},
        disk=disk_of(stage, counted, points[0].total, config.times),
        work=work_of(counted, points[0].total, config.times),
        exact=found is not None,
        times=config.times,
    )


# -- what it takes -------------------------------------------------------------------------------------------------------------------


def inputs_of(stage: FinishedStage) -> dict[str, int]:
    """Path → bytes of what a stage ``match`` read."""
    return {file.path: file.size for unit in Stage.begun(stage.url, Limits()).units() for file in unit.inputs}


def disk_of(counts: FinishedStage, counted: Counted | None, kept: float, times: float) -> list[tuple[str, float, str]]:
    """(what, bytes, where the figure is from) of every stage from ``matched`` on. Counts grow with the entries, not with the pairs."""
    size = float(sum(part["bytes"] for part in counts.parts))
    out = [("counts", size, "as they are"), ("images", kept * costs.IMAGE_BYTES, f"{costs.IMAGE_BYTES // 1000} kB an image")]
    if counted:
        matched = float(sum(part["bytes"] for stage in counted.pool.stages for part in stage.parts))
        row = matched / max(1, counted.pool.rows)
        siblings = float(sum(part["bytes"] for part in counted.siblings.parts))
        read = float(sum(n for stage in counted.pool.stages for n in inputs_of(stage).values()))
        out[:0] = [("inputs", read * times, "as they were read")] if read else []
        out[-1:-1] = [("curated", kept * (row + 8), f"{row:,.0f} bytes a pair as in matched, and the probability")]
        before = [("matched", matched * times, f"{row:,.0f} bytes a pair"), ("siblings", siblings * times, "as they are")]
        out[1 if read else 0 : 1 if read else 0] = before
    return out


def work_of(counted: Counted | None, kept: float, times: float) -> list[tuple[Cost, float]]:
    """What is to be done, and of how many things, from ``match`` on."""
    if not counted:
        return [(costs.IMAGES, kept)]
    warc = sum(n for stage in counted.pool.stages for path, n in inputs_of(stage).items() if path.endswith(".warc.gz"))
    match = (costs.MATCH_WARC, warc / 1e6 * times) if warc else (costs.MATCH, counted.pool.counters["read"] * times)
    pairs = [(cost, counted.pool.rows * times) for cost in (costs.DEDUP, costs.COUNT, costs.THRESHOLDS, costs.BALANCE)]
    return [match, *pairs, (costs.IMAGES, kept)]


# -- what is printed -----------------------------------------------------------------------------------------------------------------


def hours_text(seconds: float) -> str:
    """Core time: hours, of less than a hundredth of which minutes or seconds."""
    hours = seconds / 3600
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.2f} h" if hours >= 0.01 else f"{seconds:.1f} s"


def lines_of(plan: Plan) -> list[str]:
    """The tables."""
    whole = f", of a whole {plan.times:g} times as large" if plan.times != 1 else ""
    out = [f"{short(plan.unique)} unique pairs in {len(plan.pairs)} languages{whole}. Pairs kept: {plan.how}.", ""]
    out.append(f"{'tail share':>10} {f't of {plan.main}':>14} {'pairs kept':>12} {'of unique':>10}")
    shown = [x for x in plan.curve if x.p in _SHOWN and (x.p, x.t) != (plan.chosen.p, plan.chosen.t)]
    for at in sorted([*shown, plan.chosen], key=lambda x: (x.total, x.p)):
        mark = "  <- chosen" if at is plan.chosen else ""
        out.append(f"{share(at.p):>10} {at.t[plan.main]:14,.0f} {short(at.total):>12} {share(at.total, plan.unique):>10}{mark}")
    out += ["", f"{'language':10} {'pairs':>12} {'t':>14} {'kept':>12} {'of pairs':>9} {'of the set':>11}"]
    for lang in plan.languages[:MOST_LANGUAGES]:
        kept = plan.chosen.kept.get(lang, 0.0)
        part = f"{share(kept, plan.pairs[lang]):>9} {share(kept, plan.chosen.total):>11}"
        out.append(f"{lang:10} {short(plan.pairs[lang]):>12} {plan.chosen.t.get(lang, 0):14,.0f} {short(kept):>12} {part}")
    if len(plan.pairs) > MOST_LANGUAGES:
        out.append(f"... and {len(plan.pairs) - MOST_LANGUAGES} more languages")
    out += ["", f"{'disk':10} {'size':>12}"]
    out += [f"{what:10} {size_text(size):>12}  {why}" for what, size, why in plan.disk]
    out += ["", f"{'stage':10} {'core time':>12}"]
    for cost, n in plan.work:
        out.append(f"{cost.stage:10} {hours_text(n * cost.seconds):>12}  {short(n)} {cost.of} ({cost.measured})")
    out.append(f"{'together':10} {hours_text(math.fsum(n * cost.seconds for cost, n in plan.work)):>12}  on one core, without waiting")
    return out


def main(config: PlanConfig, _: Sequence[str]) -> None:
    plan = make_plan(config)
    print("\n".join(lines_of(plan)))
    picture = Picture(
        title=f"{short(plan.chosen.total)} of {short(plan.unique)} pairs kept",
        note=f"Pairs kept: {plan.how}",
        main=plan.main,
        curve=plan.curve,
        chosen=plan.chosen,
        pairs=plan.pairs,
        languages=plan.languages[:MOST_LANGUAGES],
        disk=[(what, size_text(size)) for what, size, _ in plan.disk],
        work=[(cost.stage, hours_text(n * cost.seconds)) for cost, n in plan.work],
    )
    storage.write_bytes(config.output, draw(picture))
    print(f"\nplan: {config.output}")
