"""Intervals, paired tests, multiplicity and power. Pure functions of arrays; ``n`` seeds, ``B`` replicates.

The interval of a difference, below six seeds
---------------------------------------------
(From six on a difference has a variance of its own: :mod:`flexseg.analysis.stats.paired`.)

Seeds and test images are both samples: a difference d of two rows (or any contrast of rows) should hold for another
seed *and* for other images of the domain. Paired by seed, on images that all runs share, d_s (s = 1..n) has

    Var(mean d) = σ²_seed / n + σ²_image,

where σ²_seed is what varies between seeds on these images and σ²_image is what all seeds share on these images. The
plain hierarchical percentile bootstrap estimates the first term too small by (n−1)/n and ignores that n is tiny: with
3–5 seeds its 95 % interval covers 75–92 %. We therefore take from the resampling only what it is good at:

* seeds: all rows run the same seeds, a randomised complete block design: m_rs = row_r + seed_s + e_rs. The residual
  variance σ² of the two-way table has (R−1)(n−1) degrees of freedom for R rows, and a contrast Σ w_r m_r has
  A = σ² Σ w_r² / n. It is assumed that runs of all rows are equally noisy. With two rows this is S²/n of the paired
  differences and n − 1 degrees of freedom; with ten rows and three seeds there are 18 instead of 2, which is what
  makes three seeds say something;
* images: C = the mean covariance between two seeds' replicates under common image weights (``bootstrap.py``). The
  variance of the mean itself would count the seed × image interaction twice, since S² holds it already;
* a network from elsewhere has no seeds that could vary: it is the same on every seed of the rows that it is compared
  with, and Σ w_r² is taken over the other rows. The interval is about this network, not about its method;
* the two are joined by a weighted quantile, with w = A / (A + C):
      half width = √(A + C) · (w·√t((R−1)(n−1)) + (1 − w)·√t(N−1))²,
  which is Student's interval when images do not matter and the image bootstrap's when seeds do not. Cochran and Cox
  weigh the quantiles themselves; their interval is too wide where both terms matter (97.2 % at n = 3 and two rows).
  Satterthwaite's degrees of freedom make it too narrow (92.4 %); weights in the exponents do so for two seeds (91.8 %).

Simulated coverage (``tests/analysis/test_statistics.py``; seed sd 0.8, shared image sd 0–1.6): 94.9–96.9 % for
n = 3, 4, 5 and two rows, 95.0–95.5 % for ten. Source: Cochran & Cox, *Experimental Designs*, 2nd ed. 1957, § 4.2
(blocks) and § 4.14 (quantiles); Davison & Hinkley, *Bootstrap Methods*, § 3.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, nctdtr, stdtrit

Floats = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class Mean:
    """A mean over ``n`` seeds with the half width of its 95 % t-interval (NaN for one seed)."""

    value: float
    half: float
    n: int

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.value + self.half


@dataclass(frozen=True)
class Difference:
    """A paired difference over ``n`` common seeds: 95 % interval, p-value, and p after Holm (NaN if not corrected).

    ``effect_size`` is the difference in standard deviations of a paired difference on one seed (:func:`hedges_g`).
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    p_holm: float = NAN
    effect_size: float = NAN

    @property
    def shown(self) -> bool:
        """Whether a difference was shown: the interval excludes zero, after Holm if it was applied."""
        return (self.p if math.isnan(self.p_holm) else self.p_holm) < 0.05


def t_interval(values: Floats) -> Mean:
    """Mean and half width t(0.975; n−1)·s/√n over the finite ones of ``values`` (n,); half is NaN for n < 2."""
    values = values[np.isfinite(values)]
    n = len(values)
    if not n:
        return Mean(NAN, NAN, 0)
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else NAN
    return Mean(float(values.mean()), half, n)


def shared_variance(replicates: Floats) -> float:
    """Variance that all seeds share: :func:`seed_covariance`, at least 0. (B, n) →"""
    return max(0.0, seed_covariance(replicates))


def seed_covariance(replicates: Floats) -> float:
    """The mean covariance between two seeds' replicates, an estimate of their shared variance that may be negative.

    With Σ the (n, n) covariance of the replicates: (1ᵀΣ1 − tr Σ) / (n(n−1)).

    Args:
        replicates: (B, n) a paired difference under the image weights of each replicate.
    """
    n = replicates.shape[1]
    total = float(replicates.sum(1).var(ddof=1))
    own = float(replicates.var(axis=0, ddof=1).sum())
    return (total - own) / (n * (n - 1))


@dataclass(frozen=True)
class Noise:
    """The variance of one run about its row's and its seed's effect, with its degrees of freedom."""

    variance: float
    freedom: int

    @property
    def paired_sd(self) -> float:
        """The standard deviation of the difference of two rows on one seed."""
        return math.sqrt(2 * self.variance)


def blocked_noise(values: Floats) -> Noise | None:
    """Residual variance of a two-way table (rows, seeds): Σ (m_rs − m_r. − m_.s + m_..)² / ((R−1)(n−1)).

    Rows with a missing seed are left out; None for fewer than two rows or two seeds.
    """
    complete = values[np.isfinite(values).all(1)]
    rows, seeds = complete.shape
    if rows < 2 or seeds < 2:
        return None
    residuals = complete - complete.mean(1, keepdims=True) - complete.mean(0) + complete.mean()
    freedom = (rows - 1) * (seeds - 1)
    return Noise(float(np.square(residuals).sum()) / freedom, freedom)


def paired_interval(
    differences: Floats,
    replicates: Floats,
    images: int,
    noise: Noise | None = None,
    squares: float = 2.0,
    level: float = 0.95,
) -> Difference:
    """Estimate, interval and p-value of a paired difference; see the head of this module.

    Args:
        differences: (n,) the difference on the full test set, one per seed.
        replicates: (B, n) the same under the image weights of each replicate.
        images: N, how many images were resampled (the smallest of several targets).
        noise: σ² of all rows; None takes the variance of these differences themselves.
        squares: Σ w² of the contrast's weights, 2 for a plain difference.
        level: of the two-sided interval.
    """
    n = len(differences)
    if not n:
        return Difference(NAN, NAN, NAN, NAN, 0)
    value = float(differences.mean())
    if n == 1:
        return Difference(value, NAN, NAN, NAN, 1)
    noise = noise or Noise(float(differences.var(ddof=1)) / squares, n - 1)
    seeds, shared = noise.variance * squares / n, shared_variance(replicates)
    half = half_width(seeds, shared, noise.freedom, images, level)
    p = _p_value(abs(value), seeds, shared, noise.freedom, images)
    effect_size = hedges_g(value, math.sqrt(noise.variance * squares), noise.freedom)
    return Difference(value, value - half, value + half, p, n, effect_size=effect_size)


def image_interval(differences: Floats, replicates: Floats, images: int) -> Difference:
    """Estimate, interval and p-value of a difference between two fixed networks: over test images alone.

    Args:
        differences: (1,) on the full test set. replicates: (B, 1) under the image weights of each replicate.
        images: N, how many images were resampled.
    """
    if not len(differences):
        return Difference(NAN, NAN, NAN, NAN, 0)
    value, shared = float(differences[0]), float(replicates.var(ddof=1))
    half = half_width(0.0, shared, 1, images)
    return Difference(value, value - half, value + half, _p_value(abs(value), 0.0, shared, 1, images), 1)


def half_width(seeds: float, shared: float, freedom: int, images: int, level: float = 0.95) -> float:
    """Half width of the two-sided interval of a mean difference; see the head of this module.

    Args:
        seeds: A, the seeds' variance of the mean.
        shared: C, the image variance that the seeds share.
        freedom: degrees of freedom of A.
        images: N, number of images.
    """
    total = seeds + shared
    if total <= 0:
        return 0.0
    quantile = (1 + level) / 2
    share = seeds / total
    roots = [math.sqrt(max(0.0, stdtrit(f, quantile))) for f in (freedom, max(images - 1, 1))]
    return math.sqrt(total) * (share * roots[0] + (1 - share) * roots[1]) ** 2


def _p_value(size: float, seeds: float, shared: float, freedom: int, images: int) -> float:
    """The level at which the interval just touches zero, found by bisection."""
    if size == 0:
        return 1.0
    if seeds + shared <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if half_width(seeds, shared, freedom, images, 1 - middle) > size:
            low = middle
        else:
            high = middle
    return high


def hedges_g(value: float, sd: float, freedom: int) -> float:
    """Standardised paired difference d_z = value/sd (Cohen 1988, § 2.3.5), without its bias in small samples.

    Times J(f) = Γ(f/2) / (√(f/2)·Γ((f−1)/2)), about 1 − 3/(4f − 1) (Hedges, J. Educ. Stat. 1981). NaN for
    f < 2, where d_z has no mean, and for sd = 0.

    Args:
        value: mean paired difference. sd: of a paired difference on one seed. freedom: f, degrees of freedom of sd.
    """
    if freedom < 2 or not sd > 0:
        return NAN
    correction = math.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return value / sd * correction


def holm(p_values: Floats) -> Floats:
    """Holm's step-down adjustment (Scand. J. Statist. 1979). NaN stay NaN and are no hypotheses. (m,) → (m,)"""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def apply_holm(differences: list[Difference]) -> list[Difference]:
    """The same differences, Holm-adjusted among themselves."""
    adjusted = holm(np.array([difference.p for difference in differences]))
    return [replace(difference, p_holm=float(p)) for difference, p in zip(differences, adjusted, strict=True)]


def power(effect: float, sd: float, n: int, rows: int = 2) -> float:
    """Power of the two-sided test at 5 % of a difference of two of ``rows`` rows, with ``n`` seeds.

    1 − F(t; f, δ) + F(−t; f, δ), F the noncentral t distribution, f = (rows−1)(n−1), δ = effect·√n/sd (Cohen 1988,
    § 2); ``sd`` is the standard deviation of a paired difference. Two rows make it the paired t-test.
    """
    if n < 2 or not math.isfinite(sd):
        return NAN
    if sd <= 0:
        return 1.0
    shift, freedom = effect * math.sqrt(n) / sd, (rows - 1) * (n - 1)
    critical = float(stdtrit(freedom, 0.975))
    below, wrong_side = nctdtr(freedom, shift, critical), nctdtr(freedom, shift, -critical)
    # Far out scipy answers NaN: for the wrong side when it is below 1e-16, for the other when the power is 1.
    return float(1 - np.nan_to_num(below) + np.nan_to_num(wrong_side))


def detectable(sd: float, n: int, rows: int = 2, wanted: float = 0.8) -> float:
    """The smallest difference that ``n`` seeds show with power ``wanted``."""
    if n < 2 or not math.isfinite(sd):
        return NAN
    low, high = 0.0, 1e-9 + sd * 37 / math.sqrt(n)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, sd, n, rows) < wanted else (low, middle)
    return high


def seeds_needed(effect: float, sd: float, rows: int = 2, wanted: float = 0.8, most: int = 1000) -> int | None:
    """The fewest seeds that show ``effect`` with power ``wanted``; None if more than ``most``, or if sd is unknown."""
    return next((n for n in range(2, most + 1) if power(effect, sd, n, rows) >= wanted), None)
