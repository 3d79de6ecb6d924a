"""Two commands on one output at a time, and a disk that is full: a right result or a clear refusal, never a wrong ``_SUCCESS``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from pipelines.jobs import run_job
from pipelines.processes import module_environment, python_module
from tests.engines.commands import job_running
from tests.world.chain import Chain, arguments, contents

#: So that both commands are at work for a while.
COPIES = 30


@pytest.mark.slow
def test_two_commands_at_a_time(chain: Chain, tmp_path: pathlib.Path) -> None:
    job, out, crawl = "match", tmp_path / "out", tmp_path / "crawl"
    crawl.mkdir()
    for file in chain.world.crawl.glob("*.gz"):
        stem, dash, rest = file.name.partition("-")
        for i in range(COPIES):
            os.link(file, crawl / f"{stem}-{i:03}{dash}{rest}")
    argv = [*arguments(job, dataclasses.replace(chain.world, crawl=crawl), chain.work)[:-1], str(out)]
    logs = [tmp_path / f"log{i}" for i in range(2)]
    with contextlib.ExitStack() as stack:
        commands = [stack.enter_context(job_running(job, argv, log)) for log in logs]
        codes = [command.process.wait(timeout=120) for command in commands]
    said = [log.read_text() for log in logs]
    assert 0 in codes, said
    for code, words in zip(codes, said, strict=True):
        # The second one may also come when the first is done.
        assert code == 0 or words.splitlines()[-1].startswith(f"worldclip {job}: another process is at work on {out}: wait for it"), words
    run_job(job, [*argv[:-1], str(tmp_path / "alone")])
    assert contents(out) == contents(tmp_path / "alone")
    assert not list(out.rglob(".tmp-*"))


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 36 KB, of which a stage of match needs more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=36k", "tmpfs", disk], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk(chain: Chain, small_disk: pathlib.Path, workers: str) -> None:
    out = small_disk / "out"
    argv = [*arguments("match", chain.world, chain.work)[:-1], str(out)]
    command = [*python_module("pipelines"), "match", *argv, "--workers", workers]
    full = subprocess.run(command, check=False, capture_output=True, text=True, env=module_environment())
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert str(out) in last
    assert "no room is left" in last
    assert not (out / "_SUCCESS").exists()
    assert not list(out.rglob(".tmp-*"))
    done = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert 0 < len(done) < 6
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    # What is left is done in this process: that workers in others make the same bytes is no matter of disks.
    run_job("match", argv)
    assert contents(out) == contents(chain.work / "matched")
    assert {path: path.stat().st_mtime_ns for path in done} == done
