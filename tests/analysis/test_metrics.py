"""Metrics against slow loops over pixels, against mmseg, and in cases that are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flexseg.analysis.stats import metrics


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


def label_maps(seed: int, classes: int = 6, shape: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """A truth (H, W) with void 255 and a prediction; the truth lacks class 2, the prediction class 3."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, classes, (6, 8)), np.ones((4, 4), int))[: shape[0], : shape[1]]
    truth[truth == 2] = 0
    predicted = np.where(
        rng.random(truth.shape) < 0.6, np.roll(truth, 1, axis=1), rng.integers(0, classes, truth.shape)
    )
    predicted[predicted == 3] = 1
    truth[rng.random(truth.shape) < 0.05] = 255
    return truth, predicted


def counts_of(truth: np.ndarray, predicted: np.ndarray, classes: int = 6) -> np.ndarray:
    """(C, C) confusion, pixel by pixel."""
    confusion = np.zeros((classes, classes), np.int64)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != 255:
            confusion[t, p] += 1
    return confusion


@pytest.mark.parametrize("seed", range(5))
def test_against_sets_of_pixels(seed: int) -> None:
    """mIoU, fwIoU and accuracies as the papers define them, on sets of pixels."""
    truth, predicted = label_maps(seed)
    valid = {place for place in np.ndindex(truth.shape) if truth[place] != 255}
    ious, weights, recalls = [], [], []
    for c in range(6):
        real, claimed = {p for p in valid if truth[p] == c}, {p for p in valid if predicted[p] == c}
        if real:
            ious.append(len(real & claimed) / len(real | claimed))
            weights.append(len(real) / len(valid))
            recalls.append(len(real & claimed) / len(real))
    assert len(ious) == 5  # class 2 has no truth
    right = sum(truth[p] == predicted[p] for p in valid) / len(valid)
    counts = metrics.class_counts(counts_of(truth, predicted))
    assert metrics.mean_iou_of_counts(counts) == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics.frequency_weighted_iou(counts) == pytest.approx(np.dot(weights, ious), abs=1e-12)
    assert metrics.worst_class_iou(counts) == pytest.approx(min(ious), abs=1e-12) == 0.0  # class 3: never predicted
    assert metrics.mean_class_accuracy(counts) == pytest.approx(np.mean(recalls), abs=1e-12)
    assert metrics.pixel_accuracy(counts) == pytest.approx(right, abs=1e-12)
    assert metrics.pixel_error(counts) == pytest.approx(1 - right, abs=1e-12)


def test_against_mmseg_on_classes_that_occur() -> None:
    """mmseg's own counting and reduction; it has no rule for absent classes, so all occur here."""
    torch = pytest.importorskip("torch")
    from mmseg.evaluation import IoUMetric

    areas: list[list] = [[], [], [], []]
    confusion = np.zeros((6, 6), np.int64)
    for seed in range(3):
        truth, predicted = label_maps(seed)
        truth[0, :6] = predicted[1, :6] = np.arange(6)
        confusion += counts_of(truth, predicted)
        found = IoUMetric.intersect_and_union(torch.tensor(predicted), torch.tensor(truth), 6, 255)
        for area, each in zip(areas, found, strict=True):
            area.append(each)
    theirs = IoUMetric.total_area_to_metrics(*[sum(area) for area in areas], ["mIoU", "mFscore"], None, 1)
    counts = metrics.class_counts(confusion)
    np.testing.assert_allclose(metrics.iou_of_counts(counts), theirs["IoU"], atol=1e-6)
    assert metrics.pixel_accuracy(counts) == pytest.approx(float(theirs["aAcc"]), abs=1e-6)
    assert metrics.mean_class_accuracy(counts) == pytest.approx(float(np.mean(theirs["Acc"])), abs=1e-6)


def near(mask: np.ndarray, width: int) -> np.ndarray:
    """Whether any pixel of ``mask`` lies at most ``width`` away in rows and columns, by looking at each."""
    found = np.zeros(mask.shape, bool)
    for y, x in np.ndindex(mask.shape):
        found[y, x] = mask[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1].any()
    return found


@pytest.mark.parametrize("width", [1, 2, 4])
def test_boundary_metrics_against_sets_of_pixels(width: int) -> None:
    """Cheng et al.'s and Csurka et al.'s definitions on masks, distances by brute force."""
    truth, predicted = label_maps(0)
    truth[truth == 255] = 0
    ious, f1s, bands, contours = [], [], np.zeros((3, 6)), np.zeros((4, 6))
    for c in range(6):
        inside = [(labels == c) & near(labels != c, width) for labels in (truth, predicted)]
        edge = [(labels == c) & near(labels != c, 1) for labels in (truth, predicted)]
        bands[:, c] = (inside[0] & inside[1]).sum(), inside[0].sum(), inside[1].sum()
        matched = (edge[1] & near(edge[0], width)).sum(), (edge[0] & near(edge[1], width)).sum()
        contours[:, c] = edge[1].sum(), matched[0], edge[0].sum(), matched[1]
        if c == 2:
            assert not edge[0].any()
            assert edge[1].any()
            continue
        ious.append((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())
        precision, recall = matched[0] / edge[1].sum() if edge[1].any() else 0.0, matched[1] / edge[0].sum()
        f1s.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    assert f1s[2] == 0.0  # class 3 (the third that is kept) has a contour and is never predicted
    assert metrics.mean_iou_of_counts(bands) == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics.mean_boundary_f1(contours) == pytest.approx(np.mean(f1s), abs=1e-12)
    assert np.isnan(metrics.boundary_f1(contours)[2])


def test_boundary_f1_by_hand() -> None:
    # 10 predicted, 6 matched; 8 true, 4 matched: P 0.6, R 0.5. Second: never met. Third: no contour in the truth.
    contours = np.array([[10, 5, 7], [6, 0, 0], [8, 5, 0], [4, 0, 0]])
    np.testing.assert_allclose(metrics.boundary_f1(contours), [0.6 / 1.1, 0, np.nan])
    assert metrics.mean_boundary_f1(contours) == pytest.approx(0.3 / 1.1)


def test_ring_errors_by_hand() -> None:
    np.testing.assert_allclose(metrics.ring_error(np.array([[10, 4, 0], [7, 4, 0]])), [0.3, 0.0, np.nan])


def test_worst_condition_is_the_lowest_miou_of_one() -> None:
    rng = np.random.default_rng(4)
    confusions = rng.integers(1, 50, (3, 6, 6))
    counts = metrics.class_counts(confusions)
    assert metrics.worst_condition_iou(counts) == pytest.approx(min(naive_miou(each) for each in confusions))
    # a condition without an image (in a resampling) is no condition
    assert metrics.worst_condition_iou(np.concatenate([counts, 0 * counts])) == metrics.worst_condition_iou(counts)


def test_leading_axes_are_carried_along() -> None:
    """A stack of resamplings is scored as each by itself: the intervals rest on it."""
    rng = np.random.default_rng(5)
    cases = [
        (metrics.mean_iou_of_counts, (3, 6)), (metrics.frequency_weighted_iou, (3, 6)), (metrics.pixel_error, (3, 6)),
        (metrics.mean_class_accuracy, (3, 6)), (metrics.worst_class_iou, (3, 6)),
        (metrics.worst_condition_iou, (2, 3, 6)), (metrics.mean_boundary_f1, (4, 6)), (metrics.ring_error, (2, 4)),
        (metrics.expected_calibration_error, (3, 5)), (metrics.negative_log_likelihood, (2,)),
    ]  # fmt: skip
    for function, shape in cases:
        stack = np.sort(rng.integers(0, 9, (7, *shape)).astype(float), axis=-2)  # no more hits than pixels
        np.testing.assert_array_equal(function(stack), [function(each) for each in stack], str(function))


def test_by_hand() -> None:
    # truth 4 + 2, one pixel of class 0 called 1: IoU 3/4 and 2/3
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.iou_of_counts(metrics.class_counts(confusion))[:2], [3 / 4, 2 / 3])
    assert np.isnan(metrics.iou_of_counts(metrics.class_counts(confusion))[2])
    assert metrics.pixel_error(metrics.class_counts(confusion)) == pytest.approx(1 / 6)
    assert metrics.frequency_weighted_iou(metrics.class_counts(confusion)) == pytest.approx(
        4 / 6 * 3 / 4 + 2 / 6 * 2 / 3
    )


def test_class_without_truth_is_left_out_but_its_pixels_count() -> None:
    clean = np.array([[4, 0], [0, 0]])
    fooled = np.array([[3, 1], [0, 0]])
    assert metrics.mean_iou(clean) == 1.0
    assert metrics.mean_iou(fooled) == 0.75


def test_nothing_is_nan_and_not_zero() -> None:
    assert np.isnan(metrics.mean_iou(np.zeros((19, 19))))
    for function in (
        metrics.pixel_error, metrics.frequency_weighted_iou, metrics.mean_class_accuracy, metrics.worst_class_iou,
        metrics.expected_calibration_error,
    ):  # fmt: skip
        assert np.isnan(function(np.zeros((3, 4)))), function
    assert np.isnan(metrics.mean_boundary_f1(np.zeros((4, 4))))
    assert np.isnan(metrics.worst_condition_iou(np.zeros((2, 3, 4))))
    assert np.isnan(metrics.negative_log_likelihood(np.zeros(2)))


def test_calibration_error_against_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(6)
    confidence = rng.uniform(0, 1, 500)
    right = rng.random(500) < confidence**2
    calibration, error = np.zeros((3, 15)), 0.0
    for place in range(15):
        chosen = [i for i in range(500) if place / 15 <= confidence[i] < (place + 1) / 15]
        calibration[:, place] = len(chosen), right[chosen].sum(), confidence[chosen].sum()
        if chosen:
            error += len(chosen) / 500 * abs(right[chosen].mean() - confidence[chosen].mean())
    assert metrics.expected_calibration_error(calibration) == pytest.approx(error, abs=1e-12)
    assert error > 0.05
