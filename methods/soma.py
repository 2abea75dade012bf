"""SoMA: the minor singular components of the frozen transformer's weights are trained, the major ones stay.

Yun et al., *SoMA: Singular Value Decomposed Minor Components Adaptation for Domain Generalizable Representation
Learning*, CVPR 2025 (arXiv 2412.04077; SoRA in its first version). A layer's weight W = U S Vᵀ, its singular values
falling, is split into

    W = W_0 + B A,   B = U_r √S_r,   A = √S_r V_rᵀ,

with the last r components in B A. W_0 is frozen; A, B and the layer's bias are trained from there on, so that training
begins at the frozen transformer itself, and what it knows best is left alone. Published, also by the authors' code:
r = 16, all linear layers of a block (query, key, value, projection and both of the MLP), the first 8 of DINOv2-L's 24
blocks frozen as they are.

Here: that third of the blocks of any trunk. **Left out**: the weight decay that falls from 0.05 to 1e-5 by a cosine,
and the trunk's half of the learning rate, which belong to a benchmark's schedule; the Mask2Former head.

The repository holds files of Rein under GPL-3; this is written from the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flexseg.components.low_rank import LowRank
from flexseg.components.norms import replace_module
from flexseg.errors import RunError
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor


@torch.no_grad()
def split_minor(layer: nn.Linear, rank: int) -> LowRank:
    """``layer`` with its ``rank`` last singular components as a trained addition; its weight is changed to the rest."""
    left, values, right = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    root = values[-rank:].clamp_min(0).pow(0.5)
    up, down = (left[:, -rank:] * root).to(layer.weight), (root[:, None] * right[-rank:]).to(layer.weight)
    layer.weight.copy_(layer.weight.double() - up.double() @ down.double())
    if layer.bias is not None:
        layer.bias.requires_grad_(True)
    return LowRank(layer, down, up)


class SoMA(Method):
    name = "soma"
    title = "SoMA"
    paper = "Yun et al., SoMA: Singular Value Decomposed Minor Components Adaptation, CVPR 2025"
    needs = ("vit",)

    @dataclass(frozen=True)
    class Options:
        rank: int = option(16, "r, how many minor components of a weight are trained")
        frozen: float = option(1 / 3, "share of the blocks, from the input on, that stay as they are")

        def __post_init__(self) -> None:
            require_at_least(self, rank=1)
            if not 0 <= self.frozen < 1:
                raise ValueError(f"frozen is a share from 0 to below 1, not {self.frozen}")

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        blocks: Any = model.backbone.blocks
        for block in list(blocks)[round(self.options.frozen * len(blocks)) :]:
            for path, layer in [each for each in block.named_modules() if isinstance(each[1], nn.Linear)]:
                if self.options.rank > min(layer.weight.shape):
                    sizes = f"{layer.out_features}×{layer.in_features}"
                    raise RunError(f"soma: a {sizes} weight has no {self.options.rank} minor components")
                replace_module(block, path, split_minor(layer, self.options.rank))
        return model
