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
from flexseg.classes import CITYSCAPES, IGNORE, Grouping, scored_classes
from flexseg.components.boundary import granularity, over_window

BITS = 31
"""Classes whose contours share an integer of 32 bits, without its sign."""


@dataclass(frozen=True)
class Truth:
    """A batch of labels and its boundaries.

    ``classes`` (B, H, W) int64, void is C, the number of classes; ``near`` (B, H, W) int64, the index of the smallest
    of the ``distances`` at which another class lies, ``len(distances)`` for the interior and void; ``contours``, for
    each of the protocol's widths, (⌈C/31⌉, B, H, W) int32: bit c of these is set where a contour pixel of class c lies
    within the width. ``scored`` are the classes.
    """

    classes: Tensor
    near: Tensor
    contours: tuple[Tensor, ...]
    protocol: Protocol
    scored: Grouping

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


def describe_truth(
    labels: Tensor, protocol: Protocol, rows: slice = slice(None), scored: Grouping | None = None
) -> Truth:
    """Prepare labels (B, H, W) of integers, void 255, for counting.

    Only pixels of ``rows`` will be counted: an image that is counted in stripes, each with ``margin`` more rows above
    and below, has the same counts as one that is counted at once. ``scored``: the classes, by default Cityscapes' as
    the protocol groups them.
    """
    scored = scored or scored_classes(CITYSCAPES, protocol.classes)
    count = len(scored.classes)
    classes = labels.long().masked_fill(labels == IGNORE, count)
    if scored.coarser:
        classes = torch.tensor([*scored.merge, count], device=classes.device)[classes]
        labels = classes.masked_fill(classes == count, IGNORE)
    near = _near(labels, distances(protocol))
    contours = _contours(classes, near, protocol.boundary_tolerances, count)
    if rows != slice(None):
        counted = torch.full_like(classes, count)
        counted[:, rows] = classes[:, rows]
        classes = counted
    return Truth(classes, near, contours, protocol, scored)


def count(truth: Truth, log_p: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The columns of a batch's records (each (B, …), int64 if not said otherwise) and its predictions (B, H, W) int64.

    ``pixels`` () are the valid ones; ``confusion`` and ``boundary_confusion`` (C²) truth × prediction, of the whole
    image and the band; ``ring_pixels`` and ``ring_correct`` (R+1) by ring, the interior last; ``boundary_iou``
    (W·3·C): pixels in both bands, in the truth's, in the prediction's; ``boundary_f1`` (W·4·C): contour pixels of the
    prediction, the matched ones of these, those of the truth, the matched ones of these; ``calibration_count``,
    ``_correct`` and ``_confidence`` (bins, the last float64); ``nll_sum`` () float64, nats. Pixels that are void in the
    truth are not counted. Where the protocol scores a coarser set of classes, the predicted class is the one that the
    most probable of the C is merged into, and the probability of a class is that of all its members.

    Args:
        log_p: (B, H, W, C) float32 log-probabilities, the classes last.
    """
    protocol = truth.protocol
    best, predictions = log_p.max(dim=-1)
    if truth.scored.coarser:
        log_p = _merge(log_p, truth.scored)
        predictions = torch.tensor(truth.scored.merge, device=predictions.device)[predictions]
        best = log_p.gather(-1, predictions.unsqueeze(-1)).squeeze(-1)
    columns = count_labels(truth, predictions)
    columns |= _calibration(truth, predictions, best.exp(), protocol.calibration_bins)
    valid = truth.classes < len(truth.scored.classes)
    nll = log_p.gather(-1, truth.classes.masked_fill(~valid, 0).unsqueeze(-1)).squeeze(-1)
    columns["nll_sum"] = -torch.where(valid, nll, 0.0).double().sum(dim=(1, 2))
    return columns, predictions


def count_labels(truth: Truth, predictions: Tensor) -> dict[str, Tensor]:
    """The columns of :func:`count` that need no probabilities, of predicted classes (B, H, W) int64, already merged."""
    return _confusions(truth, predictions) | _boundaries(truth, predictions)


def count_hard(truth: Truth, predictions: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """As :func:`count`, of predicted classes (B, H, W) int64 without probabilities: what needs these is 0."""
    columns, bins = count_labels(truth, predictions), truth.protocol.calibration_bins
    empty = torch.zeros(len(predictions), bins, dtype=torch.int64, device=predictions.device)
    columns |= {"calibration_count": empty, "calibration_correct": empty, "calibration_confidence": empty.double()}
    columns["nll_sum"] = torch.zeros(len(predictions), dtype=torch.float64, device=predictions.device)
    return columns, predictions


def _merge(log_p: Tensor, classes: Grouping) -> Tensor:
    """Log-probabilities (…, C) of the merged classes, each at the id it goes by, −∞ elsewhere."""
    merged = torch.full_like(log_p, -torch.inf)
    for train_id, members in classes.members.items():
        merged[..., train_id] = log_p[..., list(members)].logsumexp(dim=-1)
    return merged


def _confusions(truth: Truth, predictions: Tensor) -> dict[str, Tensor]:
    reach, classes = truth.distances, len(truth.scored.classes)
    counts = _histogram((truth.near, len(reach) + 1), (truth.classes, classes + 1), (predictions, classes))
    counts = counts[:, :, :classes]
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
    near, void = _near(predictions, reach), len(truth.scored.classes)
    agreed = torch.where(predictions == truth.classes, truth.classes, void)
    shown = torch.where(truth.classes < void, predictions, void)
    bands = [
        _histogram((levels, count + 1), (which, void + 1)).cumsum(dim=1)[:, places, :void]
        # A pixel is in both bands of width d if the larger of its two distances is at most d.
        for levels, which in ((torch.maximum(near, truth.near), agreed), (truth.near, truth.classes), (near, shown))
    ]
    found = []
    for of, contour_of, others in (
        (shown, near, truth.contours),
        (truth.classes, truth.near, _contours(predictions, near, widths, void)),
    ):
        # Contours grow with the width, so a pixel is matched from some width on: count by how many widths miss it.
        missed = torch.zeros_like(of)
        for contour in others:
            missed += ((_masks_of(contour, of) >> of.clamp_max(void - 1) % BITS) & 1) == 0
        which = torch.where(contour_of == 0, of, void)
        matched = _histogram((missed, len(widths) + 1), (which, void + 1))[:, :, :void].cumsum(dim=1)
        found += [matched[:, -1:].expand(-1, len(widths), -1), matched[:, :-1]]
    return {
        "boundary_iou": torch.stack(bands, dim=2).flatten(1),
        "boundary_f1": torch.stack(found, dim=2).flatten(1),
    }


def _calibration(truth: Truth, predictions: Tensor, confidence: Tensor, bins: int) -> dict[str, Tensor]:
    """Reliability bins that divide [0, 1] evenly by the largest probability (Guo et al., ICML 2017)."""
    valid = truth.classes < len(truth.scored.classes)
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


def _contours(classes: Tensor, near: Tensor, widths: Sequence[int], count: int) -> tuple[Tensor, ...]:
    """For each width (⌈C/31⌉, B, H, W) int32: in each of these bit c − 31·g stands for class c of its 31 classes.

    A bit is set where a contour pixel of its class lies within the width. ``count`` is C.
    """
    edge = near == 0
    parts = [
        torch.where(edge & (classes // BITS == part), 1 << classes % BITS, 0).int() for part in range(_parts(count))
    ]
    grown = torch.stack(parts)
    found, radius = [], 0
    for width in widths:
        grown, radius = over_window(grown.flatten(0, 1), width - radius, torch.bitwise_or).view_as(grown), width
        found.append(grown)
    return tuple(found)


def _parts(count: int) -> int:
    return -(-count // BITS)


def _masks_of(contour: Tensor, classes: Tensor) -> Tensor:
    """Of masks (G, B, H, W) those (B, H, W) that have the bits of ``classes`` (B, H, W); void has none that matter."""
    if len(contour) == 1:
        return contour[0]
    return contour.gather(0, (classes // BITS).clamp_max(len(contour) - 1).unsqueeze(0)).squeeze(0)


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
