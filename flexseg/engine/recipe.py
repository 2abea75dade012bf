"""The recipe that all rows of a benchmark share, around what a method adds: crops, colours, the feature distance.

How images are drawn is :mod:`flexseg.data.sampling`'s. Every part is off unless ``training`` in the benchmark file
names it, and then nothing of it is computed or drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexseg.classes import IGNORE, NUM_CLASSES, TRAIN_ID
from flexseg.components.fd import FrozenEncoder, class_cells, feature_distance, watch_encoder
from flexseg.data.photometric import jitter_and_blur, photometric_distortion
from flexseg.data.sampling import NO_CLASS
from flexseg.data.transforms import Window, random_window
from flexseg.errors import RunError
from flexseg.method import Batch
from flexseg.schedule import FeatureDistance, RareClasses, Training

RETRIES = 10
"""How often a crop is drawn again, for its class as for the share of the largest class; the last one is taken."""

COLOURS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "mmseg": photometric_distortion,
    "jitter_blur": jitter_and_blur,
}
"""What ``training.photometric`` names."""


def prepare(
    image: np.ndarray, label: np.ndarray, wanted: int, training: Training, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Crop a training image and change its colours, as the recipe has it.

    Args:
        image: (H, W, 3) uint8. label: (H, W) uint8 trainIds. wanted: the class for which the image was drawn, or -1.

    Returns:
        (crop_h, crop_w, 3) uint8 and (crop_h, crop_w) uint8, arrays of their own.
    """
    window, cut = choose_crop(label, wanted, training, rng)
    pixels = window.cut_image(image)
    if training.photometric is not None:
        pixels = COLOURS[training.photometric](pixels, rng)
    return pixels, cut


def choose_crop(
    label: np.ndarray, wanted: int, training: Training, rng: np.random.Generator
) -> tuple[Window, np.ndarray]:
    """Draw crops until one shows enough of the class ``wanted``, up to :data:`RETRIES` times: the window and its label.

    Rare class sampling asks for ``min_crop_pixels`` of it (Hoyer et al., DAFormer, CVPR 2022: half of what an image
    must have). Class-uniform sampling places the crop around a pixel of the class, drawn among all of them (RobustNet:
    around the centre of the class in a tile of the image).
    """
    if wanted == NO_CLASS:
        return _mixed_crop(label, training, rng, None)
    least, places = 1, None
    if isinstance(training.sampling, RareClasses):
        least = training.sampling.min_crop_pixels
    else:
        places = np.flatnonzero(label == wanted)
    for _ in range(1 + RETRIES):
        focus = None
        if places is not None and len(places):  # an image may lose a few pixels of a class when it is resized
            row, column = divmod(int(places[rng.integers(len(places))]), label.shape[1])
            focus = (row, column)
        window, cut = _mixed_crop(label, training, rng, focus)
        if np.count_nonzero(cut == wanted) >= least:
            break
    return window, cut


def _mixed_crop(
    label: np.ndarray, training: Training, rng: np.random.Generator, focus: tuple[int, int] | None
) -> tuple[Window, np.ndarray]:
    """A crop in which no class has ``max_class_share`` of the labelled pixels (mmseg's ``cat_max_ratio``).

    There must be two classes. What is drawn again is the whole window, also its scale and mirroring.
    """
    retries = 0 if training.max_class_share is None else RETRIES
    for attempt in range(1 + retries):
        window = random_window(label.shape, training.crop, training.scale, training.flip, rng, focus)
        cut = window.cut_label(label)
        if attempt == retries:
            break
        counts = np.bincount(cut.ravel(), minlength=256)[:NUM_CLASSES]
        if np.count_nonzero(counts) > 1 and counts.max() < (training.max_class_share or 1.0) * counts.sum():
            break
    return window, cut


def check_ids(label: np.ndarray, image: str) -> None:
    """Refuse a label that holds anything but the ids of the 19 classes and void: a loss must never see it.

    Raises:
        RunError: with the ids and the image's name.
    """
    if ((label >= NUM_CLASSES) & (label != IGNORE)).any():
        wrong = sorted(set(np.unique(label).tolist()) - {*range(NUM_CLASSES), IGNORE})
        raise RunError(f"the label of {image} holds {wrong}, which are no classes: is its label map the right one?")


class FeatureAnchor:
    """The thing-class feature distance of the recipe: to the encoder as it was before training (DAFormer, FD).

    The frozen encoder is a copy of the backbone as the method has built it, made before the method attaches anything to
    watch it. Where a method passes the model more than once, the distance is that of the first pass, on what went into
    it: F and F_0 see the same images. It is no part of a checkpoint: the initial weights are a function of the run's
    definition.
    """

    def __init__(self, backbone: nn.Module, settings: FeatureDistance) -> None:
        self.settings = settings
        self.classes = [TRAIN_ID[name] for name in settings.classes]
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
        with watch_encoder(backbone, self.settings.stage) as maps, _inputs(backbone) as images:
            found = dict(terms())
        if "fd" in found:
            raise RunError("the method has a feature distance of its own, and so has the benchmark: keep one of them")
        size = len(batch.labels)
        if not maps or len(maps[0]) < size:
            raise RunError(
                "the first pass of the method does not show the whole batch, which the feature distance needs"
            )
        features, shown = maps[0][:size], images[0][:size]
        cells = class_cells(batch.labels, features.shape[-2:], self.classes, self.settings.cell_share)
        self.cells = cells.float().mean()
        return found | {"fd": self.settings.weight * feature_distance(features, self.encoder(shown), cells)}


@contextmanager
def _inputs(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what goes into the backbone within the context."""
    seen: list[Tensor] = []

    def remember(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0].detach())

    handle = backbone.register_forward_pre_hook(remember)
    try:
        yield seen
    finally:
        handle.remove()


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """A device's share of a batch in ``count`` equal parts, in order, as gradients are accumulated over them."""
    if count == 1:
        yield batch
        return
    size = len(batch.slots) // count
    for start in range(0, size * count, size):
        part = slice(start, start + size)
        yield Batch(batch.iteration, batch.slots[part], batch.indices[part], batch.images[part], batch.labels[part])


def mean_terms(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The loss terms of a step: the means over its parts, without a graph."""
    return {key: torch.stack([part[key].detach() for part in parts]).mean(dim=0) for key in parts[0]}
