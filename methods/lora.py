"""LoRA: the frozen transformer's query and value projections get a trained low-rank addition.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022. A projection with frozen weight W becomes

    h = W x + b + (α / r) B A x,   A (r × C) Gaussian and B (C × r) zero at the start,

so that training begins at the frozen transformer itself; (α / r) B A can be added to W afterwards. Published: on W_q
and W_v of every block. The paper's r and α differ by model and none is a vision transformer; r = α = 8 here is what it
has for RoBERTa-base, an encoder of ViT-Base's size.

Here the trunk is a frozen vision transformer (see docs/foundation.md) and the segmentation head is trained beside the
adapters. The Gaussian's width is not published: 1/√C is used, with which A x has the scale of x. No dropout.

Written from the paper's formula alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from flexseg.components.low_rank import LowRank
from flexseg.errors import RunError
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor


class LoRA(Method):
    name = "lora"
    title = "LoRA"
    paper = "Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022"
    needs = ("vit",)

    @dataclass(frozen=True)
    class Options:
        rank: int = option(8, "r, the rank of the addition", origin="assumed")
        alpha: float = option(8.0, "α; the addition is weighed by α / r", origin="assumed")
        projections: tuple[Literal["q", "k", "v", "o"], ...] = option(("q", "v"), "which projections of a block")

        def __post_init__(self) -> None:
            require_at_least(self, rank=1)
            if not self.projections or len(set(self.projections)) < len(self.projections):
                raise ValueError(f"projections: at least one of q, k, v, o, none twice, not {list(self.projections)}")

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        for block in model.backbone.blocks:  # type: ignore[union-attr]
            for letter in self.options.projections:
                base = getattr(block.attention, f"{letter}_proj")
                if self.options.rank > min(base.weight.shape):
                    sizes = f"{base.out_features}×{base.in_features}"
                    raise RunError(f"lora: rank {self.options.rank} is no low rank of a {sizes} projection")
                down = torch.randn(self.options.rank, base.in_features) / math.sqrt(base.in_features)
                up = torch.zeros(base.out_features, self.options.rank)
                adapted = LowRank(base, down, up, self.options.alpha / self.options.rank)
                setattr(block.attention, f"{letter}_proj", adapted)
        return model
