"""Curated pairs → images with their texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from balancing.pairs import CURATED_SCHEMA, IMAGE_TEXT

#: What an image needs of a curated row, and all that is shuffled.
CURATED_COLUMNS = ("image_key", "image_id", "url", "text", "lang", "entries", "pair_key", "probability")

#: An image that is to be fetched; ``texts`` as in IMAGES_SCHEMA.
WANTED_SCHEMA = pa.schema(
    [
        CURATED_SCHEMA.field("image_id"),
        CURATED_SCHEMA.field("url"),
        pa.field("texts", pa.list_(pa.field("element", IMAGE_TEXT, nullable=False)), nullable=False),
    ]
)


def gather_images(pairs: Sequence[pa.Table]) -> pa.Table:
    """The images of curated pairs (CURATED_COLUMNS, in any order), each once with all its texts: WANTED_SCHEMA.

    Images come in the order of their keys. Texts come in that of language and pair key, in which balancing numbers the texts of an image:
    number floor(u(image) · n) is the same text here and there. The URL is that of the image's first text.
    """
    table = pa.concat_tables(pairs).unify_dictionaries()
    # Chunks share their dictionary from here on; its order is that in which the languages came.
    lang = table["lang"].combine_chunks()
    names = lang.dictionary.to_pylist()
    place = np.argsort(np.argsort(np.array(names, dtype=object)))[lang.indices.to_numpy()]
    order = np.lexsort((table["pair_key"].to_numpy(), place, table["image_key"].to_numpy()))
    table = table.take(pa.array(order)).combine_chunks()
    keys = table["image_key"].to_numpy()
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, dtype=np.int64)
    plain = table.set_column(table.schema.get_field_index("lang"), "lang", table["lang"].cast(pa.string()))
    parts = [plain[field.name].combine_chunks() for field in IMAGE_TEXT]
    structs = pa.StructArray.from_arrays(
        [p.chunk(0) if isinstance(p, pa.ChunkedArray) else p for p in parts],
        fields=[IMAGE_TEXT.field(i) for i in range(IMAGE_TEXT.num_fields)],
    )
    offsets = pa.array(np.append(starts, len(keys)).astype(np.int32))
    texts = pa.ListArray.from_arrays(offsets, structs, type=WANTED_SCHEMA.field("texts").type)
    first = table.take(pa.array(starts))
    return pa.table([first["image_id"], first["url"], texts], schema=WANTED_SCHEMA)
