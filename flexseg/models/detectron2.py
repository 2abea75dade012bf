"""Trunks of detectron2: its backbones and semantic-segmentation heads behind the suite's interface.

A benchmark, or one row of it, describes the model in detectron2's own configuration keys::

    model:
      detectron2:
        MODEL:
          BACKBONE: {NAME: build_resnet_fpn_backbone}
          RESNETS: {DEPTH: 50, OUT_FEATURES: [res2, res3, res4, res5]}
          FPN: {IN_FEATURES: [res2, res3, res4, res5]}
          SEM_SEG_HEAD: {NAME: SemSegFPNHead, NORM: GN}

This is what detectron2's ``SemanticSegmentor`` is made of; its data, losses, schedules and preprocessing are left out,
because the suite has its own. A key that would be ignored is refused. Three defaults differ from detectron2's, since
no weights are loaded: ``BACKBONE.FREEZE_AT`` is 0 and ``RESNETS.NORM`` is ``BN`` (frozen random layers learn nothing),
and ``SEM_SEG_HEAD.NUM_CLASSES`` is that of the benchmark. Images come as the suite normalises them, in RGB.

To detectron2's backbones this module adds ``build_narrow_resnet_fpn_backbone``, because detectron2 builds ResNet-18 and
ResNet-34 with 64 channels only.

detectron2 is an optional extra. Nothing else in the suite imports it, and this module does so only to build a trunk.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from flexseg.classes import IGNORE, NUM_CLASSES
from flexseg.errors import MissingExtra, RunError
from flexseg.models.description import ModelError, describe_error, name_of, suggest, to_plain, walk
from flexseg.models.segmentor import Segmentor

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
"""The version of detectron2 (0.6, of June 2026) that this adapter is tested with."""
SHA256 = "1ed0edd65e88d4f2dc28f492f97ef1d1f4f1afe2de926a1482f2e7c6bed04cc4"
"""Of its Python files; :mod:`flexseg.tasks.detectron2` says how it is computed."""
ARCHIVE = f"https://github.com/facebookresearch/detectron2/archive/{COMMIT}.tar.gz"
"""Where the source of that commit is."""
RECIPE = f"make detectron2 DETECTRON2={ARCHIVE}"
"""The command that installs it; what it needs is in requirements.lock."""

PARTS = ("BACKBONE", "RESNETS", "FPN", "SEM_SEG_HEAD")
"""The nodes below ``MODEL`` that a trunk is made of."""

OURS = {
    "BACKBONE": {"FREEZE_AT": 0},
    "RESNETS": {"NORM": "BN"},
    "SEM_SEG_HEAD": {"IGNORE_VALUE": IGNORE},
}
"""Defaults that differ from detectron2's."""

FIXED = {
    "META_ARCHITECTURE": "SemanticSegmentor",
    "WEIGHTS": "",
    "SEM_SEG_HEAD.IGNORE_VALUE": IGNORE,
    "SEM_SEG_HEAD.LOSS_WEIGHT": 1.0,
    "SEM_SEG_HEAD.LOSS_TYPE": "cross_entropy",
}
"""What the suite decides: a file may repeat it but not change it."""


class Detectron2Segmentor(Segmentor):
    """A detectron2 backbone as ``backbone``, its semantic-segmentation head as ``decode_head``.

    The features are what the head's last convolution, ``predictor``, sees; ``stages`` are the backbone's maps in
    detectron2's order, for an FPN p2 … p6. The FPN is part of the backbone, as detectron2 has it.
    """

    classifier_name = "predictor"

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        parts: Any = backbone
        shapes = parts.output_shape()
        strides = [shapes[name].stride for name in head.in_features]  # type: ignore[union-attr]
        super().__init__(backbone, head, size_divisor=max(1, parts.size_divisibility, *strides))
        self._maps = tuple(shapes)

    def stages(self, images: Tensor) -> Sequence[Tensor]:
        """The backbone's maps (B, C_i, h_i, w_i) of images (B, 3, H, W).

        Raises:
            RunError: H or W is no multiple of ``size_divisor``.
        """
        self.check_size(images)
        maps = self.backbone(images)
        return tuple(maps[name] for name in self._maps)

    @torch.enable_grad()
    def check(self, images: Tensor, logits: Tensor) -> None:
        """Refuse weights that take no part in the prediction: data parallelism would wait for their gradients for ever.

        Raises:
            ModelError: with the first of them.
        """
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        prediction = self(images).logits.sum()
        gradients = torch.autograd.grad(prediction, list(trained.values()), allow_unused=True)
        idle = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
        if idle:
            raise ModelError(
                f"detectron2: {len(idle)} weights take no part in the prediction, e.g. {idle[0]}: let "
                f"SEM_SEG_HEAD.IN_FEATURES name all the maps that the backbone makes"
            )

    def _head(self, stages: Sequence[Tensor]) -> Any:
        # Not the head's `forward`: that computes detectron2's loss in train mode and upsamples in eval mode.
        return self.decode_head.layers(dict(zip(self._maps, stages, strict=True)))  # type: ignore[operator]


def build_detectron2(config: Mapping[str, Any]) -> Detectron2Segmentor:
    """Build a trunk with fresh weights, in train mode, on the CPU.

    The weights are drawn by detectron2's constructors from torch's global generator: the same ``torch.manual_seed``
    gives the same weights.

    Args:
        config: ``{"detectron2": {"MODEL": {...}}}``, as in the module's docstring.

    Raises:
        MissingExtra: detectron2 is not installed or cannot be imported; holds the command that installs it.
        ModelError: the description is wrong; says where, and what would be right.
    """
    others = ", ".join(sorted(set(config) - {"detectron2", "num_classes"}))
    if others:
        raise ModelError(f"a trunk of detectron2 is described below `detectron2` alone: take out {others}")
    import_detectron2()
    node = _configured(config["detectron2"], int(config.get("num_classes", NUM_CLASSES)))
    from detectron2.modeling import build_backbone, build_sem_seg_head

    try:
        backbone = build_backbone(node)
        head = build_sem_seg_head(node, backbone.output_shape())
    except ImportError as error:
        raise ModelError(
            f"detectron2 cannot build this trunk without its compiled part, which the suite does not install "
            f"(docs/detectron2.md): {describe_error(error).partition('. ')[0]}"
        ) from error
    except (AssertionError, KeyError, TypeError, ValueError, RunError) as error:
        key = "no such value: " if isinstance(error, KeyError) else ""
        raise ModelError(f"detectron2 cannot build this trunk: {key}{describe_error(error)}") from error
    if not all(hasattr(head, name) for name in ("layers", "predictor", "in_features")):
        raise ModelError(
            f"detectron2.MODEL.SEM_SEG_HEAD.NAME: {name_of(head)} has no single map of features before a `predictor`: "
            f"choose another, e.g. SemSegFPNHead"
        )
    return Detectron2Segmentor(backbone, head)


def import_detectron2() -> None:
    """Import what builds trunks, with stand-ins for torchvision where that is not installed.

    Raises:
        MissingExtra: with the recipe, and the reason where detectron2 is there but cannot be imported.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise MissingExtra(_missing("is not installed"))
    try:
        with _torchvision_stubs(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's, on functions that detectron2 compiles and we never call
            importlib.import_module("detectron2.modeling")
            importlib.import_module("detectron2.projects.deeplab")
    except ImportError as error:
        raise MissingExtra(_missing(f"cannot be imported ({describe_error(error)})")) from error
    from detectron2.modeling import BACKBONE_REGISTRY

    if build_narrow_resnet_fpn_backbone.__name__ not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(build_narrow_resnet_fpn_backbone)


def build_narrow_resnet_fpn_backbone(node: Any, input_shape: Any) -> nn.Module:
    """detectron2's ResNet-18 or -34 of any ``RESNETS.RES2_OUT_CHANNELS`` under its FPN; other keys as there.

    detectron2's own builder makes the same stages but insists on 64 channels.
    """
    from detectron2.modeling.backbone import FPN
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

    resnet, fpn = node.MODEL.RESNETS, node.MODEL.FPN
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[resnet.DEPTH]
    stem = BasicStem(input_shape.channels, resnet.STEM_OUT_CHANNELS, norm=resnet.NORM)
    stages, width, narrower = [], resnet.RES2_OUT_CHANNELS, resnet.STEM_OUT_CHANNELS
    for number, count in enumerate(blocks):
        strides = [1 if number == 0 else 2] + [1] * (count - 1)
        stages.append(
            ResNet.make_stage(
                BasicBlock, count, stride_per_block=strides, in_channels=narrower, out_channels=width, norm=resnet.NORM
            )
        )
        narrower, width = width, 2 * width
    trunk = ResNet(stem, stages, out_features=resnet.OUT_FEATURES, freeze_at=node.MODEL.BACKBONE.FREEZE_AT)
    return FPN(trunk, fpn.IN_FEATURES, fpn.OUT_CHANNELS, fpn.NORM, LastLevelMaxPool(), fpn.FUSE_TYPE)


def _missing(why: str) -> str:
    return f"detectron2 {why}: `{RECIPE}` installs it, an optional extra (docs/detectron2.md)"


class _Stub(ModuleType):
    """An empty module that is found, and whose every function refuses to be called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, loader=None, is_package=True)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise RunError(f"this part of detectron2 needs {self.__name__}.{name}, and torchvision is not installed")

        return refuse


@contextmanager
def _torchvision_stubs() -> Iterator[None]:
    """Let detectron2 import names of torchvision where there is none, and forget them afterwards.

    detectron2's operators on boxes come from there; semantic segmentation uses none. A torchvision that does not fit
    torch breaks mmseg, so the suite does without, and nothing else may take the stubs for the real one.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    stubs = {name: _Stub(name) for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes")}
    for name, stub in stubs.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(stubs[parent], child, stub)
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            sys.modules.pop(name, None)


def _configured(described: Any, num_classes: int) -> Any:
    """detectron2's own defaults, then :data:`OURS`, then what the file says, checked key by key."""
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY
    from detectron2.projects.deeplab import add_deeplab_config

    node = get_cfg()
    add_deeplab_config(node)
    node.MODEL.SEM_SEG_HEAD.LOSS_TYPE = FIXED["SEM_SEG_HEAD.LOSS_TYPE"]
    described = to_plain(described)
    _check_keys(described, node, num_classes)
    try:
        node.merge_from_other_cfg(CfgNode({"MODEL": OURS}))
        node.MODEL.SEM_SEG_HEAD.NUM_CLASSES = num_classes
        node.merge_from_other_cfg(CfgNode(described))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"detectron2: {describe_error(error)}") from error
    for part, registry in (("BACKBONE", BACKBONE_REGISTRY), ("SEM_SEG_HEAD", SEM_SEG_HEADS_REGISTRY)):
        name, known = node.MODEL[part].NAME, [key for key, _ in registry]
        if name not in known:
            raise ModelError(f"detectron2.MODEL.{part}.NAME: detectron2 has no {name!r}{suggest(name, known)}")
    return node


def _check_keys(described: Any, node: Any, num_classes: int) -> None:
    """Refuse keys that detectron2 does not know, that the suite would not use, or that it has fixed."""
    if not isinstance(described, dict) or set(described) != {"MODEL"} or not isinstance(described["MODEL"], dict):
        raise ModelError(
            "detectron2 takes one key, `MODEL: {BACKBONE: ..., RESNETS: ..., FPN: ..., SEM_SEG_HEAD: ...}`: data, "
            "solver and tests are the suite's own"
        )
    fixed = FIXED | {"SEM_SEG_HEAD.NUM_CLASSES": num_classes}
    for place, value in walk(described["MODEL"]):
        keys = place.split(".")
        if keys[0] not in PARTS and place not in fixed:
            raise ModelError(f"detectron2.MODEL.{place} is no part of a trunk here{suggest(keys[0], PARTS)}")
        if place == "WEIGHTS" and value:
            raise ModelError(
                f"detectron2.MODEL.WEIGHTS: {value!r} would load weights while the trunk is built. Take it out here: "
                f"pretrained weights are given apart from the trunk, by path and checksum."
            )
        if place in fixed and value != fixed[place]:
            raise ModelError(f"detectron2.MODEL.{place} is {fixed[place]!r} in this suite, not {value!r}: leave it out")
        inner = node.MODEL
        for key in keys[:-1]:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and keys[-1] not in inner:
            raise ModelError(f"detectron2.MODEL: there is no {place!r}{suggest(keys[-1], inner)}")
        if len(keys) == 1 and keys[0] in PARTS and not isinstance(value, dict):
            raise ModelError(f"detectron2.MODEL.{place} is a mapping of settings, not a {type(value).__name__}")
