"""Crawl files → matched parts: the job as it runs, in Beam, with its model and automata loaded before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from balancing.crawl import read_crawl
from balancing.match import match_pairs
from balancing.pairs import PAIR_SCHEMA
from metadata.tally import Tally
from pipelines.automata import automata
from pipelines.match import MatchConfig, identify
from pipelines.match import main as match
from pipelines.part import read_parts
from pipelines.stage import open_stage
from tests.benchmarks import naive
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare, cpu_seconds, row

_MIN_SCORE = 0.2
#: What is done with the tables of one file.
_Finish = Callable[[Iterator[pa.Table]], pa.Table]


def run_match(inputs: Sequence[Path], entries: str, output: str, *, workers: int = 1) -> pa.Table:
    """The job, and what it matched. The output is removed."""
    config = MatchConfig(
        input=tuple(map(str, inputs)), entries=entries, output=output, workers=workers, max_bad_records=1.0, max_bad_files=1.0
    )
    match(config, [])
    table = pa.concat_tables(read_parts(open_stage(output, "match")), promote_options="permissive")
    shutil.rmtree(output)
    return table


def matched_set(table: pa.Table) -> set[tuple[Any, ...]]:
    columns = [table[name].to_pylist() for name in ("image_id", "url", "text", "lang", "entries")]
    return {(*rest, tuple(entries)) for *rest, entries in zip(*columns, strict=True)}


def naive_set(rows: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(r["image_id"], r["url"], r["text"], r["lang"], tuple(r["entries"])) for r in rows}


def _wat(material: Material, mix: str) -> Row:
    path = material.wat(mix, pages=material.size.pages)
    # Model and automata are loaded once a process: not in the time.
    run_match([material.wat(mix, pages=20, seed=2)], material.entries, material.output())
    texts = sum(1 for _ in naive.wat_pairs(path))
    slow = naive.NaiveMatch(material.lists)
    return compare(
        f"wat_{mix}",
        "texts/s",
        amount=texts,
        fast=lambda: run_match([path], material.entries, material.output()),
        naive=lambda: slow.job(naive.wat_pairs(path), material.folder / "naive.parquet"),
        fast_result=matched_set,
        naive_result=naive_set,
        input=f"WAT of {material.size.pages:,} pages, {texts:,} texts, {mix} mix; "
        "naive: gzip, json, predict and pyahocorasick a text at a time",
        command=f"wat_{mix}",
    )


@benchmark
def wat_natural(material: Material) -> Iterator[Row]:
    """WAT → matched Parquet where half of the texts repeat."""
    yield _wat(material, "natural")


@benchmark
def wat_distinct(material: Material) -> Iterator[Row]:
    """WAT → matched Parquet where no text repeats."""
    yield _wat(material, "distinct")


def _match_tables(tables: Iterator[pa.Table], entries: str) -> pa.Table:
    stage = open_stage(entries, "entries")
    return match_pairs(
        tables,
        identify=partial(identify, model=None, min_score=_MIN_SCORE),
        open_matcher=automata(entries, stage.id, "daachorse", 2 << 30).open,
        languages=sorted(p["name"].removesuffix(".parquet") for p in stage.parts),
        tally=Tally(),
    )


def _read_warc(path: Path) -> Iterator[pa.Table]:
    with path.open("rb") as file:
        yield from read_crawl(file, tally=Tally())


def _read_warc_naively(path: Path) -> Iterator[pa.Table]:
    rows = [{"image_id": i, "url": url, "text": text, "source": "alt"} for i, url, text in naive.warc_pairs(path)]
    yield pa.Table.from_pylist(rows, schema=PAIR_SCHEMA)


@benchmark
def warc(material: Material) -> Iterator[Row]:
    """WARC → matched pairs. Both ways identify and match with our code: what differs is reading."""
    paths, entries = material.warcs, material.entries
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    _match_tables(_read_warc(paths[0]), entries)
    match_them: _Finish = partial(_match_tables, entries=entries)
    for name, finish in (("warc", match_them), ("warc_read", pa.concat_tables)):
        yield compare(
            name,
            "MB/s",
            amount=megabytes,
            fast=partial(_each, paths, _read_warc, finish),
            naive=partial(_each, paths, _read_warc_naively, finish),
            fast_result=_urls_and_texts,
            naive_result=_urls_and_texts,
            # The naive way knows no encodings but UTF-8, and stops where a file is odd.
            exact=material.data is None,
            input=f"{len(paths)} WARC files, {megabytes:.1f} MB compressed; naive: warcio and selectolax"
            + (", the same identification and matching" if name == "warc" else ", pairs alone"),
            command="warc",
        )


def _each(
    paths: Sequence[Path], read: Callable[[Path], Iterator[pa.Table]], finish: Callable[[Iterator[pa.Table]], pa.Table]
) -> list[pa.Table]:
    # A file without pages gives no table.
    return [finish(chain([PAIR_SCHEMA.empty_table()], read(path))) for path in paths]


def _urls_and_texts(tables: Sequence[pa.Table]) -> set[tuple[str, str]]:
    return {pair for table in tables for pair in zip(table["url"].to_pylist(), table["text"].to_pylist(), strict=True)}


@benchmark
def crawl_replicated(material: Material) -> Iterator[Row]:
    """The crawl files many times over in a process of its own: one core, and its peak memory."""
    once, many = (_replicated(material, copies) for copies in (1, material.size.copies))
    slow = naive.NaiveMatch(material.lists)
    naive_seconds, _ = cpu_seconds(lambda: [slow.run(naive.warc_pairs(path)) for path in material.warcs])
    naive_texts = sum(1 for path in material.warcs for _ in naive.warc_pairs(path))
    about = (
        f"{len(material.warcs)} WARC files {material.size.copies} times, {many['texts']:,} texts, {len(material.english):,} English entries"
    )
    yield row(
        "crawl_replicated",
        many["texts"] / many["seconds"],
        "texts/s",
        naive_texts / naive_seconds,
        input=f"{about}; naive: warcio, selectolax, predict and pyahocorasick a text at a time, the files once",
        command="crawl_replicated",
    )
    yield row(
        "crawl_replicated_memory",
        many["peak"] / 1e6,
        "MB",
        once["peak"] / 1e6,
        input=f"{about}; baseline: peak memory of the same job over the files once",
        command="crawl_replicated",
        less_is_better=True,
    )


def _replicated(material: Material, copies: int) -> dict[str, Any]:
    """The job over so many copies in a process of its own."""
    folder = material.folder / f"copies-{copies}"
    for path in material.warcs:
        first = folder / "0" / path.name
        first.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, first)
        for copy in range(1, copies):
            (folder / str(copy)).mkdir(exist_ok=True)
            os.link(first, folder / str(copy) / path.name)
    command = [sys.executable, "-m", "tests.benchmarks.replicated", material.entries, material.output(), material.output(), str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def _wall_seconds(inputs: Sequence[Path], material: Material, workers: int) -> tuple[float, pa.Table]:
    start = time.perf_counter()
    table = run_match(inputs, material.entries, material.output(), workers=workers)
    return time.perf_counter() - start, table


@benchmark
def workers_match(material: Material) -> Iterator[Row]:
    """One worker and two, wall time; what the same takes for next to nothing is start-up and taken off."""
    pages = max(1, material.size.pages // 4)
    paths = [material.wat("distinct", pages=pages, seed=seed) for seed in range(3, 9)]
    tiny = [material.wat("distinct", pages=20, seed=seed) for seed in (9, 10)]
    texts = sum(1 for path in paths for _ in naive.wat_pairs(path))
    rates, results = [], []
    # The first run of this process alone would load model and automata, which worker processes do every time, in both of theirs.
    _wall_seconds(tiny, material, 1)
    for workers in (1, 2):
        started, _ = _wall_seconds(tiny, material, workers)
        seconds, table = _wall_seconds(paths, material, workers)
        rates.append(texts / max(seconds - started, 1e-3))
        results.append(table.to_pylist())
    if results[0] != results[1]:
        raise AssertionError("one worker and two give different pairs")
    yield row(
        "workers_match",
        rates[1],
        "texts/s",
        rates[0],
        input=f"{len(paths)} WAT files of {pages:,} pages, {texts:,} texts, wall time without start-up; baseline: one worker",
        command="workers_match",
    )
