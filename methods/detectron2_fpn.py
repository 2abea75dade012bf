"""detectron2's semantic FPN, trained plainly on source and generated images: another trunk, the same loss.

Kirillov et al., *Panoptic Feature Pyramid Networks*, CVPR 2019, section 3: the semantic branch alone. A feature pyramid
over a ResNet gives maps of one width at strides 4, 8, 16 and 32. Each goes through 3×3 convolution, GroupNorm, ReLU and
2× bilinear upsampling until it is at stride 4; the four are summed, and a 1×1 convolution gives the logits.

Published, and detectron2's own settings: ResNet-50 or -101, pre-trained on ImageNet, BatchNorm frozen, 64 channels in
its stem, 256 in the pyramid, 128 in the branch, GroupNorm of 32 groups. Here the weights start random, BatchNorm
learns, and the trunk is a ResNet-18 at a quarter of its widths, with a quarter of the pyramid's and half of the
branch's (a quarter would leave GroupNorm one channel a group: instance normalisation, which is another method). At the
same time per step a ResNet-50 can only have an eighth of its widths: 18.0 against 30.3 mIoU on source validation after
300 iterations, with one seed that the benchmark does not use. At 64×128 pixels the classified map of stride 4 has 16×32
places, the UNet's 32×64: that is the architecture's, and costs thin objects. The benchmark's ``model`` is not used.

The row stands for the methods built on detectron2, with a trunk that can be trained here. CMFormer (Bi et al., AAAI
2024), the published one, is not this: its content-enhanced mask attention sits in a Mask2Former decoder on a
pre-trained Swin, and needs all of that, the matching losses and the weights. From random weights at this scale its
number would say nothing about it. Any other method trains on such a trunk through the ``model`` of its row
(docs/detectron2.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor, build_segmentor

STAGES = ["res2", "res3", "res4", "res5"]


class Detectron2FPN(Method):
    name = "detectron2_fpn"
    title = "Semantic FPN (detectron2)"
    paper = "Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019"

    @dataclass(frozen=True)
    class Options:
        depth: int = option(18, "layers of the ResNet: 18, 34, 50, 101 or 152; published 50 and 101", origin="scaled")
        width: int = option(16, "channels of the ResNet's stem, doubled at every stage; published 64", origin="scaled")
        pyramid: int = option(64, "channels of the pyramid's maps; published 256", origin="scaled")
        branch: int = option(64, "channels of the semantic branch, a multiple of 32; published 128", origin="scaled")

        def __post_init__(self) -> None:
            if self.depth not in (18, 34, 50, 101, 152):
                raise ValueError(f"depth is 18, 34, 50, 101 or 152, not {self.depth}")
            require_at_least(self, width=1, pyramid=1, branch=1)
            if self.branch % 32:
                raise ValueError(f"branch is a multiple of GroupNorm's 32 groups, not {self.branch}")

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        return build_segmentor({"detectron2": {"MODEL": self._describe()}})

    def _describe(self) -> dict[str, Any]:
        """The trunk as detectron2's configuration; its defaults hold for all that is not named."""
        depth, width = self.options.depth, self.options.width
        bottleneck = depth >= 50  # its blocks end in four times as many channels
        return {
            "BACKBONE": {"NAME": f"build_{'' if bottleneck else 'narrow_'}resnet_fpn_backbone"},
            "RESNETS": {
                "DEPTH": depth,
                "NORM": "BN",
                "STEM_OUT_CHANNELS": width,
                "WIDTH_PER_GROUP": width,
                "RES2_OUT_CHANNELS": 4 * width if bottleneck else width,
                "OUT_FEATURES": STAGES,
            },
            "FPN": {"IN_FEATURES": STAGES, "OUT_CHANNELS": self.options.pyramid},
            "SEM_SEG_HEAD": {"NAME": "SemSegFPNHead", "NORM": "GN", "CONVS_DIM": self.options.branch},
        }
