"""The interface of a trunk: images in, logits and features out.

How a trunk is built from a benchmark file is :mod:`flexseg.models.build`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flexseg.errors import RunError
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
    """A trunk of parts that bear mmseg's names for them, so that its state dict is an ``EncoderDecoder``'s.

    Args:
        backbone: makes maps (B, C_i, h_i, w_i) of images (B, 3, H, W).
        decode_head: makes logits (B, 19, h, w) of the maps; its last layer is a convolution named ``conv_seg``.
        neck: makes other maps of the backbone's.
        auxiliary_head: one head or a ``ModuleList`` of them, as mmseg has it: the keys of the state dict depend on it.
        size_divisor: ``predict`` pads images to a multiple of this, for backbones that accept nothing else.

    Raises:
        ModelError: the decode head has no such convolution.
    """

    classifier_name: ClassVar[str] = "conv_seg"
    """What the decode head calls the convolution that makes logits of features."""

    def __init__(
        self,
        backbone: nn.Module,
        decode_head: nn.Module,
        *,
        neck: nn.Module | None = None,
        auxiliary_head: nn.Module | None = None,
        size_divisor: int = 1,
    ) -> None:
        super().__init__()
        if not hasattr(decode_head, self.classifier_name):
            raise ModelError(
                f"decode_head {name_of(decode_head)} has no {self.classifier_name}, so no features: take another"
            )
        self.backbone = backbone
        self.neck = neck
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.size_divisor = size_divisor
        self.align_corners = bool(getattr(decode_head, "align_corners", False))
        self.feature_channels = int(self.classifier.in_channels)  # type: ignore[arg-type]
        """D, the number of channels of ``Output.features``."""

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
        return getattr(self.decode_head, self.classifier_name)

    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        """The auxiliary heads, none or more."""
        if self.auxiliary_head is None:
            return ()
        return tuple(self.auxiliary_head) if isinstance(self.auxiliary_head, nn.ModuleList) else (self.auxiliary_head,)

    def forward(self, images: Tensor) -> Output:
        """Logits and features of (B, 3, H, W) normalised images."""
        stages = self.stages(images)
        logits, features = self.decode(stages)
        return Output(logits, features, self._auxiliary(stages))

    def decode(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, 19, h, w) of the decode head, and the features (B, D, h, w) that its classifier saw.

        Raises:
            ModelError: the head classifies none or several maps, or gives several.
        """
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
                f"decode_head {name_of(self.decode_head)} ran its {self.classifier_name} {len(seen)} times, not once: "
                f"it has no single map of features. Choose another head."
            )
        return one_map(self.decode_head, logits), seen[0]

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

    def check_size(self, images: Tensor) -> None:
        """Refuse images (B, 3, H, W) that a trunk cannot do without ``predict``'s padding.

        Raises:
            RunError: H or W is no multiple of ``size_divisor``.
        """
        height, width = images.shape[2:]
        if height % self.size_divisor or width % self.size_divisor:
            raise RunError(
                f"this trunk takes multiples of {self.size_divisor} pixels only, not {height}×{width}: choose such a "
                f"training.crop"
            )

    def context(self, images: Tensor) -> Tensor:
        """What of (B, 3, H, W) images the first pass of the backbone sees in :meth:`forward`: here the images.

        A trunk of several scales overrides it; so a second encoder can be shown the same (DAFormer's FD).
        """
        return images

    def heads(self) -> list[tuple[str, nn.Module]]:
        """(place in the description, head) of every head."""
        return [("decode_head", self.decode_head), *(("auxiliary_head", head) for head in self.auxiliary_heads())]

    def check(self, images: Tensor, logits: Tensor) -> None:
        """Refuse what a dry run shows to be wrong with this kind of trunk; here nothing.

        Args:
            images: (1, 3, H, W). logits: (1, 19, h, w) of the decode head, shown the maps of the whole images.

        Raises:
            ModelError: with what to change in the description.
        """

    def _auxiliary(self, stages: Sequence[Tensor]) -> tuple[Auxiliary, ...]:
        if not self.training:
            return ()
        return tuple(
            Auxiliary(float(head.loss_decode.loss_weight), one_map(head, head(stages)))  # type: ignore[union-attr, arg-type]
            for head in self.auxiliary_heads()
        )

    def _head(self, stages: Sequence[Tensor]) -> Any:
        return self.decode_head(stages)


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


def parts_of(model: Any) -> dict[str, Any]:
    """The parts of an mmseg ``EncoderDecoder`` by the names that :class:`Segmentor` takes them by."""
    return {
        "backbone": model.backbone,
        "neck": model.neck if model.with_neck else None,
        "decode_head": model.decode_head,
        "auxiliary_head": model.auxiliary_head if model.with_auxiliary_head else None,
        "size_divisor": size_divisor(model.backbone),
    }


def one_map(head: nn.Module, logits: Any) -> Tensor:
    """What a head gave, if it is one map of logits; a :class:`ModelError` that names the head otherwise."""
    if not isinstance(logits, Tensor):
        raise ModelError(f"{name_of(head)} gives a {type(logits).__name__} instead of one map of logits: take another")
    return logits
