"""UBE and the fixed policies against the equations, pixel by pixel in double precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexseg.components.boundary import label_boundary
from flexseg.components.losses import log_probabilities, mean_over_valid
from flexseg.components.ube import (
    clipped_cross_entropy,
    constant_weights,
    predictive_entropy,
    uncertainty_boundary_losses,
    uncertainty_weights,
    weighted_cross_entropy,
)

VOID = 255
C = 5


def uncertainty_boundary_loss(logits: Tensor, label: Tensor, mask: Tensor, alpha: float = 3.0) -> Tensor:
    """L_UBE."""
    weights, losses = uncertainty_boundary_losses(log_probabilities(logits), label, mask, alpha)
    return mean_over_valid(weights * losses, label)


def pixels(label: Tensor) -> list[tuple[int, int, int]]:
    return [(b, y, x) for b in range(label.shape[0]) for y in range(label.shape[1]) for x in range(label.shape[2])]


def probabilities(z: list[float]) -> list[float]:
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def slow_entropy(logits: Tensor) -> Tensor:
    out = torch.zeros(logits[:, 0].shape, dtype=torch.float64)
    for b, y, x in pixels(out):
        p = probabilities(logits[b, :, y, x].tolist())
        out[b, y, x] = -sum(v * math.log(v) for v in p if v > 0)
    return out


def slow_weights(entropy: Tensor, mask: Tensor, alpha: float, eps: float) -> Tensor:
    out = torch.ones(entropy.shape, dtype=torch.float64)
    on = [at for at in pixels(entropy) if mask[at]]
    if not on:
        return out
    mean = sum(float(entropy[at]) for at in on) / len(on)
    sigma = math.sqrt(sum((float(entropy[at]) - mean) ** 2 for at in on) / len(on))
    for at in on:
        out[at] = 1 + alpha / (1 + math.exp(-(float(entropy[at]) - mean) / (sigma + eps)))
    return out


def slow_loss(logits: Tensor, label: Tensor, weights: Tensor, limit: Tensor | None = None) -> Tensor:
    """(1/N) Σ w · L_CE in double precision; with ``limit``, Σ min(limit, L_CE)."""
    z, total, number = logits.double(), logits.double().sum() * 0, 0
    for at in pixels(label):
        if label[at] == VOID:
            continue
        b, y, x = at
        ce = torch.logsumexp(z[b, :, y, x], 0) - z[b, int(label[at]), y, x]
        if limit is not None:
            ce = torch.minimum(ce, limit[at].double())
        total, number = total + weights[at].double() * ce, number + 1
    return total / max(number, 1)


def example(make_labels, seed: int, **kwargs) -> tuple[Tensor, Tensor, Tensor]:
    label = make_labels(seed, classes=C, **kwargs)
    g = torch.Generator().manual_seed(seed + 100)
    logits = torch.randn(label.shape[0], C, *label.shape[1:], generator=g) * 3
    return logits, label, label_boundary(label, 3)


@settings(derandomize=True, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.sampled_from([0.0, 0.3, 1.0]))
def test_everything_against_the_equations(make_labels, seed: int, b: int, h: int, w: int, void: float) -> None:
    logits, label, mask = example(make_labels, seed, batch=b, height=h, width=w, void=void, block=2)
    entropy = predictive_entropy(logits)
    torch.testing.assert_close(entropy.double(), slow_entropy(logits), rtol=1e-5, atol=1e-6)
    weights = uncertainty_weights(entropy, mask, alpha=3.0)
    torch.testing.assert_close(weights.double(), slow_weights(entropy, mask, 3.0, 1e-6), rtol=1e-4, atol=1e-4)
    logits.requires_grad_()
    fast, slow = uncertainty_boundary_loss(logits, label, mask), slow_loss(logits, label, weights)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-6)
    (of_fast,), (of_slow,) = torch.autograd.grad(fast, logits), torch.autograd.grad(slow, logits)
    torch.testing.assert_close(of_fast, of_slow, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_joint_path_is_the_composition_to_the_last_bit(make_labels, dtype: torch.dtype) -> None:
    logits, label, mask = example(make_labels, 3)
    a, b = logits.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_()
    joint = uncertainty_boundary_loss(a, label, mask, 2.0)
    composed = weighted_cross_entropy(
        log_probabilities(b), label, uncertainty_weights(predictive_entropy(b), mask, 2.0)
    )
    assert joint.dtype == torch.float32
    assert torch.equal(joint, composed)
    joint.backward()
    composed.backward()
    assert torch.equal(a.grad, b.grad)
    assert a.grad.abs().sum() > 0


def test_bfloat16_logits_are_computed_in_float32(make_labels) -> None:
    logits, label, mask = example(make_labels, 4)
    rounded = logits.bfloat16()
    assert predictive_entropy(rounded).dtype == torch.float32
    assert torch.equal(predictive_entropy(rounded), predictive_entropy(rounded.float()))
    assert torch.equal(
        uncertainty_boundary_loss(rounded, label, mask), uncertainty_boundary_loss(rounded.float(), label, mask)
    )


def test_without_boundary_it_is_the_plain_cross_entropy(make_labels) -> None:
    logits, label, mask = example(make_labels, 5)
    none = torch.zeros_like(mask)
    assert (uncertainty_weights(predictive_entropy(logits), none) == 1).all()
    plain = F.cross_entropy(logits, label, ignore_index=VOID)
    torch.testing.assert_close(uncertainty_boundary_loss(logits, label, none), plain)


def test_labels_may_be_uint8(make_labels) -> None:
    logits, label, mask = example(make_labels, 6)
    small = uncertainty_boundary_loss(logits, label.to(torch.uint8), mask)
    assert torch.equal(small, uncertainty_boundary_loss(logits, label, mask))


def test_all_void_is_zero_with_a_graph() -> None:
    logits = torch.randn(2, C, 3, 4, requires_grad=True)
    void, none = torch.full((2, 3, 4), VOID), torch.zeros(2, 3, 4, dtype=torch.bool)
    for loss in (
        uncertainty_boundary_loss(logits, void, none),
        weighted_cross_entropy(log_probabilities(logits), void, torch.ones(2, 3, 4)),
        clipped_cross_entropy(log_probabilities(logits), void, none, 1.0),
    ):
        logits.grad = None
        loss.backward()
        assert loss.item() == 0
        assert logits.grad.abs().sum() == 0


def test_entropy_and_weights_carry_no_gradient() -> None:
    logits = torch.randn(1, C, 4, 4, requires_grad=True)
    entropy = predictive_entropy(logits)
    assert not entropy.requires_grad
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    assert not uncertainty_weights(entropy.clone().requires_grad_(), mask).requires_grad
    learned = torch.ones(1, 4, 4, requires_grad=True)
    weighted_cross_entropy(log_probabilities(logits), torch.zeros(1, 4, 4, dtype=torch.int64), learned).backward()
    assert learned.grad is None


def test_a_constant_entropy_gives_exactly_one_plus_half_alpha() -> None:
    for value, shape in ((0.0, (8, 96, 192)), (0.1, (8, 96, 192)), (math.log(19), (8, 96, 192)), (0.7, (1, 1, 1))):
        entropy = torch.full(shape, value)
        weights = uncertainty_weights(entropy, torch.ones(shape, dtype=torch.bool))
        torch.testing.assert_close(weights, torch.full_like(weights, 2.5), rtol=0, atol=1e-3)


def test_entropy_of_known_distributions_and_extreme_logits() -> None:
    assert predictive_entropy(torch.zeros(1, 19, 1, 1)).item() == pytest.approx(math.log(19))
    extreme = torch.full((1, 19, 1, 2), -1e4)
    extreme[0, 3] = 1e4
    extreme[0, 4, 0, 1] = 1e4
    torch.testing.assert_close(predictive_entropy(extreme), torch.tensor([[[0.0, math.log(2)]]]))
    extreme.requires_grad_()
    loss = uncertainty_boundary_loss(extreme, torch.tensor([[[0, 3]]]), torch.tensor([[[True, True]]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(extreme.grad).all()
    assert loss.item() > 1e4


def test_nan_logits_reach_the_loss(make_labels) -> None:
    logits, label, mask = example(make_labels, 8)
    b, y, x = mask.nonzero()[0].tolist()
    logits[b, 0, y, x] = float("nan")
    assert predictive_entropy(logits).isnan().sum() == 1
    assert uncertainty_boundary_loss(logits, label, mask).isnan()
    assert weighted_cross_entropy(log_probabilities(logits), label, torch.ones(label.shape)).isnan()
    assert clipped_cross_entropy(log_probabilities(logits), label, mask, 1.0).isnan()


def test_fixed_policies(make_labels) -> None:
    logits, label, mask = example(make_labels, 9)
    for weight in (0.0, 0.5, 2.5):
        weights = constant_weights(mask, weight)
        assert weights.dtype == torch.float32
        assert (weights[mask] == weight).all()
        assert (weights[~mask] == 1).all()
        loss = weighted_cross_entropy(log_probabilities(logits), label, weights).double()
        torch.testing.assert_close(loss, slow_loss(logits, label, weights), rtol=1e-5, atol=1e-6)


def test_the_clip_policy_and_its_gradient(make_labels) -> None:
    logits, label, mask = example(make_labels, 10)
    logits.requires_grad_()
    limit = torch.where(mask, 1.3, float("inf"))
    fast = clipped_cross_entropy(log_probabilities(logits), label, mask, 1.3)
    slow = slow_loss(logits, label, torch.ones(label.shape), limit)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-6)
    (of_fast,), (of_slow,) = torch.autograd.grad(fast, logits), torch.autograd.grad(slow, logits)
    torch.testing.assert_close(of_fast, of_slow, rtol=1e-4, atol=1e-6)
    ce = F.cross_entropy(logits, label, ignore_index=VOID, reduction="none")
    above = mask & (ce > 1.3)
    assert above.any()
    assert of_fast.movedim(1, -1)[above].abs().sum() == 0


def test_shapes_that_would_broadcast_are_refused() -> None:
    logits, label = torch.zeros(2, C, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="weights is"):
        weighted_cross_entropy(log_probabilities(logits), label, torch.ones(2, 1, 3, 3))
    with pytest.raises(ValueError, match="boundary_mask is"):
        uncertainty_boundary_loss(logits, label, torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="boundary_mask is"):
        clipped_cross_entropy(log_probabilities(logits), label, torch.ones(3, 3, dtype=torch.bool), 1.0)
