"""duplicates: which images of a set are copies of others. A single process that reads ids and hashes, never the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.duplicates import DISTANCE, TELLING_BITS, exact_duplicates, near_duplicates
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.options import LimitsConfig, option
from pipelines.part import read_part
from pipelines.stage import FinishedStage, Stage, Unit, open_stage

ABOUT = f"""List the images of a set that are copies of others.

exact: the same pixels, whatever the file. near: also smaller or more compressed copies, whose difference hashes differ in at most
{DISTANCE} of 64 bits. The hash of a picture on a plain ground (a word, a drawing, a logo) says too little: of these exact copies alone are
listed. In the order of the parts an image stays that is a copy of none that stays before it. The list has the columns image_id, label
(exact_duplicate or near_duplicate) and duplicate_of: of a near copy the image that stays, of an exact one the first with its pixels, which
may itself be a near copy. Nothing is dropped here; whoever reads the list may:

    worldclip export ... --drop-ids 'W/duplicates/part-*.parquet'
    worldclip count  ... --drop-ids 'W/duplicates/part-*.parquet'
    worldclip images --curated W/curated --take-from W/images --labels 'W/duplicates/part-*.parquet' --drop-labels exact_duplicate ...

Takes about 150 bytes of memory an image: 15 GB for 100 million."""

_EXACT, _NEAR = "exact", "near"
_COLUMNS = ("image_id", "sha256", "dhash")
#: Also a list of labels, as the job images takes it.
DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig(LimitsConfig):
    images: str = option("the finished stage of the job images", metavar="DIR")
    output: str = option("where the list goes: a directory", metavar="DIR")
    kind: str = option("what counts as a copy", default=_NEAR, choices=(_EXACT, _NEAR))


def read_hashes(stage: FinishedStage) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Ids of all images, the first 64 bits of the hashes of their pixels, and their difference hashes (uint64).

    Raises:
        JobError: the stage is of a time before there were difference hashes.
    """
    ids, pixels, rises = [pa.array([], pa.string())], [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for part in stage.parts:
        url = stage.part_url(part["name"])
        with storage.open_read(url) as file:
            if "dhash" not in pq.read_schema(file).names:
                raise JobError(f"{url} was written by an older worldclip, without dhash: make it again with images --take-from {stage.url}")
        table = read_part(url, columns=_COLUMNS)
        ids += table["image_id"].chunks
        # 64 of the 256 bits: two images of a billion share them by chance with a probability of 3 %.
        digits = "".join(pc.utf8_slice_codeunits(table["sha256"], 0, 16).to_pylist())
        pixels.append(np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64))
        rises.append(pc.fill_null(table["dhash"], 0).to_numpy())
    return pa.concat_arrays(ids), np.concatenate(pixels), np.concatenate(rises)


def list_duplicates(ids: pa.Array, pixels: np.ndarray, rises: np.ndarray, *, kind: str, tally: Tally) -> pa.Table:
    """The copies: DUPLICATES_SCHEMA. Images that stay are emitted, copies are drops by what they are."""
    own = np.arange(len(ids))
    exact = exact_duplicates(pixels)
    first = np.where(exact != own, exact, near_duplicates(rises)) if kind == _NEAR else exact
    copies = np.flatnonzero(first != own)
    labels = np.where(exact[copies] != copies, "exact_duplicate", "near_duplicate")
    tally.read += len(ids)
    tally.emitted += len(ids) - len(copies)
    tally.drop("exact_duplicate", int(np.count_nonzero(labels == "exact_duplicate")))
    tally.drop("near_duplicate", int(np.count_nonzero(labels == "near_duplicate")))
    columns = [ids.take(pa.array(copies)), pa.array(labels.tolist(), pa.string()), ids.take(pa.array(first[copies]))]
    return pa.Table.from_arrays(columns, schema=DUPLICATES_SCHEMA)


def main(config: DuplicatesConfig, _: Sequence[str]) -> None:
    images = open_stage(config.images, "images")
    parameters = {"kind": config.kind, **({"distance": DISTANCE, "telling_bits": TELLING_BITS} if config.kind == _NEAR else {})}
    stage = Stage(url=config.output, kind="duplicates", parameters=parameters, upstream={"images": images.id}, limits=config.limits)
    unit = Unit(name="00000", path="images")
    if stage.begin([unit]):
        tally = Tally()
        stage.write_part(unit, list_duplicates(*read_hashes(images), kind=config.kind, tally=tally), tally)
        stage.finish()
