"""What the tensors of published backbones are called: in mmseg's words, and what a file of them seems to hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_SEGFORMER = (
    (r"patch_embed(\d)\.proj\.", "layers.{}.0.projection."),
    (r"patch_embed(\d)\.norm\.", "layers.{}.0.norm."),
    (r"block(\d)\.(\d+)\.attn\.proj\.", "layers.{}.1.{}.attn.attn.out_proj."),
    (r"block(\d)\.(\d+)\.mlp\.fc1\.", "layers.{}.1.{}.ffn.layers.0."),
    (r"block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.", "layers.{}.1.{}.ffn.layers.1."),
    (r"block(\d)\.(\d+)\.mlp\.fc2\.", "layers.{}.1.{}.ffn.layers.4."),
    (r"block(\d)\.(\d+)\.", "layers.{}.1.{}."),
    (r"norm(\d)\.", "layers.{}.2."),
)
"""How the tensors of SegFormer's own MiT are called in mmseg's; the first pattern that fits the beginning counts."""


_LITE_STAGES = (1, 2, 2, 6, 5)
"""Blocks of each stage of :class:`flexseg.models.efficientnet.EfficientNetLite`."""
_LITE = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
"""How the layers of a block are called in the files of ``efficientnet_pytorch``, and here."""
_LITE_OUTSIDE = {
    "_conv_stem": "encoder.0.0.conv",
    "_bn0": "encoder.0.0.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "head.fc",
}


def as_own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published names of a MiT's or an EfficientNet-Lite0's tensors as the backbone's; all others as they are."""
    if "patch_embed1.proj.weight" in tensors:
        return _as_mmseg_names(tensors)
    if "_conv_stem.weight" in tensors and len(_blocks(tensors)) == sum(_LITE_STAGES):
        return _as_stages(tensors)
    return dict(tensors)


def _as_stages(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An EfficientNet-Lite0's tensors, whose blocks are numbered through, by stages."""
    places = [f"encoder.{stage}.{block}" for stage, count in enumerate(_LITE_STAGES) for block in range(count)]
    places[0] = "encoder.0.1"  # behind the stem
    renamed = {}
    for key, value in tensors.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)(\..+)", key):
            layer = _LITE.get(match[2])
            name = f"{places[int(match[1])]}.{layer}{match[3]}" if layer else key
        else:
            layer, dot, rest = key.partition(".")
            name = _LITE_OUTSIDE.get(layer, layer) + dot + rest
        renamed[name] = value
    return renamed


def _blocks(tensors: Iterable[str]) -> set[str]:
    """The numbers of the blocks in an EfficientNet's published names."""
    return {match[1] for match in map(re.compile(r"_blocks\.(\d+)\.").match, tensors) if match}


def _as_mmseg_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SegFormer's own names of a MiT's tensors as mmseg's.

    Its linear layers are 1×1 convolutions there, and queries (``q``), keys and values (``kv``) are one projection.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = key
        for pattern, wanted in _SEGFORMER:
            match = re.match(pattern, key)
            if match:
                stage, *block = match.groups()
                name = wanted.format(int(stage) - 1, *block) + key[match.end() :]
                break
        if name.endswith((".ffn.layers.0.weight", ".ffn.layers.4.weight")) and value.ndim == 2:
            value = value[:, :, None, None]
        renamed[name] = value
    for key in [key for key in renamed if re.search(r"\.attn\.q\.(weight|bias)$", key)]:
        before, _, kind = key.rpartition(".q.")
        keys_and_values = renamed.pop(f"{before}.kv.{kind}", None)
        if keys_and_values is not None:
            renamed[f"{before}.attn.in_proj_{kind}"] = torch.cat([renamed.pop(key), keys_and_values])
    return renamed


MIT: dict[str, tuple[int, tuple[int, ...]]] = {
    "b0": (32, (2, 2, 2, 2)),
    "b1": (64, (2, 2, 2, 2)),
    "b2": (64, (3, 4, 6, 3)),
    "b3": (64, (3, 4, 18, 3)),
    "b4": (64, (3, 8, 27, 3)),
    "b5": (64, (3, 6, 40, 3)),
}
"""Width and blocks of each stage of the MiTs (Xie et al., SegFormer, NeurIPS 2021, table 6)."""
_RESNET: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "ResNet-18",
    (False, (3, 4, 6, 3)): "ResNet-34",
    (True, (3, 4, 6, 3)): "ResNet-50",
    (True, (3, 4, 23, 3)): "ResNet-101",
    (True, (3, 8, 36, 3)): "ResNet-152",
}


def seems_to_be(tensors: Mapping[str, Tensor]) -> str:
    """What a state dict of a backbone probably is, in words, by the names of its tensors."""
    if "layers.0.0.projection.weight" in tensors:
        width = tensors["layers.0.0.projection.weight"].shape[0]
        blocks = _depths(tensors, r"layers\.(\d+)\.1\.(\d+)\.")
        name = next((f"MiT-{name.upper()}" for name, sizes in MIT.items() if sizes == (width, blocks)), "MiT")
        return f"a {name} (width {width}, {'-'.join(map(str, blocks))} blocks)"
    if "layer1.0.conv1.weight" in tensors:
        bottleneck = "layer1.0.conv3.weight" in tensors
        blocks = _depths(tensors, r"layer(\d+)\.(\d+)\.")
        stem = "a stem of three convolutions" if "stem.0.weight" in tensors else "a stem of one convolution"
        return f"a {_RESNET.get((bottleneck, blocks), 'ResNet')} ({'-'.join(map(str, blocks))} blocks, {stem})"
    if "_conv_stem.weight" in tensors:
        return f"an EfficientNet of {len(_blocks(tensors))} blocks"
    if "encoder.0.0.conv.weight" in tensors and "encoder.1.0.expand.conv.weight" in tensors:
        squeezed = any("._se_" in key for key in tensors)
        return f"an EfficientNet {'with' if squeezed else 'without'} squeeze-and-excitation, of 16 blocks"
    return f"something else: {len(tensors)} tensors, the first of them {', '.join(list(tensors)[:3])}"


def _depths(keys: Iterable[str], pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has, by the numbers of stage and block in the names."""
    found = {(int(m[1]), int(m[2])) for m in map(re.compile(pattern).match, keys) if m}
    return tuple(sum(stage == wanted for stage, _ in found) for wanted in sorted({stage for stage, _ in found}))
