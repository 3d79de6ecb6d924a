from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing import captions
from balancing.captions import read_captions
from balancing.pairs import MAX_TEXT
from metadata.tally import Tally
from metadata.text import normalize_text


def read(data: bytes, *, column: str = "text") -> tuple[list[str], Tally]:
    tally = Tally()
    texts = [text for batch in read_captions(io.BytesIO(data), column=column, tally=tally) for text in batch]
    assert tally.balanced
    assert tally.emitted == len(texts)
    return texts, tally


def parquet(*values: object, kind: pa.DataType | None = None, column: str = "text", rows: int = 1000) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"n": range(len(values)), column: pa.array(values, kind or pa.string())}), out, row_group_size=rows)
    return out.getvalue()


LINES = b"\xef\xbb\xbfA dog\r\n\n  two\tcats  \nK\xf6ln\n" + b"x" * MAX_TEXT + b"\n" + b"y" * (MAX_TEXT + 1) + b"\n \nA dog\nlast"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gz", "bz2", "xz"])
def test_lines_of_a_text_file(pack: Callable[[bytes], bytes]) -> None:
    texts, tally = read(pack(LINES))
    assert texts == ["A dog", "two cats", "x" * MAX_TEXT, "A dog", "last"]
    assert (tally.read, tally.dropped, tally.dead) == (9, {"empty_text": 2, "text_too_long": 1}, {"not_utf8": 1})
    (letter,) = tally.letters
    assert (letter.place, letter.payload) == (4, b"K\xf6ln")


def test_a_text_file_ends_with_or_without_a_newline() -> None:
    assert [read(data)[1].read for data in (b"", b"\n", b"a", b"a\n", b"a\n\n", b"\xef\xbb\xbf")] == [0, 1, 1, 1, 2, 1]
    assert read("a\u2028b\x0bc\x85d\n".encode())[0] == ["a\u2028b\x0bc\x85d"]


def test_a_line_of_any_length_is_one_caption() -> None:
    texts, tally = read(b"first\n" + b"z" * (5 << 20) + b"\nlast\n" + b"\xff" * (3 << 20))
    assert texts == ["first", "last"]
    assert (tally.read, tally.dropped) == (4, {"text_too_long": 2})


def test_what_comes_before_damage_counts() -> None:
    whole = gzip.compress("".join(f"caption {i * 7919 % 10007}\n" for i in range(20_000)).encode())
    texts, tally = read(whole[: len(whole) // 2])
    assert texts == [f"caption {i * 7919 % 10007}" for i in range(len(texts))]
    assert len(texts) > 1_000
    assert (tally.dead, tally.bad_file, tally.letters[0].place) == ({"truncated": 1}, "truncated", len(texts) + 1)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_a_column_of_a_parquet_file(kind: pa.DataType) -> None:
    texts, tally = read(parquet("A dog", None, " two\ncats ", "", "A dog", kind=kind, column="caption", rows=2), column="caption")
    assert texts == ["A dog", "two cats", "A dog"]
    assert (tally.read, tally.dropped) == (5, {"empty_text": 2})


def test_a_row_that_is_no_utf8_is_a_dead_letter() -> None:
    data = pa.array([b"good", b"K\xf6ln", b"good too"], pa.binary())
    out = io.BytesIO()
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 3, data.buffers())}), out)
    texts, tally = read(out.getvalue())
    assert texts == ["good", "good too"]
    assert [(letter.reason, letter.place, letter.payload) for letter in tally.letters] == [("not_utf8", 1, b"K\xf6ln")]


def test_damaged_parquet_is_counted() -> None:
    data = parquet(*(f"caption {i}" for i in range(3000)), rows=1000)
    middle = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(1).data_page_offset
    broken = data[: middle - 4] + b"\xff" * 64 + data[middle + 60 :]
    texts, tally = read(broken)
    assert texts == [f"caption {i}" for i in range(len(texts))]
    assert len(texts) <= 1000
    assert (tally.dead, tally.bad_file) == ({"damaged_parquet": 1}, "damaged_parquet")
    for cut in (b"PAR1", data[:-9]):
        assert read(cut)[1].dead == {"damaged_parquet": 1}


def test_another_column_is_told() -> None:
    with pytest.raises(ValueError, match=r"^no column caption; there are n, text$"):
        read(parquet("a"), column="caption")
    with pytest.raises(ValueError, match=r"^column text holds no text but list<"):
        read(parquet([1], kind=pa.list_(pa.int8())))


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "BATCH_ROWS", 3)
    monkeypatch.setattr(captions, "BATCH_CHARACTERS", 10)
    lines = "\n".join(["a", "b", "c", "d", "e" * 20, "f", "g" * 4, "h" * 5, "i"]).encode()
    found = [*read_captions(io.BytesIO(lines), column="", tally=Tally())]
    assert found == [["a", "b", "c"], ["d", "e" * 20], ["f", "g" * 4, "h" * 5], ["i"]]


@given(
    st.lists(
        st.one_of(st.text("ab \t\r", max_size=4).map(str.encode), st.binary(max_size=3)).map(lambda line: line.replace(b"\n", b"")),
        max_size=8,
    )
)
def test_lines_are_what_splitting_gives(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    if data.startswith((b"BZh", b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf")):
        return
    expected: list[str] = []
    reasons: Counter[str] = Counter()
    for line in lines:
        try:
            text = normalize_text(line.decode())
        except UnicodeDecodeError:
            reasons["not_utf8"] += 1
            continue
        if text:
            expected.append(text)
        else:
            reasons["empty_text"] += 1
    texts, tally = read(data)
    assert texts == expected
    assert tally.dropped + tally.dead == reasons
