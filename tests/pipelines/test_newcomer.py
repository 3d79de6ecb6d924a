"""What a newcomer trips over: each told in a line, none of them a result that looks finished and is not."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import _registry

from pipelines import storage, train
from pipelines.__main__ import main
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.processes import module_environment, python_module
from pipelines.stage import open_stage
from tests.pipelines.conftest import english_entries
from tests.pipelines.image_sets import write_curated


def test_a_train_py_of_ones_own_is_not_run(tmp_path: pathlib.Path) -> None:
    for name in ("train", "metadata", "pipelines"):
        (tmp_path / f"{name}.py").write_text("print('not this one')\n")
    command = [*python_module("pipelines"), "--help"]
    said = subprocess.run(command, env=module_environment(), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.startswith("usage: worldclip")
    assert python_module("train")[:2] == [sys.executable, "-P"]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> str:
    return english_entries(tmp_path_factory.mktemp("entries"), ["dog", "cat"])


@pytest.fixture
def pairs(tmp_path: pathlib.Path) -> str:
    texts = ["a dog sits on the green grass in the garden", "the cat is sleeping on the old sofa"]
    pq.write_table(pa.table({"url": ["file:///nowhere/a.jpg", "file:///nowhere/b.jpg"], "text": texts}), tmp_path / "own.parquet")
    return f"{tmp_path}/own.parquet"


def test_own_pairs_without_their_format(tmp_path: pathlib.Path, entries: str, pairs: str) -> None:
    with pytest.raises(JobError, match=r"own\.parquet is Parquet: add --format parquet"):
        run_job("match", ["--input", pairs, "--entries", entries, "--output", f"{tmp_path}/matched"])
    assert not (tmp_path / "matched").exists()


def test_images_of_which_none_arrives_are_not_finished(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    curated = write_curated(tmp_path / "curated", [(name, f"file:///nowhere/{name}.jpg", ["a dog"]) for name in ("a", "b")])
    assert main(["images", "--curated", curated, "--output", f"{tmp_path}/images"]) == 1
    told = capsys.readouterr().err
    assert "none of the 2 images" in told
    assert "--allow-files" in told
    assert not (tmp_path / "images" / "_SUCCESS").exists()
    assert not list((tmp_path / "images").glob("part-*"))


def test_what_is_finished_is_not_done_again(entries: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_job("entries", ["--metadata-json", f"en={pathlib.Path(entries).parent}/list.json", "--output", entries])
    assert capsys.readouterr().out.endswith(f"\nentries: already finished → {entries}\n")


def test_a_key_that_is_nearly_right(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = tmp_path / "chain.toml"
    chain.write_text('work = "W"\n[balance]\nseeed = 1\n')
    assert main(["run", "--config", str(chain)]) == 1
    said = "neither the job nor Apache Beam knows the option --seeed; did you mean --seed?"
    assert capsys.readouterr().err == f"worldclip run: {chain}: [balance]: {said}\n"


def test_inputs_that_are_renamed_by_a_folder_beside_are_told_why(tmp_path: pathlib.Path, entries: str, pairs: str) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.parquet").write_bytes(pathlib.Path(pairs).read_bytes())
    command = ["--format", "parquet", "--entries", entries, "--output", f"{tmp_path}/matched"]
    run_job("match", ["--input", f"{tmp_path}/first", *command])
    with pytest.raises(JobError) as error:
        run_job("match", ["--input", f"{tmp_path}/first", f"{tmp_path}/second", *command])
    first = f"file://{tmp_path}/first/"
    assert str(error.value) == (
        f"{tmp_path}/matched names its inputs by their paths below the folder that all of them share. That was {first}, and with the "
        f"inputs given now it is another one, so that 1 of them have new names (the first: {first}own.parquet). Put what is new below "
        f"{first} too (a link will do), or choose another --output"
    )
    # The remedy that it names.
    (tmp_path / "first" / "more").symlink_to(tmp_path / "second")
    run_job("match", ["--input", f"{tmp_path}/first", f"{tmp_path}/first/more/*", *command])
    assert open_stage(f"{tmp_path}/matched", "match").counters["files"] == 2
    with pytest.raises(JobError, match="was begun with 1 inputs that are not given now"):
        run_job("match", ["--input", f"{tmp_path}/first", *command])


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command that fails says."""
    assert main(argv) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_help_of_the_trainer_lists_its_configurations_and_how_to_start_on_several_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "102")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError) as error:
        run_job("train", ["--help"])
    assert str(error.value) == "training needs torch and open_clip: pip install 'worldclip[train]'"
    printed = capsys.readouterr().out
    assert printed == train.about(100) + "\n"
    assert all(len(line) <= 100 for line in printed.splitlines())
    configs, _, several = printed.partition("\nworldclip train is one process")
    names = [line.strip() for line in configs.splitlines() if line.startswith("  ") and line[2] != " "]
    assert names == sorted(file.name for file in train.CONFIGS.glob("*.toml"))
    assert len(re.findall(r"Source:\s", configs)) == len(names) >= 4
    lines = several.splitlines()
    assert "    torchrun --standalone --nproc_per_node=gpu -m train --config FILE --data DIR --output DIR" in lines
    nodes = next(i for i, line in enumerate(lines) if "--nnodes" in line)
    command = "torchrun --nnodes=MACHINES --nproc_per_node=gpu --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 --rdzv_id=NAME -m train"
    assert " ".join((lines[nodes] + lines[nodes + 1]).replace("\\", "").split()) == f"{command} --config FILE --data DIR --output DIR"


def test_help_of_the_trainer_begins_with_its_options(capfd: pytest.CaptureFixture[str]) -> None:
    run_job("train", ["--help"])
    printed = capfd.readouterr().out
    assert printed.startswith("usage: python -m train [-h] --config FILE [--data DIR [DIR ...]] --output DIR")
    assert printed.endswith(f"\n{train.about(shutil.get_terminal_size().columns - 2)}\n")


def test_a_runner_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "dedup", "--matched", "M", "--output", "W", "--runner", "FlinkRuner")
    assert said.startswith("worldclip dedup: Apache Beam has no runner FlinkRuner; did you mean FlinkRunner? (it has DataflowRunner, ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://bucket/x", "what reads such addresses is not installed: pip install 'worldclip[s3]'"),
        ("abfs://bucket/x", "what reads such addresses is not installed: pip install adlfs"),
        ("foo://bucket/x", "Protocol not known: foo (local paths, gs://, s3:// and http:// are understood)"),
    ],
)
def test_addresses_that_need_more_than_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    # As if neither were there, whatever is.
    for package, protocol in (("s3fs", "s3"), ("adlfs", "abfs")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(_registry, protocol, raising=False)
    assert told(capsys, "titles", "--input", address, "--output", "W") == f"worldclip titles: {address}: {said}\n"
    assert told(capsys, "dedup", "--matched", address, "--output", "W") == f"worldclip dedup: {address}/_SUCCESS: {said}\n"


@pytest.mark.parametrize("path", ["views.gz", "*.gz"])
def test_an_input_that_cannot_be_reached(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/{path}"
        said = told(capsys, "titles", "--input", address, "--output", f"{tmp_path}/titles")
    assert said.startswith(f"worldclip titles: --input {address}: no answer, or a refusal (ClientConnectorError: Cannot connect to host ")
    assert said.endswith("): mend the address, the network or the credentials, and run the same command again\n")
    assert said.count("\n") == 1


def test_a_place_that_may_not_be_written_to(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A file where a directory should be refuses everybody, root too.
    (tmp_path / "file").write_text("")
    (tmp_path / "list.json").write_text('["dog", "cat"]')
    said = told(capsys, "entries", "--metadata-json", f"en={tmp_path}/list.json", "--output", f"{tmp_path}/file/W")
    path = f"{tmp_path}/file/W/stage.json"
    assert said == f"worldclip entries: {path}: cannot be written to (Not a directory); choose another --output or mend its permissions\n"


def test_a_full_disk(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.json").write_text('["dog", "cat"]')
    real = storage.pathlib.Path.touch

    def touch(path: pathlib.Path, **options: bool) -> None:
        real(path, **options)
        if path.name.startswith(".tmp-") and (tmp_path / "W" / "stage.json").exists():
            path.unlink()
            path.symlink_to("/dev/full")

    monkeypatch.setattr(storage.pathlib.Path, "touch", touch)
    command = ["entries", "--metadata-json", f"en={tmp_path}/list.json", "--output", f"{tmp_path}/W"]
    said = told(capsys, *command)
    assert said.startswith(f"worldclip entries: {tmp_path}/W/units.parquet: no room is left (")
    assert said.endswith("No space left on device); make some and run the same command again, what was done is kept\n")
    monkeypatch.undo()
    assert main(command) == 0
    assert list((tmp_path / "W").rglob(".tmp-*")) == []


def test_finish_of_a_stage_in_two_steps_names_the_job(tmp_path: pathlib.Path) -> None:
    lines = tmp_path / "views"
    lines.write_bytes(b"en A 1 0\n" + b"broken\n" * 5)
    with pytest.raises(JobError, match="max-bad-records"):
        run_job("titles", ["--input", str(lines), "--output", f"{tmp_path}/titles"])
    with pytest.raises(JobError, match="run worldclip titles again"):
        run_job("finish", [f"{tmp_path}/titles"])
