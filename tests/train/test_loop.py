from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import open_clip
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from balancing.epochs import share
from tests.train.ranks import Turn, run_in_turn
from tests.train.tiny import encode, image_row, read_log, run, square, start, write_images
from train import __main__ as command
from train import loop
from train.checkpoint import save_checkpoint
from train.config import Config, InputError, OptimizerConfig
from train.data import Part, Reader, open_sources
from train.distributed import Ranks
from train.evaluation.tasks import Task, retrieval
from train.loop import LARGEST_LOGIT_SCALE, NotFiniteError, Run, backward, create_optimizer, find_compiled, learning_rate, train
from train.model import create_tokenizer

Make = Callable[..., Config]
#: Between one pass and several, sums are grouped otherwise.
TOLERANCE = 1e-5
ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))
FLOWERS = Task("flowers", [], {"en": retrieval([])})


def losses(output: pathlib.Path) -> list[float]:
    return [line["loss"] for line in read_log(output)]


@pytest.fixture(scope="module")
def made(config: Make) -> Make:
    """32 steps of a model with some randomness of its own, a checkpoint after every fourth."""
    custom = config().model.custom
    custom = {**custom, "vision_cfg": {**custom["vision_cfg"], "patch_dropout": 0.5}}

    def make(workers: int) -> Config:
        return config(model={"custom": custom}, data={"workers": workers}, train={"steps": 32})

    return make


@pytest.fixture(scope="module")
def undisturbed(made: Make, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    output = tmp_path_factory.mktemp("undisturbed")
    assert train(made(workers=0), output) is None
    return output


def end(processes: list[Any], output: pathlib.Path, how: dict[int, signal.Signals], exit_code: int) -> None:
    """Ends a run after a checkpoint by a signal to each of these ranks."""
    while all(process.is_alive() for process in processes) and not (output / "checkpoints/step-0000000004.pt").exists():
        time.sleep(0.002)
    for rank, number in how.items():
        os.kill(processes[rank].pid, number)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [exit_code] * len(processes)
    assert 4 <= len(read_log(output)) < 32


def weights(output: pathlib.Path) -> bytes:
    return (output / "open_clip_model.safetensors").read_bytes()


def test_the_loss_falls_and_the_log_tells_of_every_step(undisturbed: pathlib.Path) -> None:
    log = read_log(undisturbed)
    assert [(line["step"], line["samples"]) for line in log] == [(n, 16 * n) for n in range(1, 33)]
    assert set(log[0]) == {"step", "samples", "loss", "lr", "gradient_norm", "bad_images", "epoch", "logit_scale"}
    assert sum(losses(undisturbed)[-8:]) / 8 < 0.9 * log[0]["loss"]
    assert log[9]["epoch"] == 2.0
    assert [p.name for p in sorted((undisturbed / "checkpoints").iterdir())] == ["step-0000000028.pt", "step-0000000032.pt"]


@pytest.mark.parametrize(
    ("how", "exit_code", "workers"),
    [
        (signal.SIGKILL, -signal.SIGKILL, (1, 3)),
        (signal.SIGKILL, -signal.SIGKILL, (0, 0)),
        (signal.SIGTERM, 143, (0, 1)),
        (signal.SIGUSR1, 138, (3, 0)),
    ],
)
def test_a_run_ended_half_way_goes_on_as_if_nothing_had_happened(
    made: Make, tmp_path: pathlib.Path, undisturbed: pathlib.Path, how: signal.Signals, exit_code: int, workers: tuple[int, int]
) -> None:
    before, after = workers
    end(start(made(before), tmp_path), tmp_path, {0: how}, exit_code)
    assert train(made(after), tmp_path) is None
    assert read_log(tmp_path) == read_log(undisturbed)
    assert weights(tmp_path) == weights(undisturbed)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """80 images, each with a number of its own as its text."""
    rows = [image_row(f"i{n:02d}", encode(square((n, 99, 9), n)), [str(1000 + n)]) for n in range(80)]
    return str(write_images(tmp_path_factory.mktemp("numbered"), rows))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three images to evaluate on: the ranks' shares differ, which must not leave one waiting for weights that FSDP has shared out."""
    root = tmp_path_factory.mktemp("task")
    for label, colours in enumerate([[(220, 30, 30), (210, 40, 30)], [(30, 200, 40)]]):
        (root / f"held out/{label}").mkdir(parents=True)
        for number, colour in enumerate(colours):
            square(colour, 5).save(root / f"held out/{label}/{number}.png")
    (root / "names.json").write_text('{"en": [["a red square"], ["a green square"]]}')
    return {"name": "squares", "layout": "folders", "images": str(root / "held out"), "names": str(root / "names.json")}


@pytest.fixture(scope="module")
def by_two(made: Make, config: Make, numbered: str, task: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What two ranks train here without being disturbed."""
    root = tmp_path_factory.mktemp("by two")
    evaluated = config(evaluate={"every_samples": 32, "tasks": [task]}, train={"steps": 4, "parallel": "fsdp"})
    short = config(data={"paths": [numbered]}, train={"steps": 2})
    turns = [Turn(made(workers=0), root / "undisturbed"), Turn(evaluated, root / "evaluated"), Turn(short, root / "short")]
    run_in_turn(turns, ranks=2)
    return root


@pytest.mark.parametrize(
    ("how", "exit_code", "workers"),
    [
        ({0: signal.SIGKILL, 1: signal.SIGKILL}, -signal.SIGKILL, (1, 3)),
        ({1: signal.SIGUSR1}, 138, (0, 0)),  # a signal to one rank stops both
    ],
)
def test_two_ranks_ended_half_way_go_on_as_if_nothing_had_happened(
    made: Make, tmp_path: pathlib.Path, by_two: pathlib.Path, how: dict[int, signal.Signals], exit_code: int, workers: tuple[int, int]
) -> None:
    before, after = workers
    end(start(made(before), tmp_path, ranks=2), tmp_path, how, exit_code)
    run(made(after), tmp_path, ranks=2)
    assert read_log(tmp_path) == read_log(by_two / "undisturbed")
    assert weights(tmp_path) == weights(by_two / "undisturbed")


def test_one_rank_going_on_for_two_sees_the_rest_of_the_epoch(
    config: Make, tmp_path: pathlib.Path, numbered: str, by_two: pathlib.Path
) -> None:
    two, one = (config(data={"paths": [numbered]}, train={"steps": steps}) for steps in (2, 5))
    shutil.copytree(by_two / "short", tmp_path / "run")
    seen = [part.tokens for rank in range(2) for parts in read(two, rank=rank, ranks=2) for part in parts]
    alone = Run(one, tmp_path / "run", ALONE)
    assert alone.step == 2
    seen += [part.tokens for parts in alone.batches() for part in parts]
    assert sorted(torch.cat(seen).tolist()) == sorted(alone.tokenizer([str(1000 + n) for n in range(80)]).tolist())


def read(config: Config, *, rank: int, ranks: int) -> Iterator[list[Part]]:
    tokenizer = create_tokenizer(config.model, config.model.custom)
    streams = share(range(config.data.streams), rank, ranks)
    return Reader(open_sources(config, ALONE), config, streams, tokenizer=tokenizer, size=16, first_step=0).batches(pin_memory=False)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_several_passes_and_forgotten_activations_give_the_gradients_of_one(config: Make, tmp_path: pathlib.Path, loss: str) -> None:
    ways: dict[str, dict[str, Any]] = {"one": {}, "four": {"accumulation": 4}, "checkpointed": {"activation_checkpointing": True}}
    for name, way in ways.items():
        train(config(train={"loss": loss, "steps": 5, **way}), tmp_path / name)
    one, four, checkpointed = (read_log(tmp_path / name) for name in ways)
    for key in ("loss", "gradient_norm", "logit_scale"):
        assert [line[key] for line in four] == pytest.approx([line[key] for line in one], rel=TOLERANCE)
    assert checkpointed == one
    run = Run(config(train=ways["checkpointed"]), tmp_path / "new", ALONE)
    assert run.model.visual.transformer.grad_checkpointing
    assert run.model.transformer.grad_checkpointing


def test_bf16_is_used_where_it_is_asked_for(config: Make, tmp_path: pathlib.Path) -> None:
    for precision in ("fp32", "bf16"):
        train(config(train={"steps": 3, "precision": precision}), tmp_path / precision)
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.02)
    assert losses(tmp_path / "bf16") != pytest.approx(losses(tmp_path / "fp32"), rel=TOLERANCE)
    assert all(w.dtype == torch.float32 for w in safetensors.torch.load_file(tmp_path / "bf16/open_clip_model.safetensors").values())


def test_the_gradient_is_clipped_and_its_norm_told_as_it_was(config: Make, tmp_path: pathlib.Path) -> None:
    norms = {}
    for limit in (0.0, 1e-3):
        run = Run(config(optimizer={"clip_norm": limit}), tmp_path / str(limit), ALONE)
        _, told = backward(run, next(run.batches()))
        norms[limit] = told, math.sqrt(sum(float((p.grad**2).sum()) for p in run.model.parameters()))
    assert norms[0.0] == pytest.approx((norms[0.0][0], norms[0.0][0]))
    assert norms[1e-3] == pytest.approx((norms[0.0][0], 1e-3), rel=1e-3)


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
    assert train(config(), tmp_path) is None
    assert f"{newest} is broken" in caplog.text
    assert "going on from" in caplog.text
    assert "step-0000000008.pt" in caplog.text
    assert read_log(tmp_path) == before


def test_a_checkpoint_of_another_run_is_refused(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 1}), tmp_path)
    with pytest.raises(InputError, match=r"of another run \(data\.streams was 4 and is 8; train\.seed was 0 and is 5\)"):
        train(config(train={"steps": 2, "seed": 5}, data={"streams": 8}), tmp_path)
    assert train(config(train={"steps": 2}), tmp_path) is None


def test_the_optimizer_goes_on_with_its_memory_and_the_decay_of_the_configuration(config: Make, tmp_path: pathlib.Path) -> None:
    train(config(train={"steps": 2}), tmp_path)
    run = Run(config(optimizer={"weight_decay": 0.7}), tmp_path, ALONE)
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.0, 0.7]
    saved = torch.load(tmp_path / "checkpoints/step-0000000002.pt", weights_only=True)["optimizer"]
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    assert {names[parameter] for parameter in run.optimizer.state} == set(saved) == set(names.values())
    for parameter, state in run.optimizer.state.items():
        assert torch.equal(state["exp_avg"], saved[names[parameter]]["exp_avg"])
        assert float(state["step"]) == 2


def test_a_checkpoint_is_of_its_step_however_long_its_writing_takes(
    config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, writing = config(train={"steps": 6}, checkpoint={"every": 1, "keep": 9}), []
    train(made, tmp_path / "fast")

    def slowly(folder: pathlib.Path, state: dict[str, Any], **options: Any) -> pathlib.Path:
        writing.append("begin")
        time.sleep(0.05)
        path = save_checkpoint(folder, state, **options)
        writing.append("end")
        return path

    monkeypatch.setattr(loop, "save_checkpoint", slowly)
    train(made, tmp_path / "slow")
    assert writing == ["begin", "end"] * 6
    for step in range(1, 7):
        fast, slow = (torch.load(tmp_path / place / f"checkpoints/step-{step:010d}.pt", weights_only=True) for place in ("fast", "slow"))
        assert all(torch.equal(fast["state_dict"][key], slow["state_dict"][key]) for key in fast["state_dict"])
        assert all(torch.equal(fast["optimizer"][key]["exp_avg"], slow["optimizer"][key]["exp_avg"]) for key in fast["optimizer"])


@pytest.mark.parametrize(("failing", "told"), [(1, 2), (12, 12)])
def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, failing: int, told: int
) -> None:
    def save(folder: pathlib.Path, state: dict[str, Any], **options: Any) -> pathlib.Path:
        if state["step"] == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_checkpoint(folder, state, **options)

    monkeypatch.setattr(loop, "save_checkpoint", save)
    with pytest.raises(OSError, match="No space left on device"):
        train(config(checkpoint={"every": 1}), tmp_path)
    assert len(read_log(tmp_path)) <= told
    assert not (tmp_path / "open_clip_model.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_learned_from(config: Make, tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFiniteError, match=r"step \d+: loss nan, gradient norm nan, learning rate 1e\+30; this step changed no weight"):
        train(config(optimizer={"lr": 1e30, "weight_decay": 0.0}, schedule={"warmup": 2}, train={"steps": 9}), tmp_path)
    assert all(math.isfinite(loss) for loss in losses(tmp_path))
    assert not (tmp_path / "open_clip_model.safetensors").exists()


def test_bad_images_stop_the_run_unless_so_many_are_allowed(config: Make, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [image_row(f"i{n:02d}", encode(square((n, 99, 9), n)), ["text"]) for n in range(16)]
    rows[4] = image_row("i04", b"not a picture", ["text"])
    data = {"paths": [str(write_images(tmp_path / "images", rows, parts=1))]}
    with pytest.raises(InputError, match=r"bad images in this epoch: 1, and data\.max_bad is 0"):
        train(config(data=data), tmp_path / "stopped")
    assert "part-00000.parquet, row group 0, row 4, i04" in caplog.text
    assert train(config(data={**data, "max_bad": 1}, train={"steps": 3}), tmp_path / "allowed") is None
    assert [line["bad_images"] for line in read_log(tmp_path / "allowed")] == [1, 1, 1]


def test_bad_images_are_counted_on_after_a_resume(config: Make, tmp_path: pathlib.Path) -> None:
    rows = [image_row(f"i{n:02d}", encode(square((n, 99, 9), n)) if n % 2 else b"not a picture", ["text"]) for n in range(80)]
    paths = [str(write_images(tmp_path / "images", rows, parts=1))]

    def made(steps: int, max_bad: int) -> Config:
        return config(data={"paths": paths, "max_bad": max_bad}, train={"steps": steps}, checkpoint={"every": 1})

    assert train(made(10, 40), tmp_path / "whole") is None
    for steps in (3, 5, 6, 10):
        assert train(made(steps, 40), tmp_path / "in parts") is None
    counted = [line["bad_images"] for line in read_log(tmp_path / "in parts")]
    assert counted == [line["bad_images"] for line in read_log(tmp_path / "whole")]
    assert (counted[4], counted[9]) == (40, 40)
    assert counted[:5] == sorted(counted[:5])
    assert counted[5] < 20
    assert train(made(2, 40), tmp_path / "too many") is None
    with pytest.raises(InputError, match=r"bad images in this epoch: 40, and data\.max_bad is 30; the log names them"):
        train(made(10, 30), tmp_path / "too many")
    assert len(read_log(tmp_path / "too many")) == sum(n <= 30 for n in counted[:5])


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_ends(config: Make, tmp_path: pathlib.Path) -> None:
    [process] = start(config(data={"workers": 1}, train={"steps": 10**4}, checkpoint={"every": 10**4}), tmp_path)
    while process.is_alive() and not (tmp_path / "log.jsonl").exists():
        time.sleep(0.002)
    with pytest.raises(InputError) as refused:
        train(config(), tmp_path)
    assert str(refused.value) == f"another run is training in {tmp_path}: wait until it ends, or give another --output"
    # The workers of its data loader live on for some seconds; the lock does not.
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert train(config(train={"steps": 2}), tmp_path) is None
    assert len(read_log(tmp_path)) == 2


def test_a_file_system_without_locks_is_told_of_and_used(
    config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lockf(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert train(config(train={"steps": 1}), tmp_path) is None
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

    def unreachable(source: str, **_: Any) -> None:
        raise OSError(f"We couldn't connect to the hub to load {source}.\nCheck your internet connection.")

    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", unreachable)
    with pytest.raises(
        InputError, match=r"tokenizer facebook/xlm-v-base cannot be loaded .*hf download facebook/xlm-v-base --local-dir FOLDER"
    ):
        train(config(model={"name": "ViT-H-14-worldwide", "custom": {}}), tmp_path)


def test_evaluation_during_training_is_logged(config: Make, tmp_path: pathlib.Path, task: dict[str, Any], by_two: pathlib.Path) -> None:
    train(config(evaluate={"every_samples": 320, "tasks": [task]}, train={"steps": 40}), tmp_path / "learnt")
    train(config(evaluate={"every_samples": 32, "tasks": [task]}, train={"steps": 4}), tmp_path / "one")
    learnt, one, two = (
        {line["step"]: line["evaluation"] for line in read_log(place) if "evaluation" in line}
        for place in (tmp_path / "learnt", tmp_path / "one", by_two / "evaluated")
    )
    assert sorted(learnt) == [20, 40]
    assert learnt[40] == {"squares": {"en": {"accuracy": 1.0, "mean_class_accuracy": 1.0, "images": 3, "excluded": 0}}}
    assert sorted(two) == [2, 4]
    assert two == one
    missing = config(evaluate={"every_samples": 320, "tasks": [{**task, "images": f"{tmp_path}/nowhere"}]})
    with pytest.raises(InputError, match=r"task squares: no image in .*nowhere"):
        train(missing, tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_the_best_checkpoint_stays_and_is_known_after_a_resume(
    config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.2, 0.5, 0.4, 0.3, 0.6])

    def evaluate(model: Any, *_: Any) -> dict[str, Any]:
        assert isinstance(model, open_clip.CLIP)
        return {"flowers": {"en": {"accuracy": next(found), "images": 2}}}

    monkeypatch.setattr(loop, "load_tasks", lambda tables: [FLOWERS])
    monkeypatch.setattr(loop, "evaluate", evaluate)
    kept = []
    for steps in (6, 8, 10):
        checkpoint = {"every": 100, "keep": 1, "best": "flowers/en/accuracy"}
        train(config(evaluate={"every_samples": 32, "tasks": [{}]}, checkpoint=checkpoint, train={"steps": steps}), tmp_path)
        best = torch.load(tmp_path / "checkpoints/best.pt", weights_only=True)
        kept.append(
            (best["step"], best["best"]["flowers/en/accuracy"], sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")))
        )
    assert kept == [
        (4, 0.5, ["step-0000000006.pt"]),
        (4, 0.5, ["step-0000000008.pt"]),
        (10, 0.6, ["step-0000000010.pt"]),
    ]
    logged = [line["evaluation"]["flowers"]["en"]["accuracy"] for line in read_log(tmp_path) if "evaluation" in line]
    assert logged == [0.2, 0.5, 0.4, 0.3, 0.6]


def test_another_best_figure_begins_anew(config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "load_tasks", lambda tables: [FLOWERS])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"flowers": {"en": {"accuracy": 0.9, "recall": 0.1}}})

    def run(best: str, steps: int) -> int:
        checkpoint = {"every": 100, "best": f"flowers/en/{best}"}
        train(config(evaluate={"every_samples": 16, "tasks": [{}]}, checkpoint=checkpoint, train={"steps": steps}), tmp_path)
        return int(torch.load(tmp_path / "checkpoints/best.pt", weights_only=True)["step"])

    assert run("accuracy", 3) == 1
    assert run("recall", 6) == 4


def test_a_best_figure_that_no_task_gives_is_named(config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "load_tasks", lambda tables: [FLOWERS])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"flowers": {"en": {"accuracy": 0.5, "images": 2}}})

    def refused(best: str) -> str:
        with pytest.raises(InputError) as caught:
            train(config(evaluate={"every_samples": 16, "tasks": [{}]}, checkpoint={"best": best}), tmp_path / "run")
        return str(caught.value)

    assert refused("flowers/de/accuracy") == "checkpoint.best: flowers/de/accuracy is of no task and language; there are flowers/en"
    assert not (tmp_path / "run").exists()
    told = "checkpoint.best: the evaluation gives no flowers/en/recall, but flowers/en/accuracy, flowers/en/images"
    assert refused("flowers/en/recall") == told
    # The step that was done is not lost.
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-0000000001.pt"]


def test_what_is_compiled(config: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: compiled.append((module, options)))
    run = Run(config(train={"compile": True}), tmp_path, ALONE)
    layers = [run.model.visual.transformer.resblocks[0], run.model.transformer.resblocks[0]]
    assert compiled == [(module, {"dynamic": False}) for module in (run.model.visual, layers[1])]
    assert find_compiled(run.model, Ranks(rank=0, count=2, device=torch.device("cpu"))) == layers


def test_what_is_done_every_so_many_samples_is_done_in_the_step_that_reaches_them(config: Make, tmp_path: pathlib.Path) -> None:
    run = Run(config(train={"steps": 12}), tmp_path, ALONE)

    def due(every: int, **per_step: int) -> list[int]:
        return [run.step for run.step in range(1, 13) if run.is_due(every, **per_step)]

    assert due(40, per_step=16) == [3, 5, 8, 10, 12]
    assert due(7, per_step=16) == list(range(1, 13))
    assert due(5) == [5, 10, 12]
    assert due(0) == due(0, per_step=16) == []


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


@pytest.mark.parametrize(
    ("outcome", "code"), [(None, 0), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (InputError("x"), 2), (NotFiniteError("x"), 1)]
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, outcome: Any, code: int) -> None:
    def train(config: Config, output: pathlib.Path) -> Any:
        assert (config.train.steps, config.schedule.warmup, config.data.paths, output) == (7, 2, ("a", "b"), tmp_path)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    arguments = ["train", "--config", "toy.toml", "--data", "a", "b", "--output", str(tmp_path)]
    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(sys, "argv", [*arguments, "--set", "train.steps=7", "schedule.warmup=3", "--set", "schedule.warmup=2"])
    assert command.main() == code


@pytest.mark.slow
def test_what_a_worker_cannot_read_ends_the_run_with_one_line(images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    part = tmp_path / "images/part-00001.parquet"
    column = pq.ParquetFile(part).metadata.row_group(1).column(2)
    assert column.path_in_schema == "jpeg"
    content = bytearray(part.read_bytes())
    start = column.data_page_offset
    content[start : start + 16] = b"\xff" * 16
    part.write_bytes(content)
    custom = (
        "model.name=tiny model.custom.embed_dim=8 model.custom.vision_cfg={image_size=16,patch_size=8,width=16,head_width=8,layers=1} "
        "model.custom.text_cfg={context_length=12,vocab_size=49408,width=8,heads=1,layers=1} data.streams=4 data.workers=2 "
        "train.steps=20 train.batch_size=16 schedule.warmup=1 checkpoint.every=100"
    )
    (tmp_path / "t.toml").write_text("[model]\n[train]\n")
    command = [sys.executable, "-m", "train", "--config", f"{tmp_path}/t.toml", "--data", f"{tmp_path}/images"]
    ended = subprocess.run([*command, "--output", f"{tmp_path}/run", "--set", *custom.split()], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    *_, last = ended.stderr.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d error: file://.*/images/part-00001\.parquet cannot be read as Parquet: .*", last)
    assert "Traceback" not in ended.stderr
