"""Geometric augmentation and normalisation, the same for every row of a benchmark; and changed views of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from flexseg.classes import IGNORE

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
"""ImageNet's mean of R, G, B on the 0–255 scale, as every trunk of the field expects."""
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
"""ImageNet's standard deviation of R, G, B on the 0–255 scale."""


@dataclass(frozen=True)
class Window:
    """A crop of ``crop`` (height, width) pixels out of an image scaled by ``factor``.

    ``top`` and ``left`` are those of the crop in the scaled image, in its pixels, and negative where the crop reaches
    beyond it; ``mirrored`` crops are turned left to right.
    """

    crop: tuple[int, int]
    factor: float
    top: float
    left: float
    mirrored: bool

    def cut_image(self, image: np.ndarray) -> np.ndarray:
        """The crop of (H, W, 3) uint8, sampled bilinearly, black beyond the image."""
        return self._cut(image, cv2.INTER_LINEAR, (0, 0, 0))

    def cut_label(self, label: np.ndarray) -> np.ndarray:
        """The crop of (H, W) uint8, sampled by nearest neighbour, void beyond the image."""
        return self._cut(label, cv2.INTER_NEAREST, IGNORE)

    def _cut(self, pixels: np.ndarray, interpolation: int, beyond: int | tuple[int, int, int]) -> np.ndarray:
        """Always a new array: callers may write into it."""
        if self.factor == 1:
            return self._cut_whole_pixels(pixels, beyond)
        # Pixel centres are at half-integers: x' = (x + ½)·s − left − ½, and mirroring maps x' to w − 1 − x'.
        factor = self.factor
        matrix = np.array([[factor, 0, factor / 2 - self.left - 0.5], [0, factor, factor / 2 - self.top - 0.5]])
        if self.mirrored:
            matrix[0] = -matrix[0]
            matrix[0, 2] += self.crop[1] - 1
        size = (self.crop[1], self.crop[0])
        return cv2.warpAffine(pixels, matrix, size, flags=interpolation, borderValue=beyond)  # type: ignore[arg-type]

    def _cut_whole_pixels(self, pixels: np.ndarray, beyond: int | tuple[int, int, int]) -> np.ndarray:
        (height, width), top, left = self.crop, int(self.top), int(self.left)
        inside = pixels[max(top, 0) : top + height, max(left, 0) : left + width]
        if self.mirrored:
            inside = inside[:, ::-1]
        if inside.shape[:2] == self.crop:
            return inside.copy()
        result = np.full((*self.crop, *pixels.shape[2:]), beyond, dtype=pixels.dtype)
        row = max(-top, 0)
        column = max(width - pixels.shape[1] + left, 0) if self.mirrored else max(-left, 0)
        result[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
        return result


def random_window(
    shape: tuple[int, ...],
    crop: tuple[int, int],
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
    focus: tuple[int, int] | None = None,
) -> Window:
    """Draw a crop of an image of ``shape`` (H, W): random scale and place, mirrored half of the time.

    The factor is log-uniform in ``scale``. At factor 1 the crop is on whole pixels: nothing is interpolated.

    Args:
        focus: (row, column) of a pixel that the crop must contain.
    """
    factor = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))
    row, column = focus or (None, None)
    top = _offset(shape[0], crop[0], factor, rng, row)
    left = _offset(shape[1], crop[1], factor, rng, column)
    return Window((crop[0], crop[1]), factor, top, left, flip and bool(rng.integers(2)))


def _offset(side: int, wanted: int, factor: float, rng: np.random.Generator, focus: int | None) -> float:
    """Draw where a crop of ``wanted`` pixels begins on a side that is scaled by ``factor``; draws one number."""
    slack = side * factor - wanted
    low, high = min(slack, 0), max(slack, 0)
    if factor == 1:
        if focus is not None:
            low, high = max(low, focus - wanted + 1), min(high, focus)
        return min(float(np.floor(rng.uniform(low, high + 1))), high)
    if focus is not None:
        centre = (focus + 0.5) * factor  # half a pixel from the crop's edge, so that a sample falls on it
        low, high = min(max(centre - wanted + 0.5, low), high), max(min(centre - 0.5, high), low)
    return float(rng.uniform(low, high))


def normalise(images: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 with ImageNet's mean and deviation.

    The result is a view with the channels last in memory, as the trunks expect.
    """
    width = images.shape[2]
    # Whole lines at a time: NumPy is slow where the innermost axis is three channels long.
    lines = images.reshape(*images.shape[:2], -1).astype(np.float32)
    lines -= np.tile(MEAN, width)
    lines /= np.tile(STD, width)
    return lines.reshape(images.shape).transpose(0, 3, 1, 2)


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Image (H, W, 3) uint8 and a generator → image of the same kind."""


def changed_view(images: Tensor, generators: Sequence[np.random.Generator], change: Change) -> Tensor:
    """Make a second view of a batch: ``change`` of each image, with its own generator.

    Args:
        images: (B, 3, H, W) normalised float, on any device. generators: B of them.

    Returns:
        (B, 3, H, W) of the dtype and device of ``images``, without a graph.

    Raises:
        ValueError: the number of generators is not that of the images.
    """
    levels = images.detach().float().cpu().permute(0, 2, 3, 1) * torch.from_numpy(STD) + torch.from_numpy(MEAN)
    rounded = levels.round_().clamp_(0, 255).byte().numpy()
    changed = [change(image, rng) for image, rng in zip(rounded, generators, strict=True)]
    return torch.from_numpy(normalise(np.stack(changed))).to(images)
