"""The quality of predictions as counts per image, from which every table is computed without a rerun.

All distances are chessboard distances in pixels of the label: a square window of radius d reaches distance d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexseg.benchmark import Protocol
from flexseg.classes import CLASS_SETS, IGNORE, NUM_CLASSES, ClassSet
from flexseg.components.boundary import granularity, over_window


@dataclass(frozen=True)
class Truth:
    """A batch of labels and its boundaries.

    ``classes`` (B, H, W) int64, void is class 19; ``near`` (B, H, W) int64, the index of the smallest of the
    ``distances`` at which another class lies, ``len(distances)`` for the interior and void; ``contours``, for each of
    the protocol's widths, (B, H, W) int32: bit c is set where a contour pixel of class c lies within the width.
    """

    classes: Tensor
    near: Tensor
    contours: tuple[Tensor, ...]
    protocol: Protocol

    @property
    def distances(self) -> list[int]:
        """The distances in pixels between which ``near`` distinguishes, rising."""
        return distances(self.protocol)


def distances(protocol: Protocol) -> list[int]:
    """All distances that a protocol asks for, rising; 1, which makes a contour, is always among them."""
    return sorted({1, protocol.boundary_band, *protocol.distance_rings, *protocol.boundary_tolerances})


def margin(protocol: Protocol) -> int:
    """How many rows above and below a pixel its counts depend on."""
    # A contour that matches a pixel is within the largest width, and the row beyond it makes it a contour.
    return max(*distances(protocol), protocol.boundary_tolerances[-1] + 1)


def describe_truth(labels: Tensor, protocol: Protocol, rows: slice = slice(None)) -> Truth:
    """Prepare labels (B, H, W) of integers, void 255, for counting.

    Only pixels of ``rows`` will be counted: an image that is counted in stripes, each with ``margin`` more rows above
    and below, has the same counts as one that is counted at once.
    """
    classes = labels.long().masked_fill(labels == IGNORE, NUM_CLASSES)
    merged = class_set(protocol)
    if merged is not None:
        classes = torch.tensor([*merged.merge, NUM_CLASSES], device=classes.device)[classes]
        labels = classes.masked_fill(classes == NUM_CLASSES, IGNORE)
    near = _near(labels, distances(protocol))
    contours = _contours(classes, near, protocol.boundary_tolerances)
    if rows != slice(None):
        counted = torch.full_like(classes, NUM_CLASSES)
        counted[:, rows] = classes[:, rows]
        classes = counted
    return Truth(classes, near, contours, protocol)


def class_set(protocol: Protocol) -> ClassSet | None:
    """The coarser set of classes that a protocol scores, or None if it scores all 19."""
    classes = CLASS_SETS[protocol.classes or "cityscapes19"]
    return classes if classes.coarser else None


def count(truth: Truth, log_p: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The columns of a batch's records (each (B, …), int64 if not said otherwise) and its predictions (B, H, W) int64.

    ``pixels`` () are the valid ones; ``confusion`` and ``boundary_confusion`` (361) truth × prediction, of the whole
    image and the band; ``ring_pixels`` and ``ring_correct`` (R+1) by ring, the interior last; ``boundary_iou``
    (W·3·19): pixels in both bands, in the truth's, in the prediction's; ``boundary_f1`` (W·4·19): contour pixels of the
    prediction, the matched ones of these, those of the truth, the matched ones of these; ``calibration_count``,
    ``_correct`` and ``_confidence`` (bins, the last float64); ``nll_sum`` () float64, nats. Pixels that are void in the
    truth are not counted. Where the protocol scores a coarser set of classes, the predicted class is the one that the
    most probable of the 19 is merged into, and the probability of a class is that of all its members.

    Args:
        log_p: (B, H, W, 19) float32 log-probabilities, the classes last.
    """
    protocol = truth.protocol
    best, predictions = log_p.max(dim=-1)
    merged = class_set(protocol)
    if merged is not None:
        log_p = _merge(log_p, merged)
        predictions = torch.tensor(merged.merge, device=predictions.device)[predictions]
        best = log_p.gather(-1, predictions.unsqueeze(-1)).squeeze(-1)
    columns = _confusions(truth, predictions)
    columns |= _boundaries(truth, predictions)
    columns |= _calibration(truth, predictions, best.exp(), protocol.calibration_bins)
    valid = truth.classes < NUM_CLASSES
    nll = log_p.gather(-1, truth.classes.masked_fill(~valid, 0).unsqueeze(-1)).squeeze(-1)
    columns["nll_sum"] = -torch.where(valid, nll, 0.0).double().sum(dim=(1, 2))
    return columns, predictions


def _merge(log_p: Tensor, classes: ClassSet) -> Tensor:
    """Log-probabilities (…, 19) of the merged classes, each at the id it goes by, −∞ elsewhere."""
    merged = torch.full_like(log_p, -torch.inf)
    for train_id, members in classes.members.items():
        merged[..., train_id] = log_p[..., list(members)].logsumexp(dim=-1)
    return merged


def _confusions(truth: Truth, predictions: Tensor) -> dict[str, Tensor]:
    reach = truth.distances
    counts = _histogram((truth.near, len(reach) + 1), (truth.classes, NUM_CLASSES + 1), (predictions, NUM_CLASSES))[
        :, :, :NUM_CLASSES
    ]
    pixels, right = counts.sum(dim=(2, 3)), counts.diagonal(dim1=2, dim2=3).sum(dim=2)
    inner = [reach.index(width) + 1 for width in truth.protocol.distance_rings]
    edges = list(zip([0, *inner], [*inner, len(reach) + 1], strict=True))
    return {
        "pixels": pixels.sum(dim=1),
        "confusion": counts.sum(dim=1).flatten(1),
        "boundary_confusion": counts[:, : reach.index(truth.protocol.boundary_band) + 1].sum(dim=1).flatten(1),
        "ring_pixels": torch.stack([pixels[:, low:high].sum(dim=1) for low, high in edges], dim=1),
        "ring_correct": torch.stack([right[:, low:high].sum(dim=1) for low, high in edges], dim=1),
    }


def _boundaries(truth: Truth, predictions: Tensor) -> dict[str, Tensor]:
    """Boundary IoU (Cheng et al., CVPR 2021) and boundary F1 (Csurka et al., BMVC 2013), as counts for each width."""
    widths, reach = truth.protocol.boundary_tolerances, truth.distances
    places, count = [reach.index(width) for width in widths], len(reach)
    near = _near(predictions, reach)
    valid = truth.classes < NUM_CLASSES
    agreed = torch.where(predictions == truth.classes, truth.classes, NUM_CLASSES)
    shown = torch.where(valid, predictions, NUM_CLASSES)
    classes = NUM_CLASSES + 1
    bands = [
        _histogram((levels, count + 1), (which, classes)).cumsum(dim=1)[:, places, :NUM_CLASSES]
        # A pixel is in both bands of width d if the larger of its two distances is at most d.
        for levels, which in ((torch.maximum(near, truth.near), agreed), (truth.near, truth.classes), (near, shown))
    ]
    found = []
    for of, contour_of, others in (
        (shown, near, truth.contours),
        (truth.classes, truth.near, _contours(predictions, near, widths)),
    ):
        # Contours grow with the width, so a pixel is matched from some width on: count by how many widths miss it.
        missed = torch.zeros_like(of)
        for contour in others:
            missed += ((contour >> of.clamp_max(NUM_CLASSES - 1)) & 1) == 0
        which = torch.where(contour_of == 0, of, NUM_CLASSES)
        matched = _histogram((missed, len(widths) + 1), (which, classes))[:, :, :NUM_CLASSES].cumsum(dim=1)
        found += [matched[:, -1:].expand(-1, len(widths), -1), matched[:, :-1]]
    return {
        "boundary_iou": torch.stack(bands, dim=2).flatten(1),
        "boundary_f1": torch.stack(found, dim=2).flatten(1),
    }


def _calibration(truth: Truth, predictions: Tensor, confidence: Tensor, bins: int) -> dict[str, Tensor]:
    """Reliability bins that divide [0, 1] evenly by the largest probability (Guo et al., ICML 2017)."""
    valid = truth.classes < NUM_CLASSES
    place = (confidence * bins).long().clamp_max(bins - 1).masked_fill(~valid, bins)
    counts = _histogram(((predictions == truth.classes).long(), 2), (place, bins + 1))[..., :bins]
    total = _histogram((place, bins + 1), weights=confidence)[:, :bins]
    return {
        "calibration_count": counts.sum(dim=1),
        "calibration_correct": counts[:, 1],
        "calibration_confidence": total,
    }


def _near(classes: Tensor, reach: Sequence[int]) -> Tensor:
    """The index of the smallest distance of ``reach`` at which another class lies, ``len(reach)`` if none does."""
    level = granularity(classes, [2 * distance + 1 for distance in reach]).long()
    return level.masked_fill_(level < 0, len(reach))


def _contours(classes: Tensor, near: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """For each width (B, H, W) int32, bit c set where a contour pixel of class c lies within it: 19 masks in one."""
    grown = torch.where(near == 0, 1 << classes, 0).int()
    found, radius = [], 0
    for width in widths:
        grown, radius = over_window(grown, width - radius, torch.bitwise_or), width
        found.append(grown)
    return tuple(found)


def _histogram(*axes: tuple[Tensor, int], weights: Tensor | None = None) -> Tensor:
    """Count each image's pixels, or sum their ``weights``, by codes (B, H, W), each below its n: (B, n₁, n₂, …)."""
    first = axes[0][0]
    cells = torch.arange(len(first), device=first.device).view(-1, 1, 1)
    shape = [len(first)]
    for codes, size in axes:
        cells = cells * size + codes
        shape.append(size)
    flat = None if weights is None else weights.flatten().double()
    return torch.bincount(cells.flatten(), flat, minlength=math.prod(shape)).view(shape)
