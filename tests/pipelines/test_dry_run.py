"""--dry-run: what is said of every job that runs on Beam, and that nothing is written."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.dry_run import lines_of, size_text
from pipelines.errors import JobError
from pipelines.jobs import JOBS, run_job
from pipelines.options import JobConfig
from pipelines.stage import DRY_RUN, Limits, WouldRunError, open_stage
from tests.pipelines.conftest import contents
from tests.pipelines.words import LINES, do, do_all, make_inputs, make_stage


def chain_of(root: str) -> dict[str, list[str]]:
    """The command lines of a small chain."""
    w = f"{root}/W"
    pool = ["--matched", f"{w}/matched"]
    both = [*pool, "--siblings", f"{w}/siblings"]
    own = ["--input", f"{root}/own.parquet", "--format", "parquet"]
    return {
        "titles": ["--input", f"{root}/views", "--output", f"{w}/titles"],
        "entries": ["--metadata-json", f"en={root}/en.json", "--output", f"{w}/entries"],
        "match": [*own, "--entries", f"{w}/entries", "--output", f"{w}/matched"],
        "dedup": [*pool, "--output", f"{w}/siblings"],
        "count": [*both, "--entries", f"{w}/entries", "--output", f"{w}/counts"],
        "thresholds": ["--counts", f"{w}/counts", *both, "--target-pairs", "3", "--output", f"{w}/thresholds.json"],
        "balance": [*both, "--thresholds", f"{w}/thresholds.json", "--output", f"{w}/curated"],
        "images": ["--curated", f"{w}/curated", "--output", f"{w}/images", "--allow-files"],
    }


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "en.json").write_text('["red star", "house", "tree"]')
    (tmp_path / "views").write_bytes(b"en House 5 0\nen.m Tree 7 0\n")
    sentences = ["A red star over the house", "The house in the evening and a tree", "There is a tree in front of the house"]
    pairs = pa.table({"url": [f"http://a.example/{i % 4}" for i in range(9)], "text": [sentences[i % 3] for i in range(9)]})
    pq.write_table(pairs, tmp_path / "own.parquet")
    return str(tmp_path)


def test_every_beam_job_has_it() -> None:
    configs = {job: getattr(importlib.import_module(f"pipelines.{job}"), name) for job, (name, _) in JOBS.items() if name}
    on_beam = {job for job, config in configs.items() if issubclass(config, JobConfig)}
    assert {"ngrams", "titles", "wordnet", "entries", "match", "dedup", "count", "thresholds", "balance", "images"} <= on_beam
    assert all("dry_run" in {field.name for field in dataclasses.fields(configs[job])} for job in on_beam)


def test_a_chain_step_by_step(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each job first dry, then in earnest, then dry again."""
    said = {}
    for job, argv in chain_of(root).items():
        before = contents(root)
        run_job(job, [*argv, "--dry-run"])
        said[job] = capsys.readouterr().out.replace(root, "R").splitlines()
        assert contents(root) == before
        if job == "images":
            break
        run_job(job, argv)
        capsys.readouterr()
        before = contents(root)
        run_job(job, [*argv, "--dry-run"])
        assert contents(root) == before
        again = capsys.readouterr().out.replace(root, "R").splitlines()
        if job != "thresholds":
            assert again[-1] == f"{job}: a dry run; already finished, there is nothing to do → R/W/{argv[-1].rpartition('/')[2]}"
        else:
            assert again[-1] == "thresholds: a dry run; nothing was written"
    heads = {job: lines[:1] for job, lines in said.items()}
    assert heads == {job: [f"{job}: a dry run, nothing is written"] for job in chain_of(root)}
    own = storage.expand((f"{root}/own.parquet",))[0].size
    assert said["match"][1:3] == [
        "  output      R/W/matched (match, new)",
        f"  inputs      1 file, {size_text(own)}, the first file://R/own.parquet",
    ]
    assert said["match"][3].startswith("  --entries   R/W/entries: 1 part, 3 rows, ")
    assert said["match"][4] == "  units       1: 0 done, 1 to do"
    assert '  with        format "parquet"' in said["match"] or any("parquet" in line for line in said["match"][5:])
    assert said["titles"][1:4] == [
        "  output      R/W/titles/blocks (title_blocks, new)",
        "  inputs      1 file, 27 bytes, the first file://R/views",
        "  units       1: 0 done, 1 to do",
    ]
    assert [line.split(":")[0] for line in said["count"][1:5]] == [
        "  output      R/W/counts (count, new)",
        "  --matched   R/W/matched",
        "  --siblings  R/W/siblings",
        "  --entries   R/W/entries",
    ]
    assert said["thresholds"][1].startswith("  output      R/W/thresholds.json.passes/")
    assert any(line.startswith('  with        t {"en": [') for line in said["thresholds"])
    assert "  with        seed 0" in said["balance"]
    assert "  with        allow_files true" in said["images"]


def test_what_is_begun_goes_on(tmp_path: Path) -> None:
    """Half a stage: what is done and what is left, in files and bytes; nothing changes until it runs."""
    units = make_inputs(str(tmp_path), LINES)
    stage = make_stage(f"{tmp_path}/out", limits=Limits(bad_records=1.0))
    stage.begin(units)
    do(stage, stage.units()[0])
    before = contents(tmp_path)
    token = DRY_RUN.set(True)
    try:
        with pytest.raises(WouldRunError) as would:
            stage.begin(units)
    finally:
        DRY_RUN.reset(token)
    assert contents(tmp_path) == before
    lines = list(lines_of(JobConfig(output=stage.url), stage, would.value.units, would.value.changed))
    done = stage.units()[0]
    left = sum(unit.size for unit in units) - done.size
    first = next(unit for unit in stage.units() if unit.name != done.name)
    assert lines[0] == f"  output      {stage.url} (lines, begun, goes on)"
    assert lines[2] == f"  units       3: 1 done, 2 to do (2 files, {size_text(left)}, the first {first.url})"
    assert lines[3:] == ["  with        least 2", '  with        names ["a"]']
    # A changed input is to be done again.
    do_all(stage, units)
    more = [dataclasses.replace(unit, size=11, etag="another") if unit.path == "a.txt" else unit for unit in units]
    token = DRY_RUN.set(True)
    try:
        with pytest.raises(WouldRunError) as would:
            stage.begin(more)
    finally:
        DRY_RUN.reset(token)
    assert storage.exists(stage.at("_SUCCESS"))
    lines = list(lines_of(JobConfig(output=stage.url), stage, would.value.units, would.value.changed))
    assert lines[0] == f"  output      {stage.url} (lines, finished, but its inputs are others now)"
    assert lines[2].startswith("  units       3: 2 done, 1 to do (1 file, 11 bytes, the first ")


def test_what_a_job_refuses_a_dry_run_refuses(root: str) -> None:
    argv = chain_of(root)
    with pytest.raises(JobError, match="W/matched is no stage 'match'"):
        run_job("dedup", [*argv["dedup"], "--dry-run"])
    run_job("entries", argv["entries"])
    run_job("match", argv["match"])
    with pytest.raises(JobError, match="was made with other settings"):
        run_job("match", [*argv["match"], "--lid-min-score", "0.4", "--dry-run"])
    assert open_stage(f"{root}/W/matched", "match").rows
    with pytest.raises(JobError, match="no such file"):
        run_job("match", ["--input", f"{root}/absent", *argv["match"][2:-1], f"{root}/W/other", "--dry-run"])
    assert not storage.exists(f"{root}/W/other")


def test_thresholds_without_a_target_are_told_and_not_written(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = chain_of(root)
    for job in ("entries", "match", "dedup", "count"):
        run_job(job, argv[job])
    capsys.readouterr()
    run_job("thresholds", ["--counts", f"{root}/W/counts", "--output", f"{root}/W/t.json", "--dry-run"])
    printed = capsys.readouterr().out
    assert printed.startswith("language ")
    assert printed.splitlines()[-1] == "thresholds: a dry run; nothing was written"
    assert not storage.exists(f"{root}/W/t.json")


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1e3, "1.0 kB"),
        (99_940, "99.9 kB"),
        (123_456, "123 kB"),
        (2.5e9, "2.5 GB"),
        (1.2e15, "1,200.0 TB"),
    ],
)
def test_sizes(n_bytes: float, said: str) -> None:
    assert size_text(n_bytes) == said
