"""Other colours and less sharpness, the same layout: a change of one image, or of a batch in training.

Methods of invariance compare a batch with a second view of it. :func:`photometric_view` gives that view of images that
are already normalised, each drawn by a generator of its own, so that it does not depend on the batch around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from torch import Tensor

from flexseg.data.augment import changed_view

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""The shares of R, G and B in grey (ITU-R BT.601)."""


def photometric_change(image: np.ndarray, rng: np.random.Generator, strength: float, blur: float) -> np.ndarray:
    """Change the colours and the sharpness of (H, W, 3) uint8 RGB: a jitter, then a Gaussian blur.

    Brightness, contrast and saturation change by factors in 1 ± ``strength``, hue by up to ``strength``/5 of a turn;
    the blur's σ is up to ``blur`` pixels. Zeros change nothing.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    turn, sigma = rng.uniform(-strength / 5, strength / 5), rng.uniform(0, blur)
    levels = image.astype(np.float32) * brightness
    grey = levels @ LUMA
    levels = grey.mean() + contrast * (grey[..., None] - grey.mean() + saturation * (levels - grey[..., None]))
    hsv = cv2.cvtColor(np.clip(levels, 0, 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % 360
    levels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if sigma > 0:
        levels = cv2.GaussianBlur(levels, (0, 0), sigma)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def photometric_view(images: Tensor, generators: Sequence[np.random.Generator], strength: float, blur: float) -> Tensor:
    """A second view of a batch, :func:`photometric_change` with one generator an image.

    Args:
        images: (B, 3, H, W) normalised float, on any device. generators: B of them, e.g.
            ``flexseg.data.draws.generator(seed, Purpose.TRANSFORM, iteration, slot)`` for each slot.

    Returns:
        (B, 3, H, W) of the dtype and device of ``images``, without a graph.

    Raises:
        ValueError: the number of generators is not that of the images.
    """
    return changed_view(images, generators, lambda image, rng: photometric_change(image, rng, strength, blur))
