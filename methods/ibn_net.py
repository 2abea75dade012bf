"""IBN-Net: instance normalisation beside batch normalisation in the early stages (Pan et al., ECCV 2018).

    IN(x)_bc = γ_c (x_bc − μ_bc) / σ_bc + β_c      μ, σ over the pixels of one image's channel: removes its style
    BN(x)_bc = γ_c (x_bc − μ_c) / σ_c + β_c        μ, σ over the batch: keeps what distinguishes images

Variant *a* puts [IN on the first half of the channels ‖ BN on the rest] in place of a block's first BN. Variant *b*
puts IN behind the sum that ends a stage, before its ReLU, and in place of the stem's BN (the first two of a stem of
three convolutions, as RobustNet's code has it for ResNet-101).

Published for ResNet: *a* in every block of layer1–3, *b* at the ends of the stem, layer1 and layer2; γ = 1 and β = 0 at
the start. Both are ``stages`` = 3, and that is what a ResNet gets here. A trunk whose stages are plain chains (UNet:
encoder stages 0–2) has no sums: *a* takes a stage's first BN, *b* its last one, which IN replaces, as at the stem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flexseg.components.norms import (
    InstanceNorm,
    batch_norm_at,
    is_residual,
    put_at_stage_ends,
    replace_module,
    stages_with_batch_norm,
)
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor


class InstanceBatchNorm(nn.Module):
    """[IN on the first ⌊C/2⌋ channels ‖ BN on the others] of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = channels // 2
        self.instance = InstanceNorm(self.split)
        self.batch = nn.BatchNorm2d(channels - self.split)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.instance(x[:, : self.split]), self.batch(x[:, self.split :])], dim=1)


class IBNNet(Method):
    name = "ibn_net"
    title = "IBN-Net"
    paper = "Pan et al., Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net, ECCV 2018"
    needs = ("batch_norm",)

    @dataclass(frozen=True)
    class Options:
        variant: Literal["a", "b"] = option("b", "a: halves of the first norms, b: behind the stages")
        stages: int = option(3, "early stages that are changed, as published for ResNet", origin="assumed")

        def __post_init__(self) -> None:
            require_at_least(self, stages=1)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        backbone = model.backbone
        if self.options.variant == "b":
            put_at_stage_ends(backbone, self.options.stages, InstanceNorm)
            return model
        stages = stages_with_batch_norm(backbone)
        residual = {stage: norms for stage, norms in stages.items() if is_residual(backbone.get_submodule(stage))}
        for stage, norms in list((residual or stages).items())[: self.options.stages]:
            firsts = {_block(stage, norm): norm for norm in reversed(norms)}.values() if residual else norms[:1]
            for norm in firsts:
                replace_module(backbone, norm, InstanceBatchNorm(batch_norm_at(backbone, norm).num_features))
        return model


def _block(stage: str, path: str) -> str:
    """The block of a stage to which the module at ``path`` belongs."""
    return path.removeprefix(stage + ".").partition(".")[0]
