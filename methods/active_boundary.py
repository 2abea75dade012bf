"""Active boundary loss: the predicted boundary is drawn towards that of the labels; a control for losses at boundaries.

Wang et al., *Active Boundary Loss for Semantic Segmentation*, AAAI 2022, written from the formulas. With p_i the
prediction at pixel i and KL(p_i‖p_j) its divergence from that at j,

    B       the predicted boundary: pixels with KL(p_i‖p_right) + KL(p_i‖p_below) > ε, and their neighbours; ε grows
            from 1e-5 by a fifth at a time until at most 1 % of the pixels are above it
    D_i     the distance of i to the boundary of the labels
    j*(i)   the neighbour, of eight, with the smallest D; pixels that no neighbour brings closer are left out
    L_AB    mean over i in B of min(D_i, 20)/20 · CE( softmax_j KL(p_i‖p_j) over the eight neighbours, j*(i) )
    L       CE + w · L_AB

the inner cross entropy with label smoothing of 0.2. No gradient passes through p_j, so that neighbours which are drawn
in opposite directions do not cancel.

Published: all of that, and w = 1 beside the cross entropy and a Lovász-softmax loss, which is **left out**: that is a
loss for mIoU of its own. **Assumed**: pixels of void are on no boundary and draw nothing; a pixel of the labels is on
the boundary if its right or lower neighbour has another class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional

from flexseg.classes import IGNORE
from flexseg.components.losses import mean_over_valid, negative_log_likelihood
from flexseg.method import Batch, Method, option
from flexseg.models import Output

NEIGHBOURS = ((1, 0), (-1, 0), (0, -1), (0, 1), (-1, 1), (1, 1), (-1, -1), (1, -1))
"""The eight directions (down, right) from a pixel."""
EPSILON, GROWTH = 1e-5, 1.2


def predicted_boundary(log_p: Tensor, share: float) -> Tensor:
    """B of log-probabilities (B, H, W, C), (B, H, W) bool: at most ``share`` of all pixels, then dilated."""
    p = log_p.exp()
    apart = torch.zeros_like(log_p[..., 0])
    apart[:, :, :-1] += (p[:, :, :-1] * (log_p[:, :, :-1] - log_p[:, :, 1:])).sum(dim=-1)
    apart[:, :-1] += (p[:, :-1] * (log_p[:, :-1] - log_p[:, 1:])).sum(dim=-1)
    most = max(int(share * apart.numel()), 1)
    limit = apart.flatten().topk(most + 1).values[-1] if apart.numel() > most else apart.new_tensor(0.0)
    steps = torch.ceil(torch.log(limit.clamp_min(EPSILON) / EPSILON) / np.log(GROWTH))
    boundary = apart > EPSILON * GROWTH**steps
    return functional.max_pool2d(boundary[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0


def boundary_distance(labels: Tensor) -> Tensor:
    """D, (B, H, W) float32 on the CPU, in pixels; infinite where an image has no boundary."""
    distances = []
    for label in labels.cpu().numpy():
        edge = np.zeros(label.shape, dtype=bool)
        for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            edge[one] |= (label[one] != label[other]) & (label[one] != IGNORE) & (label[other] != IGNORE)
        distances.append(distance_transform_edt(~edge) if edge.any() else np.full(label.shape, np.inf))
    return torch.from_numpy(np.stack(distances).astype(np.float32))


def shifted(values: Tensor, direction: tuple[int, int], fill: float) -> Tensor:
    """The values (B, H, W, …) of each pixel's neighbour in this direction; ``fill`` beyond the border."""
    down, right = direction
    height, width = values.shape[1:3]
    result = torch.full_like(values, fill)
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    to_rows, to_columns = slice(max(-down, 0), height + min(-down, 0)), slice(max(-right, 0), width + min(-right, 0))
    result[:, to_rows, to_columns] = values[:, rows, columns]
    return result


def active_boundary_loss(log_p: Tensor, labels: Tensor, share: float, reach: float, smoothing: float) -> Tensor:
    """L_AB, a float32 scalar; zero, with a graph, where nothing is drawn anywhere.

    Args:
        log_p: (B, H, W, C). labels: (B, H, W). share: of pixels above ε. reach: the distance at which weights end.
    """
    boundary = predicted_boundary(log_p.detach(), share) & (labels != IGNORE)
    distance = boundary_distance(labels).to(log_p.device)
    around = torch.stack([shifted(distance, each, float("inf")) for each in NEIGHBOURS], dim=-1)
    nearest, wanted = around.min(dim=-1)
    drawn = boundary & (nearest < distance) & torch.isfinite(distance)
    image, row, column = drawn.nonzero(as_tuple=True)
    own = log_p[image, row, column]
    scores = []
    for down, right in NEIGHBOURS:
        y, x = row + down, column + right
        inside = (y >= 0) & (y < labels.shape[1]) & (x >= 0) & (x < labels.shape[2])
        other = log_p.detach()[image, y.clamp(0, labels.shape[1] - 1), x.clamp(0, labels.shape[2] - 1)]
        scores.append(torch.where(inside, (own.exp() * (own - other)).sum(dim=-1), 0.0))
    directions = torch.stack(scores, dim=-1)
    losses = functional.cross_entropy(directions, wanted[drawn], label_smoothing=smoothing, reduction="none")
    weights = distance[drawn].clamp_max(reach) / reach
    return (weights * losses).sum() / max(len(losses), 1) + 0.0 * log_p.sum()


class ActiveBoundary(Method):
    name = "active_boundary"
    title = "Active boundary loss"
    paper = "Wang et al., Active Boundary Loss for Semantic Segmentation, AAAI 2022"

    @dataclass(frozen=True)
    class Options:
        weight: float = option(1.0, "w, the weight of the active boundary loss")
        share: float = option(0.01, "largest share of pixels whose divergence makes them a boundary")
        reach: float = option(20.0, "distance to the labels' boundary, in pixels, from which weights are alike")
        smoothing: float = option(0.2, "label smoothing of the directions")

        def __post_init__(self) -> None:
            if self.weight < 0 or not self.reach > 0:
                raise ValueError(f"weight must not be negative and reach positive: {self.weight}, {self.reach}")
            if not (0 < self.share <= 1 and 0 <= self.smoothing < 1):
                raise ValueError(f"share lies above 0 up to 1, smoothing from 0 to below 1: {self}")

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        labels, knobs = batch.labels, self.options
        drawn = active_boundary_loss(log_p, labels, knobs.share, knobs.reach, knobs.smoothing)
        return {
            "ce": mean_over_valid(negative_log_likelihood(log_p, labels), labels),
            "active_boundary": knobs.weight * drawn,
        }
