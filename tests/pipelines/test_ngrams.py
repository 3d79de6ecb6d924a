"""Dumps in units: whatever the units, the workers and the order, the n-grams are the same bytes."""

from __future__ import annotations

import bz2
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from metadata import ngrams as counting
from pipelines import ngrams as job
from pipelines import storage
from pipelines.jobs import run_job
from pipelines.part import read_part
from pipelines.processes import module_environment
from pipelines.stage import Unit, open_stage, unit_name
from tests.pipelines.conftest import contents
from tests.world.dumps import write_dump
from tests.world.vocabulary import BY_CODE

UNIT_BYTES, MERGE_BYTES = 2_000, 3_000


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dumps of three languages in many streams with their index files, and English ones more in one stream."""
    folder = tmp_path_factory.mktemp("dumps")
    for i, code in enumerate(("en", "de", "ja")):
        write_dump(folder, BY_CODE[code], 40, np.random.Generator(np.random.PCG64(i)))
    (english,) = folder.glob("enwiki-*.xml.bz2")
    (folder / "enwiki-20260901-pages-articles.xml.bz2").write_bytes(bz2.compress(bz2.decompress(english.read_bytes())))
    return folder


def argv(folder: Path | str, output: Path | str, *more: str) -> list[str]:
    return ["--input", f"{folder}/*.bz2", "--output", str(output), "--min-bigram-count", "2", *more]


def results(output: Path | str) -> dict[str, bytes]:
    """All files but those that say where inputs lay, or of the blocks, which follow the units."""
    return {name: data for name, data in contents(output).items() if name != "units.parquet" and not name.startswith("blocks/")}


def rows(output: Path | str, group: str) -> list[dict[str, Any]]:
    stage = open_stage(str(output), "ngrams")
    return [row for part in stage.parts if group in part["name"] for row in read_part(stage.part_url(part["name"])).to_pylist()]


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "UNIT_BYTES", UNIT_BYTES)
    monkeypatch.setattr(job, "MERGE_BYTES", MERGE_BYTES)


@pytest.fixture(scope="module")
def whole(dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage with a unit per dump."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "MERGE_BYTES", MERGE_BYTES)
        run_job("ngrams", argv(dumps, output))
    return output


@pytest.fixture(scope="module")
def in_units(dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage with many units per dump."""
    output = tmp_path_factory.mktemp("units") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", UNIT_BYTES)
        patch.setattr(job, "MERGE_BYTES", MERGE_BYTES)
        run_job("ngrams", argv(dumps, output))
    return output


# -- units ---------------------------------------------------------------------------------------------------------------------------


def test_a_dump_in_bzip2_is_cut_by_its_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Unit(name="x", path="a/dump.xml.bz2", url="u", etag="e", group="en")
    assert job.ranges_of(whole) == [whole]
    for size, count in ((1, 1), (job.UNIT_BYTES, 1), (job.UNIT_BYTES + 1, 2), (24 << 30, 768)):
        units = job.ranges_of(replace(whole, size=size))
        assert len(units) == count
        assert len({u.name for u in units}) == count
        if count > 1:
            assert [(u.offset, u.offset + u.length) for u in units] == [(size * i // count, size * (i + 1) // count) for i in range(count)]
            assert {replace(u, name="", offset=0, length=-1) for u in units} == {replace(whole, name="", size=size)}
            assert max(u.length for u in units) <= job.UNIT_BYTES
            assert units[0].file == units[-1].file


def test_units_of_dumps(dumps: Path, tmp_path: Path, small_units: None) -> None:
    folder = shutil.copytree(dumps, tmp_path / "in")
    xml = bz2.decompress(next(folder.glob("dewiki-*.xml.bz2")).read_bytes())
    (folder / "plain.xml").write_bytes(xml)
    (folder / "unknown.xml.bz2").write_bytes(bz2.compress(b"<mediawiki>" + os.urandom(50_000)))
    units = job.dump_units(storage.expand((str(folder),)))
    assert {(u.path, u.group) for u in units} == {
        (p.name, {"e": "en", "d": "de", "j": "ja", "p": "de", "u": ""}[p.name[0]]) for p in folder.iterdir() if "-index" not in p.name
    }
    for path in folder.iterdir():
        mine = [u for u in units if u.path == path.name]
        if path.name.endswith("index.txt.bz2"):
            assert mine == []
        elif path.name in ("plain.xml", "unknown.xml.bz2"):
            assert [(u.offset, u.length) for u in mine] == [(0, -1)]
        else:
            assert len(mine) == -(-path.stat().st_size // UNIT_BYTES) > 3


def test_the_head_of_a_dump_is_read_once(dumps: Path, tmp_path: Path, small_units: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, path in enumerate(sorted(dumps.glob("*.xml.bz2"))):
        shutil.copy(path, tmp_path / f"{i}.bz2")
    heads = []
    head_of = job.head_of
    monkeypatch.setattr(job, "head_of", lambda url: heads.append(url) or head_of(url))
    monkeypatch.setattr(job, "read_site", lambda file: heads.append("") or read_site(file))
    units = job.dump_units(storage.expand((f"{tmp_path}/*.bz2",)))
    assert len(units) > 12
    assert sorted(heads) == [""] * 4 + [f"file://{tmp_path}/{i}.bz2" for i in range(4)]
    assert {u.group for u in units} == {"en", "de", "ja"}
    monkeypatch.setattr(job, "MERGE_BYTES", 16 << 20)
    run_job("ngrams", argv(tmp_path, tmp_path / "out"))
    assert len(heads) == 16


def read_site(file: Any) -> str:
    from metadata.wikitext import read_site

    return read_site(file)


def test_runs_of_key_ranges_follow_the_size_of_the_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = Unit(name=unit_name("a"), path="a", group="en", etag="e")
    for sizes, runs in (([0], 1), ([16 << 20], 1), ([16 << 20, 1], 2), ([1 << 30], 64), ([24 << 30], 64)):
        units = [u for i, size in enumerate(sizes) for u in job.ranges_of(replace(dump, name=f"{i}", path=f"{i}", size=size))]
        merged = job.merge_units(units)
        assert [(u.name, u.path, u.group, u.index, u.length) for u in merged] == [
            (f"en-{group}-{i:02}", "en", group, i, runs) for group in (job.UNIGRAMS, job.BIGRAMS) for i in range(runs)
        ]
        covered = [r for u in merged[:runs] for r in range(u.index * 64 // u.length, (u.index + 1) * 64 // u.length)]
        assert covered == list(range(64))
    # Where the dumps are cut is nothing to them; another dump, or a changed one, is.
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 20)
    assert job.merge_units(job.ranges_of(replace(dump, size=5 << 20))) == job.merge_units([replace(dump, size=5 << 20)])
    assert job.merge_units([replace(dump, etag="f")])[0].etag != job.merge_units([dump])[0].etag


# -- the same bytes ------------------------------------------------------------------------------------------------------------------


def test_ngrams_are_those_of_the_texts(whole: Path, dumps: Path) -> None:
    """Counted again with dictionaries, from pages that another parser found."""
    from metadata.languages import language
    from metadata.wikitext import plain_text
    from tests.metadata.test_dump import articles_by_etree
    from tests.metadata.test_ngrams import oracle

    for wiki in ("de", "en", "ja"):
        expected: dict[tuple[int, str], int] = {}
        for path in dumps.glob(f"{wiki}wiki-*.xml.bz2"):
            texts = [plain_text(text) for _, text, _ in articles_by_etree(path)]
            written = language(wiki)
            for key, n in oracle(texts, spaced=written.spaced, segmenter=written.segmenter).items():
                expected[key] = expected.get(key, 0) + n
        joiner = " " if written.spaced else ""
        assert {row["gram"]: row["count"] for row in rows(whole, f"{wiki}-unigrams")} == {g: c for (n, g), c in expected.items() if n == 1}
        bigrams = rows(whole, f"{wiki}-bigrams")
        assert sorted((row["gram"], row["count"]) for row in bigrams) == sorted(
            (gram.replace("\x1f", joiner), c) for (n, gram), c in expected.items() if n == 2 and c >= 2
        )
        counts = {gram: c for (n, gram), c in expected.items() if n == 1}
        ratios = sorted(
            c / (counts[gram.split("\x1f")[0]] * counts[gram.split("\x1f")[1]]) for (n, gram), c in expected.items() if n == 2 and c >= 2
        )
        assert sorted(row["ratio"] for row in bigrams) == ratios
        assert {(row["lang"], row["n"]) for row in bigrams} == {(wiki, 2)}


@pytest.mark.parametrize("unit_bytes", [600, UNIT_BYTES, 8_000])
def test_units_of_any_size_give_the_same_ngrams(
    unit_bytes: int, in_units: Path, whole: Path, dumps: Path, tmp_path: Path, small_units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = in_units if unit_bytes == UNIT_BYTES else tmp_path / "out"
    if output != in_units:
        monkeypatch.setattr(job, "UNIT_BYTES", unit_bytes)
        run_job("ngrams", argv(dumps, output))
    found, expected = results(output), results(whole)
    assert {name: found[name] for name in found if name.endswith(".parquet")} == {
        name: expected[name] for name in expected if name.endswith(".parquet")
    }
    assert open_stage(str(output), "ngrams").counters == open_stage(str(whole), "ngrams").counters
    assert len(list((output / "blocks").glob("part-*"))) > 4


def test_units_name_the_bytes_that_they_are_of(dumps: Path, in_units: Path, small_units: None) -> None:
    parts = {p["name"]: p for p in open_stage(f"{in_units}/blocks", "ngram_blocks").parts}
    for unit in job.dump_units(storage.expand((f"{dumps}/*.bz2",))):
        data = (dumps / unit.path).read_bytes()
        if unit.length >= 0:
            data = data[unit.offset : unit.offset + unit.length]
        assert parts[f"part-{unit.name}.parquet"]["input_sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("merge_rows", "slice_rows"), [(10, 40), (1 << 21, 7)])
def test_how_counts_are_merged_leaves_no_trace(
    merge_rows: int, slice_rows: int, whole: Path, dumps: Path, tmp_path: Path, small_units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_MERGE_ROWS", merge_rows)
    monkeypatch.setattr(counting, "_SLICE_ROWS", slice_rows)
    monkeypatch.setattr(job, "UNIT_BYTES", 32 << 20)
    run_job("ngrams", argv(dumps, tmp_path / "out"))
    assert results(tmp_path / "out") == results(whole)


def test_row_groups_are_full_wherever_tables_end() -> None:
    table = pa.table({"gram": [f"w{i}" for i in range(1_000)], "count": list(range(1_000)), "ratio": [None] * 1_000}).cast(job.NGRAM_SCHEMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "ROW_GROUP_ROWS", 300)
        for step in (1, 299, 300, 301, 1_000):
            groups = list(job.in_row_groups(table.slice(i, step) for i in range(0, 1_000, step)))
            assert [len(group) for group in groups] == [300, 300, 300, 100]
            assert pa.concat_tables(groups).equals(table)
            assert all(column.num_chunks == 1 for group in groups for column in group.columns)
        assert list(job.in_row_groups([])) == []


SCRIPT = """
import sys
from metadata.ending import end_process
from pipelines import ngrams
from pipelines.jobs import run_job
ngrams.UNIT_BYTES, ngrams.MERGE_BYTES = int(sys.argv[1]), int(sys.argv[2])
run_job("ngrams", sys.argv[3:])
end_process(0)
"""


@pytest.mark.slow
def test_workers_seeds_of_hashes_and_the_order_of_inputs_leave_no_trace(dumps: Path, tmp_path: Path) -> None:
    files = sorted(str(p) for p in dumps.glob("*.bz2"))
    ways: dict[str, tuple[str, list[str], list[str]]] = {
        "plain": ("0", files, []),
        "other seed, backwards, two workers": ("1", files[::-1], ["--workers", "2"]),
    }
    found = {}
    for way, (seed, inputs, more) in ways.items():
        output = tmp_path / way
        arguments = ["--input", *inputs, *argv(dumps, output, *more)[2:]]
        command = [sys.executable, "-c", SCRIPT, str(UNIT_BYTES), str(MERGE_BYTES), *arguments]
        subprocess.run(command, check=True, env={**module_environment(), "PYTHONHASHSEED": seed}, stdout=subprocess.DEVNULL)
        found[way] = {name: data for name, data in contents(output).items() if not name.endswith("units.parquet")}
    plain, other = found.values()
    assert plain == other
    assert len([name for name in plain if name.startswith("blocks/part-")]) > 12


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_ranges_are_read_from_an_object_store(place: str, dumps: Path, whole: Path, small_units: None) -> None:
    for path in dumps.glob("*.bz2"):
        storage.write_bytes(storage.join(place, "in", path.name), path.read_bytes())
    run_job("ngrams", argv(storage.join(place, "in"), storage.join(place, "out")))
    found, expected = results(storage.join(place, "out")), results(whole)
    assert {name for name in found if found[name] != expected[name]} <= {"manifest.json"}


# -- bigrams need few unigrams -------------------------------------------------------------------------------------------------------


def test_only_words_of_frequent_bigrams_are_held(whole: Path, dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MERGE_BYTES", MERGE_BYTES)
    held = []
    with_ratio = job.with_ratio

    def spy(bigrams: pa.Table, unigrams: pa.Table, **rest: Any) -> pa.Table:
        held.append((unigrams.num_rows, len(counting.words_of(bigrams)), min(bigrams["count"].to_pylist(), default=99)))
        return with_ratio(bigrams, unigrams, **rest)

    monkeypatch.setattr(job, "with_ratio", spy)
    run_job("ngrams", [*argv(dumps, tmp_path / "out")[:-1], "20"])
    assert len(held) > 6
    assert all(rows == words and least >= 20 for rows, words, least in held)
    frequent = [row for row in rows(whole, "-bigrams-") if row["count"] >= 20]
    assert frequent
    assert sorted(map(str, rows(tmp_path / "out", "-bigrams-"))) == sorted(map(str, frequent))


def test_the_minimum_of_a_language_follows_its_tokens(whole: Path, tmp_path: Path) -> None:
    stage = open_stage(str(whole), "ngrams")
    urls = tuple(stage.part_url(p["name"]) for p in stage.parts if "en-unigrams" in p["name"])
    assert job.tokens_of(urls, "e") == sum(row["count"] for row in rows(whole, "en-unigrams")) > 1_000
