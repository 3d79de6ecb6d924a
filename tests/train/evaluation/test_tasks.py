from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from tests.train.evaluation.tiny_sets import ALONE, BLAU, COLOURS, GRUEN, ROT, WORDS, Fake, picture, tokenizer, write, write_cvqa, write_tar
from train.config import InputError
from train.distributed import Ranks
from train.evaluation import embedding
from train.evaluation.embedding import Embedder, share
from train.evaluation.layouts import Flickr
from train.evaluation.tasks import Task, evaluate, load_tasks, retrieval


def measured(*tables: dict[str, Any], ranks: Ranks = ALONE) -> dict[str, Any]:
    found = evaluate(Fake(), tokenizer, load_tasks(tables), ranks)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


@pytest.fixture
def folders(tmp_path: pathlib.Path) -> dict[str, Any]:
    """Four images of the classes 0, 1 and 10 of 11; one of class 1 is red, as class 0 is."""
    for place, colour in (("0/a.png", "red"), ("1/a.png", "green"), ("1/b.png", "red"), ("10/a.png", "blue")):
        write(tmp_path / "images" / place, picture(colour))
    names = {"en": [["so red", "red"], "green", *["green"] * 8, "blue"], "de": [ROT] * 11}
    return {"name": "x", "layout": "folders", "images": f"{tmp_path}/images", "names": write(tmp_path / "names.json", names)}


def test_classification_of_numbered_classes_in_two_languages(folders: dict[str, Any]) -> None:
    counts = {"images": 4, "excluded": 0}
    # The green image is as near to nine classes. To the red image of a green class all are as far but the red one. In German all are alike.
    english = {"accuracy": (1 + 1 / 9 + 1) / 4, "accuracy@5": (1 + 5 / 9 + 4 / 10 + 1) / 4, "mean_class_accuracy": (1 + 1 / 18 + 1) / 3}
    german = {"accuracy": 1 / 11, "accuracy@5": 5 / 11, "mean_class_accuracy": 1 / 11}
    found = measured({**folders, "per_class": True})["x"]
    shares = {language: figures.pop("per_class") for language, figures in found.items()}
    assert found == {"en": pytest.approx({**english, **counts}), "de": pytest.approx({**german, **counts})}
    assert shares["en"] == pytest.approx([1, 1 / 18, *[None] * 8, 1])
    assert measured({**folders, "languages": ["de"]}) == {"x": {"de": found["de"]}}


def named(tmp_path: pathlib.Path) -> dict[str, Any]:
    for place, colour in (("dark_red/a.png", "red"), ("green/a.png", "green"), ("new_blue/b.png", "blue"), ("new_blue/c.png", "green")):
        write(tmp_path / "named" / place, picture(colour))
    return {"name": "x", "layout": "folders", "images": f"{tmp_path}/named"}


def test_names_of_folders_are_the_classes_names_unless_others_are_given(tmp_path: pathlib.Path) -> None:
    right = {"accuracy": 0.75, "mean_class_accuracy": pytest.approx(2.5 / 3), "images": 4, "excluded": 0}
    assert measured(named(tmp_path)) == {"x": {"en": right}}
    texts = {
        "names": write(tmp_path / "names.txt", f"{ROT}\n{GRUEN}\n{BLAU}\n"),
        "templates": write(tmp_path / "t.txt", "ein {}\n{c}, gut\n"),
    }
    assert measured({**named(tmp_path), **texts, "language": "de"}) == {"x": {"de": right}}


def test_babel_imagenet_has_some_classes_in_some_languages(tmp_path: pathlib.Path) -> None:
    names = write(tmp_path / "babel.json", {"DE": [[2, 0], [BLAU, ROT]], "FR": [[1], ["green"]], "XX": [[1], ["?"]]})
    templates = write(tmp_path / "prompts.json", {"DE": ["ein Bild: {}"], "FR": ["{}", "photo {}"]})
    table = {**named(tmp_path), "names": names, "templates": templates, "languages": ["DE", "FR"]}
    # Of the two images of the third class the second is green: as far from red as from blue.
    assert measured(table) == {
        "x": {
            "DE": {"accuracy": 2.5 / 3, "mean_class_accuracy": (1 + 0.75) / 2, "images": 3, "excluded": 0},
            "FR": {"accuracy": 1.0, "mean_class_accuracy": 1.0, "images": 1, "excluded": 0},
        }
    }


def test_imagenet_in_english_is_open_clips(tmp_path: pathlib.Path) -> None:
    files = {f"{i}.{kind}": str(i).encode() for i in (3, 999) for kind in ("cls", "jpg")}
    table = {
        "name": "x",
        "layout": "webdataset",
        "shards": write_tar(tmp_path / "0.tar", files),
        "names": "imagenet",
        "templates": "imagenet",
    }
    [task] = load_tasks([table])
    asked: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return np.ones((len(texts), 3))

    task.languages["en"].measure(np.eye(2, 3), np.array([0, 1]), embed)
    assert asked == [fill(name) for name in open_clip.IMAGENET_CLASSNAMES for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]


@pytest.fixture
def captioned(tmp_path: pathlib.Path) -> dict[str, Any]:
    lines = []
    for number, colour in enumerate(COLOURS):
        write(tmp_path / f"images/{number}.jpg", picture(colour))
        lines.append({"image/key": str(number), "en": {"caption": [f"a {colour}", f"so {colour}"]}, "de": {"caption": [WORDS[number]]}})
    lines[2]["de"] = {"caption": [ROT]}
    file = write(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, lines)))
    return {"name": "y", "layout": "crossmodal3600", "images": f"{tmp_path}/images", "captions": file}


def recalls(first: float, text_to_image: float) -> dict[str, Any]:
    values = {"image_to_text": first, "text_to_image": text_to_image}
    return {f"{way}@{k}": value if k == 1 else 1.0 for way, value in values.items() for k in (1, 5, 10)} | {"images": 3, "excluded": 0}


def test_retrieval(captioned: dict[str, Any]) -> None:
    # In German the blue image is called red. Of two equal texts the red image finds its own in half the orders; all texts are as far from
    # the blue image; the text that is meant for it finds the red one.
    german = recalls(pytest.approx((1 / 2 + 1 + 1 / 3) / 3), pytest.approx(2 / 3))
    assert measured(captioned) == {"y": {"en": recalls(1.0, 1.0), "de": german}}


def test_multiple_choice(tmp_path: pathlib.Path) -> None:
    german = "('German', 'Germany')"
    rows = [
        (german, "Welche?", [ROT, BLAU], 1, "blue"),
        (german, "Und?", [ROT, GRUEN, BLAU], 0, "green"),
        (german, "?", [ROT, ROT], 1, "red"),
    ]
    table = {"name": "z", "layout": "cvqa", "files": write_cvqa(tmp_path / "a.parquet", rows)}
    expected = {"German, Germany": {"accuracy": 0.5, "questions": 3, "images": 3, "excluded": 0}}
    assert measured(table, {**table, "name": "in English", "translated": True}) == {"z": expected, "in English": expected}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_ranks_share_the_work_and_all_get_the_whole(
    folders: dict[str, Any], captioned: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = load_tasks([folders, captioned])
    alone = evaluate(Fake(), tokenizer, tasks, ALONE)
    gathered: list[list[torch.Tensor]] = []
    calls = 0

    def all_gather(shares: list[torch.Tensor], mine: torch.Tensor) -> None:
        """The n-th call of each rank meets those of the others; the last rank to run sees all of them."""
        nonlocal calls
        if calls == len(gathered):
            gathered.append([])
        gathered[calls].append(mine)
        calls += 1
        filled = [*gathered[calls - 1], *[mine] * count][:count]
        for place, part in zip(shares, filled, strict=True):
            place.copy_(part)

    monkeypatch.setattr(embedding.dist, "all_gather", all_gather)
    monkeypatch.setattr(embedding, "BATCH", 2)
    for rank in range(count):
        calls = 0
        found = evaluate(Fake(), tokenizer, tasks, Ranks(rank=rank, count=count, device=torch.device("cpu")))
    assert found == alone
    assert all(len({len(part) for part in parts}) == 1 for parts in gathered)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (1, 3), (5, 2), (6, 3), (7, 4), (9, 8)])
def test_shares_are_equally_large_and_together_everything_in_order(n: int, count: int) -> None:
    shares = [share(range(n), Ranks(rank=rank, count=count, device=torch.device("cpu"))) for rank in range(count)]
    assert len({len(of_rank) for of_rank in shares}) == 1
    joined = [item for of_rank in shares for item in of_rank]
    assert joined[:n] == [*range(n)]
    assert set(joined[n:]) <= {n - 1}


def test_batches_do_not_change_the_embeddings(folders: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    [task] = load_tasks([folders])
    embedder = Embedder(Fake(), tokenizer, ALONE)
    whole, texts = embedder.images(task.pictures)[0], embedder.texts(["red", "blue", "green"])
    assert (whole.shape, whole.dtype) == ((4, 3), np.float32)
    assert texts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    monkeypatch.setattr(embedding, "BATCH", 1)
    np.testing.assert_array_equal(embedder.images(task.pictures)[0], whole)
    np.testing.assert_array_equal(embedder.texts(["red", "blue", "green"]), texts)


def test_the_model_is_left_in_the_mode_it_was_in(folders: dict[str, Any]) -> None:
    model = Fake()
    for mode in (True, False):
        model.train(mode)
        evaluate(model, tokenizer, load_tasks([folders]), ALONE)
        assert model.training == mode
    assert model.modes == [False, False]


def test_broken_images_are_excluded_counted_and_named(
    folders: dict[str, Any], captioned: dict[str, Any], tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [{**folders, "languages": ["en"]}, captioned]
    write(tmp_path / "images/1/b.png", picture("red")[:45])
    write(tmp_path / "images/1.jpg", b"")
    with caplog.at_level(logging.ERROR, logger="train"):
        found = measured(*tasks)
    cut = "image file is truncated"
    assert caplog.messages == [f"broken image: {tmp_path}/images/{what}" for what in (f"1/b.png: {cut}", "1.jpg: not an image")]
    assert found["x"]["en"] == pytest.approx(
        {"accuracy": (2 + 1 / 9) / 3, "accuracy@5": (2 + 5 / 9) / 3, "mean_class_accuracy": (2 + 1 / 9) / 3, "images": 3, "excluded": 1}
    )
    assert found["y"]["en"] == {**recalls(1.0, 1.0), "images": 2, "excluded": 1}
    # Left are the red and the blue image, both called red.
    assert found["y"]["de"] == {**recalls(0.5, 0.5), "images": 2, "excluded": 1}
    write(tmp_path / "images/0/a.png", b"")
    with pytest.raises(InputError, match="2 of 4 images of the task x, en, are broken; the log names them"):
        measured(*tasks)


def refused(*tables: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_tasks(tables)
    return str(caught.value)


def test_what_is_wrong_with_a_task_is_said_before_anything_is_embedded(folders: dict[str, Any], tmp_path: pathlib.Path) -> None:
    names = folders["names"]
    assert refused(folders, folders) == "task x: another task has the same name"
    assert refused({"layout": "coco", "images": "", "captions": ""}) == "task 1: Object missing required field `name`"
    assert refused({"name": "x"}) == "task x: Object missing required field `layout`"
    assert refused({**folders, "layout": "folder"}) == "task x: Invalid value 'folder' - at `$.layout`"
    assert refused({**folders, "imagse": ""}) == "task x: Object contains unknown field `imagse`"
    assert refused({**folders, "languages": ["en", "fr"]}) == "task x: there is no language 'fr'; there are en, de"
    assert refused({**folders, "names": ""}) == "task x: the classes are numbers: give the file with their `names`"
    for content, told in (
        ({"en": ["red", "green"]}, "en: there must be a name for each of the 11 classes, not for 2"),
        ({"en": [["red"], [], *["x"] * 9]}, "en: there must be a name for each of the 11 classes, not for 11"),
        ({"en": [[0, 11], ["red", "x"]]}, "en: there must be a name for each of the 11 classes, not for 2"),
        ({"en": [[0, 1], ["red"]]}, "en, cannot be read in this layout (ValueError"),
        ({"en": 5}, "en, cannot be read in this layout (TypeError"),
        ([1], " cannot be read in this layout (TypeError"),
        ("{", " cannot be read in this layout (JSONDecodeError"),
    ):
        write(pathlib.Path(names), content)
        assert refused(folders).startswith(f"task x: {names}"), told
        assert told in refused(folders)
    write(pathlib.Path(names), {"en": ["red"] * 11})
    for text in ("a photo\n", ""):
        templates = write(tmp_path / "templates.txt", text)
        told = f"task x: {templates}, en: there must be templates, each with {{}} in the place of the name"
        assert refused({**folders, "templates": templates}) == told
    more = write(tmp_path / "four.txt", "\n".join(["red", "green", "blue", "x"]))
    told = f"task x: {more}, en: there must be a name for each of the 3 classes, not for 4"
    assert refused({**named(tmp_path), "names": more}) == told
    rare = write(tmp_path / "rare.json", {"de": [[3], ["x"]]})
    assert refused({**folders, "names": rare}) == "task x: no image in de: `languages` chooses those that are wanted"


def test_real_photos_and_captions(shared_data: pathlib.Path) -> None:
    """A model that embeds at random finds about as much as chance."""
    torch.manual_seed(1)
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1}
    model = open_clip.CLIP(16, vision, {"context_length": 20, "width": 16, "heads": 2, "layers": 1})
    model.visual.preprocess_cfg = {"size": 16, "mode": "RGB", "mean": (0.5,) * 3, "std": (0.3,) * 3, "interpolation": "bicubic"}
    flickr = shared_data / "images/flickr8k"
    pictures, captions = Flickr(name="f", images=f"{flickr}/images", captions=f"{flickr}/captions.csv").read()
    task = Task("f", pictures[:100], {"en": retrieval(captions["en"][:500])})
    figures = evaluate(model, open_clip.SimpleTokenizer(context_length=20), [task], ALONE)["f"]["en"]
    assert (figures["images"], figures["excluded"]) == (100, 0)
    assert 0 < figures["image_to_text@10"] < 0.4
    assert 0 < figures["text_to_image@10"] < 0.3
