"""export: images and texts → webdataset shards, which open_clip's own trainer and others read. A map: a part in, a tar out."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from balancing.left_out import LeftOut
from balancing.own import is_damage
from balancing.pairs import image_keys
from balancing.sampling import CHOOSE, kept, uniform
from metadata.tally import Tally
from pipelines import storage
from pipelines.balance import KEEP_SIBLINGS
from pipelines.books import first_few
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.images import label_set
from pipelines.left_out import left_out_at, parameters_of, read_lists, write_lists
from pipelines.options import JobConfig, option
from pipelines.part import read_part
from pipelines.shards import SIZES, listed, tar_name
from pipelines.stage import FinishedStage, Stage, Unit, open_stage

ABOUT = """Write webdataset shards, for open_clip's own trainer and others that read them.

A tar for each part of the images: 00000.tar and so on, with the files 000000000.jpg (.png, .webp), .txt and .json of each sample, as
img2dataset names them. sizes.json tells open_clip how many samples there are, part-*.parquet what they are. The same images give the same
bytes.

    worldclip export --images W/images --output W/tars
    python -m open_clip_train.main --dataset-type webdataset \\
        --train-data 'W/tars/{00000..00041}.tar' ...

Every image comes with one text: of a set with --keep-siblings the one that its first epoch draws, if it keeps any. With --texts all it
comes once with each of its texts, and nothing is drawn."""

_CHOSEN, _ALL = "chosen", "all"
#: Images that are read at a time.
_BATCH_IMAGES = 64
_COLUMNS = ("image_id", "url", "jpeg", "width", "height", "sha256", "labels", "texts")
#: By the first bytes of an image; all others are JPEG.
_EXTENSIONS = {b"\x89PNG": "png", b"RIFF": "webp"}

_ABOUT_IMAGE = ("image_id", "url", "width", "height", "sha256")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(JobConfig):
    images: str = option("the finished stage of the job images", metavar="DIR")
    texts: str = option("which texts of an image", default=_CHOSEN, choices=(_CHOSEN, _ALL))
    seed: int | None = option("seed of the draw, for a set with --keep-siblings (default: that of balance)", default=None, metavar="N")
    drop_ids: tuple[str, ...] = option(
        "leave these images out: Parquet with a column image_id, or text with an id a line", default=(), metavar="PATH"
    )
    drop_labels: str = option("leave out the images with one of these labels, with commas", default="", metavar="LABELS")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which samples a shard gets. ``texts``: all, or the one that ``seed`` chooses; with ``draw`` only if its probability keeps it."""

    texts: str
    seed: int
    draw: bool
    drop_labels: frozenset[str]

    def texts_of(self, images: pa.Table, left_out: LeftOut, *, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
        """(row, text) of the samples of some images. The books count pairs: an image with its text."""
        keys = image_keys(images["image_id"].to_pylist())
        dropped = left_out.reasons(pa.table({"image_key": keys})) if left_out.columns else np.zeros(len(keys))
        draws = uniform(self.seed, 0, CHOOSE, keys)
        for row, (texts, labels) in enumerate(zip(images["texts"].to_pylist(), images["labels"].to_pylist(), strict=True)):
            tally.read += len(texts)
            if dropped[row]:
                tally.drop("image_dropped", len(texts))
            elif not self.drop_labels.isdisjoint(labels or ()):
                tally.drop("label_dropped", len(texts))
            elif self.texts == _ALL:
                tally.emitted += len(texts)
                yield from ((row, text) for text in texts)
            elif texts:
                tally.drop("not_chosen", len(texts) - 1)
                text = texts[int(draws[row] * len(texts))]
                if self.draw and not self._is_kept(text):
                    tally.drop("balanced_away")
                else:
                    tally.emitted += 1
                    yield row, text

    def _is_kept(self, text: dict[str, Any]) -> bool:
        key, probability = np.array([text["pair_key"]], dtype=np.uint64), np.array([text["probability"]])
        return bool(kept(key, probability, seed=self.seed, epoch=0)[0])


def read_images(url: str) -> Iterator[pa.Table]:
    """The images of a part, some at a time.

    Raises:
        JobError: it is damaged.
    """
    with storage.open_read(url) as file:
        try:
            parquet = pq.ParquetFile(file)
            there = parquet.schema_arrow.names
            for batch in parquet.iter_batches(_BATCH_IMAGES, columns=[name for name in _COLUMNS if name in there]):
                table = pa.table(batch)
                # Images of before there were labels.
                yield table if "labels" in there else table.append_column("labels", pa.nulls(len(table)))
        except (pa.ArrowInvalid, OSError) as error:
            if not is_damage(error):
                raise
            raise JobError(f"{url} is damaged ({error}): delete it and run images again") from error


def members_of(sample: dict[str, Any], image: bytes) -> Iterator[tuple[str, bytes]]:
    """(extension, content) of the files of a sample."""
    yield _EXTENSIONS.get(image[:4], "jpg"), image
    yield "txt", sample["caption"].encode()
    yield "json", json.dumps(sample, ensure_ascii=False, sort_keys=True).encode()


def export_unit(unit: Unit, *, stage: Stage, choice: Choice) -> None:
    """Write the shard of a part of images, and then the part that lists what is in it: once that is there, the unit is done."""
    tally = Tally()
    with storage.writing(stage.at(tar_name(unit))) as path:
        samples = write_tar(path, unit, left_out_at(stage.url, stage.parameters), choice, tally=tally)
        table = listed(samples, path)
    stage.write_part(unit, table, tally)


def write_tar(path: Path, unit: Unit, left_out: LeftOut, choice: Choice, *, tally: Tally) -> list[dict[str, Any]]:
    """Write the samples of a part of images, and give what they are: rows of EXPORT_SCHEMA."""
    samples: list[dict[str, Any]] = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for images in read_images(unit.url):
            about = images.select(_ABOUT_IMAGE).to_pylist()
            for row, text in choice.texts_of(images, left_out, tally=tally):
                sample = {"key": f"{unit.index:05}{len(samples):04}", **about[row], "caption": text["text"], "lang": text["lang"]}
                samples.append(sample)
                for extension, content in members_of(sample, images["jpeg"][row].as_py()):
                    # Of everything else that a member has, time and owner among it, the default is nothing.
                    member = tarfile.TarInfo(f"{sample['key']}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return samples


def write_sizes(_: Any, stage: Stage) -> None:
    """sizes.json: the samples of each shard, as open_clip looks for them."""
    units = stage.units()
    sizes = {tar_name(unit): footer.rows for unit, footer in zip(units, stage.footers(units), strict=True) if footer}
    storage.write_json(stage.at(SIZES), sizes)


def check_labels(images: FinishedStage, wanted: frozenset[str]) -> None:
    """Say which of the labels no image has. Parts are read until all are found: their column of labels, which is small.

    Raises:
        JobError: nothing is said of any image.
    """
    missing, said = set(wanted), False
    pool = ThreadPoolExecutor(max_workers=16)
    try:
        for labels in pool.map(labels_of_part, [unit.url for unit in images.units()]):
            said = said or labels is not None
            missing -= labels or set()
            if said and not missing:
                return
    finally:
        pool.shutdown(cancel_futures=True)
    if not said:
        raise JobError(
            f"--drop-labels {','.join(sorted(wanted))}: nobody has said anything of the images of {images.url}, their labels are null. "
            f"images --take-from {images.url} --labels makes them anew with labels; or leave --drop-labels out"
        )
    print(f"export: no image has the label {', '.join(sorted(missing))}: --drop-labels leaves none out for it", file=sys.stderr)


def labels_of_part(url: str) -> set[str] | None:
    """All labels of a part of images; None if nothing is said of any."""
    with storage.open_read(url) as file:
        # Images of before there were labels.
        if "labels" not in pq.read_schema(file).names:
            return None
    labels = read_part(url, columns=["labels"])["labels"]
    return {label for of in labels.to_pylist() for label in of or ()} if labels.null_count < len(labels) else None


def tell_empty_shards(stage: Stage) -> None:
    """Say which shards hold nothing, since all images of their parts were left out."""
    sizes = storage.read_json(stage.at(SIZES))
    if empty := [name for name, samples in sorted(sizes.items()) if not samples]:
        print(f"export: {len(empty)} of {len(sizes)} shards hold no sample: {first_few(empty)}", file=sys.stderr)


def build(pipeline: beam.Pipeline, stage: Stage, choice: Choice) -> None:
    work = partial(export_unit, stage=stage, choice=choice)
    _ = (
        pipeline
        | "Begin" >> Begin()
        | "ExportParts" >> ProcessUnits(stage, work)
        | "WriteSizes" >> beam.Map(write_sizes, stage)
        | "FinishExport" >> FinishStage(stage)
    )


def main(config: ExportConfig, beam_args: Sequence[str]) -> None:
    images = open_stage(config.images, "images")
    draw = config.texts == _CHOSEN and bool(images.parameters.get(KEEP_SIBLINGS))
    seed = int(images.parameters.get("seed", 0)) if config.seed is None else config.seed
    choice = Choice(texts=config.texts, seed=seed, draw=draw, drop_labels=label_set(config.drop_labels))
    if choice.drop_labels:
        check_labels(images, choice.drop_labels)
    left_out = read_lists(alive=(), drop_ids=config.drop_ids, drop_hosts=())
    stage = Stage(
        url=config.output,
        kind="export",
        parameters={
            "texts": choice.texts,
            "seed": choice.seed,
            "drop_labels": sorted(choice.drop_labels),
            **parameters_of(left_out),
        },
        upstream={"images": images.id},
        limits=config.limits,
    )
    if stage.begin(images.units()):
        write_lists(left_out, stage)
        run(partial(build, stage=stage, choice=choice), [stage], beam_args=beam_args, workers=config.workers)
        tell_empty_shards(stage)
