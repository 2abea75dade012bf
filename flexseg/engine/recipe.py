"""The parts of the shared recipe that act on a step: the feature distance, and gradients summed over parts of a batch.

:mod:`flexseg.data.sampling` draws the images, :mod:`flexseg.data.crops` crops them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from flexseg.benchmark.schedule import FeatureDistance
from flexseg.classes import CITYSCAPES, ClassSet
from flexseg.components.fd import FrozenEncoder, class_cells, feature_distance, watch_encoder
from flexseg.errors import RunError
from flexseg.method import Batch


class FeatureAnchor:
    """The thing-class feature distance of the recipe: to the encoder as it was before training (DAFormer, FD).

    The frozen encoder is a copy of the backbone as the method has built it, made before the method attaches anything to
    watch it. Where a method passes the model more than once, the distance is that of the first pass, on what went into
    it: F and F_0 see the same images. Checkpoints leave it out, as the run's definition fixes the initial weights.
    """

    def __init__(self, backbone: nn.Module, settings: FeatureDistance, classes: ClassSet = CITYSCAPES) -> None:
        self.settings = settings
        self.classes = [classes.ids[name] for name in settings.classes_in(classes)]
        self.encoder = FrozenEncoder(backbone, settings.stage)
        self.cells: float | Tensor = 0.0
        """The share of cells on which the last distance was measured."""

    def forward(
        self, backbone: nn.Module, batch: Batch, terms: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The terms of the method's own pass, and ``fd`` beside them.

        Raises:
            RunError: the method has such a term of its own, or its first pass does not begin with the batch.
        """
        with watch_encoder(backbone, self.settings.stage) as (inputs, maps):
            found = dict(terms())
        if "fd" in found:
            raise RunError("both the method and the benchmark have a feature distance: keep one of them")
        size = len(batch.labels)
        if not maps or len(maps[0]) < size:
            raise RunError(
                "the method's first pass does not begin with the whole batch, which the feature distance needs"
            )
        images, features = inputs[0][:size], maps[0][:size]
        cells = class_cells(batch.labels, features.shape[-2:], self.classes, self.settings.cell_share)
        self.cells = cells.float().mean()
        return found | {"fd": self.settings.weight * feature_distance(features, self.encoder(images), cells)}


def split_batch(batch: Batch, count: int) -> Iterator[Batch]:
    """Split a device's share of a batch into ``count`` equal parts, in order, to accumulate gradients over them."""
    size = len(batch.slots) // count
    for start in range(0, size * count, size):
        part = slice(start, start + size)
        yield Batch(batch.iteration, batch.slots[part], batch.indices[part], batch.images[part], batch.labels[part])


def mean_terms(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean loss terms over the parts of a step, without a graph."""
    return {key: torch.stack([part[key].detach() for part in parts]).mean(dim=0) for key in parts[0]}
