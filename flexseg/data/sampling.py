"""The base draw, which image fills a slot of a batch before a method changes it; and subsets of a domain.

Every draw is a function of a generator that the caller makes of (seed, iteration, slot), so it depends on no other
draw. A draw gives an image and the class for which it was drawn, or :data:`NO_CLASS`: the crop then looks for that
class (:mod:`flexseg.data.crops`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flexseg.benchmark.schedule import ClassUniform, RareClasses
from flexseg.components.rcs import RareClassSampler
from flexseg.errors import UserError

NO_CLASS = -1
"""The class of an image that was drawn for no class."""


@dataclass(frozen=True)
class Drawing:
    """A way to draw: ``draw`` gives an image's place and a class, ``probabilities`` (N,) are those of the images."""

    draw: Callable[[np.random.Generator], tuple[int, int]]
    probabilities: np.ndarray


def base_drawing(
    origins: np.ndarray,
    class_pixels: np.ndarray,
    mix: Sequence[float] | None = None,
    sampling: RareClasses | ClassUniform | None = None,
) -> Drawing:
    """The base draw over a pool: all images equally, or the kind by ``mix`` and then an image by ``sampling``.

    Class frequencies are those of the images to draw from: of each kind separately if ``mix`` draws the kind first
    (assumed), otherwise of all. If a run has images of only one kind, the ratio is ignored.

    Args:
        origins: (N,), 0 for a source image, 1 for a generated one. class_pixels: (N, 19) int64, as on disk.
        mix: weights of source and generated images; a kind of weight 0 is never drawn.

    Raises:
        UserError: no image has enough of any class, or the ratio gives no share to the only kind there is.
    """
    everywhere = np.arange(len(origins))
    if mix is None:
        return _draw_among(everywhere, class_pixels, len(origins), sampling)
    kinds = [everywhere[chosen] for chosen, weight in zip((origins == 0, origins > 0), mix, strict=True) if weight]
    drawings = [_draw_among(places, class_pixels, len(origins), sampling) for places in kinds if len(places)]
    if not drawings:
        kind = "generated" if mix[0] else "source"
        raise UserError(
            f"training.mix: {mix[0]:g} : {mix[1]:g} draws no {kind} image, and this run has no others: give them a "
            "share, or leave mix out"
        )
    if len(drawings) == 1:
        return drawings[0]
    source, generated = drawings
    share = mix[1] / sum(mix)

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        return (generated if rng.random() < share else source).draw(rng)

    return Drawing(draw, (1 - share) * source.probabilities + share * generated.probabilities)


def uniform(places: np.ndarray, count: int) -> Drawing:
    """Draw from ``places`` equally, in a pool of ``count`` images."""
    probabilities = np.zeros(count)
    probabilities[places] = 1 / len(places)
    return Drawing(lambda rng: (int(places[rng.integers(len(places))]), NO_CLASS), probabilities)


def _draw_among(
    places: np.ndarray, class_pixels: np.ndarray, count: int, sampling: RareClasses | ClassUniform | None
) -> Drawing:
    match sampling:
        case RareClasses():
            return _draw_rare_classes(places, class_pixels[places], count, sampling)
        case ClassUniform():
            return _draw_class_uniform(places, class_pixels[places], count, sampling.share)
    return uniform(places, count)


def _draw_rare_classes(places: np.ndarray, class_pixels: np.ndarray, count: int, settings: RareClasses) -> Drawing:
    """A class by its rarity, then an image with more than ``min_pixels`` of it (Hoyer et al., DAFormer, CVPR 2022)."""
    try:
        sampler = RareClassSampler(class_pixels, temperature=settings.temperature, min_pixels=settings.min_pixels)
    except ValueError as error:
        raise UserError(
            f"training.sampling: none of {len(places)} training images has more than {settings.min_pixels} pixels of "
            "any class: set min_pixels lower, it is counted at the size the images have on disk"
        ) from error

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        drawn, image = sampler.draw(rng)
        return int(places[image]), drawn

    probabilities = np.zeros(count)
    probabilities[places] = sampler.image_probabilities(len(places))
    return Drawing(draw, probabilities)


def _draw_class_uniform(places: np.ndarray, class_pixels: np.ndarray, count: int, share: float) -> Drawing:
    """For this ``share`` of draws a class, all equally, and an image that shows it; otherwise any image, all equally.

    Zhu et al., *Improving Semantic Segmentation via Video Propagation and Label Relaxation*, CVPR 2019; RobustNet
    trains so, with one half.
    """
    shown = [places[np.flatnonzero(column)] for column in class_pixels.T]
    classes = np.array([each for each, images in enumerate(shown) if len(images)])
    if not len(classes):
        raise UserError(f"training.sampling: none of {len(places)} training images shows any class")
    evenly = uniform(places, count)

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        if rng.random() >= share:
            return evenly.draw(rng)
        drawn = int(classes[rng.integers(len(classes))])
        return int(shown[drawn][rng.integers(len(shown[drawn]))]), drawn

    by_class = np.sum([uniform(shown[each], count).probabilities for each in classes], axis=0) / len(classes)
    return Drawing(draw, (1 - share) * evenly.probabilities + share * by_class)


def subset(count: int, images: int, seed: int, domain: str) -> np.ndarray:
    """Draw the places (images,) int64, ascending, of the ``images`` that a run uses from a domain of ``count``.

    A function of the run's seed and the domain's name; a smaller subset is part of a larger one, so that a study of the
    number of images only adds images.

    Raises:
        UserError: the domain has fewer images.
    """
    if images > count:
        raise UserError(
            f"domain {domain!r} has {count} images, {images} are asked for: set `images` to {count} or less"
        )
    order = np.random.default_rng([seed, *domain.encode()]).permutation(count)
    return np.sort(order[:images])
