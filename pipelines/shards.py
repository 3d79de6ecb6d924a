"""What an export is made of: webdataset shards, the parts that list them, and ``sizes.json``. Needs no Beam."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from pipelines import storage
from pipelines.part import Footer, read_part
from pipelines.stage import Stage, Unit

#: ``part-*.parquet``: a row per sample of the tar, in its order.
EXPORT_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
SIZES = "sizes.json"
#: Key of the schema's metadata: SHA-256 of the tar that a part lists.
_TAR_SHA256 = b"worldclip.tar_sha256"


def tar_name(unit: Unit) -> str:
    return f"{unit.index:05}.tar"


def listed(samples: list[dict[str, Any]], tar: Path) -> pa.Table:
    """The part that lists the samples of a tar that is written."""
    with tar.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return pa.Table.from_pylist(samples, schema=EXPORT_SCHEMA.with_metadata({_TAR_SHA256: checksum.encode()}))


def faults_of_shards(stage: Stage, footers: Mapping[str, Footer]) -> Iterator[str]:
    """Whether every tar is the one that its part lists, and ``sizes.json`` says so. Reads every tar, a megabyte at a time."""
    units = stage.units()
    for unit in units:
        name, url = tar_name(unit), stage.at(tar_name(unit))
        if not storage.exists(url):
            yield f"{name} is gone"
            continue
        with storage.open_read(url) as file:
            found = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        told = (read_part(stage.part_url(unit), columns=[]).schema.metadata or {}).get(_TAR_SHA256, b"").decode()
        if not told:
            yield f"{stage.part_name(unit)} says no checksum of {name}: an earlier worldclip wrote it; export once more for one that does"
        elif found != told:
            yield f"{name} is another tar than {stage.part_name(unit)} lists (checksum {found[:12]}…, not {told[:12]}…)"
    sizes = {tar_name(unit): footers[stage.part_name(unit)].rows for unit in units}
    if not storage.exists(stage.at(SIZES)) or json.loads(storage.read_bytes(stage.at(SIZES))) != sizes:
        yield f"{SIZES} does not hold the samples of each tar"
