"""images: fetch the images of the curated set. The one job that shuffles pairs, after curation: to mix hosts and to size the parts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton

from balancing.gather import CURATED_COLUMNS, WANTED_SCHEMA, gather_images
from balancing.labels import labels_of_images, read_labels
from balancing.pairs import IMAGES_SCHEMA
from balancing.siblings import range_of
from pipelines import storage
from pipelines.again import fetch_bodies, fetch_bodies_again, may_pass
from pipelines.balance import KEEP_SIBLINGS
from pipelines.costs import IMAGE_BYTES
from pipelines.errors import JobError
from pipelines.fetch import FetchConfig
from pipelines.graph import Begin, FinishStage, run
from pipelines.image_part import PASSING, BodiesOf, ImageRules, write_images
from pipelines.options import JobConfig, byte_size, option, positive
from pipelines.part import read_part
from pipelines.stage import SUCCESS, FinishedStage, Stage, Unit, digest, open_stage
from pipelines.take import assign_to_sources, count_found, places_of_unit, source_units, write_taken

ABOUT = """Fetch the images of the curated set.

Writes Parquet parts with the images and the texts of each, as the trainer reads them. What cannot be fetched or decoded is counted by
reason and listed in failed/. Addresses inside private networks are refused; pages that opt out of AI use (X-Robots-Tag) are respected.

A JPEG, PNG or WebP keeps its bytes where it is upright, 8-bit and without transparency. Anything else becomes a JPEG, and so does what
--max-side makes smaller.

A process fetches one part at a time. It holds 256 MiB of images at most that were fetched, and 20 MiB for each of --concurrency and one
more, if all were as large as is allowed: 1.5 GiB. The largest picture that is decoded, of 50 million pixels, takes 0.9 GB more.

An outage of the network is waited for, some minutes; then the job stops, and the same command goes on. Other failures may pass too: hosts
that are down, slow or busy today (worldclip reasons images says which). --retry-failed asks those again, in parts that are finished, and
leaves everything else as it is.

Then it is known which images are alive. Count again without the others, and then thresholds and balance as before; nothing is matched or
fetched again. (count --alive W/images says it the other way round, of a set that was made with thresholds --t inf.)

    worldclip count ... --drop-ids 'W/images/failed/*.parquet' --output W/counts-2
    worldclip images --curated W/curated-2 --take-from W/images --output W/images-2

--take-from also reads what img2dataset made of the curated parts, which are such a list as it takes (url_col url; with ids of your own
save_additional_columns image_id). There is a part for each file then, in the order of the file.

--labels: what a classifier of unsafe content, or worldclip duplicates, says of images; --drop-labels leaves them out before they are
fetched. The labels of an earlier stage that --take-from reads stay, and those of --labels are added. worldclip export writes webdataset
shards for other trainers."""

#: Bytes of a small JPEG for each pixel of the square on its longer side; measured on photos: 0.4 a pixel, of three quarters of the square.
_BYTES_OF_SIDE = 0.3
#: Pairs by which images are counted.
_SAMPLED_PAIRS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(JobConfig):
    curated: str = option("the finished stage of the job balance", metavar="DIR")
    take_from: str = option(
        "fetch nothing, take the images from here: what img2dataset wrote (tars or Parquet), or a finished stage of images",
        default="",
        metavar="DIR",
    )
    image_id: str = option(
        "with --take-from: where the ids stand (default: in image_id; where there is none, they are made of url)",
        default="",
        metavar="COLUMN",
    )
    labels: tuple[str, ...] = option(
        "what others say of the images: Parquet with columns image_id and label, or labels (a list)", default=(), metavar="FILE"
    )
    drop_labels: str = option("leave out the images with one of these labels, with commas", default="", metavar="LABELS")
    part_size: int = option(
        "size of a part, as far as it is known before the images are: by 60 kB an image, or less with --max-side",
        default=384 << 20,
        parse=byte_size,
        metavar="SIZE",
    )
    images_per_part: int | None = option("images of a part instead of its size", default=None, parse=positive, metavar="N")
    max_side: int | None = option("make larger images smaller, to this many pixels", default=None, parse=positive, metavar="PIXELS")
    to_jpeg: bool = option("also encode PNG and WebP anew, as JPEG: less to store and to decode, a little is lost", default=False)
    concurrency: int = option("requests at a time, per process", default=64, parse=positive, metavar="N")
    per_host: int = option("requests at a time to one host, per process", default=2, parse=positive, metavar="N")
    timeout: float = option("seconds for one attempt, redirects and body included", default=20.0, metavar="SECONDS")
    retries: int = option("further attempts where one may help", default=2, metavar="N")
    retry_failed: bool = option("ask again for what failed for a reason that may pass, in parts that are finished too", default=False)
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

    def rules(self) -> ImageRules:
        """What becomes of what was fetched."""
        return ImageRules(max_side=self.max_side, to_jpeg=self.to_jpeg, drop_labels=label_set(self.drop_labels))

    def shards(self, images: int) -> int:
        """How many parts so many images make. Before the images are there, their sizes are a guess."""
        size = IMAGE_BYTES if self.max_side is None else min(IMAGE_BYTES, max(1, int(_BYTES_OF_SIDE * self.max_side**2)))
        return max(1, -(-images // (self.images_per_part or max(1, self.part_size // size))))

    def __post_init__(self) -> None:
        self.fetching()
        if self.drop_labels and not (self.labels or self.take_from):
            raise ValueError("--drop-labels needs --labels, which say what images have them (or --take-from images that have some)")
        if self.image_id and not self.take_from:
            raise ValueError("--image-id belongs to --take-from")
        if self.retry_failed and self.take_from:
            raise ValueError("--retry-failed fetches again, and --take-from fetches nothing")


def label_set(names: str) -> frozenset[str]:
    """Labels that are written with commas."""
    return frozenset(name.strip() for name in names.split(",") if name.strip())


def count_images(curated: FinishedStage, *, sample: int = _SAMPLED_PAIRS) -> int:
    """How many images the curated pairs are of. Where an image has a pair for each of its texts, that is a guess from ``sample`` pairs:
    those of the smallest image keys, which stand first in the parts."""
    if not curated.parameters.get(KEEP_SIBLINGS) or not curated.rows:
        return curated.rows
    smallest = pc.field("image_key") <= pa.scalar(min(2**64 - 1, 2**64 * sample // curated.rows), pa.uint64())
    with ThreadPoolExecutor(max_workers=16) as pool:
        read = partial(read_part, columns=["image_key"], filters=smallest)
        keys = pa.chunked_array(
            [chunk for table in pool.map(read, [unit.url for unit in curated.units()]) for chunk in table["image_key"].chunks], pa.uint64()
        )
    return -(-curated.rows * len(keys.unique()) // len(keys)) if len(keys) else curated.rows


def curated_units(_: Any, url: str) -> Iterable[Unit]:
    return open_stage(url, "balance").units()


def stage_units(_: Any, stage: Stage) -> Iterable[Unit]:
    return stage.units()


def cut_into_shards(unit: Unit, *, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """The curated pairs of a part by shard: equal ranges of image keys, so that all texts of an image meet."""
    return _cut(read_part(unit.url, columns=CURATED_COLUMNS), shards)


def label_files(_: Any, patterns: Sequence[str]) -> Iterable[str]:
    return [file.url for file in storage.expand(tuple(patterns), flag="--labels")]


def cut_labels(url: str, *, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """The labels in a file by the same shards."""
    with storage.open_read(url) as file:
        try:
            for table in read_labels(file):
                yield from _cut(table, shards)
        except ValueError as error:
            raise JobError(f"--labels {url}: {error}") from error


def _cut(table: pa.Table, shards: int) -> Iterator[tuple[int, pa.Table]]:
    numbers = range_of(table["image_key"].to_numpy(), shards)
    for number in np.unique(numbers).tolist():
        yield number, table.filter(pa.array(numbers == number))


#: An image that is wanted, and what others say of it.
_LABELLED_SCHEMA = pa.schema([*WANTED_SCHEMA, IMAGES_SCHEMA.field("labels")])


def wanted_images(joined: dict[str, Iterable[Any]]) -> pa.Table:
    """The images of a shard with their texts, and their labels: null where --labels says nothing of an image."""
    tables = list(joined["pairs"])
    wanted = gather_images(tables) if tables else WANTED_SCHEMA.empty_table()
    kind = _LABELLED_SCHEMA.field("labels").type
    labels = labels_of_images(wanted["image_id"].to_pylist(), joined["labels"]) if "labels" in joined else pa.nulls(len(wanted), kind)
    return wanted.append_column("labels", labels).cast(_LABELLED_SCHEMA)


#: Held while a shard is fetched: what is allowed at a time, to one host and in memory, is allowed to a process, however many its threads.
_FETCHING = threading.Lock()


def fetch_shard(element: tuple[int, dict[str, Any]], *, stage: Stage, config: ImagesConfig) -> int:
    """Fetch one shard and write its part, unless it is there; 1, so that the shards can be counted."""
    _, joined = element
    (unit,) = joined["unit"]
    bodies_of: BodiesOf | None = None
    if not stage.has_part(unit):
        bodies_of = partial(fetch_bodies, fetching=config.fetching())
    elif config.retry_failed and may_pass(stage, unit):
        bodies_of = partial(fetch_bodies_again, stage=stage, unit=unit, fetching=config.fetching())
    if bodies_of is not None:
        with _FETCHING:
            write_images(wanted_images(joined), bodies_of, unit=unit, stage=stage, rules=config.rules())
    return 1


def assign_shard(element: tuple[int, dict[str, Any]], *, stage: Stage) -> Iterator[tuple[str, pa.Table]]:
    """The images of a shard by the file that has them: (name of its unit, images)."""
    _, joined = element
    return assign_to_sources(wanted_images(joined), list(joined["places"]), [unit.name for unit in stage.units()])


def by_index(unit: Unit) -> tuple[int, Unit]:
    return unit.index, unit


def by_name(unit: Unit) -> tuple[str, Unit]:
    return unit.name, unit


def build(pipeline: beam.Pipeline, stage: Stage, config: ImagesConfig, shards: int) -> None:
    begin = pipeline | "Begin" >> Begin()
    units = begin | "ReadUnits" >> beam.FlatMap(stage_units, stage)
    wanted = {
        "pairs": begin
        | "ReadParts" >> beam.FlatMap(curated_units, config.curated)
        | "SpreadParts" >> beam.Reshuffle()
        | "CutIntoShards" >> beam.FlatMap(cut_into_shards, shards=shards)
    }
    if config.labels:
        wanted["labels"] = (
            begin
            | "ReadLabelFiles" >> beam.FlatMap(label_files, config.labels)
            | "SpreadLabelFiles" >> beam.Reshuffle()
            | "CutLabels" >> beam.FlatMap(cut_labels, shards=shards)
        )
    if config.take_from:
        places = (
            units
            | "SpreadFiles" >> beam.Reshuffle()
            | "FindPlaces" >> beam.FlatMap(places_of_unit, id_field=config.image_id, ranges=shards)
        )
        taken = (
            {**wanted, "places": places}
            | "GatherShards" >> beam.CoGroupByKey()
            | "AssignToFiles" >> beam.FlatMap(assign_shard, stage=stage)
        )
        found = taken | "CountPlaces" >> beam.Map(count_found) | "SumPlaces" >> beam.CombineGlobally(sum)
        how = {"stage": stage, "id_field": config.image_id, "rules": config.rules(), "empty": _LABELLED_SCHEMA}
        written = (
            {"unit": units | "KeyFiles" >> beam.Map(by_name), "wanted": taken}
            | "GatherFiles" >> beam.CoGroupByKey()
            | "TakeImages" >> beam.Map(write_taken, found=AsSingleton(found), **how)
        )
    else:
        written = (
            {"unit": units | "KeyShards" >> beam.Map(by_index), **wanted}
            | "GatherShards" >> beam.CoGroupByKey()
            | "FetchShard" >> beam.Map(fetch_shard, stage=stage, config=config)
        )
    _ = written | "CountParts" >> beam.CombineGlobally(sum) | "FinishImages" >> FinishStage(stage)


def main(config: ImagesConfig, beam_args: Sequence[str]) -> None:
    curated = open_stage(config.curated, "balance")
    shards = config.shards(count_images(curated))
    how: dict[str, Any]
    if config.take_from:
        units = source_units(config.take_from)
        # Another file may have what one that is done lacks.
        how = {"taken_from": digest([[unit.path, unit.size, unit.etag] for unit in units]), "image_id": config.image_id}
    else:
        units = [Unit(name=f"{i:05}", path=f"shard {i + 1} of {shards}", index=i) for i in range(shards)]
        # Not what only makes a fetch likelier to succeed: more retries or time go on with what is there.
        how = {
            "shards": shards,
            "respect_opt_out": not config.ignore_opt_out,
            "allow_private": config.allow_private,
            "allow_files": config.allow_files,
        }
    parameters = {
        **how,
        "max_side": config.max_side,
        "to_jpeg": config.to_jpeg,
        "labels": sorted(sha256_of(url) for url in label_files(None, config.labels)),
        "drop_labels": sorted(label_set(config.drop_labels)),
        # By these the texts were drawn, or are to be.
        **{name: value for name, value in curated.parameters.items() if name in ("seed", KEEP_SIBLINGS)},
    }
    stage = Stage(url=config.output, kind="images", parameters=parameters, upstream={"balance": curated.id}, limits=config.limits)
    begun = stage.begin(units)
    if config.retry_failed and not config.dry_run:
        storage.remove(stage.at(SUCCESS))
        begun = True
    if begun:
        run(partial(build, stage=stage, config=config, shards=shards), [stage], beam_args=beam_args, workers=config.workers)
        tell_what_may_pass(config.output)


def tell_what_may_pass(url: str) -> None:
    """Say how many images of a finished stage are worth another try."""
    dropped = open_stage(url, "images").counters["dropped"]
    if n := sum(dropped.get(reason, 0) for reason in sorted(PASSING)):
        print(f"images: {n:,} failed for reasons that may pass; --retry-failed asks again, better some hours later", file=sys.stderr)


def sha256_of(url: str) -> str:
    with storage.open_hashing(url) as (_, reader):
        return reader.hexdigest()
