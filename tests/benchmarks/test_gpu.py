"""The GPU benchmark from end to end, on a CPU with a tiny model: what it runs and writes, not how fast."""

from __future__ import annotations

import atexit
import json
import logging
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import gpu


def test_without_a_gpu_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--output", str(tmp_path / "bench-gpu.json")])
    assert capsys.readouterr().out == "no GPU on this machine: nothing was measured, and nothing is claimed\n"
    assert list(tmp_path.iterdir()) == []


def run_module(argv: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """What ``python -m`` does with these arguments, in a process that has torch imported."""
    atexit._clear()  # what this process is to do at its end, such as to remove temporary folders, is not for its fork
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    os.environ |= environment
    multiprocessing.set_start_method("fork", force=True)
    sys.argv = list(argv)
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def run_fork(command: Sequence[str], *, stdout: Any, stderr: int, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, without the wait for torch. Where there is a GPU, torch does not work in a fork of a process that has trained."""
    assert (*command[:2], stderr) == (sys.executable, "-m", subprocess.STDOUT)
    context = multiprocessing.get_context("forkserver" if torch.cuda.is_available() else "fork")
    process = context.Process(target=run_module, args=(command[2:], stdout.name, env))  # type: ignore[attr-defined]
    process.start()
    process.join(240)
    return subprocess.CompletedProcess(command, process.exitcode)


@pytest.mark.slow
def test_both_trainers_run_on_the_same_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("webdataset")
    monkeypatch.setattr(subprocess, "run", run_fork)
    gpu.main(["--tiny", "--output", str(tmp_path / "bench-gpu.json")])
    written = json.loads((tmp_path / "bench-gpu.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in ("gpu", "workers", "steps")} == {"gpu": "CPU", "workers": 1, "steps": 7}
    [row] = written["rows"]
    assert (row["model"], row["batch"], row["mfu"], row["open_clip_mfu"]) == ("tiny", 8, None, None)
    assert row["ratio"] == pytest.approx(row["samples_per_second"] / row["open_clip_samples_per_second"])
    assert 0 <= row["data_wait"] <= 1
    assert "tiny" in capsys.readouterr().out


def test_a_configuration_is_written_as_toml() -> None:
    assert gpu.in_toml({"a": 1, "b": {"c": "x", "d": {"e": [0.5]}}, "f": True}) == 'a = 1\nb = {c = "x", d = {e = [0.5]}}\nf = true\n'
