"""--dry-run: what a job would read and write, told before anything is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipelines import storage
from pipelines.page import plural
from pipelines.progress import size_text
from pipelines.stage import DRY_RUN, MANIFEST, STAGE_FILE, SUCCESS, Stage, Unit, WouldRunError

#: Characters of the parameters that are shown: thresholds of 300 languages would fill screens.
_LONGEST = 400


def dry_run(job: str, config: Any, work: Callable[[], None]) -> str:
    """Let a job go as far as it does without writing, and say what would come then; a line each.

    Raises:
        JobError: what the job itself would refuse.
    """
    token = DRY_RUN.set(True)
    try:
        work()
    except WouldRunError as would:
        return "\n".join([f"{job}: a dry run, nothing is written", *lines_of(config, would.stage, would.units, would.changed)])
    finally:
        DRY_RUN.reset(token)
    done = storage.exists(storage.join(config.output, SUCCESS))
    return f"{job}: a dry run; " + (f"already finished, there is nothing to do → {config.output}" if done else "nothing was written")


def lines_of(config: Any, stage: Stage, units: Sequence[Unit], changed: Sequence[str]) -> Iterable[str]:
    """What is known of a stage that would be begun or gone on with. ``changed``: the names of units whose input is another one now."""
    there = {*storage.listing(stage.url)}
    again = {unit.name for unit in stage.to_do(units)} | {*changed}
    todo = [unit for unit in units if unit.name in again]
    state = "new" if STAGE_FILE not in there else "finished, but its inputs are others now" if SUCCESS in there else "begun, goes on"
    yield f"  output      {stage.url} ({stage.kind}, {state})"
    if any(unit.url for unit in units):
        yield f"  inputs      {_files(units)}"
    for flag, place in _places(config):
        manifest = storage.read_json(storage.join(place, MANIFEST))
        size = size_text(sum(part["bytes"] for part in manifest["parts"]))
        yield f"  {flag:11} {place}: {plural(len(manifest['parts']), 'part', 'parts')}, {plural(manifest['rows'], 'row', 'rows')}, {size}"
    yield f"  units       {len(units):,}: {len(units) - len(todo):,} done, {len(todo):,} to do" + (
        f" ({_files(todo)})" if len(todo) < len(units) and any(unit.url for unit in todo) else ""
    )
    for name, value in dict(stage.parameters).items():
        said = json.dumps(value, ensure_ascii=False, sort_keys=True)
        yield f"  with        {name} {said if len(said) <= _LONGEST else said[:_LONGEST] + ' ...'}"


def _files(units: Sequence[Unit]) -> str:
    """How many files units are of, how large they are where that is known, and the first of them."""
    sizes = {file.path: file.size for unit in units for file in unit.inputs}
    size = f", {size_text(sum(sizes.values()))}" if any(sizes.values()) else ""
    return f"{plural(len(sizes), 'file', 'files')}{size}, the first {units[0].url or units[0].path}" if units else "none"


def _places(config: Any) -> Iterable[tuple[str, str]]:
    """The finished stages among the options, which the job reads."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for place in (value if isinstance(value, tuple) else (value,)) if field.name != "output" else ():
            if isinstance(place, str) and place and storage.exists(storage.join(place, MANIFEST)):
                yield "--" + field.name.replace("_", "-"), place
