"""PixMix and the bilateral filter against their formulas, and what no augmentation may do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.data import augment
from flexseg.data.augment import (
    bilateral,
    mix_add,
    mix_multiply,
    mixing_picture,
    pixmix,
)
from flexseg.data.photometric import photometric_distortion
from flexseg.data.transforms import changed_view, normalise


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A ramp with a strong edge: neighbours are alike but across the edge."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 3 + np.where(np.arange(width) < width // 2, 0, 120)
    return np.stack([ramp, ramp + 10, ramp + 20], axis=-1).clip(0, 255).astype(np.uint8)


def slow_bilateral(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """The formula, one pixel after the other, on a disc, mirrored at the border."""
    padded = np.pad(image.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    result = np.zeros(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        total = 0.0
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if math.hypot(dy, dx) > radius:
                    continue
                other = padded[y + radius + dy, x + radius + dx]
                apart = np.abs(other - image[y, x]).sum()
                weight = math.exp(-(apart**2 + dy * dy + dx * dx) / (2 * sigma**2))
                result[y, x] += weight * other
                total += weight
        result[y, x] /= total
    return result


@pytest.mark.parametrize("image", [picture(9, 12), smooth(9, 12)], ids=["noise", "ramp"])
@pytest.mark.parametrize("sigma", [60.0, 75.0])
def test_bilateral_is_the_formula_at_a_drawn_diameter(image: np.ndarray, sigma: float) -> None:
    radii = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        filtered, radius = rng.random() < 0.5, int(rng.integers(3))
        changed = bilateral(image, np.random.default_rng(seed), share=0.5, diameter=5, sigma=sigma)
        assert changed.dtype == np.uint8
        radii.append(radius if filtered else 0)
        expected = slow_bilateral(image, radii[-1], sigma)
        assert np.abs(changed - expected).max() <= 1
    assert set(radii) == {0, 1, 2}


def test_bilateral_smooths_noise_and_keeps_an_edge() -> None:
    noise = np.random.default_rng(0).integers(-8, 9, (20, 20, 1))
    image = (np.where(np.arange(20) < 10, 40, 220)[None, :, None] + noise).repeat(3, -1).astype(np.uint8)
    changed = bilateral(image, np.random.default_rng(1), share=1.0, diameter=7, sigma=60.0).astype(float)
    assert changed[:, :9].std() < 0.5 * image[:, :9].std()
    assert (changed[:, 10] - changed[:, 9]).mean() > 175


def test_bilateral_smooths_its_share_of_the_images_at_diameters_up_to_the_largest() -> None:
    image = picture(16, 24)
    results = [bilateral(image, np.random.default_rng(seed), diameter=9).tobytes() for seed in range(200)]
    assert len(set(results)) == 5, "diameters 1, which changes nothing, 3, 5, 7 and 9"
    assert np.mean([result == image.tobytes() for result in results]) == pytest.approx(0.5 + 0.5 / 5, abs=0.1)


@given(x=st.floats(0, 1), y=st.floats(0, 1), a=st.floats(0, 2), b=st.floats(-1, 1))
def test_mixing_is_the_formula(x: float, y: float, a: float, b: float) -> None:
    one, other = np.array([[[x]]]), np.array([[[y]]])
    added = (a * (2 * x - 1) + b * (2 * y - 1) + 1) / 2
    multiplied = (2 * x) ** a * max(2 * y, 1 / 255) ** b / 2
    assert mix_add(one, other, a, b).item() == pytest.approx(added)
    assert mix_multiply(one, other, a, b).item() == pytest.approx(multiplied)


@given(level=st.floats(0, 1))
def test_mixing_parameters_that_keep_the_image(level: float) -> None:
    one, other = np.full((2, 2, 3), level), np.zeros((2, 2, 3))
    np.testing.assert_allclose(mix_add(one, other, 1, 0), one, atol=1e-12)
    np.testing.assert_allclose(mix_multiply(one, other, 1, 0), one, atol=1e-12)


def test_exponents_have_the_papers_distribution() -> None:
    """Half of them a ~ B(β, 1), b ~ B(1, β) with means β/(β+1) and 1/(β+1); the others 1 + B(1, β), −B(1, β)."""
    rng = np.random.default_rng(0)
    draws = np.array([augment._exponents(rng, 4.0) for _ in range(8000)])
    towards = draws[:, 1] >= 0
    assert towards.mean() == pytest.approx(0.5, abs=0.02)
    assert draws[towards].mean(0) == pytest.approx([0.8, 0.2], abs=0.01)
    assert draws[~towards].mean(0) == pytest.approx([1.2, -0.2], abs=0.01)
    assert (draws[~towards, 0] >= 1).all()


def test_pixmix_without_rounds_is_the_image_or_its_recolouring() -> None:
    image = picture(8, 12)
    for seed in range(20):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        for _ in range(3):  # the picture, and its place
            same.integers(128)
        expected = photometric_distortion(image, same) if same.integers(2) else image
        np.testing.assert_array_equal(pixmix(image, rng, rounds=0), expected)


def test_pixmix_mixes_as_often_as_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """U{0, …, k} rounds; pictures and recolourings, sums and products, evenly."""
    seen: dict[str, int] = {"add": 0, "multiply": 0, "distorted": 0}
    pictures: set[int] = set()
    monkeypatch.setattr(augment, "mix_add", lambda one, *_: seen.__setitem__("add", seen["add"] + 1) or one)
    monkeypatch.setattr(
        augment, "mix_multiply", lambda one, *_: seen.__setitem__("multiply", seen["multiply"] + 1) or one
    )
    monkeypatch.setattr(augment, "mixing_picture", lambda number: pictures.add(number) or picture(16, 16, 1))
    monkeypatch.setattr(
        augment,
        "photometric_distortion",
        lambda image, _: seen.__setitem__("distorted", seen["distorted"] + 1) or image,
    )
    image, images = picture(8, 12), 1000
    for seed in range(images):
        pixmix(image, np.random.default_rng(seed), rounds=4, pictures=5)
    mixtures = seen["add"] + seen["multiply"]
    assert mixtures / images == pytest.approx(2, abs=0.15)
    assert seen["add"] / mixtures == pytest.approx(0.5, abs=0.04)
    assert (seen["distorted"] - images / 2) / mixtures == pytest.approx(0.5, abs=0.04)
    assert pictures == set(range(5))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 2**32),
    beta=st.floats(0.1, 20),
    level=st.sampled_from([None, 0, 255]),
)
def test_augmentations_keep_shape_type_and_input(
    height: int, width: int, seed: int, beta: float, level: int | None
) -> None:
    image = picture(height, width, seed) if level is None else np.full((height, width, 3), level, np.uint8)
    original = image.copy()
    image.setflags(write=False)
    changes = [
        lambda rng: pixmix(image, rng, beta=beta, pictures=3),
        lambda rng: bilateral(image, rng),
    ]
    for change in changes:
        changed = change(np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        np.testing.assert_array_equal(changed, change(np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, original)


def test_mixing_pictures_are_a_fixed_set_of_structured_pictures() -> None:
    pictures = [mixing_picture(number) for number in range(12)]
    for number, image in enumerate(pictures):
        assert image.shape == (192, 192, 3)
        assert image.dtype == np.uint8
        assert not image.flags.writeable
        assert image.std() > 5, number
        values = image.astype(float)
        # Neighbours are more alike than pixels far apart are, as in a picture and not in noise.
        near = np.abs(np.diff(values, axis=1)).mean()
        assert near < 0.8 * np.abs(values - np.roll(values, 67, axis=1)).mean(), number
    assert len({image.tobytes() for image in pictures}) == 12
    mixing_picture.cache_clear()
    np.testing.assert_array_equal(mixing_picture(7), pictures[7])


@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (300, 200), (1, 1)])
def test_windows_cover_any_image(shape: tuple[int, int]) -> None:
    windows = [augment._random_window(mixing_picture(1), shape, np.random.default_rng(seed)) for seed in range(4)]
    assert all(window.shape == (*shape, 3) for window in windows)


def test_changed_view_is_the_change_of_the_levels() -> None:
    images = np.stack([picture(8, 12, seed) for seed in range(3)])
    batch = torch.from_numpy(normalise(images)).requires_grad_()
    generators = [np.random.default_rng(seed) for seed in range(3)]
    view = changed_view(batch, generators, lambda image, rng: image + np.uint8(rng.integers(1, 50)))
    expected = [image + np.uint8(np.random.default_rng(seed).integers(1, 50)) for seed, image in enumerate(images)]
    torch.testing.assert_close(view, torch.from_numpy(normalise(np.stack(expected))))
    assert not view.requires_grad
    identity = changed_view(batch.bfloat16(), generators, lambda image, _: image)
    assert identity.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="shorter"):
        changed_view(batch, generators[:2], lambda image, _: image)
