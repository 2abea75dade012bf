"""Switchable whitening: a learnt mix of whitening over the batch and over each image (Pan et al., ICCV 2019).

With the mean and covariance of a group of d channels over the batch (BW) and over one image (IW),

    μ = ω_1 μ_bw + ω_2 μ_iw,   Σ = ω'_1 Σ_bw + ω'_2 Σ_iw + ε I,   y = γ ⊙ Σ^{−1/2} (x − μ) + β,

where ω and ω' are each the softmax of two learnt numbers of the layer, equal at the start. The inverse root is found by
T steps of Newton's iteration on Σ / tr Σ: P_0 = I, P_{k+1} = ½ (3 P_k − P_k³ Σ / tr Σ), Σ^{−1/2} ≈ P_T / √tr Σ.
In evaluation moving averages stand for μ_bw and Σ_bw; the image's own statistics are always its own.

Published: this mix of two (the paper's sw_type 2), groups of 16 channels, T = 5, ε = 1e-5, momentum 0.99 (the share of
the old moving average that stays). In comparisons of domain generalization it stands in a ResNet where RobustNet's code
has it: in place of the stem's norm, and behind the sums that end layer1 and layer2, whose own norms stay. A trunk whose
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
from flexseg.method import Method, Setup, option, require_at_least
from flexseg.models import Segmentor
from flexseg.shows import Curves


class SwitchableWhitening2d(nn.Module):
    """The mix of batch and instance whitening of (B, C, H, W), in the dtype of its parameters.

    ``mean_mix`` and ``covariance_mix`` (2,) are the numbers under the softmax, batch first. Buffers: ``running_mean``
    (G, d) and ``running_covariance`` (G, d, d) for G groups of d channels.
    """

    running_mean: Tensor
    running_covariance: Tensor

    def __init__(
        self, channels: int, group: int = 16, iterations: int = 5, momentum: float = 0.99, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.iterations, self.momentum, self.eps = iterations, momentum, eps
        size = group_size(channels, group)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mean_mix = nn.Parameter(torch.ones(2))
        self.covariance_mix = nn.Parameter(torch.ones(2))
        self.register_buffer("running_mean", torch.zeros(channels // size, size))
        self.register_buffer("running_covariance", torch.eye(size).repeat(channels // size, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._whiten(x.to(self.weight.dtype)).to(x.dtype)

    def _whiten(self, x: Tensor) -> Tensor:
        groups, size = self.running_mean.shape
        batch, channels, height, width = x.shape
        # (B, G, H·W, d): without a copy where the channels lie last
        points = x.permute(0, 2, 3, 1).reshape(batch, height * width, groups, size).transpose(1, 2)
        image_mean = points.mean(dim=2)
        centred = points - image_mean[:, :, None]
        image_covariance = centred.mT @ centred / (height * width)
        if self.training:
            batch_mean = image_mean.mean(dim=0)
            apart = image_mean - batch_mean
            between = apart[..., :, None] * apart[..., None, :]
            batch_covariance = (image_covariance + between).mean(dim=0)
            with torch.no_grad():
                self.running_mean.lerp_(batch_mean, 1 - self.momentum)
                self.running_covariance.lerp_(batch_covariance, 1 - self.momentum)
        else:
            batch_mean, batch_covariance = self.running_mean, self.running_covariance
        of_mean, of_covariance = self.mean_mix.softmax(0), self.covariance_mix.softmax(0)
        mean = of_mean[0] * batch_mean + of_mean[1] * image_mean
        ridge = self.eps * torch.eye(size, dtype=x.dtype, device=x.device)
        covariance = of_covariance[0] * batch_covariance + of_covariance[1] * image_covariance + ridge
        whitening = self.weight.view(groups, size, 1) * newton_whitening(covariance, self.iterations)
        # x − μ = (x − μ_iw) + (μ_iw − μ): the second part is one vector an image
        shift = self.bias.view(groups, 1, size) + (image_mean - mean)[:, :, None] @ whitening.mT
        whitened = centred @ whitening.mT + shift
        return whitened.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class SwitchableWhitening(Method):
    name = "switchable_whitening"
    title = "Switchable whitening"
    paper = "Pan et al., Switchable Whitening for Deep Representation Learning, ICCV 2019"
    needs = ("batch_norm",)
    shows = (
        Curves(
            "whitening",
            "Switchable whitening",
            {f"sw/batch_{part}_{layer}": f"layer {layer + 1}: share of the batch's {part}"
             for part in ("mean", "covariance") for layer in range(3)},
            "How much of the batch's statistics each layer takes, ω_1 and ω'_1; the rest are the image's own.",
        ),
    )  # fmt: skip

    @dataclass(frozen=True)
    class Options:
        stages: int = option(3, "early stages at whose ends it stands, as published for ResNet", origin="assumed")
        group: int = option(16, "d, channels that are whitened together")
        iterations: int = option(5, "T, Newton's steps")
        momentum: float = option(0.99, "share of the old value that stays in the moving averages")
        eps: float = option(1e-5, "ε, added to the variances")

        def __post_init__(self) -> None:
            require_at_least(self, stages=1, group=1, iterations=1)

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._layers: list[Any] = []  # SwitchableWhitening2d

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        chosen = self.options

        def make(channels: int) -> SwitchableWhitening2d:
            return SwitchableWhitening2d(channels, chosen.group, chosen.iterations, chosen.momentum, chosen.eps)

        self._layers = put_at_stage_ends(model.backbone, chosen.stages, make)
        return model

    @torch.no_grad()
    def log(self) -> dict[str, float]:
        """How much of the batch's statistics each layer takes, ω_1 and ω'_1, from the input on."""
        values = {}
        for number, layer in enumerate(self._layers):
            values[f"sw/batch_mean_{number}"] = float(layer.mean_mix.softmax(0)[0])
            values[f"sw/batch_covariance_{number}"] = float(layer.covariance_mix.softmax(0)[0])
        return values
