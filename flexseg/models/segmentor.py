"""The trunk that every method trains: an mmseg model reduced to images in, logits and features out.

A benchmark file names the parts in mmseg's own vocabulary::

    backbone: {type: MixVisionTransformer, ...}
    neck: {type: FPN, ...}                      # optional
    decode_head: {type: DAFormerHead, ...}
    auxiliary_head: {type: FCNHead, ...}        # optional, one or a list
    hrda: {detail: [512, 512], ...}             # optional: two scales, flexseg/models/hrda.py
    weights: {file: ..., sha256: ...}           # optional: the backbone's, from elsewhere, flexseg/models/weights.py

or, as ``detectron2: {MODEL: {...}}``, a model of detectron2's instead (:mod:`flexseg.models.detectron2`).

mmseg's classes do the computing. Losses, schedules, preprocessing and sliding windows are the suite's, so that all
methods share them; what would silently be ignored here is refused instead.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flexseg.classes import NUM_CLASSES
from flexseg.errors import UserError
from flexseg.models.description import ModelError, check_part, each, name_of, near, plain, reason, walk
from flexseg.models.weights import Weights, load_weights

PARTS = ("backbone", "neck", "decode_head", "auxiliary_head", "hrda")
"""What a trunk is made of."""


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
            Auxiliary(float(head.loss_decode.loss_weight), _one_map(head, head(stages)))  # type: ignore[union-attr, arg-type]
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
        return _one_map(self.decode_head, logits), seen[0]


def build_segmentor(config: Mapping[str, Any], pretrained: bool = True) -> Segmentor:
    """Build a trunk in train mode, on the CPU, with fresh weights and, where the file names them, a trained backbone.

    Fresh weights are drawn by mmseg's own ``init_weights`` from torch's global generator: the same
    ``torch.manual_seed`` gives the same weights. Heads get 19 classes, and BatchNorm unless they say otherwise.

    Args:
        config: the parts, as in the module's docstring. Lists may stand where mmseg wants tuples.
        pretrained: load ``weights`` where they are named; without, they are neither looked for nor read.

    Raises:
        ModelError: the description is wrong; says where, and what would be right.
        RunError: the weights are not there or are others (:mod:`flexseg.models.weights`).
    """
    if "detectron2" in config:
        from flexseg.models.detectron2 import build_detectron2

        return build_detectron2(config)

    described = describe(config)
    from flexseg.models import registry

    with registry.building():
        model = _build(described)
        model.init_weights()
        segmentor = _wrapped(model)
        _dry_run(segmentor)
    if pretrained and config.get("weights") is not None:
        load_weights(segmentor.backbone, config["weights"])
    return segmentor


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The trunk in mmseg's words, complete: what ``MODELS.build`` takes; weights are not part of it.

    Raises:
        ModelError: as :func:`build_segmentor`.
    """
    from flexseg.models import daformer, hrda  # noqa: F401  (mmseg takes seconds; daformer registers its head)

    _check_parts(config)
    if config["backbone"].get("type") == "FrozenViT":
        from flexseg.models import vit  # noqa: F401  (registers it)
    described = {part: plain(config[part]) for part in PARTS if config.get(part) is not None}
    if "hrda" in described:
        described["hrda"] = hrda.described(described["hrda"], described["decode_head"])
    for where, part in each(described):
        check_part(where, part)
    return {"type": "HRDAEncoderDecoder" if "hrda" in described else "EncoderDecoder", **described}


def _wrapped(model: Any) -> Segmentor:
    from flexseg.models.hrda import HRDAEncoderDecoder, HRDASegmentor

    kind = HRDASegmentor if isinstance(model, HRDAEncoderDecoder) else Segmentor
    return kind(model, size_divisor(model.backbone))


def channels_last(module: nn.Module) -> None:
    """Lay out a trunk's weights with the channels last, in place: convolutions on a CPU, and the losses, are faster."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs


def _check_parts(config: Mapping[str, Any]) -> None:
    """Refuse unknown parts, missing parts, and weights that would come from elsewhere."""
    known = (*PARTS, "weights")
    for key in config:
        if key not in known and (key, config[key]) != ("type", "EncoderDecoder"):
            raise ModelError(f"{key!r} is no part of a trunk{near(key, known)}")
    for key in ("backbone", "decode_head"):
        if config.get(key) is None:
            raise ModelError(f"the trunk has no {key}: name one as `{key}: {{type: ..., ...}}`")
    for key in known:
        if key != "auxiliary_head" and config.get(key) is not None and not isinstance(config[key], Mapping):
            with_type = "" if key in ("hrda", "weights") else " with a `type`"
            raise ModelError(f"{key} is one mapping{with_type}, not a {type(config[key]).__name__}")
    if config.get("weights") is not None:
        Weights.of(config["weights"])
    for where, value in walk(config):
        key = where.rpartition(".")[2]
        if (key in ("pretrained", "checkpoint") and value) or (key == "type" and value == "Pretrained"):
            raise ModelError(
                f"{where}: {value!r} would load weights unchecked. Name them beside the backbone instead, as "
                f"`weights: {{file: ..., sha256: ...}}`"
            )


def _build(described: dict[str, Any]) -> Any:
    """The ``EncoderDecoder``; where a constructor fails, the part is found and named."""
    from flexseg.models.registry import MODELS

    try:
        return MODELS.build(copy.deepcopy(described))
    except UserError:  # a part of ours, which names itself and says what to do
        raise
    except Exception:
        for where, part in each(described):
            try:
                MODELS.build(copy.deepcopy(part))
            except Exception as error:
                raise ModelError(f"{where}: {part['type']} cannot be built: {reason(error)}") from error
        raise


@torch.no_grad()
def _dry_run(segmentor: Segmentor) -> None:
    """One small black image through the trunk in eval mode: finds parts that do not fit. Draws no random number."""
    step = segmentor.size_divisor
    images = torch.zeros(1, 3, -(-64 // step) * step, -(-128 // step) * step)
    segmentor.eval()
    try:
        stages = segmentor.stages(images)
    except Exception as error:
        parts = name_of(segmentor.backbone) + (f" with neck {name_of(segmentor.neck)}" if segmentor.neck else "")
        raise ModelError(f"backbone {parts} fails on a {tuple(images.shape)} input: {reason(error)}") from error
    offered = ", ".join(
        f"{i}: {x.shape[1]} channels at stride {images.shape[3] / x.shape[3]:g}" for i, x in enumerate(stages)
    )
    for place, head in segmentor.heads():
        where = f"{place} {name_of(head)}"
        _check_channels(where, head, stages, offered)
        try:
            logits = segmentor._decode(stages)[0] if head is segmentor.decode_head else _one_map(head, head(stages))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{where} fails on the backbone's maps ({offered}): {reason(error)}") from error
        if logits.shape[1] != NUM_CLASSES:
            raise ModelError(f"{where} gives {logits.shape[1]} channels instead of {NUM_CLASSES} classes")
        if head is segmentor.decode_head:
            segmentor.check_output_stride(images.shape[3] / logits.shape[3])
    segmentor.train()


def _check_channels(where: str, head: Any, stages: Sequence[Tensor], offered: str) -> None:
    """Compare a head's ``in_channels`` at ``in_index`` with the maps that the backbone offers."""
    index = [head.in_index] if isinstance(head.in_index, int) else list(head.in_index)
    if any(not -len(stages) <= i < len(stages) for i in index):
        raise ModelError(f"{where}: in_index {head.in_index} is not among the backbone's maps ({offered})")
    found = [stages[i].shape[1] for i in index]
    wanted = [head.in_channels] if isinstance(head.in_channels, int) else list(head.in_channels)
    if wanted != ([sum(found)] if head.input_transform == "resize_concat" else found):
        raise ModelError(
            f"{where}: in_channels {head.in_channels} at in_index {head.in_index} does not match the backbone's maps "
            f"({offered})"
        )


def size_divisor(backbone: nn.Module) -> int:
    """The multiple that image sizes must have: the overall stride for mmseg's UNet, 1 for all others."""
    from flexseg.models.registry import UNet

    if not isinstance(backbone, UNet):
        return 1
    later = zip(backbone.strides[1:], backbone.downsamples, strict=True)
    return int(backbone.strides[0] * 2 ** sum(stride == 2 or pooled for stride, pooled in later))


def _one_map(head: nn.Module, logits: Any) -> Tensor:
    if not isinstance(logits, Tensor):
        raise ModelError(f"{name_of(head)} gives a {type(logits).__name__} instead of one map of logits: take another")
    return logits
