"""Trained tokens that change components of a frozen transformer's features, and the grid on which these stand.

Rein (Wei et al., CVPR 2024) does this with the features themselves (:mod:`methods.rein`); methods that decompose them
between two blocks do it with every component (:mod:`methods.set_tokens`, :mod:`methods.fada`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

Normalised = Literal["nothing", "scores", "shares"]


class TokenBranch(nn.Module):
    """What the tokens T (m × C) of a block make of n vectors x (n × C):

        S = softmax(x Tᵀ / √C),   β = (S (T W₁ + b₁) + x) W₂ + b₂.

    Each block has tokens of its own; W₁, b₁, W₂, b₂ are shared by all of them. Where x is affected by the style of an
    image and T is not, instance normalisation over the m tokens puts the rows of x Tᵀ (``scores``) or of S (``shares``)
    to mean 0 and variance 1, with 1e-5 beside the variance. Normalised shares add up to 0, so b₁ would do nothing there
    and is left out.

    The tokens begin uniform in ± √(6 / (3 p² + √(C r))) for both factors of T = A B, A (m × r) and B (r × C), or in
    ± √(6 / (3 p² + C)) for a whole T, as in the code of Rein; the linear layers have torch's initial values.

    Args:
        blocks: how many there are. channels: C. tokens: m. rank: r, None for a whole T.
        patch: p, the side of a patch in pixels.
        normalised: over the tokens, if anything.
        idle: the first token's share is dropped, so that a vector may stay as it is.
    """

    def __init__(
        self,
        blocks: int,
        channels: int,
        tokens: int,
        rank: int | None,
        patch: int,
        normalised: Normalised = "nothing",
        idle: bool = False,
    ) -> None:
        super().__init__()
        self.normalised, self.idle = normalised, idle
        bound = math.sqrt(6 / (3 * patch**2 + (channels if rank is None else math.sqrt(channels * rank))))
        width = channels if rank is None else rank
        self.tokens = nn.Parameter(torch.empty(blocks, tokens, width).uniform_(-bound, bound))
        self.up = None if rank is None else nn.Parameter(torch.empty(blocks, rank, channels).uniform_(-bound, bound))
        self.of_tokens = nn.Linear(channels, channels, bias=normalised != "shares")
        self.of_features = nn.Linear(channels, channels)

    def forward(self, x: Tensor, block: int) -> Tensor:
        """β, (B, n, C), of (B, n, C), in the surrounding precision except for S."""
        # Torch's counter of operations does not take a view of a parameter where no gradients are kept: hence the copy.
        tokens = self.tokens[block].clone() if self.up is None else self.tokens[block] @ self.up[block]
        with torch.autocast(x.device.type, enabled=False):
            scores = x.float() @ tokens.float().T
            if self.normalised == "scores":
                scores = layer_norm(scores, scores.shape[-1:])
            share = (scores / math.sqrt(x.shape[-1])).softmax(dim=-1)
            if self.normalised == "shares":
                share = layer_norm(share, share.shape[-1:])
        if self.idle:
            share, tokens = share[..., 1:], tokens[1:]
        return self.of_features(share @ self.of_tokens(tokens) + x)


class GridAdapter(nn.Module, ABC):
    """An adapter between the blocks of a frozen ViT that sees the patches where they lie in the image.

    A trunk hands its adapter the patches as a sequence; how many rows and columns they make follows from the size of
    the images, which is noted whenever some enter the trunk. A subclass says in :meth:`adapt` what becomes of them.
    """

    grid: tuple[int, int] = (0, 0)
    """Rows and columns of the patches of the images that entered last."""

    def attach(self, trunk: Any) -> None:
        """Become the adapter of a :class:`flexseg.models.vit.FrozenViT`."""
        trunk.adapter = self
        trunk.register_forward_pre_hook(self.note)

    def note(self, trunk: Any, inputs: tuple[Tensor, ...]) -> None:
        """Note the grid of ``inputs``, whose first are images (B, 3, H, W)."""
        self.grid = trunk.grid(*inputs[0].shape[2:])

    def forward(self, features: Tensor, block: int) -> Tensor:
        """The patches behind a block, (B, N, C), as they go on to the next one."""
        return self.adapt(features.unflatten(1, self.grid), block).flatten(1, 2)

    @abstractmethod
    def adapt(self, features: Tensor, block: int) -> Tensor:
        """The same for patches on their grid, (B, rows, columns, C)."""
