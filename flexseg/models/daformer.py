"""The DAFormer decode head: context-aware fusion of multi-level features.

Source: Hoyer, Dai and Van Gool, *DAFormer: Improving Network Architectures and Training Strategies for
Domain-Adaptive Semantic Segmentation*, CVPR 2022, section 3.2 and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_conv_layer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flexseg.models.registry import MODELS, BaseDecodeHead, DepthwiseSeparableASPPModule


@MODELS.register_module()
class DAFormerHead(BaseDecodeHead):
    """Embed every stage, stack all at the largest map, fuse with a depthwise-separable ASPP, classify.

    1. A linear layer (1×1 convolution with bias, no norm, no activation) takes stage i from C_i to ``embed_dims``.
    2. All are upsampled bilinearly to the size of the first selected (largest) map and concatenated.
    3. With ``dilations``, parallel branches see the stack: a 1×1 convolution for dilation 1, a depthwise-separable 3×3
       convolution for every larger dilation, each with norm and ReLU. Unlike in DeepLab, no branch pools the image.
    4. A 3×3 convolution with norm and ReLU takes the concatenated branches to ``channels``; then dropout, ``conv_seg``.
       Without ``dilations`` it is a 1×1 convolution on the stack itself: HRDA's attention (``hrda_head.py`` of its
       code) is such a head.

    With the defaults, 19 classes and MiT-B5's widths (64, 128, 320, 512) the head has 3 712 275 parameters, together
    with mmseg's MiT-B5 85 155 283. (A 1×1 convolution in step 4 would make 1.6 M and 83.1 M.)

    Args:
        in_channels: C_i of each selected stage.
        channels: width of the fused features that ``conv_seg`` sees.
        in_index: which stages of the backbone, largest map first; all of them unless told.
        embed_dims: width of each embedded stage.
        dilations: one branch each; none for a head without branches.
        **kwargs: as for mmseg's ``BaseDecodeHead``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        in_index: Sequence[int] | None = None,
        embed_dims: int = 256,
        dilations: Sequence[int] = (1, 6, 12, 18),
        **kwargs: Any,
    ) -> None:
        if isinstance(in_channels, int):
            raise TypeError(f"in_channels is a list with the width of each stage, not {in_channels}")
        index = tuple(range(len(in_channels))) if in_index is None else tuple(in_index)
        super().__init__(tuple(in_channels), channels, in_index=index, input_transform="multiple_select", **kwargs)
        self.embed = nn.ModuleList(
            build_conv_layer(self.conv_cfg, width, embed_dims, kernel_size=1) for width in in_channels
        )
        blocks = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
        stacked = embed_dims * len(in_channels)
        if not dilations:
            self.context = None
            self.fuse = ConvModule(stacked, channels, kernel_size=1, **blocks)
            return
        self.context = DepthwiseSeparableASPPModule(
            dilations=tuple(dilations), in_channels=stacked, channels=channels, **blocks
        )
        self.fuse = ConvModule(channels * len(dilations), channels, kernel_size=3, padding=1, **blocks)

    def fused(self, stages: Sequence[Tensor]) -> Tensor:
        """The fused features, before dropout and ``conv_seg``.

        Args:
            stages: the backbone's maps, (B, C_i, h_i, w_i).

        Returns:
            (B, channels, h, w) with h, w of the first selected map.
        """
        selected = self._transform_inputs(stages)
        size = selected[0].shape[2:]
        embedded = [layer(stage) for layer, stage in zip(self.embed, selected, strict=True)]
        stack = torch.cat(
            [
                x if x.shape[2:] == size else interpolate(x, size, mode="bilinear", align_corners=self.align_corners)
                for x in embedded
            ],
            dim=1,
        )
        return self.fuse(stack if self.context is None else torch.cat(self.context(stack), dim=1))

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, h, w) at the first selected map's stride."""
        return self.cls_seg(self.fused(stages))
