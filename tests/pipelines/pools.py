"""A pool of matched pairs of any size, whose entries have the counts of words: images with one text or some, and copies of pairs.

Everything follows from the seed. The parts are those of a stage ``match``; their texts say nothing: no job after matching reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from balancing.pairs import MATCHED_SCHEMA, image_keys
from metadata.entries import ENTRIES_SCHEMA
from metadata.tally import Tally
from pipelines import storage
from pipelines.jobs import run_job
from pipelines.stage import FinishedStage, Stage, Unit, open_stage


@dataclass(frozen=True, kw_only=True)
class PoolShape:
    """``pairs`` in ``parts`` parts. Languages have decreasing shares of them. Counts by rank fall as (rank + flat)^-steep, which with these
    numbers is how those of the published pool fall; a text has 1 + Poisson(``more``) draws of them. Images have 1 to ``texts`` texts."""

    pairs: int
    parts: int = 3
    languages: Sequence[str] = ("de", "en", "ja")
    entries: int = 5_000
    steep: float = 1.22
    flat: float = 11.8
    more: float = 2.5
    texts: int = 5
    copies: float = 0.1
    seed: int = 0


def draw_entries(rng: np.random.Generator, shape: PoolShape, n: int) -> np.ndarray:
    """``n`` entry ids, by Zipf's and Mandelbrot's law; int32."""
    power = 1 - shape.steep
    low, high = shape.flat**power, (shape.entries + shape.flat) ** power
    ranks = (low + (high - low) * rng.random(n)) ** (1 / power) - shape.flat
    return np.clip(ranks, 0, shape.entries - 1).astype(np.int32)


def draw_texts(rng: np.random.Generator, shape: PoolShape, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Entries of ``n`` texts, ascending and each once, and their offsets."""
    lengths = 1 + rng.poisson(shape.more, n)
    text = np.repeat(np.arange(n, dtype=np.int64), lengths)
    # np.unique, which looks into a hash table first, takes ten times as long.
    drawn = np.sort(text * shape.entries + draw_entries(rng, shape, len(text)))
    found = drawn[np.diff(drawn, prepend=-1) > 0]
    return (found % shape.entries).astype(np.int32), np.searchsorted(found, np.arange(n + 1) * shape.entries)


def draw_part(rng: np.random.Generator, shape: PoolShape, n: int) -> pa.Table:
    """MATCHED_SCHEMA of ``n`` pairs whose images are in no other part."""
    names = pa.array(rng.integers(0, 2**62, max(1, 2 * n // (1 + shape.texts)))).cast(pa.string())
    images = rng.integers(0, len(names), n)
    image_key, pair_key = image_keys(names.to_pylist())[images], rng.integers(0, 2**64, n, dtype=np.uint64)
    chances = 1.0 / (1 + np.arange(len(shape.languages)))
    lang = np.searchsorted(np.cumsum(chances) / chances.sum(), rng.random(n), side="right").astype(np.int32)
    order = np.lexsort((pair_key, image_key, lang))
    entries, offsets = draw_texts(rng, shape, n)
    image_key, ids = image_key[order], names.take(pa.array(images[order]))
    same = pa.array(np.zeros(n, dtype=np.int32))

    def constant(value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(same, [value]).cast(pa.string())

    hosts = pa.DictionaryArray.from_arrays(pa.array((image_key % 7).astype(np.int32)), [f"https://host{i}.example/" for i in range(7)])
    columns = {
        "image_id": ids,
        "url": pa.compute.binary_join_element_wise(hosts.cast(pa.string()), ids, ""),
        "page_url": constant("https://pages.example/"),
        "text": pa.array(pair_key[order]).cast(pa.string()),
        "source": constant("alt"),
        "lid": constant("en"),
        "lid_score": pa.array(np.full(n, 0.9, dtype=np.float32)),
        "lang": pa.DictionaryArray.from_arrays(pa.array(lang[order]), sorted(shape.languages)),
        "entries": pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), entries, type=MATCHED_SCHEMA.field("entries").type),
        "image_key": pa.array(image_key),
        "pair_key": pa.array(pair_key[order]),
    }
    return pa.table(columns, schema=MATCHED_SCHEMA)


def draw_parts(shape: PoolShape) -> Iterator[pa.Table]:
    """The parts; each repeats some pairs of the one before."""
    rng = np.random.default_rng(shape.seed)
    before: pa.Table | None = None
    for i in range(shape.parts):
        n = shape.pairs * (i + 1) // shape.parts - shape.pairs * i // shape.parts
        copies = MATCHED_SCHEMA.empty_table()
        if before:
            copies = before.take(pa.array(np.sort(rng.permutation(len(before))[: int(n * shape.copies)])))
        own = draw_part(rng, shape, n - len(copies))
        table = pa.concat_tables([own, copies]).unify_dictionaries().combine_chunks()
        before = table.take(pa.array(in_order(table)))
        yield before.combine_chunks()


def in_order(table: pa.Table) -> np.ndarray:
    """The order of a matched part: language, image, pair."""
    lang = table["lang"].cast(pa.string()).to_numpy(zero_copy_only=False)
    return np.lexsort((table["pair_key"].to_numpy(), table["image_key"].to_numpy(), lang.astype(str)))


def write_stage(url: str, kind: str, tables: Iterator[tuple[str, pa.Table]], **about: dict) -> FinishedStage:
    """A finished stage with these parts."""
    stage = Stage(url=url, kind=kind, parameters=about.get("parameters", {}), upstream=about.get("upstream", {}))
    named = []
    stage.begin([])
    for name, table in tables:
        unit = Unit(name=name, path=name)
        stage.write_part(unit, table, Tally(read=len(table), emitted=len(table)))
        named.append(unit)
    stage.begin(named)
    stage.finish()
    return open_stage(url, kind)


def write_pool(root: str, shape: PoolShape) -> None:
    """``entries`` and ``matched`` below a directory."""
    names = [f"word {i}" for i in range(shape.entries)]
    source = pa.array(["extra"] * shape.entries).dictionary_encode()
    table = pa.table(
        {"id": pa.array(range(shape.entries), pa.int32()), "entry": names, "source": source, "score": pa.nulls(shape.entries)}
    ).cast(ENTRIES_SCHEMA)
    entries = write_stage(storage.join(root, "entries"), "entries", ((lang, table) for lang in sorted(shape.languages)))
    about = {"parameters": {"languages": sorted(shape.languages)}, "upstream": {"entries": entries.id}}
    write_stage(storage.join(root, "matched"), "match", ((f"{i:04}", part) for i, part in enumerate(draw_parts(shape))), **about)


def counted_pool(root: Path, shape: PoolShape) -> Path:
    """A pool that is de-duplicated and counted, in a directory of its own."""
    write_pool(str(root), shape)
    run_job("dedup", ["--matched", f"{root}/matched", "--output", f"{root}/siblings"])
    run_job("count", [*pairs_of(root), "--entries", f"{root}/entries", "--output", f"{root}/counts"])
    return root


def pairs_of(work: Path) -> list[str]:
    """The options that name the pairs of such a pool."""
    return ["--matched", f"{work}/matched", "--siblings", f"{work}/siblings"]
