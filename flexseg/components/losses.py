"""The plain cross entropy in its parts: log-probabilities, the loss of every pixel, and its means.

Everything is computed in float32, whatever the type of the logits. They must be finite: NaN goes through to the loss.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flexseg.classes import IGNORE


def log_probabilities(logits: Tensor) -> Tensor:
    """log p_c of every pixel: (B, H, W, C) float32, from logits (B, C, H, W).

    The classes come last because a channels-last trunk gives them so without a copy, and a CPU is then three times as
    fast.
    """
    return F.log_softmax(logits.permute(0, 2, 3, 1).float(), dim=-1)


def negative_log_likelihood(log_p: Tensor, labels: Tensor) -> Tensor:
    """−log p of the label of every pixel: (B, H, W) float32, 0 on void.

    Args:
        log_p: (B, H, W, C). labels: (B, H, W) integers in [0, C) or void (255).

    Raises:
        ValueError: labels that are not (B, H, W).
    """
    check_same_shape(labels, log_p[..., 0], "labels", "each class of the logits")
    flat = F.nll_loss(log_p.flatten(0, 2), labels.flatten().long(), ignore_index=IGNORE, reduction="none")
    return flat.view(labels.shape)


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """L_CE of every pixel: (B, H, W) float32, 0 on void.

    Args:
        logits: (B, C, H, W). labels: (B, H, W) integers in [0, C) or void (255).

    Raises:
        ValueError: labels that are not (B, H, W).
    """
    return negative_log_likelihood(log_probabilities(logits), labels)


def mean_over_valid(losses: Tensor, labels: Tensor) -> Tensor:
    """(1/N) Σ of the losses of pixels, N the number of valid pixels: a scalar; zero, with a graph, if all is void.

    Args:
        losses: (B, H, W), 0 on void. labels: (B, H, W).

    Raises:
        ValueError: different shapes.
    """
    check_same_shape(losses, labels, "losses", "labels")
    return losses.sum() / (labels != IGNORE).sum().clamp_min(1)


def mean_over_images(losses: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of each image's valid pixels: (B,); 0 for an image that is all void.

    Args:
        losses: (B, H, W), 0 on void. labels: (B, H, W).

    Raises:
        ValueError: different shapes.
    """
    check_same_shape(losses, labels, "losses", "labels")
    return losses.sum(dim=(1, 2)) / (labels != IGNORE).sum(dim=(1, 2)).clamp_min(1)


def check_same_shape(a: Tensor, b: Tensor, name_of_a: str, name_of_b: str) -> None:
    """Refuse tensors of different shapes: (B, 1, H, W) and (B, H, W) would broadcast to a wrong loss in silence.

    Raises:
        ValueError: with both names and shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"{name_of_a} is {tuple(a.shape)} but {name_of_b} is {tuple(b.shape)}")
