"""Several ranks, with DDP and with FSDP, against one."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch

from tests.train.ranks import Turn, copy_half, run_in_turn
from tests.train.tiny import encode, image_row, read_log, square, write_images
from train.config import Config
from train.loop import train

Make = Callable[..., Config]
#: Between numbers of ranks, and between one pass and several, sums are grouped otherwise.
TOLERANCES = {"loss": 1e-5, "gradient_norm": 3e-5, "logit_scale": 1e-5}
LOSSES = ("clip", "siglip")
FIGURES = tuple(TOLERANCES)


def figures(output: pathlib.Path) -> list[list[float]]:
    return [[line[key] for key in FIGURES] for line in read_log(output)]


def assert_same(output: pathlib.Path, reference: pathlib.Path) -> None:
    here, there = figures(output), figures(reference)
    assert len(here) == len(there) == 6
    for line, expected in zip(here, there, strict=True):
        assert line == [pytest.approx(value, rel=TOLERANCES[figure]) for figure, value in zip(FIGURES, expected, strict=True)]


def load(output: pathlib.Path, step: int = 6) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(output / f"checkpoints/step-{step:010d}.pt", weights_only=True)
    return state


@pytest.fixture(scope="module")
def made(config: Make) -> Make:
    """Six steps, a checkpoint after three; two layers in each tower."""
    custom = config().model.custom
    towers = {tower: {**custom[tower], "layers": 2} for tower in ("vision_cfg", "text_cfg")}

    def make(**changes: Any) -> Config:
        return config(model={"custom": {**custom, **towers}}, checkpoint={"every": 3}, train={"steps": 6, **changes})

    return make


@pytest.fixture(scope="module")
def online(config: Make, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """60 images with 1 to 4 texts in two languages, of which an epoch takes some."""
    rows = [image_row(f"i{n:02d}", encode(square((n, 99, 9), n)), [f"text {n} {i}" for i in range(n % 4 + 1)]) for n in range(60)]
    for n, row in enumerate(rows):
        for i, text in enumerate(row["texts"]):
            text |= {"lang": "de" if n % 5 == 0 else "en", "probability": (7 * n + 3 * i) % 10 / 10}
    folder = write_images(tmp_path_factory.mktemp("online images"), rows)
    data = {"paths": [str(folder)], "curation": "online", "language_temperature": 1.5}
    return config(data=data, train={"steps": 9, "batch_size": 8})


@pytest.fixture(scope="module")
def by_two(made: Make, online: Config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Everything that two ranks train here, each run in a folder."""
    root = tmp_path_factory.mktemp("by two")
    turns = [Turn(online, root / "online")]
    for loss in LOSSES:
        ddp, fsdp = root / f"ddp {loss}", root / f"fsdp {loss}"
        turns += [
            Turn(made(loss=loss, accumulation=2), ddp),
            Turn(made(loss=loss, accumulation=2, parallel="fsdp", activation_checkpointing=True), fsdp),
            Turn(made(loss=loss, parallel="fsdp"), root / f"ddp, then fsdp {loss}", half=ddp),
            Turn(made(loss=loss), root / f"fsdp, then ddp {loss}", half=fsdp),
        ]
    run_in_turn(turns, ranks=2)
    return root


@pytest.mark.parametrize("loss", LOSSES)
def test_ranks_learn_what_one_learns_however_they_share_and_each_goes_on_for_the_other(
    made: Make, by_two: pathlib.Path, tmp_path: pathlib.Path, loss: str
) -> None:
    one, ddp, fsdp = tmp_path / "one", by_two / f"ddp {loss}", by_two / f"fsdp {loss}"
    train(made(loss=loss), one)
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
    copy_half(fsdp, tmp_path / "fsdp, then one")
    train(made(loss=loss), tmp_path / "fsdp, then one")
    for place in (by_two / f"ddp, then fsdp {loss}", by_two / f"fsdp, then ddp {loss}", tmp_path / "fsdp, then one"):
        assert_same(place, one)


def test_two_ranks_count_and_learn_what_one_does_from_texts_drawn_online(
    online: Config, by_two: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    train(online, tmp_path)
    one, two = read_log(tmp_path), read_log(by_two / "online")
    assert [line["epoch"] for line in two] == [line["epoch"] for line in one]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=TOLERANCES["loss"])
    assert one[-1]["epoch"] > 1


def test_open_clip_loads_what_fsdp_saved(by_two: pathlib.Path) -> None:
    place = by_two / "ddp, then fsdp clip"
    open_clip.add_model_config(place / "tiny.json")
    saved = load(place)["state_dict"]
    for model in (
        open_clip.create_model("tiny", pretrained=str(place / "checkpoints/step-0000000006.pt")),
        open_clip.create_model(f"local-dir:{place}"),
    ):
        assert model.logit_scale.shape == ()
        assert {key: value.tolist() for key, value in model.state_dict().items()} == {key: value.tolist() for key, value in saved.items()}
