"""A world of many inputs out of a small one: hard links under other names, which make other units."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil

from tests.world.chain import Chain, run_chain

CRAWL_COPIES, DUMP_COPIES = 30, 12
#: The jobs that are run on it, in order; the entries are those of the small world.
JOBS = ("ngrams", "match", "dedup", "count", "thresholds", "balance")


def _copy(source: pathlib.Path, target: pathlib.Path, pattern: str, copies: int) -> None:
    target.mkdir(parents=True)
    for file in sorted(source.glob(pattern)):
        stem, dash, rest = file.name.partition("-")
        for i in range(copies):
            os.link(file, target / f"{stem}-{i:03}{dash}{rest}")


def make_crowd(chain: Chain, root: pathlib.Path) -> Chain:
    """An undisturbed run of :data:`JOBS` over ``6 * CRAWL_COPIES`` crawl files and ``6 * DUMP_COPIES`` dumps."""
    world = dataclasses.replace(chain.world, crawl=root / "crawl", dumps=root / "dumps")
    _copy(chain.world.crawl, world.crawl, "*.gz", CRAWL_COPIES)
    _copy(chain.world.dumps, world.dumps, "*.xml.bz2", DUMP_COPIES)
    work = root / "W"
    shutil.copytree(chain.work / "entries", work / "entries")
    run_chain(world, work, jobs=JOBS)
    return Chain(world=world, work=work)
