"""Class boundaries of a label map, and their granularity (FLEX-Seg, GAP).

The paper: B_g = Dilate(M_d, k_g) ⊖ Erode(M_d, k_g), with M_d the mask of one class at feature resolution and ⊖ the
set difference. For a class d and a pixel p, with the k×k window around p,

    p ∈ Dilate(M_d, k)  ⇔  *some* pixel of the window is of class d,
    p ∉ Erode(M_d, k)   ⇔  *some* pixel of the window is of another class.

So p is in B_g of some class exactly if its window holds two different classes, that is, if the largest and the
smallest class id in it differ; and then p is in B_g of its own class too. That needs two running extremes instead of
one mask per class.

**Assumed**, as the public text is silent: void neither erodes nor dilates anything and is never on a boundary; the
window is clipped at the image border, which therefore makes no boundary; the three sets are nested, so each pixel
takes the finest one it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from flexseg.classes import IGNORE


def label_boundary(label: Tensor, kernel: int) -> Tensor:
    """The pixels whose ``kernel`` × ``kernel`` window holds another class: (B, H, W) bool, never true on void.

    Args:
        label: (B, H, W) integers, class ids below 2¹⁵ or void (255).
        kernel: odd, at least 3, in pixels of ``label``.

    Raises:
        ValueError: an even or too small kernel.
    """
    return granularity(label, (kernel,)) >= 0


def granularity(label: Tensor, kernels: Sequence[int] = (3, 5, 7)) -> Tensor:
    """How close each pixel is to a class boundary: the index of the smallest kernel that reaches another class.

    (B, H, W) int8: 0 thin, 1 medium, 2 thick (exclusive rings, the finest wins: **assumed**), −1 void or not on a
    boundary.

    Args:
        label: (B, H, W) integers, class ids below 2¹⁵ or void (255).
        kernels: odd, rising, in pixels of ``label`` (3/5/7 **assumed**).

    Raises:
        ValueError: kernels that are even, below 3 or not rising.
        TypeError: a label that is not of integers.
    """
    odd = all(k >= 3 and k % 2 == 1 for k in kernels)
    if not kernels or not odd or any(a >= b for a, b in pairwise(kernels)):
        raise ValueError(f"kernels must be odd, at least 3 and rising, not {tuple(kernels)}")
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise TypeError(f"a label map holds integers, not {label.dtype}")
    void = label == IGNORE
    limits = torch.iinfo(torch.int16)
    highest = label.to(torch.int16).masked_fill(void, limits.min)
    lowest = label.to(torch.int16).masked_fill(void, limits.max)
    reached = torch.zeros_like(label, dtype=torch.int8)
    radius = 0
    for kernel in kernels:
        # The extremes of a wider window are extremes of these extremes: a ring only adds its own width.
        step, radius = kernel // 2 - radius, kernel // 2
        highest, lowest = over_window(highest, step, torch.maximum), over_window(lowest, step, torch.minimum)
        reached += highest != lowest
    # The sets are nested: a pixel in the last j of the G sets has the granularity G − j.
    return (len(kernels) - reached).masked_fill_(void | (reached == 0), -1)


def downsample_label(label: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a label map (B, H, W) by nearest neighbours, so that no class is invented: (B, *size) of the same dtype.

    The convention is that of ``torch.nn.functional.interpolate(mode="nearest")``, which mmseg's ``resize`` calls:
    output pixel i reads input pixel ⌊i · in/out⌋ (the upper left one of a cell, not its centre).
    """
    rows, columns = (_nearest(n_in, n_out, label.device) for n_in, n_out in zip(label.shape[-2:], size, strict=True))
    return label[..., rows[:, None], columns]


def _nearest(n_in: int, n_out: int, device: torch.device) -> Tensor:
    """The source index of each of ``n_out`` positions, as PyTorch itself has it, to the rounding."""
    positions = torch.arange(n_in, dtype=torch.float32, device=device)[None, None]
    return F.interpolate(positions, size=n_out, mode="nearest")[0, 0].long()


def over_window(x: Tensor, radius: int, op: Callable[..., Tensor]) -> Tensor:
    """Reduce the square window of ``radius`` pixels around each pixel of (B, H, W), clipped at the border.

    ``op`` reduces two values to one; a torch function with ``out=`` (``maximum``, ``minimum``, ``bitwise_or``).
    """
    for dim in (-1, -2):
        n = x.shape[dim]
        out = x.clone()
        for shift in range(1, min(radius, n - 1) + 1):
            head, tail = out.narrow(dim, 0, n - shift), out.narrow(dim, shift, n - shift)
            op(head, x.narrow(dim, shift, n - shift), out=head)
            op(tail, x.narrow(dim, 0, n - shift), out=tail)
        x = out
    return x
