"""A training step with texts at their own lengths against one with all of them padded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import open_clip
import torch

from tests.benchmarks.gpu import TINY
from tests.benchmarks.material import Material
from tests.benchmarks.measure import ResultsDifferError, Row, benchmark, compare
from train.config import ModelConfig
from train.model import create_model, find_architecture
from train.texts import skip_padding

_BATCH = 64


@benchmark
def text_lengths(material: Material) -> Iterator[Row]:
    """Images and tokens → loss and gradients of one batch, fp32 on one core; the texts are captions of web pages."""
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns there of models without weights
    small = material.size.texts < 10_000
    config = ModelConfig(name="tiny", custom=TINY) if small else ModelConfig(name="ViT-B-32-quickgelu")
    torch.manual_seed(0)
    padded = create_model(config, find_architecture(config, loss="clip"))
    short = skip_padding(create_model(config, find_architecture(config, loss="clip")))
    short.load_state_dict(padded.state_dict())
    size = padded.visual.preprocess_cfg["size"]
    images = torch.randn(_BATCH, 3, *open_clip.utils.to_2tuple(size))
    texts = material.web_texts
    step = len(texts) // _BATCH
    tokens = open_clip.SimpleTokenizer(context_length=padded.context_length)(texts[: _BATCH * step : step])

    def learn(model: Any, given: Any) -> float:
        model.zero_grad(set_to_none=True)
        loss = open_clip.ClipLoss()(**model(images, given))
        loss.backward()
        return float(loss.item())

    mean = float(short.sort(tokens).ends.float().mean()) + 1
    losses: list[float] = []
    yield compare(
        "text_lengths",
        "samples/s",
        amount=_BATCH,
        fast=lambda: losses.append(learn(short, short.sort(tokens))),
        naive=lambda: losses.append(learn(padded, tokens)),
        exact=False,
        input=f"{_BATCH} texts of {mean:.0f} tokens on average for {config.name}; naive: open_clip's, all {padded.context_length} long",
        command="text_lengths",
    )
    if max(losses) - min(losses) > 1e-4:
        raise ResultsDifferError("text_lengths")
