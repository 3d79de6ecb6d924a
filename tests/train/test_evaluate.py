from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from train import evaluate as module
from train.config import InputError
from train.distributed import Ranks
from train.evaluate import embed, embed_classes, evaluate, hits_per_class

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


class Fake(torch.nn.Module):
    """Embeds an image as its mean colour and a text as the colour that its token names."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))
        self.visual = SimpleNamespace(preprocess_cfg={"size": 4, "mean": (0.0,) * 3, "std": (1.0,) * 3})

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)), dim=-1)

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.eye(3)[tokens[:, 0]]


def tokenizer(texts: list[str]) -> torch.Tensor:
    return torch.tensor([["red", "green", "blue"].index(text.split()[-1]) for text in texts])[:, None]


ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))


def test_the_nearest_class_counts_and_of_equally_near_ones_the_first() -> None:
    images = torch.eye(3)[[0, 0, 1, 0, 2]]
    classes = embed_classes(Fake(), tokenizer, [["red", "so red"], ["green"], ["blue"], ["blue"]])
    assert hits_per_class(images, [0, 0, 1, 1, 3], classes).tolist() == [2, 1, 0, 0]
    assert hits_per_class(images, [0, 0, 1, 1, 2], classes).tolist() == [2, 1, 1, 0]
    assert hits_per_class(torch.empty(0), [], classes).tolist() == [0, 0, 0, 0]


def test_batches_do_not_change_the_embeddings() -> None:
    images = [torch.full((3, 4, 4), float(i + 1)) * torch.tensor([1.0, i, 7.0])[:, None, None] for i in range(10)]
    whole, in_threes = (embed(Fake(), Fake().encode_image, torch.stack, images, batch) for batch in (256, 3))
    torch.testing.assert_close(in_threes, whole)
    assert whole.shape == (10, 3)


def test_classes_are_embedded_as_open_clip_does_it() -> None:
    model = open_clip.CLIP(
        8, {"image_size": 8, "patch_size": 4, "width": 8, "head_width": 8, "layers": 1}, {"width": 8, "heads": 1, "layers": 1}
    )
    words, templates = ["cat", "собака", "猫"], ["a photo of a {}.", "{}!"]
    tokenize = open_clip.SimpleTokenizer()
    ours = embed_classes(model, tokenize, [[t.format(w) for t in templates] for w in words])
    torch.testing.assert_close(ours, open_clip.build_zero_shot_classifier(model, tokenize, words, templates).T)
    uneven = embed_classes(model, tokenize, [["a", "b", "c"], ["a"], ["b", "c"]])
    torch.testing.assert_close(uneven[1], model.encode_text(tokenize(["a"]), normalize=True)[0].detach())


def test_hits_against_a_loop() -> None:
    rng = np.random.default_rng(3)
    images, classes, labels = rng.normal(size=(50, 6)), rng.normal(size=(4, 6)), rng.integers(0, 4, 50)
    expected = [sum(int(np.argmax([images[i] @ k for k in classes])) == c == labels[i] for i in range(50)) for c in range(4)]
    assert hits_per_class(torch.from_numpy(images), labels.tolist(), torch.from_numpy(classes)).tolist() == expected
    assert sum(expected) > 0


@pytest.fixture
def held_out(tmp_path: pathlib.Path) -> pathlib.Path:
    for label in (0, 1, 10):
        (tmp_path / f"images/{label}").mkdir(parents=True)
    for label, name, colour in ((0, "a.png", 0), (1, "a.png", 1), (1, "b.jpg", 0), (10, "a.png", 2)):
        Image.new("RGB", (6, 6), COLOURS[colour]).save(tmp_path / f"images/{label}/{name}")
    return tmp_path


def test_folders_and_languages(held_out: pathlib.Path) -> None:
    classes = [["red"], ["green"], *[["green"]] * 8, ["blue"]]
    named = {"names": ["red", "red", *["red"] * 8, "blue"], "templates": ["the {}", "{}"]}
    (held_out / "prompts.json").write_text(json.dumps({"en": classes, "xx": named}))
    found = evaluate(Fake(), tokenizer, str(held_out / "images"), str(held_out / "prompts.json"), ALONE)
    assert found["en"] == {"accuracy": 0.75, "per_class": [1.0, 0.5, *[None] * 8, 1.0]}
    assert found["xx"] == {"accuracy": 0.5, "per_class": [1.0, 0.0, *[None] * 8, 1.0]}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_ranks_share_the_images_and_all_get_the_whole_result(held_out: pathlib.Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (held_out / "prompts.json").write_text(json.dumps({"en": [["red"], ["green"], *[["green"]] * 8, ["blue"]]}))
    files = str(held_out / "images"), str(held_out / "prompts.json")
    whole = evaluate(Fake(), tokenizer, *files, ALONE)
    opened, hits = list[str](), list[list[float]]()

    class Listening(Ranks):
        """Keeps what a rank brings; answers with what all of them brought, once that is known."""

        def sum(self, values: Iterable[float | torch.Tensor]) -> list[float]:
            hits.append([float(value) for value in values])
            return [sum(column) for column in zip(*hits[:count], strict=True)]

    real = Image.open
    monkeypatch.setattr(module.Image, "open", lambda file: opened.append(str(file)) or real(file))
    ranks = [Listening(rank=rank, count=count, device=torch.device("cpu")) for rank in range(count)]
    found = [evaluate(Fake(), tokenizer, *files, rank) for rank in ranks]
    assert found[-1] == whole
    assert sorted(opened) == sorted(str(file) for file in (held_out / "images").glob("*/*"))


def test_what_is_missing_is_named(held_out: pathlib.Path) -> None:
    prompts = held_out / "prompts.json"
    prompts.write_text('{"en": [["red"], ["green"]]}')
    with pytest.raises(InputError, match="en needs prompts for each of the 11 classes"):
        evaluate(Fake(), tokenizer, str(held_out / "images"), str(prompts), ALONE)
    with pytest.raises(InputError, match="no image in"):
        evaluate(Fake(), tokenizer, str(held_out), str(prompts), ALONE)


def test_the_command_writes_what_it_prints(
    held_out: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (held_out / "prompts.json").write_text(json.dumps({"en": [["red"]] * 11}))
    monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained, **_: Fake())
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: tokenizer)
    arguments = ["--images", str(held_out / "images"), "--prompts", str(held_out / "prompts.json"), "--output", str(held_out / "out.json")]
    monkeypatch.setattr(sys, "argv", ["evaluate", "--model", "any", *arguments])
    module.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((held_out / "out.json").read_text())
    assert printed["en"]["accuracy"] == 0.25
    monkeypatch.setattr(sys, "argv", ["evaluate", "--model", "any", "--images", "nowhere", *arguments[2:]])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
