"""Geometric augmentation and normalisation, in NumPy and OpenCV: the same for every row of a benchmark."""

from __future__ import annotations

import cv2
import numpy as np

from flexseg.classes import IGNORE

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
"""ImageNet's mean of R, G, B on the 0–255 scale, as every trunk of the field expects."""
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
"""ImageNet's standard deviation of R, G, B on the 0–255 scale."""


def random_crop(
    image: np.ndarray,
    label: np.ndarray,
    crop: tuple[int, int],
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale by a random factor, cut a random window of ``crop`` (height, width) pixels, mirror half of the time.

    One affine warp does all three. The factor is log-uniform in ``scale``; where the scaled image is smaller than the
    crop, the rest is black in the image and void in the label. Labels are sampled by nearest neighbour.

    Args:
        image: (H, W, 3) uint8. label: (H, W) uint8.

    Returns:
        (crop_h, crop_w, 3) uint8 and (crop_h, crop_w) uint8.
    """
    height, width = label.shape
    factor = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))
    slack_y, slack_x = height * factor - crop[0], width * factor - crop[1]
    top, left = rng.uniform(min(slack_y, 0), max(slack_y, 0)), rng.uniform(min(slack_x, 0), max(slack_x, 0))
    mirrored = flip and bool(rng.integers(2))
    if factor == 1 and (height, width) == tuple(crop):  # the warp would only copy; callers may write into the result
        step = -1 if mirrored else 1
        return image[:, ::step].copy(), label[:, ::step].copy()
    # Pixel centres lie at half-integers: x' = (x + ½)·s − left − ½, and mirroring maps x' to w − 1 − x'.
    matrix = np.array([[factor, 0, factor / 2 - left - 0.5], [0, factor, factor / 2 - top - 0.5]])
    if mirrored:
        matrix[0] = -matrix[0]
        matrix[0, 2] += crop[1] - 1
    size = (crop[1], crop[0])
    warped = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    warped_label = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE)
    return warped, warped_label


def normalise(images: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 with ImageNet's mean and deviation.

    The result is a view with the channels last in memory, as the trunks want it.
    """
    width = images.shape[2]
    # Whole lines at a time: NumPy is slow where the innermost axis is three channels long.
    lines = images.reshape(*images.shape[:2], -1).astype(np.float32)
    lines -= np.tile(MEAN, width)
    lines /= np.tile(STD, width)
    return lines.reshape(images.shape).transpose(0, 3, 1, 2)
