"""FLEX-Seg: granular adaptive prototypes, uncertainty boundary emphasis and hardness-aware sampling, each switchable.

Kim, Lee, Kim, Cho, *Do We Need Perfect Data? Leveraging Noise for Domain Generalized Segmentation*, AAAI 2026
(arXiv 2511.22948). Total loss: L = L_UBE + λ_gap · L_GAP. With all three switched off it is plain training.

The authors' code (github.com/VisualScienceLab-KHU/FLEX-Seg) could not be read here. What the public text leaves open is
an option marked *assumed*, one line to change in a benchmark file.

- Hardness is that of the plain cross entropy: were it that of L_UBE, switching UBE off would change HAS as well. (UBE
  raises the loss of a batch and so halves the relative weight of L_GAP; that is the paper's own sum.)
- L_UBE takes the place of the cross entropy of the prediction alone: the auxiliary head of a ResNet and the detail crop
  of HRDA keep the plain one. Features are what the head's classifier sees, behind its dropout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flexseg.classes import IGNORE
from flexseg.components.boundary import label_boundary
from flexseg.components.gap import GranularPrototypes
from flexseg.components.has import HardnessSampler
from flexseg.components.losses import mean_over_images, mean_over_valid, negative_log_likelihood
from flexseg.components.ranks import gather_over_ranks
from flexseg.components.ube import predictive_entropy, uncertainty_boundary_losses, uncertainty_weights
from flexseg.method import Batch, Method, Setup, option
from flexseg.models import Output, Segmentor
from flexseg.shows import Curves, Maps, Vectors


class FlexSeg(Method):
    name = "flexseg"
    title = "FLEX-Seg"
    paper = "Kim, Lee, Kim, Cho, Do We Need Perfect Data?, AAAI 2026, arXiv 2511.22948"

    shows = (
        Curves(
            "has",
            "Hardness-aware sampling",
            {
                "has/threshold": "threshold: chance of a uniform draw",
                "has/effective_sample_size": "effective sample size 1/Σp²",
                "has/generated_share": "share of draws from the generated data",
                "has/loss_correlation": "rank correlation of hardness with the next loss",
                "has/age_correlation": "rank correlation of hardness with the time since the first visit",
            },
            "HAS over training: the threshold, below which a draw is uniform; the effective number of images, 1/Σp², "
            "of the hardness distribution; the share of images that were drawn from the generated data. Then, whether "
            "hardness foretells an image's next loss (1: it orders the images as their losses do), and whether it is "
            "but age (0: it is not).",
        ),
        Curves(
            "components",
            "Do the components do what they say?",
            {
                "ube/boundary_share": "UBE: share of valid pixels on the boundary",
                "ube/boundary_weight": "UBE: their mean weight",
                "gap/ring_share": "GAP: share of feature pixels in a ring",
                "gap/ring_accuracy": "GAP: rings told apart by the nearest prototype",
                "gap/ring_guess": "GAP: rings told apart by a blind guess",
                "gap/rank": "GAP: entropy rank of the prototypes",
            },
            "What the components act on. A boundary loss marks a small part of the pixels. Granular prototypes are of "
            "use if the nearest prototype of a pixel's class names its ring more often than a guess of the most "
            "frequent ring does, and if they do not all point the same way: the entropy rank of their directions is 1 "
            "then, and at most the number of cells.",
        ),
        Vectors(
            "prototypes", "Prototypes", "prototypes", "updates", ("thin", "medium", "thick"),
            "The prototypes of GAP, one for each class and granularity of its boundary.",
        ),
        Maps(
            "uncertainty", "Uncertainty", {"entropy": "nats", "weight": ""},
            "Rows: prediction; entropy of the softmax; where UBE is on, the weight of a pixel in its loss.",
        ),
    )  # fmt: skip

    @dataclass(frozen=True)
    class Options:
        gap: bool = option(True, "granular adaptive prototypes")
        ube: bool = option(True, "uncertainty boundary emphasis")
        has: bool = option(True, "hardness-aware sampling")
        lambda_gap: float = option(0.5, "λ_gap, the weight of L_GAP")
        temperature: float = option(0.07, "τ of L_GAP")
        dim: int = option(256, "length of features and prototypes in L_GAP")
        kernels: tuple[int, ...] = option((3, 5, 7), "k_g of the thin, medium and thick ring", origin="assumed")
        rings: Literal["feature", "label"] = option(
            "feature", "the resolution at which the rings are drawn", origin="assumed"
        )
        max_pixels: int = option(
            0, "boundary pixels a batch that enter L_GAP, evenly thinned; 0 = all", origin="assumed"
        )
        momentum: float = option(0.99, "m of the prototypes", origin="assumed")
        gap_weights: Literal["batches", "pixels"] = option(
            "batches", "what w_{c,g} is inverse to: the batches that updated a cell, or their pixels", origin="assumed"
        )
        alpha: float = option(3.0, "α of the boundary weight")
        boundary_kernel: int = option(7, "k of the boundary that is emphasised, in label pixels", origin="assumed")
        has_temperature: float = option(1.0, "τ_HAS")
        has_decay: float = option(0.9, "decay of the hardness' moving average", origin="assumed")
        has_hardness: Literal["relative", "debiased", "copied"] = option(
            "relative", "how the average starts: of losses relative to the running mean, debiased, or copied",
            origin="assumed",
        )  # fmt: skip
        has_loss: Literal["plain", "weighted"] = option(
            "plain", "the loss of hardness: the cross entropy, or UBE's weighted one", origin="assumed"
        )
        has_exchanged: bool = option(
            False, "the control: draw an image by the hardness of another one of its kind", origin="own"
        )
        has_k: float = option(0.05, "k of the threshold")
        has_midpoint: float | None = option(
            None, "m of the threshold, in the unit of t; none: half of the training", origin="assumed"
        )
        has_unit: Literal["percent", "iteration", "epoch"] = option(
            "percent", "the unit of t and m in the threshold", origin="assumed"
        )
        has_schedule: Literal["sigmoid", "linear", "none"] = option(
            "sigmoid", "how uniform draws give way to hard ones"
        )

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._prototypes: GranularPrototypes | None = None
        self._sampler: HardnessSampler | None = None
        self._image_losses: list[tuple[np.ndarray, Tensor]] = []  # one for each pass that a step takes
        self._emphasis: tuple[Tensor, Tensor] | None = None
        self._iteration = 0

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        if self.options.has:
            self._sampler = HardnessSampler(
                len(self.setup.origins),
                self.setup.seed,
                self.setup.iterations,
                temperature=self.options.has_temperature,
                decay=self.options.has_decay,
                k=self.options.has_k,
                midpoint=self.options.has_midpoint,
                unit=self.options.has_unit,
                schedule=self.options.has_schedule,
                hardness=self.options.has_hardness,
                images_per_step=self.setup.batch_size,
                exchanged=self.setup.origins if self.options.has_exchanged else None,
            )
        if self.options.gap:
            self._prototypes = GranularPrototypes(
                model.feature_channels,
                model.num_classes,
                dim=self.options.dim,
                kernels=self.options.kernels,
                momentum=self.options.momentum,
                temperature=self.options.temperature,
                rings_at=self.options.rings,
                counted=self.options.gap_weights,
                max_pixels=self.options.max_pixels,
            )
        return self._prototypes

    def choose(self, iteration: int, slots: Sequence[int]) -> np.ndarray:
        if self._sampler is None:
            return super().choose(iteration, slots)
        if self.setup.draws_uniformly:
            return self._sampler.choose(iteration, slots)
        return self._sampler.choose(iteration, slots, lambda *place: self.setup.draw(*place)[0], self._base)

    @property
    def _base(self) -> np.ndarray | None:
        return None if self.setup.draws_uniformly else self.setup.base.probabilities

    @property
    def looks_back(self) -> bool:
        return bool(self.options.has)

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        labels = batch.labels
        if self.options.ube:
            boundary = label_boundary(labels, self.options.boundary_kernel)
            weights, plain = uncertainty_boundary_losses(log_p, labels, boundary, self.options.alpha)
            weighted = weights * plain
            count = boundary.sum()
            excess = torch.where(boundary, weights, 0.0).sum()
            self._emphasis = (count / (labels != IGNORE).sum().clamp_min(1), excess / count.clamp_min(1))
        else:
            weighted = plain = negative_log_likelihood(log_p, labels)
        if self._sampler is not None:
            hard = plain if self.options.has_loss == "plain" else weighted
            self._image_losses.append((batch.indices, mean_over_images(hard.detach(), labels)))
        terms = {"ube" if self.options.ube else "ce": mean_over_valid(weighted, labels)}
        if self._prototypes is not None:
            terms["gap"] = self.options.lambda_gap * self._prototypes(output.features, labels)
        return terms

    def after_step(self, batch: Batch) -> None:
        seen, self._image_losses = self._image_losses, []
        if self._sampler is not None:
            losses = torch.cat([each for _, each in seen]).double()
            indices = torch.as_tensor(np.concatenate([each for each, _ in seen]), device=losses.device)
            indices, losses = gather_over_ranks(indices), gather_over_ranks(losses)
            self._sampler.update(indices.cpu().numpy(), losses.cpu().numpy())
            self._iteration = batch.iteration

    def log(self) -> dict[str, float]:
        values: dict[str, float] = {}
        if self._sampler is not None:
            threshold = self._sampler.threshold(self._iteration)
            generated = self.setup.origins > 0
            hard = self._sampler.probabilities(self._base)[generated].sum()
            values = {
                "has/threshold": threshold,
                "has/effective_sample_size": self._sampler.effective_sample_size(self._base),
                "has/generated_share": float(
                    threshold * self.setup.base.probabilities[generated].sum() + (1 - threshold) * hard
                ),
                "has/loss_correlation": self._sampler.loss_correlation(),
                "has/age_correlation": self._sampler.age_correlation(),
            }
        if self._emphasis is not None:
            values |= dict(zip(("ube/boundary_share", "ube/boundary_weight"), map(float, self._emphasis), strict=True))
        if self._prototypes is not None:
            values |= {f"gap/{name}": value for name, value in self._prototypes.measure().items()}
        return {name: value for name, value in values.items() if np.isfinite(value)}

    def observe(self, model: Segmentor, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        logits = model.predict(images)
        entropy = predictive_entropy(logits)
        shown = {"prediction": logits.argmax(dim=1).byte(), "entropy": entropy.half()}
        if self.options.ube:
            boundary = label_boundary(labels, self.options.boundary_kernel)
            shown["weight"] = uncertainty_weights(entropy, boundary, self.options.alpha).half()
        if self._prototypes is not None:
            bank = self._prototypes.bank
            shown |= {"prototypes": bank.prototypes.transpose(0, 1), "updates": bank.updates.transpose(0, 1)}
        return {name: values.cpu().numpy() for name, values in shown.items()}

    def state(self) -> dict[str, np.ndarray]:
        return self._sampler.state() if self._sampler is not None else {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        if self._sampler is not None:
            self._sampler.load(state)
