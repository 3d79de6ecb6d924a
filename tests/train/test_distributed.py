"""Several ranks, with DDP and with FSDP, against one."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch

from tests.train.tiny import read_log, run
from train.config import Config
from train.loop import train

Make = Callable[..., Config]
#: Between numbers of ranks, and between one pass and several, sums are grouped otherwise.
TOLERANCE = 1e-5
FIGURES = ("loss", "gradient_norm", "logit_scale")


def figures(output: pathlib.Path) -> list[list[float]]:
    return [[line[key] for key in FIGURES] for line in read_log(output)]


def assert_same(output: pathlib.Path, reference: pathlib.Path) -> None:
    here, there = figures(output), figures(reference)
    assert len(here) == len(there) == 6
    for line, expected in zip(here, there, strict=True):
        assert line == pytest.approx(expected, rel=TOLERANCE)


def load(output: pathlib.Path, step: int = 6) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(output / f"checkpoints/step-{step:010d}.pt", weights_only=True)
    return state


@pytest.fixture
def made(config: Make) -> Make:
    """Six steps, a checkpoint after three; two layers in each tower."""
    custom = config().model.custom
    towers = {tower: {**custom[tower], "layers": 2} for tower in ("vision_cfg", "text_cfg")}

    def make(**changes: Any) -> Config:
        return config(model={"custom": {**custom, **towers}}, checkpoint={"every": 3}, train={"steps": 6, **changes})

    return make


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_ranks_learn_what_one_learns_however_they_share_and_each_goes_on_for_the_other(
    made: Make, tmp_path: pathlib.Path, loss: str
) -> None:
    one, ddp, fsdp = tmp_path / "one", tmp_path / "ddp", tmp_path / "fsdp"
    train(made(loss=loss), one)
    run(made(loss=loss, accumulation=2), ddp, ranks=2)
    run(made(loss=loss, accumulation=2, parallel="fsdp", activation_checkpointing=True), fsdp, ranks=2)
    assert_same(ddp, one)
    assert_same(fsdp, one)
    wanted, states = load(one), {place: load(place) for place in (ddp, fsdp)}
    for state in states.values():
        assert {key: value.shape for key, value in state["state_dict"].items()} == {k: v.shape for k, v in wanted["state_dict"].items()}
        assert list(state["optimizer"]) == list(wanted["optimizer"])
        for key, value in wanted["state_dict"].items():
            torch.testing.assert_close(state["state_dict"][key], value, rtol=1e-3, atol=1e-4)
        for key, memory in wanted["optimizer"].items():
            torch.testing.assert_close(state["optimizer"][key]["exp_avg"], memory["exp_avg"], rtol=1e-3, atol=1e-6)
            assert state["optimizer"][key]["step"] == 6
    for place in (ddp, fsdp):
        (place / "checkpoints/step-0000000006.pt").unlink()
    shutil.copytree(fsdp, tmp_path / "fsdp, then one")
    run(made(loss=loss, parallel="fsdp"), ddp, ranks=2)
    run(made(loss=loss), fsdp, ranks=2)
    train(made(loss=loss), tmp_path / "fsdp, then one")
    for place in (ddp, fsdp, tmp_path / "fsdp, then one"):
        assert_same(place, one)


def test_open_clip_loads_what_fsdp_saved(made: Make, tmp_path: pathlib.Path) -> None:
    run(made(parallel="fsdp"), tmp_path, ranks=2)
    open_clip.add_model_config(tmp_path / "tiny.json")
    saved = load(tmp_path)["state_dict"]
    for model in (
        open_clip.create_model("tiny", pretrained=str(tmp_path / "checkpoints/step-0000000006.pt")),
        open_clip.create_model(f"local-dir:{tmp_path}"),
    ):
        assert model.logit_scale.shape == ()
        assert {key: value.tolist() for key, value in model.state_dict().items()} == {key: value.tolist() for key, value in saved.items()}
