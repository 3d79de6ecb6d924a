from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipelines import train
from pipelines.errors import JobError
from pipelines.jobs import run_job
from tests.train.evaluation.tiny_sets import Fake, picture, tokenizer, write
from train.evaluation import __main__ as module
from train.evaluation.__main__ import as_text, load_model, read_tables

ARCHITECTURE = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(autouse=True)
def tiny_test(tmp_path: pathlib.Path) -> None:
    """A name that open_clip knows."""
    open_clip.add_model_config(write(tmp_path / "tiny-test.json", ARCHITECTURE))


@pytest.fixture
def tasks(tmp_path: pathlib.Path) -> str:
    for place in ("red/a.png", "green/a.png"):
        write(tmp_path / "images" / place, picture(place.partition("/")[0]))
    return write(tmp_path / "tasks.toml", f'[[evaluate.tasks]]\nname = "colours"\nlayout = "folders"\nimages = "{tmp_path}/images"\n')


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluation", *arguments])
    return module.main()


def test_the_command_prints_a_table_and_writes_the_result(
    tasks: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "load_model", lambda *_: (Fake(), tokenizer))
    assert call(monkeypatch, "--model", "any", "--task", tasks, "--device", "cpu", "--output", f"{tmp_path}/out.json") == 0
    assert capsys.readouterr().out == (
        "colours  accuracy  mean_class_accuracy  images  excluded\n"  # the table
        "en         1.0000               1.0000       2         0\n"
    )
    figures = {"accuracy": 1.0, "mean_class_accuracy": 1.0, "images": 2, "excluded": 0}
    assert json.loads((tmp_path / "out.json").read_text()) == {"colours": {"en": figures}}


def test_what_cannot_be_used_ends_with_status_2(tasks: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert call(monkeypatch, "--model", "ViT-B-32", "--task", "nowhere.toml") == 2
    assert caplog.messages[-1].startswith("error: nowhere.toml cannot be read in this layout (FileNotFoundError")
    assert call(monkeypatch, "--model", "ViT-B-23", "--task", tasks) == 2
    assert caplog.messages[-1].startswith("error: the model ViT-B-23 cannot be loaded: Model config for 'ViT-B-23' not found")


def test_tables_in_a_toml_file(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "tasks.toml", '[train]\nsteps = 1\n[[evaluate.tasks]]\nname = "x"\nlayout = "cvqa"\n')
    assert read_tables(file) == [{"name": "x", "layout": "cvqa"}]
    for text, told in (("[train]\n", f"{file} has no [[evaluate.tasks]]"), ("[", f"{file} cannot be read in this layout (TOMLDecodeError")):
        write(tmp_path / "tasks.toml", text)
        with pytest.raises(module.InputError) as caught:
            read_tables(file)
        assert str(caught.value).startswith(told)


def test_several_languages_have_a_mean() -> None:
    figures: dict[str, Any] = {"accuracy": 0.5, "accuracy@5": 0.75, "images": 1200, "excluded": 0, "per_class": [None, 0.5]}
    assert as_text(
        {"a": {"en": figures, "de": {"accuracy": 0.25, "images": 3, "excluded": 1}}, "b": {"en": {"images": 7}}}
    ).splitlines() == [
        "a     accuracy  accuracy@5  images  excluded",
        "en      0.5000      0.7500   1,200         0",
        "de      0.2500                   3         1",
        "mean    0.3750      0.7500",
        "",
        "b   images",
        "en       7",
    ]


def test_weights_in_every_place(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(1)
    folder = tmp_path / "model"
    write(folder / "open_clip_config.json", {"model_cfg": ARCHITECTURE, "preprocess_cfg": {}})
    weights = open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    other = {key: value + 1 for key, value in weights.items()}
    torch.save({"state_dict": other, "step": 3}, tmp_path / "step.pt")
    save_file(other, tmp_path / "other.safetensors")
    cpu = torch.device("cpu")

    def loaded(name: str, pretrained: str | None) -> dict[str, torch.Tensor]:
        model, tokenize = load_model(name, pretrained, cpu)
        assert tokenize(["a"]).shape == (1, 12)
        return dict(model.state_dict())

    torch.testing.assert_close(loaded(str(folder), None), weights)
    for file in ("step.pt", "other.safetensors"):
        torch.testing.assert_close(loaded(str(folder), f"{tmp_path}/{file}"), other)
    torch.testing.assert_close(loaded("tiny-test", f"{tmp_path}/step.pt"), other)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_weights_that_cannot_be_used(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpu = torch.device("cpu")
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    write(tmp_path / "torn.safetensors", b"1234567890")
    for name, pretrained, told in (
        ("tiny-test", None, ": Required pretrained weights"),
        ("tiny-test", "nowhere.pt", " with the weights nowhere.pt: Pretrained value 'nowhere.pt' is not a known tag"),
        (str(tmp_path), None, ": 'local-dir:' specified, but config file missing"),
        ("tiny-test", f"{tmp_path}/harmful.pt", f" with the weights {tmp_path}/harmful.pt: Weights only load failed"),
        ("tiny-test", f"{tmp_path}/torn.safetensors", f" with the weights {tmp_path}/torn.safetensors: "),
    ):
        with pytest.raises(module.InputError) as caught:
            load_model(name, pretrained, cpu)
        assert str(caught.value).startswith(f"the model {name} cannot be loaded{told}")
        assert "\n" not in str(caught.value)
    assert "run" not in capsys.readouterr().out


def test_the_job_hands_over_its_arguments_and_the_exit_status(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    says = "import sys; print(sys.argv[1:]); sys.exit(2)"
    monkeypatch.setattr(train, "python_module", lambda name: [sys.executable, "-c", says, name])
    with pytest.raises(JobError) as caught:
        run_job("evaluate", ["--model", "a", "--task", "b"])
    assert (str(caught.value), caught.value.exit_code) == ("evaluation ended with exit code 2", 2)
    assert capfd.readouterr().out == "['train.evaluation', '--model', 'a', '--task', 'b']\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JobError) as caught:
        run_job("evaluate", ["--help"])
    assert str(caught.value) == "evaluation needs torch and open_clip: pip install 'worldclip[train]'"
