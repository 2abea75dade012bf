"""Noise-robust cross entropies: pixels whose labels may be wrong count less; a control for learning from noisy labels.

FLEX-Seg's premise is that generated images do not match their labels at outlines, and it emphasises these pixels. The
literature on label noise does the opposite. With p the probability of a pixel's label,

    generalised:   L = mean of (1 − p^q) / q                  Zhang & Sabuncu, NeurIPS 2018; q = 0.7
    symmetric:     L = mean of α (−log p) − β A (1 − p)       Wang et al., ICCV 2019; α = 0.1, β = 1, A = −4

over valid pixels. The first is the cross entropy for q → 0 and the mean absolute error for q = 1. The second adds the
reverse cross entropy −Σ_c p_c log q_c of the one-hot label q, in which log 0 is A. Published for the classification of
CIFAR-10, not for segmentation; nothing depends on the size of an image, so nothing is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from flexseg.components.losses import mean_over_valid, negative_log_likelihood
from flexseg.method import Batch, Method, option
from flexseg.models import Output


class NoiseRobust(Method):
    name = "noise_robust"
    title = "Noise-robust cross entropy"
    paper = (
        "Zhang & Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, NeurIPS "
        "2018; Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019"
    )

    @dataclass(frozen=True)
    class Options:
        kind: Literal["generalised", "symmetric"] = option("generalised", "which of the two")
        q: float = option(0.7, "of the generalised one, from the cross entropy (towards 0) to the absolute error (1)")
        alpha: float = option(0.1, "α of the symmetric one, the weight of the cross entropy")
        beta: float = option(1.0, "β of the symmetric one, the weight of the reverse cross entropy")
        log_zero: float = option(-4.0, "A of the symmetric one, which stands for log 0")

        def __post_init__(self) -> None:
            if not 0 < self.q <= 1:
                raise ValueError(f"q lies above 0 and is at most 1, not {self.q}")
            if min(self.alpha, self.beta) < 0 or not self.log_zero < 0:
                raise ValueError(f"alpha and beta must not be negative, log_zero must be: {self}")

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        options, losses = self.options, negative_log_likelihood(log_p, batch.labels)
        if options.kind == "generalised":
            values = -(-options.q * losses).expm1() / options.q  # (1 − p^q) / q, exact for p near 1
        else:
            values = options.alpha * losses + options.beta * options.log_zero * (-losses).expm1()
        return {options.kind: mean_over_valid(values, batch.labels)}
