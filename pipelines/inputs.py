"""Where image-text pairs come from: the options that say so, the units that the inputs are cut into, and how a unit is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from balancing.crawl import read_crawl
from balancing.extraction import PUBLISHED_TEXTS, TEXTS, Extraction
from balancing.filters import RULES, Filters, filter_pairs, hosts_of
from balancing.own import OwnColumns, read_own_pairs, row_groups_of
from balancing.own_lines import lines_of_compressed, lines_of_range, read_own_lines
from balancing.own_tar import read_own_tar
from metadata.compressed import DamageError, decompressed
from metadata.tally import Tally, chain
from pipelines import storage
from pipelines.errors import JobError
from pipelines.options import JobConfig, option, positive, share
from pipelines.stage import Unit, unit_name, units_of_files

#: Rows, and bytes uncompressed, of own pairs that make a unit: about what a file of Common Crawl holds, and what a worker holds at once.
OWN_ROWS, OWN_BYTES = 1_000_000, 512 << 20
#: Bytes of JSON lines that make a unit.
LINES_BYTES = 256 << 20

CRAWL, PARQUET, LINES, SHARDS = "crawl", "parquet", "jsonl", "webdataset"
_COMPRESSED = (".gz", ".bz2", ".xz")
#: Longest list of inputs: ten times that of a whole crawl.
_LIST_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class InputConfig(JobConfig):
    """Which pairs to read, and which of them to drop before anything is made of them."""

    input: tuple[str, ...] = option("files, globs or URLs of the pairs", default=(), metavar="PATH")
    input_list: tuple[str, ...] = option(
        "files that list the inputs, a path a line (Common Crawl's wat.paths.gz), which stand below --base-url", default=(), metavar="FILE"
    )
    base_url: str = option("what stands before every path of --input-list", default="https://data.commoncrawl.org/", metavar="URL")
    sample_inputs: float = option(
        "take this share of the inputs, drawn by their names; a larger share later goes on from a smaller one",
        default=1.0,
        parse=share,
        metavar="SHARE",
    )
    connections: int | None = option(
        "read so many inputs at a time at most, by all workers together (each worker reads one)", default=None, parse=positive, metavar="N"
    )
    format: str = option(
        "crawl: WARC and WAT; pairs of your own: parquet, jsonl, or webdataset (tar files)",
        default=CRAWL,
        choices=(CRAWL, PARQUET, LINES, SHARDS),
    )
    image_texts: str = option(
        f"texts of an image in crawl files, with commas, out of {', '.join(TEXTS)}; the last two are in WARC files only",
        default=",".join(PUBLISHED_TEXTS),
        metavar="NAMES",
    )
    lazy_images: bool = option(
        "where a page has a placeholder and its script loads the image (data-src, srcset ...), take that; in WARC files only", default=False
    )
    url: str = option("of own pairs: the column of the image's address", default="url", metavar="COLUMN")
    text: str = option("of own pairs: the column of the text", default="text", metavar="COLUMN")
    image_id: str = option(
        "of own pairs: the column of ids of your own; where there is none, ids are made of addresses", default="image_id", metavar="COLUMN"
    )
    carry: str = option(
        "of own pairs: columns that stay beside the pairs up to the curated set, with commas", default="", metavar="COLUMNS"
    )
    drop: str = option(f"drop texts by these rules, with commas: {', '.join(RULES)}", default="", metavar="RULES")
    min_characters: int = option("drop shorter texts", default=0, metavar="N")
    max_characters: int | None = option("drop longer texts", default=None, metavar="N")
    blocked_hosts: str = option(
        "a file of host names, one a line: drop their images, and those of their subdomains", default="", metavar="FILE"
    )

    def __post_init__(self) -> None:
        if bool(self.input) == bool(self.input_list):
            raise ValueError("give --input, or --input-list with --base-url")
        for flag, made in (("--image-texts", self.extraction), ("--carry", self.columns), ("--drop", self.rules)):
            try:
                made()
            except ValueError as error:
                raise ValueError(f"{flag}: {error}") from None

    def extraction(self) -> Extraction:
        """What is taken from pages."""
        return Extraction(texts=_names(self.image_texts), lazy=self.lazy_images)

    def columns(self) -> OwnColumns:
        return OwnColumns(url=self.url, text=self.text, image_id=self.image_id, carry=_names(self.carry))

    def rules(self) -> Filters:
        """The filters, without the list of hosts, which is a file."""
        return Filters(rules=_names(self.drop), min_characters=self.min_characters, max_characters=self.max_characters)

    def filters(self) -> Filters:
        """The filters.

        Raises:
            JobError: the list of hosts is absent or none.
        """
        if not self.blocked_hosts:
            return self.rules()
        try:
            hosts = hosts_of(storage.read_bytes(self.blocked_hosts).decode().splitlines())
        except ValueError as error:
            raise JobError(f"--blocked-hosts {self.blocked_hosts}: {error}") from error
        return replace(self.rules(), hosts=hosts)

    def parameters(self) -> dict[str, Any]:
        """What of all this changes the result."""
        read = asdict(self.extraction()) if self.format == CRAWL else asdict(self.columns())
        filters = self.filters()
        dropped = {} if filters.off else {"filters": {**asdict(filters), "hosts": sorted(filters.hosts), "rules": list(filters.rules)}}
        return {"format": self.format, "read": {k: list(v) if isinstance(v, tuple) else v for k, v in read.items()}, **dropped}


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


# -- units ---------------------------------------------------------------------------------------------------------------------------


def input_units(config: InputConfig) -> list[Unit]:
    """The units that the inputs are cut into, or the share of them that is asked for.

    Raises:
        JobError: an input is missing, or is not what --format says.
    """
    cut: Callable[[Unit], list[Unit]] = {
        CRAWL: lambda whole: [whole],
        PARQUET: lambda whole: row_group_units(whole, config.columns()),
        LINES: line_units,
        SHARDS: lambda whole: [whole],
    }[config.format]
    wholes = listed_units(config) if config.input_list else units_of_files(storage.expand(config.input))
    parquet = [whole.url for whole in wholes if whole.url.endswith(".parquet")]
    if parquet and config.format == CRAWL:
        raise JobError(f"{parquet[0]} is Parquet: add --format parquet")
    return [unit for whole in sampled(wholes, config.sample_inputs) for unit in cut(whole)]


def sampled(units: Sequence[Unit], share: float) -> list[Unit]:
    """The units whose names, which are hashes, fall into the share: those of a smaller share are among those of a larger."""
    return [unit for unit in units if int(unit.name, 16) < share * 16 ** len(unit.name)]


def listed_units(config: InputConfig) -> list[Unit]:
    """A unit per path of the list files. Nothing is asked of where they lie, which for a whole crawl would take hours.

    Raises:
        JobError: a list is absent, damaged, empty or too long.
    """
    paths: dict[str, None] = {}
    for name in config.input_list:
        content = b""
        try:
            with storage.open_read(name) as f:
                for chunk in decompressed(f):
                    content += chunk
                    if len(content) > _LIST_BYTES:
                        raise JobError(f"--input-list {name} has more than {_LIST_BYTES} bytes: it is no list of paths")
            paths.update((line.strip(), None) for line in content.decode().splitlines() if line.strip())
        except (DamageError, UnicodeDecodeError) as error:
            raise JobError(f"--input-list {name}: no list of paths ({error})") from error
    if not paths:
        raise JobError(f"--input-list {' '.join(config.input_list)}: no path is in it")
    return [Unit(name=unit_name(path), path=path, url=config.base_url.rstrip("/") + "/" + path.lstrip("/")) for path in paths]


def row_group_units(whole: Unit, columns: OwnColumns) -> list[Unit]:
    """Units of a Parquet file: runs of row groups of at most OWN_ROWS and OWN_BYTES, or a single larger row group."""
    try:
        with storage.open_read(whole.url) as f:
            groups = row_groups_of(f, columns)
    except ValueError as error:
        raise JobError(f"{whole.url}: {error}") from error
    units = []
    first = rows = size = 0
    for end, (next_rows, next_size) in enumerate([*groups, (OWN_ROWS, OWN_BYTES)]):
        if end > first and (rows + next_rows > OWN_ROWS or size + next_size > OWN_BYTES):
            units.append(replace(whole, name=unit_name(whole.path, offset=first), offset=first, length=end - first))
            first, rows, size = end, 0, 0
        rows, size = rows + next_rows, size + next_size
    return units


def line_units(whole: Unit) -> list[Unit]:
    """Units of a file of JSON lines: ranges of bytes, or the whole of a compressed file."""
    if whole.url.endswith(_COMPRESSED) or whole.size <= LINES_BYTES:
        return [whole]
    starts = range(0, whole.size, LINES_BYTES)
    return [replace(whole, name=unit_name(whole.path, offset=at), offset=at, length=min(LINES_BYTES, whole.size - at)) for at in starts]


# -- reading -------------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class OpenPairs:
    """The pairs of a unit; once they are read, ``books`` says what became of what was read, and ``sha256`` is that of a file that was read
    whole."""

    tables: Iterator[pa.Table]
    books: Callable[[], Tally]
    sha256: Callable[[], str]


@contextmanager
def open_pairs(unit: Unit, config: InputConfig) -> Iterator[OpenPairs]:
    """Open a unit and read its pairs, those that are filtered left out."""
    reading, filtering = Tally(), Tally()
    filters = config.filters()

    def pairs(tables: Iterator[pa.Table], sha256: Callable[[], str]) -> OpenPairs:
        if filters.off:
            return OpenPairs(tables=tables, books=lambda: reading, sha256=sha256)
        return OpenPairs(tables=filter_pairs(tables, filters, tally=filtering), books=lambda: chain(reading, filtering), sha256=sha256)

    if config.format == PARQUET or unit.length >= 0:
        with storage.open_read(unit.url) as file:
            if config.format == PARQUET:
                groups = range(unit.offset, unit.offset + unit.length)
                tables = read_own_pairs(file, groups, tally=reading, columns=config.columns())
            else:
                lines = lines_of_range(file, offset=unit.offset, length=unit.length)
                tables = read_own_lines(lines, tally=reading, columns=config.columns())
            yield pairs(tables, lambda: "")
    else:
        with storage.open_hashing(unit.url) as (file, reader):
            if config.format == CRAWL:
                tables = read_crawl(file, tally=reading, take=config.extraction())
            elif config.format == LINES:
                tables = read_own_lines(lines_of_compressed(file, tally=reading), tally=reading, columns=config.columns())
            else:
                tables = read_own_tar(file, tally=reading, columns=config.columns())
            yield pairs(tables, reader.hexdigest)
