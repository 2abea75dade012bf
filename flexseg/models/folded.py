"""Pointwise convolutions of small batches that a CPU's fast kernels take."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d

from flexseg.models.registry import MODELS

FEWEST = 16
"""From how many images on torch gives a 1×1 convolution on one thread to oneDNN; for fewer it calls the BLAS library.

That is the slower way where the library is held to sums that are equal on all processors (:mod:`flexseg.kernels`).
"""


@MODELS.register_module()
class FoldedConv2d(nn.Conv2d):
    """A convolution that, where its kernel is one pixel, shows rows of few images as those of more images.

    For such a kernel pixels are all alike, whichever image they are of, so only the order of sums can change; nothing
    is copied. It does so on a CPU, with the channels last. Heads take it as ``conv_cfg: {type: FoldedConv2d}``.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size != (1, 1) or self.stride != (1, 1) or self.groups != 1 or x.device.type != "cpu":
            return super().forward(x)
        return folded(x, self.weight, self.bias)


def folded(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A pointwise convolution of (B, C, H, W) with a weight (D, C, 1, 1): (B, D, H, W)."""
    batch, channels, height, width = x.shape
    parts = [n for n in range(1, height + 1) if height % n == 0 and batch * n >= FEWEST]
    pixels = x.permute(0, 2, 3, 1)
    if batch >= FEWEST or not parts or not pixels.is_contiguous():
        return conv2d(x, weight, bias)
    rows = pixels.view(batch * parts[0], height // parts[0], width, channels)
    found = conv2d(rows.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
    return found.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
