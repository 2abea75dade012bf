"""Semantic-aware whitening against a loop that sorts, scales and cuts into groups, and features that are white."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import relu_features
from torch import Tensor

from flexseg.components.saw import channel_groups, group_whitening_losses

CLASSES = [0, 10, 2, 1, 8]


def slow_whitening(x: Tensor, weight: Tensor, classes: list[int], relax: float) -> list[float]:
    """Sort, scale and cut into groups, image by image."""
    size, losses = len(classes), []
    pairs = size * (size - 1) // 2
    ranked = [sorted(range(weight.shape[1]), key=lambda c, k=k: -abs(float(weight[k, c]))) for k in classes]
    for image in x:
        loss = 0.0
        for group in range(weight.shape[1] // size):
            chosen = [ranked[k][group] for k in range(size)]
            scaled = [image[c] * torch.sigmoid(weight[classes[k], c].abs()) for k, c in enumerate(chosen)]
            off = sum(
                abs(float((scaled[j] * scaled[k]).sum()) / (image[0].numel() - 1))
                for k in range(size)
                for j in range(k)
            )
            loss += max(0.0, (off - (pairs // relax if relax else 0)) / pairs)
        losses.append(loss)
    return losses


@pytest.mark.parametrize("relax", [0, 2, 3])
@pytest.mark.parametrize("classes", [CLASSES, [3, 7], [4, 5, 6]])
def test_whitening_is_that_of_sorted_channels(relax: float, classes: list[int]) -> None:
    x, weight = relu_features(channels=17), torch.randn(19, 17, generator=torch.Generator().manual_seed(2))
    channels, scales = channel_groups(weight, classes)
    assert channels.shape == scales.shape == (17 // len(classes), len(classes))
    losses = group_whitening_losses(x, channels, scales, relax)
    np.testing.assert_allclose(losses, slow_whitening(x, weight, classes, relax), rtol=1e-3, atol=1e-4)
    assert (losses > 0).any()


def disjoint(size: int) -> Tensor:
    """Weights by which class k ranks channels k, k + S, …: every channel is in one group, (19, 3 S)."""
    weight = torch.zeros(19, 3 * size)
    for rank in range(3):
        for k, train_id in enumerate(CLASSES[:size]):
            weight[train_id, rank * size + k] = 3 - rank
    return weight


def test_white_groups_cost_nothing_and_others_do() -> None:
    channels, scales = channel_groups(disjoint(5), CLASSES)
    assert sorted(channels.flatten().tolist()) == list(range(15))
    draw = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(2, 80, 15, generator=draw)).Q.mT.reshape(2, 15, 8, 10) * 79**0.5  # Σ = I
    torch.testing.assert_close(group_whitening_losses(x, channels, scales, 0), torch.zeros(2), rtol=0, atol=1e-5)
    assert torch.equal(group_whitening_losses(x, channels, scales, 2), torch.zeros(2))  # less than is borne is no gain
    apart = x.clone()
    apart[0, 5] += x[0, 0]  # across groups: no matter
    torch.testing.assert_close(group_whitening_losses(apart, channels, scales, 0), torch.zeros(2), rtol=0, atol=1e-5)
    apart[0, 1] += x[0, 0]  # within a group
    losses = group_whitening_losses(apart.requires_grad_(), channels, scales, 0)
    torch.testing.assert_close(losses[0], scales[0, 0] * scales[0, 1] / 10, rtol=1e-3, atol=1e-5)
    assert losses[1] < 1e-5
    losses[0].backward()
    assert apart.grad[0, :2].abs().max() > 0
