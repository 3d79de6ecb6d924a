"""Small curated sets and images, made without the chain before them, for the tests of what reads them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from balancing.pairs import CURATED_SCHEMA, image_keys, pair_keys
from metadata.tally import Tally
from pipelines import storage
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import Stage, Unit, open_stage

#: (image id, URL, texts)
Wanted = tuple[str, str, Sequence[str]]
Rows = list[dict[str, Any]]


def picture(seed: int, *, kind: str = "JPEG", side: int = 24, **options: Any) -> bytes:
    """A picture of soft noise, like no other of another seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(out, kind, **options)
    return out.getvalue()


def pixel_hash(body: bytes) -> str:
    image = Image.open(io.BytesIO(body)).convert("RGB")
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


def write_curated(place: Path, images: Sequence[Wanted], *, parts: int = 2, **parameters: Any) -> str:
    """A finished stage of curated pairs in which part i has every ``parts``-th pair; texts are in English with a probability of 1."""
    rows = [(id, url, text) for id, url, texts in images for text in texts]
    stage = Stage(url=str(place), kind="balance", parameters=parameters)
    stage.begin([Unit(name=f"{i}", path=f"{i}") for i in range(parts)])
    for i, unit in enumerate(stage.units()):
        mine = sorted(rows[i::parts], key=lambda row: int(image_keys([row[0]])[0]))
        ids, urls, texts = [[row[j] for row in mine] for j in range(3)]
        n = len(mine)
        same = {"source": "own", "lid": "en", "lid_score": 1.0, "lang": "en", "entries": [1], "probability": 1.0}
        columns: dict[str, Any] = {name: [value] * n for name, value in same.items()}
        columns |= {"image_id": ids, "url": urls, "page_url": [None] * n, "text": texts}
        columns |= {"image_key": image_keys(ids), "pair_key": pair_keys(ids, texts)}
        arrays = [pa.array(columns[field.name], field.type) for field in CURATED_SCHEMA]
        stage.write_part(unit, pa.Table.from_arrays(arrays, schema=CURATED_SCHEMA), Tally(read=n, emitted=n))
    stage.finish()
    return str(place)


def make_images(curated: str, output: Path, *more: str) -> dict[str, Any]:
    """Run the job images; its books."""
    run_job("images", ["--curated", curated, "--output", str(output), *more])
    return dict(open_stage(str(output), "images").counters)


def rows_of(place: Path | str, kind: str = "images") -> Rows:
    return [row for table in read_parts(open_stage(str(place), kind)) for row in table.to_pylist()]


def failed_of(place: Path) -> dict[str, tuple[str, str]]:
    """Image id → reason and detail."""
    rows = [row for url in storage.walk(str(place / "failed")) for row in pq.read_table(storage.open_read(url)).to_pylist()]
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: (row["reason"], row["detail"]) for row in rows}


def write_files(folder: Path, bodies: Iterable[bytes], *, kind: str = "jpg") -> list[Wanted]:
    """Pictures on the disk as images that are wanted, each with a text."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = []
    for i, body in enumerate(bodies):
        path = folder / f"{i:04}.{kind}"
        path.write_bytes(body)
        wanted.append((f"id-{i:04}", path.as_uri(), [f"picture number {i}"]))
    return wanted
