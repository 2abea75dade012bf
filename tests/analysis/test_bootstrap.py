"""The resampling engine: exact, paired, the same every time, and without a loop over replicates."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flexseg.analysis.stats import bootstrap
from flexseg.analysis.stats.metrics import class_counts, mean_iou, mean_iou_of_counts


def random_confusions(images: int, seed: int = 0, largest: int = 300) -> np.ndarray:
    """(N, 19, 19) counts; class 7 occurs in one image only."""
    confusions = np.random.default_rng(seed).integers(0, largest, (images, 19, 19))
    confusions[1:, 7] = 0
    return confusions


def mious(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """mIoU of each replicate, (B,)."""
    return mean_iou_of_counts(bootstrap.resample(weights, counts))


@pytest.mark.parametrize(("largest", "exact"), [(300, True), (200_000, False)])
def test_replicates_equal_a_slow_resampling(largest: int, exact: bool) -> None:
    """Also where the counts are too large for float32."""
    confusions = random_confusions(12, largest=largest)
    counts = class_counts(confusions)
    assert (counts.max() * 12 < 2**24) == exact
    weights = bootstrap.image_weights("night", 12, 40)
    slow = [mean_iou(sum(int(w) * confusion for w, confusion in zip(row, confusions, strict=True))) for row in weights]
    np.testing.assert_allclose(mious(weights, counts), slow, rtol=0, atol=1e-12)


def test_weights_are_multinomial_and_fixed() -> None:
    weights = bootstrap.image_weights("night", 50, 4000)
    assert (weights.sum(1) == 50).all()
    assert abs(weights.var() - 0.98) < 0.02  # N · 1/N · (1 − 1/N)
    np.testing.assert_array_equal(weights, bootstrap.image_weights("night", 50, 4000))
    assert (weights != bootstrap.image_weights("places", 50, 4000)).any()


def test_fewer_replicates_are_the_first_of_more() -> None:
    more = bootstrap.image_weights("night", 30, 2 * bootstrap._BLOCK + 10)
    np.testing.assert_array_equal(bootstrap.image_weights("night", 30, 700), more[:700])


def test_resampled_counts_of_any_shape_and_kind() -> None:
    rng = np.random.default_rng(1)
    weights = bootstrap.image_weights("night", 9, 20)
    for counts in (rng.integers(0, 99, (9, 2, 3, 4)), rng.integers(0, 2**30, (9, 5)), rng.uniform(0, 1, (9, 3))):
        slow = [sum(w * each for w, each in zip(row.astype(float), counts, strict=True)) for row in weights]
        np.testing.assert_allclose(bootstrap.resample(weights, counts), slow, rtol=1e-14)


def test_pairing_cancels_what_is_hard_about_an_image() -> None:
    easy = random_confusions(60)
    other = easy.copy()
    other[:, 0, 0] += 20
    weights = bootstrap.image_weights("night", 60)
    a, b = (mious(weights, class_counts(each)) for each in (easy, other))
    unpaired = mious(bootstrap.image_weights("else", 60), class_counts(other))
    assert (b - a).std() < 0.2 * (unpaired - a).std()


def calls(function: Callable[..., Any], *arguments: Any) -> int:
    """How many functions, Python's and C's, are called on the way."""
    events: list[str] = []
    sys.setprofile(lambda _, event, argument: events.append(event))
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in events)


def test_work_in_python_does_not_grow_with_the_replicates() -> None:
    """Ten thousand of them for three hundred runs are a matter of seconds only as long as each step does them all."""
    counts = class_counts(random_confusions(200, largest=40))
    few, many = (bootstrap.image_weights("a", 200, number) for number in (2, 400))
    assert calls(bootstrap.image_weights, "a", 200, 2) == calls(bootstrap.image_weights, "a", 200, 400)
    assert calls(mious, few, counts) == calls(mious, many, counts)
