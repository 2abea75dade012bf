"""IterNorm: whitening over the batch, in groups of channels, by Newton's iteration (Huang et al., CVPR 2019).

For the features x_1 … x_m of a group of d channels, at all pixels of the batch,

    μ = (1/m) Σ_i x_i,   Σ = (1/m) Σ_i (x_i − μ)(x_i − μ)ᵀ + ε I,   Σ_N = Σ / tr Σ,
    P_0 = I,   P_{k+1} = ½ (3 P_k − P_k³ Σ_N),   W = P_T / √tr Σ,   y_i = γ ⊙ W (x_i − μ) + β.

W tends to Σ^{−1/2} (ZCA whitening). Gradients flow through μ and W; their moving averages serve in evaluation.

Published: T = 5, moving averages with momentum 0.1. Groups of 16 channels are those of the later comparisons in domain
generalization, and so is the place: in a ResNet in place of the stem's norm, and behind the sums that end layer1 and
layer2, whose own norms stay (as RobustNet's code has switchable whitening; for IterNorm **assumed**). A trunk whose
stages are plain chains has no sums, and there it replaces the last BatchNorm of each of the first ``stages`` stages
(UNet: encoder stages 0–2). Where 16 does not divide the channels, a group is the largest number below that does.
Statistics are those of one device, as BatchNorm's are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flexseg.components.norms import group_size, newton_whitening, put_at_stage_ends
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor


class IterativeWhitening(nn.Module):
    """Batch whitening of (B, C, H, W), in the dtype of its parameters whatever the precision around it.

    Buffers: ``running_mean`` (C,), ``running_whitening`` (G, d, d) for G groups of d channels.
    """

    running_mean: Tensor
    running_whitening: Tensor

    def __init__(
        self, channels: int, group: int = 16, iterations: int = 5, momentum: float = 0.1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.iterations, self.momentum, self.eps = iterations, momentum, eps
        size = group_size(channels, group)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_whitening", torch.eye(size).repeat(channels // size, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._whiten(x.to(self.weight.dtype)).to(x.dtype)

    def _whiten(self, x: Tensor) -> Tensor:
        groups, size = self.running_whitening.shape[:2]
        batch, channels, height, width = x.shape
        # (G, m, d): without a copy where the channels lie last
        points = x.permute(0, 2, 3, 1).reshape(-1, groups, size).transpose(0, 1)
        if self.training:
            mean = points.mean(dim=1, keepdim=True)
            centred = points - mean
            ridge = self.eps * torch.eye(size, dtype=x.dtype, device=x.device)
            covariance = centred.mT @ centred / centred.shape[1] + ridge
            whitening = newton_whitening(covariance, self.iterations)
            with torch.no_grad():
                self.running_mean.lerp_(mean.flatten(), self.momentum)
                self.running_whitening.lerp_(whitening, self.momentum)
        else:
            centred = points - self.running_mean.view(groups, 1, size)
            whitening = self.running_whitening
        scaled = self.weight.view(groups, size, 1) * whitening
        whitened = torch.baddbmm(self.bias.view(groups, 1, size), centred, scaled.mT)
        return whitened.transpose(0, 1).reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class IterNorm(Method):
    name = "iternorm"
    title = "IterNorm"
    paper = "Huang et al., Iterative Normalization: Beyond Standardization towards Efficient Whitening, CVPR 2019"
    needs = ("batch_norm",)

    @dataclass(frozen=True)
    class Options:
        stages: int = option(3, "early stages at whose ends it stands", origin="assumed")
        group: int = option(16, "d, channels that are whitened together", origin="assumed")
        iterations: int = option(5, "T, Newton's steps")
        momentum: float = option(0.1, "weight of the batch in the moving averages")
        eps: float = option(1e-5, "ε, added to the variances")

        def __post_init__(self) -> None:
            require_at_least(self, stages=1, group=1, iterations=1)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        chosen = self.options

        def make(channels: int) -> IterativeWhitening:
            return IterativeWhitening(channels, chosen.group, chosen.iterations, chosen.momentum, chosen.eps)

        put_at_stage_ends(model.backbone, chosen.stages, make)
        return model
