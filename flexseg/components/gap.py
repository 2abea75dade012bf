"""Granular Adaptive Prototypes (FLEX-Seg, GAP).

A boundary pixel i has a class c_i, a granularity g_i (see ``boundary``) and a feature f_i. With a bank of prototypes
p_{c,g},

    p_{c,g} ← m · p_{c,g} + (1 − m) · f_{c,g},      f_{c,g} the mean feature of the cell in the batch,
    L_GAP = −(1/N) Σ_i w_{c_i,g_i} · log( exp(⟨f_i, p_{c_i,g_i}⟩/τ) / Σ_{(c',g')} exp(⟨f_i, p_{c',g'}⟩/τ) ),   τ = 0.07.

**Assumed**, as the public text is silent: features and prototypes have unit length; m = 0.99; a cell's first update
copies the mean; a cell is in the loss, as a target and in the denominator, only once it has been seen, and N counts
the pixels that are in the sum; w is inverse to how often a cell was updated (``PrototypeBank.weights``); and the loss
is taken against the bank *as it was before the batch*, which then updates it: no pixel is pulled towards itself.

A feature is a projection, f_i = (W x_i + b) / ‖W x_i + b‖. Everything above is linear in it, so that W need not be
applied pixel by pixel: with u_i = (x_i, 1) / ‖W x_i + b‖ and A = (W, b), f_i = A u_i, hence ⟨f_i, p⟩ = ⟨u_i, Aᵀp⟩ and
Σ f_i = A Σ u_i. That is what ``basis`` means below; where the input has fewer channels than f_i it saves most of the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexseg.classes import IGNORE
from flexseg.components.boundary import downsample_label, granularity
from flexseg.components.ranks import sum_over_ranks

_NOT_A_TARGET = -100
_CLIP = (0.1, 10.0)
"""The range of w_{c,g} (**assumed**)."""


class PrototypeBank(nn.Module):
    """The prototypes p_{c,g} as buffers, which are saved with the model and never trained by a gradient.

    Leave the module in float32 (autocast does): in bfloat16 a step of 1 − m would be rounded away.

    Args:
        num_classes: C. dim: D. granularities: G. momentum: m in [0, 1], 0.99 **assumed**.
        counted: what w counts, the ``"batches"`` that updated a cell or the ``"pixels"`` of them.

    Raises:
        ValueError: a momentum outside [0, 1], or something else to count.
    """

    prototypes: Tensor
    """(C, G, D) float32, of unit length, zero until the cell is first seen."""
    updates: Tensor
    """(C, G) int64, the number of batches that updated the cell."""
    pixels: Tensor
    """(C, G) int64, the number of pixels in them."""

    def __init__(
        self,
        num_classes: int,
        dim: int = 256,
        granularities: int = 3,
        momentum: float = 0.99,
        counted: Literal["batches", "pixels"] = "batches",
    ) -> None:
        super().__init__()
        if counted not in ("batches", "pixels"):
            raise ValueError(f'counted must be "batches" or "pixels", not {counted!r}')
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum}")
        self.momentum = momentum
        self.counted = counted
        self.register_buffer("prototypes", torch.zeros(num_classes, granularities, dim))
        self.register_buffer("updates", torch.zeros(num_classes, granularities, dtype=torch.int64))
        self.register_buffer("pixels", torch.zeros(num_classes, granularities, dtype=torch.int64))

    @torch.no_grad()
    def update(self, features: Tensor, classes: Tensor, granularities: Tensor, basis: Tensor | None = None) -> None:
        """Move each prototype towards its cell's mean feature in the batch, then back to unit length (**assumed**).

        The mean is over the batch of all ranks. A collective: every rank calls it, even with N = 0. Bit-reproducible on
        the CPU; on CUDA if ``torch.use_deterministic_algorithms`` is on.

        Args:
            features: (N, D) of unit length. classes, granularities: (N,) integers in [0, C) and [0, G).
            basis: None, or A of (D, E); then features are (N, E) and f_i = A u_i is what has unit length.
        """
        cell = self._cell(classes, granularities)
        bank, cells = self.prototypes.flatten(0, 1), self.updates.numel()
        sums = bank.new_zeros(cells, features.shape[1]).index_add_(0, cell, features.to(bank.dtype))
        with torch.autocast(features.device.type, enabled=False):
            sums = sums if basis is None else sums @ basis.to(bank.dtype).T
        counts = torch.bincount(cell, minlength=cells)[:, None].to(bank.dtype)
        sums, counts = sum_over_ranks(torch.cat([sums, counts], dim=1)).split([bank.shape[1], 1], dim=1)
        mean = sums / counts.clamp_min(1)
        first = self.updates.view(cells, 1) == 0
        moved = F.normalize(torch.where(first, mean, self.momentum * bank + (1 - self.momentum) * mean), dim=1)
        updated = counts > 0
        self.prototypes.copy_(torch.where(updated, moved, bank).view_as(self.prototypes))
        self.updates += updated.view_as(self.updates)
        self.pixels += counts.long().view_as(self.pixels)

    def weights(self) -> Tensor:
        """w_{c,g}, (C, G) float32: larger where the prototype was rarely updated, 0 for cells never seen.

        **Assumed**: inverse to the number of batches (or pixels) that updated the cell, scaled to mean 1 over the seen
        cells, clipped to [0.1, 10], then scaled to mean 1 again (so that a weight may end a little outside that range).
        """
        seen = self.updates > 0
        number = seen.sum().clamp_min(1)
        tiny = torch.finfo(torch.float32).tiny
        counts = self.updates if self.counted == "batches" else self.pixels
        inverse = torch.where(seen, 1.0 / counts.clamp_min(1), 0.0)
        clipped = torch.where(seen, (inverse * number / inverse.sum().clamp_min(tiny)).clamp(*_CLIP), 0.0)
        return clipped * number / clipped.sum().clamp_min(tiny)

    def loss(
        self,
        features: Tensor,
        classes: Tensor,
        granularities: Tensor,
        temperature: float = 0.07,
        basis: Tensor | None = None,
    ) -> Tensor:
        """L_GAP of the pixels against the bank as it stands: a float32 scalar. The prototypes get no gradient.

        The sum, and N, are over the pixels of this rank whose own cell has been seen; without any, it is zero, with a
        graph.

        Args:
            features: (N, D) of unit length. classes, granularities: (N,) integers in [0, C) and [0, G).
            temperature: τ > 0. basis: as in ``update``.
        """
        cell = self._cell(classes, granularities)
        seen = self.updates.flatten() > 0
        target = cell.masked_fill(~seen[cell], _NOT_A_TARGET)
        number = (target != _NOT_A_TARGET).sum()
        if number == 0:
            return features[:0].float().sum()
        with torch.autocast(features.device.type, enabled=False):
            # Dividing the bank rather than the similarities also makes the copy that a later update must not touch.
            bank = self.prototypes.flatten(0, 1).float() / temperature
            bank = bank if basis is None else bank @ basis.float()
            # e^{-∞} = 0: the bias takes the unseen cells out of the denominator.
            logits = F.linear(features.float(), bank, torch.where(seen, 0.0, float("-inf")))
            total = F.cross_entropy(
                logits, target, weight=self.weights().flatten(), ignore_index=_NOT_A_TARGET, reduction="sum"
            )
        return total / number

    @torch.no_grad()
    def rank(self) -> float:
        """The entropy rank of the seen prototypes: e^H of their normalised singular values; 0 without any.

        Roy and Vetterli, *The effective rank*, EUSIPCO 2007: from 1, where all point the same way, to their number.
        """
        seen = self.prototypes[self.updates > 0]
        if not len(seen):
            return 0.0
        share = torch.linalg.svdvals(seen.float())
        share = share / share.sum()
        return float(torch.special.entr(share).sum().exp())

    def _cell(self, classes: Tensor, granularities: Tensor) -> Tensor:
        """The index of each pixel's cell (c, g) in the flattened bank, (N,) int64."""
        return classes.long() * self.updates.shape[1] + granularities.long()


class _Boundary(NamedTuple):
    """The boundary pixels of a batch, without a graph: features (N, D or E), their basis, classes and rings (N,)."""

    features: Tensor
    basis: Tensor | None
    classes: Tensor
    rings: Tensor
    share: Tensor


class GranularPrototypes(nn.Module):
    """GAP as one loss: find the boundary pixels, project their features, compare them with the bank, update the bank.

    Args:
        in_channels: Cf, channels of the feature map. dim: D, length of a projected feature (256, paper).
        kernels: k_g, one granularity each (3/5/7 **assumed**); a single kernel gives plain boundary prototypes.
        momentum: as for :class:`PrototypeBank`. temperature: τ (0.07, paper).
        rings_at: ``"feature"`` draws the rings on the label reduced to feature size (paper); the kernels count feature
            pixels. ``"label"`` draws them at label size, then reduces label and rings alike; the kernels count label
            pixels.
        counted: as for :class:`PrototypeBank`.
        max_pixels: 0 takes all boundary pixels (paper); otherwise at most this many per rank and batch, evenly spaced
            in raster order, which needs no random number (**assumed**, to save time).

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int = 19,
        dim: int = 256,
        *,
        kernels: Sequence[int] = (3, 5, 7),
        momentum: float = 0.99,
        temperature: float = 0.07,
        rings_at: Literal["feature", "label"] = "feature",
        counted: Literal["batches", "pixels"] = "batches",
        max_pixels: int = 0,
    ) -> None:
        super().__init__()
        if rings_at not in ("feature", "label"):
            raise ValueError(f'rings_at must be "feature" or "label", not {rings_at!r}')
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if max_pixels < 0:
            raise ValueError(f"max_pixels must be 0 (all) or positive, not {max_pixels}")
        self.kernels = tuple(kernels)
        self.temperature = temperature
        self.rings_at = rings_at
        self.max_pixels = max_pixels
        self.projection = nn.Linear(in_channels, dim)
        self.bank = PrototypeBank(num_classes, dim, len(self.kernels), momentum, counted)
        self._latest: _Boundary | None = None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """L_GAP of a batch, a float32 scalar; in training mode the bank is updated afterwards.

        A collective: every rank calls it, also with a batch without any boundary.

        Args:
            features: (B, Cf, h, w). labels: (B, H, W) integers in [0, C) or void; H×W need not equal h×w.

        Raises:
            ValueError: the batch sizes differ.
        """
        if features.shape[0] != labels.shape[0]:
            raise ValueError(f"{features.shape[0]} feature maps but {labels.shape[0]} labels")
        classes, rings = self._classes_and_rings(labels, features.shape[-2:])
        share = (rings >= 0).sum() / (classes != IGNORE).sum().clamp_min(1)
        pixels = self._select(rings)
        classes, rings = classes.flatten()[pixels], rings.flatten()[pixels]
        # Gathered before they are projected: a 1×1 convolution on the boundary alone. Rows of a matrix, since the
        # gradient of a selection of rows is seven times as fast as that of an indexing with several indices.
        gathered = features.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, pixels)
        projected, basis = self._project(gathered)
        loss = self.bank.loss(projected, classes, rings, self.temperature, basis)
        self._latest = _Boundary(projected.detach(), None if basis is None else basis.detach(), classes, rings, share)
        if self.training:
            self.bank.update(projected, classes, rings, basis)
        return loss

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """What the latest batch (of this rank) says of the bank; empty before the first one.

        ``ring_share``: of the valid feature pixels, those in a ring. ``ring_accuracy``: of the pixels in a ring, those
        whose nearest prototype of their class is that of their ring, where the class has several; ``ring_guess``: those
        in the most frequent ring of their class, which whoever knows nothing of a pixel guesses. ``rank``: of
        ``PrototypeBank.rank``.
        """
        if self._latest is None:
            return {}
        features, basis, classes, rings, share = self._latest
        values = {"ring_share": float(share), "rank": self.bank.rank()}
        seen = self.bank.updates > 0
        known = (seen.sum(dim=1) > 1)[classes.long()]
        if known.any():
            of, ring = classes[known].long(), rings[known].long()
            points = features[known] if basis is None else features[known] @ basis.T
            likeness = torch.einsum("nd,ngd->ng", points.float(), self.bank.prototypes[of])
            nearest = likeness.masked_fill(~seen[of], float("-inf")).argmax(dim=1)
            counts = torch.zeros_like(self.bank.updates).index_put_((of, ring), torch.ones_like(of), accumulate=True)
            values["ring_accuracy"] = float((nearest == ring).float().mean())
            values["ring_guess"] = float(counts.max(dim=1).values.sum() / len(of))
        return values

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, Cf) to the normalised projection (N, D); or, if Cf < D, to u_i (N, Cf + 1) and its basis."""
        if x.shape[1] >= self.projection.out_features:
            return F.normalize(self.projection(x.to(self.projection.weight.dtype)).float(), dim=1), None
        with torch.autocast(x.device.type, enabled=False):
            basis = torch.cat([self.projection.weight, self.projection.bias[:, None]], dim=1).float()
            x = F.pad(x.float(), (0, 1), value=1.0)
            squared_norm = ((x @ (basis.T @ basis)) * x).sum(dim=1, keepdim=True)
            return x * squared_norm.clamp_min(1e-24).rsqrt(), basis

    def _classes_and_rings(self, labels: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Class and granularity of every feature pixel, both (B, h, w)."""
        classes = downsample_label(labels, size)
        if self.rings_at == "feature":
            return classes, granularity(classes, self.kernels)
        return classes, downsample_label(granularity(labels, self.kernels), size)

    def _select(self, rings: Tensor) -> Tensor:
        """The flat indices of the boundary pixels of (B, h, w), (N,), evenly thinned to ``max_pixels``."""
        pixels = (rings.flatten() >= 0).nonzero().squeeze(1)
        number = len(pixels)
        if self.max_pixels and number > self.max_pixels:
            pixels = pixels[torch.arange(self.max_pixels, device=pixels.device) * number // self.max_pixels]
        return pixels
