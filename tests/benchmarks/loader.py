"""The trainer's loader against open_clip's own, on the same pictures; and what online curation adds to it."""

from __future__ import annotations

import csv
import functools
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from open_clip.transform import AugmentationCfg, image_transform
from open_clip_train.data import get_wds_dataset
from PIL import Image

from balancing.pairs import IMAGES_SCHEMA, pair_keys
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare, cpu_seconds, row
from train.config import Config, parse
from train.data import Reader, open_sources
from train.distributed import Ranks

_ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))
_SIZE, _SCALE, _BATCH, _STREAMS = 224, (0.9, 1.0), 8, 4
#: Texts of an image, and the probability of each, in the set for online curation.
_TEXTS, _PROBABILITY = 3, 0.5


class Pictures:
    """JPEGs of 256 to 512 pixels with captions, as Parquet for the trainer and as a tar file for open_clip."""

    def __init__(self, material: Material) -> None:
        self.folder = Path(material.output())
        self.folder.mkdir()
        self._material, self._rng = material, material.rng(7)
        self.count = max(4, material.size.texts // 30 // _BATCH) * _BATCH
        self.tokenizer = open_clip.get_tokenizer("ViT-B-32")
        # Its cache of words serves whoever comes second, so it is filled for both.
        self.tokenizer(self.texts)

    @functools.cached_property
    def texts(self) -> list[str]:
        data = self._material.data
        if data is None:
            found = self._material.english_texts
        else:
            with (data / "images" / "flickr8k" / "captions.csv").open(encoding="utf-8", newline="") as file:
                found = [line[-1] for line in list(csv.reader(file))[1:]]
        return [found[i % len(found)] for i in range(_TEXTS * self.count)]

    @functools.cached_property
    def jpegs(self) -> list[bytes]:
        """Photos in the sizes of the web, with grain; without photos at hand, patches of colour of several sizes in their place."""
        data, out = self._material.data, []
        photos = sorted((data / "images" / "flickr8k" / "images").glob("*.jpg")) if data else []
        for i in range(self.count):
            width, height = self._rng.integers(256, 513, 2).tolist()
            if photos:
                picture = Image.open(photos[i % len(photos)]).convert("RGB")
                height = max(256, round(width * picture.height / picture.width))
                pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
            else:
                patches = [Image.fromarray(self._rng.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (4, 16, 64)]
                pixels = np.mean([np.asarray(p.resize((width, height), Image.Resampling.BICUBIC)) for p in patches], axis=0)
            noisy = pixels + self._rng.normal(0, 4, (height, width, 1))
            buffer = io.BytesIO()
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
            out.append(buffer.getvalue())
        return out

    def parquet(self, name: str, rows: Sequence[int], texts: int) -> str:
        """A part with these images, in row groups as the job images writes them."""
        columns: dict[str, list[Any]] = {field.name: [] for field in IMAGES_SCHEMA}
        for i in rows:
            own = self.texts[i * _TEXTS : i * _TEXTS + texts]
            keys = pair_keys([f"{i}"] * len(own), own).tolist()
            about = {"lang": "en", "entries": [1, 2, 3], "probability": _PROBABILITY}
            values = {"image_id": f"{i}", "url": "", "jpeg": self.jpegs[i], "width": 0, "height": 0, "sha256": ""}
            values["texts"] = [{"text": text, "pair_key": key, **about} for text, key in zip(own, keys, strict=True)]
            for column in columns:
                columns[column].append(values.get(column))
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.table(columns, schema=IMAGES_SCHEMA), path, row_group_size=256, compression="zstd")
        return str(path)

    def tar(self) -> str:
        path = self.folder / "pictures.tar"
        with tarfile.open(path, "w") as file:
            for i in range(self.count):
                for name, data in ((f"{i:06}.jpg", self.jpegs[i]), (f"{i:06}.txt", self.texts[i * _TEXTS].encode())):
                    about = tarfile.TarInfo(name)
                    about.size = len(data)
                    file.addfile(about, io.BytesIO(data))
        return str(path)


_pictures = functools.cache(Pictures)


def _config(path: str, samples: int, **data: Any) -> Config:
    about = {"paths": [path], "workers": 0, "streams": _STREAMS, "crop_scale": list(_SCALE), **data}
    return parse({"model": {"name": "any"}, "data": about, "train": {"steps": samples // _BATCH, "batch_size": _BATCH}})


def _reader(config: Config, pictures: Pictures) -> Reader:
    sources = open_sources(config, _ALONE)
    return Reader(sources, config, range(_STREAMS), tokenizer=pictures.tokenizer, size=_SIZE, first_step=0)


def _load(config: Config, pictures: Pictures) -> list[torch.Tensor]:
    """The tokens of an epoch, whose images are made too."""
    return [part.tokens for [part] in _reader(config, pictures).batches(pin_memory=False)]


def _load_as_open_clip(path: str, pictures: Pictures) -> list[torch.Tensor]:
    augmentation = AugmentationCfg(scale=_SCALE)
    preprocess = image_transform(
        _SIZE, is_train=True, aug_cfg=augmentation, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    about = {"train_data": path, "train_num_samples": pictures.count, "dataset_resampled": False, "train_data_upsampling_factors": None}
    arguments = SimpleNamespace(**about, seed=0, batch_size=_BATCH, workers=0, world_size=1)
    return [tokens for _, tokens in get_wds_dataset(arguments, preprocess, True, tokenizer=pictures.tokenizer).dataloader]


def _as_texts(batches: list[torch.Tensor]) -> list[list[int]]:
    return sorted(torch.cat(batches).tolist())


@benchmark
def loader(material: Material) -> Iterator[Row]:
    """Encoded images and captions → batches, one core, no worker processes: read, decode, crop, resize, tokenize."""
    torch.set_num_threads(1)
    pictures = _pictures(material)
    ours, theirs = pictures.parquet("one-text", range(pictures.count), 1), pictures.tar()
    yield compare(
        "loader",
        "samples/s",
        amount=pictures.count,
        fast=lambda: _load(_config(ours, pictures.count), pictures),
        naive=lambda: _load_as_open_clip(theirs, pictures),
        fast_result=_as_texts,
        naive_result=_as_texts,
        input=f"{pictures.count:,} JPEGs of 256 to 512 pixels, crops of {_SIZE}; naive: open_clip's get_wds_dataset",
        command="loader",
    )


@benchmark
def online_cost(material: Material) -> Iterator[Row]:
    """What an epoch costs more when it draws from all texts of twice the images: they are counted before, and read with the others.

    The baseline is all that the loader does for the images that are taken.
    """
    torch.set_num_threads(1)
    pictures = _pictures(material)
    everything = pictures.parquet("siblings", range(pictures.count), _TEXTS)
    online = _config(everything, _BATCH, curation="online")
    reader = _reader(online, pictures)
    [source] = reader.sources
    groups = range(len(source.images.groups))
    taken = [image_id for group in groups for image_id in reader.read(source, 0, group).ids.to_pylist()]
    offline = _config(pictures.parquet("curated", [int(i) for i in taken], 1), len(taken))

    def read(config: Config) -> int:
        reader = _reader(config, pictures)
        [source] = reader.sources
        return sum(len(reader.read(source, 0, group).rows) for group in range(len(source.images.groups)))

    (online_s, n), (offline_s, same), (whole_s, loaded) = (
        cpu_seconds(work) for work in (lambda: read(online), lambda: read(offline), lambda: len(torch.cat(_load(offline, pictures))))
    )
    assert n == same == len(taken)
    yield row(
        "online_cost",
        max(online_s - offline_s, 1e-9) * 1e6 / n,
        "ms",
        whole_s * 1e6 / loaded,
        input=f"1,000 images that are taken, of {pictures.count:,} with {_TEXTS} texts; naive: all that loading takes",
        command="online_cost",
        less_is_better=True,
    )
