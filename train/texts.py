"""A text tower without most of the padding: texts are computed at about their own lengths, with the same result.

Where attention is causal and the end token is pooled, nothing that lies behind it is ever looked at. Texts of web pages have 13 tokens of
77 on average: sorted by length and cut into parts, a batch of them has a third of the tokens that padding would give it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import open_clip
import torch

#: The parts of a batch, where each has so many texts at least, and the steps in which their lengths grow: each is compiled for itself.
PARTS, _LEAST, _STEP = 8, 16, 16


class Texts(NamedTuple):
    """Texts by falling length: ``tokens`` int64 (n, context), ``ends`` int64 (n,) the places of their end tokens.

    ``order`` int64 (n,): the place here of each text of the batch; ``lengths``: of how many tokens each of so many equal parts is computed.
    """

    tokens: torch.Tensor
    ends: torch.Tensor
    order: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def share(self) -> float:
        """How much of all places of the texts is computed."""
        return sum(self.lengths) / len(self.lengths) / self.tokens.shape[1]

    def to(self, device: torch.device) -> Texts:
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("tokens", "ends", "order")}
        return self._replace(**moved)


class ShortTextCLIP(open_clip.CLIP):
    """open_clip's CLIP that computes no more of a text than it must. The weights are the same; features differ in their last digits."""

    def sort(self, tokens: torch.Tensor, *, parts: int = PARTS) -> Texts:
        """The texts of a batch, from their tokens int64 (n, context), in ``parts`` parts or as many as there are texts for."""
        marks = tokens if self.text_pool_type == "argmax" else (tokens == self.text_eos_id).int()
        ends, by_length = marks.argmax(dim=-1).sort(descending=True, stable=True)
        parts = next(k for k in range(parts, 0, -1) if k == 1 or (len(ends) % k == 0 and len(ends) // k >= _LEAST))
        longest = (-(-(end + 1) // _STEP) * _STEP for end in ends[:: len(ends) // parts].tolist())
        return Texts(tokens[by_length], ends, by_length.argsort(), tuple(min(n, tokens.shape[1]) for n in longest))

    def encode_text(self, text: Texts | torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Features (n, dim) of the texts of a batch, in its order."""
        tokens, ends, order, lengths = text if isinstance(text, Texts) else self.sort(text)
        kind, parts = self.transformer.get_cast_dtype(), len(lengths)
        # For all parts at once: the gradient of an embedding is as large as its whole table.
        embedded = (self.token_embedding(tokens[:, : lengths[0]]) + self.positional_embedding[: lengths[0]]).to(kind)
        pooled = []
        for x, at, n in zip(embedded.chunk(parts), ends.chunk(parts), lengths, strict=True):
            x = self.transformer(x[:, :n].contiguous(), attn_mask=self.attn_mask[:n, :n])
            pooled.append(x[torch.arange(len(x), device=x.device), at])
        features = self.ln_final(torch.cat(pooled)[order]) @ self.text_projection
        return torch.nn.functional.normalize(features, dim=-1) if normalize else features


def skip_padding(model: Any) -> Any:
    """The same model, as a ShortTextCLIP if its text tower is one whose padding changes nothing."""
    causal = type(model) is open_clip.CLIP and model.attn_mask is not None
    if causal and model.text_pool_type in ("argmax", "eos") and isinstance(model.text_projection, torch.Tensor):
        model.__class__ = ShortTextCLIP
    return model
