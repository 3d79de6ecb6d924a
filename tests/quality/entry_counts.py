"""Entries by source of every list of a finished stage, as a table for docs/."""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from metadata.entries import SOURCES
from pipelines.automata import NEVER
from pipelines.part import read_part
from pipelines.stage import FinishedStage, open_stage

#: ``never``: entries that no text can match under the stage's rules.
COLUMNS = ("language", *SOURCES, "all", "never")


def counts_of(stage: FinishedStage) -> Iterator[tuple[str, list[int]]]:
    """Language and figures of each list, in the order of their codes."""
    for part in sorted(stage.parts, key=lambda part: str(part["name"])):
        table = read_part(stage.part_url(part["name"]), columns=["source"])
        counted = Counter(table["source"].cast(pa.string()).to_pylist())
        never = int(table.schema.metadata[NEVER])
        yield part["name"].removesuffix(".parquet"), [*(counted[source] for source in SOURCES), len(table), never]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.entry_counts", description=__doc__)
    parser.add_argument("--entries", metavar="DIR", required=True, help="the finished stage of the job entries")
    out = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    out.writerow(COLUMNS)
    for lang, figures in counts_of(open_stage(parser.parse_args().entries, "entries")):
        out.writerow([lang, *figures])


if __name__ == "__main__":
    main()
