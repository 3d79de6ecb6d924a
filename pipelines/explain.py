"""explain: what the chain makes of one text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from balancing.pairs import image_id_of_url, pair_keys
from balancing.sampling import KEEP, entry_probabilities, text_probabilities, uniform
from balancing.thresholds import INFINITE
from metadata.languages import check_metadata_code
from metadata.text import normalize_text, space_texts
from pipelines import storage
from pipelines.automata import automata
from pipelines.chain import OUTPUTS
from pipelines.errors import JobError
from pipelines.match import identifier, identify
from pipelines.options import option
from pipelines.page import language_name
from pipelines.part import read_part
from pipelines.stage import SUCCESS, FinishedStage, open_stage
from pipelines.thresholds import read_thresholds

ABOUT = """Say what becomes of a text, and why: its language and the score, the text as the matcher reads it, the entries found in it,
and, where there are counts and thresholds, the probability with which it is kept.

    worldclip explain "A red double-decker bus" --work W"""

_BUDGET = 2 << 30


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    text: str = option("the text, as it stands on a page", metavar="TEXT", positional=True)
    work: str = option(
        "the directory of a chain: entries, and what there is of matched, counts, thresholds.json and curated", metavar="DIR"
    )
    language: str = option("take this language, instead of asking the language identifier", default="", metavar="CODE")
    url: str = option("the image's address: shows the draw for this very pair", default="", metavar="URL")
    lid_model: str | None = option(
        "the model that the pairs were matched with, if it is not the embedded one", default=None, metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """An entry in the text; what is not known is None."""

    id: int
    entry: str
    source: str
    count: int | None = None
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """The finished stages that have something to say."""

    entries: FinishedStage
    matched: FinishedStage | None
    counts: FinishedStage | None
    t: dict[str, float]
    seed: int | None

    @property
    def languages(self) -> list[str]:
        return [part["name"].removesuffix(".parquet") for part in self.entries.parts]


def _finished(work: str, job: str) -> FinishedStage | None:
    place = storage.join(work, OUTPUTS[job])
    return open_stage(place, job) if storage.exists(storage.join(place, SUCCESS)) else None


def open_work(url: str) -> Work:
    """What there is in a work directory.

    Raises:
        JobError: no entries, or counts or thresholds that were not made from what lies beside them.
    """
    entries = open_stage(storage.join(url, OUTPUTS["entries"]), "entries")
    counts, curated = _finished(url, "count"), _finished(url, "balance")
    if counts and counts.upstream["entries"] != entries.id:
        raise JobError(f"{counts.url} counts entries {counts.upstream['entries']}, but {entries.url} is {entries.id}: count again")
    t: dict[str, float] = {}
    place = storage.join(url, OUTPUTS["thresholds"])
    if counts and storage.exists(place):
        body, t = read_thresholds(place)
        if body["counts"] != counts.id:
            raise JobError(f"{place} was made from counts {body['counts']}, but {counts.url} is {counts.id}: make the thresholds again")
    seed = int(curated.parameters["seed"]) if curated else None
    return Work(entries=entries, matched=_finished(url, "match"), counts=counts, t=t, seed=seed)


def found_in(text: str, lang: str, work: Work) -> tuple[str, list[Found]]:
    """The text as the matcher reads it, and the entries of a language that are in it."""
    matcher = automata(work.entries.url, work.entries.id, "daachorse", _BUDGET).open(lang)
    (spaced,) = space_texts([text], matcher.rules)
    ids, _ = matcher.find([spaced])
    table = read_part(work.entries.part_url(f"{lang}.parquet"), columns=["entry", "source"]).take(ids)
    rows: list[dict[str, Any]] = table.to_pylist()
    known: list[dict[str, Any]] = [{} for _ in rows]
    if work.counts:
        counts = read_part(work.counts.part_url(f"{lang}.parquet"), columns=["count"])["count"].to_numpy()
        odds = entry_probabilities(counts, work.t[lang]) if lang in work.t else None
        known = [{"count": int(counts[i]), "probability": None if odds is None else float(odds[i])} for i in ids]
    return spaced, [Found(id=int(i), **row, **more) for i, row, more in zip(ids, rows, known, strict=True)]


def language_lines(text: str, config: ExplainConfig, work: Work) -> tuple[str, list[str]]:
    """The language whose entries are asked, and why it is that."""
    if config.language:
        try:
            check_metadata_code(config.language)
        except ValueError as error:
            raise JobError(f"--language: {error}") from error
        return config.language, [f"{config.language} ({language_name(config.language)}), as asked for"]
    parameters = dict(work.matched.parameters) if work.matched else {}
    min_score = float(parameters.get("lid_min_score", 0.2))
    if parameters and parameters["lid"] != identifier(config.lid_model).checksum:
        raise JobError("the pairs were matched with another language identification model: name it with --lid-model")
    labels, scores, langs = identify([text], model=config.lid_model, min_score=min_score)
    said = f"{langs[0]} ({language_name(langs[0])}): the label {labels[0] or '(none)'} with a score of {scores[0]:.2f}"
    if scores[0] < min_score:
        said += f", which is below --lid-min-score {min_score:g}"
    return langs[0], [said]


def decision_lines(text: str, lang: str, found: Sequence[Found], config: ExplainConfig, work: Work) -> list[str]:
    """What becomes of the text."""
    if not found:
        return [f"dropped: no entry of {lang} is in it"]
    if any(x.probability is None for x in found):
        missing = "no counts" if not work.counts else "no thresholds" if not work.t else f"no threshold for {lang}"
        return [f"it matches; there {'is' if 'threshold for' in missing else 'are'} {missing}, which a probability needs"]
    each = np.array([x.probability for x in found])
    probability = float(text_probabilities(each, np.arange(len(each)), np.array([0, len(each)]))[0])
    lines = [f"kept with probability {probability:.4g}, if it is the one that is chosen of its image's texts"]
    if config.url:
        seed = work.seed or 0
        image = image_id_of_url(config.url)
        draw = float(uniform(seed, 0, KEEP, pair_keys([image], [text]))[0])
        lines.append(f"with this image (id {image}) and seed {seed} the draw is {draw:.4f}: {'kept' if draw < probability else 'left out'}")
    return lines


def table_lines(found: Sequence[Found], t: float | None) -> list[str]:
    """The entries, rarest first, in columns; those that are not known are left out."""
    rows = [("id", "count", "probability", "source", "entry")] + [
        (
            str(x.id),
            "" if x.count is None else f"{x.count:,}",
            "" if x.probability is None else f"{x.probability:.4g}",
            x.source,
            x.entry,
        )
        for x in sorted(found, key=lambda x: (x.count or 0, x.id))
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    numbers = {"id", "count", "probability"}
    padded = []
    for column in columns:
        width = max(map(len, column))
        padded.append([cell.rjust(width) if column[0] in numbers else cell.ljust(width) for cell in column])
    lines = ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
    if t is not None:
        lines.append(f"t = {INFINITE if math.isinf(t) else f'{t:,.0f}'}: an entry that more pairs match has the probability t / count")
    return lines


def explain(config: ExplainConfig) -> list[tuple[str, list[str]]]:
    """(heading, lines) to print.

    Raises:
        JobError: there are no entries, or the parts of the work directory do not belong together.
    """
    work = open_work(config.work)
    text = normalize_text(config.text.replace("\0", " "))
    if not text:
        return [("text", ["(empty)"]), ("result", ["dropped: empty_text"])]
    lang, lines = language_lines(text, config, work)
    sections = [("text", [text]), ("language", lines)]
    if lang not in work.languages:
        return [*sections, ("result", [f"dropped: language_not_built; there are entries of {', '.join(work.languages)}"])]
    spaced, found = found_in(text, lang, work)
    sections.append(("as read", [f"“{spaced}”"]))
    sections.append(("entries", table_lines(found, work.t.get(lang)) if found else ["none"]))
    return [*sections, ("result", decision_lines(text, lang, found, config, work))]


def main(config: ExplainConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"explain does not know {beam_args[0]}")
    for heading, lines in explain(config):
        for i, line in enumerate(lines):
            print(f"{heading if i == 0 else '':10}{line}")
