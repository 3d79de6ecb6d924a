"""status: how far a stage, or every stage of a chain, has come; of a running job or of a dead one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines import storage
from pipelines.books import account, damaged_files
from pipelines.chain import OUTPUTS
from pipelines.errors import JobError
from pipelines.options import option
from pipelines.part import Footer, read_footer
from pipelines.stage import MERGED_FROM, STAGE_FILE, SUCCESS, Limits, Stage

ABOUT = """Say how far a stage has come: units done and left, the books so far, and the rate. Reads only what the workers left in the
directory, so it tells the same of a job that runs, here or on a cluster, and of one that is dead.

    worldclip status W/matched     one stage
    worldclip status W             every stage of a chain"""

_READERS = 32


@dataclass(frozen=True, kw_only=True)
class StatusConfig:
    directory: str = option("a stage, or the directory in which the stages of a chain lie", metavar="DIR", positional=True)


@dataclass(frozen=True, kw_only=True)
class Status:
    """``written``: when the first and the last part appeared, if the file system knows. ``refusal``: why the stage will not be finished
    as it stands."""

    stage: Stage
    finished: bool
    units: int
    done: int
    counters: dict[str, Any]
    written: tuple[datetime, datetime] | None
    refusal: str


def status_of(url: str) -> Status:
    """How far the stage in a directory has come.

    Raises:
        JobError: there is none.
    """
    stage = Stage.begun(url, Limits())
    units = stage.units()
    there = storage.modified(url)

    def footer(name: str) -> Footer | None:
        return read_footer(stage.at(name)) if name in there else None

    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        footers = list(pool.map(footer, [stage.part_name(unit) for unit in units]))
    done = [(unit, f) for unit, f in zip(units, footers, strict=True) if f and f.unit == unit.name and f.fingerprint == stage.fingerprint]
    books = [(unit.file, found.counters) for unit, found in done]
    counters = account(books)
    times = sorted(time for unit, _ in done if (time := there[stage.part_name(unit)]))
    finished = SUCCESS in there
    return Status(
        stage=stage,
        finished=finished,
        units=len(units),
        done=len(done),
        counters=counters,
        written=(times[0], times[-1]) if times else None,
        refusal="" if finished else _refusal(stage, counters, damaged_files(books)),
    )


def _refusal(stage: Stage, counters: dict[str, Any], damaged: Sequence[str]) -> str:
    try:
        stage.limits.check(counters, stage.url, damaged)
    except JobError as error:
        return str(error)
    return ""


def lines_of(status: Status, now: datetime) -> Iterator[str]:
    """A stage in a few lines."""
    share = status.done / status.units if status.units else 1.0
    state = "finished" if status.finished else "all units done, not finished" if status.done == status.units else "not finished"
    yield f"{status.stage.url}: {status.stage.kind}, {state}"
    if status.finished or not status.units:
        yield f"  units: {status.done:,}"
    else:
        yield f"  units: {status.done:,} of {status.units:,} done ({share:.0%}), {status.units - status.done:,} left"
    if status.stage.kind not in MERGED_FROM:
        # Of a stage that merges, the blocks have the books.
        yield from _books(status.counters)
    if status.written and not status.finished:
        first, last = status.written
        yield f"  last part {_ago(now - last)} ago{_rate(status, first, last)}"
    if status.refusal:
        yield f"  will not be finished as it stands: {status.refusal}"
    elif not status.finished and status.done == status.units:
        yield f"  its job ended before its last step: run it again, or worldclip finish {status.stage.url}"


def _books(counters: dict[str, Any]) -> Iterator[str]:
    yield f"  read {counters['read']:,}, emitted {counters['emitted']:,}"
    for name, reasons in (("dropped", counters["dropped"]), ("dead letters", counters["dead_letter_reasons"])):
        if reasons:
            yield f"  {name}: " + ", ".join(f"{r} {n:,}" for r, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _rate(status: Status, first: datetime, last: datetime) -> str:
    """Units an hour between the first part and the last, and the time that the rest takes at this rate; empty where two parts are too
    few to tell."""
    seconds = (last - first).total_seconds()
    if status.done < 2 or seconds <= 0:
        return ""
    rate = (status.done - 1) / seconds
    left = status.units - status.done
    return f"; {rate * 3600:,.0f} units an hour" + (f", {_ago(timedelta(seconds=left / rate))} for the rest" if left else "")


def _ago(time: timedelta) -> str:
    seconds = max(0, round(time.total_seconds()))
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {name}"
    return f"{seconds} seconds"


def directories(url: str) -> list[str]:
    """The stages that a directory is or holds, in the order of the chain, each behind those that lie in it."""
    places = [url, *(storage.join(url, OUTPUTS[job]) for job in OUTPUTS)]
    found = []
    for place in places:
        inner = [
            storage.join(place, "blocks"),
            *(storage.join(place, "passes", name) for name in storage.listing(storage.join(place, "passes"))),
        ]
        found += [one for one in [*inner, place] if storage.exists(storage.join(one, STAGE_FILE))]
    return found


def main(config: StatusConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"status does not know {beam_args[0]}")
    found = directories(config.directory)
    if not found:
        raise JobError(
            f"{config.directory} is no stage and holds none: there is no {STAGE_FILE} in it, nor in {', '.join(OUTPUTS.values())}"
        )
    for place in found:
        print("\n".join(lines_of(status_of(place), datetime.now(UTC))))
