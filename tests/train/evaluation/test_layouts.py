from __future__ import annotations

import pathlib
import re
import tomllib
from typing import Any

import msgspec
import pytest

from tests.train.evaluation.tiny_sets import BLAU, GRUEN, ROT, picture, write, write_cvqa, write_tar
from train.config import InputError
from train.evaluation.layouts import AnyLayout, Coco, Crossmodal3600, Cvqa, Flickr, Folders, WebDataset


def of_folders(task: Folders | WebDataset) -> list[tuple[str, bytes, str]]:
    return [(image.name.rpartition("/")[2], image.read(), label) for image, label in task.read()]


def test_a_folder_of_class_folders(tmp_path: pathlib.Path) -> None:
    for name in ("n02/b.JPEG", "n02/a.JPEG", "n01/c.JPEG", "n01/.DS_Store", "readme.txt"):
        write(tmp_path / name, name)
    found = of_folders(Folders(name="x", images=str(tmp_path)))
    assert found == [("c.JPEG", b"n01/c.JPEG", "n01"), ("a.JPEG", b"n02/a.JPEG", "n02"), ("b.JPEG", b"n02/b.JPEG", "n02")]


@pytest.mark.parametrize(
    "labels",
    [
        "val_1.JPEG 3\nval_2.JPEG 1\n",
        "ImageId,PredictionString\nval_2,1 85 1 499 272 1 9 9 9 9\nval_1,3 0 0 1 1\n",
        "val_1.JPEG\t3\n\nval_2.JPEG\t1",
    ],
)
def test_a_flat_folder_with_a_file_of_labels(tmp_path: pathlib.Path, labels: str) -> None:
    for name in ("val_1.JPEG", "val_2.JPEG", "val_3.JPEG"):
        write(tmp_path / "val" / name, name)
    found = of_folders(Folders(name="x", images=f"{tmp_path}/val", labels=write(tmp_path / "labels.txt", labels)))
    assert sorted(found) == [("val_1.JPEG", b"val_1.JPEG", "3"), ("val_2.JPEG", b"val_2.JPEG", "1")]


def test_webdataset_shards(tmp_path: pathlib.Path) -> None:
    first = {"s0001.cls": b"2\n", "s0001.jpg": b"one", "s0002.webp": b"two", "s0002.cls": b"0", "s0002.json": b"{}"}
    write_tar(tmp_path / "test/0.tar", first)
    write_tar(tmp_path / "test/1.tar", {"a/s0001.png": b"three", "a/s0001.cls": b"1"})
    found = of_folders(WebDataset(name="x", shards=str(tmp_path)))
    assert found == [("0.tar, s0001.jpg", b"one", "2"), ("0.tar, s0002.webp", b"two", "0"), ("s0001.png", b"three", "1")]
    assert of_folders(WebDataset(name="x", shards=f"{tmp_path}/test/0.tar")) == found[:2]


def captions(task: Flickr | Coco | Crossmodal3600) -> dict[str, list[tuple[str, str]]]:
    pictures, of_language = task.read()
    return {lang: [(pictures[image].read().decode(), text) for image, text in given] for lang, given in of_language.items()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Flickr8k.token.txt", "b.jpg#0\tA dog, wet .\na.jpg#0\tA cat .\nb.jpg#1\tTwo | dogs\n"),
        ("captions.csv", 'image,caption\nb.jpg,"A dog, wet ."\na.jpg,A cat .\nb.jpg,Two | dogs\n'),
        ("results.csv", "image_name| comment_number| comment\nb.jpg| 0| A dog, wet .\na.jpg| 0| A cat .\nb.jpg| 1|Two / dogs\n"),
    ],
)
def test_flickr(tmp_path: pathlib.Path, name: str, text: str) -> None:
    for image in ("a.jpg", "b.jpg"):
        write(tmp_path / "images" / image, image)
    task = Flickr(name="x", images=f"{tmp_path}/images", captions=write(tmp_path / name, text), language="fr")
    last = "Two / dogs" if name == "results.csv" else "Two | dogs"
    assert captions(task) == {"fr": [("b.jpg", "A dog, wet ."), ("a.jpg", "A cat ."), ("b.jpg", last)]}


KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val2014", "filename": "b.jpg", "cocoid": 7, "split": "test", "sentences": [{"raw": "A dog."}, {"raw": "Wet. "}]},
        {"filepath": "val2014", "filename": "c.jpg", "cocoid": 9, "split": "restval", "sentences": [{"raw": "Never."}]},
    ],
}


def test_coco(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "val2014/b.jpg", "b")
    write(tmp_path / "val2014/a.jpg", "a")
    images = [{"id": 7, "file_name": "b.jpg", "height": 4}, {"id": 8, "file_name": "a.jpg", "height": 4}]
    annotations = [{"image_id": 8, "id": 1, "caption": "A cat."}, {"image_id": 7, "id": 2, "caption": "A dog.\n"}]
    own = write(tmp_path / "captions_val2014.json", {"info": {}, "images": images, "annotations": annotations})
    assert captions(Coco(name="x", images=f"{tmp_path}/val2014", captions=own)) == {"en": [("a", "A cat."), ("b", "A dog.")]}
    split = write(tmp_path / "dataset_coco.json", KARPATHY)
    assert captions(Coco(name="x", images=str(tmp_path), captions=split)) == {"en": [("b", "A dog."), ("b", "Wet.")]}


def test_crossmodal3600(tmp_path: pathlib.Path) -> None:
    lines = [
        '{"image/key": "000a", "image/locale": "fi", "en": {"caption": ["A cat", "Cats"], "caption/x": ["a"]}, "fi": {"caption": ["K"]}}',
        '{"image/key": "000b", "image/locale": "en", "en": {"caption": ["A dog"]}, "fi": {"caption": ["Koira", "Märkä"]}}',
    ]
    for key in ("000a", "000b"):
        write(tmp_path / f"images/{key}.jpg", key)
    task = Crossmodal3600(name="x", images=f"{tmp_path}/images", captions=write(tmp_path / "captions.jsonl", "\n".join(lines) + "\n"))
    assert captions(task) == {
        "en": [("000a", "A cat"), ("000a", "Cats"), ("000b", "A dog")],
        "fi": [("000a", "K"), ("000b", "Koira"), ("000b", "Märkä")],
    }


def test_cvqa(tmp_path: pathlib.Path) -> None:
    german, swiss = "('German', 'Germany')", "('German', \"Côte d'Or\")"
    rows = [
        (german, "Welche?", [ROT, BLAU], 1, "blue"),
        (swiss, "Und?", [ROT, GRUEN, BLAU], 0, "red"),
        (german, "Was?", [GRUEN, ROT], 0, "green"),
    ]
    write_cvqa(tmp_path / "data/test-00000-of-00002.parquet", rows)
    write_cvqa(tmp_path / "data/test-00001-of-00002.parquet", rows[:1])
    pictures, questions = Cvqa(name="x", files=str(tmp_path)).read()
    assert questions == {
        "German, Germany": [(0, "Welche?", [ROT, BLAU], 1), (2, "Was?", [GRUEN, ROT], 0), (3, "Welche?", [ROT, BLAU], 1)],
        "German, Côte d'Or": [(1, "Und?", [ROT, GRUEN, BLAU], 0)],
    }
    assert [image.read() for image in pictures] == [picture(colour, "JPEG") for colour in ("blue", "red", "green", "blue")]
    _, questions = Cvqa(name="x", files=str(tmp_path), translated=True).read()
    assert questions["German, Côte d'Or"] == [(1, "Which colour?", ["red", "green", "blue"], 0)]


def test_real_captions_and_photos(shared_data: pathlib.Path) -> None:
    flickr = shared_data / "images/flickr8k"
    pictures, of_language = Flickr(name="x", images=f"{flickr}/images", captions=f"{flickr}/captions.csv").read()
    assert [len(pictures), len(of_language["en"])] == [1000, 5000]
    assert pictures[0].name.endswith("1000268201_693b08cb0e.jpg")
    assert of_language["en"][0] == (0, "A child in a pink dress is climbing up a set of stairs in an entry way .")


def refused(read: Any) -> str:
    with pytest.raises(InputError) as caught:
        read()
    return str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path: pathlib.Path) -> None:
    images, name = f"{tmp_path}/images", "x"
    assert refused(Folders(name=name, images=images).read).startswith(f"no image in {images}: it must hold a folder per class")
    for image in ("a.jpg", "b.jpg", "c.jpg"):
        write(tmp_path / "images" / image, image)
    labels = write(tmp_path / "ground_truth.txt", "490\n361\n171\n")
    told = f"{labels}: a line must have the name of an image and its class, not '490'"
    assert refused(Folders(name=name, images=images, labels=labels).read) == told
    for text, told in (
        ("a.jpg#0\tA cat\nb.jpg#0 A dog\n", ": correct or delete the line that is unlike the first: b.jpg#0 A dog"),
        ("image,caption\n../a.jpg,A cat\n", f"'../a.jpg' is no file in {images}"),
        ("image,caption\n/a.jpg,A cat\n", f"'/a.jpg' is no file in {images}"),
        ("image,caption\na.jpg,A\nx.jpg,X\ny.jpg,Y\nb.jpg,B\n", f"2 of 4 images are not in {images}: x.jpg, y.jpg"),
        ("image,caption\n", f"no caption in {tmp_path}/captions.csv"),
        ("", f"no caption in {tmp_path}/captions.csv"),
    ):
        file = write(tmp_path / "captions.csv", text)
        assert told in refused(Flickr(name=name, images=images, captions=file).read)
    file = write(tmp_path / "latin.csv", b"image,caption\na.jpg,caf\xe9\n")
    assert refused(Flickr(name=name, images=images, captions=file).read).startswith(
        f"{file} cannot be read in this layout (UnicodeDecodeError"
    )
    missing = f"{tmp_path}/nowhere.json"
    assert refused(Coco(name=name, images=images, captions=missing).read).startswith(
        f"{missing} cannot be read in this layout (FileNotFound"
    )
    split = write(tmp_path / "dataset.json", KARPATHY)
    assert refused(Coco(name=name, images=images, captions=split, split="val").read) == f"{split} has no split 'val'; it has restval, test"
    for content in (
        [],
        {},
        {"images": [{"id": 1}], "annotations": []},
        {"images": [], "annotations": [{"image_id": 1, "caption": ""}]},
        "{",
    ):
        file = write(tmp_path / "coco.json", content)
        assert refused(Coco(name=name, images=images, captions=file).read).startswith(f"{file} cannot be read in this layout (")
    for line in ('{"en": {"caption": ["A"]}}', '{"image/key": "a", "en": ["A"]}', "[]", "x"):
        file = write(tmp_path / "captions.jsonl", line)
        assert refused(Crossmodal3600(name=name, images=images, captions=file).read).startswith(f"{file} cannot be read in this layout (")


def test_what_is_wrong_with_shards_and_tables(tmp_path: pathlib.Path) -> None:
    def shards(path: str) -> str:
        return refused(WebDataset(name="x", shards=path).read)

    assert shards(str(tmp_path)) == f"no *.tar in {tmp_path}"
    whole = write_tar(tmp_path / "0.tar", {"a.jpg": b"1" * 600, "a.cls": b"0", "b.jpg": b"2"})
    assert shards(whole) == f"{whole}: b has no image, or no .cls"
    for content in (b"", b"not a tar file", pathlib.Path(whole).read_bytes()[:900]):
        cut = write(tmp_path / "cut.tar", content)
        assert shards(cut).startswith(f"{cut} cannot be read in this layout (ReadError")
    row = ("('German', 'Germany')", "Welche?", [ROT, BLAU])
    file = write_cvqa(tmp_path / "test.parquet", [(*row, -1, "red")])
    told = f"{file}: the answer to 'Welche?' is -1, none of its options (some releases have none)"
    assert refused(Cvqa(name="x", files=file).read) == told
    text = write(tmp_path / "text.parquet", "PAR1")
    assert refused(Cvqa(name="x", files=text).read).startswith(f"{text} cannot be read in this layout (ArrowInvalid")


def test_one_missing_image_is_tolerated(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "images/a.jpg", "a")
    file = write(tmp_path / "captions.csv", "image,caption\na.jpg,A\ngone.jpg,B\n")
    pictures, of_language = Flickr(name="x", images=f"{tmp_path}/images", captions=file).read()
    assert of_language == {"en": [(0, "A"), (1, "B")]}
    with pytest.raises(FileNotFoundError):
        pictures[1].read()


def test_the_tables_of_the_guide_are_tasks() -> None:
    guide = (pathlib.Path(__file__).resolve().parents[3] / "docs/evaluation.md").read_text(encoding="utf-8")
    tables = tomllib.loads("\n".join(re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)))["evaluate"]["tasks"]
    layouts = {type(msgspec.convert(table, AnyLayout)) for table in tables}
    assert layouts == {Folders, WebDataset, Flickr, Coco, Crossmodal3600, Cvqa}
