"""A linear layer with a trained addition of low rank, as methods adapt a frozen transformer with it."""

from __future__ import annotations

from torch import Tensor, nn


class LowRank(nn.Module):
    """W x + b + s B A x of a layer (W, b): (…, C_in) to (…, C_out).

    Args:
        base: the layer, used as it is. down: A, (r, C_in). up: B, (C_out, r). scale: s.
    """

    def __init__(self, base: nn.Linear, down: Tensor, up: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.scale = scale

    def addition(self) -> Tensor:
        """s B A, (C_out, C_in): what the training adds to the weight."""
        return self.scale * self.up @ self.down

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * nn.functional.linear(nn.functional.linear(x, self.down), self.up)
