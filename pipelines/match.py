"""match: crawl files or pairs of one's own → pairs with language and entries. A map: one unit in, one part out."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import apache_beam as beam
import numpy as np

from balancing.automaton import ENGINES
from balancing.lid import LanguageIdentifier, load_lid, to_metadata_languages
from balancing.match import match_pairs
from balancing.pairs import PAIRS_VERSION
from metadata.tally import Tally, chain
from metadata.text import TEXT_VERSION
from pipelines import storage
from pipelines.automata import automata, budget_line
from pipelines.cache import local_copy
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.inputs import InputConfig, begun_without_packs, input_units, open_pairs
from pipelines.options import byte_size, option
from pipelines.stage import Stage, Unit, open_stage, unit_name

ABOUT = """Match image-text pairs against the entries of their language.

Reads WARC and WAT files (told apart by content), or pairs of your own: Parquet, JSON lines or webdataset shards (--format), with columns
url, text and optionally image_id. Identifies the language of every distinct text, finds the entries in it, and writes the pairs that match
at least one: a part per file, several of a large file of your own, one of many small ones (--sample-inputs draws them together)."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig(InputConfig):
    entries: str = option("the finished stage of the job entries", metavar="DIR")
    lid_model: str | None = option(
        "a fastText model file for language identification instead of the embedded lid.176.ftz", default=None, metavar="FILE"
    )
    lid_min_score: float = option("texts below this score have no language and go to the list 'other'", default=0.2, metavar="SCORE")
    matcher: str = option("the engine that finds entries; both give the same result", default="daachorse", choices=ENGINES)
    automata_memory: int = option("memory that automata may take in each process", default=2 << 30, parse=byte_size, metavar="SIZE")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lid_min_score <= 1:
            raise ValueError(f"--lid-min-score must lie between 0 and 1, not {self.lid_min_score}")


@cache
def identifier(model: str | None) -> LanguageIdentifier:
    """The language identifier of this process."""
    try:
        if model is None:
            return load_lid()
        if not storage.exists(model):
            raise JobError(f"--lid-model {model}: no such file")
        (file,) = storage.expand((model,))
        return load_lid(str(local_copy(model, f"lid-{unit_name(model + file.etag)}")))
    except (OSError, ValueError) as error:
        raise JobError(f"--lid-model {model}: {error}") from error


def same_identifier(lid: LanguageIdentifier, parameters: Mapping[str, Any], *, model: str | None) -> None:
    """Raises JobError where ``lid``, of this machine, would give other labels or scores than that of the machine where the stage began."""
    here, there = (lid.checksum, lid.method), (parameters["lid"], parameters["lid_method"])
    if here == there:
        return
    what = f"{platform.node() or 'a worker'}: {f'--lid-model {model}' if model else 'the embedded language identification model'}"
    if lid.checksum != parameters["lid"]:
        remedy = "name a file that every machine sees, such as a gs:// URL" if model else "install the same packages on every machine"
        raise JobError(f"{what} is another one (SHA-256 {here[0][:12]}…) than where the job began ({there[0][:12]}…): {remedy}")
    raise JobError(
        f"{what} is evaluated by another method ({here[1]}) than where the job began ({there[1]}), and scores would differ in their last "
        f"digits: install the same packages on every machine{f' ({lid.note})' if lid.note else ''}"
    )


def identify(texts: Sequence[str], *, model: str | None, min_score: float) -> tuple[list[str], np.ndarray, list[str]]:
    """LID label, score and metadata language of each text."""
    lid = identifier(model)
    labels, scores = lid.identify(texts)
    return labels, scores, to_metadata_languages(labels, scores, family=lid.family, min_score=min_score)


def match_unit(unit: Unit, *, stage: Stage, config: MatchConfig) -> None:
    """Match one unit and write its part."""
    same_identifier(identifier(config.lid_model), stage.parameters, model=config.lid_model)
    held = automata(config.entries, stage.upstream["entries"], config.matcher, config.automata_memory)
    matching = Tally()
    with open_pairs(unit, config) as pairs:
        table = match_pairs(
            pairs.tables,
            identify=partial(identify, model=config.lid_model, min_score=config.lid_min_score),
            open_matcher=held.open,
            opening_order=held.held_first,
            languages=stage.parameters["languages"],
            tally=matching,
        )
        stage.write_part(unit, table, chain(pairs.books(), matching), input_sha256=pairs.sha256, files=pairs.files)


def plan(config: MatchConfig, packs: Sequence[Sequence[str]] | None = None) -> tuple[Stage, list[Unit]]:
    """The stage to make and its units. ``packs``: those of the inputs, where they are known from elsewhere.

    Raises:
        JobError: the entries are not finished, an input is missing, the model cannot be used.
    """
    entries = open_stage(config.entries, "entries")
    lid = identifier(config.lid_model)
    if lid.note:
        print(f"match: {lid.note}", file=sys.stderr)
    stage = Stage(
        url=config.output,
        kind="match",
        parameters={
            **config.parameters(),
            "languages": sorted(p["name"].removesuffix(".parquet") for p in entries.parts),
            "lid": lid.checksum,
            "lid_method": lid.method,
            "lid_min_score": config.lid_min_score,
            "pairs_version": PAIRS_VERSION,
            "text_version": TEXT_VERSION,
        },
        upstream={"entries": entries.id},
        limits=config.limits,
    )
    if packs is None and begun_without_packs(stage, config):
        packs = ()
    return stage, input_units(config, packs)


def build(pipeline: beam.Pipeline, stage: Stage, config: MatchConfig) -> None:
    _ = (
        pipeline
        | "Begin" >> Begin()
        | "MatchUnits" >> ProcessUnits(stage, partial(match_unit, stage=stage, config=config), lanes=config.connections)
        | "FinishMatched" >> FinishStage(stage)
    )


def main(config: MatchConfig, beam_args: Sequence[str], *, packs: Sequence[Sequence[str]] | None = None) -> None:
    stage, units = plan(config, packs)
    if stage.begin(units):
        print(f"match: {budget_line(config.automata_memory, config.workers)}", file=sys.stderr)
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
