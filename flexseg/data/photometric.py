"""Change the colours and the sharpness of an image or a training batch, but not the layout.

Two changes are parts of published recipes, which all rows of a benchmark may share: :func:`photometric_distortion` of
the transformers' line and :func:`jitter_and_blur` of the ResNets'.

Methods of invariance compare a batch with a second view of it. :func:`photometric_view` makes that view of images that
are already normalised, each with its own generator, so that it does not depend on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
from torch import Tensor

from flexseg.data.transforms import changed_view

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""The shares of R, G and B in grey (ITU-R BT.601)."""


LEVELS = np.arange(256)
HUES = 180
"""The number of hues in OpenCV's 8-bit HSV, 2° apart."""


def photometric_distortion(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 32.0,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: int = 18,
    probability: float = 0.5,
) -> np.ndarray:
    """Distort the colours of (H, W, 3) uint8 RGB: each of :func:`distort`'s four changes with ``probability``.

    Liu et al., *SSD: Single Shot MultiBox Detector*, ECCV 2016, its data augmentation; mmsegmentation's
    ``PhotoMetricDistortion`` with these defaults (which truncates levels; this rounds them). Contrast comes second
    or, half of the time, last.
    """
    happens = rng.random(4) < probability
    shift = rng.uniform(-brightness, brightness) if happens[0] else 0.0
    stretch = rng.uniform(*contrast) if happens[1] else 1.0
    colour = rng.uniform(*saturation) if happens[2] else 1.0
    turn = int(rng.integers(-hue, hue, endpoint=True)) if happens[3] else 0
    return distort(image, shift, stretch, colour, turn, bool(rng.integers(2)))


def distort(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: int, contrast_last: bool
) -> np.ndarray:
    """The changes with these values: (H, W, 3) uint8 RGB to the same.

    ``brightness`` is added (0 changes nothing), ``contrast`` and ``saturation`` are factors (1 changes nothing),
    ``hue`` is added in OpenCV's steps.
    """
    if brightness:
        image = cv2.LUT(image, _to_levels(LEVELS + brightness))
    if not contrast_last and contrast != 1:
        image = cv2.LUT(image, _to_levels(LEVELS * contrast))
    if saturation != 1 or hue:  # converting to HSV and back alone would change levels
        tables = np.stack([(LEVELS + hue) % HUES, _to_levels(LEVELS * saturation), LEVELS], axis=-1).astype(np.uint8)
        image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None]), cv2.COLOR_HSV2RGB)
    if contrast_last and contrast != 1:
        image = cv2.LUT(image, _to_levels(LEVELS * contrast))
    return image


def _to_levels(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def jitter_and_blur(
    image: np.ndarray,
    rng: np.random.Generator,
    strength: float = 0.4,
    hue: float = 0.1,
    blur: tuple[float, float] = (0.15, 1.3),
    probability: float = 0.5,
) -> np.ndarray:
    """With ``probability`` a jitter of the colours, then always a Gaussian blur: (H, W, 3) uint8 RGB to the same.

    Brightness, contrast and saturation change by factors in 1 ± ``strength`` and hue by up to ``hue`` of a turn, in
    random order; σ of the blur is in the range ``blur``, in pixels. The defaults are those of the published code of
    Choi et al., *RobustNet*, CVPR 2021, for training images.
    """
    jittered = rng.random() < probability
    factors, turn = rng.uniform(1 - strength, 1 + strength, 3), rng.uniform(-hue, hue)
    order, sigma = rng.permutation(4), rng.uniform(*blur)
    levels = image.astype(np.float32)
    for change in order if jittered else ():
        levels = _turn_hue(levels, turn) if change == 3 else _scale(levels, int(change), float(factors[change]))
        levels = np.clip(levels, 0, 255)
    return _to_levels(cv2.GaussianBlur(levels, (0, 0), sigma) if sigma > 0 else levels)


def _scale(levels: np.ndarray, change: int, factor: float) -> np.ndarray:
    """Scale away from black (0: brightness), the image's mean grey (1: contrast) or each pixel's (2: saturation)."""
    grey = levels @ LUMA
    origin = (np.float32(0), grey.mean(), grey[..., None])[change]
    return np.asarray(origin + np.float32(factor) * (levels - origin))


def _turn_hue(levels: np.ndarray, turn: float) -> np.ndarray:
    """Turn the hue of float32 levels in 0–255 by a share of the circle."""
    hsv = cv2.cvtColor(levels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def photometric_view(
    images: Tensor,
    generators: Sequence[np.random.Generator],
    strength: float = 0.8,
    hue: float = 0.3,
    blur: tuple[float, float] = (0.15, 1.3),
) -> Tensor:
    """Make a second view of a batch by :func:`jitter_and_blur`, always, with one generator per image.

    The defaults are those of RobustNet's code for the view that its statistics, and later works, compare with.

    Args:
        images: (B, 3, H, W) normalised float, on any device. generators: B of them, e.g.
            ``flexseg.data.draws.generator(seed, Purpose.TRANSFORM, iteration, slot)`` for each slot.

    Returns:
        (B, 3, H, W) of the dtype and device of ``images``, without a graph.

    Raises:
        ValueError: the number of generators is not that of the images.
    """
    change = partial(jitter_and_blur, strength=strength, hue=hue, blur=blur, probability=1.0)
    return changed_view(images, generators, change)
