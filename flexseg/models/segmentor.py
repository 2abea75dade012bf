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
from flexseg.models.description import ModelError, name_of, suggest


class Auxiliary(NamedTuple):
    """A further map of logits that is trained beside the main one."""

    weight: float
    """Of its loss."""
    logits: Tensor
    """(B, C, h', w')."""
    box: tuple[int, int, int, int] | None = None
    """(top, left, height, width) in image pixels of what the logits are about; None if that is the whole image."""


class Output(NamedTuple):
    """What a trunk says about a batch of images."""

    logits: Tensor
    """(B, C, h, w) at the head's stride."""
    features: Tensor
    """(B, D, h, w): what the head's classifier ``conv_seg`` sees, while training after dropout; or what the trunk's
    description names as its features."""
    auxiliary: tuple[Auxiliary, ...]
    """Of each auxiliary head; empty in eval mode."""
    weight: float = 1.0
    """Of the losses of ``logits`` and ``features``, beside those of ``auxiliary``."""


class Segmentor(nn.Module):
    """A trunk of parts that bear mmseg's names for them, so that its state dict is an ``EncoderDecoder``'s.

    Args:
        backbone: makes maps (B, C_i, h_i, w_i) of images (B, 3, H, W).
        decode_head: makes logits (B, C, h, w) of the maps; its last layer is a convolution named ``conv_seg``, or
            ``features`` says what stands in for that. A head that classifies masks (MaskFormer, Mask2Former) gives
            scores and masks instead, see :func:`one_map`.
        neck: makes other maps of the backbone's.
        auxiliary_head: one head or a ``ModuleList`` of them, as mmseg has it: the keys of the state dict depend on it.
        size_divisor: ``predict`` pads images to a multiple of this, for backbones that accept nothing else.
        features: the module whose output are the features, by its name in the trunk (``decode_head.layers.2``); by
            default the features are what the classifier sees.

    Raises:
        ModelError: the decode head has no such convolution, or there is no such module.
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
        features: str = "",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.size_divisor = size_divisor
        self.align_corners = bool(getattr(decode_head, "align_corners", False))
        self.features = features
        classifier = self.classifier
        if features:
            self._module_of_features()
        elif classifier is None:
            raise ModelError(
                f"decode_head {name_of(decode_head)} has no {self.classifier_name}, so nobody knows which map are its "
                "features: say `features: decode_head.…`, the name of the module whose output (B, D, h, w) they are"
            )
        self.feature_channels = 0 if features else int(classifier.in_channels)  # type: ignore[union-attr, arg-type]
        """D, the number of channels of ``Output.features``; of a module that ``features`` names, known after a pass."""
        counted = getattr(decode_head, "num_classes", None) or getattr(classifier, "out_channels", None)
        self.num_classes = int(counted or 0)
        """C."""

    def stages(self, images: Tensor) -> Sequence[Tensor]:
        """The maps that the heads choose from, largest first in most backbones: (B, C_i, h_i, w_i) each.

        Args:
            images: (B, 3, H, W), normalised.
        """
        stages = self.backbone(images)
        return stages if self.neck is None else self.neck(stages)

    @property
    def classifier(self) -> nn.Module | None:
        """The convolution that makes logits (B, C, h, w) of features (B, D, h, w), if the head ends in one."""
        return getattr(self.decode_head, self.classifier_name, None)

    def _module_of_features(self) -> nn.Module:
        try:
            return self.get_submodule(self.features)
        except AttributeError as error:
            known = [name for name, _ in self.named_modules() if name.startswith("decode_head.")]
            raise ModelError(
                f"features: the trunk has no module {self.features!r}{suggest(self.features, known)}"
            ) from error

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
        """Logits (B, C, h, w) of the decode head, and the features (B, D, h, w) that its classifier saw.

        Raises:
            ModelError: the head classifies none or several maps, or gives several.
        """
        # The hook lives for this one call: nothing keeps a tensor alive, and a copy copies no hook.
        seen: list[Any] = []
        if self.features:
            watched = self._module_of_features()
            handle = watched.register_forward_hook(lambda _, inputs, output: seen.append(output))
        else:
            watched = self.classifier  # type: ignore[assignment]  # checked in the constructor
            handle = watched.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self._head(stages)
        finally:
            handle.remove()
        where = self.features or f"{name_of(self.decode_head)}'s {self.classifier_name}"
        if len(seen) != 1:
            raise ModelError(
                f"decode_head {name_of(self.decode_head)} ran {where} {len(seen)} times, not once: it is no single map "
                "of features. Choose another head, or name another module as `features`"
            )
        features = seen[0][0] if isinstance(seen[0], tuple | list) and seen[0] else seen[0]
        if not isinstance(features, Tensor) or features.ndim != 4:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ModelError(f"features: {where} gives {shape} instead of one map (B, D, h, w): name another module")
        self.feature_channels = self.feature_channels or features.shape[1]
        return one_map(self.decode_head, logits), features

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) at the size of the images (B, 3, H, W), resized bilinearly.

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
            images: (1, 3, H, W). logits: (1, C, h, w) of the decode head, shown the maps of the whole images.

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
    """The map of logits (B, C, h, w) that a head gave, or that stands for the masks that it classified.

    Of Q masks with scores (B, Q, C + 1), the last one for no class, and logits (B, Q, h, w), of the last layer where
    there are several, the semantic map is p_c = Σ_q softmax(scores)_qc · sigmoid(masks)_q (Cheng et al., NeurIPS 2021,
    section 3.4); its logarithm stands in the place of logits, with the same maximum.

    Raises:
        ModelError: it gave neither; names the head.
    """
    if isinstance(logits, tuple | list) and len(logits) == 2:
        scores, masks = (part[-1] if isinstance(part, tuple | list) and part else part for part in logits)
        if isinstance(scores, Tensor) and isinstance(masks, Tensor) and scores.ndim == 3 and masks.ndim == 4:
            shares = torch.einsum("bqc,bqhw->bchw", scores.softmax(dim=-1)[..., :-1], masks.sigmoid())
            return shares.clamp_min(torch.finfo(shares.dtype).tiny).log()
    if not isinstance(logits, Tensor):
        raise ModelError(f"{name_of(head)} gives a {type(logits).__name__} instead of one map of logits: take another")
    return logits
