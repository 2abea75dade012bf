"""Segmentation metrics from counts. ``C`` classes, truth in rows, prediction in columns; fractions in 0–1.

Most functions take the class counts (..., 3, C) of a set of images: true positives, truth pixels and predicted pixels
of each class, summed over the images. Leading axes are carried along, so the same function serves a test set and ten
thousand resamplings of it.

One rule for classes without truth, everywhere: a class without a truth pixel in the images that are summed (for
boundary metrics: without a truth pixel at a boundary) is NaN and left out of means and minima, for every row alike.
A pixel wrongly predicted as such a class still counts: it is missing from the class that it belongs to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_counts(confusion: NDArray[Any]) -> NDArray[Any]:
    """True positives, truth pixels and predicted pixels of each class. (..., C, C) truth × prediction → (..., 3, C)"""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([hits, np.sum(confusion, axis=-1), np.sum(confusion, axis=-2)], axis=-2)


def iou_of_counts(counts: NDArray[Any]) -> Floats:
    """IoU_c = TP_c / (truth_c + predicted_c − TP_c); NaN without truth. (..., 3, C) → (..., C)

    Source: Everingham et al., IJCV 2015 (VOC); Cordts et al., CVPR 2016 (counts summed over the data set).
    """
    hits, truth, predicted = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    return _ratio(hits, truth + predicted - hits, truth > 0)


def mean_iou(confusion: NDArray[Any]) -> Floats:
    """mIoU over the classes that occur in the truth. (..., C, C) → (...)"""
    return mean_iou_of_counts(class_counts(confusion))


def mean_iou_of_counts(counts: NDArray[Any]) -> Floats:
    """mIoU, or mean boundary IoU, over the classes that occur in the truth. (..., 3, C) → (...)"""
    return nanmean(iou_of_counts(counts))


def worst_class_iou(counts: NDArray[Any]) -> Floats:
    """The lowest IoU among the classes that occur in the truth. (..., 3, C) → (...)"""
    return nanmin(iou_of_counts(counts))


def worst_condition_iou(counts: NDArray[Any]) -> Floats:
    """The lowest mIoU among K conditions, each over the classes that occur in its images. (..., K, 3, C) → (...)"""
    return nanmin(mean_iou_of_counts(counts))


def frequency_weighted_iou(counts: NDArray[Any]) -> Floats:
    """Σ_c truth_c · IoU_c / Σ_c truth_c: a class counts by its share of pixels. (..., 3, C) → (...)

    Source: Long et al., CVPR 2015 (FCN), § 5, “frequency weighted IU”.
    """
    truth = counts[..., 1, :]
    return _ratio((truth * np.nan_to_num(iou_of_counts(counts))).sum(-1), truth.sum(-1))


def pixel_accuracy(counts: NDArray[Any]) -> Floats:
    """Σ_c TP_c / Σ_c truth_c; NaN without pixels. (..., 3, C) → (...)   Source: Long et al., CVPR 2015, § 5."""
    return _ratio(counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1))


def pixel_error(counts: NDArray[Any]) -> Floats:
    """1 − :func:`pixel_accuracy`. (..., 3, C) → (...)"""
    return 1.0 - pixel_accuracy(counts)


def mean_class_accuracy(counts: NDArray[Any]) -> Floats:
    """Mean over classes of the recall TP_c / truth_c. (..., 3, C) → (...)   Source: Long et al., CVPR 2015, § 5."""
    return nanmean(_ratio(counts[..., 0, :], counts[..., 1, :]))


def ring_error(rings: NDArray[Any]) -> Floats:
    """Share of wrong pixels in each ring around the boundaries; NaN for an empty ring.

    Args:
        rings: (..., 2, R+1) valid pixels, and those of them predicted right, by distance to another class.
    Returns:
        (..., R+1)
    """
    return 1.0 - _ratio(rings[..., 1, :], rings[..., 0, :])


def boundary_f1(contours: NDArray[Any]) -> Floats:
    """F1_c = 2·P_c·R_c / (P_c + R_c) of the contour of each class; NaN for a class without a contour in the truth.

    A class that has one, but none in the prediction, has R = 0 and an undefined P: its F1 is 0, as is that of contours
    that never meet. Source: Csurka et al., BMVC 2013, § 3; Perazzi et al., CVPR 2016, § 4.2; there the F1 of each image
    are averaged, here counts are summed over the test set, as for IoU.

    Args:
        contours: (..., 4, C) contour pixels of the prediction; those of them near a contour pixel of the truth;
            contour pixels of the truth; those of them near a contour pixel of the prediction.
    Returns:
        (..., C)
    """
    predicted, matched, truth, found = (contours[..., place, :] for place in range(4))
    precision, recall = np.nan_to_num(_ratio(matched, predicted)), np.nan_to_num(_ratio(found, truth))
    harmonic = np.nan_to_num(_ratio(2 * precision * recall, precision + recall))
    return np.where(truth > 0, harmonic, np.nan)


def mean_boundary_f1(contours: NDArray[Any]) -> Floats:
    """Mean of :func:`boundary_f1` over the classes with a contour in the truth. (..., 4, C) → (...)"""
    return nanmean(boundary_f1(contours))


def expected_calibration_error(calibration: NDArray[Any]) -> Floats:
    """ECE = Σ_b n_b/N · |accuracy_b − confidence_b| (Guo et al., ICML 2017, eq. 3). NaN without pixels.

    Args:
        calibration: (..., 3, bins) sums over pixels: count, correct, confidence.
    Returns:
        (...)
    """
    count, correct, confidence = calibration[..., 0, :], calibration[..., 1, :], calibration[..., 2, :]
    return _ratio(np.abs(correct - confidence).sum(-1), count.sum(-1))


def negative_log_likelihood(sums: NDArray[Any]) -> Floats:
    """Mean −log p of the true class in nats a pixel. (..., 2) sum of −log p, and pixels → (...)"""
    return _ratio(sums[..., 0], sums[..., 1])


def nanmean(values: NDArray[Any]) -> Floats:
    """Mean over the last axis of what is not NaN; NaN if nothing is. (..., C) → (...)"""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1))


def nanmin(values: NDArray[Any]) -> Floats:
    """Minimum over the last axis of what is not NaN; NaN if nothing is. (..., C) → (...)"""
    lowest = np.where(np.isnan(values), np.inf, values).min(-1)
    return np.where(np.isinf(lowest), np.nan, lowest)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Floats:
    """``numerator / denominator``, NaN where the latter is 0 (or where ``where`` does not hold)."""
    result = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0 if where is None else where)
    return result
