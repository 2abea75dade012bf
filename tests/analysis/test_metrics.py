"""Metrics against naive loops and cases that are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flexseg.analysis import metrics


def naive_miou(confusion: np.ndarray) -> float:
    """mIoU written as the definition says, pixel count by pixel count."""
    ious = []
    for c in range(len(confusion)):
        truth = sum(int(confusion[c][p]) for p in range(len(confusion)))
        predicted = sum(int(confusion[t][c]) for t in range(len(confusion)))
        if truth == 0:
            continue
        hit = int(confusion[c][c])
        ious.append(hit / (truth + predicted - hit))
    return sum(ious) / len(ious) if ious else math.nan


def test_miou_is_the_naive_loop() -> None:
    rng = np.random.default_rng(0)
    for trial in range(50):
        confusion = rng.integers(0, 50, (19, 19))
        confusion[rng.random(19) < 0.3] = 0
        assert metrics.mean_iou(confusion) == pytest.approx(naive_miou(confusion), abs=1e-12), trial


def test_by_hand() -> None:
    # truth 4 + 2, one pixel of class 0 called 1: IoU 3/4 and 2/3
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.class_iou(confusion)[:2], [3 / 4, 2 / 3])
    assert np.isnan(metrics.class_iou(confusion)[2])
    assert metrics.pixel_error(confusion) == pytest.approx(1 / 6)


def test_class_without_truth_is_left_out_but_its_pixels_count() -> None:
    clean = np.array([[4, 0], [0, 0]])
    fooled = np.array([[3, 1], [0, 0]])
    assert metrics.mean_iou(clean) == 1.0
    assert metrics.mean_iou(fooled) == 0.75


def test_nothing_is_nan_and_not_zero() -> None:
    assert np.isnan(metrics.mean_iou(np.zeros((19, 19))))
    assert math.isnan(metrics.pixel_error(np.zeros((2, 2))))


def test_calibration_error_by_hand() -> None:
    # 10 pixels of confidence 0.9 of which 5 are right, 10 of confidence 0.6 all right: (|5−9| + |10−6|) / 20
    assert metrics.expected_calibration_error(np.array([[10, 10], [5, 10], [9, 6]])) == pytest.approx(0.4)
