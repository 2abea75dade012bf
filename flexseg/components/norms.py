"""Where a backbone's BatchNorms sit and how another norm takes their place; covariances of features, and whitening.

Methods that change normalisation find the places with :func:`stages_with_batch_norm` and change them with
:func:`replace_module` or :func:`put_at_stage_ends`. Nothing here draws a random number, so
that what is not replaced starts with the weights of the plain trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Standardisation(nn.GroupNorm):
    """Every channel of every image of (B, C, H, W) to mean 0 and variance 1: instance normalisation without γ and β."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, affine=False)


class InstanceNorm(nn.Module):
    """IN with γ and β, of (B, C, H, W): group normalisation in groups of one channel, fast with the channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not x.requires_grad:
            # Behind frozen stages: torch 2.13 ends the process in the backward pass of a group_norm with the channels
            # last whose weights want a gradient and whose input wants none.
            normalised = functional.group_norm(x, len(self.weight))
            return torch.addcmul(self.bias.view(-1, 1, 1), normalised, self.weight.view(-1, 1, 1)).to(x.dtype)
        return functional.group_norm(x, len(self.weight), self.weight, self.bias)


def stages_with_batch_norm(backbone: nn.Module) -> dict[str, list[str]]:
    """The paths of each stage's BatchNorms, in the order in which an image meets them, without those of shortcuts.

    A stage is a child of the backbone, or of a list in it: ResNet's stem, layer1, …; encoder.0,
    encoder.1, … of UNet and EfficientNetLite.
    """
    stages: dict[str, list[str]] = {}
    for path, module in backbone.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and ".downsample." not in path:
            parts = path.split(".")
            in_list = isinstance(backbone.get_submodule(parts[0]), nn.ModuleList)
            stages.setdefault(".".join(parts[: 1 + in_list]), []).append(path)
    return stages


def batch_norm_at(backbone: nn.Module, path: str) -> nn.modules.batchnorm._BatchNorm:
    """The BatchNorm at a path that :func:`stages_with_batch_norm` gives."""
    norm = backbone.get_submodule(path)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm), path
    return norm


def is_residual(stage: nn.Module) -> bool:
    """Whether a stage is a chain of blocks of which the last ends in a sum: ResNet's, or an inverted residual."""
    if not isinstance(stage, nn.Sequential):
        return False
    return hasattr(stage[-1], "downsample") or getattr(stage[-1], "adds_input", False) is True


def replace_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path`` in ``root``, in place of what stands there."""
    parent, _, leaf = path.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)


def append_after_sum(stage: nn.Module, norm: nn.Module) -> None:
    """End a stage of ResNet blocks in ReLU(norm(sum)) instead of ReLU(sum), one of inverted residuals in norm(sum).

    A ResNet's block uses one ReLU everywhere. It is taken out, and hooks apply it between the convolutions instead.
    Behind the sum of an inverted residual there is none.
    """
    block = cast(Any, stage)[-1]
    if not hasattr(block, "relu"):
        stage.add_module("norm", norm)
        return
    block.relu = nn.Identity()
    for later in ("conv2", "conv3"):
        if hasattr(block, later):
            getattr(block, later).register_forward_pre_hook(_rectify)
    stage.add_module("norm", norm)
    stage.add_module("relu", nn.ReLU(inplace=True))


def _rectify(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return functional.relu(inputs[0])


def put_at_stage_ends(backbone: nn.Module, count: int, make: Callable[[int], nn.Module]) -> list[nn.Module]:
    """Normalise the output of each of the first stages: after the sum that ends it, else in place of its last norm.

    A norm that takes the place of another takes over its γ and β, if it has them. In a ResNet's stem of three
    convolutions the first two norms are replaced and the third stays, as RobustNet does with ResNet-101 (Choi et al.,
    CVPR 2021, the scripts of its code).

    Args:
        backbone: changed in place. count: how many of its stages with BatchNorm.
        make: makes the norm of a stage for its number of channels.

    Returns:
        The new norms, from the input on.
    """
    layers = []
    for path, norms in list(stages_with_batch_norm(backbone).items())[:count]:
        stage = backbone.get_submodule(path)
        if is_residual(stage):
            layers.append(make(batch_norm_at(backbone, norms[-1]).num_features))
            append_after_sum(stage, layers[-1])
            continue
        for place in norms[:-1] if path == "stem" else norms[-1:]:
            old = batch_norm_at(backbone, place)
            layer: Any = make(old.num_features)
            if old.affine and getattr(layer, "weight", None) is not None:
                layer.weight, layer.bias = old.weight, old.bias
            replace_module(backbone, place, layer)
            layers.append(layer)
    return layers


def group_size(channels: int, wanted: int) -> int:
    """The largest size, at most ``wanted``, of equal groups of ``channels``."""
    return max(size for size in range(1, min(wanted, channels) + 1) if channels % size == 0)


def covariances(features: Tensor) -> Tensor:
    """Σ = f fᵀ / (HW − 1) + 1e-5 I of each image's standardised features f (B, C, H, W): (B, C, C) float32."""
    with torch.autocast(features.device.type, enabled=False):
        pixels = features.float().permute(0, 2, 3, 1).flatten(1, 2)
        ridge = 1e-5 * torch.eye(pixels.shape[2], device=pixels.device)
        return pixels.mT @ pixels / (pixels.shape[1] - 1) + ridge


def newton_whitening(covariance: Tensor, iterations: int) -> Tensor:
    """Σ^{−1/2} of positive definite matrices (..., d, d), by ``iterations`` of Newton's steps.

    With Σ_N = Σ / tr Σ the steps are P_0 = I, P_{k+1} = ½ (3 P_k − P_k³ Σ_N), and the result is P_T / √tr Σ. Here P_k
    and Y_k = P_k Σ_N are stepped together. That gives the same P_k, as all are polynomials of Σ_N, but does not amplify
    rounding errors (Higham, *Functions of Matrices*, SIAM 2008, chapter 6).
    """
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    product = covariance / trace
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    root = identity.expand_as(covariance)
    for _ in range(iterations):
        step = 1.5 * identity - 0.5 * (root @ product)
        root, product = step @ root, product @ step
    return root / trace.pow(0.5)
