"""What ``submit`` writes and asks of Slurm, and what its script does, with commands of Slurm that only say what they were asked.

What a real cluster makes of it: tests/engines/test_slurm.py.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml

from pipelines import __main__ as command_line
from pipelines import submit
from pipelines.errors import JobError
from pipelines.jobs import run_job

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
#: Name → what it does; each first adds a line with its arguments to the file ``asked``.
SLURM = {
    "sbatch": '[ -z "$REFUSED" ] || { echo "sbatch: error: $REFUSED" >&2; exit 1; }; echo "Submitted batch job 42"',
    "srun": '[ -z "$STATUS" ] || exit "$STATUS"; while [[ $1 = --* ]]; do shift; done; exec "$@"',
    "squeue": 'echo "$STATE"',
    "scontrol": '[ "$1" = requeue ] || printf "n1\\nn2\\n"',
}


@pytest.fixture
def asked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Slurm's commands are the ones above; the file with what they were asked. What a job finds in its environment is there as well."""
    (tmp_path / "bin").mkdir()
    for name, does in SLURM.items():
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/bash\necho "{name} $*" | head -n 1 >> "$ASKED"\n{does}\n')
        command.chmod(0o755)
    job = {"SLURM_JOB_ID": "70001", "SLURM_JOB_NODELIST": "n[1-2]", "SLURMD_NODENAME": "n2"}
    task = {"SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_NTASKS": "16"}
    here = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked"), "STATE": "RUNNING"}
    for key, value in {**job, **task, **here}.items():
        monkeypatch.setenv(key, value)
    for key in ("SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK", "SLURM_ARRAY_TASK_ID", "STATUS", "REFUSED"):
        monkeypatch.delenv(key, raising=False)
    return tmp_path / "asked"


@pytest.fixture
def trainer(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a trainer, one that prints how it was started."""
    program = tmp_path / "the trainer.py"
    program.write_text("import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n")
    monkeypatch.setattr(submit, "python_module", lambda _: [sys.executable, str(program)])


def script_of(*options: str, capsys: pytest.CaptureFixture[str]) -> str:
    run_job("submit", ["--config", "toy.toml", *options, "--dry-run"])
    return capsys.readouterr().out


def sbatch_options(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]


def bash(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


# -- the script ----------------------------------------------------------------------------------------------------------------------


def test_what_slurm_is_asked_for(asked: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--nodes=2",
        "--gpus=4",
        "--cpus-per-gpu=6",
        "--mem=200G",
        "--partition=gpu",
        "--account=a",
        "--qos=q",
        "--constraint=a100|h100",
    ]
    more = ["--signal-seconds=300", "--setup", "module load cuda", "source x", "--sbatch", "exclusive", "nice=100"]
    script = script_of("--output=/shared/my runs", "--time=72:00:00", *options, *more, capsys=capsys)
    assert sbatch_options(script) == [
        *("account=a", "constraint='a100|h100'", "cpus-per-task=6", "exclusive", "gpus-per-node=4", "job-name='my runs'", "mem=200G"),
        *("nice=100", "nodes=2", "ntasks-per-node=4", "open-mode=append", "output='/shared/my runs/slurm/%j.log'", "partition=gpu"),
        *("qos=q", "requeue", "signal=USR1@300", "time=72:00:00"),
    ]
    assert "\nmodule load cuda\nsource x\n" in script
    assert not asked.exists()


def test_what_is_not_given_is_left_to_slurm(asked: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_of("--output=/o/x", "--gpus=0", "--time=9", "--seeds", "3", "1", capsys=capsys)
    assert sbatch_options(script) == [
        *("array=3,1", "job-name=x", "nodes=1", "ntasks-per-node=1", "open-mode=append", "output=/o/x/slurm/%A_%a.log", "requeue"),
        *("signal=USR1@120", "time=9"),
    ]


@pytest.mark.usefixtures("trainer")
def test_a_trainer_knows_its_place_among_the_others(
    asked: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, data = tmp_path / "it's my $HOME", tmp_path / "the data"
    data.mkdir()
    (output / "slurm").mkdir(parents=True)
    options = ["--data", str(data), "gs://b/x", "--set", "model.name='a b'", "--time=1", "--cpus-per-gpu=6"]
    script = script_of("--output", str(output), *options, capsys=capsys)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    ended = bash(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    arguments, environment = json.loads(ended.stdout)
    told = ["--config", "toy.toml", "--data", str(data), "gs://b/x", "--output", str(output), "--set", "model.name='a b'"]
    assert arguments == told
    expected = {"RANK": "11", "LOCAL_RANK": "3", "WORLD_SIZE": "16", "MASTER_ADDR": "n1", "MASTER_PORT": "20001"}
    assert {key: environment[key] for key in expected} == expected
    assert asked.read_text().splitlines() == [
        "scontrol show hostnames n[1-2]",
        "srun --kill-on-bad-exit=0 --wait=600 --cpus-per-task=6 bash -c ",
    ]


@pytest.mark.usefixtures("trainer", "asked")
def test_a_seed_of_an_array(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my runs" / "slurm").mkdir(parents=True)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    script = script_of("--output", f"{tmp_path}/my runs", "--time=1", "--set", "train.steps=9", "--seeds", "7", "8", capsys=capsys)
    arguments, _ = json.loads(bash(script).stdout)
    assert arguments == ["--config", "toy.toml", "--output", f"{tmp_path}/my runs/seed-7", "--set", "train.steps=9", "train.seed=7"]


@pytest.mark.usefixtures("trainer", "asked")
def test_a_node_that_does_not_share_the_disk_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = bash(script_of("--output", f"{tmp_path}/x", "--time=1", capsys=capsys))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"n2 has no folder {tmp_path}/x/slurm: --output must lie on a disk that all nodes share\n"


BACK = "goes back into the queue, restart {} of at most 3\n"
ENOUGH = "after 3 restarts, as many as --max-restarts allows; submit it again to go on\n"


@pytest.mark.parametrize(
    ("status", "state", "restarts", "says"),
    [
        (0, "RUNNING", None, ""),
        # The time limit is near, or a preemption has been announced.
        (138, "RUNNING", None, "stopped by signal 10; " + BACK.format(1)),
        (143, "RUNNING", None, "stopped by signal 15; " + BACK.format(1)),
        # A node has not yet said that it has the signal.
        (138, "SIGNALING", None, "stopped by signal 10; " + BACK.format(1)),
        (138, "RUNNING", 2, "stopped by signal 10; " + BACK.format(3)),
        (138, "RUNNING", 3, "stopped by signal 10 " + ENOUGH),
        (143, "RUNNING", 4, "stopped by signal 15 " + ENOUGH.replace("3", "4")),
        # scancel, the loss of a node, the time limit itself.
        (143, "COMPLETING", None, "stopped by signal 15; the job is COMPLETING: Slurm decides what comes next\n"),
        # Nobody answers.
        (138, "", None, "stopped by signal 10; the job is unknown: Slurm decides what comes next\n"),
        # Errors: of the trainer, its input, a missing Python, a lack of memory.
        *((status, "RUNNING", None, "") for status in (1, 2, 127, 137)),
    ],
)
def test_what_goes_back_into_the_queue(
    asked: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    state: str,
    restarts: int | None,
    says: str,
) -> None:
    script = script_of("--output=/x", "--time=1", "--max-restarts=3", capsys=capsys)
    monkeypatch.setenv("STATUS", str(status))
    monkeypatch.setenv("STATE", state)
    if restarts is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    ended = bash(script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, says, "")
    assert ("scontrol requeue 70001" in asked.read_text().splitlines()) == ("goes back" in says)


# -- the command ---------------------------------------------------------------------------------------------------------------------


def test_submitting_says_how_to_look_after_the_job(
    asked: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--output", "runs/x", "--time", "1"]
    printed = script_of(*options, capsys=capsys)
    assert not (tmp_path / "runs").exists()
    run_job("submit", ["--config", "toy.toml", *options])
    runs = tmp_path / "runs" / "x"
    assert capsys.readouterr().out.splitlines() == [
        f"submit: job 42 → {runs}",
        f"  log     {runs}/slurm/42.log",
        f"  script  {runs}/slurm/42_submission.sh",
        "  look    squeue --jobs=42",
        "  cancel  scancel 42",
    ]
    # The script as it was printed, and submitit's link to it: nothing that a node would unpickle.
    script = runs / "slurm" / "42_submission.sh"
    assert script.read_text() == printed
    assert {path.resolve() for path in runs.rglob("*") if not path.is_dir()} == {script}
    assert [line.split()[0] for line in asked.read_text().splitlines()] == ["sbatch"]


def test_a_configuration_of_ones_own(
    asked: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").touch()
    (tmp_path / "part-0.parquet").touch()
    script = script_of("--config", "own.toml", "--data", "part-0.parquet", "--output=x", "--time=1", capsys=capsys)
    assert f" --config {tmp_path}/own.toml --data {tmp_path}/part-0.parquet --output " in script


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--config", "no.toml"], "--config no.toml: no such file; those that come with the package: "),
        (["--config", "toy.toml", "--data", "/no/data"], "--data /no/data: no such directory or file"),
    ],
)
def test_what_is_missing_is_told_before_the_job_waits(tmp_path: pathlib.Path, options: list[str], says: str) -> None:
    with pytest.raises(JobError) as error:
        run_job("submit", [*options, "--output", f"{tmp_path}/x", "--time=1"])
    assert str(error.value).startswith(says)
    assert not (tmp_path / "x").exists()


def test_what_slurm_refuses(
    asked: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSED", "invalid partition specified: x")
    assert command_line.main(["submit", "--config", "toy.toml", "--output", str(tmp_path), "--time=1"]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    refusal = "sbatch: error: invalid partition specified: x\nworldclip submit: sbatch has not taken the job, and has said why\n"
    assert printed.err == refusal


def test_without_slurm_or_submitit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["--config", "toy.toml", "--output", str(tmp_path / "x"), "--time=1", "--dry-run"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError) as error:
        run_job("submit", argv)
    assert str(error.value) == "no sbatch and no srun here: submit where Slurm's commands are, for instance on a login node"
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(JobError) as error:
        run_job("submit", argv)
    assert str(error.value) == "submitting needs submitit: pip install 'worldclip[slurm]'"


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--gpus=-1"], "--gpus must not be less than 0"),
        (["--max-restarts=-1"], "--max-restarts must not be less than 0"),
        (["--nodes=0"], "argument --nodes: '0' is no whole number of at least 1"),
        (["--seeds", "1", "1"], "--seeds must be different numbers from 0 on"),
        (["--seeds", "-1"], "--seeds must be different numbers from 0 on"),
    ],
)
def test_wrong_options(option: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job("submit", ["--config=toy.toml", "--output=x", "--time=1", *option])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {says}\n")


# -- deploy/ -------------------------------------------------------------------------------------------------------------------------


def test_the_script_in_deploy_is_the_one_that_submit_writes(asked: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = (DEPLOY / "slurm" / "train.sbatch").read_text(encoding="utf-8")
    resources = ["--nodes=2", "--gpus=8", "--cpus-per-gpu=6", "--time=72:00:00", "--partition=gpu"]
    options = ["--config=h14_worldwide.toml", "--data=gs://bucket/W/images", "--output=/shared/runs/h14", *resources]
    written = script_of(*options, capsys=capsys).replace(sys.executable, "/shared/venv/bin/python")
    assert sorted(sbatch_options(plain)) == sbatch_options(written)
    assert plain[plain.index("logs=") :] == written[written.index("logs=") :]


def test_the_kubernetes_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import get_args_parser

    import train.__main__ as command
    from train import loop
    from train.config import load_config

    service, job = yaml.safe_load_all((DEPLOY / "kubernetes" / "train.yaml").read_text(encoding="utf-8"))
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, *line = container["command"]
    assert program == "torchrun"
    launched = get_args_parser().parse_args([argument.replace("$(JOB_COMPLETION_INDEX)", "1") for argument in line])
    assert (launched.node_rank, launched.module, launched.training_script) == (1, True, "train")
    name = service["metadata"]["name"]
    assert launched.master_addr == f"{job['metadata']['name']}-0.{name}"
    assert (pod["subdomain"], service["spec"]["selector"]) == (name, {"job-name": job["metadata"]["name"]})
    assert int(launched.nnodes) == spec["completions"] == spec["parallelism"]
    assert int(launched.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]

    seen: list[Any] = []
    monkeypatch.setattr(loop, "train", lambda *arguments: seen.extend(arguments))
    monkeypatch.setattr(sys, "argv", ["train", *launched.training_script_args])
    command.main()
    config, output = seen
    assert config == load_config("h14_worldwide.toml", data=["gs://bucket/W/images"])
    assert config.data.streams % (int(launched.nnodes) * int(launched.nproc_per_node)) == 0
    assert any(output.is_relative_to(mount["mountPath"]) for mount in container["volumeMounts"])


@pytest.mark.usefixtures("asked")
def test_commands_in_the_walk_are_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "W" / "images").mkdir(parents=True)
    text = (DEPLOY / "slurm" / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").replace("…", "--config toy.toml --time 9")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("    worldclip submit ") and "►" not in line]
    assert len(lines) == 3
    for _, job, *argv in lines:
        run_job(job, [*argv, "--dry-run"])
        assert sbatch_options(capsys.readouterr().out)
