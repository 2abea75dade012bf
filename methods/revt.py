"""ReVT: three networks learn from three augmentations; the mean of their encoders becomes the encoder of one.

Termöhlen et al., *A Re-Parameterized Vision Transformer (ReVT) for Domain-Generalized Semantic Segmentation*, ICCV-W
2023. Networks m = 1 … M with encoders θ_m and decoders φ_m start from one pre-trained encoder and are trained apart,
each with its own augmentation; after training

    θ = (θ_1 + … + θ_M) / M,   φ = φ_1.

Published: M = 3 with the base augmentation, PixMix, and a bilateral filter; MiT encoders, each trained for the whole
schedule. Training costs M times as much; the evaluated network costs no more than a plain one.

Here the first network is the model of the run and the others are its training modules; all train in one loop, on the
same crops, and the sum of their losses is minimised, which is M trainings side by side as no weight is shared. The base
augmentation is the suite's own (crop and mirror). The encoder is the trunk's backbone and neck, the decoder its head;
mmseg's UNet is a backbone with both of its halves. What differs from the paper:

- Networks that part at random weights end in different basins, where a mean of weights is no network; the published
  ones part at ImageNet's weights. The suite trains from scratch, so ``part_at`` stands in for the pre-training (see
  there; 0 parts at random weights). Before it, one network trains, with the base augmentation, at the cost of one
  pass; the others get its gradient and its statistics of BatchNorm and so stay exactly equal to it, in weights, in the
  optimiser's moments and in the average of the weights. They part with all of these, as copies.
- The default trunk has BatchNorm, whose statistics belong to the weights that they were gathered with: the mean of the
  encoders has others. They are gathered anew on fresh batches, as is usual where weights are averaged (Izmailov et al.,
  *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018). Encoders without BatchNorm, such as
  MiT, need none, and then nothing is gathered, as published.
- PixMix mixes in procedural pictures instead of fractals (``flexseg/data/augment.py``). As in the authors' code k = 4,
  β = 3, and the image's own change is mmseg's photometric distortion. (That code scales the pictures to [0, 1] and the
  image to [0, 255]; here both have one range.)
- The bilateral filter is that of the authors' code: half of the images, a diameter from 1 to 13 pixels, σ = 75 for
  levels and for pixels. At 512 pixels a diameter of 13 is a fortieth of the crop; a small crop has smaller diameters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import update_bn

from flexseg.data.augment import bilateral, pixmix
from flexseg.data.transforms import Change, changed_view
from flexseg.method import Batch, Method, Setup, auxiliary_losses, option, require_at_least, weight_terms
from flexseg.models import Segmentor

ENCODER = ("backbone", "neck")
"""The parts of a trunk that are averaged."""


class _Shared(torch.autograd.Function):
    """The first of equal parameters; all of them get its gradient."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:  # type: ignore[override]
        ctx.count = len(parameters)
        return parameters[0].view_as(parameters[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return (gradient,) * ctx.count


def _average_encoders(model: Segmentor, members: list[nn.Module]) -> None:
    """Put the mean of all encoders' parameters into that of ``model``, in place."""
    for part in ENCODER:
        if getattr(model, part) is None:
            continue
        others = [dict(getattr(member, part).named_parameters()) for member in members]
        with torch.no_grad():
            for name, own in getattr(model, part).named_parameters():
                own.copy_(torch.stack([own, *(other[name] for other in others)]).mean(dim=0))


class ReVT(Method):
    name = "revt"
    title = "ReVT"
    paper = (
        "Termöhlen et al., A Re-Parameterized Vision Transformer (ReVT) for Domain-Generalized Semantic Segmentation, "
        "ICCV-W 2023"
    )

    @dataclass(frozen=True)
    class Options:
        augmentations: tuple[Literal["pixmix", "bilateral"], ...] = option(
            ("pixmix", "bilateral"), "of the networks beside the first, one each"
        )
        # Chosen on source validation (street world, trained on source images, seed 100, which no benchmark uses): the
        # earliest of these without a barrier between the networks, that is, where the mean of the weights is no worse
        # than the mean of the three networks' own scores. mIoU of the first network, mean of the three networks', and
        # that of the mean of the weights, with new statistics (in brackets: with those of the first network):
        #   900 iterations: 0.25 58.2, 53.9, 53.5 (47.1)   0.5 58.2, 54.7, 56.0 (51.7)
        #                   0.75 58.2, 55.4, 57.0 (55.5)   0.9 58.2, 56.0, 57.5 (57.1)
        #   300 iterations: 0 39.8, 36.4, 27.5 (20.6)   0.5 39.8, 36.5, 38.0 (36.7)   0.75 39.8, 36.9, 38.9 (37.5)
        # So networks that part at random weights cannot be averaged here. On the source itself the first network alone
        # is best, and the later they part the less is lost; no other domain was looked at.
        part_at: float = option(0.5, "fraction of the training after which the networks part", origin="scaled")
        # With 10 batches, source validation differs by at most 0.3 from that with 50.
        statistics: int = option(50, "batches for BatchNorm's statistics of the mean", origin="own")
        rounds: int = option(4, "k, most mixtures in PixMix")
        beta: float = option(3.0, "β of PixMix, the larger the weaker its mixtures")
        pictures: int = option(128, "pictures that PixMix mixes in; published are about 14 000", origin="scaled")
        filtered: float = option(0.5, "share of the images that the bilateral filter smooths")
        diameter: int = option(7, "largest diameter of the filter, in pixels; published 13 at 512", origin="scaled")
        sigma: float = option(75.0, "σ of the filter, in levels and in pixels")

        def __post_init__(self) -> None:
            if not 0 <= self.part_at <= 1:
                raise ValueError(f"part_at must be between 0 and 1, not {self.part_at}")
            require_at_least(self, statistics=1, rounds=0, pictures=1, diameter=1)
            if self.beta <= 0 or self.sigma <= 0:
                raise ValueError(f"beta and sigma must be positive: {self.beta}, {self.sigma}")
            if not 0 <= self.filtered <= 1:
                raise ValueError(f"filtered must be between 0 and 1, not {self.filtered}")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._part = round(options.part_at * setup.iterations)
        self._members: list[Segmentor] = []

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        self._members = [copy.deepcopy(model) for _ in self.options.augmentations]
        return nn.ModuleList(self._members)

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        if batch.iteration < self._part:
            return self._train_as_one(model, batch)
        terms = super().forward(model, batch)
        own_draws = zip(*(rng.spawn(len(self._members)) for rng in batch.generators(self.setup.seed)), strict=True)
        for kind, member, draws_of_member in zip(self.options.augmentations, self._members, own_draws, strict=True):
            images = changed_view(batch.images, draws_of_member, self._change(kind))
            theirs = super().forward(member, batch._replace(images=images))
            terms |= {f"{key}_{kind}": value for key, value in theirs.items()}
        return terms

    def finish(self, model: Segmentor, modules: nn.Module | None, batches: Iterator[Batch]) -> Segmentor:
        assert isinstance(modules, nn.ModuleList)
        _average_encoders(model, list(modules))
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.backbone.modules()):
            update_bn((batch.images for batch in islice(batches, self.options.statistics)), model)
        return model

    def _train_as_one(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        """One pass whose gradients and BatchNorm statistics all networks get."""
        rows = zip(model.named_parameters(), *(member.parameters() for member in self._members), strict=True)
        shared = {name: _Shared.apply(own, *others) for (name, own), *others in rows}
        output = functional_call(model, shared, (batch.images,))
        with torch.no_grad():
            for member in self._members:
                for theirs, own in zip(member.buffers(), model.buffers(), strict=True):
                    theirs.copy_(own)
        return weight_terms(self.losses(batch, output), output) | auxiliary_losses(output, batch.labels)

    def _change(self, kind: str) -> Change:
        options = self.options
        if kind == "bilateral":
            return partial(bilateral, share=options.filtered, diameter=options.diameter, sigma=options.sigma)
        return partial(pixmix, rounds=options.rounds, beta=options.beta, pictures=options.pictures)
