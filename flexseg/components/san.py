"""Semantic-aware normalisation (SAN; Peng et al., CVPR 2022): features are normalised class by class.

With features x (C channels), a classifier's probabilities p_k of the selected classes k = 1 … S, the attention a_k, a
region mask r_k, and instance normalisation IN with one γ and β for all classes:

    a_k = sigmoid(conv7×7_k[mean_c(p_k x), max_c(p_k x), p_k])          SAN(x) = ReLU(Σ_k IN(p_k a_k r_k x))
    r_k = 0 on the lowest of the clusters of mean_c(p_k a_k x), else 1   target = ReLU(Σ_k IN(1[label = k] x))

IN(w x) with a weight w for every pixel needs no map per class: its moments and its sum over classes are matrix
products, which keeps the cost of S classes near that of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def class_normalised(x: Tensor, weights: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """ReLU(Σ_k IN(w_k x)), IN over all pixels of an image's channel: (B, C, H, W) float32.

    Args:
        x: (B, C, H, W). weights: (B, S, H, W), w_k. gain, bias: (C,), γ and β of IN, whose ε is 1e-5.
    """
    with torch.autocast(x.device.type, enabled=False):
        pixels = x.float().permute(0, 2, 3, 1).flatten(1, 2)  # (B, P, C): a view where the channels are last
        shares = weights.float().flatten(2)  # (B, S, P)
        mean = shares @ pixels / pixels.shape[1]  # (B, S, C)
        square = shares.square() @ pixels.square() / pixels.shape[1]
        inverse = ((square - mean.square()).clamp_min(0) + 1e-5).rsqrt()
        total = pixels * (shares.mT @ inverse) - (mean * inverse).sum(dim=1, keepdim=True)
        total = functional.relu(total * gain + weights.shape[1] * bias)
        return total.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


@torch.no_grad()
def lowest_cluster_ends(values: Tensor, clusters: int, rounds: int = 20) -> Tensor:
    """Where the lowest cluster of each row of ``values`` (N, P) ends, by k-means on the line: (N, 1) float32.

    Lloyd's algorithm from three fixed starts, of which the tightest clusters are taken: centres that divide the range
    evenly, and two that crowd towards its low end, as heat maps do. Nothing is drawn, the order of the values means
    nothing and no row reads another. Values from the end on are in higher clusters; in a row of equal values, all are.
    """
    ordered = values.float().sort(dim=1).values
    sums = functional.pad(ordered.double().cumsum(dim=1), (1, 0))
    low, high = ordered[:, None, :1], ordered[:, None, -1:]
    places = (torch.arange(clusters, device=values.device) + 0.5) / clusters
    centres = low + (high - low) * torch.stack([places, places.square(), places.pow(3)])  # (N, starts, clusters)
    for _ in range(rounds):
        borders = (centres[..., :-1] + centres[..., 1:]) / 2
        ends = torch.searchsorted(ordered, borders.flatten(1)).view_as(borders)
        ends = functional.pad(functional.pad(ends, (1, 0)), (0, 1), value=values.shape[1])
        counts = ends.diff(dim=2)
        totals = sums.gather(1, ends.flatten(1)).view_as(ends).diff(dim=2)
        centres = torch.where(counts > 0, (totals / counts.clamp_min(1)).float(), centres)
    # Σ (v − centre)² is Σ v², which is the same for all starts, less this.
    tightness = (totals.square() / counts.clamp_min(1)).sum(dim=2)
    best = centres[torch.arange(len(centres), device=values.device), tightness.argmax(dim=1)]
    return best[:, :2].mean(dim=1, keepdim=True)


class SemanticNormalisation(nn.Module):
    """SAN of (B, C, H, W) features, with the classifier whose probabilities it follows.

    The features reach the classifier without gradient, so that its own cross entropy changes nothing but itself.

    Args:
        channels: C. classes: the selected classes' trainIds. clusters: of the region masks.
        num_classes: C of all classes.
    """

    def __init__(self, channels: int, classes: Sequence[int], clusters: int, num_classes: int = 19) -> None:
        super().__init__()
        self.classes, self.clusters = list(classes), clusters
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.attention = nn.Conv2d(3 * len(classes), len(classes), 7, padding=3, groups=len(classes), bias=False)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]  # there is a bias
        nn.init.normal_(self.attention.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """SAN(x): (B, C, H, W), in the type of x."""
        weights = self.weights(x, self.classifier(x.detach()))
        return class_normalised(x, weights, self.weight, self.bias).to(x.dtype)

    def weights(self, x: Tensor, logits: Tensor) -> Tensor:
        """p_k a_k r_k: (B, S, H, W) float32.

        Args:
            x: (B, C, H, W). logits: (B, C, H, W).
        """
        with torch.autocast(x.device.type, enabled=False):
            p = logits.float().softmax(dim=1)[:, self.classes]
            features = x.float()
            mean, largest = features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)
            seen = torch.stack([p * mean, p * largest, p], dim=2).flatten(1, 2)  # p ≥ 0 leaves mean and maximum
            shares = p * self.attention(seen).sigmoid()
            heat = (shares * mean).detach().flatten(0, 1).flatten(1)
            region = heat >= lowest_cluster_ends(heat, self.clusters)
            return shares * region.view_as(shares)

    def target(self, x: Tensor, labels: Tensor) -> Tensor:
        """What SAN(x) should be: the normalisation with the true classes in place of weights, (B, C, H, W) float32.

        Args:
            x: (B, C, H, W). labels: (B, H, W) trainIds.
        """
        classes = torch.tensor(self.classes, device=labels.device)
        return class_normalised(x, labels[:, None] == classes[:, None, None], self.weight, self.bias)


class Seen(NamedTuple):
    """What passed one SAN: features (B, C, H, W) before and behind it, and its classifier's logits (B, C, H, W)."""

    module: SemanticNormalisation
    before: Tensor
    logits: Tensor
    behind: Tensor


@contextmanager
def watch_normalisation(model: nn.Module) -> Iterator[list[Seen]]:
    """Collect what passes the SANs of ``model``, in their order, within the context."""
    seen: list[Seen] = []
    logits: dict[nn.Module, Tensor] = {}

    def classified(classifier: nn.Module, _: Any, output: Tensor) -> None:
        logits[classifier] = output

    def normalised(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, SemanticNormalisation)
        seen.append(Seen(module, inputs[0], logits.pop(module.classifier), output))

    handles = []
    for module in model.modules():
        if isinstance(module, SemanticNormalisation):
            handles.append(module.classifier.register_forward_hook(classified))
            handles.append(module.register_forward_hook(normalised))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
