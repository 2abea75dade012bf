"""From records to numbers: every quantity of every run on every target, means over seeds, and paired contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis.stats import bootstrap
from flexseg.analysis.stats.definitions import Quantity, quantities
from flexseg.analysis.stats.metrics import iou_of_counts, mean_iou_of_counts, nanmean
from flexseg.analysis.stats.paired import Paired
from flexseg.analysis.stats.records import Records, RunRecords, TargetRecord
from flexseg.analysis.stats.statistics import (
    Difference,
    Mean,
    Noise,
    apply_holm,
    blocked_noise,
    half_width,
    image_interval,
    paired_interval,
    shared_variance,
    t_interval,
)
from flexseg.benchmark import Benchmark
from flexseg.benchmark.claims import FEWEST

Floats = NDArray[np.float64]
Weights = Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """The numbers of a benchmark. ``columns`` are its targets and then its averages.

    ``replicates`` is how often the test images are resampled for mIoU; other quantities take at most
    :data:`~flexseg.analysis.stats.bootstrap.FEWER` of the same draws. ``extra`` are quantities beyond the protocol's.
    """

    records: Records
    replicates: int = bootstrap.REPLICATES
    extra: tuple[Quantity, ...] = ()
    _values: dict[tuple[str, int, str, str], float] = field(default_factory=dict, init=False, repr=False)
    _resampled: dict[tuple[str, int, str, str], Floats] = field(default_factory=dict, init=False, repr=False)
    _contrasts: dict[Any, dict[str, Difference]] = field(default_factory=dict, init=False, repr=False)
    _noise: dict[tuple[str, str], Noise | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """Everything that is computed from a record, by name: unit, better direction, function."""
        return quantities(self.benchmark.protocol) | {each.name: each for each in self.extra}

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that was measured."""
        return self.records.benchmark

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the targets, then of the averages."""
        return (*self.benchmark.targets, *self.benchmark.averages)

    @cached_property
    def averages(self) -> list[str]:
        """Names of the averages; of the targets where the benchmark has none."""
        return list(self.benchmark.averages) or list(self.benchmark.targets)

    def members(self, column: str) -> list[str]:
        """The targets that ``column`` is a mean of."""
        return self.benchmark.averages.get(column, [column])

    @cached_property
    def main(self) -> str:
        """The average that verdicts are about: the one over most targets."""
        averages = self.benchmark.averages
        return max(averages, key=lambda name: len(averages[name])) if averages else self.benchmark.targets[0]

    def per_seed(self, row: str, column: str, quantity: str = "mIoU") -> Floats:
        """``quantity`` of ``row`` on ``column``, one value per seed of the benchmark, NaN where there is none. (S,)"""
        members = self.members(column)
        values = np.full((len(self.benchmark.seeds), len(members)), np.nan)
        for place, seed in enumerate(self.benchmark.seeds):
            run = self.records.runs.get((row, seed))
            if run is not None and all(target in run.targets for target in members):
                values[place] = [self._value(run, target, quantity) for target in members]
        return self._average(values, quantity)

    def _value(self, run: RunRecords, target: str, quantity: str) -> float:
        key = (run.row, run.seed, target, quantity)
        if key not in self._values:
            self._values[key] = self.quantities[quantity].compute(run.targets[target])
        return self._values[key]

    def _average(self, values: Floats, quantity: str) -> Floats:
        """Mean over targets, the last axis."""
        return nanmean(values) if self.quantities[quantity].partial else np.asarray(values.mean(-1))

    def mean(self, row: str, column: str, quantity: str = "mIoU") -> Mean:
        """Mean over seeds with its 95 % t-interval; of one network from elsewhere the interval over test images."""
        found = t_interval(self.per_seed(row, column, quantity))
        if not found.n or not self.is_fixed(row):
            return found
        replicates = self._column_replicates(row, self.benchmark.seeds_of(row)[0], column, quantity)
        images = min(self.images(target) for target in self.members(column))
        return Mean(found.value, half_width(0.0, float(replicates.var(ddof=1)), 1, images), found.n)

    def is_fixed(self, row: str) -> bool:
        """Whether a row is one network from elsewhere, which has no seeds that could vary."""
        foreign = self.benchmark.rows[row].foreign if row in self.benchmark.rows else None
        return foreign is not None and not foreign.has_seeds

    def class_ious(self, row: str, target: str) -> Floats:
        """IoU in percent of each class, per seed; NaN where there is none. (S, C)"""
        return self._stack(
            row, target, len(self.benchmark.class_set), lambda record: iou_of_counts(record.total("classes"))
        )

    def condition_mious(self, row: str, target: str) -> Floats:
        """mIoU in percent on the images of each condition of a target, per seed; NaN where there is none. (S, K)"""
        width = len(self.conditions(target))
        return self._stack(row, target, width, lambda record: mean_iou_of_counts(record.total("conditions")))

    def _stack(self, row: str, target: str, width: int, function: Callable[[TargetRecord], Floats]) -> Floats:
        runs = [self.records.runs.get((row, seed)) for seed in self.benchmark.seeds]
        found = [run.targets.get(target) if run else None for run in runs]
        return np.array([100 * function(record) if record else np.full(width, np.nan) for record in found])

    def class_means(self, row: str, target: str) -> list[Mean]:
        """IoU in percent of each class over seeds, one :class:`Mean` per class."""
        return [t_interval(values) for values in self.class_ious(row, target).T]

    def class_average(self, row: str) -> Floats:
        """IoU in percent of each class, mean over the targets that have the class. (C,)"""
        means = [[mean.value for mean in self.class_means(row, target)] for target in self.benchmark.targets]
        return nanmean(np.array(means).T)

    def condition_mean(self, row: str, target: str, condition: str) -> Mean:
        """mIoU in percent on the images of one condition of a target, over seeds."""
        return t_interval(self.condition_mious(row, target)[:, list(self.conditions(target)).index(condition)])

    def conditions(self, target: str) -> dict[str, int]:
        """The conditions of a target and their numbers of images, from any run that has it."""
        found = (run.targets[target].conditions for run in self.records.finished() if target in run.targets)
        return next(found, {})

    def images(self, target: str) -> int:
        """How many test images ``target`` has, from any run that has it."""
        return sum(self.conditions(target).values())

    @cached_property
    def _weights(self) -> dict[str, NDArray[np.float32]]:
        images = {target: self.images(target) for target in self.benchmark.targets}
        return {target: bootstrap.image_weights(target, n, self.replicates) for target, n in images.items() if n}

    def _replicates(self, row: str, seed: int, target: str, quantity: str) -> Floats:
        """``quantity`` under each resampling of the images of ``target``. (B,)"""
        key = (row, seed, target, quantity)
        if key not in self._resampled:
            record, weights = self.records.runs[row, seed].targets[target], self._weights[target]
            wanted = [self.quantities[quantity]]
            if quantity != "mIoU":  # all that are functions of the same sums, at once
                weights = weights[: bootstrap.FEWER]
                wanted = [q for q in self.quantities.values() if q.counts == wanted[0].counts and q.name != "mIoU"]
            sums = bootstrap.resample(weights, record.per_image(wanted[0].counts))
            self._resampled.update({(row, seed, target, each.name): each.of(sums) for each in wanted})
        return self._resampled[key]

    def contrast(self, weights: Weights, column: str, quantity: str = "mIoU", images: int = 0) -> Difference:
        """Σ_row weight · quantity(row) on ``column``, paired over the seeds that all its rows have finished.

        The interval is over seeds and test images; from six seeds on, the variance over seeds is that of this very
        difference, below it is pooled over all rows. ``images``: how many of them the quantity is about, by default all
        (of the target with the fewest).
        """
        values = np.array([weight * self._on_seeds(row, column, quantity) for row, weight in weights.items()])
        values = values.reshape(len(weights), len(self.benchmark.seeds)).sum(0)
        chosen = np.flatnonzero(np.isfinite(values))
        squares = sum(weight**2 for row, weight in weights.items() if not self.is_fixed(row))
        if squares == 0:  # single networks alone: their difference is the same on every seed
            chosen = chosen[:1]
        elif len(chosen) < 2:
            return paired_interval(values[chosen], np.zeros((2, len(chosen))), 2)
        members = self.members(column)
        replicates = np.zeros((1, len(chosen)))
        for row, weight in weights.items():
            seeds = self.benchmark.seeds_of(row)
            runs = [(row, seeds[0] if self.is_fixed(row) else self.benchmark.seeds[index]) for index in chosen.tolist()]
            parts = [self._column_replicates(*run, column, quantity) for run in runs]
            replicates = replicates + weight * np.transpose(parts)
        # A resampling may miss all pixels that a quantity is about, e.g. the only images with a thick boundary.
        replicates = replicates[np.isfinite(replicates).all(1)]
        images = images or min(self.images(target) for target in members)
        if squares == 0:
            return image_interval(values[chosen], replicates, images)
        if len(chosen) >= FEWEST:
            return Paired.of(values[chosen], shared_variance(replicates), max(images - 1, 1)).difference()
        return paired_interval(values[chosen], replicates, images, self.noise(column, quantity), squares)

    def _on_seeds(self, row: str, column: str, quantity: str) -> Floats:
        """:meth:`per_seed`; a single network from elsewhere is the same on every seed of the others. (S,)"""
        values = self.per_seed(row, column, quantity)
        if self.is_fixed(row):
            return np.full_like(values, values[np.isfinite(values)][0] if np.isfinite(values).any() else np.nan)
        return values

    def _column_replicates(self, row: str, seed: int, column: str, quantity: str) -> Floats:
        """``quantity`` of a run on a target or average under each resampling of the images. (B,)"""
        parts = [self._replicates(row, seed, target, quantity) for target in self.members(column)]
        return self._average(np.transpose(parts), quantity)

    def contrasts(self, weights: Weights, quantity: str = "mIoU") -> dict[str, Difference]:
        """:meth:`contrast` on every column; those of the targets are Holm-adjusted among each other."""
        key = (tuple(weights.items()), quantity)
        if key not in self._contrasts:
            targets = apply_holm([self.contrast(weights, target, quantity) for target in self.benchmark.targets])
            found = dict(zip(self.benchmark.targets, targets, strict=True))
            found |= {average: self.contrast(weights, average, quantity) for average in self.benchmark.averages}
            self._contrasts[key] = found
        return self._contrasts[key]

    def against(self, row: str, other: str, quantity: str = "mIoU") -> dict[str, Difference]:
        """``row`` minus ``other`` on every column."""
        return self.contrasts({row: 1.0, other: -1.0}, quantity)

    @property
    def own_variance(self) -> bool:
        """Whether so many seeds are planned that a difference has the variance of its own."""
        return len(self.benchmark.seeds) >= FEWEST

    def paired(self, row: str, other: str, column: str) -> Paired:
        """``row`` minus ``other`` in mIoU, with its variance over seeds alone."""
        values = self.per_seed(row, column) - self.per_seed(other, column)
        return Paired.of(values[np.isfinite(values)])

    @property
    def source_only(self) -> str:
        """The first row that is plain training on the source alone; empty if none was selected."""
        rows = self.benchmark.rows
        return next((row for row in rows if self.benchmark.row(row).method == "source_only"), "")

    def noise(self, column: str, quantity: str = "mIoU") -> Noise | None:
        """How much one run varies about its row's and its seed's effect, over all rows that have every seed."""
        key = (column, quantity)
        if key not in self._noise:
            rows = [self.per_seed(row, column, quantity) for row in self.benchmark.rows]
            self._noise[key] = blocked_noise(np.array(rows))
        return self._noise[key]
