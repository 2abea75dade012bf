"""From the description of a trunk in a benchmark file to the trunk.

A benchmark file names the parts in mmseg's own vocabulary::

    backbone: {type: MixVisionTransformer, ...}
    neck: {type: FPN, ...}                      # optional
    decode_head: {type: DAFormerHead, ...}
    auxiliary_head: {type: FCNHead, ...}        # optional, one or a list
    hrda: {detail: [512, 512], ...}             # optional: two scales, flexseg/models/hrda.py
    features: decode_head.layers.2              # optional: the map that methods attach losses to, see Segmentor
    weights: {file: ..., sha256: ...}           # optional: the backbone's, from elsewhere, flexseg/models/weights.py

or, as ``detectron2: {MODEL: {...}}``, a model of detectron2's instead (:mod:`flexseg.models.detectron2`), or the file
of an mmseg configuration, ``config: my_mmseg.py``, whose model is taken as it is (:mod:`flexseg.models.mmseg_config`).
``custom_imports: [my_package.my_backbone]`` imports modules that register parts, if the user trusts their package.

mmseg's classes do the computing. Losses, schedules, preprocessing and sliding windows are the suite's, so that all
methods share them; what would silently be ignored here is refused instead.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flexseg.classes import NUM_CLASSES
from flexseg.errors import UserError
from flexseg.models.description import (
    ModelError,
    check_names,
    check_part,
    describe_error,
    list_parts,
    name_of,
    suggest,
    to_plain,
)
from flexseg.models.mmseg_config import expand
from flexseg.models.segmentor import Segmentor, one_map, size_divisor
from flexseg.models.weights import Weights, load_weights

PARTS = ("backbone", "neck", "decode_head", "auxiliary_head", "hrda")
"""What a trunk is made of."""


def build_segmentor(config: Mapping[str, Any], pretrained: bool = True) -> Segmentor:
    """Build a trunk in train mode, on the CPU, with fresh weights and, where the file names them, a trained backbone.

    Fresh weights are drawn by mmseg's own ``init_weights`` from torch's global generator: the same
    ``torch.manual_seed`` gives the same weights. Heads get the benchmark's number of classes (``num_classes``, by
    default 19), and BatchNorm unless they say otherwise.

    Args:
        config: the parts, as in the module's docstring. Lists may stand where mmseg wants tuples.
        pretrained: load ``weights`` where they are named; without, they are neither looked for nor read.

    Raises:
        ModelError: the description is wrong; says where, and what would be right.
        RunError: the weights are not there or are others (:mod:`flexseg.models.weights`).
    """
    config = expand(config)
    if "detectron2" in config:
        from flexseg.models.detectron2 import build_detectron2

        segmentor: Segmentor = build_detectron2(config)
        dry_run(segmentor, classes_of(config))
        return segmentor

    from flexseg.models import registry

    try:
        described = describe(config)
        with registry.building():
            segmentor = _build(described, str(config.get("features") or ""))
            dry_run(segmentor, classes_of(config))
    except UserError:
        raise
    except Exception as error:  # a class takes anything, and stumbles over it wherever it uses it
        raise ModelError(f"the trunk cannot be built: {describe_error(error)}") from error
    if pretrained and config.get("weights") is not None:
        load_weights(segmentor.backbone, config["weights"])
    return segmentor


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The trunk in mmseg's words, complete: what ``MODELS.build`` takes; weights are not part of it.

    Raises:
        ModelError: as :func:`build_segmentor`.
    """
    from flexseg.models import daformer, deeplab, efficientnet, hrda  # noqa: F401  (register; mmseg takes seconds)

    config = expand(config)
    _check_parts(config)
    if config["backbone"].get("type") == "FrozenViT":
        from flexseg.models import vit  # noqa: F401  (registers it)
    described = {part: to_plain(config[part]) for part in PARTS if config.get(part) is not None}
    if "hrda" in described:
        described["hrda"] = hrda.complete(described["hrda"], described["decode_head"])
    for where, part in list_parts(described):
        check_part(where, part, classes_of(config))
    return {"type": "HRDAEncoderDecoder" if "hrda" in described else "EncoderDecoder", **described}


def classes_of(config: Mapping[str, Any]) -> int:
    """C, the number of classes of a trunk: Cityscapes' 19 unless the benchmark has others."""
    return int(config.get("num_classes", NUM_CLASSES))


def _check_parts(config: Mapping[str, Any]) -> None:
    """Refuse unknown parts, missing parts, and what would come from beyond the registry."""
    known = (*PARTS, "weights", "features", "num_classes")
    for key in config:
        if key not in known and (key, config[key]) != ("type", "EncoderDecoder"):
            raise ModelError(f"{key!r} is no part of a trunk{suggest(key, known)}")
    for key in ("backbone", "decode_head"):
        if config.get(key) is None:
            raise ModelError(f"the trunk has no {key}: name one as `{key}: {{type: ..., ...}}`")
    for key in known:
        free = key in ("auxiliary_head", "features", "num_classes")
        if not free and config.get(key) is not None and not isinstance(config[key], Mapping):
            with_type = "" if key in ("hrda", "weights") else " with a `type`"
            raise ModelError(f"{key} is one mapping{with_type}, not a {type(config[key]).__name__}")
    if not isinstance(config.get("features", ""), str):
        raise ModelError("features is the name of a module in the trunk, such as decode_head.layers.2")
    if config.get("weights") is not None:
        Weights.of(config["weights"])
    check_names(config)


def _build(described: Mapping[str, Any], features: str) -> Segmentor:
    """Build the parts and draw their weights, in the order in which mmseg's ``EncoderDecoder`` does both."""
    from flexseg.models.hrda import HRDASegmentor, scales_of
    from flexseg.models.registry import MODELS

    built: dict[str, Any] = {}
    for where, part in list_parts(described):
        try:
            built[where] = MODELS.build(copy.deepcopy(part))
        except UserError:  # a part of ours, which names itself and says what to do
            raise
        except Exception as error:
            raise ModelError(f"{where}: {part['type']} cannot be built: {describe_error(error)}") from error
    if isinstance(described.get("auxiliary_head"), list):
        # mmseg leaves the heads of a list with the weights of their constructors, and so a list has no `init_weights`.
        heads = [built.pop(where) for where in list(built) if where.startswith("auxiliary_head.")]
        built["auxiliary_head"] = nn.ModuleList(heads)
    for part in built.values():
        if hasattr(part, "init_weights"):
            part.init_weights()
    attention = built.pop("hrda.attention", None)
    divisor = size_divisor(built["backbone"])
    if attention is None:
        return Segmentor(**built, size_divisor=divisor, features=features)
    scales = scales_of(described["hrda"])
    return HRDASegmentor(**built, scale_attention=attention, scales=scales, size_divisor=divisor, features=features)


@torch.no_grad()
def dry_run(segmentor: Segmentor, num_classes: int = NUM_CLASSES) -> None:
    """Show the trunk one small black image in eval mode, to find parts that do not fit. Draws no random number.

    Raises:
        ModelError: names the part that does not fit.
    """
    step = segmentor.size_divisor
    images = torch.zeros(1, 3, -(-64 // step) * step, -(-128 // step) * step)
    segmentor.eval()
    try:
        stages = segmentor.stages(images)
    except Exception as error:
        parts = name_of(segmentor.backbone) + (f" with neck {name_of(segmentor.neck)}" if segmentor.neck else "")
        raise ModelError(f"backbone {parts} fails on a {tuple(images.shape)} input: {describe_error(error)}") from error
    offered = ", ".join(
        f"{i}: {x.shape[1]} channels at stride {images.shape[3] / x.shape[3]:g}" for i, x in enumerate(stages)
    )
    for place, head in segmentor.heads():
        where = f"{place} {name_of(head)}"
        if hasattr(head, "in_index"):  # detectron2's heads choose their maps by name
            _check_channels(where, head, stages, offered)
        try:
            logits = segmentor.decode(stages)[0] if head is segmentor.decode_head else one_map(head, head(stages))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{where} fails on the backbone's maps ({offered}): {describe_error(error)}") from error
        if logits.ndim != 4 or logits.shape[1] != num_classes:
            raise ModelError(f"{where} gives {tuple(logits.shape)} instead of (1, {num_classes}, h, w)")
        if head is segmentor.decode_head:
            segmentor.check(images, logits)
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
