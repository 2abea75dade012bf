"""Online hard example mining: only the pixels that are predicted worst count; a control for emphasis of hard pixels.

Shrivastava et al., *Training Region-based Object Detectors with Online Hard Example Mining*, CVPR 2016, in the form
that segmentation uses (mmsegmentation's ``OHEMPixelSampler``). With p the probability of a pixel's label, the loss is
the mean cross entropy of the valid pixels with

    p < max(θ, p_(k)),    p_(k) the k-th smallest of the batch:

those that are predicted with less than θ, but at least k of them. Published for segmentation: θ = 0.7 and k = 100,000
of an image of 512 × 1024, a share of 0.19. k is that share of a crop here, void pixels included, so that it scales by
itself.

mmsegmentation divides by all pixels of the batch, which weakens the loss as fewer are kept; here the mean is over those
that are kept (as in HRNet's code). k counts the pixels of one device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flexseg.classes import IGNORE
from flexseg.components.losses import negative_log_likelihood
from flexseg.method import Batch, Method, option
from flexseg.models import Output


def hard_pixels(losses: Tensor, valid: Tensor, threshold: float, least: int) -> Tensor:
    """The pixels that are kept, of the shape of ``losses``, bool.

    Args:
        losses: −log p, of any shape. valid: bool, likewise. threshold: θ. least: k; with fewer valid pixels all count.
    """
    count = int(valid.sum())
    if count <= least:
        return valid
    limit = -torch.tensor(threshold, dtype=losses.dtype).log().to(losses.device)
    if least:
        kth = losses[valid].topk(least + 1, sorted=True).values[-1]  # p < p_(k), which has k pixels below it
        limit = torch.minimum(limit, kth)
    return valid & (losses > limit)


class OHEM(Method):
    name = "ohem"
    title = "OHEM"
    paper = "Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016"

    @dataclass(frozen=True)
    class Options:
        threshold: float = option(0.7, "θ: pixels predicted with less probability are kept")
        share: float = option(0.19, "share of a crop's pixels that are kept at least", origin="scaled")

        def __post_init__(self) -> None:
            if not (0 < self.threshold <= 1 and 0 <= self.share <= 1):
                raise ValueError(f"threshold must be above 0, share not below, both at most 1: {self}")

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        losses, valid = negative_log_likelihood(log_p, batch.labels), batch.labels != IGNORE
        least = round(self.options.share * losses.numel())
        kept = hard_pixels(losses.detach(), valid, self.options.threshold, least)
        return {"ohem": torch.where(kept, losses, 0.0).sum() / kept.sum().clamp_min(1)}
