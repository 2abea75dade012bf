"""The trunk that every method trains: an mmseg model reduced to images in, logits and features out.

A benchmark file names the parts in mmseg's own vocabulary::

    backbone: {type: MixVisionTransformer, ...}
    neck: {type: FPN, ...}                      # optional
    decode_head: {type: DAFormerHead, ...}
    auxiliary_head: {type: FCNHead, ...}        # optional, one or a list

or, as ``detectron2: {MODEL: {...}}``, a model of detectron2's instead (:mod:`flexseg.models.detectron2`).

mmseg's classes do the computing. Losses, schedules, preprocessing and sliding windows are the suite's, so that all
methods share them; what would silently be ignored here is refused instead.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flexseg.classes import IGNORE, NUM_CLASSES
from flexseg.errors import UserError

PARTS = ("backbone", "neck", "decode_head", "auxiliary_head")
FIXED = {"num_classes": NUM_CLASSES, "out_channels": NUM_CLASSES, "ignore_index": IGNORE, "sampler": None}
"""Options of a head that the suite decides: a file may repeat them but not change them."""


class ModelError(UserError, ValueError):
    """A trunk's description that cannot be built. The message names the part, the key and what to do."""


class Output(NamedTuple):
    """What a trunk says about a batch of images."""

    logits: Tensor
    """(B, 19, h, w) at the head's stride."""
    features: Tensor
    """(B, D, h, w): what the head's classifier ``conv_seg`` sees; while training that is after dropout."""
    auxiliary: tuple[tuple[float, Tensor], ...]
    """(loss weight, logits (B, 19, h', w')) of each auxiliary head; empty in eval mode."""


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
            raise ModelError(f"decode_head {_name(parts.decode_head)} has no conv_seg, so no features: choose another")
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
        if not self.training:
            return Output(logits, features, ())
        auxiliary = tuple(
            (float(head.loss_decode.loss_weight), _one_map(head, head(stages)))  # type: ignore[union-attr, arg-type]
            for head in self.auxiliary_heads()
        )
        return Output(logits, features, auxiliary)

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
                f"decode_head {_name(self.decode_head)} ran its conv_seg {len(seen)} times, not once: it has no single "
                f"map of features. Choose another head."
            )
        return _one_map(self.decode_head, logits), seen[0]


def build_segmentor(config: Mapping[str, Any]) -> Segmentor:
    """Build a trunk with fresh weights, in train mode, on the CPU.

    The weights are drawn by mmseg's own ``init_weights`` from torch's global generator: the same
    ``torch.manual_seed`` gives the same weights. Heads get 19 classes, and BatchNorm unless they say otherwise.

    Args:
        config: the parts, as in the module's docstring. Lists may stand where mmseg wants tuples.

    Raises:
        ModelError: the description is wrong; says where, and what would be right.
    """
    if "detectron2" in config:
        from flexseg.models.detectron2 import build_detectron2

        return build_detectron2(config)

    from flexseg.models import daformer, registry  # noqa: F401  (mmseg takes seconds; daformer registers its head)

    _check_parts(config)
    if config["backbone"].get("type") == "FrozenViT":
        from flexseg.models import vit  # noqa: F401  (registers it)
    described = {part: _plain(config[part]) for part in PARTS if config.get(part) is not None}
    for where, part in _each(described):
        _check_part(where, part)
    with registry.building():
        model = _build(described)
        model.init_weights()
        segmentor = Segmentor(model, _size_divisor(model.backbone))
        _dry_run(segmentor)
    return segmentor


def channels_last(module: nn.Module) -> None:
    """Lay out a trunk's weights with the channels last, in place: convolutions on a CPU, and the losses, are faster."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs


def _check_parts(config: Mapping[str, Any]) -> None:
    """Refuse unknown parts, missing parts, and weights that would come from elsewhere."""
    for key in config:
        if key not in PARTS and (key, config[key]) != ("type", "EncoderDecoder"):
            raise ModelError(f"{key!r} is no part of a trunk{_near(key, PARTS)}")
    for key in ("backbone", "decode_head"):
        if config.get(key) is None:
            raise ModelError(f"the trunk has no {key}: name one as `{key}: {{type: ..., ...}}`")
    for key in ("backbone", "neck", "decode_head"):
        if config.get(key) is not None and not isinstance(config[key], Mapping):
            raise ModelError(f"{key} is one mapping with a `type`, not a {type(config[key]).__name__}")
    for where, value in _walk(config):
        key = where.rpartition(".")[2]
        if (key in ("pretrained", "checkpoint") and value) or (key == "type" and value == "Pretrained"):
            raise ModelError(
                f"{where}: {value!r} would load weights while the trunk is built. Take it out here: pretrained weights "
                f"are given apart from the trunk, by path and checksum."
            )


def _check_part(where: str, part: dict[str, Any]) -> None:
    """Check a part's type and keywords against the registry, and fill in what the suite decides."""
    from flexseg.models.registry import MODELS, BaseDecodeHead

    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise ModelError(f"{where} needs a `type`, the name of a class of mmseg's registry, but is {part!r}")
    name = part["type"]
    is_head = where.startswith(("decode_head", "auxiliary_head"))
    known = {key: cls for key, cls in MODELS.module_dict.items() if _fits(where, cls)}
    cls = MODELS.get(name)
    if cls is None:
        raise ModelError(f"{where}: there is no {name!r} in mmseg's registry{_near(name, known)}")
    if is_head != (inspect.isclass(cls) and issubclass(cls, BaseDecodeHead)):
        raise ModelError(f"{where}: {name} cannot be used as {'a head' if is_head else 'this'}{_near(name, known)}")

    keywords = _keywords(cls)
    for key, value in part.items():
        if key != "type" and key not in keywords:
            raise ModelError(f"{where}: {name} takes no {key!r}{_near(key, keywords)}")
        # Some of mmseg's classes insist on tuples, others on lists, and YAML has only lists: follow the default.
        if isinstance(value, list) and isinstance(keywords.get(key), tuple):
            part[key] = tuple(value)
    if is_head:
        for key, value in FIXED.items():
            if part.get(key, value) != value:
                raise ModelError(f"{where}: {key} is {value!r} in this suite, not {part[key]!r}: leave it out")
        _check_loss(where, part.get("loss_decode"))
        part["num_classes"] = NUM_CLASSES
        part.setdefault("norm_cfg", {"type": "BN", "requires_grad": True})


def _check_loss(where: str, loss: Any) -> None:
    """The methods compute the losses. A file only weighs an auxiliary head's cross-entropy, in mmseg's words."""
    if loss is None:
        return
    allowed = {"type": "CrossEntropyLoss", "use_sigmoid": False}
    if where != "decode_head":
        allowed["loss_weight"] = loss.get("loss_weight", 1.0) if isinstance(loss, dict) else 1.0
    for key, value in loss.items() if isinstance(loss, dict) else (("loss_decode", loss),):
        if key not in allowed or value != allowed[key]:
            raise ModelError(
                f"{where}: loss_decode with {key}: {value!r} would not be used, the method computes the loss. Only an "
                f"auxiliary head may say `loss_decode: {{type: CrossEntropyLoss, loss_weight: ...}}`."
            )


def _build(described: dict[str, Any]) -> Any:
    """The ``EncoderDecoder``; where a constructor fails, the part is found and named."""
    from flexseg.models.registry import MODELS

    try:
        return MODELS.build({"type": "EncoderDecoder", **copy.deepcopy(described)})
    except UserError:  # a part of ours, which names itself and says what to do
        raise
    except Exception:
        for where, part in _each(described):
            try:
                MODELS.build(copy.deepcopy(part))
            except Exception as error:
                raise ModelError(f"{where}: {part['type']} cannot be built: {_reason(error)}") from error
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
        parts = _name(segmentor.backbone) + (f" with neck {_name(segmentor.neck)}" if segmentor.neck else "")
        raise ModelError(f"backbone {parts} fails on a {tuple(images.shape)} input: {_reason(error)}") from error
    offered = ", ".join(
        f"{i}: {x.shape[1]} channels at stride {images.shape[3] / x.shape[3]:g}" for i, x in enumerate(stages)
    )
    heads = [("decode_head", segmentor.decode_head)]
    heads += [("auxiliary_head", head) for head in segmentor.auxiliary_heads()]
    for where, head in heads:
        where = f"{where} {_name(head)}"
        _check_channels(where, head, stages, offered)
        try:
            logits = segmentor._decode(stages)[0] if head is segmentor.decode_head else _one_map(head, head(stages))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{where} fails on the backbone's maps ({offered}): {_reason(error)}") from error
        if logits.shape[1] != NUM_CLASSES:
            raise ModelError(f"{where} gives {logits.shape[1]} channels instead of {NUM_CLASSES} classes")
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


def _size_divisor(backbone: nn.Module) -> int:
    """The multiple that image sizes must have: the overall stride for mmseg's UNet, 1 for all others."""
    from flexseg.models.registry import UNet

    if not isinstance(backbone, UNet):
        return 1
    later = zip(backbone.strides[1:], backbone.downsamples, strict=True)
    return int(backbone.strides[0] * 2 ** sum(stride == 2 or pooled for stride, pooled in later))


def _one_map(head: nn.Module, logits: Any) -> Tensor:
    if not isinstance(logits, Tensor):
        raise ModelError(f"{_name(head)} gives a {type(logits).__name__} instead of one map of logits: choose another")
    return logits


def _each(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, description) of every part; a list of auxiliary heads is taken apart."""
    for where, part in described.items():
        if where == "auxiliary_head" and isinstance(part, list):
            yield from ((f"{where}.{i}", head) for i, head in enumerate(part))
        else:
            yield where, part


def _walk(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted place, value) of everything in nested mappings and lists."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    for key, item in inner:
        place = f"{where}.{key}" if where else str(key)
        yield place, item
        yield from _walk(item, place)


def _plain(value: Any) -> Any:
    """A deep copy in plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _keywords(cls: Any) -> dict[str, Any]:
    """All keywords with defaults that a class's constructor takes, following ``**kwargs`` up to its base classes."""
    keywords: dict[str, Any] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        if inspect.isclass(base) and "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__ if inspect.isclass(base) else base).parameters.values()
        for p in parameters:
            if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                keywords.setdefault(p.name, p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return keywords


def _fits(where: str, cls: Any) -> bool:
    """Whether a registered class is worth proposing for a part: by its base, or by where mmseg keeps it."""
    from flexseg.models.registry import BaseDecodeHead

    if where.startswith(("decode_head", "auxiliary_head")):
        return inspect.isclass(cls) and issubclass(cls, BaseDecodeHead)
    return str(cls.__module__).startswith(f"mmseg.models.{where}s.")


def _near(name: str, known: Iterable[str]) -> str:
    """«: did you mean …?», or all that is known where nothing is near."""
    names = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    near += [key for key in names if key not in near and (key in name.lower() or name.lower() in key)]
    if not near:
        return f"; known are {', '.join(sorted(names.values()))}"
    return f": did you mean {' or '.join(names[key] for key in near[:4])}?"


def _reason(error: Exception) -> str:
    """An exception in one line; a bare ``assert`` is quoted from its source."""
    if str(error):
        return " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at `{frames[-1].line}`" if frames else type(error).__name__


def _name(module: nn.Module | None) -> str:
    return type(module).__name__
