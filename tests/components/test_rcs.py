"""Rare class sampling: P(c) against its formula, draws against P(c), and classes that cannot be drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flexseg.components.rcs import RareClassSampler, class_frequencies, class_probabilities

PIXELS = np.array([[900, 100, 0, 0], [600, 390, 10, 0], [998, 1, 1, 0], [500, 480, 20, 0]])
COUNTS = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 50))


def test_the_probabilities_are_the_formulas() -> None:
    total = PIXELS.sum()
    shares = [PIXELS[:, c].sum() / total for c in range(3)]  # class 3 occurs nowhere
    weights = [math.exp((1 - share) / 0.05) for share in shares]
    expected = [weight / sum(weights) for weight in weights] + [0]
    np.testing.assert_allclose(class_probabilities(class_frequencies(PIXELS), 0.05), expected, rtol=1e-12)


@given(COUNTS.filter(lambda counts: counts.sum() > 0), st.floats(1e-4, 10.0))
def test_a_distribution_in_which_rarer_is_likelier(pixels: np.ndarray, temperature: float) -> None:
    f = class_frequencies(pixels)
    p = class_probabilities(f, temperature)
    assert p.sum() == pytest.approx(1)
    assert ((p > 0) <= (f > 0)).all()
    for a in np.flatnonzero(f > 0):
        assert all(p[a] >= p[b] for b in np.flatnonzero(f >= f[a]))


@settings(deadline=None)
@given(COUNTS.filter(lambda counts: (counts > 5).any()), st.integers(0, 9))
def test_what_is_drawn_shows_enough_of_the_class(pixels: np.ndarray, seed: int) -> None:
    sampler = RareClassSampler(pixels, temperature=1.0, min_pixels=5)
    drawn, image = sampler.draw(np.random.default_rng(seed))
    assert pixels[image, drawn] > 5
    shows = [sum(row[c] > 5 for row in pixels) for c in range(pixels.shape[1])]
    assert ((sampler.probabilities > 0) <= (np.array(shows) > 0)).all()
    assert sampler.joint(len(pixels)).sum() == pytest.approx(1)
    assert ((sampler.joint(len(pixels)) > 0) <= (pixels > 5)).all()


def test_draws_follow_the_probabilities() -> None:
    sampler = RareClassSampler(PIXELS, temperature=0.3, min_pixels=5)
    assert [images.tolist() for images in sampler.images] == [[0, 1, 2, 3], [0, 1, 3], [1, 3], []]
    rng = np.random.default_rng(0)
    draws = np.array([sampler.draw(rng) for _ in range(20000)])
    for axis, expected in ((0, sampler.probabilities), (1, sampler.joint(4).sum(axis=1))):
        counted = np.bincount(draws[:, axis], minlength=4) / len(draws)
        np.testing.assert_allclose(counted, expected, atol=4 * 0.5 / math.sqrt(len(draws)))
    within = np.bincount(draws[draws[:, 0] == 1, 1], minlength=4) / (draws[:, 0] == 1).sum()
    np.testing.assert_allclose(within, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.03)


def test_a_class_of_which_no_image_shows_enough_is_not_drawn() -> None:
    sampler = RareClassSampler(PIXELS, min_pixels=50)
    assert (sampler.probabilities[2:] == 0).all()
    assert sampler.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("pixels", "options", "wanted"),
    [
        (np.zeros((3, 4), dtype=int), {}, "no class can be drawn"),
        (np.zeros((0, 4), dtype=int), {}, "no class can be drawn"),
        (PIXELS, {"min_pixels": 998}, "no class can be drawn"),
        (PIXELS, {"min_pixels": -1}, "min_pixels"),
        (PIXELS, {"temperature": 0.0}, "temperature"),
        (PIXELS, {"temperature": float("nan")}, "temperature"),
        (PIXELS[0], {}, "images, classes"),
    ],
)
def test_refusals(pixels: np.ndarray, options: dict[str, float], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        RareClassSampler(pixels, **options)
