"""Contrast of pixels over two views of an image: which pixels to compare, and the InfoNCE losses of them.

With features of unit length and a temperature τ, the loss of an anchor q with its positive k and negatives n_j is

    ℓ(q, k, n) = −log( e^{⟨q, k⟩/τ} / (e^{⟨q, k⟩/τ} + Σ_j e^{⟨q, n_j⟩/τ}) )

(van den Oord et al., *Representation Learning with Contrastive Predictive Coding*, 2018). In both losses here k is the
anchor's own place in the other view; they differ in the anchors and the negatives (Ahn et al., BlindNet, CVPR 2024).
The losses are computed in float32, also under autocast. Random choices are made by torch's global generator alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_KEYS = 2**40
"""The number of random keys that order the members of a group: a group's number times this still fits int64."""


def random_ranks(groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Each pixel's place in a random order of its group in its image, and the groups' sizes.

    Args:
        groups: (B, P) integers in [0, ``number``), or −1 for a pixel of no group, whose place means nothing.

    Returns:
        (B, P) int64 places, which number the members of a group from 0 on, and (B, ``number``) int64 sizes.
    """
    groups = groups.masked_fill(groups < 0, number)
    order = (groups * _KEYS + torch.randint_like(groups, _KEYS)).argsort(dim=1)
    sizes = torch.zeros(len(groups), number + 1, dtype=torch.int64, device=groups.device)
    sizes.scatter_add_(1, groups, torch.ones_like(groups))
    begins = sizes.cumsum(dim=1) - sizes
    counted = torch.arange(groups.shape[1], device=groups.device).expand_as(groups)
    ranks = torch.empty_like(groups).scatter_(1, order, counted) - begins.gather(1, groups)
    return ranks, sizes[:, :number]


def sample_views(labels: Tensor, predictions: Tensor, classes: int, views: int, max_classes: int) -> Tensor:
    """Equally many pixels of each class of each image, half of them predicted wrongly where there are as many.

    A class with fewer than ``views`` pixels is left out; of more than ``max_classes`` classes a random choice is kept.
    Where one kind, right or wrong, has fewer than half of ``views`` pixels, the other makes up for it.

    Args:
        labels: (B, P) int64 in [0, ``classes``) or anything beyond for void. predictions: (B, P) int64.

    Returns:
        (B, S, ``views``) int64 places in P, −1 throughout a slot that an image does not fill. S is the largest number
        of classes in one image, at most ``max_classes``. No place occurs twice.
    """
    valid = (labels >= 0) & (labels < classes)
    wrong = (predictions != labels).long()
    kinds = torch.where(valid, 2 * labels + wrong, -1)
    ranks, sizes = random_ranks(kinds, 2 * classes)
    right_size, wrong_size = sizes[:, 0::2], sizes[:, 1::2]
    chosen = right_size + wrong_size >= views
    slots, _ = random_ranks(torch.where(chosen, 0, -1), 1)
    chosen &= slots < max_classes
    wrong_quota = torch.minimum(wrong_size, (views - right_size).clamp_min(views // 2))
    quotas = torch.stack([views - wrong_quota, wrong_quota], dim=2).flatten(1)
    quotas *= chosen.repeat_interleave(2, dim=1)

    image, place = ((kinds >= 0) & (ranks < quotas.gather(1, kinds.clamp_min(0)))).nonzero(as_tuple=True)
    label, rank = labels[image, place], ranks[image, place]
    # In each slot the wrong ones come after the right ones.
    view = torch.where(wrong[image, place] > 0, views - wrong_quota[image, label] + rank, rank)
    width = int(chosen.sum(dim=1).max()) if len(labels) else 0
    pixels = labels.new_full((len(labels), width, views), -1)
    pixels[image, slots[image, label], view] = place
    return pixels


def class_wise_contrast(queries: Tensor, keys: Tensor, present: Tensor, temperature: float) -> Tensor:
    """The mean ℓ of views against the same places of the other view; negatives are that image's views of other classes.

    Args:
        queries, keys: (B, S, V, D) of unit length: V views of each of S classes of an image, in both views.
        present: (B, S) bool, the slots that hold a class; the others are neither anchors nor negatives.
        temperature: τ.

    Returns:
        A float32 scalar over the anchors that have a negative; zero, with a graph, without any.
    """
    images, slots, views, _ = queries.shape
    other = ~torch.eye(slots, dtype=torch.bool, device=queries.device)
    negative = other & present[:, None, :] & present[:, :, None]  # (B, S, S)
    itself = torch.eye(slots * views, dtype=torch.bool, device=queries.device).view(slots, views, slots, views)
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float().flatten(1, 2) @ keys.float().flatten(1, 2).mT / temperature
        scores = scores.view(images, slots, views, slots, views)
        positive = scores.flatten(3).flatten(1, 2).diagonal(dim1=1, dim2=2)  # (B, S · V)
        scores = scores.masked_fill(~(negative[:, :, None, :, None] | itself), float("-inf"))
        losses = scores.flatten(3).logsumexp(dim=3).flatten(1) - positive
    counts = negative.any(dim=2).repeat_interleave(views, dim=1)
    return torch.where(counts, losses, 0.0).sum() / counts.sum().clamp_min(1)


class Disentangled(NamedTuple):
    """Places in B · P pixels: of A anchors, and of the K negatives of each of G groups, which anchors share."""

    anchors: Tensor
    """(A,) int64."""
    group: Tensor
    """(A,) int64 in [0, G): the negatives of each anchor."""
    negatives: Tensor
    """(G, K) int64."""


def sample_disentangled(
    labels: Tensor, plain: Tensor, changed: Tensor, classes: int, negatives: int, max_anchors: int
) -> Disentangled:
    """The pixels that a change of style makes wrong, and pixels of the classes that they are then taken for.

    An anchor is predicted rightly in the plain view and wrongly in the changed one. Its negatives are ``negatives``
    random pixels of its image whose label is that wrong class, the same for all anchors of one image and wrong class;
    where there are fewer, it is no anchor. Of more than B · ``max_anchors`` anchors a random choice is kept.

    Args:
        labels: (B, P) int64 in [0, ``classes``) or anything beyond for void. plain, changed: (B, P) int64 predictions
            in [0, ``classes``) in the two views.
    """
    valid = (labels >= 0) & (labels < classes)
    ranks, sizes = random_ranks(torch.where(valid, labels, -1), classes)
    turned = valid & (plain == labels) & (changed != labels) & (sizes.gather(1, changed) >= negatives)
    anchors = turned.flatten().nonzero().squeeze(1)
    if len(anchors) > len(labels) * max_anchors:
        anchors = anchors[torch.randperm(len(anchors), device=anchors.device)[: len(labels) * max_anchors]]
    cells = (torch.arange(len(labels), device=labels.device)[:, None] * classes + changed).flatten()[anchors]
    groups, group = torch.unique(cells, return_inverse=True)

    drawn = valid & (ranks < negatives) & (sizes.gather(1, labels.masked_fill(~valid, 0)) >= negatives)
    image, place = drawn.nonzero(as_tuple=True)
    table = labels.new_zeros(len(labels) * classes, negatives)
    table[image * classes + labels[image, place], ranks[image, place]] = image * labels.shape[1] + place
    return Disentangled(anchors, group, table[groups])


def pixel_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """ℓ of each anchor: (A,) float32.

    Args:
        anchors, positives: (A, D) of unit length. negatives: (A, K, D) of unit length. temperature: τ.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        positive = (anchors.float() * positives.float()).sum(dim=1, keepdim=True)
        negative = (negatives.float() @ anchors.float()[:, :, None]).squeeze(2)
        scores = torch.cat([positive, negative], dim=1) / temperature
        return scores.logsumexp(dim=1) - scores[:, 0]


def semantic_disentangled_contrast(
    anchors: Tensor, positives: Tensor, negatives: Tensor, group: Tensor, temperature: float
) -> Tensor:
    """The mean ℓ of the anchors against the negatives of their groups: a float32 scalar; zero, with a graph, for A = 0.

    Args:
        anchors, positives: (A, D) of unit length. negatives: (G, K, D) of unit length. group: (A,) int64 in [0, G).
        temperature: τ.
    """
    # Rows of a matrix, as the gradient of a selection of rows is the fastest.
    own_negatives = negatives.flatten(1).index_select(0, group).view(-1, *negatives.shape[1:])
    return pixel_nce(anchors, positives, own_negatives, temperature).sum() / max(len(anchors), 1)
