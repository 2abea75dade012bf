"""How much memory a training step of a trunk takes, measured without computing it.

A forward and a backward pass run on tensors that have a shape, a type and no values, while every piece of memory that
appears and goes is counted, as an accelerator's allocator would. So the figures are those of the real graph: what
autograd saves, what checkpointing frees and computes again, and what is alive at the worst moment.

Not counted: the CUDA context (about half a gigabyte), workspaces of cuDNN, what the allocator loses to fragments, and
what a method adds.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flexseg.classes import IGNORE
from flexseg.models.build import build_segmentor
from flexseg.models.hrda import HRDASegmentor
from flexseg.models.segmentor import Segmentor


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step.

    ``standing`` is there all the time: parameters, buffers, AdamW's two moments, the averaged weights and the frozen
    encoder, as far as they are used. ``activations`` is what the forward pass leaves for the backward pass. ``peak`` is
    the most that is alive at once, with the standing memory, gradients and whatever is computed in between.
    """

    parameters: int
    standing: int
    activations: int
    peak: int

    def __str__(self) -> str:
        parts = {"standing": self.standing, "activations": self.activations, "peak": self.peak}
        sizes = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in parts.items())
        return f"{self.parameters / 1e6:.1f} M parameters, {sizes}"


def estimate(
    config: Mapping[str, Any],
    crop: tuple[int, int],
    batch: int,
    *,
    bf16: bool = True,
    average: bool = True,
    frozen_encoder: bool = True,
) -> Memory:
    """The memory of one training step with AdamW and cross entropy.

    Args:
        config: a trunk's description, as for :func:`build_segmentor`; its weights are not read. With ``with_cp: true``
            in the backbone its activations are computed again in the backward pass.
        crop: (height, width) of the training images. batch: images in one forward pass.
        bf16: CUDA's autocast to bfloat16; else float32 throughout.
        average: keep an exponential moving average of the weights.
        frozen_encoder: keep a second encoder (DAFormer's feature distance), and show it the images.
    """
    model = build_segmentor(config, pretrained=False)
    frozen = copy.deepcopy(model.backbone).eval() if frozen_encoder else None
    parameters = sum(p.numel() for p in model.parameters())
    of_model, of_encoder = _bytes(model), _bytes(frozen) if frozen is not None else 0
    moments = 2 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    standing = of_model + moments + of_encoder + (of_model if average else 0)
    with ExitStack() as stack:
        fake = stack.enter_context(FakeTensorMode())
        _without_values(model, fake)
        if frozen is not None:
            _without_values(frozen, fake)
        # A place that is drawn is a value, and there are none here.
        stack.enter_context(patch.object(HRDASegmentor, "draw", lambda self, h, w: (0, 0, *self.detail_size(h, w))))
        images, labels = torch.empty(batch, 3, *crop), torch.empty(batch, *crop, dtype=torch.int64)
        live = stack.enter_context(_Live())
        with _cuda_autocast() if bf16 else ExitStack():
            reference = None
            if frozen is not None:
                with torch.no_grad():
                    reference = frozen(model.context(images))[-1]
            loss = _loss(model, images, labels)
        activations = live.now
        loss.backward()
        del reference
    return Memory(parameters, standing, activations, standing + live.peak)


def _loss(model: Segmentor, images: Tensor, labels: Tensor) -> Tensor:
    output = model(images)
    total = output.weight * _cross_entropy(output.logits, labels)
    for part in output.auxiliary:
        top, left, height, width = part.box or (0, 0, *labels.shape[1:])
        inside = labels[:, top : top + height, left : left + width]
        total = total + part.weight * _cross_entropy(part.logits, inside)
    return total


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    resized = functional.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    return functional.cross_entropy(resized.float(), labels, ignore_index=IGNORE)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _without_values(module: nn.Module, fake: FakeTensorMode) -> None:
    """Exchange a module's tensors, in place, for ones without values."""
    for part in module.modules():
        both: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for tensors in both:
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake.from_tensor(tensor)


@contextmanager
def _cuda_autocast() -> Iterator[None]:
    """Autocast to bfloat16 as CUDA's does it; a CPU's, which runs here, keeps norms and softmax in bfloat16."""

    def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return function(x.float(), *args, **kwargs)

        return call

    with ExitStack() as stack:
        for name in ("layer_norm", "group_norm", "softmax"):
            stack.enter_context(patch.object(functional, name, in_float32(getattr(functional, name))))
        stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        yield


class _Live(TorchDispatchMode):
    """Counts the bytes of all storages that operations within the context make, from their birth to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What comes in from outside (weights, images) is not this step's, also where an operation returns a view of it.
        result = func(*args, **(kwargs or {}))
        given = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self._born(tensor.untyped_storage())
        return result

    def _born(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size
