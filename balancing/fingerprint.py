"""What identifies a set whatever files it is cut into, and a corpus whether it is packed or not: checksums of sorted checksums."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO

import numpy as np
import pyarrow as pa

#: Bytes of the digest of a pair.
DIGEST_BYTES = 32
#: How the fingerprint of a set is made; another way gets another name.
SET_FINGERPRINT = "sha256-of-sorted-pair-sha256"
#: More content than this is no corpus of WordNet (all of the Open Multilingual Wordnet takes 0.15 GB).
_CORPUS_BYTES = 4 << 30


def pair_digests(pairs: pa.Table) -> np.ndarray:
    """SHA-256 of each pair, uint8 of shape (rows, 32); ``pairs`` needs the columns image_id, text and probability.

    Digested are, one behind the other: the length of the id in bytes (uint32, little endian), the id in UTF-8, the same of the text, and
    the probability (float64, little endian).
    """
    ids, texts = (pairs[name].to_pylist() for name in ("image_id", "text"))
    odds = pairs["probability"].to_numpy().astype("<f8").tobytes()
    sha256, digests = hashlib.sha256, []
    for i, (image_id, text) in enumerate(zip(ids, texts, strict=True)):
        one, other = image_id.encode(), text.encode()
        digests.append(
            sha256(len(one).to_bytes(4, "little") + one + len(other).to_bytes(4, "little") + other + odds[8 * i : 8 * i + 8]).digest()
        )
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def run_of_digest(digests: np.ndarray, runs: int) -> np.ndarray:
    """Which of ``runs`` (at most 256) equal slices of all digests each one lies in: int64 of shape (n,), ascending with the digests."""
    return digests[:, 0].astype(np.int64) * runs >> 8


def fingerprint_of(runs: Iterable[np.ndarray]) -> str:
    """Hexadecimal SHA-256 of all digests in ascending order, one behind the other. ``runs``: uint8 arrays of shape (n, 32), each of which
    holds larger digests than those before it; within one they may have any order.

    Memory: that of one run, twice.
    """
    total = hashlib.sha256()
    for digests in runs:
        if len(digests):
            total.update(np.sort(np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").ravel()).tobytes())
    return total.hexdigest()


def corpus_sha256(archive: IO[bytes]) -> str:
    """Hexadecimal SHA-256 of what a zip archive holds, however it is packed: of the lines that ``sha256sum`` writes of its files (checksum,
    two spaces, name), sorted by name.

    Raises:
        ValueError: it is no zip archive, damaged, or holds more than 4 GB.
    """
    lines: dict[str, str] = {}
    size = 0
    try:
        with zipfile.ZipFile(archive) as corpus:
            for member in corpus.infolist():
                if member.is_dir():
                    continue
                content = hashlib.sha256()
                with corpus.open(member) as file:
                    while data := file.read(1 << 20):
                        content.update(data)
                        size += len(data)
                        if size > _CORPUS_BYTES:
                            raise ValueError(f"it holds more than {_CORPUS_BYTES} bytes")
                lines[member.filename] = f"{content.hexdigest()}  {member.filename}\n"
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"no zip archive that can be read ({error})") from error
    return hashlib.sha256("".join(lines[name] for name in sorted(lines)).encode()).hexdigest()
