"""Uncertainty Boundary Emphasis (FLEX-Seg, UBE), and the fixed boundary policies it is compared with.

    H = −Σ_c p_c log p_c                                                         predictive entropy
    w = 1 + α · sigmoid((H − μ_H) / (σ_H + ε)) on boundary pixels, 1 elsewhere     α = 3.0
    L_UBE = (1/N) Σ w · L_CE                                                     in place of the cross entropy

**Assumed**, as the public text is silent: μ_H and σ_H are over the boundary pixels of the batch (of all ranks); the
entropy carries no gradient; N is the number of valid pixels (of this rank, as in a plain mean), not Σ w, so that
emphasis raises the loss; ε = 1e-6. If H is symmetric about its mean, so is the sigmoid, and the mean weight on the
boundary is 1 + α/2: the constant to compare with.

The fixed policies: ``ignore`` (W = 0), ``reduce`` (W < 1), ``enhance`` (W > 1) are values of ``constant_weights``;
``clip`` is ``clipped_cross_entropy``.

Logits may be float16, bfloat16 or float32: everything is computed in float32. They must be finite: NaN goes through
to the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flexseg.components.losses import (
    check_same_shape,
    log_probabilities,
    mean_over_valid,
    negative_log_likelihood,
)
from flexseg.components.ranks import sum_over_ranks

_EPS = 1e-6


def predictive_entropy(logits: Tensor) -> Tensor:
    """H = −Σ_c p_c log p_c of the softmax, without gradient: (B, H, W) float32 in nats, from 0 to ln C.

    Args:
        logits: (B, C, H, W).
    """
    return _entropy(log_probabilities(logits.detach()))


def uncertainty_weights(entropy: Tensor, boundary_mask: Tensor, alpha: float = 3.0) -> Tensor:
    """w of L_UBE, (B, H, W) float32: 1 + α · sigmoid((H − μ)/(σ + ε)) on boundary pixels, 1 elsewhere; no gradient.

    μ and σ (population) are over the boundary pixels of all ranks; without any, all weights are 1. A collective: every
    rank calls it, also with a batch without a boundary.

    Args:
        entropy: (B, H, W) in nats. boundary_mask: (B, H, W) bool, of valid pixels (as ``label_boundary`` gives it).

    Raises:
        ValueError: different shapes.
    """
    check_same_shape(boundary_mask, entropy, "boundary_mask", "entropy")
    entropy = entropy.detach().float()
    on_boundary = torch.where(boundary_mask, entropy, 0.0).double()
    moments = torch.stack([boundary_mask.sum().double(), on_boundary.sum(), on_boundary.square().sum()])
    number, total, total_of_squares = sum_over_ranks(moments).unbind()
    mean = total / number.clamp_min(1)
    deviation = (total_of_squares / number.clamp_min(1) - mean.square()).clamp_min(0).pow(0.5)
    emphasis = 1.0 + alpha * torch.sigmoid((entropy - mean.float()) / (deviation.float() + _EPS))
    return torch.where(boundary_mask, emphasis, 1.0)


def weighted_cross_entropy(log_p: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(1/N) Σ w · L_CE, N the number of valid pixels: a float32 scalar; zero, with a graph, if all is void.

    Args:
        log_p: (B, H, W, C). labels: (B, H, W) integers in [0, C) or void. weights: (B, H, W), not differentiated.

    Raises:
        ValueError: different shapes.
    """
    check_same_shape(weights, labels, "weights", "labels")
    return mean_over_valid(weights.detach().float() * negative_log_likelihood(log_p, labels), labels)


def uncertainty_boundary_losses(
    log_p: Tensor, labels: Tensor, boundary_mask: Tensor, alpha: float = 3.0
) -> tuple[Tensor, Tensor]:
    """w and L_CE of every pixel, (B, H, W) float32, the second 0 on void: L_UBE is ``mean_over_valid`` of w · L_CE.

    A collective: every rank calls it.

    Args:
        log_p: (B, H, W, C), of ``log_probabilities``. labels: (B, H, W) integers in [0, C) or void.
        boundary_mask: (B, H, W) bool.

    Raises:
        ValueError: different shapes.
    """
    return uncertainty_weights(_entropy(log_p.detach()), boundary_mask, alpha), negative_log_likelihood(log_p, labels)


def constant_weights(boundary_mask: Tensor, weight: float) -> Tensor:
    """``weight`` on boundary pixels, (B, H, W) bool, and 1 elsewhere: (B, H, W) float32.

    A weight of 0 ignores the boundary, below 1 reduces it, above 1 enhances it; 1 + α/2 is UBE without its uncertainty.
    """
    return torch.ones_like(boundary_mask, dtype=torch.float32).masked_fill_(boundary_mask, weight)


def clipped_cross_entropy(log_p: Tensor, labels: Tensor, boundary_mask: Tensor, limit: float) -> Tensor:
    """The ``clip`` policy: the mean over valid pixels of min(``limit``, L_CE) on boundary pixels and of L_CE elsewhere.

    A float32 scalar; zero, with a graph, if all is void.

    Args:
        log_p: (B, H, W, C). labels: (B, H, W) integers in [0, C) or void. boundary_mask: (B, H, W) bool.
        limit: in nats; a pixel above it has no gradient.

    Raises:
        ValueError: different shapes.
    """
    check_same_shape(boundary_mask, labels, "boundary_mask", "labels")
    losses = negative_log_likelihood(log_p, labels)
    return mean_over_valid(torch.where(boundary_mask, losses.clamp_max(limit), losses), labels)


def _entropy(log_p: Tensor) -> Tensor:
    return log_p.exp().mul_(log_p).sum(dim=-1).neg_()
