"""HRDA: one network at two scales, a coarse context of the whole image and fine details of a part of it.

Source: Hoyer, Dai and Van Gool, *HRDA: Context-Aware High-Resolution Domain-Adaptive Semantic Segmentation*, ECCV 2022,
section 3. Encoder f_E and head f_D are shared by both scales, with s = 1 / ``scale`` and ζ bilinear resizing:

    context     y_c = f_D(f_E(x_c)), x_c the whole image at 1/s of its size
    detail      y_d = f_D(f_E(x_d)), x_d a crop at full resolution
    attention   a = sigmoid(f_A(f_E(x_c))), of each class, and 0 outside the detail crop
    fused       y = ζ((1 − a) · y_c, s) + ζ(a, s) · y_d, with y_d filled up by zeros outside its crop
    loss        (1 − λ) · L(y) + λ · L(y_d),   λ = 0.1

In training there is one detail crop a step, at a place drawn from torch's global generator. In eval mode it slides
over the whole image with overlap; overlapping logits are averaged before they are fused.

Crops lie on the grid of the context's logits (s · output stride: 8 pixels for MiT), so that fusing moves nothing.

**Assumed**: ``Output.features``, which methods attach losses to, are the context's. They cover the whole image, the
detail's but a quarter of it; and HRDA's own code measures DAFormer's feature distance on them. Auxiliary heads, which
the paper does not have, see the context.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flexseg.errors import RunError
from flexseg.models.description import ModelError, suggest
from flexseg.models.registry import MODELS, EncoderDecoder
from flexseg.models.segmentor import Auxiliary, Output, Segmentor, parts_of
from flexseg.models.windows import Box, windows

PIXELS = 2**22
"""How many pixels of detail windows are shown to the network at once: 16 windows of 512²."""


@dataclass(frozen=True)
class Scales:
    """The two scales of a trunk, ``hrda:`` in a benchmark file beside the ``attention`` head.

    ``scale`` of the context; ``detail`` (height, width) of the detail crop and ``stride`` of its windows, in pixels of
    the image; ``loss_weight`` λ of the detail's own loss; ``output_stride`` of the decode head's logits.
    """

    scale: float = 0.5
    detail: tuple[int, int] = (512, 512)
    stride: tuple[int, int] = (256, 256)
    loss_weight: float = 0.1
    output_stride: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.scale < 1 or abs(1 / self.scale - self.factor) > 1e-6:
            raise ModelError(f"hrda.scale is 1/2, 1/3, …, the size of the context, not {self.scale}")
        if not 0 <= self.loss_weight < 1:
            raise ModelError(f"hrda.loss_weight lies from 0 to below 1, not {self.loss_weight}")
        for name, values, step in (("detail", self.detail, self.grid), ("stride", self.stride, self.output_stride)):
            if len(values) != 2 or any(side < step or side % step for side in values):
                raise ModelError(f"hrda.{name} is a height and a width, multiples of {step} pixels, not {list(values)}")
        if any(step > side for step, side in zip(self.stride, self.detail, strict=True)):
            raise ModelError(
                f"hrda.stride {list(self.stride)} is larger than detail {list(self.detail)}: it leaves gaps"
            )

    @property
    def factor(self) -> int:
        """s, how much smaller than the image the context is."""
        return round(1 / self.scale)

    @property
    def grid(self) -> int:
        """The stride of the context's logits in pixels of the image."""
        return self.factor * self.output_stride


def complete(hrda: Mapping[str, Any], decode_head: Mapping[str, Any]) -> dict[str, Any]:
    """Complete ``hrda:`` of a trunk's description: the attention head sees the maps that the decode head sees.

    Raises:
        ModelError: an unknown key or a wrong value.
    """
    known = [knob.name for knob in fields(Scales)]
    for key in hrda:
        if key not in (*known, "attention"):
            raise ModelError(f"hrda takes no {key!r}{suggest(key, (*known, 'attention'))}")
    attention = hrda.get("attention", {"type": "SegformerHead", "channels": 256})
    if not isinstance(attention, Mapping):
        raise ModelError(f"hrda.attention is one mapping with a `type`, not a {type(attention).__name__}")
    shared = ("in_channels", "in_index", "align_corners", "norm_cfg")
    maps = {key: decode_head[key] for key in shared if key in decode_head}
    if isinstance(decode_head.get("in_channels"), Sequence):  # DAFormerHead may leave out that it takes every stage
        maps.setdefault("in_index", list(range(len(decode_head["in_channels"]))))
    scales = scales_of(hrda)
    return {knob: getattr(scales, knob) for knob in known} | {"attention": maps | dict(attention)}


def scales_of(hrda: Mapping[str, Any]) -> Scales:
    """The scales that ``hrda:`` of a description names.

    Raises:
        ModelError: an unknown key or a wrong value.
    """
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in hrda.items()}
    values.pop("attention", None)
    try:
        return Scales(**values)
    except TypeError as error:
        raise ModelError(f"hrda: {error}") from error


def fuse(context: Tensor, detail: Tensor, attention: Tensor, place: tuple[int, int], factor: int) -> Tensor:
    """y, the fused logits (B, C, s·h, s·w).

    Args:
        context: y_c (B, C, h, w). detail: y_d (B, C, h', w'). attention: a before it is masked, of the context's shape.
        place: top and left of the detail on the grid of the result; like h' and w' multiples of ``factor``.
        factor: s.
    """
    height, width = (factor * side for side in context.shape[2:])
    (top, left), (tall, wide) = place, detail.shape[2:]
    below, right = height - top - tall, width - left - wide
    if below or right or top or left:
        inside = attention.new_zeros(attention.shape[2:])
        inside[top // factor : (top + tall) // factor, left // factor : (left + wide) // factor] = 1
        attention = attention * inside
        detail = pad(detail, (left, right, top, below))
    coarse = interpolate((1 - attention) * context, (height, width), mode="bilinear", align_corners=False)
    return coarse + interpolate(attention, (height, width), mode="bilinear", align_corners=False) * detail


class HRDASegmentor(Segmentor):
    """A trunk that sees every image at two scales.

    Args:
        backbone: f_E. decode_head: f_D.
        scale_attention: f_A, a head with as many channels of logits as ``decode_head``.
        scales: the two scales.
        size_divisor: what the backbone wants; images, and so training crops, must be multiples of a multiple of it.
        **parts: as for :class:`Segmentor`.

    Raises:
        ModelError: the backbone cannot take a detail crop.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decode_head: nn.Module,
        *,
        scale_attention: nn.Module,
        scales: Scales,
        size_divisor: int = 1,
        features: str = "",
        **parts: nn.Module | None,
    ) -> None:
        if any(side % size_divisor for side in scales.detail):
            raise ModelError(f"hrda.detail {list(scales.detail)}: this backbone takes multiples of {size_divisor} only")
        multiple = math.lcm(scales.grid, scales.factor * size_divisor)
        super().__init__(backbone, decode_head, size_divisor=multiple, features=features, **parts)
        self.scale_attention = scale_attention
        self.scales = scales

    def heads(self) -> list[tuple[str, nn.Module]]:
        """(place in the description, head) of every head."""
        return [*super().heads(), ("hrda.attention", self.scale_attention)]

    def check(self, images: Tensor, logits: Tensor) -> None:
        """Refuse a decode head whose logits have another stride than ``hrda.output_stride``.

        Raises:
            ModelError: with the stride that was found.
        """
        stride = images.shape[3] / logits.shape[3]
        if stride != self.scales.output_stride:
            raise ModelError(
                f"hrda.output_stride is {self.scales.output_stride}, but this trunk's logits have stride {stride:g}: "
                f"write `output_stride: {stride:g}`"
            )

    def context(self, images: Tensor) -> Tensor:
        """x_c: the whole images, (B, 3, H/s, W/s)."""
        size = [side // self.scales.factor for side in images.shape[2:]]
        return interpolate(images, size, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Output:
        """Fused logits (B, C, H/o, W/o) at the output stride o, and the context's features (B, D, H/(s·o), W/(s·o)).

        In train mode ``auxiliary`` begins with the detail's logits and their box.

        Raises:
            RunError: H or W is no multiple of ``size_divisor``.
        """
        self.check_size(images)
        height, width = images.shape[2:]
        stages = self.stages(self.context(images))
        context, features = self.decode(stages)
        attention = torch.sigmoid(self.scale_attention(stages))
        if not self.training:
            return Output(fuse(context, self._slide(images), attention, (0, 0), self.scales.factor), features, ())
        box = self.draw(height, width)
        detail = self.decode(self.stages(_cut(images, box)))[0]
        logits = fuse(context, detail, attention, self._on_grid(box)[:2], self.scales.factor)
        weight = self.scales.loss_weight
        return Output(logits, features, (Auxiliary(weight, detail, box), *self._auxiliary(stages)), 1 - weight)

    def draw(self, height: int, width: int) -> Box:
        """Where this step's detail crop lies; where it is as large as the image, nothing is drawn."""
        size = self.detail_size(height, width)
        step = self.size_divisor // self.scales.factor if self.size_divisor > self.scales.grid else self.scales.grid
        top, left = (
            step * int(torch.randint(places, ())) if places > 1 else 0
            for places in ((side - length) // step + 1 for side, length in zip((height, width), size, strict=True))
        )
        return top, left, *size

    def detail_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the detail crop of an image."""
        return min(height, self.scales.detail[0]), min(width, self.scales.detail[1])

    def _slide(self, images: Tensor) -> Tensor:
        """y_d of the whole images, (B, C, H/o, W/o): the mean over the windows that cover a place."""
        boxes = windows(images.shape[2:], self.scales.detail, self.scales.stride)
        together = max(1, PIXELS // (len(images) * boxes[0][2] * boxes[0][3]))
        size = [side // self.scales.output_stride for side in images.shape[2:]]
        count = images.new_zeros(size)
        total = images.new_zeros(len(images), self.num_classes, *size)
        for start in range(0, len(boxes), together):
            some = boxes[start : start + together]
            logits = self.decode(self.stages(torch.cat([_cut(images, box) for box in some])))[0]
            for box, part in zip(some, logits.split(len(images)), strict=True):
                place = self._on_grid(box)
                _cut(total, place).add_(part)
                _cut(count, place).add_(1)
        return total / count

    def _on_grid(self, box: Box) -> Box:
        """A box of the image on the grid of the logits."""
        top, left, height, width = (length // self.scales.output_stride for length in box)
        return top, left, height, width


@MODELS.register_module()
class HRDAEncoderDecoder(EncoderDecoder):
    """HRDA as a segmentor of mmseg, for inference: with the state dict and the logits of :class:`HRDASegmentor`.

    ``custom_imports = dict(imports=["flexseg.models.hrda"])`` in an mmseg configuration makes it known there.

    Args:
        hrda: as :func:`complete` returns it.
        **kwargs: as for mmseg's ``EncoderDecoder``.
    """

    def __init__(self, hrda: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scales = scales_of(hrda)
        self.scale_attention = MODELS.build(dict(hrda["attention"]))

    def encode_decode(self, inputs: Tensor, batch_img_metas: Any) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W)."""
        return self._segmentor().predict(inputs)

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        return self._segmentor()(inputs).logits

    def _segmentor(self) -> HRDASegmentor:
        made = HRDASegmentor(**parts_of(self), scale_attention=self.scale_attention, scales=self.scales)
        return made.train(self.training)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        """Refuse: mmseg's losses know one scale only.

        Raises:
            RunError: always.
        """
        raise RunError("HRDAEncoderDecoder is for inference with mmseg; train it with `flexseg train`")


def _cut(maps: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return maps[..., top : top + height, left : left + width]
