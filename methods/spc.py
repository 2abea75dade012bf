"""SPC: styles are projected onto those of the training domains, and pixels get the class of their nearest prototype.

Huang et al., *Style Projected Clustering for Domain Generalized Semantic Segmentation*, CVPR 2023. Style projection:
behind the stem and behind the first stage, on the way to the next stage alone, the map F of an image with the channel
statistics μ, σ gets the mixture of the bases p_m of the M domains that is most like its own style:

    d_m = mean_channels[(μ − p_m^μ)² + (σ − p_m^σ)²],    λ = softmax_m(1 / (1 + d_m)),
    F' = (Σ_m λ_m p_m^σ) (F − μ)/σ + Σ_m λ_m p_m^μ

Semantic clustering in the place of the head's classifier: a pixel's embedding e, and the prototypes p_m^c of every
class and domain, all of unit length, give the logits LayerNorm_c(max_m ⟨e, p_m^c⟩), and

    L = CE + β/(MC) Σ_mc mean[(1 − ⟨e, p_m^c⟩)²] + γ/(MC) Σ_mc ℓ(ē_m^c),
    ℓ(ē_m^c) = mean_{p⁺}[−log( exp(⟨ē, p⁺⟩/τ) / (exp(⟨ē, p⁺⟩/τ) + Σ_{p⁻} exp(⟨ē, p⁻⟩/τ)) )]

with e the embeddings of class c and domain m in the batch, ē their mean, of unit length, p⁺ the prototypes of c in all
domains and p⁻ those of all other classes. After each step every base goes on to α p + (1 − α) · what the batch has.

Published: the paper's equations; places, the mean over channels, statistics without a gradient, two 1×1 convolutions as
wide as the head and the norms around them, τ = 0.1, α = 0.9 for styles and 0.999 for prototypes as in the authors'
release (mindspore-ai/models, ``research/cv/SPC-Net``), which evaluates only; the order of loss and update as the first
author remembers it (weihuang527/SPC-Net), who has no training code any more.

**Scaled**: 0.999 is for runs of 40,000 iterations; in one of T it is 0.999^(40000/T).

**Assumed**: β and γ, which stand in a supplement that could not be read. The domains are the two that are trained on,
source and generated: M = 2. A base that no image has shaped yet is left out beside others of its kind.

**Left out**: the ten bases of the release where there is a single domain, as nothing says what shares images out among
them; the strong augmentation of styles, which comes with the benchmark's recipe or not at all.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.components.boundary import downsample_label
from flexseg.components.norms import replace_module
from flexseg.components.ranks import sum_over_ranks
from flexseg.components.style import channel_statistics, early_stages, stage_channels, stylise
from flexseg.errors import RunError
from flexseg.method import Batch, Method, auxiliary_losses, option, require_at_least, weight_terms
from flexseg.models import Output, Segmentor

DOMAINS = 2
"""M: source and generated."""
LENGTH = 40_000
"""Iterations of the published runs."""


class StyleProjection(nn.Module):
    """F' of (B, C, H, W) maps F.

    ``mean`` and ``deviation`` (M, C) are the bases, ``updates`` (M,) int64 says how often each was shaped.
    """

    mean: Tensor
    deviation: Tensor
    updates: Tensor

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.domains: Tensor | None = None
        """(B,) int64 of the images that are passed; None where nothing is to be learnt from them."""
        self.register_buffer("mean", nn.init.trunc_normal_(torch.empty(DOMAINS, channels), std=0.02))
        self.register_buffer("deviation", torch.ones(DOMAINS, channels))
        self.register_buffer("updates", torch.zeros(DOMAINS, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        own = torch.stack(channel_statistics(x.detach()))  # (2, B, C)
        bases = torch.stack([self.mean, self.deviation])
        with torch.autocast(x.device.type, enabled=False):
            distances = (own[:, :, None] - bases[:, None]).square().sum(dim=0).mean(dim=2)
            weights = (1 / (1 + distances)).masked_fill(~_usable(self.updates), -math.inf).softmax(dim=1)
            mean, deviation = weights @ bases
        if self.training and self.domains is not None:
            self._learn(own)
        return stylise(x, mean, deviation, detach=True)

    @torch.no_grad()
    def _learn(self, styles: Tensor) -> None:
        """Move the bases of the batch's domains to the mean of its styles (2, B, C). A collective."""
        members = functional.one_hot(cast(Tensor, self.domains), DOMAINS).T.float()
        with torch.autocast(styles.device.type, enabled=False):
            counts = sum_over_ranks(members.sum(dim=1))
            means = sum_over_ranks(members @ styles) / counts.clamp_min(1)[:, None]
        share = (1 - self.momentum) * (counts > 0)[:, None]
        self.mean.lerp_(means[0], share)
        self.deviation.lerp_(means[1], share)
        self.updates += counts > 0


class SemanticClusters(nn.Module):
    """Logits (B, C, h, w) float32 of features (B, D, h, w), by the nearest prototype.

    ``prototypes`` (C, M, D) of unit length, ``updates`` (C, M) int64 says how often each was shaped.
    """

    prototypes: Tensor
    updates: Tensor

    def __init__(self, channels: int, num_classes: int = 19) -> None:
        super().__init__()
        self.in_channels, self.num_classes = channels, num_classes
        layers = [nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)]
        self.projection = nn.Sequential(*layers)
        self.embedding_norm = nn.LayerNorm(channels)
        self.logit_norm = nn.LayerNorm(num_classes)
        start = nn.init.trunc_normal_(torch.empty(num_classes, DOMAINS, channels), std=0.02)
        self.register_buffer("prototypes", functional.normalize(start, dim=2))
        self.register_buffer("updates", torch.zeros(num_classes, DOMAINS, dtype=torch.int64))
        self.embeddings = nn.Identity()
        """Is passed the embeddings (B, h, w, D) float32, for those who watch."""

    def forward(self, features: Tensor) -> Tensor:
        pixels = self.projection(features).permute(0, 2, 3, 1)
        with torch.autocast(features.device.type, enabled=False):
            embeddings = self.embedding_norm(functional.normalize(pixels.float(), dim=3))
            embeddings = self.embeddings(functional.normalize(embeddings, dim=3))
            # Averaged weights are no longer of unit length. Another domain's prototype in the place of one that is left
            # out changes no maximum.
            prototypes, usable = functional.normalize(self.prototypes, dim=2), _usable(self.updates)
            other = prototypes[torch.arange(self.num_classes, device=usable.device), usable.byte().argmax(dim=1)]
            prototypes = torch.where(usable[:, :, None], prototypes, other[:, None])
            cosines = (embeddings @ prototypes.transpose(0, 1).flatten(0, 1).T).unflatten(
                3, (DOMAINS, self.num_classes)
            )
            return self.logit_norm(cosines.amax(dim=3)).permute(0, 3, 1, 2)

    def losses(self, embeddings: Tensor, labels: Tensor, domains: Tensor, temperature: float) -> ClusterLosses:
        """What the batch says about the prototypes as they are.

        Args:
            embeddings: (B, h, w, D). labels: (B, h, w) int64. domains: (B,) int64.
        """
        cells = self.num_classes * DOMAINS
        cell = torch.where(labels < self.num_classes, labels * DOMAINS + domains[:, None, None], cells).flatten()
        with torch.autocast(embeddings.device.type, enabled=False):
            pixels = embeddings.flatten(0, 2)
            counts = torch.bincount(cell, minlength=cells + 1)
            prototypes = functional.normalize(self.prototypes, dim=2)
            own = functional.pad(prototypes.flatten(0, 1), (0, 0, 0, 1)).index_select(0, cell)
            shares = (1 / counts).index_fill(0, torch.tensor(cells, device=cell.device), 0.0).index_select(0, cell)
            variance = ((1 - (pixels * own).sum(dim=1)).square() * shares).sum() / cells

            sums = pixels.new_zeros(cells + 1, pixels.shape[1]).index_add(0, cell, pixels)[:cells]
            counts = counts[:cells]
            means = functional.normalize(sums / counts.clamp_min(1)[:, None], dim=1)
            scores = (means @ prototypes.flatten(0, 1).T / temperature).unflatten(1, (self.num_classes, DOMAINS))
            usable = _usable(self.updates)
            classes = torch.arange(self.num_classes, device=cell.device).repeat_interleave(DOMAINS)
            same = functional.one_hot(classes, self.num_classes).bool()[:, :, None]
            negatives = scores.masked_fill(same | ~usable, -math.inf).flatten(1).logsumexp(dim=1)
            each = functional.softplus(negatives[:, None] - scores[torch.arange(cells), classes])
            each = (each * usable[classes]).sum(dim=1) / usable[classes].sum(dim=1)
            discrimination = torch.where(counts > 0, each, 0.0).sum() / cells
        return ClusterLosses(variance, discrimination, sums.detach(), counts)

    @torch.no_grad()
    def learn(self, sums: Tensor, counts: Tensor, momentum: float) -> None:
        """Move the prototypes to the batch's means. A collective.

        Args:
            sums: (C · M, D) of the embeddings of each class and domain. counts: (C · M,), how many they are.
        """
        sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
        found = (counts > 0).view(self.num_classes, DOMAINS)
        means = functional.normalize(sums, dim=1).view_as(self.prototypes)
        moved = functional.normalize(momentum * self.prototypes + (1 - momentum) * means, dim=2)
        self.prototypes.copy_(torch.where(found[:, :, None], moved, self.prototypes))
        self.updates += found


@dataclass(frozen=True)
class ClusterLosses:
    """The terms of β and γ, scalars; sums (C · M, D) and counts (C · M,) of the embeddings by class and domain."""

    variance: Tensor
    discrimination: Tensor
    sums: Tensor
    counts: Tensor


def _usable(updates: Tensor) -> Tensor:
    """Which bases (…, M) count: those that were shaped; all, as they began, where none was."""
    shaped = updates > 0
    return shaped | ~shaped.any(dim=-1, keepdim=True)


def entrances(backbone: nn.Module, count: int) -> tuple[str, ...]:
    """The paths of what first sees the maps of each of the first ``count`` stages, the stem among them.

    Raises:
        RunError: there are too few stages.
    """
    stages = early_stages(backbone)
    if len(stages) <= count:
        raise RunError(f"spc projects behind {count} stages and needs one more, but this backbone has {len(stages)}")
    # A stage of a transformer is a list, which begins with its patch embedding.
    return tuple(
        path.rpartition(".")[0] + ".0" if path.startswith("layers.") else path for path in stages[1 : count + 1]
    )


class SPC(Method):
    name = "spc"
    title = "SPC (style projection, semantic clustering)"
    paper = "Huang et al., Style Projected Clustering for Domain Generalized Semantic Segmentation, CVPR 2023"

    @dataclass(frozen=True)
    class Options:
        places: int = option(2, "stages, the stem among them, behind which styles are projected")
        style_momentum: float = option(0.9, "α of the style bases")
        momentum: float = option(0.999, "α of the prototypes in a run of 40,000 iterations", origin="scaled")
        temperature: float = option(0.1, "τ of the discrimination of classes")
        beta: float = option(1.0, "β, the weight of the variance around prototypes", origin="assumed")
        gamma: float = option(1.0, "γ, the weight of the discrimination of classes", origin="assumed")

        def __post_init__(self) -> None:
            require_at_least(self, places=1)
            if not (0 <= self.style_momentum < 1 and 0 <= self.momentum < 1):
                raise ValueError(f"style_momentum and momentum lie from 0 to below 1: {self}")
            if not (self.temperature > 0 and self.beta >= 0 and self.gamma >= 0):
                raise ValueError(f"the temperature must be positive and no weight negative: {self}")

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        backbone, places = model.backbone, self.options.places
        doors = entrances(backbone, places)
        widths = [stage_channels(backbone, path) for path in early_stages(backbone)[:places]]
        for path, width in zip(doors, widths, strict=True):
            projection = StyleProjection(width, self.options.style_momentum)
            stage = backbone.get_submodule(path)
            replace_module(backbone, path, nn.Sequential(OrderedDict(style=projection, stage=stage)))
        setattr(model.decode_head, model.classifier_name, SemanticClusters(model.feature_channels, model.num_classes))
        return model

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        domains = torch.from_numpy(self.setup.origins[batch.indices]).to(batch.images.device, torch.int64)
        clusters = cast(SemanticClusters, model.classifier)
        with learning(model.backbone, domains), watched(clusters) as seen:
            output = model(batch.images)
        embeddings = _embeddings_of(output, seen)
        labels = downsample_label(batch.labels, embeddings.shape[1:3])
        found = clusters.losses(embeddings, labels, domains, self.options.temperature)
        if clusters.training:
            clusters.learn(found.sums, found.counts, self.options.momentum ** (LENGTH / self.setup.iterations))
        terms = self.losses(batch, output) | {
            "variance": self.options.beta * found.variance,
            "discrimination": self.options.gamma * found.discrimination,
        }
        return weight_terms(terms, output) | auxiliary_losses(output, batch.labels)


@contextmanager
def learning(backbone: nn.Module, domains: Tensor) -> Iterator[None]:
    """Within the block the style projections learn from what they see; domains: (B,) int64 of the images."""
    projections = [module for module in backbone.modules() if isinstance(module, StyleProjection)]
    try:
        for each in projections:
            each.domains = domains
        yield
    finally:
        for each in projections:
            each.domains = None


@contextmanager
def watched(clusters: SemanticClusters) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the features that are classified within the block, with their embeddings."""
    features: list[Tensor] = []
    seen: list[tuple[Tensor, Tensor]] = []
    entrance = clusters.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    inside = clusters.embeddings.register_forward_hook(lambda *call: seen.append((features[-1], call[2])))
    try:
        yield seen
    finally:
        entrance.remove()
        inside.remove()


def _embeddings_of(output: Output, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Those of ``output.features``: a trunk of several scales classifies more than these."""
    return next(embeddings for features, embeddings in seen if features is output.features)
