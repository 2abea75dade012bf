"""From records to numbers: mIoU of every run on every target and average, means over seeds, and paired contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis import bootstrap
from flexseg.analysis.metrics import class_iou, expected_calibration_error, mean_iou, nanmean, pixel_error
from flexseg.analysis.records import Records, TargetRecord
from flexseg.analysis.statistics import Difference, Mean, Noise, blocked_noise, paired_interval, t_interval, with_holm
from flexseg.benchmark import Benchmark

Floats = NDArray[np.float64]
Weights = Mapping[str, float]

QUANTITIES: dict[str, Callable[[TargetRecord], float]] = {
    "mIoU": lambda record: 100 * float(mean_iou(record.confusion)),
    "boundary mIoU": lambda record: 100 * float(mean_iou(record.boundary)),
    "interior mIoU": lambda record: 100 * float(mean_iou(record.confusion - record.boundary)),
    "boundary error": lambda record: 100 * pixel_error(record.boundary),
    "interior error": lambda record: 100 * pixel_error(record.confusion - record.boundary),
    "calibration error": lambda record: 100 * expected_calibration_error(record.calibration),
    "negative log-likelihood": lambda record: record.nll,
}
"""What is computed from the record of one run on one target; percent, but the last, which is nats a pixel."""


@dataclass(frozen=True)
class Scores:
    """The numbers of a benchmark. ``columns`` are its targets and then its averages."""

    records: Records
    replicates: int = bootstrap.REPLICATES

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
            self._values[key] = QUANTITIES[quantity](record) if record else float("nan")
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
        return np.array([function(record) for record in found]) if found else np.full((0, 19), np.nan)

    def conditions(self, target: str) -> dict[str, int]:
        """The conditions of a target and their numbers of images, from any run that has it."""
        for run in self.records.finished():
            if target in run.targets:
                return run.targets[target].condition_images
        return {}

    @cached_property
    def _replicates(self) -> dict[tuple[str, int, str], Floats]:
        weights: dict[str, NDArray[np.float32]] = {}
        found = {}
        for run in self.records.finished():
            for target, record in run.targets.items():
                if target not in weights:
                    weights[target] = bootstrap.image_weights(target, len(record.images), self.replicates)
                found[run.row, run.seed, target] = 100 * bootstrap.miou_replicates(weights[target], record.counts)
        return found

    def contrast(self, weights: Weights, column: str) -> Difference:
        """Σ_row weight · mIoU(row) on ``column``, paired over the seeds that all its rows have finished."""
        values = np.array([weight * self.per_seed(row, column) for row, weight in weights.items()])
        values = values.reshape(len(weights), len(self.benchmark.seeds)).sum(0)
        chosen = np.flatnonzero(np.isfinite(values))
        if len(chosen) < 2:
            return paired_interval(values[chosen], np.zeros((2, len(chosen))), 2)
        squares = sum(weight**2 for weight in weights.values())
        members = self.members(column)
        replicates = np.zeros((self.replicates, len(chosen)))
        for row, weight in weights.items():
            for place, index in enumerate(chosen):
                seed = self.benchmark.seeds[index]
                parts = [self._replicates[row, seed, target] for target in members]
                replicates[:, place] += weight * sum(parts) / len(members)
        images = min(self.images(target) for target in members)
        return paired_interval(values[chosen], replicates, images, self.noise(column), squares)

    def images(self, target: str) -> int:
        """How many test images ``target`` has, from any run that has it."""
        return sum(self.conditions(target).values())

    @cached_property
    def _contrasts(self) -> dict[tuple[tuple[str, float], ...], dict[str, Difference]]:
        return {}

    def contrasts(self, weights: Weights) -> dict[str, Difference]:
        """:meth:`contrast` on every column; those of the targets are Holm-adjusted among each other."""
        key = tuple(weights.items())
        if key not in self._contrasts:
            targets = with_holm([self.contrast(weights, target) for target in self.benchmark.targets])
            found = dict(zip(self.benchmark.targets, targets, strict=True))
            found |= {average: self.contrast(weights, average) for average in self.benchmark.averages}
            self._contrasts[key] = found
        return self._contrasts[key]

    def against(self, row: str, other: str) -> dict[str, Difference]:
        """``row`` minus ``other`` on every column."""
        return self.contrasts({row: 1.0, other: -1.0})

    def noise(self, column: str) -> Noise | None:
        """How much one run varies about its row's and its seed's effect, over all rows that have every seed."""
        return blocked_noise(np.array([self.per_seed(row, column) for row in self.benchmark.rows]))

    def class_average(self, row: str) -> Floats:
        """IoU in percent of each class, mean over the targets that have the class. (C,)"""
        means = [[mean.value for mean in self.class_means(row, target)] for target in self.benchmark.targets]
        kept = [values for values in means if values]
        return nanmean(np.array(kept).T) if kept else np.full(19, np.nan)
