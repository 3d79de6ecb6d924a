"""Small files of own pairs that make a unit together: which ones do, and that all that is said of inputs still speaks of files."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import metadata.tally
from pipelines import inputs, storage
from pipelines.datacard import sealed
from pipelines.errors import JobError
from pipelines.inputs import LINES, PARQUET, SHARDS, in_runs, packed, packed_as, sampled
from pipelines.jobs import run_job
from pipelines.origins import inputs_of, packs_of, sha256_of
from pipelines.part import read_part, read_parts
from pipelines.plan import inputs_of as sizes_of
from pipelines.stage import Limits, Stage, Unit, open_stage, unit_name
from pipelines.verify import check_stage
from tests.pipelines.conftest import contents, english_entries, unpacked
from tests.pipelines.curated import curate
from tests.pipelines.test_inputs import as_lines, as_parquet, as_shard

ANIMALS = ("dog", "owl", "fox", "cow", "logo")
WRITERS: dict[str, tuple[str, Callable[[Path, list[dict[str, Any]]], None]]] = {
    PARQUET: ("parquet", as_parquet),
    LINES: ("jsonl", as_lines),
    SHARDS: ("tar", as_shard),
}
SMALL_PACKS = {PARQUET: 30_000, LINES: 6_000, SHARDS: 200_000}


def rows_of(number: int, rows: int = 4) -> list[dict[str, Any]]:
    """The pairs of a file, some of them without a match or without a text; every seventh file repeats the first pair of the one before."""
    first = number * rows
    texts = [f"a photo of a {ANIMALS[i % 5]} in the green garden, number {i}" for i in range(first, first + rows)]
    out = [{"key": f"k{first + i}", "url": f"http://x/{first + i}.jpg", "text": text} for i, text in enumerate(texts)]
    if number % 7 == 6:
        out[-1] = rows_of(number - 1, rows)[0]
    if number % 11 == 10:
        out[0]["text"] = " "
    return out


def write_files(folder: Path, format: str, numbers: Sequence[int], *, ending: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    suffix, write = WRITERS[format]
    for number in numbers:
        write(folder / f"{number:05}.{suffix}{ending}", rows_of(number))


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> str:
    return english_entries(tmp_path_factory.mktemp("entries"), ["dog", "owl", "fox", "cow"])


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PACK_BYTES", SMALL_PACKS)


def match(entries: str, out: Path | str, format: str, *argv: str) -> dict[str, Any]:
    own = ["--image-id", "key", "--format", format, "--entries", entries, "--output", str(out)]
    run_job("match", [*own, *argv])
    return dict(open_stage(str(out), "match").counters)


def units_at(out: Path) -> list[Unit]:
    return Stage.begun(str(out), Limits()).units()


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def but_units(out: Path) -> dict[str, bytes]:
    """Every file but the one that says where the inputs lay."""
    return {name: data for name, data in contents(out).items() if name != "units.parquet"}


def letters_at(out: Path) -> list[tuple[str, int, str]]:
    """(input, place, reason) of the dead letters."""
    tables = [read_part(str(path)) for path in sorted((out / "dead_letters").glob("*"))]
    return [(row["input"], row["place"], row["reason"]) for table in tables for row in table.to_pylist()]


# -- which files -------------------------------------------------------------------------------------------------------------------------

LIMIT = 4_096 * 100


def some_files(sizes: Sequence[int], *, folder: str = "a", etag: str = "1") -> list[Unit]:
    paths = [f"{folder}/{i:05}.jsonl" for i in range(len(sizes))]
    return [Unit(name=unit_name(p), path=p, url=f"/{p}", size=size, etag=etag) for p, size in zip(paths, sizes, strict=True)]


@given(st.lists(st.tuples(st.integers(0, LIMIT // 2), st.booleans())))
def test_every_file_is_in_one_unit_and_in_its_order(files: list[tuple[int, bool]]) -> None:
    units = [replace(unit, etag="1" if known else "") for unit, (_, known) in zip(some_files([n for n, _ in files]), files, strict=True)]
    packs = packed(units, LIMIT)
    assert [file for pack in packs for file in pack.inputs] == units
    assert len({pack.name for pack in packs}) == len(packs)
    for pack in packs:
        assert len(pack.members) != 1
        assert sum(max(file.size, 100) for file in pack.members) <= LIMIT
        assert all(file.etag and file.size < LIMIT / 4 for file in pack.members)
        assert pack.size == sum(file.size for file in pack.inputs)
    assert packed(units, 0) == units


@given(st.lists(st.integers(0, LIMIT // 3)), st.lists(st.integers(0, LIMIT // 3)))
def test_files_behind_all_others_change_the_last_pack_only(sizes: list[int], more: list[int]) -> None:
    files = some_files([*sizes, *more])
    before, after = packed(files[: len(sizes)], LIMIT), packed(files, LIMIT)
    assert after[: max(0, len(before) - 1)] == before[:-1]
    for last, now in zip(before[-1:], after[len(before) - 1 :], strict=False):
        assert now.inputs[: len(last.inputs)] == last.inputs


def test_what_becomes_of_a_file_stays_near_it() -> None:
    files = some_files([1_000 + i % 2_000 for i in range(10_000)])
    packs = packed(files, LIMIT)
    # 2,000 bytes each in packs of 102,400 on average.
    assert 170 < len(packs) < 230
    for at in range(500, 10_000, 1_900):
        changed = replace(files[at], size=1_234, etag="2")
        come = some_files([700] * 3, folder=f"a/{at:05}")
        for others in ([*files[:at], changed, *files[at + 1 :]], [*files[:at], *files[at + 1 :]], [*files[:at], *come, *files[at:]]):
            assert len(set(packed(others, LIMIT)) - set(packs)) <= 3


def test_compressed_lines_count_for_what_is_in_them() -> None:
    plain = some_files([2_000] * 2_000)
    zipped = [replace(file, url=f"{file.url}.gz") for file in plain]
    assert max(pack.size for pack in packed(plain, LIMIT)) > LIMIT / 2
    assert max(pack.size for pack in packed(zipped, LIMIT)) <= LIMIT / 4
    assert packed(some_files([LIMIT // 16 - 1] * 9), LIMIT) != some_files([LIMIT // 16 - 1] * 9)
    large = [replace(file, url=f"{file.url}.gz") for file in some_files([LIMIT // 16] * 9)]
    assert packed(large, LIMIT) == large


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans())),
    st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_runs_are_as_long_as_they_may_be(things: list[tuple[int, int, bool]], limits: tuple[int, int]) -> None:
    runs = list(in_runs([thing[:2] for thing in things], limits, begins=lambda i: things[i][2]))
    assert [i for run in runs for i in run] == list(range(len(things)))

    def fits(run: range) -> bool:
        return all(sum(things[i][column] for i in run) <= limit for column, limit in enumerate(limits))

    for run, following in itertools.pairwise(runs):
        assert things[following.start][2] or not fits(range(run.start, run.stop + 1))
    for run in runs:
        assert len(run) == 1 or fits(run)
        assert not any(things[i][2] for i in run[1:])


def test_packs_that_are_known() -> None:
    files = some_files([10] * 5)
    names = [file.path for file in files]
    pack, *single = packed_as(files, [names[1:3]])
    assert (pack.members, single) == (tuple(files[1:3]), [files[0], *files[3:]])
    assert packed_as(files, ()) == files
    assert packed_as(files, [names]) == packed(files, LIMIT)
    for packs, said in (([["a/9"]], "a/9 is in a pack of inputs and not among them"), ([names[:2], names[1:]], "an input is in two packs")):
        with pytest.raises(JobError) as error:
            packed_as(files, packs)
        assert str(error.value) == said


def test_samples_of_packs_are_fair() -> None:
    """What begins a pack is a hash of a name, what is drawn another."""
    packs = packed(some_files([1_000 + i % 2_000 for i in range(100_000)]), LIMIT)
    assert 0.07 < len(sampled(packs, 0.1)) / len(packs) < 0.13
    assert 0.45 < len(sampled(packs, 0.5)) / len(packs) < 0.55


def test_a_sample_has_one_unit_at_least() -> None:
    units = some_files([1] * 50)
    (first,) = sampled(units, 1e-9)
    assert first == min(units, key=lambda unit: unit.name)
    assert all(first in sampled(units, share) for share in (1e-6, 0.01, 0.1, 1.0))
    assert sampled([], 0.5) == []


# -- jobs ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "ending"), [(PARQUET, ""), (LINES, ".gz"), (SHARDS, "")])
def test_many_small_files_are_as_one(entries: str, tmp_path: Path, format: str, ending: str) -> None:
    write_files(tmp_path / "in", format, range(300), ending=ending)
    suffix, write = WRITERS[format]
    write(tmp_path / f"whole.{suffix}", [row for number in range(300) for row in rows_of(number)])
    counters = match(entries, tmp_path / "out", format, "--input", f"{tmp_path}/in")
    whole = match(entries, tmp_path / "whole", format, "--input", f"{tmp_path}/whole.{suffix}")
    pairs = [(row["key"], row["text"]) for number in range(300) for row in rows_of(number)]
    full = [pair for pair in pairs if pair[1].strip()]
    no_match = sum("logo" in text for _, text in set(full))
    assert counters == {
        "read": 1_200,
        "emitted": len(set(full)) - no_match,
        "dropped": {"empty_text": 1_200 - len(full), "no_match": no_match, "repeated_in_unit": len(full) - len(set(full))},
        "dead_letters": 0,
        "dead_letter_reasons": {},
        "files": 300,
        "bad_files": 0,
    }
    assert whole == {**counters, "files": 1}
    ((pack,), (one,)) = (read_parts(open_stage(f"{tmp_path}/{name}", "match")) for name in ("out", "whole"))
    assert pack.equals(one)
    (unit,) = units_at(tmp_path / "out")
    assert [file.path for file in unit.members] == [f"{i:05}.{suffix}{ending}" for i in range(300)]
    (part,) = open_stage(f"{tmp_path}/out", "match").parts
    assert part["input"] == f"00000.{suffix}{ending} to 00299.{suffix}{ending}, 300 files"
    taken = [sha256_of(str(tmp_path / "in" / file.path)) for file in unit.members]
    assert part["input_sha256"] == ("" if format == PARQUET else " ".join(taken))


def test_filters_reach_into_packs(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", LINES, range(6))
    counters = match(entries, tmp_path / "out", LINES, "--input", f"{tmp_path}/in", "--max-characters", "47")
    # A text with a number of two digits has 47 characters, but 48 where it is of a logo.
    assert counters["dropped"] == {"no_match": 2, "text_over_limit": 2}
    assert (counters["read"], counters["emitted"], counters["files"]) == (24, 20, 6)


@pytest.mark.usefixtures("small_packs")
def test_neither_order_nor_workers_show(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", PARQUET, range(40))
    files = sorted(map(str, (tmp_path / "in").iterdir()))
    match(entries, tmp_path / "out", PARQUET, "--input", *files)
    assert 4 < len(times(tmp_path / "out")) < 20
    match(entries, tmp_path / "other", PARQUET, "--input", *files[::-1], "--workers", "2")
    assert contents(tmp_path / "other") == contents(tmp_path / "out")


@pytest.mark.usefixtures("small_packs")
def test_a_larger_sample_goes_on_from_a_smaller_one(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", LINES, range(80))
    given = ["--input", f"{tmp_path}/in"]
    match(entries, tmp_path / "whole", LINES, *given)
    some = match(entries, tmp_path / "out", LINES, *given, "--sample-inputs", "40%")
    parts = times(tmp_path / "out")
    assert (len(parts), some["files"]) == (7, 16)
    match(entries, tmp_path / "out", LINES, *given)
    assert times(tmp_path / "out").items() > parts.items()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(JobError, match="inputs that are not given now"):
        match(entries, tmp_path / "out", LINES, *given, "--sample-inputs", "0.4")


@pytest.mark.usefixtures("small_packs")
def test_inputs_that_come_change_or_go(entries: str, tmp_path: Path) -> None:
    def run(out: str) -> set[str]:
        """Do what is to be done; the parts that were written."""
        before = times(tmp_path / out)
        match(entries, tmp_path / out, LINES, "--input", f"{tmp_path}/in")
        return {name for name, time in times(tmp_path / out).items() if before.get(name) != time}

    write_files(tmp_path / "in", LINES, range(40))
    first = run("out")
    assert run("out") == set()
    # At the end: the last pack.
    write_files(tmp_path / "in", LINES, range(40, 42))
    (last,) = run("out")
    assert last in first
    # In the middle, to another size: the pack that it is in.
    as_lines(tmp_path / "in/00017.jsonl", rows_of(17)[:2])
    (changed,) = run("out")
    assert [file.path for unit in units_at(tmp_path / "out") if unit.name in changed for file in unit.inputs if "00017" in file.path]
    run("fresh")
    assert contents(tmp_path / "fresh") == contents(tmp_path / "out")
    # Moved elsewhere: nothing.
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "in").mkdir()
    before = times(tmp_path / "out")
    match(entries, tmp_path / "out", LINES, "--input", f"{tmp_path}/moved")
    assert times(tmp_path / "out") == before
    # Gone: refused, also where the pack goes on without it.
    (tmp_path / "moved/00017.jsonl").unlink()
    with pytest.raises(JobError) as error:
        match(entries, tmp_path / "out", LINES, "--input", f"{tmp_path}/moved")
    assert str(error.value) == (
        f"{tmp_path}/out was begun with 1 inputs that are not given now (the first: 00017.jsonl): give them again, or choose another "
        "--output"
    )
    assert times(tmp_path / "out") == before


def run_and_die(entries: str, place: str, fatal: int) -> None:
    """In a process of its own: match, and be killed as the ``fatal``-th file is about to appear."""
    inputs.PACK_BYTES = SMALL_PACKS
    appear, seen = os.replace, 0

    def die_in_time(source: str, target: str) -> None:
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        appear(source, target)

    os.replace = die_in_time  # type: ignore[assignment]
    match(entries, f"{place}/out", LINES, "--input", f"{place}/in")


@pytest.mark.usefixtures("small_packs")
def test_killed_and_started_again(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", LINES, range(60))
    match(entries, tmp_path / "undisturbed", LINES, "--input", f"{tmp_path}/in")
    process = multiprocessing.get_context("forkserver").Process(target=run_and_die, args=(entries, str(tmp_path), 7))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    # stage.json and units.parquet were before them.
    done = times(tmp_path / "out")
    assert len(done) == 4
    match(entries, tmp_path / "out", LINES, "--input", f"{tmp_path}/in")
    assert times(tmp_path / "out").items() > done.items()
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_carried_columns_of_other_types_are_in_other_packs(entries: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    kinds = (pa.int64(), pa.int64(), pa.float64(), pa.string(), pa.dictionary(pa.int32(), pa.string()))
    for i, kind in enumerate((*kinds, kinds[-1])):
        rows = rows_of(i)
        column = pa.array([f"{i}{j}" for j in range(4)]).cast(kind) if i > 2 else pa.array(range(4)).cast(kind)
        pq.write_table(pa.Table.from_pylist(rows).append_column("score", column), tmp_path / f"in/{i}.parquet")
    match(entries, tmp_path / "out", PARQUET, "--input", f"{tmp_path}/in", "--carry", "score")
    packs = sorted(tuple(file.path for file in unit.inputs) for unit in units_at(tmp_path / "out"))
    assert packs == [("0.parquet", "1.parquet"), ("2.parquet",), ("3.parquet",), ("4.parquet", "5.parquet")]
    rows = [row for table in read_parts(open_stage(f"{tmp_path}/out", "match")) for row in table.to_pylist()]
    assert {row["score"] for row in rows if row["image_id"] in ("k16", "k20", "k21")} == {"40", "50", "51"}


def test_parquet_files_that_unpack_to_more_than_a_unit(entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "OWN_ROWS", 10)
    (tmp_path / "in").mkdir()
    write_files(tmp_path / "in", PARQUET, range(7))
    pq.write_table(pa.Table.from_pylist(rows_of(5, rows=25)), tmp_path / "in/00002a.parquet", row_group_size=5)
    pq.ParquetWriter(tmp_path / "in/00004.parquet", pa.Table.from_pylist(rows_of(4)).schema).close()
    counters = match(entries, tmp_path / "out", PARQUET, "--input", f"{tmp_path}/in")
    # One file has no row group, and so nothing to read.
    assert (counters["read"], counters["files"]) == (6 * 4 + 25, 7)
    units = sorted((unit.inputs[0].path, unit.inputs[0].offset, len(unit.inputs)) for unit in units_at(tmp_path / "out"))
    assert units == [
        ("00000.parquet", 0, 2),
        ("00002.parquet", 0, 1),
        ("00002a.parquet", 0, 1),
        ("00002a.parquet", 2, 1),
        ("00002a.parquet", 4, 1),
        ("00003.parquet", 0, 2),
        ("00006.parquet", 0, 1),
    ]


# -- damage ----------------------------------------------------------------------------------------------------------------------------


def damage_page(path: Path) -> None:
    """Overwrite the data of a Parquet file before its footer."""
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(b"PAR1" + b"\xff" * (len(data) - 12 - footer) + data[-8 - footer :])


def cut_gzip(path: Path) -> None:
    """Compress, without the checksum that stands last."""
    path.write_bytes(gzip.compress(path.read_bytes())[:-4])


def cut_tar(path: Path) -> None:
    """End in the second of four samples."""
    path.write_bytes(path.read_bytes()[:2_600])


DAMAGES: dict[str, tuple[str, Callable[[Path], None], int, str]] = {
    PARQUET: ("00002.parquet", damage_page, 0, "damaged_parquet"),
    LINES: ("00002.jsonl", cut_gzip, sum(len(json.dumps(row)) + 1 for row in rows_of(2)), "truncated"),
    SHARDS: ("00002.tar", cut_tar, 2_048, "damaged_tar"),
}


@pytest.mark.parametrize("format", [PARQUET, LINES, SHARDS])
def test_a_damaged_file_costs_itself_alone(entries: str, tmp_path: Path, format: str) -> None:
    name, damage, place, reason = DAMAGES[format]
    write_files(tmp_path / "in", format, range(5))
    damage(tmp_path / "in" / name)
    counters = match(entries, tmp_path / "out", format, "--input", f"{tmp_path}/in")
    (unit,) = units_at(tmp_path / "out")
    assert len(unit.members) == 5
    assert (counters["files"], counters["bad_files"]) == (5, 1)
    assert counters["dead_letter_reasons"] == {reason: 1}
    assert letters_at(tmp_path / "out") == [(name, place, reason)]
    (table,) = read_parts(open_stage(f"{tmp_path}/out", "match"))
    whole = {row["key"] for number in (0, 1, 3, 4) for row in rows_of(number) if "logo" not in row["text"]}
    assert whole <= {*table["image_id"].to_pylist()} <= whole | {row["key"] for row in rows_of(2)}
    # A good one in its place.
    write_files(tmp_path / "in", format, [2])
    assert match(entries, tmp_path / "out", format, "--input", f"{tmp_path}/in")["bad_files"] == 0
    match(entries, tmp_path / "fresh", format, "--input", f"{tmp_path}/in")
    assert contents(tmp_path / "fresh") == contents(tmp_path / "out")


def test_too_many_damaged_files_are_named(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "in", PARQUET, range(6))
    for number in (1, 4):
        damage_page(tmp_path / f"in/0000{number}.parquet")
    with pytest.raises(JobError) as error:
        match(entries, tmp_path / "out", PARQUET, "--input", f"{tmp_path}/in")
    said = (
        "2 of 6 files are damaged (00001.parquet: damaged_parquet 1; 00004.parquet: damaged_parquet 1), more than --max-bad-files 0.100% "
        f"allows; see {tmp_path}/out/dead_letters. What was done is kept: run the same command with a higher --max-bad-files to accept it"
    )
    assert str(error.value) == said
    capsys.readouterr()
    run_job("status", [f"{tmp_path}/out"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "last part" not in line] == [
        f"{tmp_path}/out: match, all units done, not finished",
        "  units: 1 of 1 done (100%), 0 left",
        "  read 18, emitted 14",
        "  dropped: no_match 2",
        "  dead letters: damaged_parquet 2",
        f"  will not be finished as it stands: {said}",
    ]
    assert match(entries, tmp_path / "out", PARQUET, "--input", f"{tmp_path}/in", "--max-bad-files", "40%")["bad_files"] == 2
    assert check_stage(f"{tmp_path}/out").faults == []


def test_dead_letters_say_where_in_which_file(entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        texts = [row["text"].encode() for row in rows_of(number)]
        texts[number] = b"\xff" if number else texts[0]
        urls = [row["url"] for row in rows_of(number)]
        pq.write_table(pa.table({"url": urls, "text": pa.array(texts, pa.binary())}), tmp_path / f"in/{number}.parquet")
        lines = [json.dumps(row) for row in rows_of(number)]
        lines[number] = "{"
        (tmp_path / f"in/{number}.jsonl").write_text("\n".join(lines) + "\n")
    accepted = ["--max-bad-records", "50%"]
    match(entries, tmp_path / "out", PARQUET, "--input", f"{tmp_path}/in/*.parquet", *accepted)
    assert letters_at(tmp_path / "out") == [(f"{number}.parquet", number, "not_utf8") for number in (1, 2, 3)]
    match(entries, tmp_path / "lines", LINES, "--input", f"{tmp_path}/in/*.jsonl", *accepted)
    places = [sum(len(json.dumps(row)) + 1 for row in rows_of(number)[:number]) for number in range(4)]
    assert letters_at(tmp_path / "lines") == [(f"{number}.jsonl", places[number], "invalid_json") for number in range(4)]
    # Letters that are no more kept are those of the last files.
    monkeypatch.setattr(metadata.tally, "LETTERS_KEPT", 3)
    match(entries, tmp_path / "few", LINES, "--input", f"{tmp_path}/in/*.jsonl", *accepted)
    assert letters_at(tmp_path / "few") == letters_at(tmp_path / "lines")[:3]


# -- what other commands say -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_and_a_plan_count_files(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "in", LINES, range(30))
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    argv = ["--input", f"{tmp_path}/in", "--format", LINES, "--entries", entries, "--output", f"{tmp_path}/out"]
    capsys.readouterr()
    run_job("match", [*argv, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"  inputs      30 files, {size / 1000:.1f} kB, the first file://{tmp_path}/in/00000.jsonl"
    assert lines[4] == "  units       1: 0 done, 1 to do"
    run_job("match", argv)
    assert sizes_of(open_stage(f"{tmp_path}/out", "match")) == {p.name: p.stat().st_size for p in (tmp_path / "in").iterdir()}


@pytest.mark.usefixtures("small_packs")
def test_a_stage_without_packs_is_written_as_ever(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", LINES, range(1))
    (tmp_path / "list").write_text("00000.jsonl\n")
    match(entries, tmp_path / "out", LINES, "--input", f"{tmp_path}/in")
    match(entries, tmp_path / "listed", LINES, "--input-list", f"{tmp_path}/list", "--base-url", f"{tmp_path}/in")
    assert "members" not in pq.read_schema(tmp_path / "out/units.parquet").names
    assert but_units(tmp_path / "listed") == but_units(tmp_path / "out")
    assert [part["name"] for part in open_stage(f"{tmp_path}/out", "match").parts] == [f"part-{unit_name('00000.jsonl')}.parquet"]


def test_what_was_begun_without_packs_goes_on_without(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", LINES, range(30))
    given = ["--input", f"{tmp_path}/in"]
    with unpacked():
        some = match(entries, tmp_path / "out", LINES, *given, "--sample-inputs", "30%")
    parts = times(tmp_path / "out")
    assert some["files"] == len(parts) > 1
    assert match(entries, tmp_path / "out", LINES, *given, "--sample-inputs", "30%") == some
    assert times(tmp_path / "out") == parts
    match(entries, tmp_path / "out", LINES, *given, "--sample-inputs", "60%")
    assert times(tmp_path / "out").items() > parts.items()
    match(entries, tmp_path / "out", LINES, *given)
    with unpacked():
        match(entries, tmp_path / "fresh", LINES, *given)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert len(times(tmp_path / "out")) == 30


@pytest.mark.usefixtures("small_packs")
def test_files_that_were_by_themselves_may_go_into_packs_later(entries: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (0, 10, 24):
        as_lines(tmp_path / f"in/{number:05}.jsonl", rows_of(number, rows=12))
    given = ["--input", f"{tmp_path}/in"]
    match(entries, tmp_path / "out", LINES, *given)
    assert len(times(tmp_path / "out")) == 3
    write_files(tmp_path / "in", LINES, [*range(1, 10), *range(11, 24), *range(25, 40)])
    match(entries, tmp_path / "out", LINES, *given)
    by_themselves = {unit.path for unit in units_at(tmp_path / "out") if not unit.members}
    assert not by_themselves & {"00000.jsonl", "00010.jsonl", "00024.jsonl"}
    match(entries, tmp_path / "fresh", LINES, *given)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def make_set(entries: str, work: Path, *argv: str) -> None:
    shutil.copytree(entries, work / "entries")
    match(entries, work / "matched", LINES, *argv)
    curate(work, ["matched"])


def rebuild(card: Path, work: Path, place: str) -> None:
    lists = [f"entries={card.parent}/entries-of-card"]
    run_job("run", ["--from-card", str(card), "--inputs", f"matched={place}", *lists, "--work", str(work)])


@pytest.mark.usefixtures("small_packs")
def test_a_card_names_every_file_and_a_rebuild_packs_them_as_they_were(
    entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "in", LINES, range(80))
    shutil.copytree(entries, tmp_path / "entries-of-card")
    make_set(entries, tmp_path / "W", "--input", f"{tmp_path}/in", "--sample-inputs", "40%")
    run_job("card", ["--work", f"{tmp_path}/W", "--output", f"{tmp_path}/card.json"])
    card = json.loads((tmp_path / "card.json").read_text())
    record = card["stages"][1]
    drawn = [[file.path for file in unit.inputs] for unit in units_at(tmp_path / "W/matched")]
    assert record["packs"] == sorted(names for names in drawn if len(names) > 1)
    assert 1 < len(record["packs"]) < len(drawn)
    files = sorted(name for names in drawn for name in names)
    assert record["inputs"] == [
        {
            "kind": "file",
            "name": name,
            "size": (tmp_path / "in" / name).stat().st_size,
            "sha256": hashlib.sha256((tmp_path / "in" / name).read_bytes()).hexdigest(),
            "ranges": [],
        }
        for name in files
    ]
    # From a disk, and from where files are listed by name alone.
    rebuild(tmp_path / "card.json", tmp_path / "again", f"{tmp_path}/in")
    assert "byte for byte" in capsys.readouterr().out.splitlines()[-1]
    for name in files:
        storage.write_bytes(f"memory://packs/in/{name}", (tmp_path / "in" / name).read_bytes())
    rebuild(tmp_path / "card.json", tmp_path / "remote", "memory://packs/in")
    for place in ("again", "remote"):
        assert but_units(tmp_path / place / "matched") == but_units(tmp_path / "W/matched")
    as_lines(tmp_path / "in" / files[7], rows_of(99))
    with pytest.raises(JobError) as error:
        rebuild(tmp_path / "card.json", tmp_path / "no", f"{tmp_path}/in")
    assert str(error.value).startswith(f"1 input is not what the set was made from\n  matched: {tmp_path}/in/{files[7]} ")


def test_a_card_of_before_there_were_packs_is_rebuilt_without(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "in", LINES, range(9))
    shutil.copytree(entries, tmp_path / "entries-of-card")
    with unpacked():
        make_set(entries, tmp_path / "W", "--input", f"{tmp_path}/in")
    run_job("card", ["--work", f"{tmp_path}/W", "--output", f"{tmp_path}/card.json"])
    body = json.loads((tmp_path / "card.json").read_text())
    for record in body["stages"]:
        assert record.pop("packs") == []
    (tmp_path / "old.json").write_text(json.dumps(sealed({**body, "format_version": 1})))
    rebuild(tmp_path / "old.json", tmp_path / "again", f"{tmp_path}/in")
    assert "byte for byte" in capsys.readouterr().out.splitlines()[-1]
    assert len(times(tmp_path / "again/matched")) == 9


def test_parquet_in_packs_has_its_checksums_in_the_card(entries: str, tmp_path: Path) -> None:
    write_files(tmp_path / "in", PARQUET, range(5))
    match(entries, tmp_path / "out", PARQUET, "--input", f"{tmp_path}/in")
    stage = open_stage(f"{tmp_path}/out", "match")
    assert [(x.name, x.sha256) for x in inputs_of(stage)] == [(p.name, sha256_of(str(p))) for p in sorted((tmp_path / "in").iterdir())]
    assert packs_of(stage) == (tuple(f"{i:05}.parquet" for i in range(5)),)
    os.utime(tmp_path / "in/00003.parquet", (1, 1))
    assert [x.name for x in inputs_of(stage) if not x.is_known] == ["00003.parquet"]
