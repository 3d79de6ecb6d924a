from __future__ import annotations

import re
import sys
import threading
import time
from functools import partial
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest

from metadata.tally import Tally
from pipelines import graph, storage
from pipelines.errors import JobError
from pipelines.graph import EMBEDDED, Begin, FinishStage, ProcessUnits, check_beam_args, pipeline_options
from pipelines.part import read_parts
from pipelines.stage import Stage, Unit, open_stage
from tests.pipelines.conftest import contents

SCHEMA = pa.schema([pa.field("number", pa.int64(), nullable=False)])
#: Where a worker is another process. One of them is enough to lose what an error says, and each costs seconds.
ELSEWHERE = "--direct_running_mode=multi_processing"


def square(unit: Unit, *, stage: Stage, log: str) -> None:
    """The job of these tests; one file in ``log`` per call says which units were worked on."""
    calls = sum(name.startswith(f"{unit.name} ") for name in storage.listing(log))
    storage.write_bytes(storage.join(log, f"{unit.name} {calls}"), b"")
    if unit.group == "refused":
        raise JobError(f"{unit.path}: cannot be squared; give another number")
    if unit.group == "defect":
        raise ZeroDivisionError("a defect of the program")
    table = pa.table([pa.array([unit.index**2])], schema=SCHEMA)
    stage.write_part(unit, table, Tally(read=1, emitted=1))


def build(pipeline: beam.Pipeline, stage: Stage, log: str, groups: tuple[str | None, ...] = (None,)) -> None:
    signal = pipeline | "Begin" >> Begin()
    for i, group in enumerate(groups):
        signal = signal | f"Square{i}" >> ProcessUnits(stage, partial(square, stage=stage, log=log), group=group)
    _ = signal | "Finish" >> FinishStage(stage)


def run(root: str, units: list[Unit], *beam_args: str, workers: int = 1, groups: tuple[str | None, ...] = (None,)) -> Stage:
    stage = Stage(url=storage.join(root, "out"), kind="squares", parameters={})
    if stage.begin(units):
        todo = partial(build, stage=stage, log=storage.join(root, "log"), groups=groups)
        graph.run(todo, [stage], beam_args=beam_args, workers=workers)
    return stage


def calls(root: str) -> list[str]:
    return storage.listing(storage.join(root, "log"))


def numbers(count: int, group: str = "") -> list[Unit]:
    return [Unit(name=f"{group}{i:02}", path=f"number {i}", index=i, group=group) for i in range(count)]


def test_every_unit_is_processed_once_and_the_stage_is_finished(place: str) -> None:
    stage = run(place, numbers(5))
    assert [t["number"].to_pylist() for t in read_parts(open_stage(stage.url, "squares"))] == [[0], [1], [4], [9], [16]]
    assert calls(place) == [f"{i:02} 0" for i in range(5)]
    run(place, numbers(5))
    assert calls(place) == [f"{i:02} 0" for i in range(5)]
    run(place, numbers(6))
    assert calls(place) == [f"{i:02} 0" for i in range(6)]


def test_a_stage_without_units_is_finished_too(place: str) -> None:
    assert open_stage(run(place, []).url, "squares").parts == []


def test_a_group_waits_for_the_one_before_it(place: str) -> None:
    bad = Unit(name="x", path="number x", group="refused")
    with pytest.raises(JobError):
        run(place, [*numbers(3, "first"), bad, *numbers(3, "last")], groups=("first", "refused", "last"))
    assert calls(place) == ["first00 0", "first01 0", "first02 0", "x 0"]


def test_groups_one_behind_the_other_do_all_units(place: str) -> None:
    stage = run(place, [*numbers(2, "a"), *numbers(2, "b")], groups=("b", "a"))
    assert open_stage(stage.url, "squares").counters["read"] == 4
    assert calls(place) == ["a00 0", "a01 0", "b00 0", "b01 0"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a plain run makes."""
    return contents(run(str(tmp_path_factory.mktemp("once")), numbers(4)).url)


@pytest.mark.parametrize(
    ("beam_args", "workers"),
    [
        (("--runner", "DirectRunner"), 1),
        (("--runner=FnApiRunner",), 1),
        (("--direct_runner_bundle_repeat=2",), 1),
        ((), 2),
    ],
    ids=["DirectRunner", "FnApiRunner", "bundles twice", "two workers"],
)
def test_however_it_runs_the_bytes_are_the_same(tmp_path: Path, once: dict[str, bytes], beam_args: tuple[str, ...], workers: int) -> None:
    other = run(str(tmp_path / "other"), numbers(4), *beam_args, workers=workers)
    assert contents(other.url) == once
    repeats = 3 if "repeat" in "".join(beam_args) else 1
    assert calls(str(tmp_path / "other")) == [f"{i:02} {n}" for i in range(4) for n in range(repeats)]


@pytest.mark.parametrize(("lanes", "found"), [(None, [[0], [1], [2], [3], [4]]), (2, [[0, 2, 4], [1, 3]]), (9, [[0], [1], [2], [3], [4]])])
def test_units_are_dealt_out_to_lanes(tmp_path: Path, lanes: int | None, found: list[list[int]]) -> None:
    stage = Stage(url=str(tmp_path / "out"), kind="squares", parameters={})
    stage.begin(numbers(5))
    assert [[unit.index for unit in lane] for lane in graph.in_lanes(None, stage, None, lanes)] == found
    assert graph.in_lanes(None, stage, "of none", lanes) == []


def test_a_lane_that_is_done_again_goes_on_where_it_was(tmp_path: Path) -> None:
    stage, log = Stage(url=str(tmp_path / "out"), kind="squares", parameters={}), str(tmp_path / "log")
    lane = [*numbers(2), Unit(name="x", path="number x", group="defect"), *numbers(1, "z")]
    stage.begin(lane)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            graph.process(lane, stage, partial(square, stage=stage, log=log))
    assert storage.listing(log) == ["00 0", "01 0", "x 0", "x 1"]


def square_alone(unit: Unit, *, stage: Stage, busy: str) -> None:
    """Fails where another unit is in work."""
    Path(busy).mkdir()
    time.sleep(0.2)
    Path(busy).rmdir()
    stage.write_part(unit, pa.table([pa.array([unit.index**2])], schema=SCHEMA), Tally(read=1, emitted=1))


def build_lane(pipeline: beam.Pipeline, stage: Stage, busy: str) -> None:
    work = partial(square_alone, stage=stage, busy=busy)
    _ = pipeline | Begin() | ProcessUnits(stage, work, lanes=1) | FinishStage(stage)


def test_of_one_lane_one_unit_is_in_work_at_a_time_whatever_the_workers(tmp_path: Path) -> None:
    stage = Stage(url=str(tmp_path / "out"), kind="squares", parameters={})
    stage.begin(numbers(4))
    graph.run(partial(build_lane, stage=stage, busy=str(tmp_path / "busy")), [stage], beam_args=[], workers=2)
    assert [t["number"].to_pylist() for t in read_parts(open_stage(stage.url, "squares"))] == [[0], [1], [4], [9]]


@pytest.mark.parametrize("runner", [[], ["--runner", "DirectRunner"], ["--runner=DirectRunner"], ["--runner", "FnApiRunner"]])
def test_the_embedded_runner_is_the_default(runner: list[str]) -> None:
    options = pipeline_options(runner, 1).get_all_options()
    assert (options["runner"], options["direct_running_mode"], options["save_main_session"]) == (EMBEDDED, "in_memory", False)
    options = pipeline_options(runner, 3).get_all_options()
    assert (options["runner"], options["direct_running_mode"], options["direct_num_workers"]) == (EMBEDDED, "multi_processing", 3)


def test_other_runners_are_left_as_they_are() -> None:
    options = pipeline_options(["--runner", "DataflowRunner", "--project", "p"], 3).get_all_options()
    assert (options["runner"], options["project"], options["direct_num_workers"]) == ("DataflowRunner", "p", 1)


def test_options_that_nobody_knows_are_refused() -> None:
    check_beam_args(["--runner", "DirectRunner", "--temp_location=gs://b", "--direct_runner_bundle_repeat", "2"])
    check_beam_args(["--runner=PortableRunner", "--flink_master", "x"])
    for args in (["--wokers", "2"], ["--runner", "FnApiRunner", "--wokers=2"], ["--streaming", "--wokers"]):
        with pytest.raises(JobError) as error:
            check_beam_args(args)
        assert str(error.value) == "neither the job nor Apache Beam knows the option --wokers: see --help"


@pytest.mark.parametrize("where", [(), (ELSEWHERE,)], ids=["here", "elsewhere"])
def test_what_a_worker_refuses_reaches_the_user_as_it_was_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: tuple[str, ...]
) -> None:
    with pytest.raises(JobError) as error:
        run(str(tmp_path), [*numbers(2), Unit(name="x", path="number x", group="refused")], *where)
    assert str(error.value) == "number x: cannot be squared; give another number"
    print(f"worldclip squares: {error.value}", file=sys.stderr)
    # A slow machine has time to tell how far it is.
    said = re.sub(r"squares: \d of 3 units, \d+ s\n", "", capfd.readouterr().err)
    assert said == "worldclip squares: number x: cannot be squared; give another number\n"


@pytest.mark.parametrize("where", [(), (ELSEWHERE,)], ids=["here", "elsewhere"])
def test_an_unforeseen_exception_keeps_its_traceback(tmp_path: Path, where: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match="a defect of the program") as error:
        run(str(tmp_path), [Unit(name="x", path="number x", group="defect")], *where)
    assert not isinstance(error.value, JobError)
    places = [str(entry.path) for entry in error.traceback]
    # Another process can hand on the text only.
    assert __file__ in (str(error.value) if where else places)


def test_a_refused_unit_does_not_undo_the_others(place: str) -> None:
    bad = Unit(name="x", path="number x", group="refused")
    with pytest.raises(JobError):
        run(place, [*numbers(3), bad])
    done = [n for n in storage.listing(storage.join(place, "out")) if n.startswith("part-")]
    with pytest.raises(JobError):
        run(place, [*numbers(3), bad])
    assert all(f"{name[5:7]} 1" not in calls(place) for name in done)
    assert not storage.exists(storage.join(place, "out", "_SUCCESS"))


def test_the_reader_of_an_engine_may_notice_late_that_the_connection_broke(capsys: pytest.CaptureFixture[str]) -> None:
    noticed = []

    def read() -> None:
        time.sleep(0.2)
        noticed.append(True)
        raise ConnectionError("UNAVAILABLE")

    with graph._quiet():
        threading.Thread(target=read, name="wait_until_finish_read", daemon=True).start()
    assert noticed
    assert capsys.readouterr().err == ""
