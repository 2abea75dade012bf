"""Images held in memory: what a run trains on, or a target that it is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flexseg.classes import NUM_CLASSES
from flexseg.data.images import decode_pair
from flexseg.data.index import Index
from flexseg.errors import UserError


@dataclass(frozen=True)
class Pool:
    """Decoded images (H, W, 3) uint8 and labels (H, W) uint8 with their ids, conditions and origins.

    ``origins`` (N,) int8 counts the indices that the pool was made from: 0 is the first (the source), 1 the second
    (the generated images).
    """

    images: list[np.ndarray]
    labels: list[np.ndarray]
    ids: list[str]
    conditions: list[str]
    origins: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def class_pixels(self) -> np.ndarray:
        """(N, 19) int64: how many pixels each image has of each class."""
        counts = [np.bincount(label.ravel(), minlength=256)[:NUM_CLASSES] for label in self.labels]
        return np.stack(counts).astype(np.int64)


def _read(path: Path, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): write its domain again with `flexseg dataset`") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"{path} is not the file that was indexed (its hash differs): write its domain again")
    return content


def load_pool(parts: Sequence[tuple[Index, str]], progress: Callable[[int], None] | None = None) -> Pool:
    """Decode the given splits of the given indices, in order, into one pool.

    Raises:
        UserError: a file is missing, damaged, or not the one that was indexed.
    """
    images, labels, ids, conditions, origins = [], [], [], [], []
    for origin, (index, split) in enumerate(parts):
        for row in index.split(split).itertuples():
            image_path, label_path = index.root / str(row.image), index.root / str(row.label)
            image, label = decode_pair(
                image_path,
                _read(image_path, str(row.sha256)),
                label_path,
                _read(label_path, str(row.label_sha256)),
            )
            images.append(image)
            labels.append(label)
            ids.append(str(row.id))
            conditions.append(str(row.condition))
            origins.append(origin)
            if progress is not None:
                progress(1)
    return Pool(images, labels, ids, conditions, np.array(origins, dtype=np.int8))
