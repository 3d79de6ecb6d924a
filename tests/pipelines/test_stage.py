from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metadata.tally import Tally
from pipelines import part as part_module
from pipelines import storage
from pipelines.errors import JobError
from pipelines.part import read_footer, read_part
from pipelines.stage import FORMAT_VERSION, Limits, Stage, Unit, digest, open_stage, units_of_files
from tests.pipelines.conftest import contents
from tests.pipelines.words import LINES, SCHEMA, do, do_all, make_inputs, make_stage, results

# -- names and fingerprints ----------------------------------------------------------------------------------------------------------


def test_digest_is_blake2b_of_canonical_json() -> None:
    expected = hashlib.blake2b('{"a":["ä",1],"b":null}'.encode(), digest_size=16).hexdigest()
    assert digest({"b": None, "a": ["ä", 1]}) == digest({"a": ("ä", 1), "b": None}) == expected


def test_units_are_named_by_their_path_below_the_root(place: str) -> None:
    here = make_inputs(place, {"x/a.txt": "1", "y/a.txt": "22"})
    there = make_inputs(place, {"y/a.txt": "1", "x/a.txt": "1"}, folder="moved/deep")
    assert [(u.path, u.size) for u in here] == [("x/a.txt", 1), ("y/a.txt", 2)]
    assert [u.name for u in here] == [u.name for u in there]
    assert [u.name for u in here] == [hashlib.blake2b(f"{p}\x000".encode(), digest_size=8).hexdigest() for p in ("x/a.txt", "y/a.txt")]
    assert [u.path for u in make_inputs(place, {"x/a.txt": "1"})] == ["a.txt"]
    assert units_of_files([]) == []


def test_a_stage_travels_to_workers(place: str) -> None:
    stage = make_stage(place)
    assert pickle.loads(pickle.dumps(stage)) == stage  # noqa: S301
    assert pickle.loads(pickle.dumps(stage)).fingerprint == stage.fingerprint  # noqa: S301


# -- beginning -----------------------------------------------------------------------------------------------------------------------


def test_begin_writes_what_was_asked_and_of_which_inputs(place: str) -> None:
    units, stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"))
    assert stage.begin(list(reversed(units)))
    assert sorted(contents(stage.url)) == ["stage.json", "units.parquet"]
    assert storage.read_json(stage.at("stage.json")) == {
        "stage": "lines",
        "format_version": FORMAT_VERSION,
        "fingerprint": stage.fingerprint,
        "parameters": {"least": 2, "names": ["a"]},
        "upstream": {"before": "1234"},
    }
    assert stage.units() == sorted(units, key=lambda u: u.name)
    assert {u.path: (u.size, u.offset, u.length, u.group, u.index) for u in stage.units()} == {
        "a.txt": (7, 0, -1, "", 0),
        "b.txt": (14, 0, -1, "", 0),
        "c.txt": (0, 0, -1, "", 0),
    }
    assert Stage.begun(stage.url, Limits()) == stage


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameters": {"least": 3, "names": ["a"]}}, "least was 2 and is 3"),
        ({"parameters": {"least": 2, "names": ["a"], "new": True}}, "new was None and is True"),
        ({"parameters": {"names": ["b"]}}, "least was 2 and is None; names was ['a'] and is ['b']"),
        ({"upstream": {"before": "5678"}}, "before was '1234' and is '5678'"),
        ({"upstream": {}, "parameters": {"least": 1, "names": ["a"]}}, "least was 2 and is 1; before was '1234' and is None"),
    ],
)
def test_other_settings_are_refused_and_both_are_named(place: str, changes: dict[str, Any], said: str) -> None:
    make_stage(place).begin([])
    before, other = contents(place), make_stage(place, **changes)
    with pytest.raises(JobError) as error:
        other.begin([])
    assert str(error.value) == (
        f"{place} was made with other settings (fingerprint {make_stage(place).fingerprint}, now {other.fingerprint}): {said}. "
        "Choose another --output, or delete the directory"
    )
    assert contents(place) == before


def test_limits_are_no_settings(place: str) -> None:
    make_stage(place).begin([])
    assert make_stage(place, limits=Limits(bad_records=0.5)).begin([])


def test_another_kind_of_stage_is_refused(place: str) -> None:
    make_stage(place).begin([])
    with pytest.raises(JobError) as error:
        make_stage(place, kind="words").begin([])
    assert str(error.value) == f"{place} holds a stage 'lines', not 'words': choose another --output"


def test_a_newer_format_is_refused(place: str) -> None:
    stage = make_stage(place)
    do_all(stage, [])
    for name in ("stage.json", "manifest.json"):
        body = storage.read_json(stage.at(name))
        storage.write_json(stage.at(name), body | {"format_version": FORMAT_VERSION + 1})
    said = f"{place} was written by a newer worldclip (format {FORMAT_VERSION + 1}): update worldclip"
    for refused in (lambda: stage.begin([]), lambda: Stage.begun(place, Limits()), lambda: open_stage(place, "lines")):
        with pytest.raises(JobError) as error:
            refused()
        assert str(error.value) == said


@pytest.mark.parametrize("stranger", ["data.parquet", "manifest.json"])
def test_a_directory_of_somebody_else_is_refused(place: str, stranger: str) -> None:
    storage.write_bytes(storage.join(place, stranger), b"mine")
    with pytest.raises(JobError) as error:
        make_stage(place).begin([])
    assert str(error.value) == f"{place} holds {stranger} but no stage.json: it is no stage of worldclip; choose another --output"
    assert contents(place) == {stranger: b"mine"}


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(JobError, match=r"/out/stage\.json: cannot be written to .*; choose another --output"):
        make_stage(str(tmp_path / "out")).begin([])


def test_begun_needs_a_stage(place: str) -> None:
    with pytest.raises(JobError) as error:
        Stage.begun(place, Limits())
    assert str(error.value) == f"{place} is no stage: there is no stage.json in it"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"{", b'{"stage": "lines"}'])
def test_a_damaged_stage_json_is_told(place: str, body: bytes) -> None:
    storage.write_bytes(storage.join(place, "stage.json"), body)
    for refused in (lambda: Stage.begun(place, Limits()), lambda: make_stage(place).begin([])):
        with pytest.raises(JobError, match=f"^{place}"):
            refused()


def test_two_inputs_of_one_name_are_refused(place: str) -> None:
    (unit,) = make_inputs(place, {"a.txt": "one"})
    with pytest.raises(JobError) as error:
        make_stage(place).begin([unit, unit])
    assert str(error.value) == f"two inputs would make the same part {unit.name} of {place}"


def test_fewer_inputs_are_refused(place: str) -> None:
    units, stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"), limits=Limits(bad_records=1))
    do_all(stage, units)
    before = contents(stage.url)
    with pytest.raises(JobError) as error:
        stage.begin(units[1:])
    assert str(error.value) == (
        f"{stage.url} was begun with 1 inputs that are not given now (the first: a.txt): give them again, or choose another --output"
    )
    assert contents(stage.url) == before


def test_units_of_other_ranges_of_an_input_are_done_again(place: str) -> None:
    def run(pieces: list[Unit]) -> list[tuple[int, int]]:
        stage.begin(pieces)
        todo = [unit for unit in stage.units() if not stage.has_part(unit)]
        for unit in todo:
            tally = Tally(read=unit.length, emitted=unit.length)
            stage.write_part(unit, pa.table({"row": range(unit.offset, unit.offset + unit.length)}), tally)
        return sorted((unit.offset, unit.length) for unit in todo)

    def piece(offset: int, length: int, etag: str = "1") -> Unit:
        return Unit(name=f"u{offset}", path="a.parquet", etag=etag, offset=offset, length=length)

    stage = make_stage(storage.join(place, "out"))
    assert run([piece(0, 4)]) == [(0, 4)]
    # A version of the program that cuts files otherwise.
    assert run([piece(0, 2), piece(2, 2)]) == [(0, 2), (2, 2)]
    assert stage.finish()["read"] == 4
    # The file was written anew with one row group.
    assert run([piece(0, 3, "2")]) == [(0, 3)]
    assert stage.finish()["read"] == 3
    assert [name for name in storage.listing(stage.url) if name.startswith("part-")] == ["part-u0.parquet"]


def test_fewer_derived_units_are_forgotten(place: str) -> None:
    units = make_inputs(place, LINES | {"d.txt": "bad two three four five six"})
    stage = make_stage(storage.join(place, "out"), limits=Limits(bad_records=1))
    do_all(stage, units)
    assert stage.begin(units[:1], derived=True)
    stage.finish()
    other = make_stage(storage.join(place, "other"))
    do_all(other, units[:1])
    assert results(stage.url) == results(other.url)


def test_more_inputs_extend_a_stage(place: str) -> None:
    limits, out = Limits(bad_records=1), storage.join(place, "out")
    units, stage = make_inputs(place, LINES), make_stage(out, limits=limits)
    assert do_all(stage, units[:2]) == ["a.txt", "b.txt"]
    assert do_all(stage, units[:2]) == []
    assert do_all(stage, units) == ["c.txt"]
    other = make_stage(storage.join(place, "other"), limits=limits)
    assert do_all(other, units[::-1]) == ["a.txt", "b.txt", "c.txt"]
    assert results(out) == results(other.url)


def test_a_changed_input_is_done_again_and_leaves_nothing_behind(place: str) -> None:
    limits, out = Limits(bad_records=1), storage.join(place, "out")
    stage = make_stage(out, limits=limits)
    assert do_all(stage, make_inputs(place, LINES)) == ["a.txt", "b.txt", "c.txt"]
    assert storage.listing(stage.at("dead_letters"))
    good = LINES | {"b.txt": "three good now"}
    storage.write_bytes(storage.join(place, "in/b.txt"), good["b.txt"].encode())
    inputs = tuple(storage.join(place, "in", name) for name in good)
    assert do_all(stage, units_of_files(storage.expand(inputs))) == ["b.txt"]
    other = make_stage(storage.join(place, "other"), limits=limits)
    do_all(other, make_inputs(place, good, folder="elsewhere"))
    assert results(out) == results(other.url)
    assert storage.listing(stage.at("dead_letters")) == []


def test_moved_inputs_keep_their_parts(tmp_path: Path) -> None:
    stage = make_stage(str(tmp_path / "out"), limits=Limits(bad_records=1))
    do_all(stage, make_inputs(str(tmp_path), LINES))
    (tmp_path / "in").rename(tmp_path / "moved")
    assert do_all(stage, units_of_files(storage.expand((str(tmp_path / "moved"),)))) == []
    assert storage.exists(stage.at("_SUCCESS"))


# -- parts ---------------------------------------------------------------------------------------------------------------------------


def test_a_part_knows_its_own_account(place: str) -> None:
    units, stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"))
    do_all(stage, units[:1])
    b = units[1]
    do(stage, b)
    data = storage.read_bytes(stage.part_url(b))
    footer = read_footer(stage.part_url(b))
    assert footer is not None
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    assert (footer.unit, footer.fingerprint) == (b.name, stage.fingerprint)
    assert footer.input_sha256 == hashlib.sha256(LINES["b.txt"].encode()).hexdigest()
    assert footer.data_sha256 == hashlib.sha256(data[: -8 - footer_bytes]).hexdigest()
    assert (footer.rows, footer.bytes) == (1, len(data))
    assert footer.counters == {
        "read": 3,
        "emitted": 1,
        "dropped": {"unwanted": 1},
        "dead_letters": 1,
        "dead_letter_reasons": {"bad_line": 1},
        "files": 1,
        "bad_files": 0,
    }
    assert read_part(stage.part_url(b)).to_pylist() == [{"line": "three"}]


def test_row_groups_are_bounded(place: str) -> None:
    stage, unit = make_stage(place), Unit(name="x", path="x")
    n = part_module.ROW_GROUP_ROWS * 2 + 1
    with stage.part(unit, SCHEMA, Tally()) as writer:
        writer.write(pa.table([pa.array(["line"] * n)], schema=SCHEMA))
    with storage.open_read(stage.part_url(unit)) as f:
        metadata = pq.read_metadata(f)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [65_536, 65_536, 1]


def test_dead_letters_are_kept_before_the_part_appears(place: str) -> None:
    units, stage = make_inputs(place, {"b.txt": "one bad", "c.txt": "two cut three"}), make_stage(storage.join(place, "out"))
    for unit in units:
        do(stage, unit)
    letters = {unit.path: read_part(stage.at("dead_letters", stage.part_name(unit))).to_pylist() for unit in units}
    assert letters == {
        "b.txt": [{"input": "b.txt", "place": 1, "reason": "bad_line", "detail": "", "payload": b"bad"}],
        "c.txt": [{"input": "c.txt", "place": 1, "reason": "cut_off", "detail": "here", "payload": b""}],
    }


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_in_the_middle_leaves_no_part(place: str) -> None:
    stage, unit = make_stage(place), Unit(name="x", path="x")

    def broken() -> None:
        with stage.part(unit, SCHEMA, Tally()) as writer:
            writer.write(pa.table([pa.array(["line"])], schema=SCHEMA))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    gc.collect()
    assert contents(place) == {}
    assert not stage.has_part(unit)


def test_a_connection_that_breaks_is_no_damage(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit, *_), stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"), limits=Limits(bad_records=1))
    do(stage, unit)

    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise ConnectionResetError(errno.ECONNRESET, "reset by peer")

    body = storage.read_bytes(stage.part_url(unit))
    for name in ("open_read", "open_if_there"):
        monkeypatch.setattr(storage, name, lambda _: Broken(body))
    for read in (read_part, read_footer):
        with pytest.raises(ConnectionResetError):
            read(stage.part_url(unit))


def test_books_that_do_not_close_are_a_defect(place: str) -> None:
    stage, unit = make_stage(place), Unit(name="x", path="some input")
    with pytest.raises(ValueError, match="the books of some input do not close"):
        stage.write_part(unit, SCHEMA.empty_table(), Tally(read=2, emitted=1))
    assert contents(place) == {}


def _truncated(data: bytes, _: bytes) -> bytes:
    return data[: len(data) // 2]


def _empty(data: bytes, _: bytes) -> bytes:
    return b""


def _garbled_footer(data: bytes, _: bytes) -> bytes:
    size = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - size] + b"\xff" * size + data[-8:]


def _plain_parquet(data: bytes, _: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(SCHEMA.empty_table(), sink)
    return sink.getvalue().to_pybytes()


def _footer_of_a_stranger(data: bytes, _: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(SCHEMA.with_metadata({"worldclip": json.dumps({"unit": "x", "surprise": 1})}).empty_table(), sink)
    return sink.getvalue().to_pybytes()


def _part_of_another_unit(_: bytes, other: bytes) -> bytes:
    return other


@pytest.mark.parametrize(
    "damage", [_truncated, _empty, _garbled_footer, _plain_parquet, _footer_of_a_stranger, _part_of_another_unit], ids=lambda f: f.__name__
)
def test_what_is_no_part_of_this_unit_is_done_again(place: str, damage: Callable[[bytes, bytes], bytes]) -> None:
    units, stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"), limits=Limits(bad_records=1))
    do_all(stage, units)
    before = contents(stage.url)
    storage.write_bytes(stage.part_url(units[0]), damage(before[stage.part_name(units[0])], before[stage.part_name(units[1])]))
    storage.remove(stage.at("_SUCCESS"))
    with pytest.raises(JobError, match="1 of 3 units have no part yet"):
        stage.finish()
    assert do_all(stage, units) == ["a.txt"]
    assert contents(stage.url) == before


def test_a_part_of_other_settings_is_done_again(place: str) -> None:
    units = make_inputs(place, LINES)
    stage, other = make_stage(storage.join(place, "out")), make_stage(storage.join(place, "other"), parameters={})
    for s in (stage, other):
        s.begin(units)
        do(s, units[0])
    assert stage.has_part(units[0])
    storage.write_bytes(stage.part_url(units[0]), storage.read_bytes(other.part_url(units[0])))
    assert not stage.has_part(units[0])


def _die_in_the_middle(url: str, unit: Unit) -> None:
    with make_stage(url).part(unit, SCHEMA, Tally(read=70_000, emitted=70_000)) as writer:
        for _ in range(7):
            writer.write(pa.table([pa.array([f"line {i}" for i in range(10_000)])], schema=SCHEMA))
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_leaves_nothing_that_is_seen(tmp_path: Path) -> None:
    units, stage = make_inputs(str(tmp_path), LINES), make_stage(str(tmp_path / "out"), limits=Limits(bad_records=1))
    stage.begin(units)
    process = multiprocessing.get_context("fork").Process(target=_die_in_the_middle, args=(stage.url, units[0]))
    process.start()
    process.join(timeout=30)
    assert process.exitcode == -signal.SIGKILL
    left = [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".tmp-")]
    assert len(left) == 1
    assert left[0].stat().st_size > 1_000
    assert storage.listing(stage.url) == ["stage.json", "units.parquet"]
    assert not stage.has_part(units[0])
    (tmp_path / "out" / "dead_letters").mkdir()
    (tmp_path / "out" / "dead_letters" / ".tmp-killed").write_bytes(b"half")
    assert do_all(stage, units) == ["a.txt", "b.txt", "c.txt"]
    other = make_stage(str(tmp_path / "other"), limits=Limits(bad_records=1))
    do_all(other, units)
    assert results(stage.url) == results(other.url)
