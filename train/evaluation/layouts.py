"""Test sets on local disks, in the layouts in which they are published. Of an image is read only where it lies.

A task is a table of a TOML file; its key ``layout`` says which of the classes here it is. What cannot be read is an InputError, which
names the file.
"""

from __future__ import annotations

import csv
import json
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from train.config import InputError, Table

V = TypeVar("V")
#: The share of a task's images that may be missing or broken, besides one that always may.
TOLERATED = 0.01


class Picture(NamedTuple):
    """An image that is still to be read; ``name`` says where it lies."""

    name: str
    read: Callable[[], bytes]


class Caption(NamedTuple):
    image: int  # its place among the pictures
    text: str


class Question(NamedTuple):
    image: int
    text: str
    options: list[str]
    answer: int  # the place of the right option


class Layout(Table, frozen=True, kw_only=True, tag_field="layout"):
    name: str  # of the task
    languages: tuple[str, ...] = ()  # those that are wanted; without: all that there are

    def wanted(self, languages: dict[str, V]) -> dict[str, V]:
        if absent := [language for language in self.languages if language not in languages]:
            raise InputError(f"there is no language {absent[0]!r}; there are {', '.join(languages)}")
        return {language: languages[language] for language in self.languages or languages}


class Classes(Layout, frozen=True, kw_only=True):
    """Images with the names or numbers of their classes, which are in a folder, and what the classes are called in each language.

    ``names``: JSON, per language a list of names by class, of lists of names (all of one class), or Babel-ImageNet's two lists, numbers of
    classes and their names; a text file with a name a line; or ``imagenet``, open_clip's. Without: what the data call them.
    ``templates``: JSON, per language a list; a text file with one a line; or ``imagenet``, open_clip's. Without: the name alone.
    """

    names: str = ""
    templates: str = ""
    language: str = "en"  # of a text file
    per_class: bool = False  # also the accuracy of each class

    def read(self) -> list[tuple[Picture, str]]:
        """Each image and its class."""
        raise NotImplementedError


class Folders(Classes, frozen=True, kw_only=True, tag="folders"):
    """A folder per class; or one flat folder, and a file with a line ``name class`` for each image, as Caffe's val.txt or Kaggle's
    LOC_val_solution.csv for ImageNet."""

    images: str
    labels: str = ""  # the file

    def read(self) -> list[tuple[Picture, str]]:
        folder = Path(self.images)
        files = sorted(file for file in folder.glob("*" if self.labels else "*/*") if file.is_file() and file.name[0] != ".")
        if not files:
            raise InputError(f"no image in {folder}: it must hold a folder per class, or images that `labels` names a file for")
        if not self.labels:
            return [(_picture(file), file.parent.name) for file in files]
        there, names, classes = {name: file.name for file in files for name in (file.stem, file.name)}, list[str](), list[str]()
        for line in read_lines(self.labels):
            name, *label = re.split(r"[,\s]+", line)
            if not label:
                raise InputError(f"{self.labels}: a line must have the name of an image and its class, not {line!r}")
            if name != "ImageId":  # the header of Kaggle's file
                names.append(there.get(name, name))
                classes.append(label[0])
        return [*zip(pictures_in(self.images, names), classes, strict=True)]


class WebDataset(Classes, frozen=True, kw_only=True, tag="webdataset"):
    """Uncompressed tar files with an image and the number of its class (.cls) per sample."""

    shards: str  # a tar file, or a folder of them

    def read(self) -> list[tuple[Picture, str]]:
        return [sample for file in _files(self.shards, "*.tar") for sample in self._samples(file)]

    def _samples(self, path: Path) -> Iterator[tuple[Picture, str]]:
        images, labels = dict[str, Picture](), dict[str, str]()
        with reading(path), tarfile.open(path, "r:") as tar:
            for member in tar:
                kind = member.name.rpartition("/")[2].partition(".")[2]
                key = member.name.removesuffix(f".{kind}")
                if kind == "cls" and (content := tar.extractfile(member)):
                    labels[key] = content.read().decode("ascii").strip()
                elif kind.lower() in ("jpg", "jpeg", "png", "webp"):
                    images[key] = Picture(f"{path}, {member.name}", partial(_read_range, path, member.offset_data, member.size))
        if odd := sorted(images.keys() ^ labels.keys()):
            raise InputError(f"{path}: {odd[0]} has no image, or no .cls")
        yield from ((picture, labels[key]) for key, picture in images.items())


class Captions(Layout, frozen=True, kw_only=True):
    """Images with captions."""

    images: str  # folder
    captions: str  # file

    def read(self) -> tuple[list[Picture], dict[str, list[Caption]]]:
        places, captions = dict[str, int](), dict[str, list[Caption]]()
        with reading(self.captions):
            for language, name, text in self.rows():
                captions.setdefault(language, []).append(Caption(places.setdefault(name, len(places)), text.strip()))
        if not places:
            raise InputError(f"no caption in {self.captions}")
        return pictures_in(self.images, [*places]), captions

    def rows(self) -> Iterable[tuple[str, str, str]]:
        """Language, name of the image's file, caption."""
        raise NotImplementedError


class Flickr(Captions, frozen=True, kw_only=True, tag="flickr"):
    """Flickr8k's and Flickr30k's captions: ``name#number<TAB>caption`` (.token), or a table with a header, between commas or bars, with the
    image in its first column and the caption in its last."""

    language: str = "en"

    def rows(self) -> Iterator[tuple[str, str, str]]:
        lines = read_lines(self.captions)
        delimiter = next((mark for mark in "\t|" if mark in lines[0]), ",") if lines else ","
        rows = [line.split("\t") for line in lines] if delimiter == "\t" else [*csv.reader(lines, delimiter=delimiter)][1:]
        for row in rows:
            if len(row) != len(rows[0]):
                raise InputError(f"{self.captions}: correct or delete the line that is unlike the first: {delimiter.join(row)}")
            yield self.language, row[0].partition("#")[0].strip(), row[-1]


class Coco(Captions, frozen=True, kw_only=True, tag="coco"):
    """COCO's own annotations (captions_val2014.json), or Karpathy's files for COCO and Flickr (dataset_flickr30k.json)."""

    language: str = "en"
    split: str = "test"  # of Karpathy's files

    def rows(self) -> Iterator[tuple[str, str, str]]:
        found = json.loads(Path(self.captions).read_bytes())
        if "annotations" in found:
            names = {image["id"]: image["file_name"] for image in found["images"]}
            yield from ((self.language, names[caption["image_id"]], caption["caption"]) for caption in found["annotations"])
            return
        if self.split not in (splits := sorted({image["split"] for image in found["images"]})):
            raise InputError(f"{self.captions} has no split {self.split!r}; it has {', '.join(splits)}")
        for image in [image for image in found["images"] if image["split"] == self.split]:
            name = str(PurePosixPath(image.get("filepath", ""), image["filename"]))
            yield from ((self.language, name, sentence["raw"]) for sentence in image["sentences"])


class Crossmodal3600(Captions, frozen=True, kw_only=True, tag="crossmodal3600"):
    """captions.jsonl: per line the key of an image, by which its file is named, and its captions in 36 languages."""

    def rows(self) -> Iterator[tuple[str, str, str]]:
        for line in map(json.loads, read_lines(self.captions)):
            for language, of_language in line.items():
                if not language.startswith("image/"):
                    yield from ((language, f"{line['image/key']}.jpg", caption) for caption in of_language["caption"])


class Cvqa(Layout, frozen=True, kw_only=True, tag="cvqa"):
    """CVQA's Parquet files: a row per question, with the bytes of its image. Its language is the subset, such as ``Spanish, Mexico``."""

    files: str  # a Parquet file, or a folder of them
    translated: bool = False  # questions and options in English
    template: str = "{question} {option}"

    def read(self) -> tuple[list[Picture], dict[str, list[Question]]]:
        kind, pictures, questions = "Translated " * self.translated, list[Picture](), dict[str, list[Question]]()
        columns = ["Subset", f"{kind}Question", f"{kind}Options", "Label"]
        for file in _files(self.files, "*.parquet"):
            with reading(file), pq.ParquetFile(file) as parquet:
                if "image" not in parquet.schema_arrow.names:
                    raise KeyError("image")
                for group in range(parquet.num_row_groups):
                    table = parquet.read_row_group(group, columns=columns)
                    values = zip(*(table[column].to_pylist() for column in columns), strict=True)
                    for row, (subset, text, options, answer) in enumerate(values):
                        if not 0 <= answer < len(options):
                            raise InputError(f"{file}: the answer to {text!r} is {answer}, none of its options (some releases have none)")
                        language = ", ".join(name for _, name in re.findall(r"(['\"])(.+?)\1", subset)) or subset
                        questions.setdefault(language, []).append(Question(len(pictures), text, options, answer))
                        pictures.append(Picture(f"{file}, row group {group}, row {row}", partial(_read_row, file, group, row)))
        return pictures, questions


AnyLayout = Folders | WebDataset | Flickr | Coco | Crossmodal3600 | Cvqa


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Whatever is wrong with a file becomes an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, tarfile.TarError, csv.Error) as error:
        raise InputError(f"{path} cannot be read in this layout ({type(error).__name__}: {error})") from None


def read_lines(path: str) -> list[str]:
    """The lines that are not empty, without white space at their ends."""
    with reading(path):
        return [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def pictures_in(folder: str, names: Iterable[str]) -> list[Picture]:
    """Files in a folder by their names, which come from data. InputError: more than a few are missing."""
    paths = [PurePosixPath(name) for name in names]
    if odd := [path for path in paths if path.is_absolute() or ".." in path.parts]:
        raise InputError(f"{str(odd[0])!r} is no file in {folder}")
    files = [Path(folder, path) for path in paths]
    missing = [file.name for file in files if not file.is_file()]
    refuse_too_many(len(missing), len(files), f"are not in {folder}: {', '.join(missing[:3])}")
    return [_picture(file) for file in files]


def refuse_too_many(bad: int, total: int, says: str) -> None:
    """InputError where more than a few images cannot be used."""
    if bad == total or bad > max(1, total * TOLERATED):
        raise InputError(f"{bad} of {total} images {says}")


def _files(path: str, pattern: str) -> list[Path]:
    found = sorted(Path(path).rglob(pattern)) if Path(path).is_dir() else [Path(path)]
    if not found:
        raise InputError(f"no {pattern} in {path}")
    return found


def _picture(file: Path) -> Picture:
    return Picture(str(file), file.read_bytes)


def _read_range(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


@lru_cache(maxsize=2)
def _images_of(file: Path, group: int) -> pa.ChunkedArray:
    with pq.ParquetFile(file) as parquet:
        return parquet.read_row_group(group, columns=["image"])["image"]


#: Of the threads that decode, one reads the row group that all of them need.
_one_reads = threading.Lock()


def _read_row(file: Path, group: int, row: int) -> bytes:
    with _one_reads:
        images = _images_of(file, group)
    return bytes(images[row].as_py()["bytes"])
