from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancing.warc
from balancing.warc import read_records
from metadata.tally import Tally

GZIP_DAMAGE = "broken_gzip"


def record(body: bytes, *, length: int | str | None = None, end: bytes = b"\r\n") -> bytes:
    head = [b"WARC/1.0", b"WARC-Type: response", b"Content-Length: " + str(len(body) if length is None else length).encode()]
    return end.join(head) + end * 2 + body + end * 2


A, B, C = record(b"AAAA"), record(b"BBBBBB"), record(b"CCC")
BODIES = [b"AAAA", b"BBBBBB", b"CCC"]


def member(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def read(data: bytes) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Blocks, and reason and place of each damage."""
    tally = Tally()
    blocks = [r.block for r in read_records(io.BytesIO(data), tally=tally)]
    assert tally.balanced
    assert bool(tally.bad_file) == bool(tally.letters)
    return blocks, [(letter.reason, letter.place) for letter in tally.letters]


GA, GB, GC = member(A), member(B), member(C)


@pytest.mark.parametrize(
    "data",
    [
        A + B + C,
        GA + GB + GC,
        member(A + B + C),
        member(A[:30]) + member(A[30:50]) + member(A[50:] + B) + GC,
        GA + b"\0" * 600 + GB + GC + b"\0" * 300,
        record(b"AAAA", end=b"\n") + B + record(b"CCC", end=b"\n"),
        b"\r\n\r\n" + A + b"\r\n" * 9 + B + C,
        GA + member(b"") + GB + GC,
    ],
    ids=["plain", "members", "one member", "members across records", "padding", "bare LF", "blank lines", "empty member"],
)
def test_whole_files(data: bytes) -> None:
    assert read(data) == (BODIES, [])


DAMAGED = {
    "empty": (b"", [], [("not_warc", 0)]),
    "blank": (b" \r\n\r\n", [], [("not_warc", 0)]),
    "html": (b"<html></html>" * 99, [], [("not_warc", 0)]),
    "html in gzip": (member(b"<html></html>" * 99), [], [("not_warc", 0)]),
    "text between plain": (A + b"text\r\n\r\n" + B + C, BODIES, [("broken_record", len(A))]),
    "text before": (b"text\r\n\r\n" + A + B + C, BODIES, [("broken_record", 0)]),
    "bytes between members": (GA + b"bytes" + GB + GC, BODIES, [(GZIP_DAMAGE, len(GA))]),
    "checksum": (GA + GB[:-8] + b"12345678" + GC, [b"AAAA", b"CCC"], [(GZIP_DAMAGE, len(GA))]),
    "bytes in member": (GA + GB[:20] + b"\xff\xff\xff\xff" + GB[24:] + GC, [b"AAAA", b"CCC"], [(GZIP_DAMAGE, len(GA))]),
    "cut in member": (GA + GB + GC[:-20], BODIES[:2], [("truncated", len(GA + GB))]),
    "cut in checksum": (GA + GB + GC[:-4], BODIES, [("truncated", len(GA + GB))]),
    "cut in plain block": (A + B[:-8], BODIES[:1], [("truncated", len(A))]),
    "cut in plain header": (A + B[:20], BODIES[:1], [("truncated", len(A))]),
    "length too long": (GA + member(record(b"BBB", length=400)) + GC, [b"AAAA", b"CCC"], [("broken_record", len(GA))]),
    "length too short": (GA + member(record(b"BBBBBBBB", length=6)) + GC, BODIES, [("broken_record", len(GA))]),
    "no length": (A + record(b"BBBBBB", length="") + C, [b"AAAA", b"CCC"], [("broken_record", len(A))]),
    "negative length": (A + record(b"BBBBBB", length=-1) + C, [b"AAAA", b"CCC"], [("broken_record", len(A))]),
    "endless header": (GA + member(b"WARC/1.0\r\n" + b"a: b\r\n" * 30_000) + GC, [b"AAAA", b"CCC"], [("broken_record", len(GA))]),
}


@pytest.mark.parametrize(("data", "blocks", "damage"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(data: bytes, blocks: list[bytes], damage: list[tuple[str, int]]) -> None:
    assert read(data) == (blocks, damage)


def test_records_before_damage_in_one_long_member() -> None:
    bodies = [str(i).encode() * 50 for i in range(2_000)]
    data = member(b"".join(map(record, bodies)))
    cut = len(data) * 2 // 3
    whole = zlib.decompressobj(31).decompress(data[:cut])
    blocks, damage = read(data[:cut])
    assert damage == [("truncated", 0)]
    assert blocks == [body for body in bodies if record(body)[:-4] in whole]
    assert 500 < len(blocks) < 2_000


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.data())
def test_any_split_into_members_reads_the_same(bodies: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(record, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    # A member that begins with a record's first bytes ends the record before it, so a body must not hold them.
    if not any(b"WARC/" in body for body in bodies):
        assert read(b"".join(map(member, pieces))) == (bodies, [])


@given(st.binary(max_size=400), st.integers(0, 300), st.integers(0, 300))
def test_no_bytes_crash_and_the_books_close(noise: bytes, start: int, stop: int) -> None:
    for data in (noise, GA + noise + GB, A + noise + B, (GA + GB + GC)[:start] + noise + (GA + GB + GC)[stop:]):
        read(data)


def test_files_that_give_few_bytes_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    data = GA + GB[:20] + b"\xff\xff\xff\xff" + GB[24:] + GC
    tally = Tally()
    assert [r.block for r in read_records(Slow(data), tally=tally)] == [b"AAAA", b"CCC"]


def test_long_records_keep_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing.warc, "RECORD_BYTES", 1_000)
    monkeypatch.setattr(balancing.warc, "PREFIX_BYTES", 10)
    data = GA + member(record(b"x" * 1_001)) + GC
    found = [(r.block, r.whole, r.place) for r in read_records(io.BytesIO(data), tally=Tally())]
    assert found == [(b"AAAA", True, 0), (b"x" * 10, False, len(GA)), (b"CCC", True, len(data) - len(GC))]


def test_headers_and_place_in_a_plain_file() -> None:
    found = list(read_records(io.BytesIO(A + B), tally=Tally()))
    assert [r.place for r in found] == [0, len(A)]
    assert found[0].headers == {"warc-type": "response", "content-length": "4"}


def test_real_crawls_against_warcio(shared_data: Path) -> None:
    iterator = pytest.importorskip("warcio.archiveiterator").ArchiveIterator
    for name in ("IAH-urls-wget", "sample-0000", "clueweb-quirk", "whirlwind"):
        path = shared_data / "crawl" / f"{name}.warc.gz"
        with path.open("rb") as file:
            expected = [
                (r.rec_type, r.rec_headers.get_header("WARC-Target-URI") or "", r.raw_stream.read())
                for r in iterator(file, no_record_parse=True)
            ]
        with path.open("rb") as file:
            tally = Tally()
            found = [
                (r.headers["warc-type"], (r.headers.get("warc-target-uri") or "").strip("<>"), r.block)
                for r in read_records(file, tally=tally)
            ]
        assert found == expected
        assert not tally.bad_file


def test_a_real_crawl_that_is_cut_off(shared_data: Path) -> None:
    assert read((shared_data / "crawl" / "clipped.warc.gz").read_bytes()) == ([], [("truncated", 0)])
