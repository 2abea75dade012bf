"""Rare class sampling (DAFormer, RCS). Numpy only.

Hoyer et al., *DAFormer*, CVPR 2022, section 3.3. With f_c the share of class c among all labelled pixels of the
training images, a class is drawn with

    P(c) = e^{(1 − f_c) / T} / Σ_{c'} e^{(1 − f_{c'}) / T},   T = 0.01,

and then, uniformly, one of the images that show enough of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def class_frequencies(class_pixels: ArrayLike) -> NDArray[np.float64]:
    """f_c, (C,): the share of each class among all labelled pixels; all 0 where nothing is labelled.

    Args:
        class_pixels: (N, C), the pixels of each class in each image.
    """
    totals = np.asarray(class_pixels, dtype=np.float64).sum(axis=0)
    return np.asarray(totals / max(totals.sum(), 1.0))


def class_probabilities(
    frequencies: ArrayLike, temperature: float = 0.01, drawable: ArrayLike | None = None
) -> NDArray[np.float64]:
    """P(c), (C,): the softmax of (1 − f_c) / T over the classes that are ``drawable``, 0 for the others.

    Args:
        frequencies: f_c, (C,). temperature: T > 0. drawable: (C,) bool; without it, the classes that occur.

    Raises:
        ValueError: T is not positive, or no class can be drawn.
    """
    f = np.asarray(frequencies, dtype=np.float64)
    among = f > 0 if drawable is None else np.asarray(drawable, dtype=np.bool_)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if not among.any():
        raise ValueError("no class can be drawn")
    scaled = np.where(among, (1.0 - f) / temperature, -np.inf)
    p = np.exp(scaled - scaled.max())
    return np.asarray(p / p.sum())


class RareClassSampler:
    """Draws a class by P(c), then one of the images that show enough of it.

    ``probabilities`` (C,) are P(c), 0 for a class of which no image shows enough; ``images`` holds, for each class, the
    places of the images that show enough of it, ascending.

    Args:
        class_pixels: (N, C), the pixels of each class in each image. temperature: T > 0.
        min_pixels: from 0 on; an image shows enough of a class if it has more pixels of it than this.

    Raises:
        ValueError: a value outside these ranges, or no image shows enough of any class.
    """

    def __init__(self, class_pixels: ArrayLike, *, temperature: float = 0.01, min_pixels: int = 3000) -> None:
        pixels = np.asarray(class_pixels, dtype=np.int64)
        if pixels.ndim != 2:
            raise ValueError(f"class_pixels must be (images, classes), not {pixels.shape}")
        if min_pixels < 0:
            raise ValueError(f"min_pixels must not be negative, but is {min_pixels}")
        enough = pixels > min_pixels
        self.images = [np.flatnonzero(column) for column in enough.T]
        self.probabilities = class_probabilities(class_frequencies(pixels), temperature, enough.any(axis=0))

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A class and the place of an image that shows it."""
        drawn = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return drawn, int(rng.choice(self.images[drawn]))

    def image_probabilities(self, count: int) -> NDArray[np.float64]:
        """The probability of each of ``count`` images in a draw, (count,): Σ_c P(c) / (images that show c)."""
        p = np.zeros(count, dtype=np.float64)
        for probability, images in zip(self.probabilities, self.images, strict=True):
            p[images] += probability / max(len(images), 1)
        return p
