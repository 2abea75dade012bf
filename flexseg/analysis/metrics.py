"""Segmentation metrics from confusion counts. ``C`` classes, truth in rows, prediction in columns; fractions in 0–1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_iou(confusion: NDArray[Any]) -> Floats:
    """IoU of each class: IoU_c = TP_c / (TP_c + FP_c + FN_c); NaN for a class without a truth pixel.

    A class that never occurs in the truth of a test set can only be a false positive; it is left out of the mean for
    every row alike. Its false positives still count, as another class's false negatives.
    Source: Everingham et al., IJCV 2015 (VOC); Cordts et al., CVPR 2016 (data-set level counts).

    Args:
        confusion: (..., C, C) pixel counts, truth × prediction.
    Returns:
        (..., C)
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return iou_of_counts(np.stack([hits, confusion.sum(-1), confusion.sum(-2)], axis=-2))


def iou_of_counts(counts: NDArray[Any]) -> Floats:
    """IoU of each class from (..., 3, C) true positives, truth and predicted pixels; NaN without truth. → (..., C)"""
    hits, truth, predicted = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    union = truth + predicted - hits
    iou = np.full(np.shape(hits), np.nan)
    np.divide(hits, union, out=iou, where=truth > 0)
    return iou


def nanmean(values: NDArray[Any]) -> Floats:
    """Mean over the last axis of what is not NaN; NaN if nothing is. (..., C) → (...)"""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(-1)
    result = np.full(np.shape(total), np.nan)
    np.divide(total, present.sum(-1), out=result, where=present.any(-1))
    return result


def mean_iou(confusion: NDArray[Any]) -> Floats:
    """mIoU over the classes that occur in the truth. (..., C, C) → (...)"""
    return nanmean(class_iou(confusion))


def pixel_error(confusion: NDArray[Any]) -> float:
    """1 − pixel accuracy of a (C, C) confusion; NaN without pixels."""
    total = float(np.sum(confusion))
    return 1.0 - float(np.trace(confusion)) / total if total else float("nan")


def expected_calibration_error(calibration: NDArray[Any]) -> float:
    """ECE = Σ_b n_b/N · |accuracy_b − confidence_b| (Guo et al., ICML 2017, eq. 3).

    Args:
        calibration: (3, bins) sums over pixels: count, correct, confidence.
    """
    count, correct, confidence = calibration
    total = float(count.sum())
    return float(np.abs(correct - confidence).sum() / total) if total else float("nan")
