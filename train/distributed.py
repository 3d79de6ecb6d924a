"""The processes that train one model together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among the ``count`` that torchrun started, and where it computes. One process alone is rank 0 of 1."""

    rank: int
    count: int
    device: torch.device

    def sum(self, values: Iterable[float | torch.Tensor]) -> list[float]:
        """Sum over the ranks of each value, the same on all of them; float64."""
        sums = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in values])
        if self.count > 1:
            dist.all_reduce(sums)
        return [float(value) for value in sums.tolist()]


def join_ranks(device: str) -> Ranks:
    """Joins the process group that torchrun's environment describes. ``device``: ``cpu``, ``cuda``, or ``auto`` for CUDA if there is."""
    rank, count, local = (int(os.environ.get(key, default)) for key, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if count > 1:
        dist.init_process_group("nccl" if cuda else "gloo", device_id=place if cuda else None)
    return Ranks(rank=rank, count=count, device=place)
