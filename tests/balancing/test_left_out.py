"""Which pairs a recount leaves out: hosts as the filters see them, ids in files of every kind, the order of reasons."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancing.filters import Filters
from balancing.left_out import LeftOut, are_among, keys_of_ids, on_hosts, sorted_keys
from balancing.pairs import image_keys

HOSTS = frozenset({"bad.example", "b.c", "127.0.0.1"})
PARTS = [
    "http:",
    "HTTPS:",
    "//",
    "/",
    "bad.example",
    "Sub.BAD.example",
    "ok.example",
    "b.c",
    "127.0.0.1",
    ":80",
    "user@",
    "@",
    "?",
    "#",
    "\\",
]
PARTS += [" ", "\t", "[::1]", "[", ".", "ü.b.c", "\x00", "x:", ""]
URLS = st.lists(st.sampled_from(PARTS), max_size=7).map("".join)


@given(st.lists(URLS | st.none(), max_size=12))
@example(["http://bad.example\\@ok.example/", "ht\ttp://bad.example/", "//bad.example", "http:/bad.example", "http://ba\td.example/"])
def test_hosts_are_those_that_the_filter_sees(urls: list[str | None]) -> None:
    rule = Filters(hosts=HOSTS)
    expected = [rule.reason("", url) is not None for url in urls]
    assert on_hosts(pa.array(urls, pa.string()), HOSTS).tolist() == expected
    assert on_hosts(pa.chunked_array([pa.array(urls, pa.string()), pa.array(urls[::-1], pa.string())]), HOSTS).tolist() == [
        *expected,
        *expected[::-1],
    ]


def test_subdomains_are_of_the_host_and_look_alikes_are_not() -> None:
    urls = ["https://bad.example/1.jpg", "https://img.bad.example:443/1.jpg", "https://notbad.example/", "https://bad.example.org/", None]
    assert on_hosts(pa.array(urls), frozenset({"bad.example"})).tolist() == [True, True, False, False, False]


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5)), st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 5)))
def test_are_among(values: list[int], among: set[int]) -> None:
    found = are_among(np.array(values, dtype=np.uint64), np.array(sorted(among), dtype=np.uint64))
    assert (found.dtype, found.tolist()) == (np.bool_, [v in among for v in values])


@given(st.lists(st.lists(st.integers(0, 9) | st.integers(0, 2**64 - 1), max_size=5), max_size=4))
def test_sorted_keys(batches: list[list[int]]) -> None:
    keys = sorted_keys(np.array(b, dtype=np.uint64) for b in batches)
    assert keys.tolist() == sorted({k for b in batches for k in b})
    assert keys.dtype == np.uint64


def _parquet(ids: object, name: str = "image_id") -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"other": pa.array(range(len(ids))), name: ids}), out)  # type: ignore[arg-type]
    return out.getvalue()


IDS = ["a", "b c", "ü", "0123456789abcdef01234567", " led by a space", "#no comment"]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(IDS).encode(),
        ("\r\n".join(IDS) + "\r\n\r\n").encode(),
        b"\xef\xbb\xbf" + "\n".join(IDS).encode(),
        _parquet(pa.array(IDS)),
        _parquet(pa.array(IDS, pa.large_string())),
    ],
    ids=["lines", "windows", "bom", "parquet", "large"],
)
def test_ids_of_a_file(content: bytes) -> None:
    assert np.concatenate(list(keys_of_ids(io.BytesIO(content)))).tolist() == image_keys(IDS).tolist()


def test_ids_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancing.left_out._BATCH", 2)
    for content in ("\n".join(IDS).encode(), _parquet(pa.array(IDS))):
        batches = list(keys_of_ids(io.BytesIO(content)))
        assert [len(b) for b in batches] == [2, 2, 2]
        assert np.concatenate(batches).tolist() == image_keys(IDS).tolist()
    assert list(keys_of_ids(io.BytesIO(b""))) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a\nb\n\xff\xfe\n", "line 3 is not UTF-8"),
        (_parquet(pa.array(["a"]), name="id"), "no column image_id, only other, id"),
        (_parquet(pa.array([1, 2])), "the column image_id is int64 with 0 empty values"),
        (_parquet(pa.array(["a", None])), "the column image_id is string with 1 empty values"),
        (_parquet(pa.array(["a"]))[:-9], "damaged Parquet"),
        (b"PAR1", "damaged Parquet"),
    ],
)
def test_what_is_no_list_of_ids(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(keys_of_ids(io.BytesIO(content)))


def _table(ids: list[str], urls: list[str]) -> pa.Table:
    return pa.table({"image_key": image_keys(ids), "url": urls})


@pytest.mark.parametrize(
    ("make", "expected", "columns"),
    [
        (lambda keys: LeftOut(), [0, 0, 0, 0], []),
        (lambda keys: LeftOut(alive=keys("a", "b", "c")), [0, 0, 0, 1], ["image_key"]),
        (lambda keys: LeftOut(dropped=keys("b", "z")), [0, 2, 0, 0], ["image_key"]),
        (lambda keys: LeftOut(hosts=HOSTS), [0, 0, 3, 3], ["url"]),
        (lambda keys: LeftOut(alive=keys("a", "b", "c"), dropped=keys("b", "d"), hosts=HOSTS), [0, 2, 3, 1], ["image_key", "url"]),
    ],
)
def test_the_first_reason_counts(make: Callable[..., LeftOut], expected: list[int], columns: list[str], tmp_path: Path) -> None:
    left_out = make(lambda *ids: sorted_keys([image_keys(ids)]))
    table = _table(["a", "b", "c", "d"], ["http://x/1", "http://bad.example.org/", "http://u.bad.example/3", "http://b.c/4"])
    assert left_out.columns == columns
    assert left_out.reasons(table.select(columns or ["url"])).tolist() == expected
    for keys in (left_out.alive, left_out.dropped):
        if keys is not None:
            keys.tofile(tmp_path / "keys")
            mapped = np.memmap(tmp_path / "keys", dtype="<u8", mode="r")
            assert are_among(table["image_key"].to_numpy(), mapped).tolist() == are_among(table["image_key"].to_numpy(), keys).tolist()
