from __future__ import annotations

import hashlib
from typing import Any

import pytest

from pipelines import storage
from pipelines.errors import JobError
from pipelines.part import read_footer, read_part, read_parts
from pipelines.stage import FORMAT_VERSION, Limits, digest, open_stage
from tests.pipelines.conftest import contents
from tests.pipelines.words import LINES, do, do_all, make_inputs, make_stage, results

# -- ending --------------------------------------------------------------------------------------------------------------------------


def test_the_manifest_sums_the_footers(place: str) -> None:
    units, stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"), limits=Limits(bad_records=0.5))
    stage.begin(units)
    for unit in units:
        do(stage, unit)
    counters = stage.finish()
    assert counters == {
        "read": 5,
        "emitted": 3,
        "dropped": {"unwanted": 1},
        "dead_letters": 1,
        "dead_letter_reasons": {"bad_line": 1},
        "files": 3,
        "bad_files": 0,
    }
    footers = {u.path: footer for u in units if (footer := read_footer(stage.part_url(u)))}
    manifest = storage.read_json(stage.at("manifest.json"))
    body = {
        "stage": "lines",
        "format_version": FORMAT_VERSION,
        "fingerprint": stage.fingerprint,
        "parameters": {"least": 2, "names": ["a"]},
        "upstream": {"before": "1234"},
        "counters": counters,
        "rows": 3,
        "parts": [
            {
                "name": f"part-{u.name}.parquet",
                "input": u.path,
                "rows": {"a.txt": 2, "b.txt": 1, "c.txt": 0}[u.path],
                "bytes": footers[u.path].bytes,
                "data_sha256": footers[u.path].data_sha256,
                "input_sha256": hashlib.sha256(LINES[u.path].encode()).hexdigest(),
            }
            for u in stage.units()
        ],
    }
    assert manifest == {**body, "id": digest(body)}
    assert storage.read_bytes(stage.at("_SUCCESS")) == b""


def test_two_directories_and_any_order_of_inputs_give_the_same_bytes(place: str) -> None:
    limits = Limits(bad_records=1)
    first, second = (make_stage(storage.join(place, name), limits=limits) for name in ("out", "deep/out"))
    do_all(first, make_inputs(place, LINES))
    do_all(second, make_inputs(place, dict(reversed(LINES.items())), folder="else/where")[::-1])
    assert results(first.url) == results(second.url)
    assert open_stage(first.url, "lines").id == open_stage(second.url, "lines").id


def test_the_id_follows_the_content(place: str) -> None:
    ids = set()
    cases: list[tuple[str, dict[str, Any]]] = [("one", {}), ("two", {}), ("one", {"parameters": {}}), ("one", {"upstream": {}})]
    for i, (text, changes) in enumerate(cases):
        stage = make_stage(storage.join(place, f"out{i}"), **changes)
        do_all(stage, make_inputs(place, {"a.txt": text}, folder=f"in{i}"))
        ids.add(open_stage(stage.url, "lines").id)
    assert len(ids) == 4


def test_finish_needs_every_part(place: str) -> None:
    units, stage = make_inputs(place, LINES), make_stage(storage.join(place, "out"))
    stage.begin(units)
    do(stage, units[0])
    with pytest.raises(JobError) as error:
        stage.finish()
    first = min(units[1:], key=lambda u: u.name).path
    assert str(error.value) == f"{stage.url}: 2 of 3 units have no part yet (the first: {first}); run the job again"
    assert not storage.exists(stage.at("_SUCCESS"))
    with pytest.raises(JobError) as error:
        open_stage(stage.url, "lines")
    assert str(error.value) == (
        f"{stage.url} is not finished (no _SUCCESS): run its job again with the same command, it goes on where it stopped"
    )


def test_too_many_bad_records_fail_at_the_end_and_the_parts_are_kept(place: str) -> None:
    units, out = make_inputs(place, {"a.txt": "one " * 90, "b.txt": "bad " * 10 + "cut"}), storage.join(place, "out")
    with pytest.raises(JobError) as error:
        do_all(make_stage(out, limits=Limits(bad_records=0.09)), units)
    assert str(error.value) == (
        "10 of 101 records could not be used (bad_line 10, cut_off 1), more than --max-bad-records 9.000% allows; "
        f"see {out}/dead_letters. What was done is kept: run the same command with a higher --max-bad-records to accept it"
    )
    assert not storage.exists(storage.join(out, "_SUCCESS"))
    parts = {name: data for name, data in contents(out).items() if name.startswith("part-")}
    assert len(parts) == 2
    assert do_all(make_stage(out, limits=Limits(bad_records=0.10)), units) == []
    assert {name: data for name, data in contents(out).items() if name.startswith("part-")} == parts
    assert open_stage(out, "lines").counters["dead_letters"] == 11


def test_one_damaged_file_is_always_allowed_and_two_are_judged(place: str) -> None:
    out, good = storage.join(place, "out"), "one " * 200
    do_all(make_stage(out, limits=Limits(bad_files=0.0)), make_inputs(place, {"a.txt": good + "cut", "b.txt": good}))
    units = make_inputs(place, {"a2.txt": good + "cut", "b2.txt": good + "cut", "c2.txt": good})
    out = storage.join(place, "out2")
    with pytest.raises(JobError) as error:
        do_all(make_stage(out), units)
    assert str(error.value) == (
        "2 of 3 files are damaged (a2.txt: cut_off 1; b2.txt: cut_off 1), more than --max-bad-files 0.100% allows; "
        f"see {out}/dead_letters. What was done is kept: run the same command with a higher --max-bad-files to accept it"
    )
    assert do_all(make_stage(out, limits=Limits(bad_files=0.7)), units) == []
    assert open_stage(out, "lines").counters["bad_files"] == 2


@pytest.mark.parametrize(
    ("counters", "fails"),
    [
        ({"read": 100, "dead_letters": 1}, False),
        ({"read": 100, "dead_letters": 2}, True),
        ({"read": 100, "dead_letters": 2, "files": 1, "bad_files": 1}, False),
        ({"read": 0}, False),
        ({"read": 3, "dead_letters": 1, "files": 3, "bad_files": 1}, False),
        ({"read": 3, "dead_letters": 2, "files": 3, "bad_files": 2}, True),
        ({"read": 10**6, "dead_letters": 3, "files": 3_000, "bad_files": 3}, False),
        ({"read": 10**6, "dead_letters": 4, "files": 3_000, "bad_files": 4}, True),
    ],
)
def test_limits(counters: dict[str, int], fails: bool) -> None:
    try:
        Limits().check(counters, "W")
    except JobError:
        assert fails
    else:
        assert not fails


# -- reading -------------------------------------------------------------------------------------------------------------------------


def test_a_finished_stage_gives_its_parts_and_units(place: str) -> None:
    stage = make_stage(storage.join(place, "out"), limits=Limits(bad_records=1))
    do_all(stage, make_inputs(place, LINES))
    finished = open_stage(stage.url, "lines")
    assert (finished.parameters, finished.upstream) == (stage.parameters, stage.upstream)
    assert [t.to_pylist() for t in read_parts(finished)] == [read_part(stage.part_url(u)).to_pylist() for u in stage.units()]
    assert [t.column_names for t in read_parts(finished, columns=[])] == [[], [], []]
    assert [(u.name, u.index, u.url) for u in finished.units()] == [(u.name, i, stage.part_url(u)) for i, u in enumerate(stage.units())]
    assert [u.etag for u in finished.units()] == [p["data_sha256"] for p in finished.parts]


def test_open_stage_says_what_is_wrong(place: str) -> None:
    with pytest.raises(JobError) as error:
        open_stage(place, "lines")
    assert str(error.value) == f"{place} is no stage 'lines': there is no stage.json in it"
    do_all(make_stage(place), [])
    with pytest.raises(JobError) as error:
        open_stage(place, "words")
    assert str(error.value) == f"{place} holds a stage 'lines', not 'words'"
    assert open_stage(place, "lines").parts == []


def test_a_damaged_part_of_a_finished_stage_is_told(place: str) -> None:
    stage = make_stage(storage.join(place, "out"))
    (unit,) = make_inputs(place, {"a.txt": "one"})
    do_all(stage, [unit])
    url = stage.part_url(unit)
    storage.write_bytes(url, storage.read_bytes(url)[:100])
    with pytest.raises(JobError, match=r"is damaged .*: delete it and run its job again") as error:
        read_part(url)
    assert str(error.value).startswith(f"{url} ")
