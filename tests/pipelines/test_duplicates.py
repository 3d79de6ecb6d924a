"""The job duplicates: exact and near copies of a set, listed, and dropped by those that read the list."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from balancing.pairs import IMAGES_SCHEMA
from metadata.tally import Tally
from pipelines.duplicates import list_duplicates
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import Stage, Unit, open_stage
from tests.pipelines.image_sets import make_images, picture, rows_of, write_curated, write_files

LABELS = ("exact_duplicate", "near_duplicate")
FLAT = [(200, 10, 10), (10, 10, 200)]


def flat(colour: tuple[int, int, int], kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, kind)
    return out.getvalue()


#: Two pictures, each with copies; two of one colour each, of which the second has an exact copy.
BODIES = [
    picture(1, side=90),
    picture(1, side=90, kind="PNG"),
    picture(2, side=90, kind="PNG"),
    picture(2, side=90, kind="WEBP", lossless=True),
    picture(1, side=60, quality=80),
    picture(3, side=90),
    flat(FLAT[0], "PNG"),
    flat(FLAT[1], "PNG"),
    flat(FLAT[1], "BMP"),
]
EXACT = ({"id-0002", "id-0003"}, {"id-0007", "id-0008"})
NEAR = {"id-0000", "id-0001", "id-0004"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("duplicates")
    curated = write_curated(root / "curated", write_files(root / "files", BODIES))
    make_images(curated, root / "images", "--allow-files", "--images-per-part", "2")
    return root


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_copies_across_parts_are_listed_and_the_first_stays(work: Path, tmp_path: Path, kind: str) -> None:
    run_job("duplicates", ["--images", f"{work}/images", "--output", f"{tmp_path}/out", "--kind", kind])
    rows = rows_of(tmp_path / "out", "duplicates")
    place = {row["image_id"]: i for i, row in enumerate(rows_of(work / "images"))}
    assert all(place[row["duplicate_of"]] < place[row["image_id"]] for row in rows)
    pairs = {label: [{row["image_id"], row["duplicate_of"]} for row in rows if row["label"] == label] for label in LABELS}
    assert sorted(pairs["exact_duplicate"], key=min) == [*EXACT]
    assert set().union(*pairs["near_duplicate"]) == (NEAR if kind == "near" else set())
    books = open_stage(f"{tmp_path}/out", "duplicates").counters
    dropped = {"exact_duplicate": 2, **({"near_duplicate": 2} if kind == "near" else {})}
    assert (books["read"], books["emitted"], books["dropped"]) == (9, 9 - len(rows), dropped)


def test_the_list_drops_copies(work: Path, tmp_path: Path) -> None:
    run_job("duplicates", ["--images", f"{work}/images", "--output", f"{tmp_path}/out"])
    copies = {row["image_id"] for row in rows_of(tmp_path / "out", "duplicates")}
    less = ["--labels", f"{tmp_path}/out/part-*.parquet", "--drop-labels", ",".join(LABELS)]
    books = make_images(f"{work}/curated", tmp_path / "images", "--take-from", f"{work}/images", *less)
    assert books["dropped"] == {"label_dropped": 4}
    assert {row["image_id"] for row in rows_of(tmp_path / "images")} == {row["image_id"] for row in rows_of(work / "images")} - copies
    run_job("duplicates", ["--images", f"{tmp_path}/images", "--output", f"{tmp_path}/none"])
    assert rows_of(tmp_path / "none", "duplicates") == []
    run_job("export", ["--images", f"{work}/images", "--drop-ids", f"{tmp_path}/out/part-*.parquet", "--output", f"{tmp_path}/tars"])
    assert open_stage(f"{tmp_path}/tars", "export").counters["dropped"] == {"image_dropped": 4}


def test_an_exact_copy_names_an_image_with_its_pixels_and_a_near_one_an_image_that_stays() -> None:
    hash = 0x0123456789ABCDEF
    # b is near to a, and so is d; c has the pixels of b; e, near to b and d alone, stays; f and g are plain, g with the pixels of f.
    rises = np.array([hash, hash ^ 3, hash ^ 3, hash ^ 7, hash ^ 15, 0, 0, 0], dtype=np.uint64)
    pixels = np.array([1, 2, 2, 3, 4, 5, 5, 6], dtype=np.uint64)
    tally = Tally()
    table = list_duplicates(pa.array([*"abcdefgh"]), pixels, rises, kind="near", tally=tally)
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("b", "near_duplicate", "a"),
        ("c", "exact_duplicate", "b"),
        ("d", "near_duplicate", "a"),
        ("g", "exact_duplicate", "f"),
    ]
    assert (tally.read, tally.emitted, tally.balanced) == (8, 4, True)


def test_images_of_before_there_were_difference_hashes_are_told(tmp_path: Path) -> None:
    stage = Stage(url=f"{tmp_path}/images", kind="images", parameters={})
    stage.begin([Unit(name="0", path="0")])
    schema = pa.schema([field for field in IMAGES_SCHEMA if field.name not in ("dhash", "labels")])
    row = {"image_id": "a", "jpeg": picture(1), "width": 1, "height": 1, "sha256": "00" * 32, "texts": []}
    stage.write_part(stage.units()[0], pa.Table.from_pylist([row], schema=schema), Tally(read=1, emitted=1))
    stage.finish()
    with pytest.raises(JobError, match="without dhash: make it again with images --take-from"):
        run_job("duplicates", ["--images", f"{tmp_path}/images", "--output", f"{tmp_path}/out"])
