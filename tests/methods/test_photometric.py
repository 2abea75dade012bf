"""Photometric distortion against a slow reference, and the ranges and frequencies of its draws."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexseg.data.photometric import distort
from flexseg.errors import UserError
from flexseg.method import Method, Setup, parse_options
from flexseg.method_files import load_method

METHODS = Path(__file__).parents[2] / "methods"
METHOD = load_method("photometric", METHODS)
OFF = {"brightness": 0.0, "contrast": [1.0, 1.0], "saturation": [1.0, 1.0], "hue": 0}


def build(**options: Any) -> Method:
    return METHOD(parse_options(METHOD, options), Setup(0, 1, np.zeros(1, np.int8)))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def transformed(method: Method, image: np.ndarray, seed: int) -> np.ndarray:
    label = np.arange(image[..., 0].size, dtype=np.uint8).reshape(image.shape[:2])
    before, same = image.copy(), label.copy()
    changed, label_after = method.transform(image, label, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(label_after, same)
    assert changed.dtype == np.uint8
    assert changed.shape == image.shape
    return changed


def slow(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: int, contrast_last: bool
) -> np.ndarray:
    """Pixel by pixel, with colorsys, hue in steps of 2°."""
    result = np.zeros(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        rgb = np.clip(image[y, x] + brightness, 0, 255)
        if not contrast_last:
            rgb = np.clip(rgb * contrast, 0, 255)
        h, s, v = colorsys.rgb_to_hsv(*(rgb / 255))
        rgb = 255 * np.array(colorsys.hsv_to_rgb((h + hue / 180) % 1, min(s * saturation, 1), v))
        result[y, x] = np.clip(rgb * contrast, 0, 255) if contrast_last else rgb
    return result


@pytest.mark.parametrize("contrast_last", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        (20.0, 1.0, 1.0, 0),
        (-31.5, 1.0, 1.0, 0),
        (0.0, 1.4, 1.0, 0),
        (0.0, 0.6, 1.0, 0),
        (10.0, 0.7, 1.0, 0),
        (0.0, 1.0, 0.5, 0),
        (0.0, 1.0, 1.5, 0),
        (0.0, 1.0, 1.0, 18),
        (0.0, 1.0, 1.0, -18),
        (-12.0, 0.8, 1.3, 7),
    ],
)
def test_distortion_against_a_slow_reference(values: tuple[float, float, float, int], contrast_last: bool) -> None:
    image = picture()
    changed = distort(image, *values, contrast_last)
    difference = np.abs(changed - slow(image, *values, contrast_last))
    colours = values[2] != 1 or values[3] != 0  # then 8-bit HSV rounds hue to 2° and saturation to 1/255
    assert difference.max() <= (8 if colours else 1.5)
    assert difference.mean() <= (1.5 if colours else 0.6)


def test_order_of_contrast_matters_and_is_kept() -> None:
    """A saturated red, doubled before or after its saturation is halved: clipping tells the two apart."""
    image = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    first = distort(image, 0.0, 2.0, 0.5, 0, False)[0, 0].tolist()
    last = distort(image, 0.0, 2.0, 0.5, 0, True)[0, 0].tolist()
    assert first == pytest.approx([255, 147.5, 147.5], abs=2)
    assert last == pytest.approx([255, 220, 220], abs=2)


def test_no_change_is_the_image_itself() -> None:
    image = picture()
    for method in (build(**OFF), build(probability=0.0)):
        for seed in range(20):
            np.testing.assert_array_equal(transformed(method, image, seed), image)


def test_brightness_is_drawn_half_of_the_time_and_evenly_in_its_range() -> None:
    image = np.full((1, 1, 3), 128, np.uint8)
    method = build(**OFF | {"brightness": 32.0})
    shifts = np.array([int(transformed(method, image, seed)[0, 0, 0]) - 128 for seed in range(4000)])
    assert np.mean(shifts == 0) == pytest.approx(0.5 + 0.5 / 64, abs=0.04)
    assert (shifts.min(), shifts.max()) == (-32, 32)
    changed = shifts[shifts != 0]
    assert changed.mean() == pytest.approx(0, abs=2)
    assert changed.std() == pytest.approx(64 / np.sqrt(12), rel=0.05)


@pytest.mark.parametrize(("name", "image"), [("contrast", (100, 100, 100)), ("saturation", (200, 100, 100))])
def test_factors_are_drawn_half_of_the_time_and_evenly_in_their_range(name: str, image: tuple[int, int, int]) -> None:
    method = build(**OFF | {name: [0.5, 1.5]})
    pixel = np.full((1, 1, 3), image, np.uint8)
    after = np.array([transformed(method, pixel, seed)[0, 0] for seed in range(4000)], dtype=float)
    factors = after[:, 1] / 100 if name == "contrast" else (1 - after[:, 1] / after[:, 0]) / 0.5
    assert np.mean(np.abs(factors - 1) < 0.006) == pytest.approx(0.505, abs=0.04)
    assert factors.min() == pytest.approx(0.5, abs=0.02)
    assert factors.max() == pytest.approx(1.5, abs=0.02)
    assert factors[np.abs(factors - 1) > 0.006].std() == pytest.approx(1 / np.sqrt(12), rel=0.06)


def test_hue_turns_by_at_most_36_degrees_either_way() -> None:
    method = build(**OFF | {"hue": 18})
    pixel = np.full((1, 1, 3), (200, 40, 40), np.uint8)
    degrees = []
    for seed in range(2000):
        hue = 360 * colorsys.rgb_to_hsv(*(transformed(method, pixel, seed)[0, 0] / 255))[0]
        degrees.append(hue - 360 if hue > 180 else hue)
    assert min(degrees) == pytest.approx(-36, abs=0.6)
    assert max(degrees) == pytest.approx(36, abs=0.6)
    assert np.mean(np.array(degrees) == 0) == pytest.approx(0.5 + 0.5 / 37, abs=0.04)


def test_draws_are_the_generators_own() -> None:
    image, method = picture(), build(probability=1.0)
    np.testing.assert_array_equal(transformed(method, image, 3), transformed(method, image, 3))
    assert (transformed(method, image, 3) != transformed(method, image, 4)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, "probability must lie between 0 and 1"),
        ({"hue": 91}, "hue lie between 0 and 90"),
        ({"brightness": -1.0}, "brightness must not be negative"),
        ({"contrast": [1.5, 0.5]}, "contrast must be a range of factors"),
        ({"saturation": [-0.5, 0.5]}, "saturation must be a range of factors"),
    ],
)
def test_values_that_are_no_distortion(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"methods/photometric\.py: .*{message}"):
        build(**options)
