"""Rein: trained tokens refine the features between the blocks of a frozen transformer.

Wei et al., *Stronger, Fewer, & Superior: Harnessing Vision Foundation Models for Domain Generalized Semantic
Segmentation*, CVPR 2024. Behind every block, with the patches' features F (N × C) and the block's own tokens T (m × C),

    S = softmax(F Tᵀ / √C),   ΔF = scale · MLP_f(S[:, 2…m] · MLP_T(T[2…m]) + F),   F ← F + ΔF,   T = A B,

A (m × r) and B (r × C). The softmax sums to one, so the first token, whose share is dropped, lets a feature stay as
it is. Published: m = 100, r = 16, AdamW with learning rate 1e-4 (a benchmark's schedule here), scale 0.001. The
authors' code says the rest: the first token is dropped; both MLPs are single linear layers that all blocks share, with
torch's initial values; ``scale`` is trained, one for all blocks; A and B begin uniform in ± √(6 / (3 p² + √(C r))), p
the side of a patch; the class token is not refined.

**Left out**: the link of the tokens to the queries of a Mask2Former head. The heads of this suite have no queries, so
the tokens learn through the features alone.

Licence: the authors' code is under GPL-3. Facts were read in it and no code was used; this is written from the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flexseg.components.tokens import TokenBranch
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor


class Refinement(TokenBranch):
    """F + ΔF behind each of ``blocks`` blocks: called with (features (B, N, C), number of the block).

    Args:
        channels: C. tokens: m. rank: r. scale: of ΔF, at the start. patch: p, the side of a patch in pixels.
    """

    def __init__(self, blocks: int, channels: int, tokens: int, rank: int, scale: float, patch: int) -> None:
        super().__init__(blocks, channels, tokens, rank, patch, idle=True)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def change(self, features: Tensor, block: int) -> Tensor:
        """ΔF, (B, N, C), in the surrounding precision except for the softmax."""
        return self.scale * super().forward(features, block)

    def forward(self, features: Tensor, block: int) -> Tensor:
        return features + self.change(features, block)


class Rein(Method):
    name = "rein"
    title = "Rein"
    paper = "Wei et al., Stronger, Fewer, & Superior: Harnessing Vision Foundation Models for DGSS, CVPR 2024"
    needs = ("vit",)

    @dataclass(frozen=True)
    class Options:
        tokens: int = option(100, "m, tokens behind each block; the first stands for no change")
        rank: int = option(16, "r, the rank of the tokens")
        scale: float = option(0.001, "what ΔF is multiplied by at the start; it is trained")

        def __post_init__(self) -> None:
            require_at_least(self, tokens=2, rank=1)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        trunk: Any = model.backbone
        knobs = self.options
        shape = (len(trunk.blocks), trunk.embed_dims, knobs.tokens, knobs.rank)
        trunk.adapter = Refinement(*shape, knobs.scale, trunk.patch_size)
        return model
