"""FLEX-Seg: granular adaptive prototypes, uncertainty boundary emphasis and hardness-aware sampling, each switchable.

Kim, Lee, Kim, Cho, *Do We Need Perfect Data? Leveraging Noise for Domain Generalized Segmentation*, AAAI 2026
(arXiv 2511.22948). Total loss: L = L_UBE + λ_gap · L_GAP. With all three switched off it is plain training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flexseg.components.boundary import label_boundary
from flexseg.components.gap import GranularPrototypes
from flexseg.components.has import HardnessSampler
from flexseg.components.losses import mean_over_images, mean_over_valid, pixel_cross_entropy
from flexseg.components.ranks import gather_over_ranks
from flexseg.components.ube import predictive_entropy, uncertainty_boundary_losses, uncertainty_weights
from flexseg.method import Batch, Method, Setup, option, upsample
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
            },
            "HAS over training: the threshold, below which a draw is uniform; the effective number of images, 1/Σp², "
            "of the hardness distribution; the share of images that were drawn from the generated data.",
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
        alpha: float = option(3.0, "α of the boundary weight")
        boundary_kernel: int = option(7, "k of the boundary that is emphasised, in label pixels", origin="assumed")
        has_temperature: float = option(1.0, "τ_HAS")
        has_decay: float = option(0.9, "decay of the hardness' moving average", origin="assumed")
        has_k: float = option(0.05, "k of the threshold")
        has_midpoint: float = option(50.0, "m of the threshold", origin="assumed")
        has_unit: Literal["percent", "iteration"] = option(
            "percent", "the unit of t and m in the threshold", origin="assumed"
        )
        has_schedule: Literal["sigmoid", "linear", "none"] = option(
            "sigmoid", "how uniform draws give way to hard ones"
        )

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._prototypes: GranularPrototypes | None = None
        self._sampler: HardnessSampler | None = None
        self._image_losses: list[Tensor] = []
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
            )
        if self.options.gap:
            self._prototypes = GranularPrototypes(
                model.feature_channels,
                dim=self.options.dim,
                kernels=self.options.kernels,
                momentum=self.options.momentum,
                temperature=self.options.temperature,
                rings_at=self.options.rings,
                max_pixels=self.options.max_pixels,
            )
        return self._prototypes

    def choose(self, iteration: int, slots: Sequence[int]) -> np.ndarray:
        if self._sampler is None:
            return super().choose(iteration, slots)
        base = None if self.setup.draws_uniformly else lambda iteration, slot: self.setup.draw(iteration, slot)[0]
        return self._sampler.choose(iteration, slots, base)

    @property
    def looks_back(self) -> bool:
        return bool(self.options.has)

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        logits = upsample(output.logits, batch.labels.shape[-2:])
        if self.options.ube:
            boundary = label_boundary(batch.labels, self.options.boundary_kernel)
            pixel_losses = uncertainty_boundary_losses(logits, batch.labels, boundary, self.options.alpha)
        else:
            pixel_losses = pixel_cross_entropy(logits, batch.labels)
        self._image_losses.append(mean_over_images(pixel_losses.detach(), batch.labels))
        terms = {"ube" if self.options.ube else "ce": mean_over_valid(pixel_losses, batch.labels)}
        if self._prototypes is not None:
            terms["gap"] = self.options.lambda_gap * self._prototypes(output.features, batch.labels)
        return terms

    def after_step(self, batch: Batch) -> None:
        parts, self._image_losses = self._image_losses, []  # one for each part that the batch was accumulated of
        if self._sampler is not None:
            image_losses = torch.cat(parts)
            indices = gather_over_ranks(torch.as_tensor(batch.indices, device=image_losses.device))
            losses = gather_over_ranks(image_losses.double())
            self._sampler.update(indices.cpu().numpy(), losses.cpu().numpy())
            self._iteration = batch.iteration

    def log(self) -> dict[str, float]:
        if self._sampler is None:
            return {}
        threshold = self._sampler.threshold(self._iteration)
        probabilities = self._sampler.probabilities()
        generated = self.setup.origins > 0
        return {
            "has/threshold": threshold,
            "has/effective_sample_size": self._sampler.effective_sample_size(),
            "has/generated_share": float(
                threshold * self.setup.base.probabilities[generated].sum()
                + (1 - threshold) * probabilities[generated].sum()
            ),
        }

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
