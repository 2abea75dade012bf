"""Schedule, optimiser groups and averaging against the formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from flexseg.benchmark import Training
from flexseg.engine.optimise import WeightAverage, build_optimizer, learning_rate_factor, set_learning_rate


def schedule(iterations: int = 100, warmup: int = 0, power: float = 1.0, **more: Any) -> Training:
    return Training(
        iterations=iterations, batch_size=1, crop=(8, 8), learning_rate=0.01, warmup=warmup, power=power, **more
    )


@pytest.mark.parametrize("power", [0.0, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_warm_up_then_polynomial_decay(power: float, warmup: int) -> None:
    training = schedule(100, warmup, power)
    for i in range(100):
        expected = ((100 - i) / 100) ** power
        if i < warmup:
            expected *= (i + 1) / warmup
        assert learning_rate_factor(i, training) == pytest.approx(expected, rel=1e-12)
    assert learning_rate_factor(99, training) > 0, "the last step must move"
    if warmup:
        assert learning_rate_factor(0, training) == pytest.approx(1 / warmup)


@pytest.mark.parametrize("kind", [None, "adamw", "sgd"])
def test_groups_decay_only_matrices_and_scale_only_the_head(kind: str | None) -> None:
    learner = nn.Module()
    learner.model = nn.Module()
    learner.model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    learner.model.decode_head = nn.Conv2d(4, 2, 1)
    learner.training_modules = nn.Linear(4, 2)
    training = schedule(head_learning_rate_factor=10.0, weight_decay=0.05, warmup=4, optimizer=kind)
    optimizer = build_optimizer(learner, training)
    settings = {
        id(parameter): (group["base_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(settings) == len(list(learner.parameters())) == sum(len(g["params"]) for g in optimizer.param_groups)
    for name, parameter in learner.named_parameters():
        rate, decay = settings[id(parameter)]
        assert rate == pytest.approx(0.01 if "backbone" in name else 0.1), name
        matrix = name.endswith("weight") and parameter.ndim > 1
        assert decay == (0.05 if matrix else 0.0), name
    assert set_learning_rate(optimizer, 1, training) == pytest.approx(0.01 * 0.99 * 0.5)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(group["base_lr"] * 0.99 * 0.5)


def test_one_optimiser_step_is_adamw() -> None:
    """Decoupled weight decay and bias correction: θ ← θ(1 − ηλ) − η·sign-like step, on the first step exactly."""
    learner = nn.Linear(3, 2)
    training = schedule(weight_decay=0.1)
    before = learner.weight.detach().clone()
    optimizer = build_optimizer(learner, training)
    set_learning_rate(optimizer, 0, training)
    loss = (learner(torch.ones(1, 3)) * torch.tensor([[1.0, -2.0]])).sum()
    loss.backward()
    gradient = learner.weight.grad
    assert gradient is not None
    optimizer.step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(learner.weight.detach(), expected)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_three_steps_of_sgd_are_the_formula(momentum: float | None) -> None:
    """g ← ∇ + λθ, v ← μv + g, θ ← θ − ηv, as RobustNet's recipe has it."""
    learner = nn.Linear(3, 2)
    training = schedule(weight_decay=0.1, optimizer="sgd", momentum=momentum, power=0.9)
    theta, v = learner.weight.detach().clone(), torch.zeros(2, 3)
    optimizer = build_optimizer(learner, training)
    for i in range(3):
        rate = set_learning_rate(optimizer, i, training)
        optimizer.zero_grad()
        (learner(torch.ones(1, 3)) * torch.tensor([[1.0, -2.0]])).sum().backward()
        optimizer.step()
        v = (momentum or 0.0) * v + torch.tensor([[1.0], [-2.0]]) + 0.1 * theta
        theta = theta - rate * v
        torch.testing.assert_close(learner.weight.detach(), theta)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_average_against_a_slow_reference(decay: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = WeightAverage(model, decay)
    reference = {name: value.double().numpy().copy() for name, value in model.state_dict().items()}
    for n in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 1, 3, 3))
        average.update(n)
        d = min(decay, (1 + n) / (10 + n))
        for name, value in model.state_dict().items():
            now = value.double().numpy()
            reference[name] = now if name.endswith("tracked") else d * reference[name] + (1 - d) * now
    for name, value in average.tensors.items():
        torch.testing.assert_close(value.double(), torch.from_numpy(reference[name]), rtol=1e-5, atol=1e-6)
    assert int(average.tensors["1.num_batches_tracked"]) == 30
    if decay == 0:
        for name, value in model.state_dict().items():
            torch.testing.assert_close(average.tensors[name], value)


def test_average_is_a_copy() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.9)
    before = average.tensors["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    assert torch.equal(average.tensors["weight"], before)


def test_without_averaging_nothing_is_kept_twice() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = WeightAverage(model, 0.0)
    assert not average.state
    assert all(average.tensors[name].data_ptr() == value.data_ptr() for name, value in model.state_dict().items())
    kept = WeightAverage(model, 0.5)
    assert kept.state is kept.tensors
