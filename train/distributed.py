"""The ranks of a run, as torchrun starts them; one process alone is rank 0 of 1."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among ``count``, and where it computes."""

    rank: int
    count: int
    device: torch.device

    def mean(self, values: Sequence[float | torch.Tensor]) -> list[float]:
        """Mean over the ranks of each value, the same on all of them; float64."""
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in values])
        if self.count > 1:
            dist.all_reduce(stacked)
        means: list[float] = (stacked / self.count).tolist()
        return means


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Joins the process group that torchrun's environment describes, and leaves it at the end.

    ``device``: ``cpu`` (gloo), ``cuda`` (nccl), or ``auto`` for CUDA where there is one.
    """
    rank, count, local = (int(os.environ.get(key, default)) for key, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if count > 1:
        dist.init_process_group("nccl" if cuda else "gloo", device_id=place if cuda else None)
    try:
        yield Ranks(rank=rank, count=count, device=place)
    finally:
        if count > 1:
            dist.destroy_process_group()
