"""The few shapes that every job's graph is made of, and how a graph is run.

A job is a chain of steps. Each step takes and gives one element, a signal that everything before it is done, so that a graph is a line that
reads from top to bottom, whatever the number of inputs and languages: those are in the stage's unit file.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines import storage
from pipelines.errors import JobError, did_you_mean, message_of
from pipelines.lock import alone
from pipelines.processes import module_environment, python_module
from pipelines.progress import told
from pipelines.stage import Stage, Unit

#: The embedded default. ``DirectRunner`` is a switch that may fetch another runner from the network; it is read as this one.
EMBEDDED = "FnApiRunner"
#: Beam's thread that reads an engine's messages, and the seconds in which it ends when a job has.
_READER, _READER_S = "wait_until_finish_read", 5.0


class Begin(beam.PTransform):
    """The first signal."""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[None]:
        return pipeline | "Create" >> beam.Create([None])


def units_to_do(stage: Stage, group: str | None) -> list[Unit]:
    """The units of the stage (of one group, if given) whose parts are not there yet."""
    return stage.to_do([u for u in stage.units() if group is None or u.group == group])


def in_lanes(_: Any, stage: Stage, group: str | None, lanes: int | None) -> list[list[Unit]]:
    """The units to do, dealt out to so many lanes; without a number each has its own."""
    units = units_to_do(stage, group)
    n = min(lanes or len(units), len(units))
    return [units[lane::n] for lane in range(n)]


def process(units: Sequence[Unit], stage: Stage, work: Callable[[Unit], None]) -> int:
    """Do units one after the other; how many, so that they can be counted."""
    for unit in units:
        # A lane that an engine does again, since a worker was lost in it, goes on where it was.
        if len(units) == 1 or not stage.has_part(unit):
            work(unit)
    return len(units)


class ProcessUnits(beam.PTransform):
    """Do every unit of a stage that is not done: signal → signal. ``work`` writes the unit's part. With ``lanes`` as many units at most are
    in work at a time, whatever the engine."""

    def __init__(self, stage: Stage, work: Callable[[Unit], None], *, group: str | None = None, lanes: int | None = None) -> None:
        super().__init__()
        self._stage, self._work, self._group, self._lanes = stage, work, group, lanes

    def expand(self, signal: beam.PCollection) -> beam.PCollection[int]:
        return (
            signal
            | "ReadUnits" >> beam.FlatMap(in_lanes, self._stage, self._group, self._lanes)
            | "SpreadUnits" >> beam.Reshuffle()
            | "ProcessUnits" >> beam.Map(process, self._stage, self._work)
            | "CountUnits" >> beam.CombineGlobally(sum)
        )


def finish(_: Any, stage: Stage) -> None:
    stage.finish()


class FinishStage(beam.PTransform):
    """Sum the footers, write the manifest and ``_SUCCESS``: signal → signal. A step of the graph, since the driver may be gone by then."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def expand(self, signal: beam.PCollection) -> beam.PCollection[None]:
        return signal | "Finish" >> beam.Map(finish, self._stage)


def check_beam_args(beam_args: Sequence[str], own: Sequence[str] = ()) -> None:
    """Raises JobError for a runner that Beam does not have, and for an option that it would pass over in silence.

    Other runners than the embedded one may have options that Beam does not know: of those only what is nearly one of the job's ``own`` is
    refused.
    """
    options = PipelineOptions(list(beam_args))
    runner, runners = options.view_as(StandardOptions).runner, StandardOptions.KNOWN_RUNNER_NAMES
    if runner and "." not in runner and runner.lower() not in map(str.lower, runners):
        raise JobError(f"Apache Beam has no runner {runner}{did_you_mean(runner, runners)} (it has {', '.join(runners)})")
    embedded = runner in (None, "DirectRunner", EMBEDDED)
    for name in sorted(options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()):
        option = name.replace("_", "-")
        meant = did_you_mean(option, own, form="--{}")
        if embedded or meant:
            raise JobError(f"neither the job nor Apache Beam knows the option --{option}{meant or ': see --help'}")


def pipeline_options(beam_args: Sequence[str], workers: int) -> PipelineOptions:
    """Beam's options: what the user passed through, with the embedded runner as the default."""
    options = PipelineOptions(list(beam_args))
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = EMBEDDED
    if standard.runner == EMBEDDED and workers > 1:
        direct = options.view_as(DirectOptions)
        direct.direct_running_mode = "multi_processing"
        direct.direct_num_workers = workers
    options.view_as(SetupOptions).save_main_session = False
    return options


def is_embedded(beam_args: Sequence[str]) -> bool:
    """Whether the embedded runner is asked for, which keeps in memory what it shuffles."""
    return bool(pipeline_options(beam_args, 1).view_as(StandardOptions).runner == EMBEDDED)


def _runner(options: PipelineOptions) -> PipelineRunner | None:
    """The embedded runner with worker processes of ours; None where Beam is to make the runner that the options name."""
    direct = options.view_as(DirectOptions)
    if options.view_as(StandardOptions).runner != EMBEDDED or direct.direct_running_mode != "multi_processing":
        return None
    # In this mode the runner would start Beam's own worker program, whatever the environment is.
    direct.direct_running_mode = "in_memory"
    command = shlex.join(["env", f"PYTHONPATH={module_environment()['PYTHONPATH']}", *python_module("pipelines.worker")])
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _progress(stages: Sequence[Stage]) -> contextlib.AbstractContextManager[None]:
    """While the block runs, say how many units of the stage in work are done."""
    started = time.monotonic()

    def line() -> str:
        for stage in stages:
            names = set(storage.listing(stage.url))
            units = stage.units()
            done = sum(stage.part_name(u) in names for u in units)
            if done < len(units):
                return f"{stage.kind}: {done} of {len(units)} units, {time.monotonic() - started:.0f} s"
        return ""

    return told(line)


def run(build: Callable[[beam.Pipeline], Any], stages: Sequence[Stage], *, beam_args: Sequence[str], workers: int) -> None:
    """Build a graph that makes the stages, run it and wait for its end.

    Raises:
        JobError: what a worker refused, as it said it; the engine failed; another process makes the same stage.
    """
    options = pipeline_options(beam_args, workers)
    pipeline = beam.Pipeline(_runner(options), options=options)
    build(pipeline)
    try:
        with _quiet(), _alone(stages[-1].url), _progress(stages):
            pipeline.run().wait_until_finish()
    except Exception as error:
        message = message_of(error) or failure_of_engine(error)
        if message is None:
            raise
        raise JobError(message) from error


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """The right to make a stage, where it lies on a disk: whoever finishes it clears away what others have half written.

    Raises:
        JobError: another process has it.
    """
    if not storage.is_local(url):
        yield
        return
    with alone(storage.local_path(url), f"another process is at work on {url}: wait for it, or choose another --output"):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a worker refuses is told once, by the caller; an unforeseen exception keeps its traceback anyway. Beam would log them too, what
    comes from an engine to the root; and its thread that reads an engine's messages ends with a traceback where the connection breaks."""
    loggers = [logging.getLogger(name) for name in (None, "apache_beam")]
    levels, hook = [logger.level for logger in loggers], threading.excepthook

    def tell(args: threading.ExceptHookArgs) -> None:
        if not (args.thread and args.thread.name == _READER):
            hook(args)

    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    threading.excepthook = tell
    try:
        yield
    finally:
        # It may notice a broken connection after everybody else.
        for reader in [thread for thread in threading.enumerate() if thread.name == _READER]:
            reader.join(_READER_S)
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_GO_ON = "what was done is kept; when it is in order, run the same command again"


def failure_of_engine(error: BaseException) -> str | None:
    """What to tell the user where an engine failed, not a worker: it gave the job up or cannot be reached. None for anything else."""
    if isinstance(error, grpc.FutureTimeoutError):
        return f"no answer at the --job_endpoint: mend the address or start the job server; {_GO_ON}"
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        said = f"{error.code().name}: {error.details()}"
        return f"the connection to the engine broke ({said}). The job may go on there; {_GO_ON}"
    # A defect of this program arrives as a RuntimeError too, with the traceback of the worker.
    if isinstance(error, RuntimeError) and " failed in state " in str(error) and "Traceback" not in str(error):
        return f"the engine gave the job up ({str(error).splitlines()[0]}), and its own logs say why; {_GO_ON}"
    return None
