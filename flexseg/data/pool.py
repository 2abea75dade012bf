"""The images of a run: what it trains on, or a target that it is evaluated on; in memory, or read when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from flexseg.benchmark.schedule import Resize
from flexseg.classes import NUM_CLASSES
from flexseg.data.frames import Frame, FrameCache, frames_of, rows_of
from flexseg.data.index import Index

MEMORY = 2 << 30
"""Bytes of decoded images and labels that a pool holds in memory; a larger one is read as it is needed."""

Part = tuple[Index, str] | tuple[Index, str, Sequence[int]]
"""The images of one split of an index: all of them, or the rows at these places (ascending) of the split."""


@dataclass(frozen=True)
class Pool:
    """Images (H, W, 3) uint8 and labels (H, W) uint8 of train_ids, with their ids, conditions and origins.

    ``images`` and ``labels`` may be lazy: each access then reads, checks and decodes a file, in any number of threads,
    and may raise ``UserError``. Their arrays are not to be written into.

    ``origins`` (N,) int8 counts the parts that the pool was made from: 0 is the first (the source), 1 the second (the
    generated images). ``sizes`` (N, 2) int64 are the heights and widths of the images. ``class_pixels`` (N, C) int64
    counts each image's pixels of each class, in its own size, before any resize (as rare class sampling counts them).
    """

    images: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]
    ids: list[str]
    conditions: list[str]
    origins: np.ndarray
    sizes: np.ndarray
    class_pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        ids: list[str],
        conditions: list[str],
        origins: np.ndarray,
        num_classes: int = NUM_CLASSES,
    ) -> Pool:
        """A pool of arrays that are in memory; sizes and class pixels are those of ``labels``."""
        sizes = np.array([label.shape for label in labels], dtype=np.int64).reshape(-1, 2)
        counts = [np.bincount(label.ravel(), minlength=256)[:num_classes] for label in labels]
        class_pixels = np.array(counts, dtype=np.int64).reshape(-1, num_classes)
        return Pool(images, labels, ids, conditions, origins, sizes, class_pixels)


class Lazy(Sequence[np.ndarray]):
    """A sequence of arrays, each of which is made again whenever it is accessed."""

    def __init__(self, make: Callable[[Frame], np.ndarray], frames: Sequence[Frame]) -> None:
        self._make, self._frames = make, frames

    def __len__(self) -> int:
        return len(self._frames)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, place: slice) -> list[np.ndarray]: ...

    def __getitem__(self, place: int | slice) -> np.ndarray | list[np.ndarray]:
        chosen = self._frames[place]
        return self._make(chosen) if isinstance(chosen, Frame) else [self._make(frame) for frame in chosen]


def open_pool(
    parts: Sequence[Part],
    resize: Resize | list[Resize | None] | None = None,
    frames: Path | None = None,
    progress: Callable[[int], None] | None = None,
    memory: int = MEMORY,
) -> Pool:
    """Open the images of the given parts, in order, as one pool.

    It is held in memory if it takes at most ``memory`` bytes; ``progress`` is then called with 1 for each image.
    Otherwise images are read, checked and decoded each time. The pixels are the same.

    Args:
        resize: how every image is resized (bilinear; labels nearest neighbour), or one rule per part.
        frames: the folder of a cache of decoded frames (``data/frames.py``); frames that it lacks are decoded.

    Raises:
        UserError: a part holds no image; a file is missing, damaged, or not the one that was indexed.
    """
    all_frames, ids, conditions, origins, class_pixels = [], [], [], [], []
    sizes = resize if isinstance(resize, list) else [resize] * len(parts)
    for origin, ((index, split, *chosen), size) in enumerate(zip(parts, sizes, strict=True)):
        places = chosen[0] if chosen else None
        rows, part = rows_of(index, split, places), frames_of(index, split, size, places)
        all_frames += part
        ids += [str(name) for name in rows["id"]]
        conditions += [str(condition) for condition in rows["condition"]]
        origins += [origin] * len(part)
        class_pixels += list(rows["class_pixels"])
    source = Frame if frames is None else FrameCache(frames)
    images: Sequence[np.ndarray] = Lazy(source.read_image, all_frames)
    labels: Sequence[np.ndarray] = Lazy(source.read_label, all_frames)
    if sum(frame.nbytes for frame in all_frames) <= memory:
        images, labels = _load(images, labels, progress)
    return Pool(
        images,
        labels,
        ids,
        conditions,
        np.array(origins, dtype=np.int8),
        np.array([frame.size for frame in all_frames], dtype=np.int64).reshape(-1, 2),
        np.array(class_pixels, dtype=np.int64),
    )


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of the places 0 … ``count`` − 1, ascending, evenly spread, with the first and the last."""
    return sorted({int(place) for place in np.linspace(0, count - 1, wanted)})


def _load(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], progress: Callable[[int], None] | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    held: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for image, label in zip(images, labels, strict=True):  # in turn, so that a damaged file is named at once
        held[0].append(image)
        held[1].append(label)
        if progress is not None:
            progress(1)
    return held
