"""Curated pairs become images: each once, its texts in the order in which balancing numbers them."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from balancing.gather import CURATED_COLUMNS, WANTED_SCHEMA, gather_images
from balancing.pairs import CURATED_SCHEMA, image_keys, pair_keys

SCHEMA = pa.schema([CURATED_SCHEMA.field(name) for name in CURATED_COLUMNS])
PAIRS = st.tuples(st.sampled_from("abcdef"), st.sampled_from(["en", "de", "zh", "ja"]), st.integers(0, 5))


def curated(pairs: list[tuple[str, str, int]]) -> pa.Table:
    """Rows of (image, language, number of the text), languages coded in the order in which they come."""
    rows = [
        {
            "image_key": int(image_keys([image])[0]),
            "image_id": image,
            "url": f"https://{image}.example/{text}",
            "text": f"{lang} {text}",
            "entries": [text],
            "pair_key": int(pair_keys([image], [f"{lang} {text}"])[0]),
            "probability": text / 8,
        }
        for image, lang, text in pairs
    ]
    langs = pa.array([lang for _, lang, _ in pairs], pa.string()).dictionary_encode()
    columns = {field.name: pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA if field.name != "lang"}
    return pa.table({**columns, "lang": langs}).select(SCHEMA.names).cast(SCHEMA)


@given(st.lists(PAIRS, min_size=1, max_size=30, unique=True), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_each_image_once_with_its_texts_by_language_and_key(pairs: list[tuple[str, str, int]], tables: int) -> None:
    found = gather_images([curated(pairs[i::tables]) for i in range(tables) if pairs[i::tables]])
    assert found.schema == WANTED_SCHEMA
    rows = {row["image_id"]: row for row in found.to_pylist()}
    assert [row["image_id"] for row in found.to_pylist()] == sorted({p[0] for p in pairs}, key=lambda image: int(image_keys([image])[0]))
    for image, row in rows.items():
        mine = [(lang, int(pair_keys([image], [f"{lang} {text}"])[0]), text) for i, lang, text in pairs if i == image]
        expected = [
            {"text": f"{lang} {text}", "lang": lang, "entries": [text], "pair_key": key, "probability": text / 8}
            for lang, key, text in sorted(mine)
        ]
        assert row["texts"] == expected
        assert row["url"] == f"https://{image}.example/{sorted(mine)[0][2]}"


def test_no_pair_gives_no_image() -> None:
    assert gather_images([SCHEMA.empty_table()]).num_rows == 0
