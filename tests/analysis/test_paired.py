"""Differences with a variance of their own: against Student's formulas, simulated coverage, power and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flexseg.analysis.stats import statistics as st
from flexseg.analysis.stats.paired import Paired

TRIALS = 10_000  # the Monte Carlo standard error of a coverage near 0.95 is then 0.0022


def test_without_images_it_is_students_test() -> None:
    values = np.array([0.5, 1.4, 0.9, 1.8, -0.2, 0.7])
    found, wanted = Paired.of(values), stats.ttest_1samp(values, 0.0)
    assert found.difference().p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(wanted.confidence_interval(0.95))
    assert found.p_above(0.3) == pytest.approx(stats.ttest_1samp(values, 0.3, alternative="greater").pvalue)
    assert found.p_below(1.5) == pytest.approx(stats.ttest_1samp(values, 1.5, alternative="less").pvalue)


def test_satterthwaite_by_hand() -> None:
    found = Paired(1.0, 6, math.sqrt(1.2), shared=0.3, images=10.0)  # S²/n = 0.2
    assert found.error == pytest.approx(math.sqrt(0.5))
    assert found.freedom == pytest.approx(0.25 / (0.04 / 5 + 0.09 / 10))


def test_a_one_sided_test_rejects_where_the_interval_ends() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        found = Paired.of(rng.normal(0.5, 0.8, 7), shared=float(rng.exponential(0.1)), images=30.0)
        assert found.p_above(found.low) == pytest.approx(0.025)
        assert found.p_below(found.high) == pytest.approx(0.025)
        assert found.difference().shown == (found.low > 0 or found.high < 0)


def test_too_few_seeds_say_nothing() -> None:
    for values in (np.array([]), np.array([1.5])):
        found = Paired.of(values)
        assert np.isnan([found.half, found.p_above(0.0), found.power(1.0), found.detectable()]).all()
        assert found.seeds_needed(1.0) is None
    same = Paired.of(np.ones(6))
    assert (same.half, same.p_above(0.0), same.p_below(0.0), same.power(0.1)) == (0.0, 0.0, 1.0, 1.0)


def simulate(n: int, spread: float, image_sd: float, trials: int = TRIALS) -> tuple[float, float]:
    """How often the truth (0) is covered: by the pair's own interval, and by that of the pooled residual of ten rows.

    The rows of the pair have seed sd 1 and ``spread``, the others 1. ``image_sd``: sd of what all seeds share on these
    images, in 16 groups; each run has an interaction with the images of its own (sd 0.3).
    """
    rng, groups, hits = np.random.default_rng([n, int(10 * spread), int(100 * image_sd)]), 16, np.zeros(2)
    of_groups = rng.normal(0, math.sqrt(groups), (trials, groups, n)) * 0.3 * math.sqrt(2)
    of_groups += rng.normal(0, math.sqrt(groups), (trials, groups, 1)) * image_sd
    sds = np.array([1.0, spread, *[1.0] * 8])
    seeds = rng.normal(size=(trials, 10, n)) * sds[:, None] + rng.normal(size=(trials, 1, n))  # a block effect too
    for trial in range(trials):
        means = of_groups[trial].mean(0)
        differences = seeds[trial, 0] - seeds[trial, 1] + means
        replicates = (of_groups[trial] - means) / math.sqrt(groups)
        shared = st.shared_variance(replicates)
        found = Paired.of(differences, shared, groups - 1)
        hits[0] += found.low <= 0 <= found.high
        noise = st.blocked_noise(seeds[trial])
        assert noise is not None
        half = st.half_width(2 * (noise.variance + 0.09) / n, shared, noise.freedom, groups)
        hits[1] += abs(found.value) <= half
    own, pooled = hits / trials
    return float(own), float(pooled)


@pytest.mark.parametrize("n", [6, 8, 12])
@pytest.mark.parametrize(("spread", "image_sd"), [(1.0, 0.0), (1.0, 0.5), (4.0, 0.0), (4.0, 1.0), (0.25, 0.8)])
def test_coverage_also_with_unequal_variances(n: int, spread: float, image_sd: float) -> None:
    own, pooled = simulate(n, spread, image_sd)
    print(f"n = {n}, sds 1 and {spread:g}, image sd {image_sd:g}: own {own:.4f}, pooled {pooled:.3f}")
    assert 0.94 <= own <= 0.96
    if spread == 4.0 and not image_sd:
        assert pooled < 0.93, "the pooled residual would do, so why give a pair its own?"


@pytest.mark.parametrize(
    ("effect", "sd", "n", "shared"), [(1.0, 0.9, 6, 0.0), (0.7, 0.8, 12, 0.02), (1.0, 1.5, 12, 0.05)]
)
def test_power_against_simulation(effect: float, sd: float, n: int, shared: float) -> None:
    rng, images, trials = np.random.default_rng(4), 75.0, 20_000
    plan = Paired(0.0, n, sd, shared, images)
    hits = 0
    for value, s2, c in zip(
        rng.normal(effect, plan.error, trials),
        sd**2 * rng.chisquare(n - 1, trials) / (n - 1),
        shared * rng.chisquare(images, trials) / images,
        strict=True,
    ):
        hits += Paired(float(value), n, math.sqrt(s2), float(c), images).low > 0
    assert plan.power(effect) == pytest.approx(hits / trials, abs=0.015)


def test_the_power_to_refute_is_that_to_show() -> None:
    """A true difference of 0 is shown to be below the effect as often as a true effect is shown to be above 0."""
    rng, plan = np.random.default_rng(6), Paired(0.0, 8, 0.9)
    refuted = np.mean([Paired.of(rng.normal(0, 0.9, 8)).high < 1.0 for _ in range(5000)])
    assert plan.power(1.0) == pytest.approx(refuted, abs=0.02)


def test_detectable_and_seeds_needed_invert_power() -> None:
    plan = Paired(0.3, 6, 1.1, 0.01, 75.0)
    assert plan.power(plan.detectable()) == pytest.approx(0.8, abs=1e-6)
    needed = plan.seeds_needed(1.0)
    assert needed is not None
    assert plan.power(1.0, needed) >= 0.8 > plan.power(1.0, needed - 1)
    assert plan.seeds_needed(0.2) is None, "seeds cannot make up for the images"
    assert Paired(0.3, 6, 0.1).seeds_needed(1.0) == 6, "fewer seeds have no verdict"
