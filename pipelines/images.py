"""images: fetch the images of the curated set. The one job that shuffles pairs, after curation: to mix hosts and to size the parts."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from balancing.gather import CURATED_COLUMNS, WANTED_SCHEMA, gather_images
from balancing.pairs import IMAGES_SCHEMA
from balancing.siblings import range_of
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.fetch import FetchConfig, fetch_all
from pipelines.graph import Begin, FinishStage, run
from pipelines.imaging import ImageError, prepare_image
from pipelines.options import JobConfig, option, positive
from pipelines.progress import PROGRESS_SECONDS, time_text
from pipelines.stage import Stage, Unit, open_stage, read_part

ABOUT = """Fetch the images of the curated set.

Writes Parquet parts with the JPEG bytes and the texts of each image, as the trainer reads them. What cannot be fetched or decoded is
counted by reason and listed in failed/. Addresses inside private networks are refused; pages that opt out of AI use (X-Robots-Tag) are
respected."""

#: Images of a row group: what the trainer holds at once; about 15 MB.
ROW_GROUP_IMAGES = 256
#: Bytes of them at which it ends before that. Writing one takes about three times as much.
ROW_GROUP_BYTES = 256 << 20

#: Reasons that an option would remove, and those that a worker without a network gives for everything.
_MISSING_OPTION = frozenset({"scheme", "private_address"})
_OUTAGE = frozenset({"dns", "refused", "timeout", "connection", "host_down"})
#: So many images do not all fail by chance of dead hosts.
_OUTAGE_IMAGES = 100

FAILED_SCHEMA = pa.schema([("image_id", pa.string()), ("url", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(JobConfig):
    curated: str = option("the finished stage of the job balance", metavar="DIR")
    images_per_part: int = option("images of a part: about 300 MB at web sizes", default=5_000, parse=positive, metavar="N")
    max_side: int | None = option("make larger images smaller, to this many pixels", default=None, parse=positive, metavar="PIXELS")
    concurrency: int = option("requests at a time, per process", default=64, parse=positive, metavar="N")
    per_host: int = option("requests at a time to one host, per process", default=2, parse=positive, metavar="N")
    timeout: float = option("seconds for one attempt, redirects and body included", default=20.0, metavar="SECONDS")
    retries: int = option("further attempts where one may help", default=2, metavar="N")
    contact: str = option("a URL or address that the owner of a site can write to; sent with every request", default="", metavar="TEXT")
    ignore_opt_out: bool = option("fetch in spite of X-Robots-Tag: noai or noimageai", default=False)
    allow_private: bool = option("also fetch from private addresses: for a mirror in your own network", default=False)
    allow_files: bool = option("also read file:// URLs: for images on your own disks", default=False)

    def fetching(self) -> FetchConfig:
        """How to fetch."""
        return FetchConfig(
            concurrency=self.concurrency,
            per_host=self.per_host,
            timeout_s=self.timeout,
            retries=self.retries,
            contact=self.contact,
            respect_opt_out=not self.ignore_opt_out,
            allow_private=self.allow_private,
            allow_files=self.allow_files,
        )

    def __post_init__(self) -> None:
        self.fetching()


def cut_into_shards(unit: Unit, *, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """The curated pairs of a part by shard: equal ranges of image keys, so that all texts of an image meet."""
    table = read_part(unit.url, columns=CURATED_COLUMNS)
    numbers = range_of(table["image_key"].to_numpy(), shards)
    for number in np.unique(numbers).tolist():
        yield number, table.filter(pa.array(numbers == number))


class Progress:
    """How far a shard is: the images that are done, how many a second, what failed so far and why, and the time left for this shard."""

    def __init__(self, name: str, images: int, tally: Tally, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = 0
        self._name, self._images, self._tally, self._clock, self._started = name, images, tally, clock, clock()

    def line(self) -> str:
        """The state in a line. May be called while another thread counts."""
        rate = self.done / max(self._clock() - self._started, 1e-3)
        left = f", {time_text((self._images - self.done) / rate)} left" if rate else ""
        failed = ", ".join(f"{reason} {n:,}" for reason, n in Counter(dict(self._tally.dropped)).most_common())
        return f"images: {self._name}: {self.done:,} of {self._images:,} images, {rate:.1f} a second{left}; failed: {failed or 'none'}"

    @contextlib.contextmanager
    def told(self, every: float = PROGRESS_SECONDS) -> Iterator[None]:
        """While the block runs, say the line on stderr, also when nothing arrives."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(every):
                print(self.line(), file=sys.stderr, flush=True)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def fetch_images(
    wanted: pa.Table, *, config: ImagesConfig, failed: list[dict[str, str]], tally: Tally, progress: Progress
) -> Iterator[pa.Table]:
    """Fetch the images of a shard: IMAGES_SCHEMA tables of a row group. What fails is dropped by reason and appended to ``failed``."""
    urls = [url or "" for url in wanted["url"].to_pylist()]
    ids = wanted["image_id"].to_pylist()
    tally.read += len(urls)
    rows: list[dict[str, Any]] = []
    alive: list[int] = []
    size = 0

    def row_group() -> pa.Table:
        images = pa.Table.from_pylist(rows, schema=pa.schema([f for f in IMAGES_SCHEMA if f.name != "texts"]))
        tally.emitted += len(rows)
        return images.append_column(IMAGES_SCHEMA.field("texts"), wanted["texts"].take(pa.array(alive))).cast(IMAGES_SCHEMA)

    for fetched in fetch_all(urls, config.fetching()):
        reason, detail = fetched.reason, fetched.detail
        if fetched.body is not None:
            try:
                image = prepare_image(fetched.body, max_side=config.max_side)
            except ImageError as error:
                reason, detail = error.reason, error.detail
            else:
                about = {"width": image.width, "height": image.height, "sha256": image.sha256}
                rows.append({"image_id": ids[fetched.index], "url": urls[fetched.index], "jpeg": image.jpeg, **about})
                alive.append(fetched.index)
                size += len(image.jpeg)
        if reason:
            tally.drop(reason)
            failed.append({"image_id": ids[fetched.index], "url": urls[fetched.index], "reason": reason, "detail": detail})
        progress.done += 1
        if len(rows) == ROW_GROUP_IMAGES or size >= ROW_GROUP_BYTES:
            yield row_group()
            rows, alive, size = [], [], 0
    if rows:
        yield row_group()


def never_tried(tally: Tally) -> bool:
    """Whether a shard came out empty because of a missing option or an outage. Dead links are data: a few of them may be a whole shard."""
    if tally.emitted or not tally.read:
        return False
    return tally.dropped.keys() <= _MISSING_OPTION or (tally.read >= _OUTAGE_IMAGES and tally.dropped.keys() <= _MISSING_OPTION | _OUTAGE)


def nothing_fetched(unit: Unit, tally: Tally) -> str:
    """What to tell when not one image of a shard arrived: an outage or a missing option, not dead links."""
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in tally.dropped.most_common())
    if "scheme" in tally.dropped:
        hint = "file:// addresses are read only with --allow-files (and into another --output)."
    elif "private_address" in tally.dropped:
        hint = "addresses inside a private network are fetched only with --allow-private (and into another --output)."
    else:
        hint = "is there a network? Not finished: run the same command again"
    return f"none of the {tally.read:,} images of {unit.path} could be fetched ({reasons}): {hint}"


def write_shard(element: tuple[int, dict[str, Any]], *, stage: Stage, config: ImagesConfig, shards: int) -> int:
    """Fetch one shard and write its part, unless it is there; 1, so that the shards can be counted."""
    _, joined = element
    (unit,) = joined["unit"]
    if not stage.has_part(unit):
        tally, failed = Tally(), list[dict[str, str]]()
        tables = list(joined["pairs"])
        wanted = gather_images(tables) if tables else WANTED_SCHEMA.empty_table()
        progress = Progress(f"shard {unit.index + 1} of {shards}", len(wanted), tally)
        with stage.part(unit, IMAGES_SCHEMA, tally) as writer, progress.told():
            for images in fetch_images(wanted, config=config, failed=failed, tally=tally, progress=progress) if tables else ():
                writer.write(images, row_group_rows=ROW_GROUP_IMAGES)
            if never_tried(tally):
                raise JobError(nothing_fetched(unit, tally))
            with storage.writing(stage.at("failed", stage.part_name(unit))) as path:
                pq.write_table(pa.Table.from_pylist(failed, schema=FAILED_SCHEMA), path, compression="zstd")
    return 1


def curated_units(_: Any, url: str) -> Iterable[Unit]:
    return open_stage(url, "balance").units()


def shard_units(_: Any, stage: Stage) -> Iterable[tuple[int, Unit]]:
    return [(unit.index, unit) for unit in stage.units()]


def build(pipeline: beam.Pipeline, stage: Stage, config: ImagesConfig, shards: int) -> None:
    begin = pipeline | "Begin" >> Begin()
    pairs = (
        begin
        | "ReadParts" >> beam.FlatMap(curated_units, config.curated)
        | "SpreadParts" >> beam.Reshuffle()
        | "CutIntoShards" >> beam.FlatMap(cut_into_shards, shards=shards)
    )
    units = begin | "ReadShards" >> beam.FlatMap(shard_units, stage)
    _ = (
        {"unit": units, "pairs": pairs}
        | "GatherShards" >> beam.CoGroupByKey()
        | "FetchShard" >> beam.Map(write_shard, stage=stage, config=config, shards=shards)
        | "CountShards" >> beam.CombineGlobally(sum)
        | "FinishImages" >> FinishStage(stage)
    )


def main(config: ImagesConfig, beam_args: Sequence[str]) -> None:
    curated = open_stage(config.curated, "balance")
    shards = max(1, -(-curated.manifest["rows"] // config.images_per_part))
    # Not what only makes a fetch likelier to succeed: more retries or time go on with what is there.
    parameters = {
        "images_per_part": config.images_per_part,
        "max_side": config.max_side,
        "respect_opt_out": not config.ignore_opt_out,
        "allow_private": config.allow_private,
        "allow_files": config.allow_files,
    }
    stage = Stage(url=config.output, kind="images", parameters=parameters, upstream={"balance": curated.id}, limits=config.limits)
    if stage.begin([Unit(name=f"{i:05}", path=f"shard {i}", index=i) for i in range(shards)]):
        run(partial(build, stage=stage, config=config, shards=shards), [stage], beam_args=beam_args, workers=config.workers)
