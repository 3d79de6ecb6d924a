"""Images taken from files: what img2dataset writes, and finished stages of images, against what lies in them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.pairs import image_id_of_url
from pipelines.errors import JobError
from pipelines.stage import open_stage
from tests.pipelines.conftest import contents
from tests.pipelines.image_sets import Wanted, failed_of, make_images, picture, pixel_hash, rows_of, write_curated, write_files

#: What img2dataset says of an image that it has, could not fetch, or could not decode.
GOOD = ("success", None)
GONE = ("failed_to_download", "HTTP Error 404: Not Found")
BROKEN = ("failed_to_resize", "Image decoding error")
Outcome = tuple[str, str | None]


def url_of(number: int) -> str:
    return f"https://images.example/{number}.jpg"


def outcome_of(number: int) -> Outcome:
    return {0: GONE, 1: BROKEN}.get(number % 10, GOOD)


def rows_of_shard(shard: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of the Parquet file that img2dataset leaves of a shard."""
    return [
        {
            "url": url_of(number),
            "caption": f"text {number}",
            "image_id": f"own-{number}",
            "key": f"{shard:05}{place:04}",
            "status": outcome_of(number)[0],
            "error_message": outcome_of(number)[1],
            "sha256": "",
        }
        for place, number in enumerate(numbers)
    ]


def write_tars(folder: Path, shards: Sequence[Sequence[int]], *, beside: bool = True) -> None:
    """What ``--output_format webdataset`` leaves."""
    folder.mkdir(parents=True)
    for shard, numbers in enumerate(shards):
        rows = rows_of_shard(shard, numbers)
        if beside:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05}.parquet")
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for row, number in zip(rows, numbers, strict=True):
                members = {"jpg": picture(number), "json": json.dumps(row).encode(), "txt": row["caption"].encode()}
                for extension, content in members.items() if row["status"] == "success" else ():
                    member = tarfile.TarInfo(f"{row['key']}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def write_parquet(folder: Path, shards: Sequence[Sequence[int]]) -> None:
    """What ``--output_format parquet`` leaves."""
    folder.mkdir(parents=True)
    for shard, numbers in enumerate(shards):
        rows = rows_of_shard(shard, numbers)
        bodies = [picture(number) if row["status"] == "success" else None for row, number in zip(rows, numbers, strict=True)]
        table = pa.Table.from_pylist(rows).append_column("jpg", pa.array(bodies, pa.binary()))
        pq.write_table(table, folder / f"{shard:05}.parquet", row_group_size=7)


#: Images 0 … 39 are in the set; 30 … 34 were never given to img2dataset, which has others as well.
SHARDS = [[*range(12), 95, 96], [*range(99, 90, -1)], [*range(29, 11, -1), *range(35, 40)]]


def curated_of(place: Path, ids: str) -> str:
    names = {"url": lambda i: image_id_of_url(url_of(i)), "own": lambda i: f"own-{i}", "key": key_of}
    return write_curated(place, [(names[ids](i), url_of(i), [f"text {i}", "another"]) for i in range(40)])


def key_of(number: int) -> str:
    return next((f"{shard:05}{of.index(number):04}" for shard, of in enumerate(SHARDS) if number in of), f"none-{number}")


@pytest.mark.parametrize(
    ("kind", "ids", "options"),
    [("tar", "own", []), ("tar", "key", ["--image-id", "key"]), ("parquet", "url", ["--image-id", "url"])],
)
def test_what_img2dataset_fetched_is_joined_and_what_is_missing_counted(tmp_path: Path, kind: str, ids: str, options: list[str]) -> None:
    (write_tars if kind == "tar" else write_parquet)(tmp_path / "fetched", SHARDS)
    curated = curated_of(tmp_path / "curated", ids)
    books = make_images(curated, tmp_path / "images", "--take-from", str(tmp_path / "fetched"), "--images-per-part", "9", *options)
    number_of = {row["image_id"]: int(str(row["url"]).rpartition("/")[2].removesuffix(".jpg")) for row in rows_of(curated, "balance")}
    got = {number_of[row["image_id"]]: row for row in rows_of(tmp_path / "images")}
    failed = {number_of[id]: why for id, why in failed_of(tmp_path / "images").items()}
    absent = range(30, 35)
    assert failed == {
        **dict.fromkeys(absent, ("not_in_source", "")),
        **{i: ("not_fetched", outcome_of(i)[1]) for i in range(40) if i not in absent and outcome_of(i) != GOOD},
    }
    assert got.keys() == {*range(40)} - failed.keys()
    for i, row in got.items():
        assert (row["jpeg"], row["sha256"], row["url"]) == (picture(i), pixel_hash(picture(i)), url_of(i))
        assert sorted(text["text"] for text in row["texts"]) == ["another", f"text {i}"]
    assert (books["read"], books["emitted"]) == (40, 40 - len(failed))
    assert books["dropped"] == {"not_fetched": 6, "not_in_source": 5}
    assert books["files"] == 3


def test_tars_alone_and_another_process(tmp_path: Path) -> None:
    write_tars(tmp_path / "fetched", SHARDS, beside=False)
    curated = curated_of(tmp_path / "curated", "own")
    taken = ["--take-from", str(tmp_path / "fetched"), "--images-per-part", "9"]
    books = make_images(curated, tmp_path / "images", *taken)
    # Nobody knows why they are not there.
    assert books["dropped"] == {"not_in_source": 11}
    # As with --workers, but one of them: each costs seconds, and one has all that it cannot share with this process.
    make_images(curated, tmp_path / "elsewhere", *taken, "--direct_running_mode=multi_processing")
    assert contents(tmp_path / "elsewhere") == contents(tmp_path / "images")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_damaged_files_are_told_and_what_stands_before_counts(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "fetched"
    (write_tars if kind == "tar" else write_parquet)(folder, [range(2, 10), range(12, 20)])
    damaged = folder / f"00001.{kind}"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if kind == "tar" else whole[:1500] + bytes(400) + whole[1900:])
    curated = write_curated(tmp_path / "curated", [(f"own-{i}", url_of(i), ["text"]) for i in (*range(2, 10), *range(12, 20))])
    books = make_images(curated, tmp_path / "images", "--take-from", str(folder))
    got = {row["image_id"] for row in rows_of(tmp_path / "images")}
    assert got >= {f"own-{i}" for i in range(2, 10)}
    assert (books["read"], books["emitted"]) == (17, len(got))
    assert books["dropped"] == {"not_in_source": 16 - len(got)}
    assert books["dead_letter_reasons"] == {f"damaged_{kind}": 1}
    assert len(got) < 16


def test_hostile_members_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    members = {
        "../../a.jpg": picture(1),
        "../../a.json": b"\xff",
        "b.json": b'{"image_id": "b", "url": 7}',
        "c.json": b'{"image_id": "c"}',
        "c.jpg": b"no image",
        "d.json": b'{"url": "https://images.example/4.jpg"}',
        "d.png": picture(4, kind="PNG"),
    }
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("e.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    ids = ["a", "b", "c", image_id_of_url(url_of(4)), "e"]
    curated = write_curated(tmp_path / "curated", [(id, "", ["text"]) for id in ids], parts=1)
    make_images(curated, tmp_path / "images", "--take-from", str(folder))
    assert {row["image_id"]: row["jpeg"] for row in rows_of(tmp_path / "images")} == {"a": picture(1), ids[3]: picture(4, kind="PNG")}
    assert {id: reason for id, (reason, _) in failed_of(tmp_path / "images").items()} == {
        "b": "not_fetched",
        "c": "not_an_image",
        "e": "not_in_source",
    }


def test_the_first_place_with_an_image_counts(tmp_path: Path) -> None:
    write_parquet(tmp_path / "fetched", [[10, 2], [2, 3], [10]])
    # Another run, which says nothing of how it went, has the image that the first could not fetch.
    path = tmp_path / "fetched" / "00002.parquet"
    table = pq.read_table(path).drop(["status", "error_message", "jpg"])
    pq.write_table(table.append_column("jpg", pa.array([picture(10)], pa.binary())), path)
    wanted: list[Wanted] = [(f"own-{i}", url_of(i), ["text"]) for i in (2, 3, 10)]
    books = make_images(write_curated(tmp_path / "curated", wanted), tmp_path / "images", "--take-from", str(tmp_path / "fetched"))
    assert books["emitted"] == books["read"] == 3
    assert {row["image_id"]: row["jpeg"] for row in rows_of(tmp_path / "images")} == {f"own-{i}": picture(i) for i in (2, 3, 10)}


def test_labels_drop_what_is_there_already(tmp_path: Path) -> None:
    wanted = write_files(tmp_path / "files", [picture(i) for i in range(9)])
    curated = write_curated(tmp_path / "curated", wanted)
    make_images(curated, tmp_path / "images", "--allow-files")
    pq.write_table(pa.table({"image_id": ["id-0003", "id-0005"], "label": ["nsfw", "sketch"]}), tmp_path / "labels.parquet")
    more = ["--labels", str(tmp_path / "labels.parquet"), "--drop-labels", "nsfw"]
    books = make_images(curated, tmp_path / "less", "--take-from", str(tmp_path / "images"), *more)
    assert (books["read"], books["emitted"], books["dropped"]) == (9, 8, {"label_dropped": 1})
    before = {row["image_id"]: row for row in rows_of(tmp_path / "images")}
    for row in rows_of(tmp_path / "less"):
        assert row == {**before[row["image_id"]], "labels": ["sketch"] if row["image_id"] == "id-0005" else []}
    assert open_stage(str(tmp_path / "less"), "images").parameters["drop_labels"] == ["nsfw"]


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (None, [], "there is neither a .tar nor a .parquet file in it"),
        ({"key": ["a"], "jpg": [b""]}, [], r"no column url; there are key, jpg; --image-id says where"),
        ({"key": ["a"], "jpg": [b""]}, ["--image-id", "id"], "no column id; there are key, jpg"),
        ({"image_id": ["id-0000"], "picture": [b""]}, [], "no column jpeg or jpg .*; there are image_id, picture"),
    ],
)
def test_what_is_no_source_is_told(tmp_path: Path, table: dict[str, list[object]] | None, options: list[str], said: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "notes.txt").write_text("")
    if table:
        pq.write_table(pa.table(table), folder / "00000.parquet")
    curated = write_curated(tmp_path / "curated", write_files(tmp_path / "files", [picture(1)]))
    with pytest.raises(JobError, match=said):
        make_images(curated, tmp_path / "images", "--take-from", str(folder), *options)


def test_other_files_are_another_source(tmp_path: Path) -> None:
    write_parquet(tmp_path / "fetched", [[2]])
    curated = write_curated(tmp_path / "curated", [("own-2", url_of(2), ["text"])])
    make_images(curated, tmp_path / "images", "--take-from", str(tmp_path / "fetched"))
    write_parquet(tmp_path / "more", [[2], [3]])
    with pytest.raises(JobError, match="taken_from was"):
        make_images(curated, tmp_path / "images", "--take-from", str(tmp_path / "more"))
