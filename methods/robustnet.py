"""RobustNet's instance-selective whitening (ISW): only covariances that follow the style are pushed to 0.

Choi et al., *RobustNet*, CVPR 2021. Features f (C × HW) are standardised by instance normalisation without γ and β at
the ends of the early stages. With an image x and a photometric change x' of it,

    Σ = f fᵀ / (HW − 1) + 1e-5 I,   V = mean over images of the variance of {Σ(x), Σ(x')} = (Σ(x) − Σ(x'))² / 4,
    M = 1 on the entries of the strict upper triangle whose V is not in the lowest of k clusters, else 0,
    L_ISW = mean over images of Σ |Σ ⊙ M| / |M|,   L = L_CE + λ · mean over layers of L_ISW.

Published: λ = 0.6, k = 3, layers at the ends of a ResNet's stem, layer1 and layer2 (in place of the stem's norm, behind
the sums), V gathered after epoch 5 in 10 trials, then the loss is switched on.

Here: epochs are no unit of this suite, so V is gathered over the last ``trials`` batches before the fraction ``start``
of the iterations, with the model in eval mode, and the masks stay from then on. Clusters are the optimal ones of
one-dimensional k-means, which need no random start. A trunk whose stages are plain chains (UNet: encoder stages 0–2)
has no sums: the standardisation replaces the stage's last BatchNorm, as it does at the stem. The photometric change is
a jitter of brightness, contrast, saturation and hue, then a Gaussian blur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.components.ranks import sum_over_ranks
from flexseg.data.draws import Purpose, generator
from flexseg.data.transforms import MEAN, STD, normalise
from flexseg.errors import RunError
from flexseg.method import Batch, Method, Setup, cross_entropy, option
from flexseg.models import Output, Segmentor


class Standardisation(nn.Module):
    """Every channel of every image of (B, C, H, W) to mean 0 and variance 1: instance normalisation without γ and β."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return functional.group_norm(x, self.channels)


def covariances(features: Tensor) -> Tensor:
    """Σ of each image's standardised features (B, C, H, W): (B, C, C) float32."""
    with torch.autocast(features.device.type, enabled=False):
        pixels = features.float().permute(0, 2, 3, 1).flatten(1, 2)
        ridge = 1e-5 * torch.eye(pixels.shape[2], device=pixels.device)
        return pixels.mT @ pixels / (pixels.shape[1] - 1) + ridge


def lowest_cluster_end(values: np.ndarray, clusters: int) -> float:
    """The largest of ``values`` (N,) in the lowest cluster of k-means; infinite where there are fewer than clusters.

    On a line the best clusters are intervals, so that dynamic programming over sorted values finds the global optimum
    (Wang and Song, *Ckmeans.1d.dp*, The R Journal 2011); where an interval best begins rises with its end, so halving
    takes O(k N log N).
    """
    if len(values) < clusters:
        return float("inf")
    ordered = np.sort(values.astype(np.float64))
    # Shifted and scaled, which moves no cluster: differences of cumulative sums would lose small variances.
    scaled = (ordered - ordered.mean()) / (ordered.std() or 1.0)
    sums, squares = (np.concatenate([[0.0], np.cumsum(scaled**power)]) for power in (1, 2))

    def spread(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Sum of squared distances to the mean of the values begin … end − 1."""
        return squares[end] - squares[begin] - (sums[end] - sums[begin]) ** 2 / np.maximum(end - begin, 1)

    count = len(ordered)
    ends = np.arange(count + 1)
    costs, first_ends = spread(np.zeros_like(ends), ends), ends  # of the best clusters of the first n values, n = 0 … N
    for number in range(2, clusters + 1):
        new_costs, new_first_ends = np.full(count + 1, np.inf), np.zeros_like(ends)
        # Of the last number of clusters only the whole is asked for.
        spans = [(count if number == clusters else number, count, number - 1, count - 1)]
        while spans:
            low, high, earliest, latest = spans.pop()
            if low > high:
                continue
            end = (low + high) // 2
            begins = np.arange(earliest, min(latest, end - 1) + 1)
            totals = costs[begins] + spread(begins, np.full_like(begins, end))
            best = begins[totals.argmin()]
            new_costs[end], new_first_ends[end] = totals.min(), first_ends[best]
            spans += [(low, end - 1, earliest, best), (end + 1, high, best, latest)]
        costs, first_ends = new_costs, new_first_ends
    return float(ordered[first_ends[count] - 1])


def photometric(image: np.ndarray, rng: np.random.Generator, strength: float, blur: float) -> np.ndarray:
    """Other colours and less sharpness, the same layout: (H, W, 3) uint8 RGB to the same.

    Brightness, contrast and saturation change by factors in 1 ± ``strength``, hue by up to ``strength``/5 of a turn;
    the blur's σ is up to ``blur`` pixels.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    turn, sigma = rng.uniform(-strength / 5, strength / 5), rng.uniform(0, blur)
    levels = image.astype(np.float32) * brightness
    grey = levels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    levels = grey.mean() + contrast * (grey[..., None] - grey.mean() + saturation * (levels - grey[..., None]))
    hsv = cv2.cvtColor(np.clip(levels, 0, 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % 360
    levels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if sigma > 0:
        levels = cv2.GaussianBlur(levels, (0, 0), sigma)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


class SelectiveWhitening(nn.Module):
    """L_ISW and what it needs, as buffers: ``variance_<layer>`` (C, C), the sum of V over ``images``, ``mask_<layer>``.

    Args:
        channels: C of each layer.
    """

    images: Tensor

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = range(len(channels))
        self.register_buffer("images", torch.zeros((), dtype=torch.int64))
        for layer, width in enumerate(channels):
            self.register_buffer(f"variance_{layer}", torch.zeros(width, width))
            self.register_buffer(f"mask_{layer}", torch.zeros(width, width))

    @torch.no_grad()
    def gather(self, plain: Sequence[Tensor], changed: Sequence[Tensor]) -> None:
        """Add the images with these covariances, (B, C, C) for each layer, of both views. A collective."""
        self.images += sum_over_ranks(torch.full_like(self.images, len(plain[0])))
        for layer, (ours, theirs) in enumerate(zip(plain, changed, strict=True)):
            self.get_buffer(f"variance_{layer}").add_(sum_over_ranks(((ours - theirs).square() / 4).sum(dim=0)))

    @torch.no_grad()
    def select(self, clusters: int) -> None:
        """Set the masks from what was gathered."""
        for layer in self.layers:
            variance = (self.get_buffer(f"variance_{layer}") / self.images).cpu().numpy()
            upper = np.triu(np.ones_like(variance, dtype=bool), 1)
            mask = upper & (variance > lowest_cluster_end(variance[upper], clusters))
            self.get_buffer(f"mask_{layer}").copy_(torch.from_numpy(mask))

    def selected(self) -> float:
        """The share of all pairs of channels that the masks select."""
        masks = [self.get_buffer(f"mask_{layer}") for layer in self.layers]
        return sum(float(mask.sum()) for mask in masks) / max(sum(len(m) * (len(m) - 1) // 2 for m in masks), 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The mean over layers of L_ISW, a float32 scalar. features: (B, C, H, W) for each layer, standardised."""
        losses = []
        for layer in self.layers:
            mask = self.get_buffer(f"mask_{layer}")
            losses.append((covariances(features[layer]) * mask).abs().sum(dim=(1, 2)).mean() / mask.sum().clamp_min(1))
        return torch.stack(losses).mean()


class RobustNet(Method):
    name = "robustnet"
    title = "RobustNet (ISW)"
    paper = "Choi et al., RobustNet: Improving Domain Generalization via Instance Selective Whitening, CVPR 2021"
    needs = ("batch_norm",)

    @dataclass(frozen=True)
    class Options:
        weight: float = option(0.6, "λ, the weight of L_ISW")
        clusters: int = option(3, "k of the clusters of V, of which the lowest is spared")
        stages: int = option(3, "early stages that are standardised, as published for ResNet", assumed=True)
        start: float = option(0.1, "fraction of the iterations after which L_ISW is on", assumed=True)
        trials: int = option(10, "batches before that over which V is gathered", assumed=True)
        strength: float = option(0.5, "of the photometric change's jitter of colours", assumed=True)
        blur: float = option(1.0, "largest σ of the photometric change's blur, in pixels", assumed=True)

        def __post_init__(self) -> None:
            for name, least in (("clusters", 2), ("stages", 1), ("trials", 1)):
                if getattr(self, name) < least:
                    raise ValueError(f"{name} is a number from {least} on, not {getattr(self, name)}")
            for name in ("start", "strength"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} lies between 0 and 1, not {getattr(self, name)}")
            if self.blur < 0:
                raise ValueError(f"blur is no negative number, not {self.blur}")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._start = max(1, round(options.start * setup.iterations))
        self._gathered_from = max(0, self._start - options.trials)
        self._features: dict[int, Tensor] = {}

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        backbone = model.backbone
        stages = _stages_with_batch_norm(backbone, self.name)
        for path, norms in list(stages.items())[: self.options.stages]:
            standardisation = Standardisation(backbone.get_submodule(norms[-1]).num_features)
            stage = backbone.get_submodule(path)
            if isinstance(stage, nn.Sequential) and hasattr(stage[-1], "downsample"):
                _append_behind_sum(stage, standardisation)
            else:
                _replace(backbone, norms[-1], standardisation)
        return model

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        self._model = model
        self._layers = [module for module in model.modules() if isinstance(module, Standardisation)]
        for number, layer in enumerate(self._layers):
            layer.register_forward_hook(self._keep(number))
        self._isw = SelectiveWhitening([layer.channels for layer in self._layers])
        return self._isw

    def _keep(self, number: int) -> Any:
        def hook(layer: nn.Module, _: Any, features: Tensor) -> None:
            if layer.training:
                self._features[number] = features.clone()  # the ReLU behind the layer writes over its input

        return hook

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        features, self._features = self._features, {}
        isw = torch.zeros((), device=output.logits.device)
        if batch.iteration >= self._start:
            isw = self.options.weight * self._isw([features[number] for number in range(len(self._layers))])
        return {"ce": cross_entropy(output.logits, batch.labels), "isw": isw}

    def after_step(self, batch: Batch) -> None:
        if self._gathered_from <= batch.iteration < self._start:
            self._isw.gather(self._covariances(batch.images), self._covariances(self._changed(batch)))
        if batch.iteration == self._start - 1:
            self._isw.select(self.options.clusters)

    def log(self) -> dict[str, float]:
        return {"isw/selected": self._isw.selected()}

    @torch.no_grad()
    def _covariances(self, images: Tensor) -> list[Tensor]:
        """Σ of these images (B, 3, H, W) at each layer, in eval mode, where no image touches another or a buffer."""
        seen: list[Tensor] = []
        handles = [
            layer.register_forward_hook(lambda *call: seen.append(covariances(call[2]))) for layer in self._layers
        ]
        training = self._model.training
        self._model.eval()
        try:
            self._model.backbone(images)
        finally:
            self._model.train(training)
            for handle in handles:
                handle.remove()
        return seen

    def _changed(self, batch: Batch) -> Tensor:
        """The photometric view of the batch's images (B, 3, H, W); drawn by iteration and slot."""
        images = batch.images.float().cpu().permute(0, 2, 3, 1).numpy() * STD + MEAN
        levels = np.rint(np.clip(images, 0, 255)).astype(np.uint8)
        changed = [
            photometric(
                image,
                generator(self.setup.seed, Purpose.TRANSFORM, batch.iteration, int(slot)),
                self.options.strength,
                self.options.blur,
            )
            for image, slot in zip(levels, batch.slots, strict=True)
        ]
        return torch.from_numpy(normalise(np.stack(changed))).to(batch.images)


def _stages_with_batch_norm(backbone: nn.Module, method: str) -> dict[str, list[str]]:
    """The paths of each stage's BatchNorms, in the order in which an image meets them; shortcuts' are left out.

    A stage is a child of the backbone, or of a list in it: ResNet's stem, layer1, …; UNet's encoder.0, encoder.1, ….

    Raises:
        RunError: the backbone has no BatchNorm.
    """
    stages: dict[str, list[str]] = {}
    for path, module in backbone.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and ".downsample." not in path:
            parts = path.split(".")
            listed = isinstance(backbone.get_submodule(parts[0]), nn.ModuleList)
            stages.setdefault(".".join(parts[: 1 + listed]), []).append(path)
    if not stages:
        kind = type(backbone).__name__
        raise RunError(f"{method} needs a backbone with BatchNorm, which this benchmark's {kind} has not")
    return stages


def _replace(backbone: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path``."""
    parent, _, leaf = path.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, module)


def _append_behind_sum(stage: nn.Sequential, norm: nn.Module) -> None:
    """End a stage of ResNet blocks in ReLU(norm(sum)) instead of ReLU(sum).

    A block has one ReLU for all its places. It is taken out, and its work between the convolutions is done before them.
    """
    block = stage[-1]
    block.relu = nn.Identity()
    for later in ("conv2", "conv3"):
        if hasattr(block, later):
            getattr(block, later).register_forward_pre_hook(_rectify)
    stage.add_module("norm", norm)
    stage.add_module("relu", nn.ReLU(inplace=True))


def _rectify(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return functional.relu(inputs[0])
