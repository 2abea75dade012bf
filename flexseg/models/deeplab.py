"""The decode head of DeepLabV3+ as the ResNet line of domain generalization has it.

Source: Chen et al., *Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation*, ECCV 2018, in
the version of RobustNet (Choi et al., CVPR 2021; ``network/deepv3.py`` of its code), on which SHADE, WildNet, MRFP and
BlindNet build: full convolutions where mmseg's head has separable ones, of half its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flexseg.models.registry import MODELS, BaseDecodeHead


@MODELS.register_module()
class DeepLabV3PlusHead(BaseDecodeHead):
    """Atrous spatial pyramid pooling on the deepest map, fused with an early one.

    1. Branches of ``channels`` see the deepest map: its mean over positions behind a 1×1 convolution, a 1×1 convolution
       for dilation 1, a 3×3 convolution for each larger dilation. Another 1×1 convolution takes them to ``channels``.
    2. The result is upsampled bilinearly to the early map, which a 1×1 convolution takes to ``low_channels``.
    3. Two 3×3 convolutions to ``channels`` see both; then dropout and ``conv_seg``.

    Every convolution but ``conv_seg`` is followed by norm and ReLU.

    Args:
        in_channels: of the early and of the deepest map. in_index: which stages of the backbone these are.
        channels: width of the branches and of what ``conv_seg`` sees.
        dilations: of the branches, (1, 6, 12, 18) at output stride 16, twice that at 8.
        low_channels: width of the early map beside the others.
        **kwargs: as for mmseg's ``BaseDecodeHead``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        in_index: Sequence[int] = (0, 3),
        dilations: Sequence[int] = (1, 6, 12, 18),
        low_channels: int = 48,
        **kwargs: Any,
    ) -> None:
        if isinstance(in_channels, int) or len(in_channels) != 2:
            raise TypeError(f"in_channels are the widths of an early and of the deepest map, not {in_channels}")
        super().__init__(
            tuple(in_channels), channels, in_index=tuple(in_index), input_transform="multiple_select", **kwargs
        )
        blocks = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
        low, deep = in_channels
        self.pooled = ConvModule(deep, channels, 1, **blocks)
        self.branches = nn.ModuleList(
            ConvModule(deep, channels, 1, **blocks)
            if dilation == 1
            else ConvModule(deep, channels, 3, padding=dilation, dilation=dilation, **blocks)
            for dilation in dilations
        )
        self.context = ConvModule(channels * (1 + len(dilations)), channels, 1, **blocks)
        self.low = ConvModule(low, low_channels, 1, **blocks)
        self.fuse = nn.Sequential(
            ConvModule(channels + low_channels, channels, 3, padding=1, **blocks),
            ConvModule(channels, channels, 3, padding=1, **blocks),
        )

    def fused(self, stages: Sequence[Tensor]) -> Tensor:
        """The fused features, before dropout and ``conv_seg``.

        Args:
            stages: the backbone's maps, (B, C_i, h_i, w_i).

        Returns:
            (B, channels, h, w) with h, w of the early map.
        """
        early, deep = self._transform_inputs(stages)
        mean = self.pooled(deep.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *deep.shape[2:])
        context = self.context(torch.cat([mean, *(branch(deep) for branch in self.branches)], dim=1))
        size = early.shape[2:]
        context = interpolate(context, size, mode="bilinear", align_corners=self.align_corners)
        return self.fuse(torch.cat([self.low(early), context], dim=1))

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, h, w) at the early map's stride."""
        return self.cls_seg(self.fused(stages))
