"""One part of images/: bodies that were fetched, or taken from files, become images with their texts; what fails is listed by reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from balancing.pairs import IMAGES_SCHEMA
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.fetch import Fetched
from pipelines.imaging import ImageError, Prepared, prepare_image
from pipelines.outage import MISSING_OPTION, OUTAGE, UNASKED
from pipelines.progress import time_text, told
from pipelines.stage import Stage, Unit

#: Images of a row group: what the trainer holds at once; about 15 MB.
ROW_GROUP_IMAGES = 256
#: Bytes of them at which it ends before that. Writing one takes about three times as much.
ROW_GROUP_BYTES = 256 << 20

#: Reasons that may be others tomorrow: what ``--retry-failed`` asks again.
PASSING = (OUTAGE - {"dns"}) | {"busy", "http_5xx"}
#: So many images do not all fail by chance of dead hosts.
_OUTAGE_IMAGES = 100
_LABELLED = "label_dropped"
#: Reasons that neither an option nor a network would change.
_BESIDE = (UNASKED - MISSING_OPTION) | {_LABELLED}

#: Columns of IMAGES_SCHEMA that are known of an image before it is there.
_KNOWN = ("labels", "texts")
FAILED_SCHEMA = pa.schema([("image_id", pa.string()), ("url", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
_Failed = list[dict[str, str | None]]


@dataclass(frozen=True, slots=True)
class Kept:
    """An image, of row ``index`` of those that are wanted, that an earlier part has."""

    index: int
    image: Prepared


@dataclass(frozen=True, kw_only=True)
class ImageRules:
    """What becomes of a body. ``max_side`` and ``to_jpeg`` as in :func:`prepare_image`; images with one of ``drop_labels`` are left out."""

    max_side: int | None = None
    to_jpeg: bool = False
    drop_labels: frozenset[str] = frozenset()


class Progress:
    """How far a part is: the images that are done, how many a second, what failed so far and why, and the time left for this part."""

    def __init__(self, name: str, images: int, tally: Tally, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = 0
        self._name, self._images, self._tally, self._clock, self._started = name, images, tally, clock, clock()

    def line(self) -> str:
        """The state in a line. May be called while another thread counts."""
        rate = self.done / max(self._clock() - self._started, 1e-3)
        left = f", {time_text((self._images - self.done) / rate)} left" if rate else ""
        failed = ", ".join(f"{reason} {n:,}" for reason, n in Counter(dict(self._tally.dropped)).most_common())
        return f"images: {self._name}: {self.done:,} of {self._images:,} images, {rate:.1f} a second{left}; failed: {failed or 'none'}"


def leave_out_labelled(wanted: pa.Table, labels: frozenset[str], *, failed: _Failed, tally: Tally) -> pa.Table:
    """The images without any of these labels; the others are dropped, so that they are not even fetched."""
    found = [next((label for label in of or () if label in labels), None) for of in wanted["labels"].to_pylist()] if labels else []
    for row, label in enumerate(found):
        if label is not None:
            tally.read += 1
            _fail(wanted, row, _LABELLED, label, failed=failed, tally=tally)
    return wanted.filter(pa.array([label is None for label in found], pa.bool_())) if labels else wanted


def _fail(wanted: pa.Table, row: int, reason: str, detail: str, *, failed: _Failed, tally: Tally) -> None:
    tally.drop(reason)
    about = {"image_id": wanted["image_id"][row].as_py(), "url": wanted["url"][row].as_py()}
    # Raw bytes of a server's header arrive as lone surrogates, which no Parquet file holds.
    failed.append({**about, "reason": reason, "detail": detail.encode("utf-8", "backslashreplace").decode()})


def prepare_images(
    wanted: pa.Table, bodies: Iterable[Fetched | Kept], *, rules: ImageRules, failed: _Failed, tally: Tally, progress: Progress
) -> Iterator[pa.Table]:
    """The images of a part as IMAGES_SCHEMA tables of a row group. What fails is dropped by reason and appended to ``failed``.

    ``wanted``: image_id, url, labels and texts of each image; ``bodies``: one for each of its rows, in any order.
    """
    tally.read += len(wanted)
    rows: list[dict[str, Any]] = []
    alive: list[int] = []
    size = 0

    def row_group() -> pa.Table:
        images = pa.Table.from_pylist(rows, schema=pa.schema([f for f in IMAGES_SCHEMA if f.name not in _KNOWN]))
        tally.emitted += len(rows)
        for name in _KNOWN:
            images = images.append_column(IMAGES_SCHEMA.field(name), wanted[name].take(pa.array(alive)))
        return images.select(IMAGES_SCHEMA.names).cast(IMAGES_SCHEMA)

    for fetched in bodies:
        try:
            image = _image(fetched, rules)
        except ImageError as error:
            _fail(wanted, fetched.index, error.reason, error.detail, failed=failed, tally=tally)
        else:
            about = {name: wanted[name][fetched.index].as_py() for name in ("image_id", "url")}
            rows.append({**about, **{name: getattr(image, name) for name in image.__slots__}})
            alive.append(fetched.index)
            size += len(image.jpeg)
        progress.done += 1
        if len(rows) == ROW_GROUP_IMAGES or size >= ROW_GROUP_BYTES:
            yield row_group()
            rows, alive, size = [], [], 0
    if rows:
        yield row_group()


def _image(fetched: Fetched | Kept, rules: ImageRules) -> Prepared:
    """Raises ImageError with the reason why there is none."""
    if isinstance(fetched, Kept):
        return fetched.image
    if fetched.body is None:
        raise ImageError(fetched.reason, fetched.detail)
    return prepare_image(fetched.body, max_side=rules.max_side, to_jpeg=rules.to_jpeg)


#: Gives what became of each image of a table, in any order.
BodiesOf = Callable[[pa.Table, Tally], Iterable[Fetched | Kept]]


def write_images(wanted: pa.Table, bodies_of: BodiesOf, *, unit: Unit, stage: Stage, rules: ImageRules) -> None:
    """Write a part, and to failed/ what is missing in it. ``bodies_of`` gives the bodies of the images that are left of ``wanted``.

    Raises:
        JobError: nothing was fetched, which is no fault of the images.
    """
    tally, failed = Tally(), _Failed()
    wanted = leave_out_labelled(wanted, rules.drop_labels, failed=failed, tally=tally)
    progress = Progress(unit.path, len(wanted), tally)
    with stage.part(unit, IMAGES_SCHEMA, tally) as writer, told(progress.line):
        bodies = bodies_of(wanted, tally)
        for images in prepare_images(wanted, bodies, rules=rules, failed=failed, tally=tally, progress=progress):
            writer.write(images, row_group_rows=ROW_GROUP_IMAGES)
        if never_tried(tally):
            raise JobError(nothing_fetched(unit, tally))
        with storage.writing(stage.at("failed", stage.part_name(unit))) as path:
            pq.write_table(pa.Table.from_pylist(failed, schema=FAILED_SCHEMA), path, compression="zstd")


def never_tried(tally: Tally) -> bool:
    """Whether a part came out empty because of a missing option or an outage. Dead links are data: a few of them may be a whole part."""
    failed = Counter({reason: n for reason, n in tally.dropped.items() if reason not in _BESIDE})
    if tally.emitted or not failed:
        return False
    return failed.keys() <= MISSING_OPTION or (failed.total() >= _OUTAGE_IMAGES and failed.keys() <= MISSING_OPTION | OUTAGE)


def nothing_fetched(unit: Unit, tally: Tally) -> str:
    """What to tell when not one image of a part arrived: an outage or a missing option, not dead links."""
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in tally.dropped.most_common())
    if "scheme" in tally.dropped:
        hint = "file:// addresses are read only with --allow-files (and into another --output)."
    elif "private_address" in tally.dropped:
        hint = "addresses inside a private network are fetched only with --allow-private (and into another --output)."
    elif "no_url" in tally.dropped and not tally.dropped.keys() & OUTAGE:
        hint = "they have no addresses: --take-from takes images from files."
    else:
        hint = (
            "is there a network? Not finished: run the same command again. Hosts that are gone for good can be left out of the set by "
            "worldclip count --drop-hosts"
        )
    return f"none of the {tally.read:,} images of {unit.path} could be fetched ({reasons}): {hint}"
