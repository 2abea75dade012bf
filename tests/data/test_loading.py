"""Prefetching changes only when batches are made."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest

from flexseg.data.draws import Purpose, generator
from flexseg.data.loading import Prefetcher


def draw(iteration: int) -> np.ndarray:
    time.sleep(0.002 * (iteration % 3))  # so that later batches are ready before earlier ones
    return generator(0, Purpose.CROP, iteration, 0).random(4)


@pytest.mark.parametrize(("workers", "depth"), [(0, None), (1, 1), (3, None), (2, 7)])
def test_batches_are_those_of_a_plain_loop(workers: int, depth: int | None) -> None:
    with Prefetcher(draw, range(5, 25), workers, depth) as batches:
        np.testing.assert_array_equal(list(batches), [draw(iteration) for iteration in range(5, 25)])


def test_it_runs_ahead_by_its_depth_and_no_further(patience: float) -> None:
    begun: list[int] = []
    with Prefetcher(lambda item: begun.append(item) or item, itertools.count(), 2, 4) as batches:
        assert next(batches) == 0
        deadline = time.monotonic() + patience
        while len(begun) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert sorted(begun) == [0, 1, 2, 3, 4]


def test_workers_work_at_the_same_time(patience: float) -> None:
    together = threading.Barrier(2)
    with Prefetcher(lambda item: together.wait(timeout=patience) >= 0, range(2), 2) as batches:
        assert list(batches) == [True, True]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_surfaces_at_its_iteration(workers: int) -> None:
    def fails_at_three(iteration: int) -> int:
        if iteration == 3:
            raise ValueError("the third")
        return iteration

    batches = Prefetcher(fails_at_three, itertools.count(), workers)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_an_interruption_drops_what_is_not_begun_and_leaves_no_thread() -> None:
    begun: list[int] = []

    def slow(iteration: int) -> int:
        begun.append(iteration)
        time.sleep(0.1)
        return iteration

    with contextlib.suppress(KeyboardInterrupt), Prefetcher(slow, itertools.count(), 1, 50) as batches:
        next(batches)
        raise KeyboardInterrupt
    assert len(begun) < 51, "of fifty and the one that was due"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    with pytest.raises(StopIteration):
        next(batches)
