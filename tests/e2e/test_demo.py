"""From dumps to two trained models, as ``make demo`` does it, with a few training steps."""

from __future__ import annotations

import json
import math
import pathlib

import pytest

pytest.importorskip("torch")

from tests.world.demo import print_summary, run_demo


@pytest.mark.slow
def test_demo_runs_to_two_models_and_a_report(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_demo(tmp_path, pages=30, images=400, steps=60)
    print_summary(json.loads(json.dumps(summary)))
    kept = summary["pairs"]["kept"]
    assert 0 < kept["balanced"] < kept["unbalanced"] <= summary["pairs"]["unique"] <= summary["pairs"]["matched"]
    assert set(summary["entries"]) == {"en", "de", "fr", "ja", "ar", "other"}
    for accuracy in summary["zero_shot_accuracy"].values():
        for of_lang in accuracy.values():
            assert all(0 <= x <= 1 for x in of_lang.values())
    for place in ("W", "W/unbalanced"):
        log = [json.loads(line) for line in (tmp_path / place / "model" / "log.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in log if "loss" in line]
        # An untrained model cannot tell the 64 pairs of a batch apart: ln 64. The first line is the mean of 20 steps, in which it learns.
        assert losses[-1] < losses[0] < math.log(64) + 0.5
    assert pathlib.Path(summary["report"]).is_file()
    assert "zero-shot accuracy" in capsys.readouterr().out
