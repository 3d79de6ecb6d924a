"""report: one HTML page on what went in and what came out. Needs no Beam: it reads counts and a few columns, a part at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from balancing.summary import (
    Head,
    Histogram,
    Recount,
    Shown,
    add_histograms,
    head_of,
    histogram,
    keep_largest,
    largest,
    rank_curve,
    rows_per_language,
)
from pipelines import storage
from pipelines.chain import OUTPUTS
from pipelines.errors import JobError
from pipelines.options import option
from pipelines.page import (
    ABSENT,
    ELSEWHERE,
    FINISHED,
    MOST_ENTRIES,
    UNFINISHED,
    Curve,
    EntryFigures,
    Figures,
    LanguageFigures,
    ShownPair,
    StageFigures,
    language_name,
    plural,
    render,
    share,
)
from pipelines.part import read_part
from pipelines.pool import MatchedPool, open_pool
from pipelines.stage import SUCCESS, FinishedStage, open_stage
from pipelines.thresholds import read_thresholds

ABOUT = """Write one HTML page on what went in and what came out.

Reads whatever stages are finished in the work directory, under the names that the chain gives them: ngrams, titles, wordnet, entries,
matched, siblings, counts, thresholds.json, curated, images, model. What is absent is said in the page. The page is a single file that loads
nothing from anywhere. Its captions and addresses come from the data as they are."""

#: Pairs shown of each language, and lines of the lists of entries.
PAIRS_SHOWN, ENTRIES_SHOWN = 10, 30
#: Fixed: the same set shows the same pairs.
_SEED = 0

#: What the books of a stage count, by the job that makes it.
_OF = {
    "ngrams": "pages",
    "titles": "lines of page views",
    "wordnet": "lemmas",
    "entries": "selected entries",
    "match": "candidate pairs",
    "dedup": "matched pairs",
    "count": "unique pairs",
    "thresholds": "languages",
    "balance": "matched pairs",
    "images": "images of curated pairs",
    "train": "trained on them",
}
_THRESHOLDS, _TRAIN = "thresholds", "train"
#: Of the trainer's log, what is neither a time nor a speed.
_LOGGED = ("step", "samples", "epoch", "loss", "logit_scale", "bad_images")
#: Of an evaluation, what says most in one figure.
_EVALUATED = ("accuracy", "image_to_text@1", "text_to_image@1")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    work: str = option("the directory of the chain", metavar="DIR")
    matched: tuple[str, ...] = option(
        "the finished stages of the job match, where the pool is not what lies in --work", default=(), metavar="DIR"
    )
    output: str = option("the HTML file to write, instead of report.html in --work", default="", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is there of a chain: finished stages by the job that made them, the pool of matched pairs, the thresholds file, and how every
    stage stands."""

    url: str
    stages: Mapping[str, FinishedStage]
    pool: MatchedPool | None
    thresholds: Mapping[str, Any] | None
    t: Mapping[str, float]
    states: Sequence[StageFigures]

    def parts(self, job: str) -> list[tuple[str, str]]:
        """(name, URL) of the parts of a stage, in order; none if it is absent."""
        stage = self.stages.get(job)
        if job == "match" and self.pool:
            return [(unit.path, unit.url) for unit in self.pool.units()]
        return [(part["name"], stage.part_url(part["name"])) for part in stage.parts] if stage else []


def open_work(url: str, matched: Sequence[str] = ()) -> Work:
    """Everything in a work directory that belongs together; ``matched``: the pool, where it is not the one that lies there.

    A stage that was made from another one than the one that lies beside it is named in the page, and nothing of it is used: its ids would
    be read as those of other entries.

    Raises:
        JobError: the directory holds none of the chain's stages, or something that only looks like one.
    """
    stages: dict[str, FinishedStage] = {}
    pool: MatchedPool | None = None
    ids: dict[str, str] = {}
    states: list[StageFigures] = []
    thresholds, t = None, dict[str, float]()
    for job, name in OUTPUTS.items():
        place = storage.join(url, name)
        finished = {_THRESHOLDS: place, _TRAIN: storage.join(place, "log.jsonl")}.get(job, storage.join(place, SUCCESS))
        if not storage.exists(finished) and not (job == "match" and matched):
            states.append(_state(job, UNFINISHED if storage.exists(storage.join(place, "stage.json")) else ABSENT))
        elif job == _TRAIN:
            states.append(_state(job, FINISHED))
        elif job == _THRESHOLDS:
            body, t_of_file = read_thresholds(place)
            stranger = _stranger({**body["upstream"], "count": body["counts"]}, ids)
            if not stranger:
                thresholds, t, ids[job] = body, t_of_file, body["id"]
            about = {"parameters": {"p": body["p"]}, "upstream": {"count": body["counts"]}, "id": body["id"]}
            states.append(_state(job, ELSEWHERE if stranger else FINISHED, stranger, **about))
        else:
            stage: FinishedStage | MatchedPool = open_pool(matched or (place,)) if job == "match" else open_stage(place, job)
            drawn_with = {_THRESHOLDS: stage.parameters["thresholds"]["id"]} if job == "balance" else {}
            stranger = _stranger({**stage.upstream, **drawn_with}, ids)
            about = {"parameters": stage.parameters, "upstream": stage.upstream, "id": stage.id}
            if stranger:
                states.append(_state(job, ELSEWHERE, stranger, **about))
            else:
                ids[job] = stage.id
                if isinstance(stage, MatchedPool):
                    pool = stage
                else:
                    stages[job] = stage
                states.append(_state(job, FINISHED, rows=stage.rows, counters=stage.counters, **about))
    if all(s.state == ABSENT for s in states):
        raise JobError(f"{url} holds none of {', '.join(OUTPUTS.values())}: --work is the directory in which the stages lie")
    return Work(url=url, stages=stages, pool=pool, thresholds=thresholds, t=t, states=states)


def _state(job: str, state: str, detail: str = "", **known: Any) -> StageFigures:
    return StageFigures(name=OUTPUTS[job].removesuffix(".json"), of=_OF[job], state=state, detail=detail, **known)


def _stranger(upstream: Mapping[str, str], ids: Mapping[str, str]) -> str:
    """Which of the stages that something was made from is another one than the one that is here; empty if none is."""
    for job, made_from in upstream.items():
        if job in ids and ids[job] != made_from:
            return f"{OUTPUTS[job]} ({made_from}) than the one here ({ids[job]})"
    return ""


# -- reading -------------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class PairFigures:
    """Pairs per language as the parts tell, and what is recounted from the curated ones."""

    matched: dict[str, int] = field(default_factory=dict)
    unique: dict[str, int] = field(default_factory=dict)
    recount: Recount = field(default_factory=Recount)
    shown: Shown = field(default_factory=lambda: Shown(size=PAIRS_SHOWN, seed=_SEED))


def read_pairs(work: Work) -> PairFigures:
    """Go through the parts of matched, siblings and curated, a few columns of one part at a time."""
    figures = PairFigures()
    siblings = dict(work.parts("dedup"))
    for name, url in work.parts("match"):
        table = read_part(url, columns=["lang"])
        _add(figures.matched, rows_per_language(table))
        if siblings:
            keep = read_part(siblings[name], columns=["keep"])["keep"]
            if len(keep) != len(table):
                raise JobError(f"{siblings[name]} has {len(keep)} rows, the matched part {len(table)}: run dedup again")
            _add(figures.unique, rows_per_language(table.filter(keep)))
    for i, (_, url) in enumerate(work.parts("balance")):
        table = read_part(url, columns=["lang", "entries", "pair_key"])
        try:
            figures.recount.add(table)
        except ValueError as error:
            raise JobError(f"{url}: {error}") from error
        figures.shown.add(i, table)
    return figures


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for lang, n in more.items():
        total[lang] = total.get(lang, 0) + n


@dataclass(kw_only=True)
class CountFigures:
    """What the counts say. ``largest`` and ``lost``: (value, language, id); ``numbers``: count before and after of what they list."""

    unmatched: dict[str, int] = field(default_factory=dict)
    matches: dict[str, int] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    before: dict[str, Histogram] = field(default_factory=dict)
    after: dict[str, Histogram] = field(default_factory=dict)
    largest: list[tuple[int, str, int]] = field(default_factory=list)
    lost: list[tuple[int, str, int]] = field(default_factory=list)
    numbers: dict[tuple[str, int], tuple[int, int | None]] = field(default_factory=dict)


def read_counts(work: Work, recount: Recount) -> CountFigures:
    """Go through the counts, one language at a time, and compare them with the curated set's; without one ``after`` stays empty."""
    figures, balanced = CountFigures(), "balance" in work.stages
    for name, url in work.parts("count"):
        lang = name.removesuffix(".parquet")
        counts = read_part(url, columns=["count"])["count"].to_numpy()
        figures.unmatched[lang], figures.matches[lang] = int(np.count_nonzero(counts == 0)), int(counts.sum())
        figures.heads[lang] = head_of(counts, work.t.get(lang, math.inf))
        figures.before[lang] = histogram(counts)
        figures.largest = _longer(figures.largest, lang, counts)
        after = None
        if balanced:
            try:
                after = recount.counts(lang, len(counts))
            except ValueError as error:
                raise JobError(f"{work.stages['balance'].url} holds other entries than the counts: {lang}: {error}") from error
            figures.after[lang] = histogram(after)
            figures.lost = _longer(figures.lost, lang, counts - after)
        for _, _, i in (row for row in (*figures.largest, *figures.lost) if row[1] == lang):
            figures.numbers[lang, i] = int(counts[i]), None if after is None else int(after[i])
    return figures


def _longer(rows: list[tuple[int, str, int]], lang: str, values: np.ndarray) -> list[tuple[int, str, int]]:
    """The list of entries once this language is in it."""
    return keep_largest([*rows, *((int(values[i]), lang, int(i)) for i in largest(values, ENTRIES_SHOWN))], ENTRIES_SHOWN)


def curves_of(work: Work, counted: CountFigures) -> list[Curve]:
    """All languages together, and English, or the largest language where there is no English."""
    met = [lang for lang, n in counted.matches.items() if n]
    if not met:
        return []
    one = "en" if "en" in met else max(met, key=lambda lang: counted.matches[lang])
    groups = [(language_name(one), [one])]
    if len(met) > 1:
        groups.insert(0, (f"All {len(met)} languages together", met))
    out = []
    for title, langs in groups:
        matches = sum(counted.matches[lang] for lang in langs)
        listed = sum(int(counted.before[lang][1].sum()) + counted.unmatched[lang] for lang in langs)
        finite = [work.t[lang] for lang in langs if math.isfinite(work.t.get(lang, math.inf))]
        note = f"{plural(matches, 'match', 'matches')} of {plural(listed, 'entry', 'entries')}."
        if finite:
            head = sum(counted.heads[lang].entries for lang in langs)
            held = sum(counted.heads[lang].share * counted.matches[lang] for lang in langs)
            note += (
                f" At or above {'t' if len(langs) == 1 else 'their t'}: {plural(head, 'entry', 'entries')}, {share(head, listed)} of all, "
                f"with {share(held, matches)} of the matches."
            )
        before, after = (add_histograms(h[lang] for lang in langs if lang in h) for h in (counted.before, counted.after))
        curve = rank_curve(after) if counted.after else None
        out.append(Curve(title=title, note=note, before=rank_curve(before), after=curve, t=(min(finite), max(finite)) if finite else None))
    return out


# -- naming --------------------------------------------------------------------------------------------------------------------------


def name_entries(work: Work, wanted: Mapping[str, set[int]]) -> dict[tuple[str, int], str]:
    """The entries of these ids, one language's list at a time; without the lists, the ids themselves."""
    lists = dict(work.parts("entries"))
    out: dict[tuple[str, int], str] = {}
    for lang, ids in sorted(wanted.items()):
        ordered = sorted(ids)
        names = [f"entry {i}" for i in ordered]
        if url := lists.get(f"{lang}.parquet"):
            column = read_part(url, columns=["entry"])["entry"]
            if ordered and ordered[-1] >= len(column):
                raise JobError(f"{url}: {lang} has {len(column)} entries, but a pair matches number {ordered[-1]}")
            names = column.take(pa.array(ordered, pa.int64())).to_pylist()
        out.update(zip(((lang, i) for i in ordered), names, strict=True))
    return out


def read_shown(work: Work, shown: Shown) -> dict[str, list[dict[str, Any]]]:
    """The rows of the curated pairs to show, per language in order of their draws."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    parts = work.parts("balance")
    for part, positions in shown.positions().items():
        table = read_part(parts[part][1], columns=["text", "url", "entries", "probability"])
        rows = table.take(pa.array([row for _, _, row in positions])).to_pylist()
        for (lang, place, _), row in zip(positions, rows, strict=True):
            found.setdefault(lang, []).append((place, row))
    return {lang: [row for _, row in sorted(rows, key=lambda item: item[0])] for lang, rows in found.items()}


def training_lines(url: str) -> list[tuple[str, str]]:
    """The last step and the last evaluation in a trainer's log: what was learned, not how fast."""
    if not storage.exists(url):
        return []
    step: dict[str, Any] = {}
    tested: dict[str, Any] = {}
    for line in storage.read_bytes(url).splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a run that was killed leaves half a line, which the trainer drops as well
        if "evaluation" in record:
            tested = record
        else:
            step = record
    lines = [(key.replace("_", " "), f"{step[key]:,.6g}") for key in _LOGGED if key in step]
    return lines + [
        (f"{task}: {metric.replace('_', ' ')}, {language_name(lang)}, step {tested['step']:,}", share(found[metric]))
        for task, languages in tested.get("evaluation", {}).items()
        for lang, found in sorted(languages.items())
        for metric in _EVALUATED
        if metric in found
    ]


# -- the whole -----------------------------------------------------------------------------------------------------------------------


def language_figures(work: Work, read: PairFigures, counted: CountFigures) -> list[LanguageFigures]:
    """Every language with a list or a pair, most unique pairs first."""
    stages, found = work.stages, (work.thresholds or {}).get("languages", {})
    lists = {p["name"].removesuffix(".parquet"): p["rows"] for p in stages["entries"].parts} if "entries" in stages else {}
    unique_known = work.pool is not None and "dedup" in stages
    out = [
        LanguageFigures(
            code=lang,
            matched=read.matched.get(lang, 0) if work.pool else None,
            unique=read.unique.get(lang, 0) if unique_known else None,
            kept=read.recount.pairs.get(lang, 0) if "balance" in stages else None,
            t=work.t.get(lang),
            tail_share=found[lang]["p"] if lang in found else None,
            entries=lists.get(lang),
            unmatched=counted.unmatched.get(lang),
        )
        for lang in sorted({*lists, *read.matched, *read.recount.pairs, *counted.unmatched})
    ]
    return sorted(out, key=lambda x: (-(x.unique or 0), -(x.matched or 0), -(x.kept or 0), x.code))


def gather(url: str, matched: Sequence[str] = ()) -> Figures:
    """All figures of a work directory.

    Holds a part's columns lang, entries and pair_key, the counts of one language, 8 bytes per entry of the curated set's languages, and
    :data:`PAIRS_SHOWN` pairs of each.

    Raises:
        JobError: nothing is there, or a part is damaged.
    """
    work = open_work(url, matched)
    read = read_pairs(work)
    counted = read_counts(work, read.recount)
    shown = read_shown(work, read.shown)
    wanted: dict[str, set[int]] = {}
    for _, lang, i in (*counted.largest, *counted.lost):
        wanted.setdefault(lang, set()).add(i)
    for lang, rows in shown.items():
        wanted.setdefault(lang, set()).update(i for row in rows for i in row["entries"][:MOST_ENTRIES])
    names = name_entries(work, wanted)

    def listed(rows: Sequence[tuple[int, str, int]]) -> list[EntryFigures]:
        numbers = counted.numbers
        return [EntryFigures(entry=names[x, i], lang=x, before=numbers[x, i][0], after=numbers[x, i][1]) for _, x, i in rows]

    def pair(lang: str, row: Mapping[str, Any]) -> ShownPair:
        first = row["entries"][:MOST_ENTRIES]
        return ShownPair(
            caption=row["text"],
            url=row["url"] or "",
            entries=[names[lang, i] for i in first],
            more=len(row["entries"]) - len(first),
            probability=row["probability"],
        )

    found = language_figures(work, read, counted)
    return Figures(
        stages=work.states,
        languages=found,
        curves=curves_of(work, counted),
        largest=listed(counted.largest),
        lost=listed(counted.lost),
        pairs={x.code: [pair(x.code, row) for row in shown[x.code]] for x in found if x.code in shown},
        training=training_lines(storage.join(url, OUTPUTS[_TRAIN], "log.jsonl")),
    )


def main(config: ReportConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"report does not know {beam_args[0]}")
    output = config.output or storage.join(config.work, "report.html")
    storage.write_bytes(output, render(gather(config.work, config.matched)))
    print(f"report: {output}")
