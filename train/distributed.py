"""The processes that train one model together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from train.config import InputError


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
    """Joins the process group that torchrun's environment describes. ``device``: ``cpu``, ``cuda``, or ``auto`` for CUDA if there is.

    Raises InputError where there is no CUDA and it is asked for.
    """
    rank, count, local = (int(os.environ.get(key, default)) for key, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    cuda = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InputError("train.device is cuda, and torch finds no GPU with a driver here")
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if count > 1:
        dist.init_process_group("nccl" if cuda else "gloo", device_id=place if cuda else None)
    return Ranks(rank=rank, count=count, device=place)


def join_model(model: torch.nn.Module, ranks: Ranks, *, parallel: str) -> torch.nn.Module:
    """The model whose backward pass averages gradients over the ranks: one with DDP around it, or itself, sharded by FSDP.

    FSDP (arXiv 2304.11277) leaves to each rank its share of every parameter; a layer's are whole while it computes. Mixed precision stays
    autocast's: weights travel and gradients are summed in fp32, so that FSDP gives DDP's numbers. Its own policy would halve the traffic,
    and round what autocast keeps: gains, biases, the logit scale.
    """
    if ranks.count == 1:
        return model
    if parallel == "ddp":
        return DistributedDataParallel(model, broadcast_buffers=False)
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    for module in [*reversed(find_layers(model)), model]:
        fully_shard(module, mesh=mesh)
    return model


def find_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of its transformers."""
    return [layer for module in model.modules() if isinstance(module, torch.nn.ModuleList) for layer in module]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor of which FSDP left this rank a share; every rank calls it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
