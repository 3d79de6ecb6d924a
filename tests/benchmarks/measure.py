"""How a benchmark is timed and what it reports."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.material import Material

#: A way is run again until it was run three times or has taken so many seconds.
REPEATS, _SECONDS = 3, 4.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. ``baseline`` is that of the naive way in the same unit; ``ratio`` says how many times better ours is than that."""

    name: str
    value: float
    unit: str
    baseline: float
    ratio: float
    input: str
    command: str


Benchmark = Callable[[Material], Iterator[Row]]
BENCHMARKS: dict[str, Benchmark] = {}
#: Of these, the ones that run only where they are named.
LONG: set[str] = set()


def benchmark(run: Benchmark) -> Benchmark:
    """Register a benchmark under its function's name."""
    BENCHMARKS[run.__name__] = run
    return run


def long_benchmark(run: Benchmark) -> Benchmark:
    """Register one that takes so long that it runs where it is named, and not with all others."""
    LONG.add(run.__name__)
    return benchmark(run)


def row(name: str, value: float, unit: str, baseline: float, *, input: str, command: str, less_is_better: bool = False) -> Row:
    ratio = baseline / value if less_is_better else value / baseline
    return Row(
        name=name,
        value=value,
        unit=unit,
        baseline=baseline,
        ratio=ratio,
        input=input,
        command=f"python -m tests.benchmarks --only {command}",
    )


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Median CPU seconds of this process, all its threads, and the result. CPU time, since the machine may have other work to do."""
    taken: list[float] = []
    while len(taken) < REPEATS and sum(taken) < _SECONDS:
        gc.collect()
        start = time.process_time()
        result = work()
        taken.append(time.process_time() - start)
    return statistics.median(taken), result


class ResultsDifferError(AssertionError):
    """The two ways do not do the same: their times mean nothing."""


def compare(
    name: str,
    unit: str,
    *,
    amount: float,
    fast: Callable[[], Any],
    naive: Callable[[], Any],
    naive_amount: float | None = None,
    fast_result: Callable[[Any], Any] = lambda result: result,
    naive_result: Callable[[Any], Any] = lambda result: result,
    exact: bool = True,
    input: str,
    command: str,
) -> Row:
    """Time both ways over ``amount`` units of input and compare what they give.

    ``fast_result`` and ``naive_result`` bring the results into one form, outside the time taken. ``exact`` is False where the naive way is
    naive about the result as well. ``naive_amount``: where the naive way is given less, so that the run ends in time.

    Raises:
        ResultsDifferError: the two results differ.
    """
    seconds, result = cpu_seconds(fast)
    naive_seconds, expected = cpu_seconds(naive)
    if exact and fast_result(result) != naive_result(expected):
        raise ResultsDifferError(name)
    baseline = (naive_amount or amount) / naive_seconds
    return row(name, amount / seconds, unit, baseline, input=input, command=command)
