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

from balancing.image_files import bodies_in_parquet, bodies_in_tar, places_in_parquet, places_in_tar
from balancing.own import OwnColumns
from balancing.own_tar import members_of_shard, open_shard, read_own_tar
from balancing.pairs import image_id_of_url
from metadata.tally import Tally
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
    ids = ["../../a", "b", "c", image_id_of_url(url_of(4)), "e"]
    curated = write_curated(tmp_path / "curated", [(id, "", ["text"]) for id in ids], parts=1)
    make_images(curated, tmp_path / "images", "--take-from", str(folder))
    assert {row["image_id"]: row["jpeg"] for row in rows_of(tmp_path / "images")} == {"../../a": picture(1), ids[3]: picture(4, kind="PNG")}
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
        assert row == {**before[row["image_id"]], "labels": ["sketch"] if row["image_id"] == "id-0005" else None}
    assert open_stage(str(tmp_path / "less"), "images").parameters["drop_labels"] == ["nsfw"]


def test_labels_of_the_images_that_are_taken_stay_and_more_are_added(tmp_path: Path) -> None:
    curated = write_curated(tmp_path / "curated", write_files(tmp_path / "files", [picture(i) for i in range(5)]))
    for name, labels in (
        ("1", {"id-0000": [], "id-0001": ["nsfw"], "id-0002": ["sketch"]}),
        ("2", {"id-0002": ["art"], "id-0003": ["art"]}),
    ):
        pq.write_table(pa.table({"image_id": [*labels], "labels": [*labels.values()]}), tmp_path / name)
    make_images(curated, tmp_path / "first", "--allow-files", "--labels", str(tmp_path / "1"))
    taken = ["--take-from", str(tmp_path / "first")]
    books = make_images(curated, tmp_path / "more", *taken, "--labels", str(tmp_path / "2"), "--drop-labels", "nsfw")
    assert books["dropped"] == {"label_dropped": 1}
    labels = {row["image_id"]: row["labels"] for row in rows_of(tmp_path / "more")}
    assert labels == {"id-0000": [], "id-0002": ["art", "sketch"], "id-0003": ["art"], "id-0004": None}
    # Labels that the images have already need no list.
    assert make_images(curated, tmp_path / "less", *taken, "--drop-labels", "nsfw")["dropped"] == {"label_dropped": 1}
    assert rows_of(tmp_path / "less") == [row for row in rows_of(tmp_path / "first") if row["image_id"] != "id-0001"]


@pytest.mark.parametrize("fields", [(), ("url",), ("image_id",), ("url", "image_id")])
@pytest.mark.parametrize("id_field", ["image_id", "key", "url"])
def test_shards_are_matched_and_taken_by_the_same_ids(fields: Sequence[str], id_field: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for i in range(4):
            values = {"url": url_of(i), "image_id": f"own-{i}"}
            about = json.dumps({name: values[name] for name in fields}).encode()
            for extension, content in (("jpg", picture(i)), ("json", about), ("txt", b"a dog")):
                member = tarfile.TarInfo(f"some/folder/{i:04}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    file.seek(0)
    tables = list(read_own_tar(file, tally=Tally(), columns=OwnColumns(image_id=id_field)))
    matched = [id for table in tables for id in table["image_id"].to_pylist()]
    file.seek(0)
    assert [place.image_id for place in places_in_tar(file, id_field)] == matched
    if id_field == "image_id":
        file.seek(0)
        assert [place.image_id for place in places_in_tar(file, "")] == matched
    assert len({*matched}) == 4


def test_a_source_with_none_of_the_images_is_told_with_an_id_of_either(tmp_path: Path) -> None:
    write_parquet(tmp_path / "fetched", [[2, 3], [4]])
    curated = curated_of(tmp_path / "curated", "url")
    with pytest.raises(JobError) as error:
        make_images(curated, tmp_path / "images", "--take-from", str(tmp_path / "fetched"))
    said = str(error.value)
    assert "none of the wanted images is in any of the files" in said
    assert any(f"{image_id_of_url(url_of(i))} is wanted" in said for i in range(40))
    assert any(f"has images such as own-{i}." in said for i in (2, 4))


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
def test_a_damaged_header_in_the_middle_is_damage(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "fetched"
    write_tars(folder, [[2, 3]], beside=False)
    with tarfile.open(folder / "00000.tar") as tar:
        header = tar.getmembers()[number].offset
    data = bytearray((folder / "00000.tar").read_bytes())
    data[header + 148] ^= 1
    # A sample is known to be whole once the next begins.
    whole_samples = max(0, (number - 1) // 3)
    assert [place.row for place in places_in_tar(io.BytesIO(data), "")] == [*range(whole_samples)]
    taken, matched = Tally(), Tally()
    assert [row for row, _ in bodies_in_tar(io.BytesIO(data), [0, 1], tally=taken)] == [*range(whole_samples)]
    assert sum(map(len, read_own_tar(io.BytesIO(data), tally=matched))) == whole_samples
    assert taken.bad_file == matched.bad_file == "damaged_tar"


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


def test_an_image_without_an_id_has_that_of_its_address() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"image_id": ["a", None, "", None], "url": ["u1", "u2", "u3", None]}), file)
    ids = [place.image_id for place in places_in_parquet(file, "")]
    assert ids == ["a", image_id_of_url("u2"), image_id_of_url("u3")]
    assert [place.row for place in places_in_parquet(file, "url")] == [0, 1, 2]


class Counting(io.BytesIO):
    """Keeps the size of the longest piece that was read."""

    longest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.longest = max(self.longest, len(data))
        return data


def test_a_row_group_of_images_is_not_read_at_once() -> None:
    file, images = Counting(), [bytes([i]) * (1 << 20) for i in range(30)]
    pq.write_table(pa.table({"jpg": images}), file, compression="none", use_dictionary=False, write_batch_size=1, write_statistics=False)
    assert [body for _, body in bodies_in_parquet(file, [0, 29], tally=Tally())] == [images[0], images[29]]
    assert file.longest < 10 << 20


def test_members_that_were_passed_are_not_held(tmp_path: Path) -> None:
    write_tars(tmp_path / "fetched", [range(2, 10)], beside=False)
    with (tmp_path / "fetched" / "00000.tar").open("rb") as file, open_shard(file, "r:") as shard:
        held = [len(shard.members) for _ in members_of_shard(shard)]  # type: ignore[attr-defined]
    assert (len(held), max(held)) == (24, 1)


def test_other_files_are_another_source(tmp_path: Path) -> None:
    write_parquet(tmp_path / "fetched", [[2]])
    curated = write_curated(tmp_path / "curated", [("own-2", url_of(2), ["text"])])
    make_images(curated, tmp_path / "images", "--take-from", str(tmp_path / "fetched"))
    write_parquet(tmp_path / "more", [[2], [3]])
    with pytest.raises(JobError, match="taken_from was"):
        make_images(curated, tmp_path / "images", "--take-from", str(tmp_path / "more"))
