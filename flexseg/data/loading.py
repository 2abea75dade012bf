"""Assemble the next batches in the background while the device computes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Batch = TypeVar("Batch")


class Prefetcher(Generic[Item, Batch]):
    """``assemble(item)`` for each of ``items``, in their order, computed ahead by ``workers`` threads.

    The results are those of a plain loop, as long as ``assemble`` is a function of its argument alone; ``items`` may
    be endless (``itertools.count(start)``). An exception of ``assemble`` is raised when its result is due, and
    ends the iteration. Threads suffice, as reading, decoding, warping and normalising release the interpreter's lock.

    Use it in a ``with`` statement: leaving it, also by an interruption, drops what has not begun and waits for what
    has. With no workers, ``assemble`` runs when its result is asked for.

    Args:
        depth: how many results, besides the one that is due, are in progress or waiting; by default two per worker.
    """

    def __init__(
        self, assemble: Callable[[Item], Batch], items: Iterable[Item], workers: int, depth: int | None = None
    ) -> None:
        self._assemble, self._items = assemble, iter(items)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prefetch") if workers else None
        self._depth = max(depth or 2 * workers, 1)
        self._ahead: deque[Future[Batch]] = deque()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        try:
            if self._threads is None:
                return self._assemble(next(self._items))
            self._run_ahead(self._threads)
            if not self._ahead:
                raise StopIteration
            due = self._ahead.popleft()
            self._run_ahead(self._threads)
            return due.result()
        except BaseException:
            self.close()
            raise

    def _run_ahead(self, threads: ThreadPoolExecutor) -> None:
        for item in itertools.islice(self._items, self._depth - len(self._ahead)):
            self._ahead.append(threads.submit(self._assemble, item))

    def close(self) -> None:
        """Drop what has not begun and wait for what has; there is no next result after that."""
        self._items = iter(())
        self._ahead.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
