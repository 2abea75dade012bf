"""The divergences against scipy, their gradients against finite differences, and the hard cases of log p."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from torch.nn import functional

from flexseg.components.consistency import jensen_shannon, kullback_leibler
from flexseg.components.losses import log_probabilities, negative_log_likelihood, pixel_cross_entropy

BOTH = pytest.mark.parametrize("divergence", [kullback_leibler, jensen_shannon])


def two_predictions(scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 5, 3, 4, generator=g) * scale for _ in range(2))
    return log_probabilities(one), log_probabilities(other)


def test_log_probabilities_have_the_classes_last() -> None:
    logits = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(log_probabilities(logits).permute(0, 3, 1, 2), functional.log_softmax(logits, dim=1))
    assert log_probabilities(logits.bfloat16()).dtype == torch.float32


def test_likelihood_is_the_cross_entropy() -> None:
    logits, labels = torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))
    labels[0, 1] = 255
    losses = negative_log_likelihood(log_probabilities(logits), labels)
    torch.testing.assert_close(losses, pixel_cross_entropy(logits, labels))


def test_divergences_against_scipy() -> None:
    log_p, log_q = two_predictions()
    p, q = log_p.double().exp().numpy(), log_q.double().exp().numpy()
    m = (p + q) / 2
    np.testing.assert_allclose(kullback_leibler(log_p, log_q), rel_entr(p, q).sum(-1), rtol=1e-4, atol=1e-6)
    expected = (rel_entr(p, m).sum(-1) + rel_entr(q, m).sum(-1)) / 2
    np.testing.assert_allclose(jensen_shannon(log_p, log_q), expected, rtol=1e-4, atol=1e-6)


@BOTH
def test_equal_predictions_are_not_apart(divergence) -> None:
    log_p, _ = two_predictions(10.0)
    log_p.requires_grad_()
    losses = divergence(log_p, log_p.detach().clone())
    assert losses.abs().max() < 1e-6


@BOTH
def test_gradient_against_finite_differences(divergence) -> None:
    log_p, log_q = (x.double().requires_grad_() for x in two_predictions())
    assert torch.autograd.gradcheck(divergence, (log_p, log_q))


def test_jensen_shannon_is_symmetric_and_at_most_ln_2() -> None:
    log_p, log_q = two_predictions(100.0)
    torch.testing.assert_close(jensen_shannon(log_p, log_q), jensen_shannon(log_q, log_p))
    certain = torch.full((1, 1, 1, 3), -200.0)  # probabilities that are 0 in float32
    one, other = certain.clone(), certain.clone()
    one[..., 0], other[..., 1] = 0, 0
    one.requires_grad_()
    loss = jensen_shannon(one, other)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    loss.sum().backward()
    assert torch.isfinite(one.grad).all()
