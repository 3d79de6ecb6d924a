from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch

from tests.train.tiny import encode, image_row, read_log, run, square, start, write_images
from train import __main__ as command
from train.config import Config, InputError, OptimizerConfig
from train.loop import LARGEST_LOGIT_SCALE, NotFiniteError, Ranks, Run, create_optimizer, learning_rate, train

Make = Callable[..., Config]
#: Between 1 and 2 ranks, and between 1 and several passes, sums are grouped otherwise.
TOLERANCE = 1e-5


def losses(output: pathlib.Path) -> list[float]:
    return [line["loss"] for line in read_log(output)]


def test_the_loss_falls_and_the_log_tells_of_every_step(config: Make, tmp_path: pathlib.Path) -> None:
    assert train(config(train={"steps": 60}), tmp_path)
    log = read_log(tmp_path)
    assert [(line["step"], line["samples"]) for line in log] == [(n, 16 * n) for n in range(1, 61)]
    assert set(log[0]) == {"step", "samples", "loss", "lr", "gradient_norm", "bad_images", "epoch", "logit_scale"}
    assert sum(losses(tmp_path)[-10:]) / 10 < 0.8 * log[0]["loss"]
    assert log[9]["epoch"] == 2.0
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-0000000056.pt", "step-0000000060.pt"]


def test_a_run_ended_half_way_goes_on_as_if_nothing_had_happened(config: Make, tmp_path: pathlib.Path) -> None:
    model = config().model.custom
    custom = {**model, "vision_cfg": {**model["vision_cfg"], "patch_dropout": 0.5}}

    def made(workers: int) -> Config:
        return config(model={"custom": custom}, data={"workers": workers}, train={"steps": 60}, checkpoint={"every": 8})

    train(made(0), tmp_path / "undisturbed")
    for how, exit_code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        output = tmp_path / how.name
        [process] = start(made(1), output)
        while process.is_alive() and not (output / "checkpoints/step-0000000008.pt").exists():
            time.sleep(0.002)
        os.kill(process.pid, how)
        process.join(60)
        assert process.exitcode == exit_code
        assert 8 <= len(read_log(output)) < 60
        assert train(made(3), output)
        assert read_log(output) == read_log(tmp_path / "undisturbed")
        weights = [(folder / "open_clip_model.safetensors").read_bytes() for folder in (output, tmp_path / "undisturbed")]
        assert weights[0] == weights[1]


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_two_ranks_learn_what_one_learns_and_one_goes_on_for_two(config: Make, tmp_path: pathlib.Path, loss: str) -> None:
    made = config(train={"loss": loss, "steps": 8, "accumulation": 2})
    train(config(train={"loss": loss, "steps": 8}), tmp_path / "one")
    run(made, tmp_path / "two", ranks=2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=TOLERANCE)
    (tmp_path / "two/checkpoints/step-0000000008.pt").unlink()
    assert train(made, tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=TOLERANCE)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_several_passes_give_the_gradients_of_one(config: Make, tmp_path: pathlib.Path, loss: str) -> None:
    for passes in (1, 4):
        train(config(train={"loss": loss, "steps": 6, "accumulation": passes}), tmp_path / str(passes))
    one, four = read_log(tmp_path / "1"), read_log(tmp_path / "4")
    for key in ("loss", "gradient_norm", "logit_scale"):
        assert [line[key] for line in four] == pytest.approx([line[key] for line in one], rel=TOLERANCE)


def test_open_clip_loads_what_was_trained(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 4}), tmp_path)
    open_clip.add_model_config(tmp_path / "tiny.json")
    checkpoint = tmp_path / "checkpoints/step-0000000004.pt"
    models = [
        open_clip.create_model(f"local-dir:{tmp_path}"),
        open_clip.create_model("tiny", pretrained=str(tmp_path / "open_clip_model.safetensors")),
        open_clip.create_model("tiny", pretrained=str(checkpoint)),
    ]
    texts = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a red square", "красный квадрат", "四角"])
    image = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    found = [(m.eval().encode_image(image), m.encode_text(texts)) for m in models]
    for model, (images, words) in zip(models, found, strict=True):
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
        assert torch.equal(images, found[0][0])
        assert torch.equal(words, found[0][1])
    assert texts.shape == (3, 12)


def test_a_model_of_open_clip_keeps_its_name_and_a_sigmoid_loss_its_bias(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 2, "loss": "siglip"}), tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "open_clip_model.safetensors")
    model = open_clip.create_model(f"local-dir:{tmp_path}")
    assert weights["logit_bias"] == model.logit_bias
    assert model.logit_bias.item() == pytest.approx(-10, abs=0.1)


def test_a_broken_checkpoint_is_passed_over_with_a_message(config: Make, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    train(config(), tmp_path)
    before = read_log(tmp_path)
    newest = tmp_path / "checkpoints/step-0000000012.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    caplog.set_level(logging.INFO, logger="train")
    assert train(config(), tmp_path)
    assert f"{newest} is broken" in caplog.text
    assert "going on from" in caplog.text
    assert "step-0000000008.pt" in caplog.text
    assert read_log(tmp_path) == before


def test_a_checkpoint_of_another_run_is_refused(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 1}), tmp_path)
    with pytest.raises(InputError, match=r"of another run \(train\.seed was 0 and is 5; data\.streams was 4 and is 8\)"):
        train(config(train={"steps": 2, "seed": 5}, data={"streams": 8}), tmp_path)
    assert train(config(train={"steps": 2}), tmp_path)


def test_the_optimizer_goes_on_with_its_memory_and_the_decay_of_the_configuration(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 2}), tmp_path)
    run = Run(config(optimizer={"weight_decay": 0.7}), tmp_path, Ranks(rank=0, count=1, device=torch.device("cpu")))
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.0, 0.7]
    saved = torch.load(tmp_path / "checkpoints/step-0000000002.pt", weights_only=True)["optimizer"]["state"]
    for number, state in run.optimizer.state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], saved[number]["exp_avg"])
        assert float(state["step"]) == 2


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_learned_from(config: Make, tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFiniteError, match=r"step \d+: loss nan, gradient norm nan, learning rate 1e\+30; this step changed no weight"):
        train(config(optimizer={"lr": 1e30, "weight_decay": 0.0}, schedule={"warmup": 2}, train={"steps": 9}), tmp_path)
    assert all(math.isfinite(loss) for loss in losses(tmp_path))
    assert not (tmp_path / "open_clip_model.safetensors").exists()


def test_bad_images_stop_the_run_unless_so_many_are_allowed(config: Make, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [image_row(f"i{n:02d}", encode(square((n, 99, 9), n)), ["text"]) for n in range(16)]
    rows[4] = image_row("i04", b"not a picture", ["text"])
    data = {"paths": [str(write_images(tmp_path / "images", rows, parts=1))]}
    with pytest.raises(InputError, match=r"1 bad images in this epoch, and data\.max_bad is 0"):
        train(config(data=data), tmp_path / "stopped")
    assert "part-00000.parquet, row group 0, row 4, i04" in caplog.text
    assert train(config(data={**data, "max_bad": 1}, train={"steps": 3}), tmp_path / "allowed")
    assert [line["bad_images"] for line in read_log(tmp_path / "allowed")] == [1, 1, 1]


def test_bad_images_are_counted_on_after_a_resume(config: Make, tmp_path: pathlib.Path) -> None:
    rows = [image_row(f"i{n:02d}", encode(square((n, 99, 9), n)) if n % 2 else b"not a picture", ["text"]) for n in range(80)]
    paths = [str(write_images(tmp_path / "images", rows, parts=1))]

    def made(steps: int, max_bad: int) -> Config:
        return config(data={"paths": paths, "max_bad": max_bad}, train={"steps": steps}, checkpoint={"every": 1})

    assert train(made(10, 40), tmp_path / "whole")
    for steps in (3, 5, 6, 10):
        assert train(made(steps, 40), tmp_path / "in parts")
    counted = [line["bad_images"] for line in read_log(tmp_path / "in parts")]
    assert counted == [line["bad_images"] for line in read_log(tmp_path / "whole")]
    assert (counted[4], counted[9]) == (40, 40)
    assert counted[:5] == sorted(counted[:5])
    assert counted[5] < 20
    assert train(made(2, 40), tmp_path / "too many")
    with pytest.raises(InputError, match=r"bad images in this epoch, and data\.max_bad is 30; the log names them"):
        train(made(10, 30), tmp_path / "too many")
    assert len(read_log(tmp_path / "too many")) == sum(n <= 30 for n in counted[:5])


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_ends(config: Make, tmp_path: pathlib.Path) -> None:
    [process] = start(config(data={"workers": 1}, train={"steps": 10**6}, checkpoint={"every": 10**5}), tmp_path)
    while process.is_alive() and not (tmp_path / "log.jsonl").exists():
        time.sleep(0.002)
    with pytest.raises(InputError) as refused:
        train(config(), tmp_path)
    assert str(refused.value) == f"another run is training in {tmp_path}: wait until it ends, or give another --output"
    # The workers of its data loader live on for some seconds; the lock does not.
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert train(config(), tmp_path)
    assert len(read_log(tmp_path)) == 12


def test_a_file_system_without_locks_is_told_of_and_used(
    config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lockf(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert train(config(train={"steps": 1}), tmp_path)
    told = f"{tmp_path}: this file system knows no locks (No locks available): see to it yourself that no other run trains there"
    assert told in caplog.messages


def test_what_cannot_be_trained_is_said_at_the_start(config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="83 images are less than one batch of 96"):
        train(config(train={"batch_size": 96}), tmp_path)
    with pytest.raises(InputError, match=r"must divide data\.streams"):
        train(config(train={"accumulation": 3}), tmp_path)
    with pytest.raises(InputError, match="no model 'ViT-B-23'; close names: ViT-B-32"):
        train(config(model={"name": "ViT-B-23", "custom": {}}), tmp_path)
    with pytest.raises(InputError, match="layerz"):
        train(config(model={"custom": {**config().model.custom, "vision_cfg": {"layerz": 3}}}), tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        InputError, match=r"tokenizer facebook/xlm-v-base cannot be loaded .*hf download facebook/xlm-v-base --local-dir FOLDER"
    ):
        train(config(model={"name": "ViT-H-14-worldwide", "custom": {}}), tmp_path)


def test_evaluation_during_training_is_logged(config: Make, tmp_path: pathlib.Path) -> None:
    for label, colour in enumerate([(220, 30, 30), (30, 200, 40)]):
        (tmp_path / f"held out/{label}").mkdir(parents=True)
        square(colour, 5).save(tmp_path / f"held out/{label}/a.png")
    (tmp_path / "prompts.json").write_text('{"en": [["a red square"], ["a green square"]]}')
    evaluate = {"every": 20, "images": str(tmp_path / "held out"), "prompts": str(tmp_path / "prompts.json")}
    made = config(evaluate=evaluate, train={"steps": 60})
    train(made, tmp_path / "one")
    run(made, tmp_path / "two", ranks=2)
    for place in ("one", "two"):
        found = {line["step"]: line["zero_shot"]["en"] for line in read_log(tmp_path / place) if "zero_shot" in line}
        assert sorted(found) == [20, 40, 60]
        assert found[60] == {"accuracy": 1.0, "per_class": [1.0, 1.0]}


def test_learning_rate() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=4, steps=12) for step in range(12)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(1 + math.cos(math.pi * 7 / 8))
    assert learning_rate(0, peak=2.0, warmup=0, steps=1) == 2.0


def test_what_is_decayed() -> None:
    model = open_clip.CLIP(
        8, {"image_size": 8, "patch_size": 4, "width": 8, "head_width": 8, "layers": 1}, {"width": 8, "heads": 1, "layers": 1}
    )
    spared, decayed = create_optimizer(model, OptimizerConfig(weight_decay=0.3)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (spared["weight_decay"], decayed["weight_decay"]) == (0.0, 0.3)
    kept_free = {names[id(p)] for p in spared["params"]}
    assert len(kept_free) + len(decayed["params"]) == len(names)
    assert kept_free == {n for n in names.values() if n.endswith("bias") or "ln_" in n or n in ("logit_scale", "visual.class_embedding")}


def test_the_logit_scale_stays_below_its_limit(config: Make, tmp_path: pathlib.Path) -> None:
    custom = {**config().model.custom, "init_logit_scale": LARGEST_LOGIT_SCALE + 1}
    train(config(model={"custom": custom}, train={"steps": 2}), tmp_path)
    assert all(line["logit_scale"] <= 100.001 for line in read_log(tmp_path))


@pytest.mark.parametrize(("outcome", "code"), [(True, 0), (False, 143), (InputError("x"), 2), (NotFiniteError("x"), 1)])
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, outcome: Any, code: int) -> None:
    def train(config: Config, output: pathlib.Path) -> bool:
        assert (config.train.steps, config.schedule.warmup, config.data.paths, output) == (7, 2, ("a", "b"), tmp_path)
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    arguments = ["train", "--config", "toy.toml", "--data", "a", "b", "--output", str(tmp_path)]
    monkeypatch.setattr(command, "train", train)
    monkeypatch.setattr(sys, "argv", [*arguments, "--set", "train.steps=7", "schedule.warmup=3", "--set", "schedule.warmup=2"])
    assert command.main() == code
