"""How far a generated image's geometry is from its label."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flexseg.world.frame import render


class MisalignmentRate(NamedTuple):
    """Shares (0–1) of the pixels whose painted class is not the label's."""

    boundary: float
    """Among the pixels at most two from a border between labels."""
    interior: float
    """Among all others."""


def boundary_band(label: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels at most two (chessboard distance) from one of another label."""
    kernel = np.ones((5, 5), np.uint8)
    return cv2.dilate(label, kernel) != cv2.erode(label, kernel)


def misalignment_rate(
    index: int, *, split: str = "train", height: int = 96, width: int = 192, misalignment: float = 1.0
) -> MisalignmentRate:
    """Measure one generated image, comparing the geometry painted with the label."""
    frame = render("generated", split, index, height=height, width=width, misalignment=misalignment)
    band = boundary_band(frame.label)
    wrong = frame.painted != frame.label
    return MisalignmentRate(float(wrong[band].mean()), float(wrong[~band].mean()))
