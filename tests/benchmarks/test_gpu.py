"""The GPU benchmark from end to end, on a CPU with a tiny model: what it runs and writes, not how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import gpu


def test_without_a_gpu_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--output", str(tmp_path / "bench-gpu.json")])
    assert capsys.readouterr().out == "no GPU on this machine: nothing was measured, and nothing is claimed\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_both_trainers_run_on_the_same_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("webdataset")
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
