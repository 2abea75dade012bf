"""AdvStyle: every image is also seen in the colours in which the network errs most.

Zhong et al., *Adversarial Style Augmentation for Domain Generalized Urban-Scene Segmentation*, NeurIPS 2022. The style
of an image is the mean μ and the standard deviation σ of its red, green and blue. One step of gradient ascent of the
segmentation loss L makes them worse for the network, and the image takes the style found:

    x̂ = (x − μ) / σ,    μ⁺ = μ + γ ∂L(σ x̂ + μ)/∂μ,    σ⁺ = σ + γ ∂L(σ x̂ + μ)/∂σ,    x⁺ = σ⁺ x̂ + μ⁺

Then the network trains on the batch of x and x⁺, with the same labels: the mean cross entropy of all their pixels.
Published: one step of plain SGD, on normalised images; x̂ is a constant; the search passes the network as it trains, so
that BatchNorm takes the batch's statistics and counts the pass; x and x⁺ are one batch of twice the size; nothing is
clipped, neither σ⁺ nor x⁺. This is the paper's listing as others repeat it, with σ over HW pixels instead of HW − 1:
its own repository (zhunzhong07/AdvStyle) could not be read.

**Assumed**: γ, which was not found in a source; what it does is logged. L is the mean over the whole batch's valid
pixels, on all devices, so that an image's own gradient, and its step, shrink with the number of images; it is the loss
of the main head alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flexseg.classes import IGNORE
from flexseg.components.losses import pixel_cross_entropy
from flexseg.components.ranks import sum_over_ranks
from flexseg.components.style import channel_statistics, stylise
from flexseg.method import Batch, Method, Setup, option, upsample
from flexseg.models import Segmentor
from flexseg.shows import Curves


class AdvStyle(Method):
    name = "advstyle"
    title = "AdvStyle"
    paper = "Zhong et al., Adversarial Style Augmentation for Domain Generalized Urban-Scene Segmentation, NeurIPS 2022"
    shows = (
        Curves(
            "adversarial_style",
            "Adversarial style",
            {
                "advstyle/mean": "mean |μ⁺ − μ| (standard deviations of the data)",
                "advstyle/deviation": "mean |σ⁺ − σ| (standard deviations of the data)",
            },
            "How far the adversarial style of an image is from its own.",
        ),
    )

    @dataclass(frozen=True)
    class Options:
        gamma: float = option(3.0, "γ, the step of the ascent, on the scale of normalised images", origin="assumed")

        def __post_init__(self) -> None:
            if not 0 < self.gamma < math.inf:
                raise ValueError(f"gamma must be a number above 0, not {self.gamma}")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._moved: tuple[float | Tensor, float | Tensor] = (0.0, 0.0)

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        images = torch.cat([batch.images, self._worst(model, batch)])
        return super().forward(model, batch.repeated(2)._replace(images=images))

    def _worst(self, model: Segmentor, batch: Batch) -> Tensor:
        """x⁺, (B, 3, H, W), without a gradient. A collective."""
        style = [each.requires_grad_() for each in channel_statistics(batch.images)]
        logits = model(stylise(batch.images, *style)).logits
        losses = pixel_cross_entropy(upsample(logits, batch.labels.shape[-2:]), batch.labels)
        valid = sum_over_ranks((batch.labels != IGNORE).sum()).clamp_min(1)
        slopes = torch.autograd.grad(losses.sum() / valid, style)  # of the style alone: no weight gets a gradient
        with torch.no_grad():
            mean, deviation = (own + self.options.gamma * slope for own, slope in zip(style, slopes, strict=True))
            self._moved = (mean - style[0]).abs().mean(), (deviation - style[1]).abs().mean()
            return stylise(batch.images, mean, deviation)

    def log(self) -> dict[str, float]:
        return {"advstyle/mean": float(self._moved[0]), "advstyle/deviation": float(self._moved[1])}
