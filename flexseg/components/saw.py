"""Semantic-aware whitening (SAW; Peng et al., CVPR 2022): channels that serve different classes are decorrelated.

A 1×1 classifier's weight |w_kc| says how much class k relies on channel c. With i_k(g) the channel of rank g for the
selected class k, group g holds one channel per class, f_g = (s_1g f_{i_1(g)}, …, s_Sg f_{i_S(g)}) with
s_kg = sigmoid(|w_k,i_k(g)|). There are G = ⌊C / S⌋ groups. For each image

    L_SAW = Σ_g max(0, Σ_{j<k} |Σ_g|_jk − m) / n,   Σ_g = f_g f_gᵀ / (HW − 1),   n = S (S − 1) / 2,   m = ⌊n / relax⌋
"""

from __future__ import annotations

import torch
from torch import Tensor

from flexseg.components.norms import covariances


@torch.no_grad()
def channel_groups(weight: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """The channels i_k(g) of each group, (G, S) int64, and their scales s_kg, (G, S) float32. At least one group.

    Args:
        weight: (19, C), the classifier's. classes: the S selected ones.
    """
    importance, order = weight.float().abs()[classes].sort(dim=1, descending=True, stable=True)
    groups = max(1, weight.shape[1] // len(classes))
    return order[:, :groups].T, importance[:, :groups].T.sigmoid()


def group_whitening_losses(features: Tensor, channels: Tensor, scales: Tensor, relax: float) -> Tensor:
    """L_SAW of each image: (B,) float32.

    Args:
        features: (B, C, H, W). channels, scales: (G, S), as :func:`channel_groups` gives them, S ≥ 2.
        relax: m is the number of pairs over this, rounded down; 0 is for m = 0.
    """
    size = channels.shape[1]
    row, column = torch.triu_indices(size, size, 1, device=features.device)
    pairs = len(row)
    margin = pairs // relax if relax else 0.0
    # One product for all channels, of which every group takes its entries, is cheaper than one per group.
    entries = covariances(features)[:, channels[:, row], channels[:, column]]
    off_diagonal = (entries * (scales[:, row] * scales[:, column])).abs().sum(dim=2)
    return ((off_diagonal - margin) / pairs).clamp_min(0).sum(dim=1)
