"""RobustNet's instance-selective whitening (ISW): only covariances that follow the style are pushed to 0.

Choi et al., *RobustNet*, CVPR 2021. Features f (C × HW) are standardised by instance normalisation without γ and β at
the ends of the early stages. With an image x and a photometric change x' of it,

    Σ = f fᵀ / (HW − 1) + 1e-5 I,   V = mean over images of the variance of {Σ(x), Σ(x')} = (Σ(x) − Σ(x'))² / 4,
    M = 1 on the entries of the strict upper triangle whose V is not in the lowest of k clusters, else 0,
    L_ISW = mean over images of Σ |Σ ⊙ M| / |M|,   L = L_CE + λ · mean over layers of L_ISW.

Published: λ = 0.6, k = 3, layers at the ends of a ResNet's stem, layer1 and layer2 (in place of the stem's norm, behind
the sums; of a stem of three convolutions in place of the first two). After epoch 5 there are 10 trials, each of which
gathers V over up to 500 images and finds a mask; a pair of channels counts if all trials select it, and then the loss
is switched on. From the authors' code: the clusters are those of the whole matrix, in which the lower triangle and the
diagonal are zeros, so that k = 3 spares those and the pairs that vary least; x' is x with brightness, contrast and
saturation changed by factors in 1 ± 0.8 and hue by up to 0.3 of a turn, blurred with σ from 0.15 to 1.3 pixels.

Here: this suite does not count epochs, so a trial gathers V over ``batches`` of the last batches before the fraction
``start`` of the iterations, with the model in eval mode, and the masks stay from then on. Clusters are the optimal ones
of one-dimensional k-means, which need no random start. A trunk whose stages are plain chains (UNet: encoder stages 0–2)
has no sums: the standardisation replaces the stage's last BatchNorm, as it does at the stem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexseg.components.norms import Standardisation, covariances, put_at_stage_ends
from flexseg.components.ranks import sum_over_ranks
from flexseg.data.photometric import photometric_view
from flexseg.method import Batch, Method, Setup, option, require_at_least
from flexseg.models import Output, Segmentor
from flexseg.shows import Curves


def lowest_cluster_end(values: np.ndarray, clusters: int) -> float:
    """The largest of ``values`` (N,) in the lowest cluster of k-means; infinite for fewer values than clusters.

    On a line the best clusters are intervals, so that dynamic programming over sorted values finds the global optimum
    (Wang and Song, *Ckmeans.1d.dp*, The R Journal 2011); the best beginning of an interval rises with its end, so
    divide and conquer takes O(k N log N).
    """
    if len(values) < clusters:
        return float("inf")
    ordered = np.sort(values.astype(np.float64))
    # Shift and scale, which changes no cluster: differences of cumulative sums would lose small variances.
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
        # For the last number of clusters only all values together are of interest.
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


class SelectiveWhitening(nn.Module):
    """L_ISW with its buffers: ``variance_<layer>`` (C, C), the sum of V over ``images``, and ``mask_<layer>``.

    ``trials`` counts how often the masks were selected.

    Args:
        channels: C of each layer.
    """

    images: Tensor
    trials: Tensor

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = range(len(channels))
        for name in ("images", "trials"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        for layer, width in enumerate(channels):
            self.register_buffer(f"variance_{layer}", torch.zeros(width, width))
            self.register_buffer(f"mask_{layer}", torch.zeros(width, width))

    @torch.no_grad()
    def gather(self, plain: Sequence[Tensor], changed: Sequence[Tensor]) -> None:
        """Add images to this trial, by their covariances (B, C, C) at each layer in both views. A collective."""
        self.images += sum_over_ranks(torch.full_like(self.images, len(plain[0])))
        for layer, (ours, theirs) in enumerate(zip(plain, changed, strict=True)):
            self.get_buffer(f"variance_{layer}").add_(sum_over_ranks(((ours - theirs).square() / 4).sum(dim=0)))

    @torch.no_grad()
    def select(self, clusters: int) -> None:
        """End a trial: keep in the masks what it selects too, and begin to gather anew."""
        for layer in self.layers:
            gathered, mask = self.get_buffer(f"variance_{layer}"), self.get_buffer(f"mask_{layer}")
            variance = np.triu((gathered / self.images).cpu().numpy(), 1)
            selected = torch.from_numpy(variance > lowest_cluster_end(variance.ravel(), clusters)).to(mask.device)
            mask.copy_(selected & (mask.bool() | (self.trials == 0)))
            gathered.zero_()
        self.images.zero_()
        self.trials += 1

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
    shows = (Curves("isw", "Selective whitening", {"isw/selected": "share of covariances that L_ISW is about"}),)

    @dataclass(frozen=True)
    class Options:
        weight: float = option(0.6, "λ, the weight of L_ISW")
        clusters: int = option(3, "k of the clusters of V, of which the lowest is spared")
        stages: int = option(3, "early stages that are standardised, as published for ResNet", origin="assumed")
        start: float = option(0.1, "fraction of the iterations after which L_ISW is on", origin="assumed")
        trials: int = option(10, "before that, each with a mask of its own")
        batches: int = option(1, "of a trial, over which V is gathered; published are 500 images", origin="scaled")
        strength: float = option(0.8, "of the photometric change's jitter of brightness, contrast and saturation")
        hue: float = option(0.3, "of a turn, the most by which the photometric change turns the hue")
        blur: tuple[float, float] = option((0.15, 1.3), "range of σ of the photometric change's blur, in pixels")

        def __post_init__(self) -> None:
            require_at_least(self, clusters=2, stages=1, trials=1, batches=1)
            for name in ("start", "strength", "hue"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
            if not 0 <= self.blur[0] <= self.blur[1]:
                raise ValueError(f"blur must be a range from 0 on, the lower first: {list(self.blur)}")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._start = max(1, round(options.start * setup.iterations))
        self._gathered_from = max(0, self._start - options.trials * options.batches)
        self._features: dict[int, Tensor] = {}

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        put_at_stage_ends(model.backbone, self.options.stages, Standardisation)
        return model

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        self._model = model
        self._layers = [module for module in model.modules() if isinstance(module, Standardisation)]
        for number, layer in enumerate(self._layers):
            layer.register_forward_hook(self._keep(number))
        self._isw = SelectiveWhitening([layer.num_channels for layer in self._layers])
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
        return super().losses(batch, output) | {"isw": isw}

    def after_step(self, batch: Batch) -> None:
        if self._gathered_from <= batch.iteration < self._start:
            self._isw.gather(self._covariances(batch.images), self._covariances(self._changed(batch)))
            if (self._start - 1 - batch.iteration) % self.options.batches == 0:
                self._isw.select(self.options.clusters)

    def log(self) -> dict[str, float]:
        return {"isw/selected": self._isw.selected()}

    @torch.no_grad()
    def _covariances(self, images: Tensor) -> list[Tensor]:
        """Σ of these images (B, 3, H, W) at each layer, in eval mode: no image affects another or a buffer."""
        seen: list[Tensor] = []
        with ExitStack() as stack:
            for layer in self._layers:
                stack.callback(layer.register_forward_hook(lambda *call: seen.append(covariances(call[2]))).remove)
            stack.callback(self._model.train, self._model.training)
            self._model.eval()
            self._model.backbone(images)
        return seen

    def _changed(self, batch: Batch) -> Tensor:
        """The photometric view of the batch's images, (B, 3, H, W); drawn by iteration and slot."""
        draws = batch.generators(self.setup.seed)
        return photometric_view(batch.images, draws, self.options.strength, self.options.hue, self.options.blur)
