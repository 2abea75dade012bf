"""Random draws that are a function of (seed, purpose, iteration, slot), not of a stream.

Which image a slot of a batch gets, and how it is cropped, therefore does not depend on the number of workers or
devices, on the order of evaluation, or on whether the run was interrupted.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a draw is for: draws for different purposes are independent."""

    CHOOSE = 0
    CROP = 1
    TRANSFORM = 2
    STEP = 3
    CLASS = 4


def generator(seed: int, purpose: Purpose, iteration: int, slot: int) -> np.random.Generator:
    """The generator of one draw. Equal arguments give equal numbers, on every machine."""
    return np.random.default_rng([seed, purpose, iteration, slot])


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """A seed for the framework's own generator at one step (dropout), as a non-negative 63-bit integer."""
    return int(generator(seed, Purpose.STEP, iteration, rank).integers(2**63))
