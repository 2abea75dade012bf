"""Every quantity that is measured, with its unit, its better direction, and the counts that it is computed from.

A quantity is a function of counts that are summed over images. Its value on a test set, the value of a resampling of
that test set, and therefore its interval, all come from that one function. ``docs/metrics.md`` defines each in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis.stats import metrics
from flexseg.analysis.stats.records import TargetRecord
from flexseg.benchmark import Protocol

Floats = NDArray[np.float64]
Counts = Literal[
    "classes", "band", "interior", "conditions", "rings", "boundary_iou", "boundary_f1", "calibration", "nll"
]


@dataclass(frozen=True)
class Quantity:
    """A quantity of one run on one target.

    Attributes:
        name: as in tables and CSV files.
        counts: which counts of a record it is computed from (:meth:`TargetRecord.per_image`).
        function: those counts, summed over images (..., *shape) → (...), as a fraction or in nats.
        description: one line, for captions.
        higher_is_better: the better direction.
        unit: ``%``, or ``nats`` per pixel.
        partial: whether an average leaves out the targets where it is undefined, instead of being undefined itself.
    """

    name: str
    counts: Counts
    function: Callable[[NDArray[Any]], Floats]
    description: str = ""
    higher_is_better: bool = True
    unit: Literal["%", "nats"] = "%"
    partial: bool = False

    @property
    def arrow(self) -> str:
        """The better direction, for the head of a table."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def digits(self) -> int:
        """Decimals in tables for people."""
        return 1 if self.unit == "%" else 2

    def of(self, counts: NDArray[Any]) -> Floats:
        """The quantity in its unit, from counts summed over images. (..., *shape) → (...)"""
        return np.asarray((100.0 if self.unit == "%" else 1.0) * self.function(counts))

    def compute(self, record: TargetRecord) -> float:
        """The quantity in its unit, of one run on one target; NaN where it is undefined."""
        return float(self.of(record.total(self.counts)))


def ring_names(protocol: Protocol) -> list[str]:
    """Names of the rings and of the interior beyond them, from the boundary inwards."""
    if len(protocol.distance_rings) == 3:
        names = ["thin-boundary", "medium-boundary", "thick-boundary"]
    else:
        names = [f"ring (up to {outer} px)" for outer in protocol.distance_rings]
    return [*names, "deep-interior"]


def quantities(protocol: Protocol) -> dict[str, Quantity]:
    """Every quantity that records of ``protocol`` hold, by name, in the order of the tables."""
    band, widths = f"{protocol.boundary_band} px", list(enumerate(protocol.boundary_tolerances))
    found = [
        Quantity("mIoU", "classes", metrics.mean_iou_of_counts, "mean IoU over the classes that occur in the truth"),
        Quantity(
            "frequency-weighted IoU", "classes", metrics.frequency_weighted_iou,
            "IoU of the classes, weighted by their share of truth pixels",
        ),
        Quantity("pixel accuracy", "classes", metrics.pixel_accuracy, "share of right pixels"),
        Quantity("mean class accuracy", "classes", metrics.mean_class_accuracy, "mean recall of the classes"),
        Quantity("worst class IoU", "classes", metrics.worst_class_iou, "lowest IoU of a class that occurs"),
        Quantity(
            "worst condition mIoU", "conditions", metrics.worst_condition_iou,
            "lowest mIoU on the images of one condition",
        ),
        Quantity("boundary mIoU", "band", metrics.mean_iou_of_counts, f"mIoU over pixels within {band} of a boundary"),
        Quantity("interior mIoU", "interior", metrics.mean_iou_of_counts, f"mIoU beyond {band} from any boundary"),
        Quantity("boundary error", "band", metrics.pixel_error, f"wrong pixels within {band} of a boundary", False),
        Quantity(
            "interior error", "interior", metrics.pixel_error, f"wrong pixels beyond {band} from any boundary", False
        ),
    ]  # fmt: skip
    found += [
        Quantity(
            f"boundary IoU ({width} px)", "boundary_iou", pick(metrics.mean_iou_of_counts, place),
            f"IoU of the {width} px inside the outlines, mean over classes",
        )
        for place, width in widths
    ]  # fmt: skip
    found += [
        Quantity(
            f"boundary F1 ({width} px)", "boundary_f1", pick(metrics.mean_boundary_f1, place),
            f"F1 of contour pixels matched within {width} px, mean over classes",
        )
        for place, width in widths
    ]  # fmt: skip
    inner = 0
    for place, (name, outer) in enumerate(zip(ring_names(protocol), [*protocol.distance_rings, None], strict=True)):
        first = f"{inner + 1} to " if outer != inner + 1 else ""
        span = f"at {first}{outer}" if outer else f"beyond {inner}"
        inner = outer or inner
        text = f"wrong pixels {span} px from another class"
        found.append(Quantity(f"{name} error", "rings", pick(metrics.ring_error, place), text, False))
    return {quantity.name: quantity for quantity in [
        *found,
        Quantity(
            "calibration error", "calibration", metrics.expected_calibration_error,
            f"expected calibration error with {protocol.calibration_bins} bins", False,
        ),
        Quantity(
            "negative log-likelihood", "nll", metrics.negative_log_likelihood,
            "mean −log p of the true class, nats a pixel", False, "nats",
        ),
    ]}  # fmt: skip


def pick(function: Callable[[NDArray[Any]], Floats], place: int) -> Callable[[NDArray[Any]], Floats]:
    """One of the values that ``function`` gives in its last axis. (..., *shape) → (...)"""
    return lambda counts: function(counts)[..., place]
