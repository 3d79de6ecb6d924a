"""A stage for tests: the job that sorts the words of small text files into good, dropped and broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from metadata.tally import Tally
from pipelines import storage
from pipelines.stage import Stage, Unit, units_of_files
from tests.pipelines.conftest import contents

SCHEMA = pa.schema([pa.field("line", pa.string(), nullable=False)])


def make_stage(url: str, **changes: Any) -> Stage:
    return Stage(**({"url": url, "kind": "lines", "parameters": {"least": 2, "names": ["a"]}, "upstream": {"before": "1234"}} | changes))


def make_inputs(place: str, lines: dict[str, str], folder: str = "in") -> list[Unit]:
    """Units of small text files."""
    for name, text in lines.items():
        storage.write_bytes(storage.join(place, folder, name), text.encode())
    return units_of_files(storage.expand(tuple(storage.join(place, folder, name) for name in lines)))


def do(stage: Stage, unit: Unit) -> None:
    """The job of these tests: good lines come out, "drop" is dropped, "bad" is a dead letter, "cut" the end of a damaged file."""
    tally, good = Tally(), []
    with storage.open_hashing(unit.url) as (file, reader):
        for place, line in enumerate(file.read().decode().split()):
            if line == "cut":
                tally.damaged("cut_off", place=place, detail="here")
                break
            tally.read += 1
            if line == "bad":
                tally.dead_letter("bad_line", place=place, payload=line.encode())
            elif line == "drop":
                tally.drop("unwanted")
            else:
                good.append(line)
        tally.emitted += len(good)
        sha256 = reader.hexdigest()
    stage.write_part(unit, pa.table([pa.array(good, pa.string())], schema=SCHEMA), tally, input_sha256=sha256)


def do_all(stage: Stage, units: Sequence[Unit]) -> list[str]:
    """Run a stage as a job does; the inputs that were worked on."""
    if not stage.begin(units):
        return []
    todo = [u for u in stage.units() if not stage.has_part(u)]
    for unit in todo:
        do(stage, unit)
    stage.finish()
    return sorted(u.path for u in todo)


LINES = {"a.txt": "one two", "b.txt": "three bad drop", "c.txt": ""}


def results(url: str) -> dict[str, bytes]:
    """Every file of a stage but its units, which say where the inputs lay."""
    return {name: data for name, data in contents(url).items() if name != "units.parquet"}
