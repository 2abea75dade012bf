"""FADA: tokens change the low and the high frequencies of the features of a frozen transformer, each for itself.

Bi et al., *Learning Frequency-Adapted Vision Foundation Model for Domain Generalized Semantic Segmentation*,
NeurIPS 2024. Behind every block, the Haar wavelets of the grid of patches split the features of each channel into the
averages LL of 2 × 2 patches and the differences LH, HL, HH (across, down and both), a quarter of the patches each:

    L = (1, 1) / √2,   H = (−1, 1) / √2,   x_LL = (Lᵀ L) ∗ F,   x_LH = (Lᵀ H) ∗ F,   …

LL holds the content. Its tokens T_L, m of them, do with it what Rein does with the features:

    S = softmax(x Tᵀ / √C),   Δx = (S (T W₁ + b₁) + x) W₂ + b₂,   x ← x + Δx.

The three others hold the style. They are put behind each other as 3 n vectors and have tokens T_H, 3 m of them; here
each row of S is normalised to mean 0 and variance 1 over the tokens (instance normalisation), as the shares of some
tokens would else tell the style. The inverse wavelets give the features for the next block. All T = A B of rank r.

Published: m = 100, r = 16, AdamW with learning rate 1e-4. Read at their sources: the paper's abstract, and the code
of its authors (JingjunYi/FADA; the repository that the paper names holds none). The equations were read second-hand, in
two summaries and in another project's adaptation that quotes them by number; they agree. That the high frequencies have
3 m tokens is from the last alone. One summary says some 6 million parameters more than Rein for DINOv2-large; here it
is 2.6 million, and what was counted could not be found out.

The authors' code differs. It normalises x Tᵀ before the softmax (``normalised: scores`` here), drops the first token's
share and multiplies Δx by a trained factor that begins at 0.001; it folds the vectors anew before the wavelets, which
mixes patches with channels, and adds its changes without the inverse. The factor is taken over, since training would
begin far from the frozen transformer without it; the rest is the paper's.

**Assumed**: an odd row or column of patches is repeated, and dropped again. b₁ is left out where it does nothing (the
shares add up to 0). **Left out**: the link of the tokens to the queries of a Mask2Former head.

Licence: the authors' repository is built on Rein's, which is under GPL-3. Facts were read in it and no code was used;
this is written from the formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flexseg.components.tokens import GridAdapter, TokenBranch
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor

ROOT2 = math.sqrt(2)


def split(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The products with L and with H of neighbours along a dimension of even length, half as long."""
    first, second = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return (first + second) / ROOT2, (second - first) / ROOT2


def join(low: Tensor, high: Tensor, dim: int) -> Tensor:
    """The inverse of :func:`split`."""
    return torch.stack([(low - high) / ROOT2, (low + high) / ROOT2], dim + 1).flatten(dim, dim + 1)


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """LL (B, 1, r, c, C), and LH, HL, HH (B, 3, r, c, C), of maps (B, rows, columns, C); r = ⌈rows / 2⌉, likewise c."""
    if x.shape[1] % 2:
        x = torch.cat([x, x[:, -1:]], dim=1)
    if x.shape[2] % 2:
        x = torch.cat([x, x[:, :, -1:]], dim=2)
    low, high = split(x, 1)
    parts = torch.stack([*split(low, 2), *split(high, 2)], dim=1)
    return parts[:, :1], parts[:, 1:]


def inverse_haar(low: Tensor, high: Tensor, grid: tuple[int, int]) -> Tensor:
    """The maps (B, *grid, C) of which :func:`haar` makes LL and the other three."""
    across, down, both = high.unbind(1)
    x = join(join(low[:, 0], across, 2), join(down, both, 2), 1)
    return x[:, : grid[0], : grid[1]]


class FrequencyAdapter(GridAdapter):
    """F with other low and high frequencies, behind each of ``blocks`` blocks.

    Args:
        channels: C. tokens: m. rank: r. scale: of the changes, at the start. patch: p, the side of a patch in pixels.
        normalised: what is normalised over the tokens of the high frequencies.
    """

    def __init__(
        self,
        blocks: int,
        channels: int,
        tokens: int,
        rank: int,
        scale: float,
        patch: int,
        normalised: Literal["scores", "shares"] = "shares",
    ) -> None:
        super().__init__()
        self.low = TokenBranch(blocks, channels, tokens, rank, patch)
        self.high = TokenBranch(blocks, channels, 3 * tokens, rank, patch, normalised)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def adapt(self, features: Tensor, block: int) -> Tensor:
        # The wavelets are linear: those of the changes can be inverted alone, and nothing is lost where these are 0.
        low, high = (
            branch(part.flatten(1, 3), block).unflatten(1, part.shape[1:4])
            for branch, part in zip((self.low, self.high), haar(features), strict=True)
        )
        return features + self.scale * inverse_haar(low, high, self.grid)


class FADA(Method):
    name = "fada"
    title = "FADA"
    paper = "Bi et al., Learning Frequency-Adapted Vision Foundation Model for DGSS, NeurIPS 2024"
    needs = ("vit",)

    @dataclass(frozen=True)
    class Options:
        tokens: int = option(100, "m, tokens behind each block for LL; three times as many for the rest")
        rank: int = option(16, "r, the rank of the tokens")
        scale: float = option(0.001, "what changes are multiplied by at the start; it is trained")
        normalised: Literal["shares", "scores"] = option(
            "shares", "what is normalised over the tokens of the high frequencies: the paper or its code"
        )

        def __post_init__(self) -> None:
            require_at_least(self, tokens=1, rank=1)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        trunk: Any = model.backbone
        knobs = self.options
        shape = (len(trunk.blocks), trunk.embed_dims, knobs.tokens, knobs.rank)
        FrequencyAdapter(*shape, knobs.scale, trunk.patch_size, knobs.normalised).attach(trunk)
        return model
