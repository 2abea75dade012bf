"""How much two predictions of the same pixels differ: divergences of log-probabilities, in nats.

    KL(p‖q) = Σ_c p_c (log p_c − log q_c)                              Kullback–Leibler
    JS(p, q) = ½ [KL(p‖m) + KL(q‖m)],  m = ½ (p + q)                   Jensen–Shannon, from 0 to ln 2

Log-probabilities have the classes last, as :func:`flexseg.components.losses.log_probabilities` gives them. Gradients
pass to both arguments; detach what is to be a target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def kullback_leibler(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) of every pixel: (B, H, W), from log-probabilities (B, H, W, C)."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """JS(p, q) of every pixel: (B, H, W), from log-probabilities (B, H, W, C). Has first derivatives only."""
    return _JensenShannon.apply(log_p, log_q)  # type: ignore[no-untyped-call, no-any-return]


class _JensenShannon(torch.autograd.Function):
    """JS with its gradient in closed form, ∂JS/∂log p_c = ½ p_c (log p_c − log m_c): less than half of autograd's time.

    The derivatives of p_c and of log m_c, which the summand also holds, cancel in the sum of both halves.
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        p, q = log_p.exp(), log_q.exp()
        # Where both are 0, the logarithm is finite, and both products are 0.
        middle = torch.add(p, q).div_(2).clamp_min_(torch.finfo(p.dtype).tiny).log_()
        of_p, of_q = (log_p - middle).mul_(p), (log_q - middle).mul_(q)
        ctx.save_for_backward(of_p, of_q)
        return (of_p.sum(dim=-1) + of_q.sum(dim=-1)) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        of_p, of_q = ctx.saved_tensors
        half = gradient[..., None] / 2
        return half * of_p, half * of_q
