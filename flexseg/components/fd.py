"""Thing-class feature distance (DAFormer, FD), and the frozen encoder that it measures from.

Hoyer et al., *DAFormer*, CVPR 2022, section 3.3. With F = encoder(x) and F_0 = frozen encoder(x), (B, D, h, w) both,

    L_FD = Σ_ij M_ij ‖F_ij − F_0,ij‖₂ / Σ_ij M_ij,   M_ij = 1 where at least the share r of the pixels of cell (i, j)
    are of one thing class, else 0;   r = 0.75.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.errors import RunError


def class_cells(labels: Tensor, size: Sequence[int], classes: Sequence[int], share: float = 0.75) -> Tensor:
    """M: the cells of which at least ``share`` of the pixels are of one of ``classes``: (B, h, w) bool.

    Void pixels count as pixels of the cell, but of no class.

    Args:
        labels: (B, H, W) int64. size: (h, w), neither larger than (H, W). share: in (0.5, 1], so that no two classes
            can claim a cell.

    Raises:
        ValueError: a share outside this range.
    """
    if not 0.5 < share <= 1:
        raise ValueError(f"share must lie in (0.5, 1], not {share}")
    height, width = size
    wanted = torch.as_tensor(tuple(classes), device=labels.device)
    shares = functional.adaptive_avg_pool2d((labels[:, None] == wanted[:, None, None]).float(), (height, width))
    # Sums of ones and their quotients are exact enough that half a pixel of the largest cell is far more than rounding.
    return (shares > share - 1e-5).any(dim=1)


def feature_distance(features: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """L_FD, a float32 scalar: the mean over the cells in ``mask`` of ‖F − F_0‖₂; 0, with a gradient, without any.

    Args:
        features, reference: (B, D, h, w), F and F_0. mask: (B, h, w) bool.
    """
    with torch.autocast(features.device.type, enabled=False):
        distances = torch.linalg.vector_norm(features.float() - reference.float(), dim=1)
        return distances.masked_fill(~mask, 0.0).sum() / mask.sum().clamp_min(1)


def encoder_stages(backbone: nn.Module) -> nn.ModuleList | None:
    """The stages that a backbone lists as its encoder (UNet, beside a decoder; EfficientNetLite), each made of the one
    before; None of a backbone without such a list, which is all encoder."""
    stages = getattr(backbone, "encoder", None)
    return stages if isinstance(stages, nn.ModuleList) else None


@contextmanager
def watch_encoder(backbone: nn.Module, stage: int = -1) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Collect, for every pass within the context, the images (B, 3, H, W) and the map of ``stage`` (B, D, h, w).

    The stages count from 0; -1 is the deepest. The images are detached. A pass on images that carry a gradient is left
    out: it looks for an image, as an adversary does, and trains no weight.
    """
    images: list[Tensor] = []
    found: list[Tensor] = []
    stages = encoder_stages(backbone)
    training = True

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal training
        training = not inputs[0].requires_grad
        if training:
            images.append(inputs[0].detach())

    def note(_: nn.Module, __: Any, maps: Any) -> None:
        if training:
            found.append(_list_maps(maps)[stage] if stages is None else maps)

    with ExitStack() as hooks:
        hooks.callback(backbone.register_forward_pre_hook(enter).remove)
        hooks.callback((backbone if stages is None else stages[stage]).register_forward_hook(note).remove)
        yield images, found


class FrozenEncoder(nn.Module):
    """A copy of a backbone's encoder that never changes and is always in eval mode: images → the map of ``stage``.

    A BatchNorm that has not seen a batch yet has no statistics to evaluate with: it takes those of the batch, as the
    copied encoder does while it trains.

    Args:
        backbone: is copied. stage: of the encoder, from 0; -1 is the deepest.

    Raises:
        RunError: the encoder has no such stage.
    """

    def __init__(self, backbone: nn.Module, stage: int = -1) -> None:
        super().__init__()
        stages = encoder_stages(backbone)
        count = len(getattr(backbone, "out_indices", ())) if stages is None else len(stages)
        if count and not -count <= stage < count:
            kind = type(backbone).__name__
            raise RunError(f"stage {stage} is not among the {count} stages of this benchmark's {kind}")
        self.stage = stage if stages is None else None
        copied = backbone if stages is None else nn.Sequential(*stages[: stage % len(stages) + 1])
        self.encoder = copy.deepcopy(copied)
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and _is_fresh(module):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
        self.train(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in eval mode, whatever ``mode``."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """F_0 of (B, 3, H, W) images: (B, D, h, w), without a gradient."""
        maps = self.encoder(images)
        return maps if self.stage is None else _list_maps(maps)[self.stage]


def _list_maps(maps: Any) -> Sequence[Tensor]:
    """A backbone's maps in its order; detectron2's gives them by name."""
    return list(maps.values()) if isinstance(maps, Mapping) else maps


def _is_fresh(norm: Any) -> bool:
    """Whether a BatchNorm's running statistics are still those of its construction: mean 0 and variance 1."""
    return norm.running_mean is not None and not norm.running_mean.any() and bool((norm.running_var == 1).all())
