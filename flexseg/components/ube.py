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
    log_probabilities,
    mean_over_valid,
    negative_log_likelihood,
    pixel_cross_entropy,
    same_shape,
)
from flexseg.components.ranks import sum_over_ranks


def predictive_entropy(logits: Tensor) -> Tensor:
    """H = −Σ_c p_c log p_c of the softmax, without gradient.

    Args:
        logits: (B, C, H, W).

    Returns:
        (B, H, W) float32 in nats, from 0 to ln C.
    """
    return _entropy(log_probabilities(logits.detach()))


def uncertainty_weights(entropy: Tensor, boundary_mask: Tensor, alpha: float = 3.0, eps: float = 1e-6) -> Tensor:
    """w of L_UBE: 1 + α · sigmoid((H − μ)/(σ + ε)) on boundary pixels, 1 elsewhere; without gradient.

    μ and σ (population) are over the boundary pixels of all ranks; without any, all weights are 1. A collective: every
    rank calls it, also with a batch without boundary.

    Args:
        entropy: (B, H, W) in nats.
        boundary_mask: (B, H, W) bool, of valid pixels (as ``label_boundary`` gives it).
        alpha: α. eps: ε.

    Returns:
        (B, H, W) float32.

    Raises:
        ValueError: other shapes.
    """
    same_shape(boundary_mask, entropy, "boundary_mask", "entropy")
    entropy = entropy.detach().float()
    on_boundary = torch.where(boundary_mask, entropy, 0.0).double()
    moments = torch.stack([boundary_mask.sum().double(), on_boundary.sum(), on_boundary.square().sum()])
    number, total, total_of_squares = sum_over_ranks(moments).unbind()
    mean = total / number.clamp_min(1)
    deviation = (total_of_squares / number.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    emphasis = 1.0 + alpha * torch.sigmoid((entropy - mean.float()) / (deviation.float() + eps))
    return torch.where(boundary_mask, emphasis, 1.0)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, ignore: int = 255) -> Tensor:
    """(1/N) Σ w · L_CE, N the number of valid pixels.

    Args:
        logits: (B, C, H, W). labels: (B, H, W) integers in [0, C) or ``ignore``.
        weights: (B, H, W), not differentiated.

    Returns:
        A float32 scalar; zero, with a graph, if all is void.

    Raises:
        ValueError: other shapes.
    """
    same_shape(weights, labels, "weights", "labels")
    return mean_over_valid(weights.detach().float() * pixel_cross_entropy(logits, labels, ignore), labels, ignore)


def uncertainty_boundary_losses(
    logits: Tensor, labels: Tensor, boundary_mask: Tensor, alpha: float = 3.0, eps: float = 1e-6, ignore: int = 255
) -> Tensor:
    """w · L_CE of every pixel under the ``uncertainty_weights`` of the ``predictive_entropy``; L_UBE is their mean.

    The log-softmax, which dominates, is computed once for both. A collective: every rank calls it.

    Args:
        logits: (B, C, H, W). labels: (B, H, W) integers in [0, C) or ``ignore``. boundary_mask: (B, H, W) bool.
        alpha, eps: as for ``uncertainty_weights``.

    Returns:
        (B, H, W) float32, 0 on void: L_UBE is its ``mean_over_valid``.

    Raises:
        ValueError: other shapes.
    """
    log_p = log_probabilities(logits)
    weights = uncertainty_weights(_entropy(log_p.detach()), boundary_mask, alpha, eps)
    return weights * negative_log_likelihood(log_p, labels, ignore)


def constant_weights(boundary_mask: Tensor, weight: float) -> Tensor:
    """One weight on boundary pixels, 1 elsewhere.

    Args:
        boundary_mask: (B, H, W) bool.
        weight: 0 ignores the boundary, below 1 reduces it, above 1 enhances it; 1 + α/2 is UBE without its uncertainty.

    Returns:
        (B, H, W) float32.
    """
    return torch.ones_like(boundary_mask, dtype=torch.float32).masked_fill_(boundary_mask, weight)


def clipped_cross_entropy(
    logits: Tensor, labels: Tensor, boundary_mask: Tensor, limit: float, ignore: int = 255
) -> Tensor:
    """The ``clip`` policy: the mean over valid pixels of min(``limit``, L_CE) on boundary pixels and of L_CE elsewhere.

    Args:
        logits: (B, C, H, W). labels: (B, H, W) integers in [0, C) or ``ignore``. boundary_mask: (B, H, W) bool.
        limit: in nats; a pixel above it has no gradient.

    Returns:
        A float32 scalar; zero, with a graph, if all is void.

    Raises:
        ValueError: other shapes.
    """
    same_shape(boundary_mask, labels, "boundary_mask", "labels")
    losses = pixel_cross_entropy(logits, labels, ignore)
    return mean_over_valid(torch.where(boundary_mask, losses.clamp_max(limit), losses), labels, ignore)


def _entropy(log_p: Tensor) -> Tensor:
    return log_p.exp().mul_(log_p).sum(dim=-1).neg_()
