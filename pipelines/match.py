"""match: crawl files or pairs of one's own → pairs with language and entries. A map: one unit in, one part out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import apache_beam as beam
import numpy as np
import pyarrow as pa

from balancing.automaton import ENGINES
from balancing.crawl import read_crawl
from balancing.extraction import PUBLISHED_TEXTS, TEXTS, Extraction
from balancing.lid import LanguageIdentifier, load_lid, to_metadata_languages
from balancing.match import match_pairs
from balancing.own import read_own_pairs, row_groups_of
from balancing.pairs import PAIRS_VERSION
from metadata.tally import Tally, chain
from metadata.text import TEXT_VERSION
from pipelines import storage
from pipelines.automata import automata
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.options import JobConfig, byte_size, option
from pipelines.stage import Stage, Unit, open_stage, unit_name, units_of_files

ABOUT = """Match image-text pairs against the entries of their language.

Reads WARC and WAT files (told apart by content), or Parquet with columns url, text and optionally image_id. Identifies the language of
every distinct text, finds the entries in it, and writes the pairs that match at least one, a part per input file."""

#: Rows, and bytes uncompressed, of own pairs that make a unit: about what a file of Common Crawl holds, and what a worker holds at once.
OWN_ROWS, OWN_BYTES = 1_000_000, 512 << 20


@dataclass(frozen=True, kw_only=True)
class MatchConfig(JobConfig):
    input: tuple[str, ...] = option("files, globs or URLs of the pairs", metavar="PATH")
    entries: str = option("the finished stage of the job entries", metavar="DIR")
    format: str = option("crawl (WARC, WAT) or parquet (pairs of your own)", default="crawl", choices=("crawl", "parquet"))
    texts: str = option(
        f"texts of an image in crawl files, with commas, out of {', '.join(TEXTS)}; the last two are in WARC files only",
        default=",".join(PUBLISHED_TEXTS),
        metavar="NAMES",
    )
    lazy_images: bool = option(
        "where a page has a placeholder and its script loads the image (data-src, srcset ...), take that; in WARC files only", default=False
    )
    lid_model: str | None = option(
        "a fastText model file for language identification instead of the embedded lid.176.ftz", default=None, metavar="FILE"
    )
    lid_min_score: float = option("texts below this score have no language and go to the list 'other'", default=0.2, metavar="SCORE")
    matcher: str = option("the engine that finds entries; both give the same result", default="daachorse", choices=ENGINES)
    automata_memory: int = option("memory budget of a process for automata", default=2 << 30, parse=byte_size, metavar="SIZE")

    def __post_init__(self) -> None:
        if not 0 <= self.lid_min_score <= 1:
            raise ValueError(f"--lid-min-score must lie between 0 and 1, not {self.lid_min_score}")
        try:
            self.extraction()
        except ValueError as error:
            raise ValueError(f"--texts: {error}") from None

    def extraction(self) -> Extraction:
        """What is taken from pages."""
        return Extraction(texts=tuple(name.strip() for name in self.texts.split(",")), lazy=self.lazy_images)


@cache
def identifier(model: str | None) -> LanguageIdentifier:
    """The language identifier of this process."""
    try:
        if model is None:
            return load_lid()
        if not storage.exists(model):
            raise JobError(f"--lid-model {model}: no such file")
        (file,) = storage.expand((model,))
        return load_lid(str(storage.cached_copy(model, f"lid-{unit_name(model + file.etag)}")))
    except (OSError, ValueError) as error:
        raise JobError(f"--lid-model {model}: {error}") from error


def identify(texts: Sequence[str], *, model: str | None, min_score: float) -> tuple[list[str], np.ndarray, list[str]]:
    """LID label, score and metadata language of each text."""
    lid = identifier(model)
    labels, scores = lid.identify(texts)
    return labels, scores, to_metadata_languages(labels, scores, family=lid.family, min_score=min_score)


@contextmanager
def open_pairs(unit: Unit, config: MatchConfig, tally: Tally) -> Iterator[tuple[Iterator[pa.Table], storage.HashingReader | None]]:
    """The pairs of a unit, and the reader that knows the SHA-256 of a file that is read whole."""
    if config.format == "parquet":
        with storage.open_read(unit.url) as file:
            yield read_own_pairs(file, range(unit.offset, unit.offset + unit.length), tally=tally), None
    else:
        with storage.open_hashing(unit.url) as (file, reader):
            yield read_crawl(file, tally=tally, take=config.extraction()), reader


def match_unit(unit: Unit, *, stage: Stage, config: MatchConfig) -> None:
    """Match one unit and write its part."""
    reading, matching = Tally(), Tally()
    with open_pairs(unit, config, reading) as (pairs, reader):
        table = match_pairs(
            pairs,
            identify=partial(identify, model=config.lid_model, min_score=config.lid_min_score),
            open_matcher=automata(config.entries, stage.upstream["entries"], config.matcher, config.automata_memory).open,
            languages=stage.parameters["languages"],
            tally=matching,
        )
        sha256 = reader.hexdigest() if reader else ""
    stage.write_part(unit, table, chain(reading, matching), input_sha256=sha256)


def own_units(files: Sequence[storage.FileInfo]) -> list[Unit]:
    """Units of Parquet files: runs of row groups of at most OWN_ROWS and OWN_BYTES, or a single larger row group."""
    units = []
    for whole in units_of_files(files):
        try:
            with storage.open_read(whole.url) as f:
                groups = row_groups_of(f)
        except ValueError as error:
            raise JobError(f"{whole.url}: {error}") from error
        first = rows = size = 0
        for end, (next_rows, next_size) in enumerate([*groups, (OWN_ROWS, OWN_BYTES)]):
            if end > first and (rows + next_rows > OWN_ROWS or size + next_size > OWN_BYTES):
                units.append(replace(whole, name=unit_name(whole.path, offset=first), offset=first, length=end - first))
                first, rows, size = end, 0, 0
            rows, size = rows + next_rows, size + next_size
    return units


def plan(config: MatchConfig) -> tuple[Stage, list[Unit]]:
    """The stage to make and its units.

    Raises:
        JobError: the entries are not finished, an input is missing, the model cannot be used.
    """
    entries = open_stage(config.entries, "entries")
    lid = identifier(config.lid_model)
    stage = Stage(
        url=config.output,
        kind="match",
        parameters={
            "format": config.format,
            "extraction": asdict(config.extraction()) | {"texts": list(config.extraction().texts)},
            "languages": sorted(p["name"].removesuffix(".parquet") for p in entries.parts),
            "lid": lid.checksum,
            "lid_min_score": config.lid_min_score,
            "pairs_version": PAIRS_VERSION,
            "text_version": TEXT_VERSION,
        },
        upstream={"entries": entries.id},
        limits=config.limits,
    )
    files = storage.expand(config.input)
    parquet = [file.url for file in files if file.url.endswith(".parquet")]
    if parquet and config.format != "parquet":
        raise JobError(f"{parquet[0]} is Parquet: add --format parquet")
    return stage, own_units(files) if config.format == "parquet" else units_of_files(files)


def build(pipeline: beam.Pipeline, stage: Stage, config: MatchConfig) -> None:
    _ = (
        pipeline
        | "Begin" >> Begin()
        | "MatchUnits" >> ProcessUnits(stage, partial(match_unit, stage=stage, config=config))
        | "FinishMatched" >> FinishStage(stage)
    )


def main(config: MatchConfig, beam_args: Sequence[str]) -> None:
    stage, units = plan(config)
    if stage.begin(units):
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
