"""Batches of one: a normalisation over the batch needs more than one value per channel to train on.

It has one where a device trains on one image at a time and a map is 1 × 1, as in the pooled branch of DeepLab's head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flexseg.errors import RunError
from flexseg.models import Segmentor

WHAT_TO_DO = (
    "give every device two images or more at a time (a larger training.batch_size, less training.accumulate), or take "
    "a head or norm_cfg without statistics over the batch (e.g. {type: GN, num_groups: 8})"
)


@contextmanager
def lone_values(size: int) -> Iterator[None]:
    """Say what torch means by `Expected more than 1 value per channel` in a pass of ``size`` images.

    Raises:
        RunError: a normalisation got one value.
    """
    try:
        yield
    except ValueError as error:
        if not _is_lone(error):
            raise
        raise RunError(
            f"a normalisation gets one value per channel of {size} image(s) to train on: {WHAT_TO_DO}"
        ) from error


def lone_norm(model: Segmentor, size: int, crop: tuple[int, int]) -> str:
    """The first layer of a trunk that cannot train on ``size`` images of ``crop`` (height, width); empty if all can.

    A pass of a copy on torch's ``meta`` device shows it, which computes nothing but shapes. A trunk that cannot run
    there is not judged; a training would say it then (:func:`lone_values`).
    """
    entered: list[str] = []
    trial = copy.deepcopy(model).to("meta").train()
    for name, module in trial.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: entered.append(name))
    try:
        with torch.random.fork_rng(), torch.no_grad():
            trial(torch.empty(size, 3, *crop, device="meta"))
    except ValueError as error:
        return entered[-1] if _is_lone(error) else ""
    except (NotImplementedError, RuntimeError, AttributeError, TypeError):
        return ""
    return ""


def _is_lone(error: ValueError) -> bool:
    return str(error).startswith(("Expected more than 1 value per channel", "Expected more than 1 spatial element"))
