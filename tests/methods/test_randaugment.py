"""RandAugment without geometry: each operation against its formula, and how operations are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import make_method, module_of
from scipy.stats import chisquare

MODULE = module_of("randaugment")
METHOD = MODULE.RandAugment
OPERATIONS = dict(MODULE.OPERATIONS)
OPTIONS = METHOD.Options()
GREY = np.array([299, 587, 114]) / 1000
"""The weights of R, G and B in a grey level (ITU-R 601)."""


def picture(seed: int = 0, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (14, 18, 3), dtype=np.uint8)


def apply(name: str, image: np.ndarray, strength: float, seed: int = 0, options: Any = OPTIONS) -> np.ndarray:
    before = image.copy()
    changed = OPERATIONS[name](image, strength, options, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    assert changed.dtype == np.uint8
    assert changed.shape == image.shape
    return changed


def smoothed(image: np.ndarray) -> np.ndarray:
    """Each inner pixel's mean over its 3×3 window, itself counted five times; the border stays."""
    result = image.astype(float)
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            window = image[y - 1 : y + 2, x - 1 : x + 2].astype(float)
            result[y, x] = np.rint((window.sum((0, 1)) + 4.0 * image[y, x]) / 13)
    return result


def degenerate(name: str, image: np.ndarray) -> np.ndarray:
    """What an image is blended with."""
    grey = np.rint(image @ GREY)
    return {
        "color": np.repeat(grey[..., None], 3, -1),
        "contrast": np.full(image.shape, np.rint(grey.mean())),
        "brightness": np.zeros(image.shape),
        "sharpness": smoothed(image),
    }[name]


@pytest.mark.parametrize("strength", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_blends_go_both_ways(name: str, strength: float) -> None:
    image = picture()
    base = degenerate(name, image)
    seen = set()
    for seed in range(12):
        changed = apply(name, image, strength, seed)
        errors = {
            sign: np.abs(changed - np.clip(base + (1 + sign * 0.9 * strength) * (image - base), 0, 255)).max()
            for sign in (-1, 1)
        }
        sign = min(errors, key=lambda key: errors[key])
        assert errors[sign] <= 2.5  # the grey levels are rounded before they are blended
        seen.add(sign)
    assert seen == {-1, 1}


@pytest.mark.parametrize(("strength", "bits"), [(0.0, 8), (0.25, 7), (0.5, 6), (0.9, 4), (1.0, 4)])
def test_posterize_keeps_the_highest_bits(strength: float, bits: int) -> None:
    image = picture()
    step = 2 ** (8 - bits)
    np.testing.assert_array_equal(apply("posterize", image, strength), image // step * step)


@pytest.mark.parametrize(("strength", "threshold"), [(0.0, 256), (0.5, 128), (1.0, 0)])
def test_solarize_inverts_from_a_level_on(strength: float, threshold: int) -> None:
    image = picture()
    expected = np.array([255 - v if v >= threshold else v for v in image.ravel().tolist()]).reshape(image.shape)
    np.testing.assert_array_equal(apply("solarize", image, strength), expected)


def test_autocontrast_stretches_each_channel_to_the_whole_range() -> None:
    image = picture(low=50, high=150)
    image[0, 0], image[0, 1] = (50, 50, 50), (149, 149, 149)
    expected = (image.astype(float) - 50) * 255 / 99
    assert np.abs(apply("autocontrast", image, 0.9) - expected).max() <= 1


def test_equalize_spreads_the_levels_and_keeps_their_order() -> None:
    image = np.random.default_rng(0).integers(100, 140, (64, 64, 3), dtype=np.uint8)
    changed = apply("equalize", image, 0.9)
    for channel in range(3):
        before, after = image[..., channel].ravel(), changed[..., channel].ravel()
        assert (np.diff(after[np.argsort(before, kind="stable")].astype(int)) >= 0).all()
        assert np.quantile(after, [0.25, 0.5, 0.75]) == pytest.approx([64, 128, 191], abs=12)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_blur_is_a_gaussian_of_that_width(strength: float) -> None:
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    sigma = 2.0 * strength
    changed = apply("blur", image, strength, options=METHOD.Options(blur=2.0))
    d = np.arange(31) - 15
    line = np.exp(-(d**2) / (2 * sigma**2))
    expected = 255 * np.outer(line, line) / line.sum() ** 2
    assert np.abs(changed - expected[..., None]).max() <= 1.5
    assert changed[15, 15, 0] > 5


def test_noise_has_that_deviation_and_is_independent_in_every_value() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    noise = apply("noise", image, 0.8) - 128.0
    assert noise.mean() == pytest.approx(0, abs=0.3)
    assert noise.std() == pytest.approx(0.8 * 25, rel=0.02)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize"}))
def test_no_strength_is_no_change(name: str) -> None:
    image = picture()
    np.testing.assert_array_equal(apply(name, image, 0.0), image)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_operations_are_drawn_evenly_and_with_the_magnitude_of_ten(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    strengths: set[float] = set()

    def recorder(name: str) -> Any:
        def record(image: np.ndarray, strength: float, options: Any, rng: np.random.Generator) -> np.ndarray:
            calls.append(name)
            strengths.add(strength)
            return image + 1

        return record

    monkeypatch.setattr(MODULE, "OPERATIONS", {name: recorder(name) for name in OPERATIONS})
    method = make_method("randaugment", {"operations": count, "magnitude": 7})
    image, label, rounds = np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.uint8), 2200
    for seed in range(rounds):
        changed, same = method.transform(image, label, np.random.default_rng(seed))
        assert (changed == count).all(), "each operation works on what the one before made"
        assert same is label
    assert strengths == {0.7}
    assert len(calls) == count * rounds
    assert chisquare([calls.count(name) for name in OPERATIONS]).pvalue > 1e-4
    if count == 2:
        twice = np.mean([a == b for a, b in zip(calls[0::2], calls[1::2], strict=True)])
        assert twice == pytest.approx(1 / len(OPERATIONS), abs=0.03)


def test_defaults_are_the_published_ones_and_no_operation_moves_anything() -> None:
    assert (OPTIONS.operations, OPTIONS.magnitude) == (2, 9)
    image = np.zeros((24, 24, 3), np.uint8)
    image[10:14, 3:9] = 200
    for name in set(OPERATIONS) - {"noise"}:
        changed = apply(name, image, 0.9).astype(float).sum(-1)
        weight = np.abs(changed - changed[0, 0])
        if weight.sum():
            centre = [(weight * grid).sum() / weight.sum() for grid in np.indices(weight.shape)]
            assert centre == pytest.approx([11.5, 5.5], abs=0.05), name


def test_draws_are_the_generators_own() -> None:
    image, label, method = picture(), np.zeros((14, 18), np.uint8), make_method("randaugment", {"operations": 4})
    one, two = (method.transform(image, label, np.random.default_rng(3))[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    others = [method.transform(image, label, np.random.default_rng(seed))[0] for seed in range(4, 12)]
    assert sum((other != one).any() for other in others) >= 7
