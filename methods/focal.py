"""Focal loss: the better a pixel is predicted, the less it counts; a control for emphasis without a boundary.

Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017. With p the probability of a pixel's label,

    L = mean over valid pixels of (1 − p)^γ · (−log p).

Published: γ = 2, for detection. The weight α of classes, published for foreground against background, is left out: with
19 classes it has no counterpart. UBE emphasises pixels on a boundary by their entropy; this one emphasises pixels
anywhere by their own error, so that wrong labels count most.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flexseg.components.losses import mean_over_valid, negative_log_likelihood
from flexseg.method import Batch, Method, option
from flexseg.models import Output


class Focal(Method):
    name = "focal"
    title = "Focal loss"
    paper = "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017"

    @dataclass(frozen=True)
    class Options:
        gamma: float = option(2.0, "γ, how much less a well predicted pixel counts; 0 is the cross entropy")

        def __post_init__(self) -> None:
            if not 0 <= self.gamma < float("inf"):
                raise ValueError(f"gamma is a number from 0 on, not {self.gamma}")

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        losses = negative_log_likelihood(log_p, batch.labels)
        missing = -(-losses).expm1()  # 1 − p, exact for p near 1
        return {"focal": mean_over_valid(missing.clamp_min(0).pow(self.options.gamma) * losses, batch.labels)}
