"""Where image-text pairs come from: the options that say so, the units that the inputs are cut into, and how a unit is opened."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from balancing.crawl import read_crawl
from balancing.extraction import PUBLISHED_TEXTS, TEXTS, Extraction
from balancing.filters import RULES, Filters, filter_pairs, hosts_of
from balancing.own import OwnColumns, ParquetLayout, layout_of, read_own_pairs
from balancing.own_lines import lines_of_compressed, lines_of_range, read_own_lines
from balancing.own_tar import read_own_tar
from metadata.compressed import DamageError, decompressed
from metadata.tally import Tally, chain
from pipelines import storage
from pipelines.books import FileRead
from pipelines.errors import JobError
from pipelines.options import JobConfig, option, positive, share
from pipelines.stage import UNITS, Stage, Unit, pack_of, unit_name, units_of_files

#: Rows, and bytes uncompressed, of own pairs that make a unit: about what a file of Common Crawl holds, and what a worker holds at once.
OWN_ROWS, OWN_BYTES = 1_000_000, 512 << 20
#: Bytes of JSON lines that make a unit.
LINES_BYTES = 256 << 20

CRAWL, PARQUET, LINES, SHARDS = "crawl", "parquet", "jsonl", "webdataset"
_COMPRESSED = (".gz", ".bz2", ".xz")
#: Bytes of the files of a pack at most; on average they have a quarter of that, which of captions is half a million pairs: few enough that
#: small pools have work for several workers, and enough that loading every language's automaton hardly counts. Of the bytes of a shard all
#: but a few in a hundred are images, which are passed over.
PACK_BYTES = {PARQUET: 256 << 20, LINES: 256 << 20, SHARDS: 4 << 30}
#: Files of a pack at most: each counts as no less than this share of the pack, since opening a file takes its time as well.
_PACK_FILES = 4096
#: What lines unpack to: so many times the bytes of the file.
_INFLATION = 4
#: Footers that are read at a time.
_READERS = 16
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


def input_units(config: InputConfig, packs: Sequence[Sequence[str]] | None = None) -> list[Unit]:
    """The units that the inputs are cut into or packed into, or the share of them that is asked for. ``packs``: the paths of the files of
    each pack, where they are known from elsewhere; of whatever is in none of them each file is by itself.

    Raises:
        JobError: an input is missing, or is not what --format says.
    """
    cut: Callable[[Unit], list[Unit]] = {
        CRAWL: lambda group: [group],
        PARQUET: lambda group: row_group_units(group, config.columns()),
        LINES: line_units,
        SHARDS: lambda group: [group],
    }[config.format]
    wholes = listed_units(config) if config.input_list else units_of_files(storage.expand(config.input))
    parquet = [whole.url for whole in wholes if whole.url.endswith(".parquet")]
    if parquet and config.format == CRAWL:
        raise JobError(f"{parquet[0]} is Parquet: add --format parquet")
    limit = PACK_BYTES.get(config.format, 0)
    groups = packed(wholes, limit) if packs is None else packed_as(wholes, packs)
    return [unit for group in sampled(groups, config.sample_inputs) for unit in cut(group)]


def sampled(units: Sequence[Unit], share: float) -> list[Unit]:
    """The units whose names, which are hashes, fall into the share, or the first of them by name, since packs may be few: those of a
    smaller share are among those of a larger."""
    drawn = [unit for unit in units if int(unit.name, 16) < share * 16 ** len(unit.name)]
    return drawn or sorted(units, key=lambda unit: unit.name)[: int(share > 0)]


def packed(files: Sequence[Unit], limit: int) -> list[Unit]:
    """The files in their order, packs of at most ``limit`` bytes made of those that are small: of known size, less than a quarter of it.

    Where a pack ends is up to the next file alone, its name and size, unless the pack is full: by a hash of its name a file begins a new
    one, the likelier the larger it is. So a file that changes, comes or goes leaves the packs that are further off as they were, and files
    behind all others change the last pack only.
    """
    weights = [_weight(file, limit) for file in files]

    def alone(i: int) -> bool:
        return not files[i].etag or 4 * weights[i] >= limit

    def begins(i: int) -> bool:
        return alone(i - 1) or alone(i) or int(unit_name(f"{files[i].path}\0begins"), 16) * limit < 4 * weights[i] << 64

    runs = in_runs([(weight,) for weight in weights], (limit,), begins=begins)
    return [pack_of([files[i] for i in run]) for run in runs]


def _weight(file: Unit, limit: int) -> int:
    """What a file counts for in a pack, in bytes."""
    inflated = file.size * _INFLATION if file.url.endswith(_COMPRESSED) else file.size
    return max(inflated, limit // _PACK_FILES)


def packed_as(files: Sequence[Unit], packs: Sequence[Sequence[str]]) -> list[Unit]:
    """The files in packs of which the paths are known.

    Raises:
        JobError: they are not those of the files.
    """
    by_path = {file.path: file for file in files}
    in_packs = [path for pack in packs for path in pack]
    missing = [path for path in in_packs if path not in by_path]
    if missing or len(set(in_packs)) < len(in_packs):
        raise JobError(f"{missing[0]} is in a pack of inputs and not among them" if missing else "an input is in two packs")
    alone = by_path.keys() - set(in_packs)
    return [pack_of([by_path[path] for path in pack]) for pack in [*packs, *([file.path] for file in files if file.path in alone)]]


def begun_without_packs(stage: Stage, config: InputConfig) -> bool:
    """Whether a directory has a part of each file though they would make packs: a former version began it, so it goes on without any."""
    before = stage.units() if config.format in PACK_BYTES and storage.exists(stage.at(UNITS)) else []
    files = {unit.path: unit for unit in before}
    if any(unit.members for unit in before):
        return False
    return any(pack.members for pack in packed([files[path] for path in sorted(files)], PACK_BYTES.get(config.format, 0)))


def in_runs(weights: Sequence[Sequence[int]], limits: Sequence[int], *, begins: Callable[[int], bool] = lambda i: False) -> Iterator[range]:
    """Ranges of consecutive things, of as many as the limits of their weights allow, one at least; ``begins``: where a new one begins in
    any case, never asked of the first thing."""
    first, held = 0, [0] * len(limits)
    for i, weight in enumerate(weights):
        grown = [a + b for a, b in zip(held, weight, strict=True)]
        if i and (begins(i) or any(n > limit for n, limit in zip(grown, limits, strict=True))):
            yield range(first, i)
            first, grown = i, [*weight]
        held = grown
    if weights:
        yield range(first, len(weights))


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


def row_group_units(group: Unit, columns: OwnColumns) -> list[Unit]:
    """Units of a Parquet file: runs of row groups of at most OWN_ROWS and OWN_BYTES, or a single larger row group. Of a pack: the same of
    files that are no larger and carry columns of the same types; a pack of others falls apart."""
    with ThreadPoolExecutor(_READERS) as pool:
        layouts = list(pool.map(lambda file: _layout_at(file.url, columns), group.inputs))
    cut = [
        [replace(file, name=unit_name(file.path, offset=run.start), offset=run.start, length=len(run)) for run in runs]
        for file, layout in zip(group.inputs, layouts, strict=True)
        for runs in [in_runs(layout.groups, (OWN_ROWS, OWN_BYTES))]
    ]
    pieces = [(unit, layout, len(units) > 1) for units, layout in zip(cut, layouts, strict=True) for unit in units]

    def begins(i: int) -> bool:
        (_, before, before_is_range), (_, layout, is_range) = pieces[i - 1 : i + 1]
        return before_is_range or is_range or before.carried != layout.carried

    weights = [[sum(column) for column in zip(*layout.groups, strict=True)] for _, layout, _ in pieces]
    return [pack_of([pieces[i][0] for i in run]) for run in in_runs(weights, (OWN_ROWS, OWN_BYTES), begins=begins)]


def _layout_at(url: str, columns: OwnColumns) -> ParquetLayout:
    try:
        with storage.open_read(url) as f:
            return layout_of(f, columns)
    except ValueError as error:
        raise JobError(f"{url}: {error}") from error


def line_units(whole: Unit) -> list[Unit]:
    """Units of a file of JSON lines: ranges of bytes, or the whole of a compressed file; a pack is one."""
    if whole.members or whole.url.endswith(_COMPRESSED) or whole.size <= LINES_BYTES:
        return [whole]
    starts = range(0, whole.size, LINES_BYTES)
    return [replace(whole, name=unit_name(whole.path, offset=at), offset=at, length=min(LINES_BYTES, whole.size - at)) for at in starts]


# -- reading -------------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class OpenPairs:
    """The pairs of a unit; once they are read, ``books`` says what became of what was read, ``files`` of each file, and ``sha256`` is that
    of a file that was read whole, or those of a pack of them, with spaces."""

    tables: Iterator[pa.Table]
    books: Callable[[], Tally]
    files: Sequence[FileRead]

    @property
    def sha256(self) -> str:
        return " ".join(file.sha256 for file in self.files).strip()


@contextmanager
def open_pairs(unit: Unit, config: InputConfig) -> Iterator[OpenPairs]:
    """Open a unit and read its pairs, those that are filtered left out. The files of a pack are read one after the other, as if their pairs
    stood in one: what is damaged in one of them costs nothing of the others, and memory is that of a single file."""
    reading, filtering = Tally(), Tally()
    filters, files = config.filters(), list[FileRead]()
    with closing(_in_turn(unit.inputs, config, tally=reading, files=files)) as tables:
        if filters.off:
            yield OpenPairs(tables=tables, books=lambda: reading, files=files)
        else:
            left = filter_pairs(tables, filters, tally=filtering)
            yield OpenPairs(tables=left, books=lambda: chain(reading, filtering), files=files)


def _in_turn(inputs: Sequence[Unit], config: InputConfig, *, tally: Tally, files: list[FileRead]) -> Generator[pa.Table]:
    """The pairs of one file after the other; what became of each is added to ``files``."""
    for unit in inputs:
        letters, dead = len(tally.letters), tally.dead.copy()
        tally.bad_file = ""
        with _open_file(unit, config, tally=tally) as (tables, sha256):
            yield from tables
            read = FileRead(
                path=unit.path,
                sha256=sha256(),
                letters=len(tally.letters) - letters,
                reasons=tally.dead - dead,
                damaged=bool(tally.bad_file),
            )
        files.append(read)


@contextmanager
def _open_file(unit: Unit, config: InputConfig, *, tally: Tally) -> Iterator[tuple[Iterator[pa.Table], Callable[[], str]]]:
    """The pairs of a file or of a range of one, and, once they are read, its SHA-256 if it was read whole."""
    columns = config.columns()
    if config.format == PARQUET or unit.length >= 0:
        with storage.open_read(unit.url) as file:
            if config.format == PARQUET:
                groups = range(unit.offset, unit.offset + unit.length)
                tables = read_own_pairs(file, groups, tally=tally, columns=columns)
            else:
                lines = lines_of_range(file, offset=unit.offset, length=unit.length)
                tables = read_own_lines(lines, tally=tally, columns=columns)
            yield tables, lambda: ""
    else:
        with storage.open_hashing(unit.url) as (file, reader):
            if config.format == CRAWL:
                tables = read_crawl(file, tally=tally, take=config.extraction())
            elif config.format == LINES:
                tables = read_own_lines(lines_of_compressed(file, tally=tally), tally=tally, columns=columns)
            else:
                tables = read_own_tar(file, tally=tally, columns=columns)
            yield tables, reader.hexdigest
