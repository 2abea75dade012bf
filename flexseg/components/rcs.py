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

    def joint(self, count: int) -> NDArray[np.float64]:
        """The probability that a draw gives each of ``count`` images for each class, (count, C)."""
        p = np.zeros((count, len(self.probabilities)), dtype=np.float64)
        for place, (probability, images) in enumerate(zip(self.probabilities, self.images, strict=True)):
            p[images, place] = probability / max(len(images), 1)
        return p

    def subset(self, count: int, images: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw from ``count`` images until ``images`` different ones are there: their places, and the class of each.

        As DGInStyle's code does (Jia et al., ECCV 2024), which passes over an image that was drawn before. Such a
        sample without replacement is that of the smallest of e_i / P(i), with e_i ~ Exp(1) (Efraimidis and Spirakis,
        *Weighted random sampling with a reservoir*, 2006).

        Raises:
            ValueError: fewer images than asked for show enough of any class.
        """
        joint = self.joint(count)
        weights = joint.sum(axis=1)
        if (able := np.count_nonzero(weights)) < images:
            raise ValueError(f"only {able} of {count} images show enough of a class, not {images}")
        with np.errstate(divide="ignore"):
            chosen = np.argsort(rng.exponential(size=count) / weights, kind="stable")[:images]
        cumulative = joint[chosen].cumsum(axis=1)
        classes = (cumulative <= rng.random(images)[:, None] * cumulative[:, -1:]).sum(axis=1)
        return chosen, np.minimum(classes, joint.shape[1] - 1)
