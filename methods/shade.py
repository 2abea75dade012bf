"""SHADE's style consistency: the prediction must not change when an image gets a mixture of a few distant styles.

SHADE (Zhao et al., *Style-Hallucinated Dual Consistency Learning for Domain Generalized Semantic Segmentation*, ECCV
2022), written from the formulas of the paper alone. Behind the first stage, with the bases M̂, Σ̂ (64, C), the means and
standard deviations of 64 training images' channels there, chosen by farthest-point sampling:

    x' = (x − μ)/σ · (w Σ̂) + (w M̂),    w ~ Dirichlet(1/64, …, 1/64)                              style hallucination

(no gradient passes through μ and σ: ``network/style_hallucination.py`` of the authors' code), then

    L_SC = λ_SC/2 · [KL(p‖m) + KL(p'‖m)],    m = (p + p')/2                                       style consistency

and the cross entropy of both views. Published: 64 bases, concentration 1/64, λ_SC = 10; the bases are chosen again
every few epochs, in the code of HRDA every 4,000 of 40,000 iterations: a tenth of the run.

**Left out**: retrospection consistency, which compares with the features of a network pretrained on ImageNet. There is
none here; the title says so.

**Scaled**: the bases are chosen from the styles of the latest 256 images, as training saw them, instead of from all
training images in a pass of their own. Until 64 images were seen, the bases are the styles of those, chosen anew
each step.

**Assumed**: a style is the vector (μ, σ), compared by its Euclidean distance, and the sampling begins with an arbitrary
one. From the authors' code: the cross entropy is the mean of both views'; L_SC is a mean over all pixels, void ones
too, and pulls both views. The stage is passed once; from there on both views are one batch of twice the size, so that
BatchNorm's statistics, also those it keeps, are those of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexseg.classes import IGNORE
from flexseg.components.consistency import jensen_shannon
from flexseg.components.recent import Recent
from flexseg.components.style import (
    changed_outputs,
    channel_statistics,
    early_stages,
    farthest_points,
    stage_channels,
    stylise,
)
from flexseg.method import Batch, Method, Setup, auxiliary_losses, label_log_probabilities, option, weight_terms
from flexseg.models import Segmentor


class StyleBases(nn.Module):
    """The bases, and the recent styles that they are chosen from, in buffers: a resumed run continues with them.

    bases: (count, 2C), M̂ beside Σ̂. known: how many of them are set.
    """

    bases: Tensor
    known: Tensor

    def __init__(self, channels: int, count: int, remembered: int) -> None:
        super().__init__()
        self.recent = Recent(remembered, 2 * channels)
        self.register_buffer("bases", torch.zeros(count, 2 * channels))
        self.register_buffer("known", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def learn(self, features: Tensor, choose: bool) -> None:
        """Remember the styles of a map; choose the bases if asked to, or while some are missing. A collective."""
        self.recent.push(torch.cat(channel_statistics(features), dim=1))
        if choose or int(self.known) < len(self.bases):
            styles = self.recent.filled()
            chosen = farthest_points(styles, len(self.bases))
            self.bases[: len(chosen)] = styles[chosen]
            self.known.fill_(len(chosen))

    def mix(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """w M̂ and w Σ̂, (B, C) each. weights: (B, known)."""
        with torch.autocast(weights.device.type, enabled=False):
            mean, std = (weights @ self.bases[: weights.shape[1]]).chunk(2, dim=1)
        return mean, std


class Shade(Method):
    name = "shade"
    title = "SHADE (style consistency)"
    paper = "Zhao et al., Style-Hallucinated Dual Consistency Learning for Domain Generalized Segmentation, ECCV 2022"

    @dataclass(frozen=True)
    class Options:
        weight: float = option(10.0, "λ_SC, the weight of the style consistency")
        bases: int = option(64, "number of styles that are mixed")
        concentration: float = option(1 / 64, "of the Dirichlet distribution of w: the smaller, the purer the styles")
        every: float = option(0.1, "fraction of the run after which the bases are chosen again")
        remembered: int = option(256, "latest images whose styles the bases are chosen from", origin="scaled")

        def __post_init__(self) -> None:
            if self.weight < 0 or self.concentration <= 0:
                raise ValueError(f"weight must not be negative and concentration positive: {self}")
            if not 1 <= self.bases <= self.remembered:
                raise ValueError(f"bases must be from 1 to remembered = {self.remembered}, not {self.bases}")
            if not 0 < self.every <= 1:
                raise ValueError(f"every must be above 0 and at most 1, not {self.every}")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._every = max(1, round(options.every * setup.iterations))

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        stages = early_stages(model.backbone)
        self._stage = stages[1] if stages[0] == "maxpool" else stages[0]  # ResNet's stem is no stage
        channels = stage_channels(model.backbone, self._stage)
        self._bases = StyleBases(channels, self.options.bases, self.options.remembered)
        return self._bases

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        with changed_outputs(model.backbone, {self._stage: lambda x: self._with_hallucination(x, batch)}):
            output = model(batch.images)
        views = batch.repeated(2)
        log_p = label_log_probabilities(output, views.labels)
        # Nothing is learnt from a batch of void, although this term needs no label.
        labelled = (batch.labels != IGNORE).any()
        apart = labelled * jensen_shannon(*log_p.chunk(2)).mean()
        terms = self.supervise(views, output, log_p) | {"style_consistency": self.options.weight * apart}
        return weight_terms(terms, output) | auxiliary_losses(output, views.labels)

    def _with_hallucination(self, features: Tensor, batch: Batch) -> Tensor:
        """The stage's map followed by its hallucinated view, (2B, …)."""
        self._bases.learn(features, choose=batch.iteration % self._every == 0)
        weights = torch.from_numpy(self._weights(batch, int(self._bases.known))).to(features.device)
        return torch.cat([features, stylise(features, *self._bases.mix(weights), detach=True)])

    def _weights(self, batch: Batch, count: int) -> np.ndarray:
        """w of each image, (B, count) float32; drawn by iteration and slot."""
        concentrations = np.full(count, self.options.concentration)
        draws = [rng.dirichlet(concentrations) for rng in batch.generators(self.setup.seed)]
        return np.array(draws, dtype=np.float32)
