"""Hardness-Aware Sampling (FLEX-Seg, HAS). Numpy only.

Each training image keeps a hardness h_i, an exponential moving average of its loss. At training time t,

    threshold(t) = 1 / (1 + e^{k (t − m)}),     k = 0.05;      r ~ U(0, 1):
    r > threshold → draw image i with P(i) = softmax(h_i / τ), τ = 1.0;      otherwise draw uniformly.

So training begins almost uniform and ends almost purely by hardness.

**The recipe's draw.** Where a benchmark's recipe draws otherwise than uniformly (rare classes, a ratio of sources), b_i
is the probability with which it draws image i: "uniformly" is read as that draw, and a hard draw has
P(i) ∝ b_i e^{h_i/τ} (**assumed**). For a uniform recipe that is the paper's softmax; for another, switching HAS on does
not switch the recipe off.

**Hardness** (:data:`Hardness`). The average's start is not published. ``"copied"``: an image's first loss is copied,
and then decays. An image is drawn but a few times in a training, whose losses fall: the first loss keeps most of the
weight, and hardness is mostly how early an image was first seen. ``"debiased"``: the average starts at 0 and is divided
by 1 − decay^visits, so that all visits count in their proportion. ``"relative"``: likewise, of the loss less a running
mean of all losses at that time. The softmax does not see what is common to all images; so it is the same average, but
for the moments at which an image happened to be drawn. It is the only one of the three by which images can be compared
that were drawn at different times, and the default (**assumed**).

**Assumed** as well: t is the *percentage* of training done and m is its half, so that the threshold falls 0.92 → 0.50 →
0.08 (in iterations, k = 0.05 is nearly a step); decay 0.9; an image that was never drawn counts with the mean hardness
of those that were; draws are independent, with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Schedule = Literal["sigmoid", "linear", "none"]
Unit = Literal["percent", "iteration", "epoch"]
Hardness = Literal["relative", "debiased", "copied"]

LEVEL_DECAY = 0.98
"""Of the running mean of all losses: it spans about 50 iterations."""
REMEMBERED = 512
"""How many of the latest pairs of hardness and loss are kept, to see whether the one foretells the other."""

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


def progress_unit(
    iteration: int, iterations: int, unit: Unit = "percent", images_per_step: int = 1, images: int = 1
) -> float:
    """The time t of an iteration (from 0) of a training of ``iterations``: in percent (**assumed**) or the other units.

    Args:
        images_per_step, images: of an epoch; an epoch has passed when as many images were drawn as there are.

    Raises:
        ValueError: another unit.
    """
    if unit == "percent":
        return 100.0 * iteration / iterations
    if unit == "iteration":
        return float(iteration)
    if unit == "epoch":
        return iteration * images_per_step / images
    raise ValueError(f'unit must be "percent", "iteration" or "epoch", not {unit!r}')


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation of two samples; NaN where one of them is constant or has fewer than two values."""
    x, y = (rankdata(np.asarray(values, dtype=np.float64)) for values in (a, b))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


class HardnessSampler:
    """Chooses training images by their hardness, and keeps it.

    In a distributed run every rank keeps the same hardness: gather indices and losses of all ranks before ``update``.

    Args:
        num_images: n. seed, iterations: of the run. temperature: τ > 0. decay: of the moving average, in [0, 1).
        hardness: see the module. k, unit, schedule: as for ``uniform_threshold`` and ``progress_unit``.
        midpoint: m; None for half of the training.
        images_per_step: the size of a batch over all devices, by which epochs are counted.
        exchanged: None, or the kind of each image, (n,) integers: then an image is drawn by the hardness of another
            one of its kind, fixed for the run. The draws are as uneven as by hardness but do not look at an image's own
            losses: the control.

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
        hardness: Hardness = "relative",
        k: float = 0.05,
        midpoint: float | None = None,
        unit: Unit = "percent",
        schedule: Schedule = "sigmoid",
        images_per_step: int = 1,
        exchanged: ArrayLike | None = None,
    ) -> None:
        if num_images < 1 or iterations < 1 or images_per_step < 1:
            raise ValueError(
                f"there must be images, iterations and a batch, not {num_images}, {iterations}, {images_per_step}"
            )
        if seed < 0:
            raise ValueError(f"seed must not be negative, but is {seed}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must lie in [0, 1), not {decay}")
        if hardness not in ("relative", "debiased", "copied"):
            raise ValueError(f'hardness must be "relative", "debiased" or "copied", not {hardness!r}')
        self.seed = seed
        self.iterations = iterations
        self.images_per_step = images_per_step
        self.temperature = temperature
        self.decay = decay
        self.kind: Hardness = hardness
        self.k = k
        self.unit: Unit = unit
        self.schedule: Schedule = schedule
        self._average = np.zeros(num_images, dtype=np.float64)
        self._visits = np.zeros(num_images, dtype=np.int64)
        self._first = np.zeros(num_images, dtype=np.int64)
        self._level = np.zeros(2, dtype=np.float64)  # the running mean of all losses, and its weight
        self._updates = np.zeros(1, dtype=np.int64)
        self._pairs = np.zeros((REMEMBERED, 2), dtype=np.float64)
        self._paired = np.zeros(1, dtype=np.int64)  # how many pairs there ever were; the latest stand last
        self.midpoint = self.time(iterations) / 2 if midpoint is None else midpoint
        self._owner = None if exchanged is None else _exchange(np.asarray(exchanged), seed)
        self.threshold(0)  # a wrong unit or schedule is an error here, not at the first draw

    @property
    def hardness(self) -> NDArray[np.float64]:
        """h_i, (n,) float64; 0 for an image that was never observed."""
        if self.kind == "copied":
            return self._average.copy()
        return self._average / np.maximum(1.0 - self.decay**self._visits, np.finfo(np.float64).tiny)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Whether each image was ever observed, (n,) bool."""
        return self._visits > 0

    def time(self, iteration: int) -> float:
        """t of an iteration (from 0), in the unit of the threshold."""
        return progress_unit(iteration, self.iterations, self.unit, self.images_per_step, len(self._visits))

    def threshold(self, iteration: int) -> float:
        """The probability of a uniform draw at ``iteration`` (from 0)."""
        return float(uniform_threshold(self.time(iteration), self.schedule, self.k, self.midpoint))

    def probabilities(self, base: ArrayLike | None = None) -> NDArray[np.float64]:
        """P(i) ∝ b_i e^{h_i/τ} of a draw by hardness, (n,) float64; b_i itself until a first loss was observed.

        Args:
            base: b, (n,), the recipe's probabilities; without it, uniform.
        """
        hardness, seen = self.hardness, self.seen
        if self._owner is not None:
            hardness, seen = hardness[self._owner], seen[self._owner]
        mean = hardness[seen].mean() if seen.any() else 0.0
        scaled = np.where(seen, hardness, mean) / self.temperature
        if base is None:
            p = np.exp(scaled - scaled.max())
        else:
            b = np.asarray(base, dtype=np.float64)
            p = b * np.exp(np.minimum(scaled - scaled[b > 0].max(), 0.0))
        return np.asarray(p / p.sum())

    def effective_sample_size(self, base: ArrayLike | None = None) -> float:
        """1 / Σ P(i)², from 1 (one image is always drawn) to n (uniform)."""
        return float(1.0 / np.square(self.probabilities(base)).sum())

    def loss_correlation(self) -> float:
        """Rank correlation of the latest losses with the hardness that their images had before: does it foretell them?

        Over the latest images that had been observed before; NaN while there are fewer than two.
        """
        known = self._pairs[REMEMBERED - min(int(self._paired[0]), REMEMBERED) :]
        return rank_correlation(known[:, 0], known[:, 1])

    def age_correlation(self) -> float:
        """Rank correlation of hardness with the time since an image was first seen, over the images that were seen."""
        return rank_correlation(self.hardness[self.seen], -self._first[self.seen])

    def choose(
        self,
        iteration: int,
        slots: Sequence[int],
        draw: Callable[[int, int], int] | None = None,
        base: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """The image for each slot of the batch at ``iteration``: (len(slots),) int64 in [0, n).

        A pure function of (seed, iteration, slot, hardness): it changes nothing, and a slot's image does not depend
        on the other slots, so workers, ranks and a resumed run all draw the same.

        Args:
            draw: (iteration, slot) → image, the recipe's own draw; without it, uniform.
            base: as for ``probabilities``.

        Raises:
            ValueError: a negative iteration or slot.
        """
        if iteration < 0 or any(slot < 0 for slot in slots):
            raise ValueError(f"iteration and slots must not be negative, but are {iteration} and {list(slots)}")
        draws = np.array([self._uniforms(iteration, slot) for slot in slots], dtype=np.float64).reshape(-1, 2)
        r, u = draws[:, 0], draws[:, 1]
        n = len(self._visits)
        cumulative = np.cumsum(self.probabilities(base))
        # Rounding may carry u·Σp up to the upper end itself, beyond the last image that can be drawn.
        last = int(np.searchsorted(cumulative, cumulative[-1]))
        by_hardness = np.minimum(np.searchsorted(cumulative, u * cumulative[-1], side="right"), last)
        otherwise = np.minimum((u * n).astype(np.int64), n - 1)
        hard = r > self.threshold(iteration)
        if draw is not None:
            for place in np.flatnonzero(~hard):
                otherwise[place] = draw(iteration, slots[int(place)])
        return np.where(hard, by_hardness, otherwise).astype(np.int64)

    def update(self, indices: ArrayLike, losses: ArrayLike) -> None:
        """Observe the losses of a batch.

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
        if ((index < 0) | (index >= len(self._visits))).any():
            raise ValueError(f"indices must lie in [0, {len(self._visits)}): {index.tolist()}")
        if not np.isfinite(loss).all():
            raise ValueError(f"the loss of these images is not finite: {np.unique(index[~np.isfinite(loss)]).tolist()}")
        if not len(index):
            return
        # Sorted by image, then by loss: a sum of floats depends on its order, the hardness must not.
        order = np.lexsort((loss, index))
        image, start, count = np.unique(index[order], return_index=True, return_counts=True)
        mean = np.add.reduceat(loss[order], start) / count
        old = self.seen[image]
        pairs = np.stack([self.hardness[image][old], mean[old]], axis=1)
        self._pairs = np.concatenate([self._pairs, pairs])[-REMEMBERED:]
        self._paired += len(pairs)
        self._level = LEVEL_DECAY * self._level + (1.0 - LEVEL_DECAY) * np.array([mean.mean(), 1.0])
        observed = mean - self._level[0] / self._level[1] if self.kind == "relative" else mean
        average = self.decay * self._average[image] + (1.0 - self.decay) * observed
        self._average[image] = np.where(old | (self.kind != "copied"), average, observed)
        self._first[image] = np.where(old, self._first[image], self._updates[0])
        self._visits[image] += 1
        self._updates += 1

    def state(self) -> dict[str, np.ndarray]:
        """What changes during training, as copies."""
        return {name: getattr(self, f"_{name}").copy() for name in _STATE}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take back what ``state`` gave, exactly.

        Raises:
            ValueError: it is of another number of images.
            KeyError: it is incomplete.
        """
        values = {name: np.asarray(state[name]) for name in _STATE}
        for name, value in values.items():
            own = getattr(self, f"_{name}")
            if value.shape != own.shape:
                raise ValueError(f"the state's {name} is {value.shape}, not {own.shape}: it is of other images")
        for name, value in values.items():
            setattr(self, f"_{name}", value.astype(getattr(self, f"_{name}").dtype))

    def _uniforms(self, iteration: int, slot: int) -> NDArray[np.float64]:
        """The pair (r, u) of (seed, iteration, slot): the start of a Philox sequence addressed by key and counter."""
        key = np.array([self.seed, _STREAM], dtype=np.uint64)
        counter = np.array([0, 0, iteration, slot], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(counter=counter, key=key)).random(2)


_STATE = ("average", "visits", "first", "level", "updates", "pairs", "paired")


def _exchange(kinds: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each image another one of its kind (itself, if it is the only one), (n,) int64; a permutation."""
    owner = np.arange(len(kinds))
    rng = np.random.default_rng([seed, _STREAM])
    for kind in np.unique(kinds):
        places = rng.permutation(np.flatnonzero(kinds == kind))
        owner[places] = np.roll(places, 1)  # one cycle through a random order: nobody keeps its own
    return owner
