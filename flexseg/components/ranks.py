"""Sums and lists over the processes of a distributed run, for statistics over a batch.

Both are collectives: every rank must call them, equally often and with the same shape, even a rank whose batch has
nothing to add. Neither carries a gradient or changes its argument.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of ``tensor`` over all processes; ``tensor`` itself where there is only one."""
    if _distributed():
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total
    return tensor.detach()


@torch.no_grad()
def gather_over_ranks(tensor: Tensor) -> Tensor:
    """The tensors (n, …) of all processes, concatenated in the order of their ranks: (world · n, …)."""
    if _distributed():
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.detach().contiguous())
        return torch.cat(parts)
    return tensor.detach()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
