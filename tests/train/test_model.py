"""Where a model's weights start from, and which of them are trained."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch

from tests.train.tiny import read_log
from train.config import Config, InputError, ModelConfig
from train.distributed import Ranks
from train.loop import Run, train
from train.model import count_flops, create_model, create_tokenizer, find_architecture, load_pretrained

Make = Callable[..., Config]
NOWHERE = "no file, no folder with open_clip_model.safetensors or checkpoints/step-*.pt, and no tag"
ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(config: Make, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    output = tmp_path_factory.mktemp("trained")
    train(config(train={"steps": 3}), output)
    return output


def weights(output: pathlib.Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(output / "open_clip_model.safetensors")


@pytest.mark.parametrize("source", [".", "open_clip_model.safetensors", "checkpoints/step-0000000003.pt", "plain.pt"])
def test_a_run_starts_from_local_weights(config: Make, trained: pathlib.Path, tmp_path: pathlib.Path, source: str) -> None:
    torch.save(weights(trained), trained / "plain.pt")
    run = Run(config(model={"pretrained": str(trained / source)}, train={"seed": 7}), tmp_path, ALONE)
    assert run.step == 0
    expected = weights(trained)
    assert {key: value.tolist() for key, value in run.model.state_dict().items()} == {
        key: expected[key].reshape(value.shape).tolist() for key, value in run.model.state_dict().items()
    }


def test_a_folder_without_a_model_yet_gives_its_newest_checkpoint(config: Make, trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    for step, factor in ((9, 1.0), (10, 2.0)):
        state = {key: value * factor for key, value in weights(trained).items()}
        torch.save({"state_dict": state}, tmp_path / f"other/checkpoints/step-{step:010d}.pt")
    run = Run(config(model={"pretrained": str(tmp_path / "other")}), tmp_path / "run", ALONE)
    assert torch.equal(run.model.visual.proj, 2 * weights(trained)["visual.proj"])


def test_the_start_is_used_at_step_0_alone_and_told_apart(config: Make, trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "start.safetensors"
    source.write_bytes((trained / "open_clip_model.safetensors").read_bytes())
    made = config(model={"pretrained": str(source)}, train={"steps": 4}, checkpoint={"every": 2})
    train(made, tmp_path / "whole")
    source.unlink()
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    (tmp_path / "resumed/checkpoints/step-0000000004.pt").unlink()
    train(made, tmp_path / "resumed")
    assert read_log(tmp_path / "resumed") == read_log(tmp_path / "whole")
    assert {key: value.tolist() for key, value in weights(tmp_path / "resumed").items()} == {
        key: value.tolist() for key, value in weights(tmp_path / "whole").items()
    }
    with pytest.raises(InputError, match=r"of another run \(model\.pretrained was '.*start\.safetensors' and is ''\)"):
        train(config(train={"steps": 4}), tmp_path / "resumed")


def test_weights_of_another_architecture_are_refused_by_the_key(config: Make, trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    custom = config().model.custom

    def refused(pretrained: pathlib.Path, **changes: Any) -> str:
        with pytest.raises(InputError) as caught:
            train(config(model={"pretrained": str(pretrained), "custom": {**custom, **changes}}), tmp_path / "run")
        return str(caught.value)

    file = trained / "open_clip_model.safetensors"
    deeper = refused(file, text_cfg={**custom["text_cfg"], "layers": 2})
    assert deeper.startswith(f"model.pretrained: {file} does not fit the model tiny (RuntimeError: ")
    assert 'Missing key(s) in state_dict: "transformer.resblocks.1.ln_1.weight"' in deeper
    assert "size mismatch for text_projection: copying a param with shape" in refused(file, embed_dim=16)
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-100])
    assert "cut.safetensors does not fit the model tiny (SafetensorError: " in refused(tmp_path / "cut.safetensors")
    (tmp_path / "cut.pt").write_bytes((trained / "checkpoints/step-0000000003.pt").read_bytes()[:5000])
    assert "cut.pt does not fit the model tiny (" in refused(tmp_path / "cut.pt")
    assert refused(tmp_path) == f"model.pretrained: {tmp_path} is {NOWHERE}; open_clip's tags for tiny: none"


def test_no_code_is_run_from_weights(config: Make, tmp_path: pathlib.Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt does not fit"):
        train(config(model={"pretrained": str(tmp_path / "evil.pt")}), tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_published_weights_go_by_their_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, tag: str) -> str:
        config = ModelConfig(name=name, pretrained=tag)
        with pytest.raises(InputError) as caught:
            load_pretrained(None, config, find_architecture(config, loss="clip"))
        return str(caught.value)

    tags = "openai, laion400m_e31, laion400m_e32, metaclip_400m, metaclip_fullcc"
    assert refused("ViT-B-32-quickgelu", "metaclip") == (
        f"model.pretrained: metaclip is {NOWHERE}; open_clip's tags for ViT-B-32-quickgelu: {tags}"
    )
    assert "differ in QuickGELU" in refused("ViT-B-32", "metaclip_400m")

    def download(published: dict[str, Any]) -> str:
        raise FileNotFoundError("Failed to download")

    monkeypatch.setattr(open_clip, "download_pretrained", download)
    told = refused("ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide")
    assert "`hf download timm/vit_huge_patch14_clip_224.metaclip2_worldwide open_clip_model.safetensors --local-dir FOLDER`" in told


@pytest.mark.parametrize("name", ["B-32", "B-16", "L-14", "H-14", "bigG-14"])
def test_metaclips_weights_are_known_for_the_names_of_the_recipes(name: str) -> None:
    assert "metaclip_fullcc" in open_clip.list_pretrained_tags_by_model(f"ViT-{name}-quickgelu")


@pytest.mark.parametrize(
    ("model", "trained"),
    [
        ({"lock_image": True}, "text"),
        ({"lock_text": True}, "visual"),
        ({"lock_image": True, "unlocked_groups": 1}, "text visual.proj"),
        ({"lock_image": True, "lock_text": True, "unlocked_layers": 1}, "text_projection"),
        ({"lock_image": True, "lock_text": True}, ""),
    ],
)
@pytest.mark.parametrize("passes", [1, 2])
def test_what_is_locked_stays_as_it_is(config: Make, tmp_path: pathlib.Path, model: dict[str, Any], trained: str, passes: int) -> None:
    made = config(model=model, train={"steps": 2, "accumulation": passes})
    run = Run(made, tmp_path / "before", ALONE)
    before = {key: value.clone().squeeze() for key, value in run.model.state_dict().items()}
    train(made, tmp_path / "after")
    changed = {key for key, value in weights(tmp_path / "after").items() if not torch.equal(value.squeeze(), before[key])}
    kinds = trained.split()
    if "text" in kinds:
        kinds += [key for key in before if not key.startswith("visual.")]
    expected = {key for key in before if key == "logit_scale" or any(key.startswith(kind) for kind in kinds if kind != "text")}
    assert changed == expected
    assert {id(p) for group in run.optimizer.param_groups for p in group["params"]} == {
        id(parameter) for name, parameter in run.model.named_parameters() if name in expected
    }


def test_a_locked_run_goes_on_and_cannot_be_unlocked(config: Make, tmp_path: pathlib.Path) -> None:
    model = {"lock_image": True}
    train(config(model=model, train={"steps": 4}), tmp_path / "whole")
    whole = read_log(tmp_path / "whole")
    train(config(model=model, train={"steps": 6}), tmp_path / "whole")
    assert read_log(tmp_path / "whole")[:4] == whole
    with pytest.raises(InputError, match=r"of another run \(model\.lock_image was True and is False\)"):
        train(config(train={"steps": 6}), tmp_path / "whole")


def test_the_flops_of_a_pair_are_those_of_its_matrices() -> None:
    config = ModelConfig(name="ViT-B-32-quickgelu")
    architecture = find_architecture(config, loss="clip")

    def transformer(tokens: int, width: int, layers: int) -> int:
        """Forward: query, key, value, output and the two of the MLP, and attention's two products with all tokens."""
        return layers * (2 * tokens * width * width * 12 + 2 * 2 * tokens * tokens * width)

    patches = 2 * 49 * 768 * 3 * 32 * 32
    image, text = transformer(50, 768, 12) + 2 * 768 * 512, transformer(77, 512, 12) + 2 * 512 * 512
    # Backward is twice forward, but images need no gradient.
    assert count_flops(config, architecture) == pytest.approx((3 * image + 2 * patches, 3 * text), rel=1e-3)
    locked = ModelConfig(name="ViT-B-32-quickgelu", lock_image=True)
    assert count_flops(locked, architecture) == pytest.approx((image + patches, 3 * text), rel=1e-3)


def test_the_scale_of_a_model_has_the_one_dimension_that_fsdp_needs(config: Make) -> None:
    model = create_model(config().model, find_architecture(config().model, loss="siglip"))
    assert (model.logit_scale.shape, model.logit_bias.shape) == ((1,), (1,))


def preprocessing(**model: Any) -> tuple[Any, Any, Any]:
    config = ModelConfig(**model)
    found = create_model(config, find_architecture(config, loss="clip"), device="meta").visual.preprocess_cfg
    return tuple(found["mean"]), tuple(found["std"]), found["resize_mode"]


def test_published_weights_get_images_as_they_were_trained_on(tmp_path: pathlib.Path) -> None:
    clip = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, "shortest")
    assert preprocessing(name="ViT-B-32-quickgelu", pretrained="metaclip_400m") == clip
    assert preprocessing(name="ViT-B-16-SigLIP", pretrained="webli") == ((0.5,) * 3, (0.5,) * 3, "squash")
    assert preprocessing(name="ViT-B-16-SigLIP") == clip
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "size": 999}}')
    for given in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        assert preprocessing(name="ViT-B-32", pretrained=str(given)) == ((0.1, 0.2, 0.3), *clip[1:])


class Words:
    """A tokenizer of Hugging Face's kind, which ends each text with token 2 and pads with 1."""

    def __init__(self, source: str, **options: Any) -> None:
        self.context = options["context_length"]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[0, *(3 + len(word) for word in text.split()), 2] for text in texts]
        return torch.tensor([row + [1] * (self.context - len(row)) for row in rows])


def test_a_tokenizer_of_ones_own_is_looked_for_beside_the_model_and_must_end_texts_as_it_pools(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", Words)
    custom = config().model.custom

    def pooled(**text: Any) -> dict[str, Any]:
        model = ModelConfig(name="tiny", tokenizer="/data/words", custom={**custom, "text_cfg": {**custom["text_cfg"], **text}})
        architecture = find_architecture(model, loss="clip")
        assert create_tokenizer(model, architecture)(["one three"]).tolist() == [[0, 6, 8, 2, *[1] * 8]]
        return architecture

    assert pooled(pool_type="eos", eos_id=2)["text_cfg"]["hf_tokenizer_name"] == "words"
    with pytest.raises(InputError, match=r"/data/words does not end texts with the token with the greatest number, which tiny"):
        pooled()
    with pytest.raises(InputError, match=r"does not end texts with token 99, which tiny pools: set pool_type"):
        pooled(pool_type="eos", eos_id=99)
