"""Random label maps, blocky as real ones: boundaries, interiors and void, all in a few pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def _make_labels(
    seed: int, batch: int = 2, height: int = 13, width: int = 17, classes: int = 5, void: float = 0.1, block: int = 4
) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (batch, -(-height // block), -(-width // block)), generator=g)
    label = coarse.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :height, :width].clone()
    label[torch.rand(label.shape, generator=g) < void] = 255
    return label


@pytest.fixture(scope="session")
def make_labels() -> Callable[..., Tensor]:
    """``make_labels(seed, batch, height, width, classes, void, block) -> (batch, height, width)`` int64."""
    return _make_labels
