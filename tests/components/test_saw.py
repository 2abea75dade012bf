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
    x = relu_features(channels=17)
    x[0] *= 0.1  # less than what is borne, where ``relax`` is not 0: no gain
    x.requires_grad_()
    weight = torch.randn(19, 17, generator=torch.Generator().manual_seed(2))
    channels, scales = channel_groups(weight, classes)
    assert channels.shape == scales.shape == (17 // len(classes), len(classes))
    losses = group_whitening_losses(x, channels, scales, relax)
    expected = slow_whitening(x.detach(), weight, classes, relax)
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-3, atol=1e-4)
    assert (losses > 0).any()
    losses.sum().backward()
    assert x.grad.abs().max() > 0
