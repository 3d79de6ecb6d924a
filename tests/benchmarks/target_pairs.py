"""The number of pairs that can be expected to be kept, at all thresholds of a pass: of a matched part, and of a pool of any size.

``python -m tests.benchmarks.target_pairs --pairs 100000000 --workers 2 DIR`` writes such a pool and runs the job on it, once.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from balancing.counts import COUNTS_SCHEMA
from balancing.expectation import GRID, SCALE
from balancing.pairs import LANG_COUNT, MATCHED_SCHEMA, SIBLINGS_SCHEMA
from pipelines.expectation import Place, expected_of_unit
from pipelines.part import read_part
from pipelines.pool import open_pool
from pipelines.thresholds import ThresholdsConfig
from pipelines.thresholds import main as thresholds
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare
from tests.pipelines.pools import PoolShape, draw_texts, write_stage

LANGUAGES = ("de", "en", "ja")
#: Shares of the pairs of a part, one language after the other.
_SHARES = (0.2, 0.7, 0.1)
_PART_ROWS = 1_000_000
_TEXTS_OF_IMAGE = 5
_DUPLICATES = 0.1


def write_columns(folder: Path, *, pairs: int, entries: int) -> Place:
    """A pool's stages matched, siblings and counts, with no more than the columns that the job reads."""
    shape = PoolShape(pairs=pairs, entries=entries, languages=LANGUAGES)
    sizes = np.diff(np.linspace(0, pairs, -(-pairs // _PART_ROWS) + 1).astype(int)).tolist()
    counts = {lang: np.zeros(entries, dtype=np.int64) for lang in LANGUAGES}

    def edges_of(rows: int) -> np.ndarray:
        return np.rint(np.cumsum((0, *_SHARES)) * rows).astype(int)

    def keep_of(i: int, rows: int) -> np.ndarray:
        return np.random.default_rng([1, i]).random(rows) >= _DUPLICATES

    def matched() -> Iterator[tuple[str, pa.Table]]:
        for i, rows in enumerate(sizes):
            edges, keep = edges_of(rows), keep_of(i, rows)
            ids, offsets = draw_texts(np.random.default_rng([2, i]), shape, rows)
            for lang, first, end in zip(LANGUAGES, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                mine = np.repeat(keep[first:end], np.diff(offsets[first : end + 1]))
                counts[lang] += np.bincount(ids[offsets[first] : offsets[end]][mine], minlength=entries)
            codes = np.repeat(np.arange(len(LANGUAGES), dtype=np.int32), np.diff(edges))
            lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), ids, type=MATCHED_SCHEMA.field("entries").type)
            yield f"{i:05}", pa.table({"lang": pa.DictionaryArray.from_arrays(codes, LANGUAGES), "entries": lists})

    def siblings() -> Iterator[tuple[str, pa.Table]]:
        for i, rows in enumerate(sizes):
            yield f"{i:05}", _siblings(np.random.default_rng([3, i]), keep_of(i, rows), np.diff(edges_of(rows)))

    about = {"parameters": {"languages": list(LANGUAGES)}, "upstream": {"entries": "e"}}
    match = write_stage(f"{folder}/matched", "match", matched(), **about)
    dedup = write_stage(f"{folder}/siblings", "dedup", siblings(), upstream={"match": match.id})
    tables = ((lang, pa.table([np.arange(entries, dtype=np.int32), counts[lang]], schema=COUNTS_SCHEMA)) for lang in LANGUAGES)
    count = write_stage(f"{folder}/counts", "count", tables, upstream={"match": match.id, "dedup": dedup.id, "entries": "e"})
    return Place(siblings=dedup.url, counts=count.url, counts_id=count.id)


def _siblings(rng: np.random.Generator, keep: np.ndarray, rows: np.ndarray) -> pa.Table:
    """Siblings of so many rows of each language; their images have some texts of that language."""
    n = rng.integers(1, _TEXTS_OF_IMAGE + 1, len(keep)).astype(np.int32)
    names = pa.array(LANGUAGES).take(pa.array(np.repeat(np.arange(len(LANGUAGES)), rows)))
    structs = pa.StructArray.from_arrays([names, pa.array(n)], fields=list(LANG_COUNT)).filter(pa.array(keep))
    offsets = pa.array(np.concatenate(([0], np.cumsum(keep))).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, structs, type=SIBLINGS_SCHEMA.field("n").type)
    return pa.table([pa.array(keep), pa.array(np.where(keep, 0, -1).astype(np.int32)), lists], schema=SIBLINGS_SCHEMA)


def _naive(matched: pa.Table, siblings: pa.Table, counts: dict[str, list[int]], t: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Pair by pair and threshold by threshold."""
    sums = {lang: [0.0] * len(ts) for lang, ts in t.items()}
    columns = [table[name].to_pylist() for table, name in ((matched, "lang"), (matched, "entries"), (siblings, "keep"), (siblings, "n"))]
    for lang, entries, keep, n in zip(*columns, strict=True):
        texts = sum(one["n"] for one in n)
        for k, of in enumerate(t[lang].tolist() if keep else ()):
            miss = 1.0
            for entry in entries:
                miss *= 1.0 - min(1.0, of / counts[lang][entry])
            sums[lang][k] += (1.0 - miss) / texts
    return sums


def _rounded(sums: dict[str, list[float]]) -> dict[str, list[str]]:
    return {lang: [f"{n:.4g}" for n in of] for lang, of in sorted(sums.items())}


@benchmark
def target_pairs(material: Material) -> Iterator[Row]:
    """A matched part and its siblings → the expected number of pairs at each threshold of a pass."""
    rows, some = material.size.pairs, max(1, material.size.pairs // 50)
    folders = [Path(material.output()) for _ in range(2)]
    t = {lang: np.rint(np.geomspace(1, 10_000, GRID)) for lang in LANGUAGES}
    places = [write_columns(folder, pairs=n, entries=50_000) for folder, n in zip(folders, (rows, some), strict=True)]
    (whole, *_), (few, *_) = (open_pool([f"{folder}/matched"]).units() for folder in folders)
    matched, siblings = read_part(few.url), read_part(f"{places[1].siblings}/{few.path}")
    counts = {lang: read_part(f"{places[1].counts}/{lang}.parquet")["count"].to_pylist() for lang in LANGUAGES}
    yield compare(
        "target_pairs",
        "pairs/s",
        amount=rows,
        fast=lambda: list(expected_of_unit(whole, places[0], t=t)),
        naive=lambda: _naive(matched, siblings, counts, t),
        naive_amount=some,
        fast_result=lambda _: _rounded({lang: (of[1:] / SCALE).tolist() for lang, of in expected_of_unit(few, places[1], t=t)}),
        naive_result=_rounded,
        input=f"a part of {rows:,} pairs, {GRID} thresholds at once; naive: a loop over pairs ({some:,} of them)",
        command="target_pairs",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder
    if not (folder / "counts" / "_SUCCESS").exists():
        write_columns(folder, pairs=arguments.pairs, entries=500_000)
    start = time.monotonic()
    config = ThresholdsConfig(
        counts=f"{folder}/counts",
        matched=(f"{folder}/matched",),
        siblings=f"{folder}/siblings",
        target_pairs=arguments.pairs // 10,
        workers=arguments.workers,
        output=f"{folder}/{time.time_ns()}.json",
    )
    thresholds(config, [])
    seconds = time.monotonic() - start
    own, children = (resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory = f"at most {own:.2f} GB here, {children:.2f} GB in a worker"
    print(f"\n{arguments.pairs:,} pairs: {seconds:.0f} s with {arguments.workers} workers; {memory}")


if __name__ == "__main__":
    main()
