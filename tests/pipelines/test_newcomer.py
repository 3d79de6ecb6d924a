"""What a newcomer trips over: each told in a line, none of them a result that looks finished and is not."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.processes import module_environment, python_module


def test_a_train_py_of_ones_own_is_not_run(tmp_path: pathlib.Path) -> None:
    for name in ("train", "metadata", "pipelines"):
        (tmp_path / f"{name}.py").write_text("print('not this one')\n")
    command = [*python_module("pipelines"), "--help"]
    said = subprocess.run(command, env=module_environment(), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.startswith("usage: worldclip")
    assert python_module("train")[:2] == [sys.executable, "-P"]


@pytest.fixture
def entries(tmp_path: pathlib.Path) -> str:
    (tmp_path / "list.json").write_text('["dog", "cat"]')
    run_job("entries", ["--metadata-json", f"en={tmp_path}/list.json", "--output", f"{tmp_path}/entries"])
    return f"{tmp_path}/entries"


@pytest.fixture
def pairs(tmp_path: pathlib.Path) -> str:
    texts = ["a dog sits on the green grass in the garden", "the cat is sleeping on the old sofa"]
    pq.write_table(pa.table({"url": ["file:///nowhere/a.jpg", "file:///nowhere/b.jpg"], "text": texts}), tmp_path / "own.parquet")
    return f"{tmp_path}/own.parquet"


def test_own_pairs_without_their_format(tmp_path: pathlib.Path, entries: str, pairs: str) -> None:
    with pytest.raises(JobError, match=r"own\.parquet is Parquet: add --format parquet"):
        run_job("match", ["--input", pairs, "--entries", entries, "--output", f"{tmp_path}/matched"])
    assert not (tmp_path / "matched").exists()


def test_images_of_which_none_arrives_are_not_finished(
    tmp_path: pathlib.Path, entries: str, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    w = str(tmp_path)
    run_job("match", ["--input", pairs, "--format", "parquet", "--entries", entries, "--output", f"{w}/matched"])
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    both = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("count", [*both, "--entries", entries, "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "inf", "--output", f"{w}/thresholds.json"])
    run_job("balance", [*both, "--thresholds", f"{w}/thresholds.json", "--output", f"{w}/curated"])
    assert main(["images", "--curated", f"{w}/curated", "--output", f"{w}/images"]) == 1
    told = capsys.readouterr().err
    assert "none of the 2 images" in told
    assert "--allow-files" in told
    assert not (tmp_path / "images" / "_SUCCESS").exists()
    assert not list((tmp_path / "images").glob("part-*"))
    run_job("balance", [*both, "--thresholds", f"{w}/thresholds.json", "--output", f"{w}/curated"])
    assert capsys.readouterr().out == f"balance: already finished → {w}/curated\n"


def test_a_key_that_is_nearly_right(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = tmp_path / "chain.toml"
    chain.write_text('work = "W"\n[balance]\nseeed = 1\n')
    assert main(["run", "--config", str(chain)]) == 1
    assert capsys.readouterr().err == f"worldclip run: {chain}: [balance] does not know seeed; did you mean seed?\n"


def test_finish_of_a_stage_in_two_steps_names_the_job(tmp_path: pathlib.Path) -> None:
    lines = tmp_path / "views"
    lines.write_bytes(b"en A 1 0\n" + b"broken\n" * 5)
    with pytest.raises(JobError, match="max-bad-records"):
        run_job("titles", ["--input", str(lines), "--output", f"{tmp_path}/titles"])
    with pytest.raises(JobError, match="run worldclip titles again"):
        run_job("finish", [f"{tmp_path}/titles"])
