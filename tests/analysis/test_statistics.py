"""Intervals that keep what they promise, Holm by hand, power against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from flexseg.analysis import statistics as st


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


def _coverage(seeds: int, image_sd: float, trials: int = 3000) -> tuple[float, float, float]:
    """How often the truth (0) is covered: our interval, the percentile bootstrap, the t-interval over seeds alone.

    Two-way layout: d_si = v_s + a_i + e_si, seed sd 0.8, N = 100 images; ``image_sd`` is the sd of the mean of the a_i.
    """
    rng = np.random.default_rng([seeds, int(100 * image_sd)])
    images, replicates = 100, 200
    weights = rng.multinomial(images, np.full(images, 1 / images), size=replicates) / images
    picks = rng.integers(0, seeds, (replicates, seeds))
    hits = np.zeros(3)
    for _ in range(trials):
        effects = rng.normal(0, 0.8, seeds)
        by_image = rng.normal(0, image_sd * np.sqrt(images), (images, 1))
        by_both = rng.normal(0, 0.2 * np.sqrt(images), (images, seeds))
        scores = effects + by_image + by_both
        point, resampled = scores.mean(0), weights @ scores
        half = st.half_width(point.var(ddof=1) / seeds, st.shared_variance(resampled), seeds - 1, images)
        raw = np.quantile(resampled[np.arange(replicates)[:, None], picks].mean(1), [0.025, 0.975])
        plain = st.t_interval(point)
        hits += [abs(point.mean()) <= half, raw[0] <= 0 <= raw[1], abs(plain.value) <= plain.half]
    ours_, raw_, plain_ = hits / trials
    return float(ours_), float(raw_), float(plain_)


@pytest.mark.parametrize("seeds", [3, 4, 5])
@pytest.mark.parametrize("image_sd", [0.0, 0.2, 0.4])
def test_coverage(seeds: int, image_sd: float) -> None:
    ours, raw, plain = _coverage(seeds, image_sd)
    print(f"n = {seeds}, image sd {image_sd}: ours {ours:.3f}, percentile bootstrap {raw:.3f}, seeds only {plain:.3f}")
    assert 0.93 <= ours <= 0.97 + 0.0062  # two standard errors of the simulation at 0.97
    assert raw < 0.935, "the plain percentile bootstrap would do, so why not use it?"
    if image_sd == 0.4:
        assert plain < 0.945, "ignoring the images would do, so why resample them?"


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


@pytest.mark.parametrize("image_sd", [0.0, 0.4])
def test_coverage_with_ten_rows_and_three_seeds(image_sd: float) -> None:
    rng, rows, seeds, images, trials, hits = np.random.default_rng(7), 10, 3, 200, 2000, 0
    for _ in range(trials):
        table = rng.normal(0, 0.8 / np.sqrt(2), (rows, seeds)) + rng.normal(0, 1.0, seeds)
        shared = rng.normal(0, image_sd)  # what the draw of the images adds to this difference, for all seeds
        noise = st.blocked_noise(table)
        assert noise is not None
        half = st.half_width(noise.variance * 2 / seeds, image_sd**2, noise.freedom, images)
        hits += abs((table[0] - table[1]).mean() + shared) <= half
    assert 0.93 <= hits / trials <= 0.97 + 0.008


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


def test_bold_goes_by_holm_for_targets() -> None:
    raw = [st.Difference(1, 0.1, 2, p, 4) for p in (0.02, 0.03, 0.5)]
    assert [each.shown for each in raw] == [True, True, False]
    assert [each.shown for each in st.with_holm(raw)] == [False, False, False]


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
