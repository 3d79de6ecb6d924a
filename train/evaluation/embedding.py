"""Embeddings of images and texts: every rank makes its share, and all of them get the whole."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, UnidentifiedImageError

from train.distributed import Ranks
from train.evaluation.layouts import Picture
from train.model import Model, Tokenizer
from train.texts import skip_padding

log = logging.getLogger("train")
T = TypeVar("T")
#: Images or texts that are embedded at once; so many batches of images are decoded ahead, by so many threads.
BATCH, AHEAD, THREADS = 256, 2, min(16, os.cpu_count() or 1)


class Embedder:
    """A model in the hands of all ranks, each of which calls the same methods with the same arguments."""

    def __init__(self, model: Model, tokenizer: Tokenizer, ranks: Ranks) -> None:
        self._model, self._tokenizer, self._ranks = skip_padding(model), tokenizer, ranks
        self._preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Normalized embeddings, fp32, shape (texts, dim)."""
        batches = batched(share(texts, self._ranks))
        return self._gather([self._embed(self._model.encode_text, self._tokenizer(list(batch))) for batch in batches])[: len(texts)]

    def images(self, pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
        """Normalized embeddings, fp32, shape (images, dim); and which images are good, boolean, (images,). The log names the others."""
        blank, parts = self._preprocess(Image.new("RGB", (1, 1))), []
        for batch in decoded(share(pictures, self._ranks), self._preprocess):
            for broken in [image for image in batch if isinstance(image, str)]:
                log.error("broken image: %s", broken)
            images = torch.stack([blank if isinstance(image, str) else image for image in batch])
            good = torch.tensor([[float(not isinstance(image, str))] for image in batch], device=self._ranks.device)
            parts.append(torch.cat([self._embed(self._model.encode_image, images), good], dim=1))
        found = self._gather(parts)[: len(pictures)]
        return found[:, :-1], found[:, -1] > 0

    @torch.no_grad()
    def _embed(self, encode: Any, batch: torch.Tensor) -> torch.Tensor:
        device = self._ranks.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            return torch.nn.functional.normalize(encode(batch.to(device)).float(), dim=-1)

    def _gather(self, parts: list[torch.Tensor]) -> np.ndarray:
        """The parts of all ranks, in the order of the ranks."""
        mine = torch.cat(parts)
        shares = [torch.empty_like(mine) for _ in range(self._ranks.count)]
        if self._ranks.count > 1:
            dist.all_gather(shares, mine)
        else:
            shares = [mine]
        return torch.cat(shares).cpu().numpy()


def share(items: Sequence[T], ranks: Ranks) -> list[T]:
    """A rank's items: neighbours, and as many as every other rank has, for which the last one of all is repeated."""
    n = -(-len(items) // ranks.count)
    return [items[min(i, len(items) - 1)] for i in range(ranks.rank * n, (ranks.rank + 1) * n)]


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def decoded(pictures: Sequence[Picture], preprocess: Callable[[Any], torch.Tensor]) -> Iterator[list[torch.Tensor | str]]:
    """Batches of images as ``preprocess`` makes them; in place of a broken one its name and what is wrong with it."""

    def decode(picture: Picture) -> torch.Tensor | str:
        try:
            return preprocess(Image.open(io.BytesIO(picture.read())).convert("RGB"))
        except UnidentifiedImageError:
            return f"{picture.name}: not an image"
        # Image decoders raise whatever their format made them raise: all of it means that this one image is broken.
        except Exception as error:
            return f"{picture.name}: {error or type(error).__name__}"

    with ThreadPoolExecutor(THREADS) as pool:
        started = (pool.map(decode, batch) for batch in batched(pictures))
        waiting = deque(islice(started, AHEAD))
        while waiting:
            waiting.extend(islice(started, 1))
            yield list(waiting.popleft())
