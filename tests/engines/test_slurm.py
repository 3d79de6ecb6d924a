"""``worldclip submit`` on a real Slurm cluster of two nodes. Slow: ``make test-slurm``."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence

import psutil
import pytest

from pipelines.processes import module_environment, python_module
from tests.engines.processes import wait_until
from tests.engines.slurm import Slurm
from tests.train.tiny import COLOURS, encode, image_row, square, write_images

STEPS, EVERY = 60, 20
CONFIG = f"""
[model]
name = "tiny"
[model.custom]
embed_dim = 8
vision_cfg = {{image_size = 16, patch_size = 8, width = 16, head_width = 8, layers = 1}}
text_cfg = {{context_length = 12, vocab_size = 49408, width = 8, heads = 1, layers = 1}}
[data]
streams = 4
workers = 1
[train]
steps = {STEPS}
batch_size = 16
device = "cpu"
[log]
every = 1
[checkpoint]
every = {EVERY}
"""
#: Seconds until a job has come to its end, on a machine that does something else as well.
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if not os.environ.get("WORLDCLIP_TEST_SLURM"):
        pytest.skip("needs Slurm, munge and some minutes: make test-slurm")
    slurm = Slurm(root=tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.end()
    wait_until(lambda: slurm.processes() == [], "the end of all its processes")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a small run on both nodes."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "tiny.toml").write_text(CONFIG)
    names = list(COLOURS)
    rows = [image_row(f"image {i:03d}", encode(square(COLOURS[names[i % 4]], i)), [f"a {names[i % 4]} square"]) for i in range(83)]
    data = write_images(root / "images", rows)
    return ["--config", f"{root}/tiny.toml", "--data", str(data), "--nodes", "2", "--gpus", "0"]


@pytest.fixture(scope="module")
def undisturbed(slurm: Slurm, inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nothing interrupts."""
    output = tmp_path_factory.mktemp("undisturbed") / "model"
    assert ended(slurm, submit(slurm, output, inputs)) == ("COMPLETED", "0:0", 0)
    return weights(output)


def submit(slurm: Slurm, output: pathlib.Path, options: Sequence[str], *, time: str = "10") -> str:
    """The number of the job that the command has submitted."""
    command = [*python_module("pipelines"), "submit", *options, "--output", str(output), "--time", time]
    done = subprocess.run(command, env={**module_environment(), **slurm.environment}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    job = re.match(r"submit: job (\d+) → ", done.stdout)
    assert job
    return job[1]


def ended(slurm: Slurm, job: str) -> tuple[str, str, int]:
    """State, exit code and restarts of a job, when it is in a state that it stays in."""
    last = ("CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "PREEMPTED", "TIMEOUT")
    wait_until(lambda: slurm.job(job)["JobState"] in last, f"the end of job {job}", PATIENCE_S)
    told = slurm.job(job)
    return told["JobState"], told["ExitCode"], int(told["Restarts"])


def weights(output: pathlib.Path) -> bytes:
    return (output / "open_clip_model.safetensors").read_bytes()


def logged(output: pathlib.Path) -> list[int]:
    """The steps in the log."""
    log = output / "log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")] if log.exists() else []


def said(output: pathlib.Path, job: str) -> str:
    return (output / "slurm" / f"{job}.log").read_text()


def trainers(slurm: Slurm) -> list[psutil.Process]:
    found = []
    for process in slurm.processes():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:4] == python_module("train")[1:]:
                found.append(process)
    return found


def held(slurm: Slurm, output: pathlib.Path) -> list[psutil.Process]:
    """The processes of a run, stopped when its first steps are done, so that whatever happens to it does so before its end."""
    wait_until(lambda: len(logged(output)) >= 3, f"steps in {output}", PATIENCE_S)
    processes = trainers(slurm)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    assert len(processes) >= 4  # two ranks with a worker each
    assert len(logged(output)) < STEPS
    return processes


def is_told(process: psutil.Process, sent: signal.Signals) -> bool:
    """Whether a signal waits for a process that is stopped. One that is gone has had it: some versions of Slurm let them go on first."""
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    masks = re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (sent - 1) & 1 for mask in masks)


def reach_the_time_limit(slurm: Slurm, processes: Sequence[psutil.Process]) -> None:
    wait_until(lambda: all(is_told(process, signal.SIGUSR1) for process in processes), "SIGUSR1", PATIENCE_S)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def preempt(slurm: Slurm, processes: Sequence[psutil.Process]) -> None:
    slurm.command("sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wait", "--wrap", "true")


def lose_a_node(slurm: Slurm, processes: Sequence[psutil.Process]) -> None:
    # The other rank stays stopped: it would see the end of a process, as it would not see that of a machine.
    slurm.lose_node(slurm.nodes[0])
    wait_until(lambda: "PENDING" in slurm.command("squeue", "--noheader", "--format=%T"), "the job in the queue", PATIENCE_S)
    slurm.start_node(slurm.nodes[0])


@pytest.mark.parametrize(("interrupt", "sent"), [(reach_the_time_limit, signal.SIGUSR1), (preempt, signal.SIGTERM), (lose_a_node, None)])
def test_a_run_goes_on_where_it_was_and_ends_as_if_nothing_had_been(
    slurm: Slurm,
    inputs: list[str],
    undisturbed: bytes,
    tmp_path: pathlib.Path,
    interrupt: Callable[[Slurm, Sequence[psutil.Process]], None],
    sent: signal.Signals | None,
) -> None:
    output = tmp_path / "a model"
    # Slurm signals 30 s before the limit or up to a minute earlier.
    limit = "2" if sent == signal.SIGUSR1 else "10"
    job = submit(slurm, output, [*inputs, "--signal-seconds", "30"], time=limit)
    interrupt(slurm, held(slurm, output))
    state, code, restarts = ended(slurm, job)
    assert (state, code) == ("COMPLETED", "0:0")
    assert restarts >= 1  # a busy machine may reach the time limit again
    assert logged(output) == [*range(1, STEPS + 1)]
    assert weights(output) == undisturbed
    log = said(output, job)
    # What Slurm announces is answered by a checkpoint of the step that was reached, what it does not costs the steps since the last one.
    saved = [int(step) for step in re.findall(r"step-(\d+)\.pt", log.partition("going on from")[0])]
    assert any(step % EVERY for step in saved) == (sent is not None)
    if sent:
        assert f"stopped by signal {sent.value}; goes back into the queue, restart 1 of at most 100\n" in log


def test_a_job_that_is_cancelled_saves_and_stays_away(slurm: Slurm, inputs: list[str], tmp_path: pathlib.Path) -> None:
    output = tmp_path / "model"
    job = submit(slurm, output, inputs)
    held(slurm, output)
    slurm.command("scancel", job)
    assert ended(slurm, job)[::2] == ("CANCELLED", 0)
    wait_until(lambda: not trainers(slurm), "the end of the trainers")
    last = logged(output)[-1]
    assert last < STEPS
    assert (output / "checkpoints" / f"step-{last:010d}.pt").exists()


def test_a_run_that_fails_is_not_tried_again(slurm: Slurm, inputs: list[str], tmp_path: pathlib.Path) -> None:
    job = submit(slurm, tmp_path, [*inputs, "--set", "data.streams=1"])
    assert ended(slurm, job) == ("FAILED", "2:0", 0)
    assert "2 ranks must divide data.streams (1)" in said(tmp_path, job)


def test_an_array_of_seeds(slurm: Slurm, inputs: list[str], tmp_path: pathlib.Path) -> None:
    job = submit(slurm, tmp_path, [*inputs, "--nodes", "1", "--set", "train.steps=4", "--seeds", "7", "0"])
    for seed in (0, 7):
        assert ended(slurm, f"{job}_{seed}") == ("COMPLETED", "0:0", 0)
        assert logged(tmp_path / f"seed-{seed}") == [1, 2, 3, 4]
        assert "done; to use the model" in said(tmp_path, f"{job}_{seed}")
    assert weights(tmp_path / "seed-0") != weights(tmp_path / "seed-7")


def test_what_slurm_refuses(slurm: Slurm, inputs: list[str], tmp_path: pathlib.Path) -> None:
    command = [*python_module("pipelines"), "submit", *inputs, "--output", str(tmp_path), "--time", "10", "--partition", "none"]
    done = subprocess.run(command, env={**module_environment(), **slurm.environment}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "invalid partition specified: none" in done.stderr
    assert done.stderr.endswith("worldclip submit: sbatch has not taken the job, and has said why\n")
