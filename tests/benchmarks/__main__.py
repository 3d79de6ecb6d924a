"""Run the benchmarks, print a table and write it as JSON."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from metadata.ending import end_process
from tests.benchmarks import (  # noqa: F401  their benchmarks register themselves
    balance,
    crawl,
    lid,
    loader,
    matching,
    ngrams_scale,
    target_pairs,
    texts,
    wikipedia,
    world_automata,
)
from tests.benchmarks.material import Material, Size, real_data
from tests.benchmarks.measure import BENCHMARKS, LONG, Row


def run(names: Iterable[str], material: Material) -> Iterator[Row]:
    # What was there before needs no looking at each time that garbage is collected before a way is timed.
    gc.freeze()
    for name in names:
        yield from BENCHMARKS[name](material)
    gc.unfreeze()


def line(row: Row) -> str:
    value, baseline = (f"{x:,.3g}" if x < 100 else f"{x:,.0f}" for x in (row.value, row.baseline))
    return f"{row.name:24} {value:>12} {baseline:>12} {row.unit:12} {row.ratio:7.2f} x  {row.input}"


def write(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        choices=sorted(BENCHMARKS),
        help=f"run this one; may be repeated ({', '.join(sorted(LONG))}: only where named)",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, default=Path("build/bench.json"))
    arguments = parser.parse_args()
    start = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="worldclip-bench-") as folder:
        material = Material(Path(folder), size=Size(), data=real_data())
        if material.data is None:
            print("no real data at hand (WORLDCLIP_TEST_DATA): generated input", file=sys.stderr)
        print(f"{'name':24} {'ours':>12} {'naive':>12} {'unit':12} {'ratio':>9}  input")
        for row in run(arguments.only or [name for name in BENCHMARKS if name not in LONG], material):
            print(line(row), flush=True)
            rows.append(row)
    write(rows, arguments.output)
    print(f"{time.monotonic() - start:.0f} s; {arguments.output}")


if __name__ == "__main__":
    main()
    end_process(0)
