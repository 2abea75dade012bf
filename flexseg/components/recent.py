"""A queue of the most recent rows, for instance of features or statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexseg.components.ranks import gather_over_ranks


class Recent(nn.Module):
    """The last rows that were pushed on any rank, as buffers: saved with the model, and equal on all ranks.

    Args:
        size: how many rows are kept. dim: D, the length of a row.

    Raises:
        ValueError: a size below 1.
    """

    rows: Tensor
    """(size, D) float32, a ring."""
    pushed: Tensor
    """int64, the number of rows pushed so far."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.pushed), len(self.rows))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Add the rows (N, D) of each rank, in the order of the ranks, in place of the oldest.

        A collective: every rank calls it, with equally many rows.
        """
        rows = gather_over_ranks(rows.float())
        kept = rows[-len(self.rows) :]
        first = self.pushed + len(rows) - len(kept)
        self.rows.index_copy_(0, (first + torch.arange(len(kept), device=rows.device)) % len(self.rows), kept)
        self.pushed += len(rows)

    def filled(self) -> Tensor:
        """The rows held, (len, D), in no particular order. Without a gradient; a view, which the next push changes."""
        return self.rows[: len(self)]
