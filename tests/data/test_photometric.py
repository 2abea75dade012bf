"""The recipe's distortion and the change of a second view, against slow references and the ranges of their draws."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.data.photometric import distort, jitter_and_blur, photometric_distortion, photometric_view
from flexseg.data.transforms import MEAN, STD, normalise


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)


def draws(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, slot]) for slot in range(count)]


def changed(
    image: np.ndarray, seed: int = 1, strength: float = 0.5, hue: float = 0.1, blur: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    return jitter_and_blur(image, np.random.default_rng(seed), strength, hue, blur, probability=1.0)


def slow(image: np.ndarray, rng: np.random.Generator, strength: float, hue: float) -> np.ndarray:
    """The jitter pixel by pixel, with colorsys: four changes in random order, clipped after each (torchvision's)."""
    rng.random()
    factors, turn = rng.uniform(1 - strength, 1 + strength, 3), rng.uniform(-hue, hue)
    levels = image.astype(float)
    for change in rng.permutation(4):
        greys = levels @ [0.299, 0.587, 0.114]
        result = np.zeros(image.shape)
        for place in np.ndindex(image.shape[:2]):
            if change == 3:
                h, s, v = colorsys.rgb_to_hsv(*(levels[place] / 255))
                result[place] = 255 * np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
                continue
            origin = (0.0, greys.mean(), greys[place])[change]
            result[place] = origin + factors[change] * (levels[place] - origin)
        levels = np.clip(result, 0, 255)
    return levels


@pytest.mark.parametrize("seed", range(6))
def test_jitter_against_a_slow_reference(seed: int) -> None:
    image = pictures(1, seed)[0]
    ours = changed(image, seed, 0.5, 0.2)
    assert np.abs(ours - slow(image, np.random.default_rng(seed), 0.5, 0.2)).max() < 1
    assert (ours != image).mean() > 0.5


def test_colours_change_and_the_layout_stays() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 24:] = (200, 80, 40)
    image[:16, :24] = (60, 120, 90)
    view = changed(image)
    assert view.shape == image.shape
    assert view.dtype == np.uint8
    for part in (np.s_[:, 24:], np.s_[:16, :24], np.s_[16:, :24]):
        assert (view[part] == view[part][0, 0]).all()
    assert (view[0, 40] != image[0, 40]).any()
    np.testing.assert_array_equal(changed(image, strength=0.0, hue=0.0), image)
    blurred = changed(image, strength=0.0, hue=0.0, blur=(3.0, 3.0))
    assert len(np.unique(blurred[0, :, 0])) > 4
    assert np.abs(blurred.astype(int).mean((0, 1)) - image.mean((0, 1))).max() < 8


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 3))
def test_grey_stays_grey_and_the_argument_is_not_modified(seed: int, strength: float, blur: float) -> None:
    image = np.repeat(np.random.default_rng(seed).integers(0, 256, (9, 11, 1), dtype=np.uint8), 3, axis=2)
    before = image.copy()
    view = changed(image, seed, strength, 0.3, (blur, blur))
    np.testing.assert_array_equal(image, before)
    assert np.ptp(view.astype(int), axis=2).max() <= 1


def test_view_is_the_change_of_each_image_by_its_own_generator() -> None:
    levels = pictures(3)
    images = torch.from_numpy(normalise(levels))
    before = images.clone()
    view = photometric_view(images, draws(3))
    assert torch.equal(images, before)
    each = [
        jitter_and_blur(image, rng, 0.8, 0.3, (0.15, 1.3), 1.0) for image, rng in zip(levels, draws(3), strict=True)
    ]
    torch.testing.assert_close(view, torch.from_numpy(normalise(np.stack(each))))
    alone = photometric_view(images[1:2], draws(3)[1:2])
    assert torch.equal(view[1:2], alone)


def test_view_of_nothing_changed_is_the_batch() -> None:
    images = torch.from_numpy(normalise(pictures(2)))
    torch.testing.assert_close(photometric_view(images, draws(2), 0.0, 0.0, (0.0, 0.0)), images)


def test_view_keeps_the_dtype_and_has_no_graph() -> None:
    images = torch.from_numpy(normalise(pictures(2)))
    half = images.bfloat16().requires_grad_()
    view = photometric_view(half, draws(2))
    assert view.dtype == torch.bfloat16
    assert not view.requires_grad
    assert view.shape == images.shape


def test_view_of_levels_out_of_range_is_of_clipped_ones() -> None:
    """Stylised batches may leave 0–255; their view must not wrap around."""
    images = torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    view = photometric_view(images, draws(2), 0.0, 0.0, (0.0, 0.0))
    levels = view.permute(0, 2, 3, 1).numpy() * STD + MEAN
    np.testing.assert_allclose(levels[0], 0, atol=1e-4)
    np.testing.assert_allclose(levels[1], 255, atol=1e-4)


def test_generators_are_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="zip"):
        photometric_view(torch.zeros(3, 3, 4, 4), draws(2))


# The distortion of mmsegmentation's recipes

OFF: dict[str, Any] = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0}


def distorted(image: np.ndarray, seed: int, **options: Any) -> np.ndarray:
    return photometric_distortion(image, np.random.default_rng(seed), **options)


def slow_distortion(
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
    image = pictures(1)[0]
    changed = distort(image, *values, contrast_last)
    difference = np.abs(changed - slow_distortion(image, *values, contrast_last))
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
    image = pictures(1)[0]
    for options in (OFF, {"probability": 0.0}):
        for seed in range(20):
            np.testing.assert_array_equal(distorted(image, seed, **options), image)


def test_brightness_is_drawn_half_of_the_time_and_evenly_in_its_range() -> None:
    image = np.full((1, 1, 3), 128, np.uint8)
    shifts = np.array(
        [int(distorted(image, seed, **OFF | {"brightness": 32.0})[0, 0, 0]) - 128 for seed in range(4000)]
    )
    assert np.mean(shifts == 0) == pytest.approx(0.5 + 0.5 / 64, abs=0.04)
    assert (shifts.min(), shifts.max()) == (-32, 32)
    changed = shifts[shifts != 0]
    assert changed.mean() == pytest.approx(0, abs=2)
    assert changed.std() == pytest.approx(64 / np.sqrt(12), rel=0.05)


@pytest.mark.parametrize(("name", "image"), [("contrast", (100, 100, 100)), ("saturation", (200, 100, 100))])
def test_factors_are_drawn_half_of_the_time_and_evenly_in_their_range(name: str, image: tuple[int, int, int]) -> None:
    pixel, options = np.full((1, 1, 3), image, np.uint8), OFF | {name: (0.5, 1.5)}
    after = np.array([distorted(pixel, seed, **options)[0, 0] for seed in range(4000)], dtype=float)
    factors = after[:, 1] / 100 if name == "contrast" else (1 - after[:, 1] / after[:, 0]) / 0.5
    assert np.mean(np.abs(factors - 1) < 0.006) == pytest.approx(0.505, abs=0.04)
    assert factors.min() == pytest.approx(0.5, abs=0.02)
    assert factors.max() == pytest.approx(1.5, abs=0.02)
    assert factors[np.abs(factors - 1) > 0.006].std() == pytest.approx(1 / np.sqrt(12), rel=0.06)


def test_hue_turns_by_at_most_36_degrees_either_way() -> None:
    pixel = np.full((1, 1, 3), (200, 40, 40), np.uint8)
    degrees = []
    for seed in range(2000):
        hue = 360 * colorsys.rgb_to_hsv(*(distorted(pixel, seed, **OFF | {"hue": 18})[0, 0] / 255))[0]
        degrees.append(hue - 360 if hue > 180 else hue)
    assert min(degrees) == pytest.approx(-36, abs=0.6)
    assert max(degrees) == pytest.approx(36, abs=0.6)
    assert np.mean(np.array(degrees) == 0) == pytest.approx(0.5 + 0.5 / 37, abs=0.04)
