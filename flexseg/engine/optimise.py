"""Optimiser, learning-rate schedule and weight averaging: equal for every row of a benchmark."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexseg.benchmark import Training


def learning_rate_factor(iteration: int, training: Training) -> float:
    """The factor on the base learning rate at 0-based ``iteration``: (1 − i/T)^p over T iterations, as in ``PolyLR``.

    During a warm-up of w iterations it is multiplied by (i + 1)/w.
    """
    decay = (1 - iteration / training.iterations) ** training.power
    return decay * (iteration + 1) / training.warmup if iteration < training.warmup else decay


def build_optimizer(learner: nn.Module, training: Training) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, ICLR 2019) or SGD with momentum.

    Biases and normalisation have no weight decay unless ``decay_all``.

    Everything outside the backbone learns at ``head_learning_rate_factor`` times the base rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:  # a frozen trunk's
            continue
        factor = 1.0 if ".backbone." in f".{name}" else training.head_learning_rate_factor
        decay = training.weight_decay if parameter.ndim > 1 or training.decay_all else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    described = [
        {"params": parameters, "weight_decay": decay, "base_lr": training.learning_rate * factor}
        for (factor, decay), parameters in groups.items()
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(described, lr=training.learning_rate, momentum=training.momentum or 0.0, fused=True)
    return torch.optim.AdamW(described, lr=training.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, iteration: int, training: Training) -> float:
    """Set every group's rate for ``iteration`` and return the backbone's."""
    factor = learning_rate_factor(iteration, training)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return training.learning_rate * factor


class WeightAverage:
    """Exponential moving average of a model's parameters and buffers: θ̄ ← d·θ̄ + (1 − d)·θ after every step.

    Early on, d is min(decay, (1 + n)/(10 + n)) after n steps, so that the random start is forgotten. Counters
    (integer buffers) are copied. With decay 0 the average is the model itself, in the model's own memory.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        state = model.state_dict()
        self.tensors: dict[str, Tensor] = state if decay == 0 else {k: v.detach().clone() for k, v in state.items()}
        # The model's own tensors, looked up once: training changes their values, never the tensors.
        pairs = [(self.tensors[name], value) for name, value in state.items()]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside the model: ``tensors``, or nothing if they are the model's."""
        return {} if self.decay == 0 else self.tensors

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Average in the model's weights after ``steps`` (0-based) finished steps."""
        if self.decay == 0:
            return
        decay = min(self.decay, (1 + steps) / (10 + steps))
        ours, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for own, other in self._copied:
            own.copy_(other)
