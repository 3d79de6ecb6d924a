"""Own pairs: what a Parquet file may hold, what is refused by name, what is dropped, and damage."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.own import BATCH_ROWS, layout_of, read_own_pairs
from balancing.pairs import MAX_TEXT, PAIR_SCHEMA, image_id_of_url
from metadata.tally import Tally
from metadata.text import normalize_text


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def read(data: bytes, row_groups: list[int] | None = None) -> tuple[list[dict[str, Any]], Tally]:
    tally = Tally()
    groups = range(len(layout_of(io.BytesIO(data)).groups)) if row_groups is None else row_groups
    rows = []
    for table in read_own_pairs(io.BytesIO(data), groups, tally=tally):
        assert table.schema.equals(PAIR_SCHEMA)
        table.validate(full=True)
        rows += table.to_pylist()
    assert tally.balanced
    assert tally.emitted == len(rows)
    return rows, tally


def pair(image_id: str, url: str | None, text: str) -> dict[str, Any]:
    return {"image_id": image_id, "url": url, "page_url": None, "text": text, "source": "own"}


def test_ids_are_made_from_the_url_where_there_are_none() -> None:
    rows, tally = read(parquet({"url": ["http://a/1 .jpg", "http://a/2.jpg"], "text": [" a\tcat\n", "b"], "more": [1, 2]}))
    # SHA-224 of "http://a/1.jpg": spaces do not count.
    assert rows == [
        pair("bb9889856a698d09d9523c89", "http://a/1 .jpg", "a cat"),
        pair(image_id_of_url("http://a/2.jpg"), "http://a/2.jpg", "b"),
    ]
    assert not tally.dropped


def test_ids_are_taken_verbatim() -> None:
    ids = [" a b ", "ID\t1", None, "", "東京"]
    rows, _ = read(parquet({"image_id": ids, "url": ["u1", "u2", "u3", "u4", None], "text": list("abcde")}))
    assert [row["image_id"] for row in rows] == [" a b ", "ID\t1", image_id_of_url("u3"), image_id_of_url("u4"), "東京"]
    assert rows[4] == pair("東京", None, "e")


def test_numbers_as_ids() -> None:
    rows, _ = read(parquet({"image_id": [7, None, 2**62], "url": ["u1", "u2", "u3"], "text": list("abc")}))
    assert [row["image_id"] for row in rows] == ["7", image_id_of_url("u2"), str(2**62)]


def test_rows_without_url_or_text_are_dropped_and_counted() -> None:
    rows, tally = read(parquet({"url": [None, "", "u", "u", "u", None], "text": ["a", "b", None, "", " \t\n", None]}))
    assert rows == []
    assert tally.read == 6
    assert tally.dropped == {"no_url": 3, "empty_text": 3}


URLS, WORDS = st.none() | st.sampled_from(["", "http://a", "http://b"]), st.none() | st.sampled_from(["", " ", "a", " b\n"])


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.tuples(URLS, WORDS, st.none() | st.sampled_from(["", "1", "2"])), max_size=12), with_ids=st.booleans())
def test_rows_are_those_of_a_loop(rows: list[tuple[str | None, str | None, str | None]], with_ids: bool) -> None:
    columns = {"url": pa.array([r[0] for r in rows], pa.string()), "text": pa.array([r[1] for r in rows], pa.string())}
    if with_ids:
        columns["image_id"] = pa.array([r[2] for r in rows], pa.string())
    expected, no_url, empty = [], 0, 0
    for url, text, own in rows:
        if not url and not (with_ids and own):
            no_url += 1
        elif not normalize_text(text or ""):
            empty += 1
        else:
            expected.append(pair(own if with_ids and own else image_id_of_url(url or ""), url, normalize_text(text or "")))
    found, tally = read(parquet(columns))
    assert found == expected
    assert (tally.dropped["no_url"], tally.dropped["empty_text"]) == (no_url, empty)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_kinds_of_text_columns(kind: pa.DataType) -> None:
    values = ["é", None, "東京", "é"]
    texts = pa.array([v and v.encode() for v in values], kind) if kind == pa.binary() else pa.array(values, pa.string()).cast(kind)
    data = parquet(
        {"url": pa.array(["u0", "u1", "u2", "u3"]).cast(kind), "text": texts, "image_id": pa.array(["0", "1", "2", "3"]).cast(kind)}
    )
    rows, tally = read(data)
    assert rows == [pair("0", "u0", "é"), pair("2", "u2", "東京"), pair("3", "u3", "é")]
    assert tally.dropped == {"empty_text": 1}


def test_a_column_of_nothing_but_nulls() -> None:
    assert read(parquet({"url": ["u"], "text": pa.nulls(1)}))[1].dropped == {"empty_text": 1}
    assert read(parquet({"url": ["u"], "text": ["t"], "image_id": pa.nulls(1)}))[0] == [pair(image_id_of_url("u"), "u", "t")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"url": ["u"], "caption": ["t"]}, "no column text; there are url, caption"),
        ({"text": ["t"]}, "no column url; there are text"),
        ({"TEXT": ["t"], "URL": ["u"]}, "no column url and no column text; there are TEXT, URL"),
        ({"url": ["u"], "text": [["a", "b"]]}, "column text holds no text but list"),
        ({"url": ["u"], "text": ["a"], "image_id": [{"x": 1}]}, "column image_id holds no text but struct"),
    ],
)
def test_columns_that_cannot_be_used_are_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout_of(io.BytesIO(parquet(columns)))


def test_other_files_are_refused() -> None:
    data = parquet({"url": ["u"], "text": ["t"]})
    for other in (b"", b"url\ttext\n", b"PAR1", data[:-1], data[: len(data) // 2], b"PAR1" + bytes(100) + b"PAR1"):
        with pytest.raises(ValueError, match="no Parquet file"):
            layout_of(io.BytesIO(other))


def test_row_groups_are_read_apart() -> None:
    n = 2 * BATCH_ROWS + 10
    data = parquet({"url": [f"u{i}" for i in range(n)], "text": [f"t{i}" for i in range(n)]}, row_group_size=BATCH_ROWS + 5)
    assert [rows for rows, _ in layout_of(io.BytesIO(data)).groups] == [BATCH_ROWS + 5, BATCH_ROWS + 5]
    whole, _ = read(data)
    assert [row["url"] for row in whole] == [f"u{i}" for i in range(n)]
    assert read(data, [0])[0] + read(data, [1])[0] == whole
    assert read(data, [])[0] == []


def test_tables_are_bounded_in_a_big_row_group() -> None:
    n = 2 * BATCH_ROWS + 1
    data = parquet({"url": pa.array(["u"] * n), "text": pa.array(["t"] * n)})
    assert [rows for rows, _ in layout_of(io.BytesIO(data)).groups] == [n]
    sizes = [len(table) for table in read_own_pairs(io.BytesIO(data), [0], tally=Tally())]
    assert sum(sizes) == n
    assert max(sizes) <= BATCH_ROWS


def test_a_file_without_rows() -> None:
    rows, tally = read(parquet({"url": pa.array([], pa.string()), "text": pa.array([], pa.string())}))
    assert (rows, tally.read) == ([], 0)


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_rows_that_are_no_utf8_are_dead_letters(kind: pa.DataType) -> None:
    """Parquet files do not promise that a string column is UTF-8."""
    texts = pa.array([b"a", b"\xff\xfe", None, b"b", b"cut \xe6\x9d"], pa.binary())
    strings = texts if kind == pa.binary() else pa.StringArray.from_buffers(5, *texts.buffers()[1:], texts.buffers()[0], texts.null_count)
    rows, tally = read(parquet({"url": ["u0", "u1", "u2", "u3", "u4"], "text": strings}))
    assert rows == [pair(image_id_of_url("u0"), "u0", "a"), pair(image_id_of_url("u3"), "u3", "b")]
    assert tally.read == 5
    assert tally.dropped == {"empty_text": 1}
    assert tally.dead == {"not_utf8": 2}
    assert [(letter.place, letter.payload) for letter in tally.letters] == [(1, b"u1\t\xff\xfe"), (4, b"u4\tcut \xe6\x9d")]
    assert tally.bad_file == ""


def test_places_are_rows_of_the_unit_not_of_a_batch() -> None:
    texts = [b"t"] * (BATCH_ROWS + 3)
    texts[BATCH_ROWS + 1] = b"\xff"
    rows, tally = read(parquet({"url": ["u"] * len(texts), "text": texts}))
    assert len(rows) == BATCH_ROWS + 2
    assert [letter.place for letter in tally.letters] == [BATCH_ROWS + 1]


def test_what_comes_before_damage_still_counts() -> None:
    n = 3 * BATCH_ROWS
    columns = {"url": [f"u{i}" for i in range(n)], "text": [f"t{i}" for i in range(n)]}
    data = bytearray(parquet(columns, row_group_size=BATCH_ROWS, use_dictionary=False, compression="snappy"))
    start = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(2).column(0).data_page_offset
    data[start : start + 200] = b"\xff" * 200
    rows, tally = read(bytes(data))
    assert [row["url"] for row in rows] == columns["url"][: 2 * BATCH_ROWS]
    assert tally.read == 2 * BATCH_ROWS + 1
    assert tally.dead == {"damaged_parquet": 1}
    assert tally.bad_file == "damaged_parquet"
    assert tally.letters[0].place == 2 * BATCH_ROWS


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset by peer"), OSError(5, "input/output error"), TimeoutError("slow")])
def test_a_failing_disk_or_network_is_no_damage(error: OSError) -> None:
    """Else a retry would never happen, and the rest of the file be gone."""

    class Failing(io.BytesIO):
        """Fails where the rows are, and serves the footer."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() < len(self.getbuffer()) // 2:
                raise error
            return super().read(size)

    n = 100_000
    file = Failing(parquet({"url": [f"u{i}" for i in range(n)], "text": [f"t{i}" for i in range(n)]}))
    tally = Tally()
    assert [rows for rows, _ in layout_of(file).groups] == [n]
    with pytest.raises(type(error)):
        list(read_own_pairs(file, [0], tally=tally))
    assert tally.counters() == Tally().counters()


def test_texts_over_the_limit_are_dropped() -> None:
    rows, tally = read(parquet({"url": ["a", "b"], "text": ["é" * MAX_TEXT, "é" * (MAX_TEXT + 1)]}))
    assert [row["url"] for row in rows] == ["a"]
    assert tally.counters()["dropped"] == {"text_too_long": 1}
