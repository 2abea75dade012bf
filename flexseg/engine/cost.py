"""What a method costs: counted operations, which other work on the machine cannot change, and a timed prediction."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flexseg.method import Batch
from flexseg.models import Segmentor

ROUNDS = 5
"""How often a prediction is timed, after a first one that warms up; the median counts."""


def measure_cost(
    learner: nn.Module, backward: Callable[[Tensor], None], model: Segmentor, batch: Batch
) -> dict[str, Any]:
    """The cost of one training step on ``batch`` and of predicting an image, for ``run.json``.

    Operations are floating-point operations (two per multiply-add) of convolutions and matrix products, forward and
    backward; norms, activations and the optimiser are not counted. This changes gradients and the statistics of norms,
    so call it once the weights are written.

    Args:
        learner: computes the loss terms of a batch. backward: is called with their sum. model: the finished model.

    Returns:
        ``step_flops`` of the whole batch; ``inference_flops`` and ``inference_seconds`` of one image of the batch's
        size; ``trained_parameters``, how many numbers of the learner get a gradient.
    """
    with FlopCounterMode(display=False) as step:
        backward(torch.stack(list(learner(batch).values())).sum())
    model.eval()
    times = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as inference:
            model.predict(batch.images[:1])
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            model.predict(batch.images)
            if batch.images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return {
        "step_flops": int(step.get_total_flops()),
        "inference_flops": int(inference.get_total_flops()),
        "inference_seconds": statistics.median(times[1:]) / len(batch.images),
        "trained_parameters": sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad),
    }
