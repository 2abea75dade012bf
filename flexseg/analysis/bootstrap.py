"""The resampling engine: test images drawn with replacement, the same draws for every row and seed.

A replicate of a target is one multinomial weight vector over its N images. All rows and seeds share it, because their
test images are the same: what is easy or hard about an image then cancels in a difference (pairing). The mIoU of a
replicate needs only the weighted sums of true positives, truth and predicted pixels: one matrix product a run.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis.metrics import iou_of_counts, nanmean

REPLICATES = 2000
_KEY = "flexseg bootstrap 1"
_EXACT_IN_FLOAT32 = 2**24


def image_weights(target: str, images: int, replicates: int = REPLICATES) -> NDArray[np.float32]:
    """How often each image is drawn in each replicate: multinomial(N; 1/N, …), fixed for a (target, N, B).

    Returns:
        (B, N), every row sums to N.
    """
    key = hashlib.sha256(f"{_KEY}/{target}/{images}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)))
    draws = generator.integers(0, images, size=(replicates, images))
    flat = draws + images * np.arange(replicates)[:, None]
    return np.bincount(flat.ravel(), minlength=replicates * images).reshape(replicates, images).astype(np.float32)


def miou_replicates(weights: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    """mIoU of each replicate, with the rule of the full test set: classes without a truth pixel *in it* are left out.

    The product runs in float32 when it is exact there: all terms are integers, and every partial sum is at most
    N · (largest count of an image), as a replicate draws N images. Below 2²⁴ float32 holds every such integer, so
    the result equals that of integer arithmetic. Otherwise float64 is used, exact to 2⁵³.

    Args:
        weights: (B, N) draws of each image.
        counts: (N, 3, C) true positives, truth and predicted pixels of each image and class.
    Returns:
        (B,)
    """
    images = len(counts)
    largest = int(counts.max(initial=0)) * images
    kind = np.float32 if largest < _EXACT_IN_FLOAT32 else np.float64
    sums = weights.astype(kind, copy=False) @ counts.reshape(images, -1).astype(kind)
    return nanmean(iou_of_counts(sums.astype(np.float64).reshape(len(weights), 3, -1)))
