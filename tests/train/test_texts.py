"""Texts at their own lengths give what open_clip's padded ones give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.texts import ShortTextCLIP, Texts, skip_padding

CONTEXT, END = 77, 99
VISION = open_clip.CLIPVisionCfg(image_size=8, patch_size=8, width=8, head_width=8, layers=1)


def clip(**text: Any) -> Any:
    torch.manual_seed(1)
    about = {"context_length": CONTEXT, "vocab_size": 100, "width": 16, "heads": 2, "layers": 2, "eos_id": END, **text}
    return open_clip.CLIP(6, VISION, open_clip.CLIPTextCfg(**about), output_dict=True)


def tokens_of(lengths: list[int]) -> torch.Tensor:
    """Texts with so many tokens, of which the last is the end token, and zeros behind it."""
    made = torch.zeros(len(lengths), CONTEXT, dtype=torch.int64)
    for row, length in zip(made, lengths, strict=True):
        row[: length - 1] = torch.randint(1, END, (length - 1,))
        row[length - 1] = END
    return made


CLIP = clip()


@given(st.lists(st.integers(1, CONTEXT), min_size=1, max_size=300))
@settings(max_examples=200, deadline=None)
def test_every_text_is_once_in_a_part_that_holds_it_to_its_end(lengths: list[int]) -> None:
    tokens = tokens_of(lengths)
    sorted_ = skip_padding(CLIP).sort(tokens)
    assert torch.equal(sorted_.tokens[sorted_.order], tokens)
    assert (sorted_.ends[sorted_.order] + 1).tolist() == lengths
    parts = sorted_.ends.chunk(len(sorted_.lengths))
    assert len({len(part) for part in parts}) == 1
    assert len(parts) == 1 or (len(parts) <= 8 and len(parts[0]) >= 16)
    for part, length in zip(parts, sorted_.lengths, strict=True):
        assert length - 16 < int(part.max()) + 1 <= length
        assert length % 16 == 0 or length == CONTEXT
    assert sorted_.share == pytest.approx(sum(len(p) * n for p, n in zip(parts, sorted_.lengths, strict=True)) / tokens.numel())


@pytest.mark.parametrize("pool_type", ["argmax", "eos"])
@pytest.mark.parametrize("lengths", [[5], [77, 1, 16, 17], [*range(1, 78), *range(3, 54)]])
def test_features_and_gradients_are_those_of_padded_texts(pool_type: str, lengths: list[int]) -> None:
    padded = clip(pool_type=pool_type)
    short = skip_padding(copy.deepcopy(padded))
    tokens = tokens_of(lengths)
    texts = short.sort(tokens)
    assert isinstance(texts, Texts)
    aims = torch.randn(len(lengths), 6)
    for model, given_ in ((padded, tokens), (short, texts)):
        (model(None, given_)["text_features"] * aims).sum().backward()
    assert torch.allclose(short.encode_text(texts), padded.encode_text(tokens), atol=1e-6)
    assert torch.allclose(short.encode_text(tokens, normalize=True), padded.encode_text(tokens, normalize=True), atol=1e-6)
    for (name, a), (_, b) in zip(short.named_parameters(), padded.named_parameters(), strict=True):
        if not name.startswith(("visual", "logit")):
            assert torch.allclose(a.grad, b.grad, atol=1e-5), name


def test_a_text_without_an_end_token_is_pooled_where_open_clip_pools_it() -> None:
    padded = clip(pool_type="eos")
    short = skip_padding(copy.deepcopy(padded))
    tokens = torch.randint(1, END, (3, CONTEXT))
    assert torch.allclose(short.encode_text(tokens), padded.encode_text(tokens), atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        lambda: clip(no_causal_mask=True),
        lambda: clip(pool_type="last"),
        lambda: clip(proj_type="none", width=16),
        lambda: clip(proj_bias=True),
        lambda: open_clip.CustomTextCLIP(6, VISION, open_clip.CLIPTextCfg(vocab_size=100, width=16, heads=2, layers=1)),
    ],
)
def test_towers_that_need_the_padding_keep_it(other: Callable[[], Any]) -> None:
    model = other()
    before = type(model)
    assert skip_padding(model) is model
    assert type(model) is before is not ShortTextCLIP


def test_a_layer_is_compiled_once_for_each_length_and_for_all_layers() -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = skip_padding(clip(layers=3))
    for layer in model.transformer.resblocks:
        layer.compile(dynamic=False, backend=backend)
    for longest in (3, 16, 17, 40, 77, 3):
        model.encode_text(tokens_of([longest] + [2] * 15))
    assert len(graphs) == 4
