from __future__ import annotations

import logging
import pathlib
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.tiny import read_log
from train.config import Config, InputError
from train.logbook import Logbook, flatten, peak_flops
from train.loop import train

Make = Callable[..., Config]


def test_tensorboard_shows_the_lines_of_the_log_each_once_after_a_resume(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 6}), tmp_path)
    (tmp_path / "checkpoints/step-0000000006.pt").unlink()
    train(config(train={"steps": 6}), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "lr", "gradient_norm", "logit_scale"):
        assert [event.step for event in events.Scalars(key)] == [1, 2, 3, 4, 5, 6]
        assert [event.value for event in events.Scalars(key)] == pytest.approx([line[key] for line in lines], rel=1e-6)
    assert {"samples_per_second", "data_wait", "epoch", "bad_images"} < set(events.Tags()["scalars"])
    assert "mfu" not in events.Tags()["scalars"]


def test_the_line_for_people_has_the_time_left(config: Make, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="train")
    book = Logbook(config(train={"steps": 1000}), tmp_path, step=100, peak=1e9)
    book._start -= 15.0
    book.waited, book.flops, book.paused = 2.5, 1.6e8, 5.0
    book.report(110, loss=1.5)
    [line] = caplog.messages
    found = re.fullmatch(r"step 110/1000  loss 1\.5  samples_per_second (\S+)  data_wait (\S+)  mfu (\S+)  left 0:(\d\d):(\d\d)", line)
    assert found
    # Ten steps took ten seconds and a little.
    assert [float(value) for value in found.groups()[:3]] == pytest.approx([16, 0.25, 0.016], rel=0.1)
    assert int(found[4]) * 60 + int(found[5]) == pytest.approx(890, rel=0.1)
    [logged] = read_log(tmp_path)
    assert logged.pop("mfu") == pytest.approx(0.016, rel=0.1)
    assert logged == {"step": 110, "samples": 1760, "loss": 1.5}


def test_a_log_that_is_damaged_is_named(config: Make, tmp_path: pathlib.Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nbroken\n')
    with pytest.raises(InputError, match=r"log\.jsonl has a line that is no report"):
        Logbook(config(), tmp_path, step=1, peak=None)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\nbroken\n'


def test_nested_figures_are_named_by_the_way_to_them() -> None:
    assert dict(flatten({"a": {"en": {"r1": 0.5, "note": "x"}, "de": {"r1": 1}}, "b": 2.0, "c": [1]})) == {
        "a/en/r1": 0.5,
        "a/de/r1": 1,
        "b": 2.0,
    }


def test_weights_and_biases_get_the_same_figures_in_one_run(config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []
    logged: list[tuple[int, float]] = []

    def init(**options: Any) -> Any:
        begun.append(options)
        return SimpleNamespace(log=lambda values, step: logged.append((step, values["loss"])))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for steps in (2, 4):
        train(config(train={"steps": steps}, log={"wandb": "clip"}), tmp_path)
    assert logged == [(line["step"], line["loss"]) for line in read_log(tmp_path)]
    assert begun[0] == begun[1]
    assert {**begun[0], "id": ""} == {"project": "clip", "id": "", "name": tmp_path.name, "dir": str(tmp_path), "resume": "allow"}
    assert re.fullmatch("[0-9a-f]{16}", begun[0]["id"])


def test_weights_and_biases_that_are_not_installed_are_told_of(
    config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"log\.wandb needs the package wandb: pip install wandb"):
        train(config(log={"wandb": "clip"}), tmp_path)


@pytest.mark.parametrize(
    ("gpu", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA GeForce GTX 1080", None)],
)
def test_the_peak_of_a_gpu_goes_by_its_name(monkeypatch: pytest.MonkeyPatch, gpu: str, peak: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu)
    assert peak_flops(torch.device("cuda", 0)) == peak
    assert peak_flops(torch.device("cpu")) is None
