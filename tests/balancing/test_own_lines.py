"""JSON lines and webdataset shards: the same pairs as from Parquet, and what is broken in them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing import own_lines
from balancing.own import IMG2DATASET_COLUMNS, OwnColumns, read_own_pairs
from balancing.own_lines import LINE_BYTES, lines_of_compressed, lines_of_range, read_own_lines
from balancing.own_tar import MEMBER_BYTES, read_own_tar
from balancing.pairs import PAIR_SCHEMA, image_id_of_url
from metadata.tally import Tally


def rows_of(tables: Any, tally: Tally) -> list[dict[str, Any]]:
    rows = [row for table in tables for row in table.to_pylist()]
    assert tally.balanced
    assert tally.emitted == len(rows)
    return [{k: v for k, v in row.items() if k not in ("page_url", "source")} for row in rows]


def read_lines(data: bytes, columns: OwnColumns = OwnColumns()) -> tuple[list[dict[str, Any]], Tally]:  # noqa: B008
    tally = Tally()
    return rows_of(read_own_lines(lines_of_range(io.BytesIO(data), offset=0, length=len(data)), tally=tally, columns=columns), tally), tally


def test_lines() -> None:
    data = b'{"url": "u1", "text": " a\\n"}\n\n  {"text": "b", "image_id": 7, "url": null, "more": [1]}\r\n{"url": "u3", "text": ""}\n'
    data += b'{"text": "x"}'
    rows, tally = read_lines(data)
    assert rows == [{"image_id": image_id_of_url("u1"), "url": "u1", "text": "a"}, {"image_id": "7", "url": None, "text": "b"}]
    assert (tally.read, tally.dropped, tally.letters) == (4, {"empty_text": 1, "no_url": 1}, [])


def test_other_names_and_what_is_carried() -> None:
    columns = OwnColumns(url="link", text="caption", image_id="key", carry=("score", "tags"))
    rows, _ = read_lines(b'{"link": "u", "caption": "c", "key": "k", "score": 0.5, "tags": {"b": 1, "a": "\xc3\xa9"}}\n', columns)
    assert rows == [{"image_id": "k", "url": "u", "text": "c", "score": "0.5", "tags": '{"a": "é", "b": 1}'}]


def test_columns_that_matched_pairs_have_are_not_carried() -> None:
    with pytest.raises(ValueError, match="cannot be called lang"):
        OwnColumns(carry=("score", "lang"))


def test_broken_lines_are_dead_letters_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_lines, "LINE_BYTES", 60)
    bad = [b"{", b"[1]", b'{"url": "\xff"}', b'{"url": {}, "text": "a"}', b'{"url": true, "text": "a"}', b'{"text": "' + b"x" * 60 + b'"}']
    good = b'{"url": "u", "text": "a"}'
    data = b"\n".join([good, *bad, good]) + b"\n"
    rows, tally = read_lines(data)
    assert [row["text"] for row in rows] == ["a", "a"]
    assert tally.dead == {"invalid_json": 3, "not_text": 2, "line_too_long": 1}
    assert [letter.place for letter in tally.letters] == [data.index(b"\n" + line) + 1 for line in bad]
    packed = Tally()
    found = rows_of(read_own_lines(lines_of_compressed(io.BytesIO(gzip.compress(data)), tally=packed), tally=packed), packed)
    assert (found, packed.counters(), [x.place for x in packed.letters]) == (rows, tally.counters(), [x.place for x in tally.letters])


@given(
    st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 90), max_size=5),
)
def test_ranges_give_each_line_once(lines: list[bytes], ended: bool, cuts: list[int]) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    found = []
    for start, end in pairwise(edges):
        found += list(lines_of_range(io.BytesIO(data), offset=start, length=end - start))
    assert b"".join(line for _, line in found) == data
    assert all(data.startswith(line, place) and (place == 0 or data[place - 1 : place] == b"\n") for place, line in found)


@given(st.lists(st.sampled_from([b"a", b"bb\n", b"\n", b"c" * 40, b"d\n"]), max_size=12).map(b"".join), st.integers(1, 9))
def test_compressed_lines_are_those_of_the_content(data: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_lines, "LINE_BYTES", 30)
        patch.setattr(own_lines, "decompressed", lambda file: iter([data[i : i + chunk] for i in range(0, len(data), chunk)]))
        found = [(place, line) for place, line in lines_of_compressed(io.BytesIO(), tally=Tally())]
        plain = [(place, line.removesuffix(b"\n")) for place, line in lines_of_range(io.BytesIO(data), offset=0, length=len(data))]
    assert [(place, line[:31]) for place, line in plain] == found


def test_compressed_files_that_are_cut_off() -> None:
    data = bz2.compress(b'{"url": "u", "text": "a"}\n' * 10)
    tally = Tally()
    rows = rows_of(read_own_lines(lines_of_compressed(io.BytesIO(data[:-8]), tally=tally), tally=tally), tally)
    assert (len(rows), tally.bad_file) == (10, "truncated")


def test_long_lines_are_not_held() -> None:
    data = b"x" * (3 * LINE_BYTES) + b'\n{"url": "u", "text": "a"}\n'
    sizes = [len(line) for _, line in lines_of_range(io.BytesIO(data), offset=0, length=len(data))]
    assert sizes == [LINE_BYTES + 1, 26]


# -- shards --------------------------------------------------------------------------------------------------------------------------


def shard(members: list[tuple[str, bytes]], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def read_shard(data: bytes, columns: OwnColumns = IMG2DATASET_COLUMNS) -> tuple[list[dict[str, Any]], Tally]:
    tally = Tally()
    return rows_of(read_own_tar(io.BytesIO(data), tally=tally, columns=columns), tally), tally


def about(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


IMAGE = b"\xff\xd8 not decoded"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_shard(mode: str) -> None:
    members = [
        ("00000/0001.jpg", IMAGE), ("00000/0001.txt", "a cat é".encode()),
        ("00000/0001.json", about(url="http://a/1", caption="no", key="k1")),
        ("00000/0002.json", about(url="http://a/2", caption="from json")), ("00000/0002.PNG", IMAGE),
        ("0003.cls", b"7"), ("0003.txt", b"no image"),
        ("0004.webp", IMAGE), ("0004.seg.txt", b"another extension"), ("0004.txt", b"plain"),
        ("0005.jpg", IMAGE), ("0005.txt", b" \n"),
    ]  # fmt: skip
    rows, tally = read_shard(shard(members, mode))
    assert rows == [
        {"image_id": "k1", "url": "http://a/1", "text": "a cat é"},
        {"image_id": image_id_of_url("http://a/2"), "url": "http://a/2", "text": "from json"},
        {"image_id": "0004", "url": None, "text": "plain"},
    ]
    assert (tally.read, tally.dropped) == (5, {"no_image": 1, "empty_text": 1})


def test_broken_samples_are_dead_letters() -> None:
    members = [
        ("1.jpg", IMAGE), ("1.txt", b"\xff"),
        ("2.jpg", IMAGE), ("2.json", b"{"),
        ("3.jpg", IMAGE), ("3.json", about(caption=["a"])),
        ("4.jpg", IMAGE), ("4.txt", b"x" * (MEMBER_BYTES + 1)),
        ("5.jpg", IMAGE), ("5.txt", b"good"),
    ]  # fmt: skip
    rows, tally = read_shard(shard(members))
    assert [row["text"] for row in rows] == ["good"]
    assert tally.dead == {"not_utf8": 1, "invalid_json": 2, "member_too_large": 1}
    assert [letter.place for letter in tally.letters] == sorted(letter.place for letter in tally.letters)


def test_a_shard_that_is_cut_off_or_none() -> None:
    members = [(f"{i}.{kind}", data) for i in range(4) for kind, data in (("jpg", IMAGE * 100), ("txt", f"text {i}".encode()))]
    data = shard(members)
    found = set()
    for cut in range(0, 4 * 3072, 256):
        rows, tally = read_shard(data[:cut])
        texts = [row["text"] for row in rows]
        assert texts == [f"text {i}" for i in range(len(texts))]
        assert tally.dead.total() == (tally.bad_file != "")
        found.add(len(texts))
    assert found == {0, 1, 2, 3}
    for other in (b"no tar at all" * 100, b"\x1f\x8b\x08broken"):
        rows, tally = read_shard(other)
        assert (rows, tally.bad_file) == ([], "damaged_tar")


def test_parquet_of_img2dataset_with_columns_that_are_carried() -> None:
    table = pa.table({"url": ["u1", "u2"], "caption": ["a", ""], "key": ["k1", "k2"], "status": ["success", "x"], "width": [640, 7]})
    file = io.BytesIO()
    pq.write_table(table, file)
    columns = OwnColumns(text="caption", image_id="key", carry=("width", "status"))
    tally = Tally()
    (found,) = read_own_pairs(file, [0], tally=tally, columns=columns)
    assert found.schema == pa.schema([*PAIR_SCHEMA, pa.field("width", pa.int64()), pa.field("status", pa.string())])
    assert rows_of([found], tally) == [{"image_id": "k1", "url": "u1", "text": "a", "width": 640, "status": "success"}]
