"""A part of images/ once more: what failed in it for a reason that may pass is fetched again, everything else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from metadata.tally import Tally
from pipelines import storage
from pipelines.fetch import FetchConfig, Fetched
from pipelines.image_part import PASSING, Kept
from pipelines.imaging import Prepared
from pipelines.outage import fetch_through_outages
from pipelines.stage import Stage, Unit

_BATCH_IMAGES = 32


def fetch_bodies(wanted: pa.Table, _: Tally, *, fetching: FetchConfig) -> Iterator[Fetched]:
    """What became of every image that is wanted, in any order."""
    return fetch_through_outages([url or "" for url in wanted["url"].to_pylist()], fetching)


def may_pass(stage: Stage, unit: Unit) -> bool:
    """Whether something failed in a finished part that may succeed now, or an earlier try broke off between the part and its failures."""
    failures = _failures(stage, unit)
    (footer,) = stage.footers([unit])
    told = sum(footer.counters["dropped"].values()) if footer else 0
    return told != len(failures) or any(reason in PASSING for reason, _ in failures.values())


def fetch_bodies_again(wanted: pa.Table, tally: Tally, *, stage: Stage, unit: Unit, fetching: FetchConfig) -> Iterator[Fetched | Kept]:
    """As :func:`fetch_bodies` for a finished part: first the images that it has, then what failed for good, then what is fetched again."""
    left = {image_id: row for row, image_id in enumerate(wanted["image_id"].to_pylist())}
    columns = ["image_id", *Prepared.__slots__]
    with storage.open_read(stage.part_url(unit)) as file:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_IMAGES, columns=columns):
            for image in batch.to_pylist():
                yield Kept(left.pop(image.pop("image_id")), Prepared(**image))
    for image_id, (reason, detail) in _failures(stage, unit).items():
        if image_id in left and reason not in PASSING:
            yield Fetched(left.pop(image_id), None, reason, detail)
    rows = list(left.values())
    for fetched in fetch_bodies(wanted.take(pa.array(rows, pa.int64())), tally, fetching=fetching):
        yield replace(fetched, index=rows[fetched.index])


def _failures(stage: Stage, unit: Unit) -> dict[str, tuple[str, str]]:
    """Image id → reason and detail of what a finished part lacks."""
    with storage.open_read(stage.at("failed", stage.part_name(unit))) as file:
        return {row["image_id"]: (row["reason"], row["detail"]) for row in pq.read_table(file).to_pylist()}
