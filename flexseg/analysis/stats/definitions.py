"""What is measured: every quantity with its unit, its better direction, and the counts that it is computed from.

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
        unit: ``%``, or ``nats`` a pixel.
        higher_is_better: the better direction.
        description: one line, for captions.
        counts: which counts of a record it is computed from (:meth:`TargetRecord.per_image`).
        function: those counts, summed over images (..., *shape) → (...), as a fraction or in nats.
        heading: where ``docs/metrics.md`` defines it; differs from the name where the name holds a width.
    """

    name: str
    unit: Literal["%", "nats"]
    higher_is_better: bool
    description: str
    counts: Counts
    function: Callable[[NDArray[Any]], Floats]
    heading: str

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
    """Names of the rings and of what lies beyond them, from the boundary inwards."""
    if len(protocol.rings) == 3:
        names = ["thin-boundary", "medium-boundary", "thick-boundary"]
    else:
        names = [f"ring (up to {outer} px)" for outer in protocol.rings]
    return [*names, "deep-interior"]


def quantities(protocol: Protocol) -> dict[str, Quantity]:
    """Every quantity that records of ``protocol`` hold, by name, in the order of the tables."""
    found: list[Quantity] = []

    def add(
        name: str, better: Literal["higher", "lower"], counts: Counts, function: Callable[[NDArray[Any]], Floats],
        description: str, heading: str = "", unit: Literal["%", "nats"] = "%",
    ) -> None:  # fmt: skip
        found.append(Quantity(name, unit, better == "higher", description, counts, function, heading or name))

    add("mIoU", "higher", "classes", metrics.mean_iou_of_counts, "mean IoU over the classes that occur in the truth")
    add(
        "frequency-weighted IoU", "higher", "classes", metrics.frequency_weighted_iou,
        "IoU of the classes, weighted by their share of truth pixels",
    )  # fmt: skip
    add("pixel accuracy", "higher", "classes", metrics.pixel_accuracy, "share of right pixels")
    add("mean class accuracy", "higher", "classes", metrics.mean_class_accuracy, "mean recall of the classes")
    add("worst class IoU", "higher", "classes", metrics.worst_class_iou, "lowest IoU of a class that occurs")
    add(
        "worst condition mIoU", "higher", "conditions", metrics.worst_condition_iou,
        "lowest mIoU on the images of one condition",
    )  # fmt: skip
    band = f"{protocol.boundary_width} px"
    add("boundary mIoU", "higher", "band", metrics.mean_iou_of_counts, f"mIoU over pixels within {band} of a boundary")
    add("interior mIoU", "higher", "interior", metrics.mean_iou_of_counts, f"mIoU beyond {band} from any boundary")
    add("boundary error", "lower", "band", metrics.pixel_error, f"wrong pixels within {band} of a boundary")
    add("interior error", "lower", "interior", metrics.pixel_error, f"wrong pixels beyond {band} from any boundary")
    for place, width in enumerate(protocol.boundary_widths):
        add(
            f"boundary IoU ({width} px)", "higher", "boundary_iou", _at(place, metrics.mean_iou_of_counts),
            f"IoU of the {width} px inside the outlines, mean over classes", "boundary IoU (d px)",
        )  # fmt: skip
    for place, width in enumerate(protocol.boundary_widths):
        add(
            f"boundary F1 ({width} px)", "higher", "boundary_f1", _at(place, metrics.mean_boundary_f1),
            f"F1 of contour pixels matched within {width} px, mean over classes", "boundary F1 (d px)",
        )  # fmt: skip
    inner = 0
    for place, (name, outer) in enumerate(zip(ring_names(protocol), [*protocol.rings, None], strict=True)):
        span = f"{outer}" if outer == inner + 1 else f"{inner + 1} to {outer}"
        where = f"at {span} px from" if outer else f"beyond {inner} px from"
        heading = "deep-interior error" if outer is None else "thin-, medium- and thick-boundary error"
        add(f"{name} error", "lower", "rings", _ring(place), f"wrong pixels {where} another class", heading)
        inner = outer or inner
    add(
        "calibration error", "lower", "calibration", metrics.expected_calibration_error,
        f"expected calibration error with {protocol.calibration_bins} bins",
    )  # fmt: skip
    add(
        "negative log-likelihood", "lower", "nll", metrics.negative_log_likelihood,
        "mean −log p of the true class, nats a pixel", unit="nats",
    )  # fmt: skip
    return {quantity.name: quantity for quantity in found}


def _at(place: int, function: Callable[[NDArray[Any]], Floats]) -> Callable[[NDArray[Any]], Floats]:
    """``function`` of the counts at one of the widths. (..., W, k, C) → (...)"""
    return lambda counts: function(counts[..., place, :, :])


def _ring(place: int) -> Callable[[NDArray[Any]], Floats]:
    return lambda rings: metrics.ring_error(rings)[..., place]
