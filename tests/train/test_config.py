from __future__ import annotations

import pathlib
import re

import msgspec
import pytest
import torch

from train.config import SHIPPED, Config, InputError, load_config, parse
from train.distributed import join_ranks
from train.model import create_model, find_architecture, image_size

MINIMAL: dict[str, dict[str, object]] = {"model": {"name": "ViT-B-32"}, "train": {"steps": 10, "batch_size": 32}}


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("optimizer", {"lerning_rate": 1.0}, "unknown field `lerning_rate` - at `optimizer`"),
        ("optimizer", {"weigth_decay": 1.0}, "unknown field `weigth_decay` - at `optimizer`; did you mean optimizer.weight_decay?"),
        ("train", {"log_every": 10}, "unknown field `log_every` - at `train`"),
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
        ("model", {"unlocked_groups": 1}, "model.unlocked_groups needs model.lock_image"),
        ("model", {"lock_image": True, "unlocked_layers": 1}, "model.unlocked_layers needs model.lock_text"),
        ("checkpoint", {"best": "imagenet/en"}, "checkpoint.best must be task/language/metric, not imagenet/en"),
        ("checkpoint", {"best": "imagenet/en/accuracy"}, "checkpoint.best needs evaluate.every_samples"),
        ("train", {"parallel": "zero"}, "Invalid enum value 'zero' - at `train.parallel`"),
        ("schedule", {"warmup": 10}, "schedule.warmup (10) must be less than train.steps (10)"),
        ("evaluate", {"every_samples": 5}, "evaluate.every_samples needs evaluate.tasks"),
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


SEEN = {
    "b16_metaclip1.toml": 12.8e9,
    "b32_metaclip1.toml": 12.8e9,
    "b32_online.toml": 12.8e9,
    "bigg14_metaclip1.toml": 12.8e9,
    "finetune.toml": 256_000,
    "flickr8k.toml": 40_000,
    "h14_metaclip1.toml": 12.8e9,
    "h14_worldwide.toml": 29e9,
    "l14_metaclip1.toml": 12.8e9,
    "toy.toml": 38_400,
}


def test_these_configurations_are_shipped() -> None:
    assert sorted(file.name for file in SHIPPED.glob("*.toml")) == sorted(SEEN)


@pytest.mark.parametrize("name", sorted(SEEN))
def test_a_shipped_configuration_names_its_source_and_builds_its_model(name: str) -> None:
    config = load_config(name)
    assert "Source:" in (SHIPPED / name).read_text(encoding="utf-8")
    assert config.train.steps * config.train.batch_size == pytest.approx(SEEN[name], rel=1e-4)
    architecture = find_architecture(config.model, loss=config.train.loss)
    model = create_model(config.model, architecture, device="meta")
    side = image_size(model)
    with torch.device("meta"):
        output = model(torch.empty(2, 3, side, side), torch.zeros(2, architecture["text_cfg"]["context_length"], dtype=torch.int64))
    assert output["image_features"].shape == output["text_features"].shape == (2, architecture["embed_dim"])
    if not config.model.custom:
        assert config.model.name.endswith("-quickgelu")
        assert architecture["quick_gelu"] is True
        # On 8 to 512 GPUs of whole machines, fine-tuning on one or two, each of them has as many streams and pairs as the others.
        for ranks in (8, 16) if config.model.pretrained else (8, 16, 32, 64, 128, 256, 512):
            assert config.data.streams % ranks == config.train.batch_size % ranks == 0


@pytest.mark.parametrize(
    ("name", "model", "parameters"),
    [
        ("b32_metaclip1.toml", "ViT-B-32", 151.3),
        ("b16_metaclip1.toml", "ViT-B-16", 149.6),
        ("l14_metaclip1.toml", "ViT-L-14", 427.6),
        ("h14_metaclip1.toml", "ViT-H-14", 986.1),
        ("bigg14_metaclip1.toml", "ViT-bigG-14", 2539.6),
    ],
)
def test_the_published_figures_of_version_1(name: str, model: str, parameters: float) -> None:
    config = load_config(name)
    assert config.model.name == f"{model}-quickgelu"
    built = create_model(config.model, find_architecture(config.model, loss="clip"), device="meta")
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(parameters, abs=0.05)
    optimizer = config.optimizer
    assert (config.train.batch_size, config.schedule.warmup, optimizer.weight_decay) == (32768, 2000, 0.2)
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == (0.9, 0.98, 1e-6)
    assert optimizer.lr == (5e-4 if "ViT-B-" in model else 4e-4)


def test_the_published_figures_of_the_others() -> None:
    b32, online, h14 = (load_config(name) for name in ("b32_metaclip1.toml", "b32_online.toml", "h14_worldwide.toml"))
    assert online.data.curation == "online"
    assert msgspec.structs.replace(online, data=b32.data) == b32
    assert (h14.optimizer.lr, h14.schedule.warmup, h14.optimizer.beta2, h14.optimizer.weight_decay) == (4e-4, 2000, 0.95, 0.1)
    assert h14.train.precision == "bf16"
    assert find_architecture(h14.model, loss="clip")["text_cfg"]["hf_tokenizer_name"] == "facebook/xlm-v-base"


def test_a_path_that_is_mistyped_is_not_the_shipped_file_of_that_name(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no configuration at .*/toy\.toml"):
        load_config(tmp_path / "toy.toml")
    assert load_config("toy.toml").model.name == "toy"


def test_the_keys_that_the_documentation_names_are_there() -> None:
    tables = {table.name: table.type.__struct_fields__ for table in msgspec.structs.fields(Config)}
    documentation = (SHIPPED.parent.parent / "docs/training.md").read_text(encoding="utf-8")
    named = re.findall(rf"\b({'|'.join(tables)})\.([a-z_]+)\b", documentation.replace("log.jsonl", ""))
    assert len(set(named)) > 15
    assert [f"{table}.{key}" for table, key in named if key not in tables[table]] == []
    for command in re.findall(r"^    worldclip (.*)", documentation, re.MULTILINE):
        words = command.split()
        load_config(words[words.index("--config") + 1], overrides=words[words.index("--set") + 1 :])


def test_a_gpu_that_is_asked_for_and_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"train\.device is cuda, and torch finds no GPU"):
        join_ranks("cuda")
    assert join_ranks("auto").device.type == "cpu"
