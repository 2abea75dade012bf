"""A difference from six seeds on: its own variance over seeds, and what follows: intervals, tests, power.

Below six seeds one pair says too little of its own noise, and the residual of all rows stands in for it
(:mod:`flexseg.analysis.stats.statistics`). From six on a pair has five degrees of freedom or more, and needs no rows
beside it: neither the assumption that all are equally noisy, nor an interval that other rows of the study would change.

With S² the variance of the seeds' differences (n − 1 degrees of freedom) and C the variance over test images that the
seeds share (f degrees of freedom), the mean difference d has

    Var(d) = S²/n + C,     d ± t(ν) · √(S²/n + C),     ν = (S²/n + C)² / ((S²/n)²/(n − 1) + C²/f),

Satterthwaite's degrees of freedom (Biometrics Bull. 2, 1946), Student's interval where images do not matter. S² holds
what each seed makes of these images; C does not, so nothing is counted twice. With fewer seeds ν makes the interval too
narrow (92.4 % at three), so the few seeds of a claim get ν = n − 1, which is never too many.
``tests/analysis/test_paired.py`` simulates the coverage: 94.7–95.7 % for 6, 8 and 12 seeds, with and without images
that matter, also for rows whose variances differ by a factor of 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtr, stdtr, stdtrit

from flexseg.analysis.stats.statistics import Difference, hedges_g
from flexseg.benchmark.claims import FEWEST

Floats = NDArray[np.float64]
NAN = float("nan")
LEVEL = 0.95
"""Of the two-sided intervals. A one-sided test that agrees with them is at half of what is left: 2.5 %."""
WANTED = 0.8
"""The power that a study is planned for."""
MOST = 200
"""More seeds than this nobody runs."""


@dataclass(frozen=True)
class Paired:
    """The mean of ``n`` paired differences, with what is known of its error.

    Attributes:
        value: the mean difference; NaN without a seed.
        n: seeds.
        sd: of the difference on one seed; NaN below two.
        shared: C, the variance over test images that the seeds share.
        images: f, the degrees of freedom of C.
    """

    value: float
    n: int
    sd: float
    shared: float = 0.0
    images: float = 1.0

    @classmethod
    def of(cls, differences: Floats, shared: float = 0.0, images: float = 1.0) -> Paired:
        """Of the (n,) differences, one a seed."""
        n = len(differences)
        if not n:
            return cls(NAN, 0, NAN)
        return cls(float(differences.mean()), n, float(differences.std(ddof=1)) if n > 1 else NAN, shared, images)

    def error_with(self, n: int) -> float:
        """The standard error with ``n`` seeds of this variance."""
        return math.sqrt(self.sd**2 / n + self.shared)

    def freedom_with(self, n: int) -> float:
        """Satterthwaite's degrees of freedom with ``n`` seeds of this variance; n − 1 where n is below six."""
        if n < FEWEST:
            return float(n - 1)
        seeds = self.sd**2 / n
        parts = seeds**2 / (n - 1) + self.shared**2 / self.images
        return (seeds + self.shared) ** 2 / parts if parts > 0 else float(n - 1)

    @property
    def error(self) -> float:
        """The standard error of the mean difference; NaN below two seeds."""
        return self.error_with(self.n) if self.n > 1 else NAN

    @property
    def freedom(self) -> float:
        """Degrees of freedom of :attr:`error`; NaN below two seeds."""
        return self.freedom_with(self.n) if self.n > 1 else NAN

    @property
    def half(self) -> float:
        """Half width of the 95 % interval; NaN below two seeds."""
        return float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.error if self.n > 1 else NAN

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + self.half

    def p_above(self, bound: float) -> float:
        """One-sided p of “the true difference is at most ``bound``”: small if it is shown to be larger."""
        return self._tail(self.value - bound)

    def p_below(self, bound: float) -> float:
        """One-sided p of “the true difference is at least ``bound``”: small if it is shown to be smaller."""
        return self._tail(bound - self.value)

    def _tail(self, distance: float) -> float:
        if self.n < 2:
            return NAN
        if self.error <= 0:
            return 0.0 if distance > 0 else 1.0
        return float(stdtr(self.freedom, -distance / self.error))

    def difference(self) -> Difference:
        """With its interval, its two-sided p and its effect size, as tables take it."""
        if self.n < 2:
            return Difference(self.value, NAN, NAN, NAN, self.n)
        p = min(1.0, 2 * min(self.p_above(0.0), self.p_below(0.0)))
        effect_size = hedges_g(self.value, self.sd, self.n - 1)
        return Difference(self.value, self.low, self.high, p, self.n, effect_size=effect_size)

    def power(self, effect: float, n: int = 0) -> float:
        """The chance that ``n`` seeds (by default as many as there are) show a true difference of ``effect``.

        One-sided at 2.5 %, with this variance: noncentral t. It is also the chance that a true difference of 0 is shown
        to be less than ``effect``. NaN while the variance is unknown.
        """
        n = n or self.n
        if self.n < 2 or n < 2:
            return NAN
        error, freedom = self.error_with(n), self.freedom_with(n)
        if error <= 0:
            return 1.0
        critical = float(stdtrit(freedom, (1 + LEVEL) / 2))
        # Far out scipy answers NaN, where the power is 1.
        return float(1 - np.nan_to_num(nctdtr(freedom, effect / error, critical)))

    def detectable(self, wanted: float = WANTED) -> float:
        """The smallest true difference that these seeds show with power ``wanted``; NaN if the variance is unknown."""
        if self.n < 2:
            return NAN
        low, high = 0.0, 1e-9 + 40 * self.error
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.power(middle) < wanted else (low, middle)
        return high

    def seeds_needed(self, effect: float, wanted: float = WANTED) -> int | None:
        """The fewest seeds, from six on, that show ``effect`` with power ``wanted``.

        None if even :data:`MOST` do not (more seeds do not make the images' variance smaller), or if the variance is
        unknown.
        """
        return next((n for n in range(FEWEST, MOST + 1) if self.power(effect, n) >= wanted), None)
