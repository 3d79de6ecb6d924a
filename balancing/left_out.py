"""Pairs that a recount leaves out of a matched pool: of images that are gone, that were taken down, or that lie on certain hosts.

Whole images go, so that the choice among the texts of one that stays is what it was. (Only where ids of one's own give one image several
addresses does a list of hosts take some of its pairs: if one of those is chosen, nothing of the image is in the set.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.filters import Filters
from balancing.pairs import image_keys

#: Why a pair is left out, in the order in which it is asked; its number is the place here plus one, 0 stands for a pair that stays.
REASONS = ("image_not_alive", "image_dropped", "host_dropped")
#: Ids that are read at a time.
_BATCH = 65_536
#: Where the part of a URL that names its host stands, the way urlsplit finds it.
_AUTHORITY = r"^[\x00-\x20]*(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?P<authority>[^/?#\x00-\x20\\\[\]]*)(?:[/?#]|$)"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Which images to leave out. ``alive`` and ``dropped``: keys of image ids, uint64, ascending, each once; may lie in a mapped file.

    ``alive``: all others are left out; None: no such list. ``hosts``: those of images, their subdomains among them.
    """

    alive: np.ndarray | None = None
    dropped: np.ndarray | None = None
    hosts: frozenset[str] = field(default_factory=frozenset)

    @property
    def columns(self) -> list[str]:
        """The columns of a matched table by which this is decided."""
        return ["image_key"] * (self.alive is not None or self.dropped is not None) + ["url"] * bool(self.hosts)

    def reasons(self, matched: pa.Table) -> np.ndarray:
        """The number of the first reason against each row, 0 where there is none. int8, shape (rows,)."""
        out = np.zeros(len(matched), dtype=np.int8)
        if self.hosts:
            out[on_hosts(matched["url"], self.hosts)] = 3
        if self.dropped is not None:
            out[are_among(matched["image_key"].to_numpy(), self.dropped)] = 2
        if self.alive is not None:
            out[~are_among(matched["image_key"].to_numpy(), self.alive)] = 1
        return out


def are_among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each value is in an ascending array. Boolean, the shape of ``values``."""
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values, dtype=bool)


def on_hosts(urls: pa.Array | pa.ChunkedArray, hosts: frozenset[str]) -> np.ndarray:
    """Whether each URL is of one of the hosts or of a subdomain. Boolean, shape (n,). Each distinct host is looked at once."""
    rule = Filters(hosts=hosts)
    authority = pc.struct_field(pc.extract_regex(urls, _AUTHORITY), "authority")
    # What the expression does not understand is looked at whole.
    asked = pc.if_else(pc.is_valid(authority), pc.binary_join_element_wise("//", authority, ""), pc.fill_null(urls, ""))
    encoded = pc.dictionary_encode(asked)
    found = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    found = found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
    blocked = np.array([rule.reason("", url) is not None for url in found.dictionary.to_pylist()], dtype=bool)
    return blocked[found.indices.to_numpy()] if len(found) else np.zeros(0, dtype=bool)


def keys_of_ids(file: BinaryIO) -> Iterator[np.ndarray]:
    """Keys of the image ids in a file: uint64, some at a time. The file is Parquet with a column image_id, or text with an id a line.

    Raises:
        ValueError: it is neither; says why.
    """
    head = file.read(4)
    file.seek(0)
    batches = _ids_of_parquet(file) if head == b"PAR1" else _ids_of_text(file)
    return (image_keys(batch) for batch in batches)


def _ids_of_parquet(file: BinaryIO) -> Iterator[list[str]]:
    try:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        if "image_id" not in names:
            raise ValueError(f"no column image_id, only {', '.join(names)}")
        for batch in parquet.iter_batches(batch_size=_BATCH, columns=["image_id"]):
            ids = batch.column(0)
            if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)) or ids.null_count:
                raise ValueError(f"the column image_id is {ids.type} with {ids.null_count} empty values, not all strings")
            yield ids.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"damaged Parquet ({error})") from error


def _ids_of_text(file: BinaryIO) -> Iterator[list[str]]:
    numbered = enumerate(file, 1)
    while lines := list(islice(numbered, _BATCH)):
        yield [id for id in (_id_of_line(number, line) for number, line in lines) if id]


def _id_of_line(number: int, line: bytes) -> str:
    try:
        return line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"line {number} is not UTF-8 ({error.reason})") from error


def sorted_keys(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Keys of any number of batches, ascending, each once. Takes 24 bytes a key while it works."""
    keys = np.concatenate([np.zeros(0, dtype=np.uint64), *batches])
    keys.sort()
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first]
