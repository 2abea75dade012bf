"""Hardness-Aware Sampling (FLEX-Seg, HAS). Numpy only.

Each training image keeps a hardness h_i, an exponential moving average of its loss. At training time t,

    threshold(t) = 1 / (1 + e^{k (t − m)}),     k = 0.05;      r ~ U(0, 1):
    r > threshold → draw image i with P(i) = softmax(h_i / τ), τ = 1.0;      otherwise draw uniformly.

Where a benchmark's recipe draws otherwise than uniformly (rare classes, a ratio of sources), "uniformly" is read as
that recipe's own draw, so that what HAS changes is the share of hard draws alone (**assumed**).

So training begins almost uniform and ends almost purely by hardness.

**Assumed**, as the public text is silent: t is the *percentage* of training done and m = 50, so that the threshold
falls 0.92 → 0.50 → 0.08 (in iterations, k = 0.05 would be nearly a step); the average's decay is 0.9 and its first
value is the first loss; an image that was never drawn counts with the mean hardness of those that were; draws are
independent, with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Schedule = Literal["sigmoid", "linear", "none"]
Unit = Literal["percent", "iteration"]

_STREAM = int.from_bytes(b"flex-HAS", "big")
"""Half of the generator's key: keeps these draws apart from others made from the same (seed, iteration, slot)."""


def uniform_threshold(
    t: ArrayLike, schedule: Schedule = "sigmoid", k: float = 0.05, midpoint: float = 50.0
) -> NDArray[np.float64]:
    """The probability of a uniform draw at the times ``t``: in [0, 1], of the shape of ``t``.

    Args:
        t: in the unit of ``midpoint`` (see ``progress_unit``), of any shape.
        schedule: ``"sigmoid"`` 1/(1 + e^{k(t − m)}) (paper); ``"linear"`` 1 − t/(2m), from 1 at t = 0 to 0 at t = 2m,
            then 0 (its end points **assumed**); ``"none"`` 0 at every t: no warm-up, always by hardness (**assumed**
            reading of the paper's ablation).
        k: the steepness, per unit of ``midpoint``. midpoint: m.

    Raises:
        ValueError: another schedule.
    """
    t = np.asarray(t, dtype=np.float64)
    if schedule == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, k * (t - midpoint))))  # does not overflow, however steep
    if schedule == "linear":
        return np.asarray(np.clip(1.0 - t / (2.0 * midpoint), 0.0, 1.0))
    if schedule == "none":
        return np.zeros_like(t)
    raise ValueError(f'schedule must be "sigmoid", "linear" or "none", not {schedule!r}')


def progress_unit(iteration: int, iterations: int, unit: Unit = "percent") -> float:
    """The time t of an iteration (from 0) of a training of ``iterations``: in percent (**assumed**) or iterations.

    Raises:
        ValueError: another unit.
    """
    if unit == "percent":
        return 100.0 * iteration / iterations
    if unit == "iteration":
        return float(iteration)
    raise ValueError(f'unit must be "percent" or "iteration", not {unit!r}')


class HardnessSampler:
    """Chooses training images by their hardness, and keeps it.

    ``hardness`` (n,) float64 is the moving average of each image's loss, 0 while ``seen`` (n,) bool, whether it was
    ever observed, is false. In a distributed run every rank keeps the same hardness: gather indices and losses of all
    ranks before ``update``.

    Args:
        num_images: n. seed, iterations: of the run. temperature: τ > 0. decay: of the moving average, in [0, 1).
        k, midpoint, unit, schedule: as for ``uniform_threshold`` and ``progress_unit``.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        num_images: int,
        seed: int,
        iterations: int,
        *,
        temperature: float = 1.0,
        decay: float = 0.9,
        k: float = 0.05,
        midpoint: float = 50.0,
        unit: Unit = "percent",
        schedule: Schedule = "sigmoid",
    ) -> None:
        if num_images < 1 or iterations < 1:
            raise ValueError(f"there must be images and iterations, not {num_images} and {iterations}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, but is {seed}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must lie in [0, 1), not {decay}")
        self.seed = seed
        self.iterations = iterations
        self.temperature = temperature
        self.decay = decay
        self.k = k
        self.midpoint = midpoint
        self.unit: Unit = unit
        self.schedule: Schedule = schedule
        self.hardness = np.zeros(num_images, dtype=np.float64)
        self.seen = np.zeros(num_images, dtype=np.bool_)
        self.threshold(0)  # a wrong unit or schedule is an error here, not at the first draw

    def threshold(self, iteration: int) -> float:
        """The probability of a uniform draw at ``iteration`` (from 0)."""
        t = progress_unit(iteration, self.iterations, self.unit)
        return float(uniform_threshold(t, self.schedule, self.k, self.midpoint))

    def probabilities(self) -> NDArray[np.float64]:
        """P(i) = softmax(h_i / τ) of a draw by hardness, (n,) float64; uniform until a first loss was observed."""
        mean = self.hardness[self.seen].mean() if self.seen.any() else 0.0
        scaled = np.where(self.seen, self.hardness, mean) / self.temperature
        p = np.exp(scaled - scaled.max())
        return np.asarray(p / p.sum())

    def effective_sample_size(self) -> float:
        """1 / Σ P(i)², from 1 (one image is always drawn) to n (uniform)."""
        return float(1.0 / np.square(self.probabilities()).sum())

    def choose(
        self, iteration: int, slots: Sequence[int], base: Callable[[int, int], int] | None = None
    ) -> NDArray[np.int64]:
        """The image for each slot of the batch at ``iteration``: (len(slots),) int64 in [0, n).

        A pure function of (seed, iteration, slot, hardness): it changes nothing, and a slot's image does not depend
        on the other slots, so workers, ranks and a resumed run all draw the same.

        Args:
            base: (iteration, slot) → image, the draw that is not by hardness; without it, uniform.

        Raises:
            ValueError: a negative iteration or slot.
        """
        if iteration < 0 or any(slot < 0 for slot in slots):
            raise ValueError(f"iteration and slots must not be negative, but are {iteration} and {list(slots)}")
        draws = np.array([self._uniforms(iteration, slot) for slot in slots], dtype=np.float64).reshape(-1, 2)
        r, u = draws[:, 0], draws[:, 1]
        n = len(self.hardness)
        cumulative = np.cumsum(self.probabilities())
        by_hardness = np.searchsorted(cumulative, u * cumulative[-1], side="right")
        otherwise = (u * n).astype(np.int64)
        hard = r > self.threshold(iteration)
        if base is not None:
            for place in np.flatnonzero(~hard):
                otherwise[place] = base(iteration, slots[int(place)])
        # Rounding may carry u·n or u·Σp up to the upper end itself, one image beyond the last.
        return np.minimum(np.where(hard, by_hardness, otherwise), n - 1).astype(np.int64)

    def update(self, indices: ArrayLike, losses: ArrayLike) -> None:
        """Observe the losses of a batch: h_i ← decay · h_i + (1 − decay) · loss_i; an image's first loss is copied.

        Args:
            indices, losses: (b,), in any order: an image that occurs more than once is observed once, with its mean
                loss.

        Raises:
            ValueError: a loss is not finite, an index is outside [0, n) or the lengths differ. Nothing is changed then.
        """
        index = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        loss = np.atleast_1d(np.asarray(losses, dtype=np.float64))
        if index.ndim != 1 or index.shape != loss.shape:
            raise ValueError(f"indices and losses must be two lists of one length, not {index.shape} and {loss.shape}")
        if ((index < 0) | (index >= len(self.hardness))).any():
            raise ValueError(f"indices must lie in [0, {len(self.hardness)}): {index.tolist()}")
        if not np.isfinite(loss).all():
            raise ValueError(f"the loss of these images is not finite: {np.unique(index[~np.isfinite(loss)]).tolist()}")
        if not len(index):
            return
        # Sorted by image, then by loss: a sum of floats depends on its order, the hardness must not.
        order = np.lexsort((loss, index))
        image, start, count = np.unique(index[order], return_index=True, return_counts=True)
        mean = np.add.reduceat(loss[order], start) / count
        average = self.decay * self.hardness[image] + (1.0 - self.decay) * mean
        self.hardness[image] = np.where(self.seen[image], average, mean)
        self.seen[image] = True

    def state(self) -> dict[str, np.ndarray]:
        """What changes during training, as copies: ``hardness`` and ``seen``."""
        return {"hardness": self.hardness.copy(), "seen": self.seen.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take back what ``state`` gave, exactly.

        Raises:
            ValueError: it is of another number of images.
            KeyError: it is incomplete.
        """
        hardness, seen = np.asarray(state["hardness"]), np.asarray(state["seen"])
        if hardness.shape != self.hardness.shape or seen.shape != self.seen.shape:
            raise ValueError(f"the state is of {hardness.shape} and {seen.shape} images, not {self.hardness.shape}")
        self.hardness = hardness.astype(np.float64)
        self.seen = seen.astype(np.bool_)

    def _uniforms(self, iteration: int, slot: int) -> NDArray[np.float64]:
        """The pair (r, u) of (seed, iteration, slot): the start of a Philox sequence addressed by key and counter."""
        key = np.array([self.seed, _STREAM], dtype=np.uint64)
        counter = np.array([0, 0, iteration, slot], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(counter=counter, key=key)).random(2)
