"""Style as the statistics of channels: read them, exchange them, choose few that differ most, and where in a trunk.

An image's style at a layer is the mean μ and the standard deviation σ of each channel over its pixels. Adaptive
instance normalisation (Huang & Belongie, *Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization*,
ICCV 2017) keeps the content and puts another style (μ', σ') in its place:

    x' = σ' · (x − μ) / σ + μ',    σ = √(var + ε)

All of it is computed in float32. A map is (B, C, H, W), or (B, L, C), the tokens of a transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from flexseg.errors import RunError

EPS = 1e-6


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """μ and σ of each channel of each image of a map: (B, C) float32 each; σ is never below √ε."""
    values = features.float() if features.ndim == 3 else features.float().flatten(2).transpose(1, 2)
    variance, mean = torch.var_mean(values, dim=1, correction=0)
    return mean, (variance + EPS).pow(0.5)


def stylise(features: Tensor, mean: Tensor, std: Tensor, *, detach: bool = False) -> Tensor:
    """x', a map in the styles ``mean``, ``std`` (B, C), of the shape and type of ``features``.

    Gradients pass through the map's own statistics, unless ``detach``, and through the given ones where they carry any.
    """
    own_mean, own_std = channel_statistics(features.detach() if detach else features)
    scale = std.float() / own_std
    shift = mean.float() - scale * own_mean
    if features.ndim == 3:
        scale, shift = scale[:, None], shift[:, None]
    else:
        scale, shift = scale[..., None, None], shift[..., None, None]
    return torch.addcmul(shift, features.float(), scale).to(features.dtype)


def farthest_points(points: Tensor, count: int, first: int = 0) -> Tensor:
    """Farthest-point sampling: each next point is the one whose nearest chosen point is farthest.

    No point is chosen twice, even where some are equal; of equally far points the first is taken.

    Args:
        points: (N, D). count: how many to choose, at most all N. first: the point to begin with.

    Returns:
        (min(count, N),) int64, in the order of choice.
    """
    count = min(count, len(points))
    chosen = torch.empty(count, dtype=torch.int64, device=points.device)
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    latest = torch.tensor(first, device=points.device)
    for place in range(count):
        chosen[place] = latest
        nearest = torch.minimum(nearest, (points - points[latest]).square().sum(dim=1))
        nearest[latest] = -1.0
        latest = nearest.argmax()
    return chosen


def early_stages(backbone: nn.Module) -> tuple[str, ...]:
    """The paths of the modules whose outputs are the maps of a backbone's stages, first to last.

    ResNet: ``maxpool`` (the stem), ``layer1``, …. UNet and EfficientNetLite: ``encoder.0``, ….
    MixVisionTransformer: ``layers.0.2``, ….

    Raises:
        RunError: another kind of backbone.
    """
    if hasattr(backbone, "res_layers") and hasattr(backbone, "maxpool"):
        return ("maxpool", *backbone.res_layers)  # type: ignore[misc]  # a list of names
    if isinstance(encoder := getattr(backbone, "encoder", None), nn.ModuleList):
        return tuple(f"encoder.{number}" for number in range(len(encoder)))
    layers = getattr(backbone, "layers", None)
    if isinstance(layers, nn.ModuleList) and all(isinstance(stage, nn.ModuleList) for stage in layers):
        return tuple(f"layers.{number}.{len(stage) - 1}" for number, stage in enumerate(layers))  # type: ignore[arg-type]
    raise RunError(f"styles are exchanged behind the stages of ResNet, UNet or MiT, not of {type(backbone).__name__}")


@contextmanager
def changed_outputs(backbone: nn.Module, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Within the block, replace the output of the module at each path by ``change(output)``."""
    with ExitStack() as stack:
        for path, change in changes.items():
            handle = backbone.get_submodule(path).register_forward_hook(lambda *call, change=change: change(call[2]))
            stack.callback(handle.remove)
        yield


@torch.no_grad()
def stage_channels(backbone: nn.Module, path: str, size: tuple[int, int] = (64, 128)) -> int:
    """C of the map that the module at ``path`` makes of a black image of ``size`` (height, width); changes nothing."""
    seen: list[int] = []

    def note(features: Tensor) -> Tensor:
        seen.append(features.shape[2 if features.ndim == 3 else 1])
        return features

    modes = {module: module.training for module in backbone.modules()}
    weight = next(backbone.parameters())
    try:
        with changed_outputs(backbone, {path: note}):
            backbone.eval()  # mmseg's does not return the module
            backbone(weight.new_zeros(1, 3, *size))
    finally:
        for module, training in modes.items():
            module.training = training
    return seen[0]
