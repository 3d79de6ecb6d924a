from __future__ import annotations

import pathlib

import pytest

from train.config import SHIPPED, InputError, load_config, parse

MINIMAL: dict[str, dict[str, object]] = {"model": {"name": "ViT-B-32"}, "train": {"steps": 10, "batch_size": 32}}


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("optimizer", {"lerning_rate": 1.0}, "unknown field `lerning_rate` - at `optimizer`"),
        ("optimizer", {"weigth_decay": 1.0}, "unknown field `weigth_decay` - at `optimizer`; did you mean optimizer.weight_decay?"),
        ("train", {"lr": 1e-3}, "unknown field `lr` - at `train`; did you mean optimizer.lr?"),
        ("optimiser", {"lr": 1e-3}, "unknown field `optimiser`; did you mean [optimizer]?"),
        ("train", {"steps": "ten"}, "Expected `int`, got `str` - at `train.steps`"),
        ("train", {"steps": True}, "Expected `int`, got `bool` - at `train.steps`"),
        ("train", {"steps": 0}, "Expected `int` >= 1 - at `train.steps`"),
        ("train", {"loss": "triplet"}, "Invalid enum value 'triplet' - at `train.loss`"),
        ("optimizer", {"lr": float("nan")}, "at `optimizer.lr`"),
        ("optimizer", {"lr": float("inf")}, "at `optimizer.lr`"),
        ("data", {"crop_scale": [0.9]}, "Expected `array` of length 2, got 1 - at `data.crop_scale`"),
        ("data", {"crop_scale": [0.9, 0.5]}, "data.crop_scale must be ascending"),
        ("data", {"streams": 5}, "data.streams (5) must divide train.batch_size (32)"),
        ("schedule", {"warmup": 10}, "schedule.warmup (10) must be less than train.steps (10)"),
        ("evaluate", {"every": 5}, "evaluate.every needs evaluate.images"),
    ],
)
def test_a_wrong_value_is_named(table: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse({**MINIMAL, table: {**MINIMAL.get(table, {}), **values}})
    assert message in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="missing required field `batch_size` - at `train`"):
        parse({"model": {"name": "ViT-B-32"}, "train": {"steps": 10}})
    with pytest.raises(InputError, match="missing required field `model`"):
        parse({})


def test_overrides_are_toml_or_bare_words(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nname = "ViT-B-32"\n[train]\nsteps = 10\nbatch_size = 32\n')
    overrides = [
        "train.steps=7",
        "optimizer.lr=2",
        "data.crop_scale=[0.5, 1]",
        "model.name=RN50",
        'train.loss="siglip"',
        "model.custom.a.b=1",
    ]
    config = load_config(file, overrides=overrides, data=["a", "b"])
    assert (config.train.steps, config.optimizer.lr, config.data.crop_scale) == (7, 2.0, (0.5, 1.0))
    assert (config.model.name, config.train.loss, config.model.custom) == ("RN50", "siglip", {"a": {"b": 1}})
    assert config.data.paths == ("a", "b")


@pytest.mark.parametrize("override", ["train.steps", "steps=3", "train.=3", "=3", "train.steps.x=1"])
def test_a_malformed_override_is_an_error(tmp_path: pathlib.Path, override: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nname = "ViT-B-32"\n[train]\nsteps = 10\nbatch_size = 32\n')
    with pytest.raises(InputError, match=r"mine\.toml"):
        load_config(file, overrides=[override])


def test_files_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no configuration at nowhere\.toml .*toy\.toml"):
        load_config("nowhere.toml")
    (tmp_path / "broken.toml").write_text("[train\n")
    with pytest.raises(InputError, match=r"broken\.toml: Expected ']'"):
        load_config(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(InputError, match=r"latin\.toml: .*utf-8"):
        load_config(tmp_path / "latin.toml")


@pytest.mark.parametrize("name", ["toy.toml", "flickr8k.toml", "b32_metaclip1.toml", "h14_worldwide.toml"])
def test_the_shipped_configurations_are_found_by_name_and_name_their_source(name: str) -> None:
    assert load_config(name).train.batch_size > 0
    assert "Source:" in (SHIPPED / name).read_text()


def test_the_published_figures() -> None:
    b32, h14 = load_config("b32_metaclip1.toml"), load_config("h14_worldwide.toml")
    assert (b32.train.batch_size, b32.optimizer.lr, b32.schedule.warmup, b32.optimizer.weight_decay) == (32768, 5e-4, 2000, 0.2)
    assert b32.train.steps * b32.train.batch_size == pytest.approx(12.8e9, rel=1e-4)
    assert (h14.optimizer.lr, h14.schedule.warmup, h14.optimizer.beta2, h14.optimizer.weight_decay) == (4e-4, 2000, 0.95, 0.1)
    assert h14.train.steps * h14.train.batch_size == pytest.approx(29e9, rel=1e-4)
