"""Intervals that keep what they promise, Holm by hand, power against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from flexseg.analysis.stats import statistics as st


def test_t_interval_by_hand() -> None:
    mean = st.t_interval(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (mean.value, mean.n) == (2.0, 3)
    assert mean.half == pytest.approx(4.302652729911275 / np.sqrt(3))


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(st.t_interval(np.array([5.0])).half)
    one = st.paired_interval(np.array([1.2]), np.zeros((10, 1)), 200)
    assert (one.value, one.n) == (1.2, 1)
    assert np.isnan([one.low, one.high, one.p]).all()
    assert not one.shown


def test_without_image_noise_it_is_students_interval_and_test() -> None:
    differences = np.array([0.5, 1.4, 0.9, 1.8])
    found = st.paired_interval(differences, np.tile(differences, (50, 1)), 200)
    half = stdtrit(3, 0.975) * differences.std(ddof=1) / 2
    assert found.high - found.value == pytest.approx(half)
    assert found.p == pytest.approx(0.0272018, abs=1e-6)  # scipy.stats.ttest_1samp(differences, 0).pvalue


def test_p_value_and_interval_agree() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = int(rng.integers(2, 6))
        differences = rng.normal(0.8, 0.8, n)
        replicates = differences + rng.normal(0, 0.4, (300, 1)) + rng.normal(0, 0.2, (300, n))
        found = st.paired_interval(differences, replicates, 200)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0) == found.shown


def test_shared_variance_leaves_the_interaction_out() -> None:
    rng = np.random.default_rng(1)
    shared, own = rng.normal(0, 0.5, (200_000, 1)), rng.normal(0, 0.8, (200_000, 4))
    assert st.shared_variance(shared + own) == pytest.approx(0.25, abs=0.01)
    assert st.shared_variance(own) == pytest.approx(0.0, abs=0.01)


TRIALS = 10_000  # the Monte Carlo standard error of a coverage near 0.95 is then 0.0022


def _coverage(rows: int, seeds: int, image_sd: float) -> tuple[float, float, float]:
    """How often the truth (0) is covered: our interval, the percentile bootstrap, the t-interval over seeds alone.

    Rows 0 and 1 of a table of ``rows`` are compared on N = 100 images: seed sd of a difference 0.8; ``image_sd`` is the
    sd of what all seeds share on these images, and each run has an interaction with the images of its own.
    """
    rng = np.random.default_rng([rows, seeds, int(100 * image_sd)])
    images, replicates, chunk = 100, 200, 500
    weights = rng.multinomial(images, np.full(images, 1 / images), size=replicates) / images
    picks = rng.integers(0, seeds, (replicates, seeds))
    hits = np.zeros(3)
    for _ in range(TRIALS // chunk):
        own_images = rng.normal(0, 0.2 * np.sqrt(images / 2), (images, chunk, 2, seeds))
        own_images[:, :, 0] += rng.normal(0, image_sd * np.sqrt(images), (images, chunk, 1))
        resampled = np.tensordot(weights, own_images[:, :, 0] - own_images[:, :, 1], 1)  # (B, chunk, seeds)
        table = rng.normal(0, np.hypot(0.8, 0.2) / np.sqrt(2), (chunk, rows, seeds))  # the other rows' interaction too
        table[:, :2] = rng.normal(0, 0.8 / np.sqrt(2), (chunk, 2, seeds)) + own_images.mean(0)
        table += rng.normal(0, 1.0, (chunk, 1, seeds))  # what the rows share: the seed
        resampled += rng.normal(size=(1, chunk, seeds))  # the seeds' own effects shift all replicates alike
        for trial, each in enumerate(table):
            noise, differences = st.blocked_noise(each), each[0] - each[1]
            assert noise is not None
            shared = st.shared_variance(resampled[:, trial])
            half = st.half_width(noise.variance * 2 / seeds, shared, noise.freedom, images)
            hits[0] += abs(differences.mean()) <= half
            if rows == 2 and trial < chunk // 10:  # the rivals need no such precision
                around = resampled[:, trial] - resampled[:, trial].mean(0) + differences
                low, high = np.quantile(around[np.arange(replicates)[:, None], picks].mean(1), [0.025, 0.975])
                plain = st.t_interval(differences)
                hits[1:] += 10 * (low <= 0 <= high), 10 * (abs(plain.value) <= plain.half)
    ours_, raw_, plain_ = hits / TRIALS
    return float(ours_), float(raw_), float(plain_)


@pytest.mark.parametrize("rows", [2, 10])
@pytest.mark.parametrize("seeds", [3, 4, 5])
@pytest.mark.parametrize("image_sd", [0.0, 0.4])
def test_coverage(rows: int, seeds: int, image_sd: float) -> None:
    ours, raw, plain = _coverage(rows, seeds, image_sd)
    print(f"{rows} rows, n = {seeds}, image sd {image_sd}: ours {ours:.4f}, percentile {raw:.3f}, seeds {plain:.3f}")
    assert 0.93 <= ours <= 0.97
    if rows == 2:
        assert raw < 0.935, "the plain percentile bootstrap would do, so why not use it?"
    if rows == 2 and image_sd:
        assert plain < 0.93, "ignoring the images would do, so why resample them?"


def test_blocked_noise_of_two_rows_is_the_paired_variance() -> None:
    values = np.random.default_rng(1).normal(size=(2, 5))
    noise = st.blocked_noise(values)
    assert noise is not None
    assert noise.freedom == 4
    assert noise.paired_sd == pytest.approx((values[0] - values[1]).std(ddof=1))


def test_blocked_noise_against_a_loop_and_without_incomplete_rows() -> None:
    values = np.random.default_rng(2).normal(size=(5, 4))
    values[3, 1] = np.nan
    kept = values[[0, 1, 2, 4]]
    total = 0.0
    for row in kept:
        for seed, value in enumerate(row):
            total += (value - row.mean() - kept[:, seed].mean() + kept.mean()) ** 2
    noise = st.blocked_noise(values)
    assert noise is not None
    assert noise.freedom == 9
    assert noise.variance == pytest.approx(total / 9)
    assert st.blocked_noise(values[:1]) is None
    assert st.blocked_noise(values[:, :1]) is None


@pytest.mark.parametrize(("rows", "seeds"), [(2, 3), (2, 5), (10, 3)])
def test_coverage_between_the_simulated_cases(rows: int, seeds: int) -> None:
    """The joined quantile alone, on a fine grid of image variances; 30,000 trials, Monte Carlo error 0.0013."""
    rng, freedom, images, trials = np.random.default_rng([rows, seeds]), (rows - 1) * (seeds - 1), 200, 30_000
    for image_sd in (0.05, 0.1, 0.3, 0.4, 0.6, 1.0, 1.6):
        means = rng.normal(0, np.hypot(0.8 / np.sqrt(seeds), image_sd), trials)
        over_seeds = 0.64 / seeds * rng.chisquare(freedom, trials) / freedom
        over_images = image_sd**2 * rng.chisquare(images - 1, trials) / (images - 1)
        halves = [st.half_width(a, c, freedom, images) for a, c in zip(over_seeds, over_images, strict=True)]
        assert 0.93 <= (abs(means) <= halves).mean() <= 0.97, image_sd


def test_hedges_g_is_unbiased_and_needs_two_degrees_of_freedom() -> None:
    rng, n = np.random.default_rng(9), 4
    sample = rng.normal(0.9, 0.6, (200_000, n))
    found = [st.hedges_g(mean, sd, n - 1) for mean, sd in zip(sample.mean(1), sample.std(1, ddof=1), strict=True)]
    assert np.mean(found) == pytest.approx(0.9 / 0.6, abs=0.01)
    assert np.mean(sample.mean(1) / sample.std(1, ddof=1)) > 1.05 * 0.9 / 0.6, "no bias, so why correct it?"
    assert st.hedges_g(1.0, 2.0, 18) == pytest.approx(0.5 * (1 - 3 / (4 * 18 - 1)), rel=1e-3)  # the usual approximation
    assert np.isnan(st.hedges_g(1.0, 0.5, 1))
    assert np.isnan(st.hedges_g(1.0, 0.0, 8))


def test_a_difference_carries_its_effect_size() -> None:
    values = np.random.default_rng(5).normal(size=(4, 3))
    noise, differences = st.blocked_noise(values), values[0] - values[1]
    assert noise is not None
    found = st.paired_interval(differences, np.tile(differences, (20, 1)), 50, noise)
    assert found.effect_size == pytest.approx(st.hedges_g(differences.mean(), noise.paired_sd, 6))
    assert st.apply_holm([found])[0].effect_size == found.effect_size


def test_power_with_rows_against_simulation() -> None:
    rng, rows, n, sd, effect = np.random.default_rng(8), 6, 3, 0.9, 1.5
    mean = rng.normal(effect, sd / np.sqrt(n), 100_000)
    freedom = (rows - 1) * (n - 1)
    spread = sd * np.sqrt(rng.chisquare(freedom, 100_000) / freedom) / np.sqrt(n)
    found = (abs(mean / spread) > stdtrit(freedom, 0.975)).mean()
    assert st.power(effect, sd, n, rows) == pytest.approx(found, abs=0.006)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 → 4·.01, max(.04, 3·.02), max(.06, 2·.03), max(.06, .04)
    np.testing.assert_allclose(st.holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(st.holm(np.array([0.5, np.nan, 0.9])), [1.0, np.nan, 1.0])


def test_holm_against_its_definition() -> None:
    """Adjusted p: the lowest level at which Holm's step-down procedure rejects, tried level by level."""
    rng = np.random.default_rng(10)
    levels = np.arange(1, 5001) / 5000
    for _ in range(10):
        p = rng.integers(1, 1000, 5) / 5000
        rejected_at = np.ones(5)
        for level in levels[::-1]:
            for step, place in enumerate(np.argsort(p, kind="stable")):
                if p[place] * (5 - step) > level + 1e-12:
                    break
                rejected_at[place] = level
        np.testing.assert_allclose(st.holm(p), rejected_at, atol=1e-9)


def test_bold_goes_by_holm_for_targets() -> None:
    raw = [st.Difference(1, 0.1, 2, p, 4) for p in (0.02, 0.03, 0.5)]
    assert [each.shown for each in raw] == [True, True, False]
    assert [each.shown for each in st.apply_holm(raw)] == [False, False, False]


@pytest.mark.parametrize(("effect", "sd", "n"), [(1.5, 0.8, 4), (1.0, 1.1, 5), (0.5, 0.5, 3)])
def test_power_against_simulation(effect: float, sd: float, n: int) -> None:
    sample = np.random.default_rng(4).normal(effect, sd, (200_000, n))
    t = sample.mean(1) / (sample.std(1, ddof=1) / np.sqrt(n))
    assert st.power(effect, sd, n) == pytest.approx((abs(t) > stdtrit(n - 1, 0.975)).mean(), abs=0.005)


def test_detectable_and_seeds_needed_invert_power() -> None:
    assert st.power(st.detectable(0.8, 4), 0.8, 4) == pytest.approx(0.8, abs=1e-6)
    needed = st.seeds_needed(1.0, 0.8)
    assert needed is not None
    assert st.power(1.0, 0.8, needed) >= 0.8 > st.power(1.0, 0.8, needed - 1)
    assert st.power(0.0, 0.8, 4) == pytest.approx(0.05, abs=1e-9)
    assert np.isnan(st.power(1.0, float("nan"), 4))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 20])
def test_power_grows_with_the_effect_all_the_way_out(n: int) -> None:
    values = [st.power(effect, 0.2, n) for effect in np.linspace(0, 12, 300)]
    assert np.isfinite(values).all()
    assert np.diff(values).min() > -1e-9
    assert st.power(1000.0, 0.01, 20) == 1.0
