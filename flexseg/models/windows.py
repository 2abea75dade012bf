"""Windows that slide over an image, as mmseg lays them."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[int, int, int, int]
"""(top, left, height, width)."""


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along a side begin: every ``stride``, the last one shifted to end at the border."""
    last = max(length - window, 0)
    return [min(start, last) for start in range(0, last + stride, stride)]


def windows(size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> list[Box]:
    """The windows that cover an image, row by row.

    Args:
        size: (H, W). window: (h, w); where the image is smaller, the window is as large as the image.
        stride: (vertical, horizontal), not larger than the window.
    """
    tops, lefts = (window_starts(*of) for of in zip(size, window, stride, strict=True))
    height, width = (min(of) for of in zip(size, window, strict=True))
    return [(top, left, height, width) for top in tops for left in lefts]
