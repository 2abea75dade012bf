"""From records to numbers: every quantity of every run on every target, means over seeds, and paired contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis.stats import bootstrap
from flexseg.analysis.stats.definitions import Quantity, quantities
from flexseg.analysis.stats.metrics import class_iou, mean_iou, nanmean
from flexseg.analysis.stats.records import Records, TargetRecord
from flexseg.analysis.stats.statistics import (
    Difference,
    Mean,
    Noise,
    blocked_noise,
    paired_interval,
    t_interval,
    with_holm,
)
from flexseg.benchmark import Benchmark
from flexseg.classes import NUM_CLASSES

Floats = NDArray[np.float64]
Weights = Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """The numbers of a benchmark. ``columns`` are its targets and then its averages.

    ``replicates`` is how often the test images are resampled for mIoU; other quantities take at most
    :data:`~flexseg.analysis.stats.bootstrap.FEWER` of the same draws.
    """

    records: Records
    replicates: int = bootstrap.REPLICATES

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """Everything that is computed from a record, by name: unit, better direction, function."""
        return quantities(self.benchmark.protocol)

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that was measured."""
        return self.records.benchmark

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the targets, then of the averages."""
        return (*self.benchmark.targets, *self.benchmark.averages)

    def members(self, column: str) -> list[str]:
        """The targets that ``column`` is a mean of."""
        return self.benchmark.averages.get(column, [column])

    @cached_property
    def main(self) -> str:
        """The average that verdicts are about: the one over most targets."""
        averages = self.benchmark.averages
        return max(averages, key=lambda name: len(averages[name])) if averages else self.benchmark.targets[0]

    def per_seed(self, row: str, column: str, quantity: str = "mIoU") -> Floats:
        """``quantity`` of ``row`` on ``column``, one value a seed of the benchmark, NaN where there is none. (S,)"""
        return np.array([self._value(row, seed, column, quantity) for seed in self.benchmark.seeds])

    def _value(self, row: str, seed: int, column: str, quantity: str) -> float:
        run = self.records.runs.get((row, seed))
        if run is None:
            return float("nan")
        members = [self._cached(row, seed, target, quantity) for target in self.members(column)]
        return float(np.mean(members))

    def _cached(self, row: str, seed: int, target: str, quantity: str) -> float:
        key = (row, seed, target, quantity)
        if key not in self._values:
            record = self.records.runs[row, seed].targets.get(target)
            self._values[key] = self.quantities[quantity].compute(record) if record else float("nan")
        return self._values[key]

    @cached_property
    def _values(self) -> dict[tuple[str, int, str, str], float]:
        return {}

    def mean(self, row: str, column: str, quantity: str = "mIoU") -> Mean:
        """Mean over seeds with its 95 % t-interval."""
        return t_interval(self.per_seed(row, column, quantity))

    def class_means(self, row: str, target: str) -> list[Mean]:
        """IoU in percent of each class over seeds, one :class:`Mean` a class."""
        return [t_interval(values) for values in self._stack(row, lambda r: 100 * class_iou(r.confusion), target).T]

    def condition_mean(self, row: str, target: str, condition: str) -> Mean:
        """mIoU in percent on the images of one condition of a target, over seeds."""
        values = self._stack(row, lambda r: np.array([100 * mean_iou(r.conditions[condition])]), target)
        return t_interval(values[:, 0]) if len(values) else Mean(float("nan"), float("nan"), 0)

    def _stack(self, row: str, function: Callable[[TargetRecord], Floats], target: str) -> Floats:
        found = [run.targets[target] for run in self.records.of_row(row) if target in run.targets]
        return np.array([function(record) for record in found]) if found else np.full((0, NUM_CLASSES), np.nan)

    def conditions(self, target: str) -> dict[str, int]:
        """The conditions of a target and their numbers of images, from any run that has it."""
        for run in self.records.finished():
            if target in run.targets:
                return run.targets[target].condition_images
        return {}

    @cached_property
    def _weights(self) -> dict[str, NDArray[np.float32]]:
        images = {target: self.images(target) for target in self.benchmark.targets}
        return {target: bootstrap.image_weights(target, n, self.replicates) for target, n in images.items() if n}

    @cached_property
    def _resampled(self) -> dict[tuple[str, int, str, str], Floats]:
        return {}

    def _replicates(self, row: str, seed: int, target: str, quantity: str) -> Floats:
        """``quantity`` under each resampling of the images of ``target``. (B,)"""
        key = (row, seed, target, quantity)
        if key not in self._resampled:
            record, weights = self.records.runs[row, seed].targets[target], self._weights[target]
            wanted = [self.quantities[quantity]]
            if quantity != "mIoU":  # all that are functions of the same sums, at once
                weights = weights[: bootstrap.FEWER]
                wanted = [q for q in self.quantities.values() if q.counts == wanted[0].counts and q.name != "mIoU"]
            sums = bootstrap.resampled(weights, record.per_image(wanted[0].counts))
            self._resampled.update({(row, seed, target, each.name): each.of(sums) for each in wanted})
        return self._resampled[key]

    def contrast(self, weights: Weights, column: str, quantity: str = "mIoU") -> Difference:
        """Σ_row weight · quantity(row) on ``column``, paired over the seeds that all its rows have finished.

        The interval is over seeds and test images, for every quantity.
        """
        values = np.array([weight * self.per_seed(row, column, quantity) for row, weight in weights.items()])
        values = values.reshape(len(weights), len(self.benchmark.seeds)).sum(0)
        chosen = np.flatnonzero(np.isfinite(values))
        if len(chosen) < 2:
            return paired_interval(values[chosen], np.zeros((2, len(chosen))), 2)
        squares = sum(weight**2 for weight in weights.values())
        members = self.members(column)
        replicates = np.zeros((1, len(chosen)))
        for row, weight in weights.items():
            runs = [(row, self.benchmark.seeds[index]) for index in chosen]
            parts = [[self._replicates(*run, target, quantity) for target in members] for run in runs]
            replicates = replicates + weight * np.mean(parts, axis=1).T
        # A resampling may miss all pixels that a quantity is about, e.g. the only images with a thick boundary.
        replicates = replicates[np.isfinite(replicates).all(1)]
        images = min(self.images(target) for target in members)
        return paired_interval(values[chosen], replicates, images, self.noise(column, quantity), squares)

    def images(self, target: str) -> int:
        """How many test images ``target`` has, from any run that has it."""
        return sum(self.conditions(target).values())

    @cached_property
    def _contrasts(self) -> dict[tuple[tuple[tuple[str, float], ...], str], dict[str, Difference]]:
        return {}

    def contrasts(self, weights: Weights, quantity: str = "mIoU") -> dict[str, Difference]:
        """:meth:`contrast` on every column; those of the targets are Holm-adjusted among each other."""
        key = (tuple(weights.items()), quantity)
        if key not in self._contrasts:
            targets = with_holm([self.contrast(weights, target, quantity) for target in self.benchmark.targets])
            found = dict(zip(self.benchmark.targets, targets, strict=True))
            found |= {average: self.contrast(weights, average, quantity) for average in self.benchmark.averages}
            self._contrasts[key] = found
        return self._contrasts[key]

    def against(self, row: str, other: str, quantity: str = "mIoU") -> dict[str, Difference]:
        """``row`` minus ``other`` on every column."""
        return self.contrasts({row: 1.0, other: -1.0}, quantity)

    @property
    def source_only(self) -> str:
        """The first row that is plain training on the source alone; empty if none was selected."""
        rows = self.benchmark.rows
        return next((row for row in rows if self.benchmark.row(row).method == "source_only"), "")

    @cached_property
    def _noise(self) -> dict[tuple[str, str], Noise | None]:
        return {}

    def noise(self, column: str, quantity: str = "mIoU") -> Noise | None:
        """How much one run varies about its row's and its seed's effect, over all rows that have every seed."""
        key = (column, quantity)
        if key not in self._noise:
            rows = [self.per_seed(row, column, quantity) for row in self.benchmark.rows]
            self._noise[key] = blocked_noise(np.array(rows))
        return self._noise[key]

    def class_average(self, row: str) -> Floats:
        """IoU in percent of each class, mean over the targets that have the class. (C,)"""
        means = [[mean.value for mean in self.class_means(row, target)] for target in self.benchmark.targets]
        kept = [values for values in means if values]
        return nanmean(np.array(kept).T) if kept else np.full(NUM_CLASSES, np.nan)
