"""The change of colours and sharpness of an image, and the second view of a batch."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.data.photometric import photometric_change, photometric_view
from flexseg.data.transforms import MEAN, STD, normalise


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)


def draws(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, slot]) for slot in range(count)]


def slow(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """The jitter pixel by pixel, with colorsys."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    turn = rng.uniform(-strength / 5, strength / 5)
    bright = image.astype(float) * brightness
    mean = np.mean([pixel @ [0.299, 0.587, 0.114] for row in bright for pixel in row])
    result = np.zeros(image.shape)
    for place in np.ndindex(image.shape[:2]):
        grey = bright[place] @ [0.299, 0.587, 0.114]
        saturated = grey + saturation * (bright[place] - grey)
        levels = np.clip(mean + contrast * (saturated - mean), 0, 255)
        h, s, v = colorsys.rgb_to_hsv(*(levels / 255))
        result[place] = 255 * np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
    return result


@pytest.mark.parametrize("seed", range(6))
def test_jitter_against_a_slow_reference(seed: int) -> None:
    image = pictures(1, seed)[0]
    ours = photometric_change(image, np.random.default_rng(seed), 0.5, 0.0)
    difference = np.abs(ours - slow(image, np.random.default_rng(seed), 0.5))
    assert difference.max() < 1
    assert (ours != image).mean() > 0.5


def test_colours_change_and_the_layout_stays() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 24:] = (200, 80, 40)
    image[:16, :24] = (60, 120, 90)
    view = photometric_change(image, np.random.default_rng(1), 0.5, 0.0)
    assert view.shape == image.shape
    assert view.dtype == np.uint8
    for part in (np.s_[:, 24:], np.s_[:16, :24], np.s_[16:, :24]):
        assert (view[part] == view[part][0, 0]).all()
    assert (view[0, 40] != image[0, 40]).any()
    np.testing.assert_array_equal(photometric_change(image, np.random.default_rng(1), 0.0, 0.0), image)
    blurred = photometric_change(image, np.random.default_rng(1), 0.0, 3.0)
    assert len(np.unique(blurred[0, :, 0])) > 4
    assert np.abs(blurred.astype(int).mean((0, 1)) - image.mean((0, 1))).max() < 8


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 3))
def test_of_grey_stays_grey_and_the_argument_is_left_alone(seed: int, strength: float, blur: float) -> None:
    image = np.repeat(np.random.default_rng(seed).integers(0, 256, (9, 11, 1), dtype=np.uint8), 3, axis=2)
    before = image.copy()
    view = photometric_change(image, np.random.default_rng(seed), strength, blur)
    np.testing.assert_array_equal(image, before)
    assert np.ptp(view.astype(int), axis=2).max() <= 1


def test_view_is_the_change_of_each_image_by_its_own_generator() -> None:
    levels = pictures(3)
    images = torch.from_numpy(normalise(levels))
    before = images.clone()
    view = photometric_view(images, draws(3), 0.5, 1.0)
    assert torch.equal(images, before)
    changed = np.stack([photometric_change(image, rng, 0.5, 1.0) for image, rng in zip(levels, draws(3), strict=True)])
    torch.testing.assert_close(view, torch.from_numpy(normalise(changed)))
    alone = photometric_view(images[1:2], draws(3)[1:2], 0.5, 1.0)
    assert torch.equal(view[1:2], alone)


def test_view_of_nothing_changed_is_the_batch() -> None:
    images = torch.from_numpy(normalise(pictures(2)))
    torch.testing.assert_close(photometric_view(images, draws(2), 0.0, 0.0), images)


def test_view_keeps_the_dtype_and_has_no_graph() -> None:
    images = torch.from_numpy(normalise(pictures(2)))
    half = images.bfloat16().requires_grad_()
    view = photometric_view(half, draws(2), 0.5, 0.0)
    assert view.dtype == torch.bfloat16
    assert not view.requires_grad
    assert view.shape == images.shape


def test_view_of_levels_out_of_range_is_of_clipped_ones() -> None:
    """Stylised batches may leave 0–255; their view must not wrap around."""
    images = torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    view = photometric_view(images, draws(2), 0.0, 0.0)
    levels = view.permute(0, 2, 3, 1).numpy() * STD + MEAN
    np.testing.assert_allclose(levels[0], 0, atol=1e-4)
    np.testing.assert_allclose(levels[1], 255, atol=1e-4)


def test_generators_are_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="zip"):
        photometric_view(torch.zeros(3, 3, 4, 4), draws(2), 0.5, 0.0)
