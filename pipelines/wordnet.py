"""wordnet: WordNet 3.0 and the tables of the Open Multilingual Wordnet 1.4 → lemmas per language."""

from __future__ import annotations

import contextlib
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import BinaryIO

import apache_beam as beam
import pyarrow as pa

from balancing.fingerprint import corpus_sha256
from metadata.languages import all_languages
from metadata.tally import Tally
from metadata.wordnet import (
    LEMMA_SCHEMA,
    WORDNET_VERSION,
    english_lemma_names,
    english_synset_names,
    omw_lemmas,
    omw_tables,
    wikis_of_wordnet,
)
from pipelines import storage
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.options import JobConfig, option
from pipelines.stage import Stage, Unit, digest

ABOUT = """Read the lemmas of WordNet and of the Open Multilingual Wordnet.

--input is a folder of nltk data (python -m nltk.downloader wordnet omw-1.4): it holds corpora/wordnet.zip and corpora/omw-1.4.zip, or the
same unpacked."""

#: What is taken from where: groups of units, which are part of the names of the parts.
SYNSET_NAMES, LEMMA_NAMES, TABLE = "synset_names", "lemma_names", "omw"
_ENGLISH = "eng"


@dataclass(frozen=True, kw_only=True)
class WordnetConfig(JobConfig):
    input: str = option("the folder of nltk data", metavar="DIR")


@contextlib.contextmanager
def open_archive(root: str, name: str) -> Iterator[BinaryIO]:
    """An opened zip archive of a corpus, also where it was unpacked.

    Raises:
        JobError: the corpus is not there.
    """
    packed, unpacked = storage.join(root, "corpora", f"{name}.zip"), storage.join(root, "corpora", name)
    if storage.exists(packed):
        with storage.open_read(packed) as file:
            yield file
        return
    files = storage.walk(unpacked)
    if not files:
        raise JobError(f"{root}: neither corpora/{name}.zip nor corpora/{name}/ is there; fetch it with: python -m nltk.downloader {name}")
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for path in files:
            archive.writestr(f"{name}/{storage.relative(path, unpacked)}", storage.read_bytes(path))
    memory.seek(0)
    yield memory


def archive_etag(root: str, name: str) -> str:
    """Changes when the files of a corpus do, packed or unpacked."""
    packed, unpacked = storage.join(root, "corpora", f"{name}.zip"), storage.join(root, "corpora", name)
    files = storage.expand((packed if storage.exists(packed) else storage.join(unpacked, "**"),))
    return digest([[f.size, f.etag] for f in files])


def corpus_of(unit: Unit) -> str:
    """The corpus that a unit reads."""
    return "omw-1.4" if unit.group == TABLE else "wordnet"


@lru_cache(maxsize=4)
def checksum_of(root: str, name: str, etag: str) -> str:
    """The checksum of what a corpus holds, the same packed and unpacked; empty where it is damaged. ``etag`` tells a changed one."""
    try:
        with open_archive(root, name) as archive:
            return corpus_sha256(archive)
    except ValueError:
        return ""


def plan_units(root: str) -> list[Unit]:
    """A unit per list of lemmas: two of English, one of Simple English, and one per table and Wikipedia.

    ``path`` is the Wikipedia, ``url`` the wordnet's code.
    """
    with open_archive(root, "wordnet"):
        etag = archive_etag(root, "wordnet")
    units = [Unit(name=f"en-{group}", path="en", url=_ENGLISH, etag=etag, group=group) for group in (SYNSET_NAMES, LEMMA_NAMES)]
    # WordNet itself is the table of English, whether or not the other archive repeats it.
    others = [wiki for wiki in wikis_of_wordnet(_ENGLISH) if wiki != "en"]
    units += [Unit(name=f"{wiki}-{TABLE}-{_ENGLISH}", path=wiki, url=_ENGLISH, etag=etag, group=LEMMA_NAMES) for wiki in others]
    try:
        with open_archive(root, "omw-1.4") as archive:
            codes = sorted({code for code, _ in omw_tables(archive)} - {_ENGLISH})
    except ValueError as error:
        raise JobError(f"{root}: omw-1.4: {error}") from error
    etag = archive_etag(root, "omw-1.4")
    for code in codes:
        units += [Unit(name=f"{wiki}-{TABLE}-{code}", path=wiki, url=code, etag=etag, group=TABLE) for wiki in wikis_of_wordnet(code)]
    absent = sorted({code for lang in all_languages().values() for code in lang.wordnets} - {*codes, _ENGLISH})
    if absent:
        print(f"wordnet: no table for {', '.join(absent)}: these languages take no lemmas from it", file=sys.stderr)
    return units


def lemmas_of(unit: Unit, root: str, *, tally: Tally) -> pa.Table:
    """The lemmas of one unit: LEMMA_SCHEMA."""
    if unit.group != TABLE:
        read = english_synset_names if unit.group == SYNSET_NAMES else english_lemma_names
        with open_archive(root, corpus_of(unit)) as archive:
            return read(archive, lang=unit.path, tally=tally)
    with open_archive(root, corpus_of(unit)) as archive:
        tables = [omw_lemmas(table, lang=unit.path, tally=tally) for code, table in omw_tables(archive) if code == unit.url]
    # A language may have two tables, as Italian has, and a lemma stand in both.
    lemmas = sorted({lemma for table in tables for lemma in table["lemma"].to_pylist()})
    repeated = sum(map(len, tables)) - len(lemmas)
    tally.emitted -= repeated
    tally.drop("repeated_lemma", repeated)
    return pa.table([[unit.path] * len(lemmas), lemmas], schema=LEMMA_SCHEMA)


def read_wordnet(unit: Unit, *, stage: Stage, root: str) -> None:
    tally = Tally()
    try:
        table = lemmas_of(unit, root, tally=tally)
    except ValueError as error:
        raise JobError(f"{root}: {error}") from error
    stage.write_part(unit, table.cast(LEMMA_SCHEMA), tally, input_sha256=checksum_of(root, corpus_of(unit), unit.etag))


def build(pipeline: beam.Pipeline, stage: Stage, config: WordnetConfig) -> None:
    work = partial(read_wordnet, stage=stage, root=config.input)
    _ = pipeline | "Begin" >> Begin() | "ReadTables" >> ProcessUnits(stage, work) | "FinishLemmas" >> FinishStage(stage)


def main(config: WordnetConfig, beam_args: Sequence[str]) -> None:
    stage = Stage(url=config.output, kind="wordnet", parameters={"versions": {"wordnet": WORDNET_VERSION}}, limits=config.limits)
    if stage.begin(plan_units(config.input)):
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
