from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import __main__ as command_line
from pipelines import storage
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_footer
from pipelines.stage import Limits, digest
from pipelines.verify import check, checksums_of
from tests.pipelines.conftest import contents, unpacked
from tests.pipelines.curated import curate, make_set, match, write_inputs
from tests.pipelines.test_jobs import write_stage
from tests.pipelines.words import LINES, do_all, make_inputs, make_stage


@pytest.fixture(scope="module", autouse=True)
def several_parts() -> Iterator[None]:
    with unpacked():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    write_inputs(root / "in")
    make_set(root / "W", root / "in")
    return root


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "W", tmp_path / "W")
    return tmp_path / "W"


def faults(work: Path | str) -> dict[str, list[str]]:
    """What is wrong, by the name of the stage; only of those where something is."""
    return {storage.relative(x.url, str(work)): x.faults for x in check(str(work)) if x.faults}


def parts(stage: Path) -> list[Path]:
    return sorted(path for path in stage.glob("*.parquet") if path.name != "units.parquet")


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def test_a_chain_as_it_was_written(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(work)
    run_job("verify", [str(work)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"{work}/{name}" for name in ("entries", "matched", "siblings", "counts", "curated", "thresholds.json")
    ]
    size = sum(path.stat().st_size for path in parts(work / "curated"))
    assert lines[4] == f"{work}/curated: balance, 2 parts, {size / 1000:.1f} kB: as written"
    assert contents(work) == before


def test_the_checksum_of_the_data_is_the_one_that_the_writer_took(made: Path) -> None:
    for part in made.glob("W/*/*.parquet"):
        footer, found = read_footer(str(part)), checksums_of(str(part))
        assert found
        assert (footer is None) == (part.name == "units.parquet")
        assert footer is None or found.data == footer.data_sha256
    (made / "x.parquet").write_bytes(b"PAR1" + b"\xff\xff\xff\x00PAR1")
    assert checksums_of(f"{made}/x.parquet") is None
    (made / "x.parquet").write_bytes(b"PAR1")
    assert checksums_of(f"{made}/x.parquet") is None


def test_every_byte_of_the_data_counts(work: Path) -> None:
    (first, _) = parts(work / "matched")
    data = first.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    for place in range(0, len(data) - footer, 97):
        first.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found = faults(work / "matched")["."]
        assert found
        assert all(fault.startswith(first.name) for fault in found), found
    first.write_bytes(data)
    assert faults(work / "matched") == {}


def test_parts_that_are_gone_cut_off_or_too_many(work: Path) -> None:
    (first, second) = parts(work / "siblings")
    first.write_bytes(first.read_bytes()[:-20])
    second.rename(second.with_name("part-stranger.parquet"))
    assert faults(work) == {
        "siblings": ["part-stranger.parquet: no part of the stage", f"{first.name} is no whole part", f"{second.name} is gone"]
    }


def test_a_part_of_another_stage_of_its_kind(made: Path, work: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "W/entries", tmp_path / "other/entries")
    match(tmp_path / "other", "matched", made / "in/one", "--min-characters", "1")
    (first, _) = parts(work / "matched")
    shutil.copy(tmp_path / "other/matched" / first.name, first)
    here, there = (json.loads((x / "matched/manifest.json").read_text())["fingerprint"] for x in (tmp_path / "other", work))
    assert faults(work) == {"matched": [f"{first.name}: fingerprint {here}, the manifest says {there}"]}


def test_manifests_that_were_changed(work: Path) -> None:
    edit(work / "counts/manifest.json", lambda x: x.update(rows=9))
    edit(work / "curated/manifest.json", lambda x: x["counters"].update(emitted=1))
    edit(work / "siblings/stage.json", lambda x: x["parameters"].update(a=1))
    (work / "matched/manifest.json").write_text("{")
    edit(work / "thresholds.json", lambda x: x.update(p=0.25))
    found = faults(work)
    kept = json.loads((work / "curated/manifest.json").read_text())["counters"]
    assert found["counts"] == ["manifest.json was changed: its id is not that of its content", "manifest.json has 9 rows, its parts have 8"]
    assert found["curated"] == [
        "manifest.json was changed: its id is not that of its content",
        f"the parts have emitted {60 - sum(kept['dropped'].values())}, the manifest 1",
        f"the books do not close: 60 read, {1 + sum(kept['dropped'].values())} accounted for",
    ]
    assert found["siblings"][0].startswith(f"{work}/siblings was made with other settings (fingerprint ")
    assert found["matched"][0].startswith(f"{work}/matched/manifest.json: not valid JSON (")
    assert found["thresholds.json"] == ["it was changed: its id is not that of its content"]
    edit(work / "counts/manifest.json", lambda x: x.pop("parts"))
    assert faults(work)["counts"] == [
        "manifest.json was changed: its id is not that of its content",
        "manifest.json is damaged (KeyError: 'parts')",
    ]


def test_a_manifest_that_was_made_anew_by_hand_does_not_fit_the_parts(work: Path) -> None:
    def forge(body: dict[str, Any]) -> None:
        body["parts"][0]["data_sha256"] = "0" * 64
        body["id"] = digest({key: value for key, value in body.items() if key != "id"})

    edit(work / "curated/manifest.json", forge)
    ((name, found),) = faults(work).items()
    assert name == "curated"
    assert [fault.split(" ")[1:4] for fault in found] == [["checksum", "of", "its"], ["checksum", "in", "its"]]


def test_columns_that_are_others(made: Path, work: Path) -> None:
    (first, _) = parts(work / "curated")
    # The account of the part stays what it was: only its columns are others.
    table, about = pq.read_table(first), pq.read_metadata(first).metadata[b"worldclip"]
    keys = table.schema.get_field_index("pair_key")
    for other, said in (
        (table.drop_columns(["probability"]), "rank int64, no probability"),
        (table.set_column(keys, "pair_key", table["pair_key"].cast(pa.string())), "pair_key string"),
        (table.select(["url", "image_id", *table.column_names[2:]]), "another order"),
    ):
        pq.write_table(other.replace_schema_metadata({b"worldclip": about}), first)
        assert faults(work)["curated"][-1] == f"{first.name} has other columns than a part of balance ({said})"


def test_entries_and_their_automata(work: Path) -> None:
    automaton = work / "entries/automata/en"
    data = automaton.read_bytes()
    automaton.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert faults(work) == {"entries": ["automata/en: the automaton is damaged (checksum): make the entries again"]}
    automaton.unlink()
    assert faults(work) == {"entries": ["automata/en is gone"]}


def test_dead_letters(place: str) -> None:
    stage = write_stage(storage.join(place, "W", "siblings"))
    assert [fault for fault in check(stage.url)[0].faults if "dead_letters" in fault] == []
    storage.write_bytes(stage.at("dead_letters", "part-x.parquet"), b"")
    assert "dead_letters/part-x.parquet: 0 rows, the part says 1" in check(stage.url)[0].faults
    storage.remove(stage.at("dead_letters", "part-x.parquet"))
    assert "dead_letters/part-x.parquet is gone" in check(stage.url)[0].faults


def test_kinds_that_nobody_knows_are_looked_at_as_far_as_it_goes(place: str) -> None:
    stage = make_stage(storage.join(place, "W"), limits=Limits(bad_records=1, bad_files=1))
    do_all(stage, make_inputs(place, LINES))
    assert check(stage.url)[0].faults == []
    storage.write_bytes(stage.at("dead_letters", "part-x.parquet"), b"")
    assert check(stage.url)[0].faults == []  # of no part of the stage: nobody reads it


def test_stages_that_were_not_made_from_one_another(made: Path, work: Path) -> None:
    shutil.rmtree(work / "matched")
    match(work, "matched", made / "in/two")
    ids = [json.loads((x / "matched/manifest.json").read_text())["id"] for x in (made / "W", work)]
    said = [f"made from matched {ids[0]}, but here lies {ids[1]}"]
    assert faults(work) == dict.fromkeys(("siblings", "counts", "curated", "thresholds.json"), said)


def test_a_pool_of_several_stages_is_one(made: Path, work: Path) -> None:
    for place in ("siblings", "counts", "curated"):
        shutil.rmtree(work / place)
    match(work, "more", made / "in/two")
    curate(work, ["matched", "more"])
    assert faults(work) == {}
    (first, second) = (parts(work / "siblings")[i] for i in (0, 2))
    shutil.copy(second, first)
    assert any("other numbers of rows than the matched parts" in fault or "unit" in fault for fault in faults(work)["siblings"])


def test_what_is_left_out_belongs_to_the_counts(made: Path, work: Path, tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("host1.org\n")
    for place in ("siblings", "counts", "curated"):
        shutil.rmtree(work / place)
    curate(work, ["matched"], count=("--drop-hosts", f"{tmp_path}/hosts.txt"))
    assert faults(work) == {}
    (work / "counts/left_out/hosts").write_text("host2.org\n")
    assert faults(work) == {"counts": ["left_out/hosts is another list than the counts were made with"]}
    (work / "counts/left_out/hosts").unlink()
    assert faults(work) == {"counts": ["left_out/hosts is gone"]}


def test_what_is_not_finished_differs(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "curated/_SUCCESS").unlink()
    assert command_line.main(["verify", str(work)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-3:-1] == [
        f"{work}/curated: balance: DIFFERS",
        f"  not finished: worldclip status {work}/curated says how far it is",
    ]
    assert err == "worldclip verify: 1 of 6 are not as they were written\n"


def test_many_faults_are_counted(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in parts(work / "matched"):
        part.unlink()
    edit(work / "matched/manifest.json", lambda x: x.update(parts=x["parts"] * 8))
    assert command_line.main(["verify", f"{work}/matched"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[-1].startswith("  and ")


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        run_job("verify", [str(tmp_path)])
    assert str(error.value) == f"{tmp_path} is no stage and holds none: there is no stage.json in it, nor in a directory in it"
