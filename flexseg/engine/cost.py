"""What a method costs: counted operations, which no other work on the machine can change, and a timed prediction."""

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
"""How often a prediction is timed; the median counts."""


def measure_cost(
    learner: nn.Module, backward: Callable[[Tensor], None], model: Segmentor, batch: Batch
) -> dict[str, Any]:
    """The cost of one training step on ``batch`` and of predicting an image, as ``run.json`` holds it.

    Operations are floating-point operations (two a multiply-add) of convolutions and matrix products, forward and
    backward; norms, activations and the optimiser are not counted. Gradients and the statistics of norms are changed,
    so this comes after the weights were written.

    Args:
        learner: computes the loss terms of a batch. backward: from their sum. model: the finished model.
        batch: as the last step's.

    Returns:
        ``step_flops`` of the whole batch; ``inference_flops`` and ``inference_seconds`` of one image of the batch's
        size; ``trained_parameters``, the learner's that get a gradient.
    """
    with FlopCounterMode(display=False) as step:
        backward(torch.stack(list(learner(batch).values())).sum())
    model.eval()
    image = batch.images[:1]
    with torch.inference_mode(), FlopCounterMode(display=False) as inference:
        model.predict(image)
    return {
        "step_flops": int(step.get_total_flops()),
        "inference_flops": int(inference.get_total_flops()),
        "inference_seconds": _seconds_an_image(model, batch.images),
        "trained_parameters": sum(each.numel() for each in learner.parameters() if each.requires_grad),
    }


@torch.inference_mode()
def _seconds_an_image(model: Segmentor, images: Tensor) -> float:
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        model.predict(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / len(images)  # the first one warms up
