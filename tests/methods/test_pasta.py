"""PASTA against the formula: which amplitudes change, how much, and that nothing else does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import make_method, module_of

PASTA = module_of("pasta")
SHAPES = [(8, 12), (7, 12), (8, 11), (5, 7), (1, 6), (6, 1)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_deviation(height: int, width: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """σ(u, v) on the whole spectrum, in NumPy's order of frequencies."""
    sigma = np.zeros((height, width))
    for u, v in np.ndindex(height, width):
        m = u if u <= height / 2 else u - height
        n = v if v <= width / 2 else v - width
        sigma[u, v] = (alpha * math.sqrt(m * m + n * n) / (math.sqrt(height**2 + width**2) / 2)) ** k + beta
    return sigma


def ratios(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """F'(u, v) / F(u, v) of every channel on the whole spectrum: complex (H, W, 3)."""
    return np.fft.fft2(changed.astype(float), axes=(0, 1)) / np.fft.fft2(image.astype(float), axes=(0, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_deviation_is_the_formulas(shape: tuple[int, int]) -> None:
    expected = slow_deviation(*shape, 3.0, 0.25, 2.0)[:, : shape[1] // 2 + 1]
    np.testing.assert_allclose(PASTA.deviation(*shape, 3.0, 0.25, 2.0), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_amplitudes_change(shape: tuple[int, int]) -> None:
    """Every ratio is real, so the phase is kept (or turned by π, where ε is negative); the image stays real."""
    image = picture(*shape)
    changed = PASTA.jitter(image, PASTA.deviation(*shape, 1.0, 0.25, 2.0), np.random.default_rng(1))
    assert changed.shape == image.shape
    assert not np.iscomplexobj(changed)
    ratio = ratios(image, changed)
    np.testing.assert_allclose(ratio.imag, 0, atol=2e-3)
    assert np.abs(ratio.real - 1).max() > 0.1


@pytest.mark.parametrize("shape", [(6, 8), (5, 7)])
def test_factors_have_mean_one_and_the_deviation_that_the_real_part_leaves(shape: tuple[int, int]) -> None:
    """Also in the columns that hold both halves of their frequencies, where a half drawn freely would average out."""
    image, rounds = picture(*shape), 4000
    sigma = PASTA.deviation(*shape, 3.0, 0.25, 2.0)
    rng = np.random.default_rng(2)
    drawn = np.stack([ratios(image, PASTA.jitter(image, sigma, rng)).real for _ in range(rounds)])
    # The authors' way: a factor for every bin of the whole spectrum, and the real part of the inverse transform.
    whole, public = slow_deviation(*shape, 3.0, 0.25, 2.0), []
    for _ in range(rounds):
        spectrum = np.fft.fft2(image[..., 0].astype(float)) * (1 + whole * rng.standard_normal(shape))
        public.append((np.fft.fft2(np.fft.ifft2(spectrum).real) / np.fft.fft2(image[..., 0].astype(float))).real)
    np.testing.assert_allclose(drawn[..., 0].std(0), np.std(public, axis=0), rtol=8 / math.sqrt(2 * rounds))
    mirrors = [[(-u % shape[0], -v % shape[1]) == (u, v) for v in range(shape[1])] for u in range(shape[0])]
    expected = np.broadcast_to((whole * np.where(mirrors, 1, 0.5**0.5))[..., None], drawn.shape[1:])
    assert np.abs((drawn.mean(0) - 1) / expected).max() < 5 / math.sqrt(rounds)
    np.testing.assert_allclose(drawn.std(0), expected, rtol=5 / math.sqrt(2 * rounds))
    assert np.abs(np.corrcoef(drawn[:, 0, 0].T) - np.eye(3)).max() < 0.08, "each channel has its own"


def test_channels_may_share_their_factors() -> None:
    image = picture(8, 12)
    ratio = ratios(image, PASTA.jitter(image, PASTA.deviation(8, 12, 1.0, 0.25, 2.0), np.random.default_rng(4), False))
    np.testing.assert_allclose(ratio.real, ratio.real[..., :1].repeat(3, -1), atol=2e-3)
    own = ratios(image, PASTA.jitter(image, PASTA.deviation(8, 12, 1.0, 0.25, 2.0), np.random.default_rng(4)))
    assert np.abs(own.real[..., 0] - own.real[..., 1]).max() > 0.1


def test_no_jitter_is_the_image_itself() -> None:
    image, label = picture(16, 24), np.zeros((16, 24), np.uint8)
    changed, same = make_method("pasta", {"alpha": 0.0, "beta": 0.0}).transform(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, image)
    assert same is label


def test_transform_clips_and_rounds_the_jittered_image() -> None:
    image, label = picture(16, 24), np.zeros((16, 24), np.uint8)
    original = image.copy()
    changed, _ = make_method("pasta").transform(image, label, np.random.default_rng(5))
    exact = PASTA.jitter(image, PASTA.deviation(16, 24, 3.0, 0.25, 2.0), np.random.default_rng(5))
    assert changed.dtype == np.uint8
    assert exact.min() < 0
    assert exact.max() > 255
    inside = (exact >= 0) & (exact <= 255)
    assert np.abs(changed - exact)[inside].max() <= 0.5
    assert set(changed[~inside].tolist()) == {0, 255}
    np.testing.assert_array_equal(image, original)


def test_draws_are_the_generators_own() -> None:
    image, label = picture(8, 8), np.zeros((8, 8), np.uint8)
    one, two, other = (
        make_method("pasta").transform(image, label, np.random.default_rng(seed))[0] for seed in (6, 6, 7)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
