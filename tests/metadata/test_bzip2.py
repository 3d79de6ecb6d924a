"""Blocks of bzip2: the content of a file, whatever the ranges, and what damage costs."""

from __future__ import annotations

import bz2
import functools
import io
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata import bzip2
from metadata.bzip2 import read_blocks
from metadata.compressed import Piece


def noise(seed: int, size: int) -> bytes:
    return np.random.Generator(np.random.PCG64(seed)).bytes(size)


CONTENT = noise(1, 210_000) + bytes(1_000_000) + b"an end"
#: Level 1 makes blocks of 100,000 bytes; zeros fill few.
FILES = {
    "one stream": bz2.compress(CONTENT, 1),
    "large blocks": bz2.compress(CONTENT, 9),
    "many streams": b"".join(bz2.compress(CONTENT[i : i + 99_000], 1) for i in range(0, len(CONTENT), 99_000)),
    "padded": bz2.compress(CONTENT[:1000]) + bytes(10_000) + bz2.compress(b"") * 3 + bz2.compress(CONTENT[1000:]) + bytes(7),
    "nothing": bz2.compress(b""),
}
#: Three blocks of one stream, that end anywhere in a byte.
THREE = bz2.compress(noise(2, 290_000), 1)


def blocks(data: bytes, start: int = 0, end: int | None = None) -> list[Piece]:
    return list(read_blocks(io.BytesIO(data[start:]), start=start, end=end))


def own(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, bytes, str]]:
    return [(p.place, p.data, p.damage.reason if p.damage else "") for p in blocks(data, start, end) if p.own]


@functools.cache
def whole_of(name: str) -> list[tuple[int, bytes, str]]:
    """The blocks of one of the files, read in one piece: once, not for each example."""
    return own(FILES[name])


def content(data: bytes) -> bytes:
    return b"".join(data for _, data, _ in own(data))


def spans(data: bytes, cuts: list[int]) -> Iterator[tuple[int, int | None]]:
    yield from pairwise([0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), None])  # type: ignore[misc]


@pytest.mark.parametrize("name", FILES)
def test_blocks_are_the_content(name: str) -> None:
    data = FILES[name]
    assert content(data) == (b"" if name == "nothing" else CONTENT)
    assert all(place < len(data) and not reason for place, _, reason in own(data))
    assert [place for place, *_ in own(data)] == sorted({place for place, *_ in own(data)})


def test_bytes_that_were_read_already_count() -> None:
    data = FILES["many streams"]
    assert list(read_blocks(io.BytesIO(data[3:]), begun=data[:3])) == blocks(data)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 1 << 18), max_size=6))
def test_ranges_have_each_block_once(name: str, cuts: list[int]) -> None:
    data = FILES[name]
    assert [block for start, end in spans(data, cuts) for block in own(data, start, end)] == whole_of(name)


@pytest.mark.parametrize("at", ["before", "at", "behind"])
def test_ranges_that_end_about_a_block(at: str) -> None:
    places = [place for place, *_ in own(THREE)]
    assert len(places) == 3
    cut = places[1] + {"before": -1, "at": 0, "behind": 1}[at]
    first = 2 if at == "behind" else 1
    assert own(THREE, 0, cut) == own(THREE)[:first]
    assert own(THREE, cut) == own(THREE)[first:]
    # What follows the range is there for who asks.
    assert [(p.place, p.own) for p in blocks(THREE, 0, cut)] == [(place, i < first) for i, place in enumerate(places)]


def test_a_range_is_all_that_is_read() -> None:
    data = b"".join(bz2.compress(noise(i, 400_000)) for i in range(12))
    file = io.BytesIO(data)
    file.seek(1_000_000)
    pieces = read_blocks(file, start=1_000_000, end=2_000_000)
    first = next(pieces)
    assert 1_000_000 <= first.place < 1_450_000
    assert file.tell() <= first.place + (2 << 20)
    assert len([piece for piece in pieces if piece.own]) == 1
    beginning = io.BytesIO(data)
    for piece in read_blocks(beginning, end=1_000_000):
        if not piece.own:
            break
    assert beginning.tell() <= 1_000_000 + (3 << 20)


@pytest.mark.slow
def test_little_of_a_file_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    grow = bzip2._Window._grow

    def spy(window: bzip2._Window) -> bool:
        grown = grow(window)
        held.append(len(window._data) + 100 * len(window._marks))
        return grown

    monkeypatch.setattr(bzip2._Window, "_grow", spy)
    without_marks = b"BZh9" + noise(3, 12_000_000)
    for data in (without_marks, THREE + bytes(12_000_000) + THREE, bz2.compress(b"") * 400_000, THREE[:300] + bytes(12_000_000) + THREE):
        blocks(data)
        blocks(data, 1)
    # Streams without content are almost nothing but marks.
    assert max(held) < 20_000_000


# -- damage --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [0, 1, 2])
@pytest.mark.parametrize("cuts", [[], [50_000], [90_000, 100_000, 200_000]])
def test_a_damaged_block_costs_no_other(broken: int, cuts: list[int]) -> None:
    whole = own(THREE)
    data = bytearray(THREE)
    data[whole[broken][0] + 20_000] ^= 255
    found = [block for start, end in spans(THREE, cuts) for block in own(bytes(data), start, end)]
    assert found == [(place, b"", "invalid_compression") if i == broken else (place, *rest) for i, (place, *rest) in enumerate(whole)]


def test_a_destroyed_mark_costs_the_blocks_beside_it() -> None:
    whole = own(THREE)
    data = bytearray(THREE)
    data[whole[1][0] + 2] ^= 255
    assert own(bytes(data)) == [(4, b"", "invalid_compression"), whole[2]]


def test_damage_of_one_stream_costs_no_other() -> None:
    streams = [bz2.compress(b"stream %d" % i * 10) for i in range(5)]
    places = [sum(map(len, streams[:i])) + 4 for i in range(5)]
    for offset in range(len(streams[2])):
        broken = bytearray(streams[2])
        broken[offset] ^= 1
        data = b"".join([*streams[:2], bytes(broken), *streams[3:]])
        found = own(data)
        good = [block for block in found if not block[2]]
        assert [place for place, *_ in good if place != places[2]] == [places[0], places[1], places[3], places[4]]
        # A CRC over a stream and the padding of its last byte are not looked at.
        assert len([block for block in found if block[2]]) == (offset < len(streams[2]) - 5) or (places[2] in [b[0] for b in good])


def test_a_file_cut_anywhere_gives_what_is_whole() -> None:
    parts = [b"one", b"two" * 100, b"", b"three"]
    streams = [bz2.compress(part) for part in parts]
    data = b"".join(streams)
    ends = [sum(map(len, streams[: i + 1])) for i in range(4)]
    for cut in range(4, len(data)):
        found = own(data[:cut])
        assert b"".join(parts).startswith(b"".join(block[1] for block in found))
        assert [reason for *_, reason in found if reason] == ([] if cut in ends else ["truncated"])
        # Of a stream all is there ten bytes before its end, which hold the mark and a CRC; and up to a byte more of bits.
        whole = sum(part != b"" and cut >= end - 10 for part, end in zip(parts, ends, strict=True))
        assert whole - 1 <= len([block for block in found if block[1]]) <= whole


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (b"BZh9 broken", ["invalid_compression"]),
        (b"BZh0" + THREE[4:], ["invalid_compression", "", "", ""]),
        (b"BZh", ["truncated"]),
        (THREE[:-8] + bytes(8), ["", "", "invalid_compression"]),
        (THREE + b"trailing", ["", "", "", "invalid_compression"]),
        (THREE + b"trailing" + THREE, ["", "", "", "invalid_compression", "", "", ""]),
        (THREE + THREE[:7], ["", "", "", "truncated"]),
        (THREE[:-1], ["", "", "", "truncated"]),
        (THREE[:-8], ["", "", "", "truncated"]),
    ],
)
def test_damage_is_named(data: bytes, reasons: list[str]) -> None:
    assert [reason for *_, reason in own(data)] == reasons


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(FILES["padded"])), st.integers(0, 3000))
def test_no_bytes_raise(noise: bytes, at: int, cut: int) -> None:
    data = FILES["padded"]
    for damaged in (b"BZh9" + noise, data[:at] + noise + data[at + cut :], THREE[:at] + noise):
        assert [b for start, end in spans(damaged, [at, at + 7]) for b in own(damaged, start, end) if not b[2]] == [
            b for b in own(damaged) if not b[2]
        ]


# -- marks where no block begins -----------------------------------------------------------------------------------------------------


def false_mark(monkeypatch: pytest.MonkeyPatch, *bits: int) -> None:
    """From now on what stands at these bits of ``THREE`` looks like the mark of a block."""
    needles = []
    for bit in bits:
        mark = int.from_bytes(THREE[bit // 8 :][:7], "big") >> (8 - bit % 8) & (1 << 48) - 1
        needles += [((mark >> shift & (1 << 40) - 1).to_bytes(5, "big"), shift, mark, True) for shift in range(8)]
    monkeypatch.setattr(bzip2, "_NEEDLES", [*bzip2._NEEDLES, *needles])


def test_a_mark_inside_a_block_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = own(THREE)
    false_mark(monkeypatch, 8 * 20_000 + 3, 8 * 30_000, 8 * (whole[1][0] + 12) + 7)
    assert own(THREE) == whole
    assert own(THREE, 0, 40_000) == whole[:1]


def test_a_mark_at_which_another_reader_begins_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = own(THREE)
    false_mark(monkeypatch, 8 * 20_000 + 3)
    for cut in (10_000, 20_000):
        before, behind = own(THREE, 0, cut), own(THREE, cut)
        assert before == [whole[0], (whole[1][0], b"", "false_mark")]
        assert behind == [(20_000, b"", "invalid_compression"), *whole[1:]]


def test_so_many_marks_in_a_block_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    false_mark(monkeypatch, *(8_000 * i for i in range(1, 10)))
    assert {reason for *_, reason in own(THREE)[:-2]} == {"invalid_compression"}
    assert own(THREE)[-2:] == [block for block in own(THREE) if not block[2]]
