"""The base draw, which image fills a slot of a batch before a method changes it; and subsets of a domain.

Every draw is a function of a generator that the caller makes of (seed, iteration, slot), so it depends on no other
draw. A draw gives an image and the class for which it was drawn, or :data:`NO_CLASS`: the crop then looks for that
class (:mod:`flexseg.data.crops`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flexseg.benchmark.schedule import ClassUniform, RareClasses, RareSubset, Rule, Sampling, Separate, rule_for
from flexseg.components.rcs import RareClassSampler
from flexseg.errors import UserError

NO_CLASS = -1
"""The class of an image that was drawn for no class."""


@dataclass(frozen=True)
class Drawing:
    """A way to draw images, each with the class for which it is drawn.

    ``draw`` gives an image's place and a class. ``joint`` (N, C + 1) float64 are the probabilities of an image together
    with a class; the last column is of no class. ``size`` is the number of images that it draws from.
    """

    draw: Callable[[np.random.Generator], tuple[int, int]]
    joint: np.ndarray
    size: int

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The probability of each image, (N,) float64."""
        return np.asarray(self.joint.sum(axis=1))

    def class_for(self, image: int, rng: np.random.Generator) -> int:
        """A class for an image that was chosen in another way: by the probabilities with which this one draws it."""
        weights = self.joint[image]
        if not weights[:-1].any():
            return NO_CLASS
        drawn = int(rng.choice(len(weights), p=weights / weights.sum()))
        return drawn if drawn < len(weights) - 1 else NO_CLASS


def base_drawing(
    origins: np.ndarray,
    class_pixels: np.ndarray,
    mix: Sequence[float] | None = None,
    sampling: Sampling | None = None,
) -> Drawing:
    """The base draw over a pool: all images equally, or a kind by ``mix`` and then an image by ``sampling``.

    Class frequencies are those of the images to draw from: of each kind separately if the kind is drawn first
    (assumed), otherwise of all. If a run has images of only one kind, the ratio is ignored.

    Args:
        origins: (N,), 0 for a source image, 1 for a generated one. class_pixels: (N, C) int64, as on disk.
        mix: weights of source and generated images; a kind of weight 0 is never drawn.

    Raises:
        UserError: no image has enough of any class, fewer are left than a subset needs, or the ratio gives no share to
            the only kind there is.
    """
    everywhere = np.arange(len(origins))
    if mix is None and not isinstance(sampling, Separate):
        return _draw_among(everywhere, len(origins), class_pixels, sampling, "")
    drawings, weights = [], []
    for number, kind in enumerate(("source", "generated")):
        places = everywhere[(origins > 0) == number]
        if not len(places) or (mix is not None and not mix[number]):
            continue
        rule = rule_for(sampling, generated=bool(number))
        key = kind if isinstance(sampling, Separate) else ""
        drawings.append(_draw_among(places, len(origins), class_pixels, rule, key))
        weights.append(drawings[-1].size if mix is None else mix[number])
    if not drawings:
        assert mix is not None
        kind = "generated" if mix[0] else "source"
        raise UserError(
            f"training.mix: {mix[0]:g} : {mix[1]:g} draws no {kind} image, and this run has no others: give them a "
            "share, or leave mix out"
        )
    if len(drawings) == 1:
        return drawings[0]
    source, generated = drawings
    share = weights[1] / sum(weights)

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        return (generated if rng.random() < share else source).draw(rng)

    return Drawing(draw, (1 - share) * source.joint + share * generated.joint, source.size + generated.size)


def _draw_among(places: np.ndarray, count: int, class_pixels: np.ndarray, rule: Rule | None, kind: str) -> Drawing:
    """Draw from ``places`` by ``rule``, in a pool of ``count`` images. kind: names the rule's key in messages."""
    key = "training.sampling" + (f".{kind}" if kind else "")
    match rule:
        case RareClasses():
            return _draw_rare_classes(places, class_pixels, rule, key)
        case RareSubset():
            return _draw_rare_subset(places, class_pixels, rule, key)
        case ClassUniform():
            return _draw_class_uniform(places, class_pixels, rule.share, key)
    return _draw_uniformly(places, count, class_pixels.shape[1])


def _draw_uniformly(places: np.ndarray, count: int, classes: int) -> Drawing:
    joint = np.zeros((count, classes + 1))
    joint[places, -1] = 1 / len(places)
    return Drawing(lambda rng: (int(places[rng.integers(len(places))]), NO_CLASS), joint, len(places))


def _sampler(
    places: np.ndarray, class_pixels: np.ndarray, rule: RareClasses | RareSubset, key: str
) -> RareClassSampler:
    try:
        return RareClassSampler(class_pixels[places], temperature=rule.temperature, min_pixels=rule.min_pixels)
    except ValueError as error:
        raise UserError(
            f"{key}: none of {len(places)} training images has more than {rule.min_pixels} pixels of any class: set "
            "min_pixels lower, it is counted at the size the images have on disk"
        ) from error


def _draw_rare_classes(places: np.ndarray, class_pixels: np.ndarray, rule: RareClasses, key: str) -> Drawing:
    """A class by its rarity, then an image with more than ``min_pixels`` of it (Hoyer et al., DAFormer, CVPR 2022)."""
    sampler = _sampler(places, class_pixels, rule, key)

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        drawn, image = sampler.draw(rng)
        return int(places[image]), drawn

    joint = np.zeros((len(class_pixels), class_pixels.shape[1] + 1))
    joint[places, :-1] = sampler.joint(len(places))
    return Drawing(draw, joint, len(places))


def _draw_rare_subset(places: np.ndarray, class_pixels: np.ndarray, rule: RareSubset, key: str) -> Drawing:
    """Uniformly from a subset that rare class sampling chose before (DGInStyle, ECCV 2024)."""
    sampler = _sampler(places, class_pixels, rule, key)
    try:
        images, classes = sampler.subset(len(places), rule.images, np.random.default_rng(rule.seed))
    except ValueError as error:
        raise UserError(f"{key}.images: {error}: ask for fewer, or set min_pixels lower") from error
    chosen = places[images]

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        drawn = rng.integers(len(chosen))
        return int(chosen[drawn]), int(classes[drawn])

    joint = np.zeros((len(class_pixels), class_pixels.shape[1] + 1))
    joint[chosen, classes] = 1 / len(chosen)
    return Drawing(draw, joint, len(chosen))


def _draw_class_uniform(places: np.ndarray, class_pixels: np.ndarray, share: float, key: str) -> Drawing:
    """For this ``share`` of draws a class, all equally, and an image that shows it; otherwise any image, all equally.

    Zhu et al., *Improving Semantic Segmentation via Video Propagation and Label Relaxation*, CVPR 2019; RobustNet
    trains so, with one half.
    """
    shown = [places[np.flatnonzero(column)] for column in class_pixels[places].T]
    classes = np.array([each for each, images in enumerate(shown) if len(images)])
    if not len(classes):
        raise UserError(f"{key}: none of {len(places)} training images shows any class")
    evenly = _draw_uniformly(places, *class_pixels.shape)

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        if rng.random() >= share:
            return evenly.draw(rng)
        drawn = int(classes[rng.integers(len(classes))])
        return int(shown[drawn][rng.integers(len(shown[drawn]))]), drawn

    joint = (1 - share) * evenly.joint
    for each in classes:
        joint[shown[each], each] += share / (len(classes) * len(shown[each]))
    return Drawing(draw, joint, len(places))


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
