from __future__ import annotations

import hashlib
import io
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing.fingerprint import corpus_sha256, fingerprint_of, pair_digests, run_of_digest

PAIRS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8), st.floats(0, 1)), max_size=30)


def table(pairs: list[tuple[str, str, float]]) -> pa.Table:
    ids, texts, odds = zip(*pairs, strict=True) if pairs else ((), (), ())
    columns = [pa.array(ids, pa.string()), pa.array(texts, pa.string()), pa.array(odds, pa.float64())]
    return pa.table(columns, names=["image_id", "text", "probability"])


def by_hand(pairs: list[tuple[str, str, float]]) -> str:
    """The fingerprint as its documentation says it."""
    digests = [
        hashlib.sha256(
            b"".join([struct.pack("<I", len(s.encode())) + s.encode() for s in (image_id, text)]) + struct.pack("<d", odds)
        ).digest()
        for image_id, text, odds in pairs
    ]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def fingerprint(tables: list[pa.Table], runs: int) -> str:
    digests = np.concatenate([np.zeros((0, 32), dtype=np.uint8), *map(pair_digests, tables)])
    numbers = run_of_digest(digests, runs)
    return fingerprint_of(digests[numbers == run] for run in range(runs))


@given(PAIRS, st.integers(1, 256), st.integers(0, 30), st.randoms())
def test_it_is_that_of_the_pairs_however_they_are_cut_and_ordered(
    pairs: list[tuple[str, str, float]], runs: int, cut: int, random: object
) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fingerprint([table(pairs)], 1) == by_hand(pairs)
    assert fingerprint([table(shuffled[:cut]), table(shuffled[cut:])], runs) == by_hand(pairs)


def test_whatever_changes_in_a_pair_changes_it() -> None:
    pairs = [("a", "bc", 0.5), ("d", "e", 1.0)]
    others = [
        [("ab", "c", 0.5), ("d", "e", 1.0)],
        [("a", "bc", np.nextafter(0.5, 1)), ("d", "e", 1.0)],
        [("a", "bc", 0.5)],
        [*pairs, ("d", "e", 1.0)],
        [("a", "e", 0.5), ("d", "bc", 1.0)],
    ]
    assert len({by_hand(pairs), *(fingerprint([table(other)], 3) for other in others)}) == 6


def test_runs_ascend_with_the_digests() -> None:
    digests = np.zeros((256, 32), dtype=np.uint8)
    digests[:, 0] = np.arange(256)
    assert run_of_digest(digests, 1).tolist() == [0] * 256
    assert run_of_digest(digests, 256).tolist() == [*range(256)]
    numbers = run_of_digest(digests, 3)
    assert (np.diff(numbers) >= 0).all()
    assert np.bincount(numbers).tolist() == [86, 85, 85]


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as packed:
        packed.writestr("folder/", b"")
        for name, data in files.items():
            packed.writestr(name, data)
    return io.BytesIO(out.getvalue())


def test_a_corpus_is_told_by_its_content_not_by_how_it_is_packed() -> None:
    files = {"b/x": b"1" * 3_000_000, "a": b""}
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in ("a", "b/x"))
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert corpus_sha256(archive(files)) == expected
    assert corpus_sha256(archive(dict(reversed(files.items())), zipfile.ZIP_STORED)) == expected
    assert corpus_sha256(archive({**files, "a": b"1"})) != expected
    assert corpus_sha256(archive({"c": b"", "b/x": files["b/x"]})) != expected


def test_what_is_no_archive_is_refused() -> None:
    broken = bytearray(archive({"a": b"text" * 100}, zipfile.ZIP_STORED).getvalue())
    broken[broken.index(b"text")] ^= 1
    for data in (b"", b"PK\x05\x06 no archive", bytes(broken)):
        with pytest.raises(ValueError, match="no zip archive that can be read"):
            corpus_sha256(io.BytesIO(data))
