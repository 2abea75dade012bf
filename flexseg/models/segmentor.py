"""The interface of a trunk: images in, logits and features out.

How a trunk is built from a benchmark file is :mod:`flexseg.models.build`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flexseg.models.description import ModelError, name_of


class Auxiliary(NamedTuple):
    """A further map of logits that is trained beside the main one."""

    weight: float
    """Of its loss."""
    logits: Tensor
    """(B, 19, h', w')."""
    box: tuple[int, int, int, int] | None = None
    """(top, left, height, width) in image pixels of what the logits are about; None if that is the whole image."""


class Output(NamedTuple):
    """What a trunk says about a batch of images."""

    logits: Tensor
    """(B, 19, h, w) at the head's stride."""
    features: Tensor
    """(B, D, h, w): what the head's classifier ``conv_seg`` sees; while training that is after dropout."""
    auxiliary: tuple[Auxiliary, ...]
    """Of each auxiliary head; empty in eval mode."""
    weight: float = 1.0
    """Of the losses of ``logits`` and ``features``, beside those of ``auxiliary``."""


class Segmentor(nn.Module):
    """The parts of an mmseg ``EncoderDecoder`` under their own names, so that the state dicts are interchangeable.

    Args:
        model: the ``EncoderDecoder`` whose parts are taken over.
        size_divisor: ``predict`` pads images to a multiple of this, for backbones that accept nothing else.
    """

    feature_channels: int
    """D, the number of channels of ``Output.features``."""

    def __init__(self, model: nn.Module, size_divisor: int = 1) -> None:
        super().__init__()
        parts: Any = model
        if not hasattr(parts.decode_head, "conv_seg"):
            raise ModelError(f"decode_head {name_of(parts.decode_head)} has no conv_seg, so no features: take another")
        self.backbone: nn.Module = parts.backbone
        self.neck: nn.Module | None = parts.neck if parts.with_neck else None
        self.decode_head: nn.Module = parts.decode_head
        # One head or a ModuleList of them, as mmseg has it: the keys of the state dict depend on it.
        self.auxiliary_head: nn.Module | None = parts.auxiliary_head if parts.with_auxiliary_head else None
        self.align_corners = bool(parts.decode_head.align_corners)
        self.feature_channels = int(parts.decode_head.conv_seg.in_channels)
        self.size_divisor = size_divisor

    def stages(self, images: Tensor) -> Sequence[Tensor]:
        """The maps that the heads choose from, largest first in most backbones: (B, C_i, h_i, w_i) each.

        Args:
            images: (B, 3, H, W), normalised.
        """
        stages = self.backbone(images)
        return stages if self.neck is None else self.neck(stages)

    @property
    def classifier(self) -> nn.Module:
        """The convolution that makes logits (B, 19, h, w) of features (B, D, h, w)."""
        return self.decode_head.conv_seg  # type: ignore[return-value]

    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        """The auxiliary heads, none or more."""
        if self.auxiliary_head is None:
            return ()
        return tuple(self.auxiliary_head) if isinstance(self.auxiliary_head, nn.ModuleList) else (self.auxiliary_head,)

    def forward(self, images: Tensor) -> Output:
        """Logits and features of (B, 3, H, W) normalised images."""
        stages = self.stages(images)
        logits, features = self._decode(stages)
        return Output(logits, features, self._auxiliary(stages))

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, 19, H, W) at the size of the images (B, 3, H, W), resized bilinearly.

        Mode and gradients are the caller's: call ``eval()`` and use ``torch.inference_mode()`` to evaluate.
        """
        height, width = images.shape[2:]
        below, right = -height % self.size_divisor, -width % self.size_divisor
        if below or right:
            images = pad(images, (0, right, 0, below), mode="replicate")
        logits = self(images).logits
        logits = interpolate(logits, images.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return logits[:, :, :height, :width]

    def context(self, images: Tensor) -> Tensor:
        """What of (B, 3, H, W) images the first pass of the backbone sees in :meth:`forward`: here the images.

        A trunk of several scales overrides it; so a second encoder can be shown the same (DAFormer's FD).
        """
        return images

    def heads(self) -> list[tuple[str, nn.Module]]:
        """(place in the description, head) of every head."""
        return [("decode_head", self.decode_head), *(("auxiliary_head", head) for head in self.auxiliary_heads())]

    def check_output_stride(self, stride: float) -> None:
        """Refuse a decode head whose map has another stride than the trunk was described with; here any will do."""

    def _auxiliary(self, stages: Sequence[Tensor]) -> tuple[Auxiliary, ...]:
        if not self.training:
            return ()
        return tuple(
            Auxiliary(float(head.loss_decode.loss_weight), one_map(head, head(stages)))  # type: ignore[union-attr, arg-type]
            for head in self.auxiliary_heads()
        )

    def _head(self, stages: Sequence[Tensor]) -> Any:
        return self.decode_head(stages)

    def _decode(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        # The hook lives for this one call: nothing keeps a tensor alive, a copy copies no hook, and any head of
        # mmseg's works, because all classify with `conv_seg`.
        seen: list[Tensor] = []
        handle = self.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self._head(stages)
        finally:
            handle.remove()
        if len(seen) != 1:
            raise ModelError(
                f"decode_head {name_of(self.decode_head)} ran its conv_seg {len(seen)} times, not once: it has no "
                f"single map of features. Choose another head."
            )
        return one_map(self.decode_head, logits), seen[0]


def channels_last(module: nn.Module) -> None:
    """Lay out a trunk's weights with the channels last, in place: convolutions on a CPU, and the losses, are faster."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs


def size_divisor(backbone: nn.Module) -> int:
    """The multiple that image sizes must have: the overall stride for mmseg's UNet, 1 for all others."""
    from flexseg.models.registry import UNet

    if not isinstance(backbone, UNet):
        return 1
    later = zip(backbone.strides[1:], backbone.downsamples, strict=True)
    return int(backbone.strides[0] * 2 ** sum(stride == 2 or pooled for stride, pooled in later))


def one_map(head: nn.Module, logits: Any) -> Tensor:
    """What a head gave, if it is one map of logits; a :class:`ModelError` that names the head otherwise."""
    if not isinstance(logits, Tensor):
        raise ModelError(f"{name_of(head)} gives a {type(logits).__name__} instead of one map of logits: take another")
    return logits
