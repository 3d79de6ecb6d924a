"""De-duplication and balancing of a synthetic pool, each against a loop over its pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from balancing.selection import select_rows
from balancing.siblings import verdicts_by_part
from metadata.tally import Tally
from pipelines.balance import balance_unit
from pipelines.dedup import Cut, records_of_part
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare
from tests.benchmarks.pool import (
    ENTRIES_PER_TEXT,
    LANGUAGES,
    RANGES,
    Pool,
    as_records,
    as_verdicts,
    naive_decision,
    naive_records,
    naive_verdicts,
)


def _decide(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    return select_rows(pool.matched, pool.siblings, probability=pool.probability, seed=pool.seed, tally=Tally())


@benchmark
def balance_decision(material: Material) -> Iterator[Row]:
    """Matched and siblings in memory → the rows that are kept."""
    pool = Pool(material)
    some = max(1, pool.rows // 5)
    lists = {lang: odds.tolist() for lang, odds in pool.probability.items()}
    yield compare(
        "balance_decision",
        "pairs/s",
        amount=pool.rows,
        fast=lambda: _decide(pool),
        naive=lambda: naive_decision(pool.matched.slice(0, some), pool.siblings.slice(0, some), lists, pool.seed),
        naive_amount=some,
        fast_result=lambda found: [(row, odds) for row, odds in zip(*(a.tolist() for a in found), strict=True) if row < some],
        input=f"{pool.rows:,} pairs of {ENTRIES_PER_TEXT} entries; naive: a loop over pairs ({some:,} of them)",
        command="balance_decision",
    )


@benchmark
def balance_job(material: Material) -> Iterator[Row]:
    """Parquet → Parquet: read matched and siblings, decide, write what is kept, with its URL and text."""
    pool = Pool(material)
    some = max(1, pool.rows // 5)
    unit = pool.unit

    def fast() -> str:
        stage = pool.balance_stage(material.output())
        balance_unit(unit, stage=stage, siblings_url=f"{pool.folder}/siblings", counts_url=f"{pool.folder}/counts", seed=pool.seed)
        return stage.part_url(unit)

    def found(part: str) -> set[tuple[int, int, float]]:
        columns = pq.read_table(part, columns=["pair_key", "image_key", "probability"]).columns
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        return {(pair, image, odds) for pair, image, odds in rows if (pair, image) in some_keys}

    def naive() -> list[dict[str, Any]]:
        matched, siblings = (pq.read_table(f"{pool.folder}/{name}/{unit.path}").slice(0, some) for name in ("matched", "siblings"))
        lists = {lang: odds.tolist() for lang, odds in pool.probability.items()}
        rows = matched.to_pylist()
        kept = [{**rows[i], "probability": odds} for i, odds in naive_decision(matched, siblings, lists, pool.seed)]
        pq.write_table(pa.Table.from_pylist(kept), pool.folder / "naive.parquet", compression="zstd")
        return kept

    some_keys = set(zip(*(pool.matched[name].slice(0, some).to_pylist() for name in ("pair_key", "image_key")), strict=True))
    yield compare(
        "balance_job",
        "pairs/s",
        amount=pool.rows,
        fast=fast,
        naive=naive,
        naive_amount=some,
        fast_result=found,
        naive_result=lambda kept: {(row["pair_key"], row["image_key"], row["probability"]) for row in kept},
        input=f"{pool.rows:,} pairs of {ENTRIES_PER_TEXT} entries; naive: a loop over pairs ({some:,} of them)",
        command="balance_job",
    )


@benchmark
def dedup(material: Material) -> Iterator[Row]:
    """The map: a matched part → records by range of images. The reduce: records → verdicts. And both, one after the other."""
    pool = Pool(material)
    unit, about = pool.unit, "naive: loops and dictionaries"
    yield compare(
        "dedup_map",
        "records/s",
        amount=pool.rows,
        fast=lambda: dict(records_of_part(unit, languages=LANGUAGES, cut=Cut(ranges=RANGES))),
        naive=lambda: dict(naive_records(unit)),
        fast_result=lambda chunks: {number: as_records(data).tolist() for number, data in chunks.items()},
        input=f"a matched part of {pool.rows:,} rows; {about}",
        command="dedup",
    )
    tuples = pool.records.tolist()
    yield compare(
        "dedup_reduce",
        "records/s",
        amount=len(pool.records),
        fast=lambda: verdicts_by_part(pool.records),
        naive=lambda: naive_verdicts(tuples),
        fast_result=as_verdicts,
        input=f"{len(pool.records):,} records of two parts; {about}",
        command="dedup",
    )
