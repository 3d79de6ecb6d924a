"""The records that travel between stages, as Arrow schemas, and the keys that identify them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

#: Grows whenever a schema that matching writes, a key, or what is taken from a page changes.
PAIRS_VERSION = 3
#: Characters of a text; longer ones are dropped: no captions, and the longest of the real crawl at hand has 2,000.
MAX_TEXT = 10_000

#: What sources give and ``match`` takes: one row per (image, text) candidate. ``text`` is normalized (metadata.text.normalize_text);
#: ``source`` says where the text stood (alt, title, data-image-title, or ``own``).
PAIR_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("page_url", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)

#: ``matched/``: sorted by lang, then image_key, then pair_key; a pair occurs once in a part. ``entries`` are ascending entry ids of
#: ``lang``.
MATCHED_SCHEMA = pa.schema(
    [
        *PAIR_SCHEMA,
        pa.field("lid", pa.string(), nullable=False),
        pa.field("lid_score", pa.float32(), nullable=False),
        pa.field("lang", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("entries", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("image_key", pa.uint64(), nullable=False),
        pa.field("pair_key", pa.uint64(), nullable=False),
    ]
)

LANG_COUNT = pa.struct([pa.field("lang", pa.string(), nullable=False), pa.field("n", pa.int32(), nullable=False)])

#: ``siblings/``: row i speaks of row i of the matched part of the same name. ``keep``: this copy of the pair lives. ``rank``: its place
#: among the image's unique texts of its language, ordered by pair_key (-1 where keep is false). ``n``: how many unique texts the image has,
#: per language, languages ascending (empty where keep is false).
SIBLINGS_SCHEMA = pa.schema(
    [
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("n", pa.list_(pa.field("element", LANG_COUNT, nullable=False)), nullable=False),
    ]
)

#: ``curated/``: the matched columns and the probability with which the text was kept once it was chosen; sorted by image_key.
CURATED_SCHEMA = pa.schema([*MATCHED_SCHEMA, pa.field("probability", pa.float64(), nullable=False)])

#: One text of an image in ``images/``.
IMAGE_TEXT = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("entries", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("pair_key", pa.uint64(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
    ]
)

#: ``images/``: one row per image, in the order of the image keys, which mixes hosts; ``jpeg`` is the encoded image as the trainer reads it:
#: JPEG, or the PNG or WebP that was fetched. ``sha256``: of the pixels; ``dhash``: their difference hash, which near copies share but for a
#: few bits. ``labels``: what others say of the image, ascending; null where nobody was asked.
IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("jpeg", pa.binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("dhash", pa.uint64()),
        pa.field("labels", pa.list_(pa.field("element", pa.string(), nullable=False))),
        pa.field("texts", pa.list_(pa.field("element", IMAGE_TEXT, nullable=False)), nullable=False),
    ]
)


def image_id_of_url(url: str) -> str:
    """Image id of a resolved URL: the first 24 hexadecimal digits of SHA-224 of the URL without tabs and spaces."""
    return hashlib.sha224(url.replace("\t", "").replace(" ", "").encode()).hexdigest()[:24]


def _keys(values: Iterable[bytes]) -> np.ndarray:
    blake2b = hashlib.blake2b
    return np.frombuffer(b"".join([blake2b(v, digest_size=8).digest() for v in values]), dtype="<u8")


def image_keys(image_ids: Sequence[str]) -> np.ndarray:
    """uint64 key per image id: BLAKE2b of the id. Shape (n,)."""
    return _keys([i.encode() for i in image_ids])


def pair_keys(image_ids: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """uint64 key per pair: BLAKE2b of id, NUL, text. Together with the image's key 128 bits decide whether two pairs are equal. Shape
    (n,)."""
    return _keys([f"{i}\0{t}".encode() for i, t in zip(image_ids, texts, strict=True)])
