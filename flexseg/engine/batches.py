"""The batches of a run: its images, cropped and changed by the recipe and by the method."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flexseg.benchmark import Training
from flexseg.benchmark.identity import RunDirectory
from flexseg.classes import CITYSCAPES, ClassSet
from flexseg.data.crops import check_ids, prepare
from flexseg.data.draws import Purpose, generator
from flexseg.data.index import Index
from flexseg.data.pool import Pool
from flexseg.data.transforms import normalise
from flexseg.errors import RunError
from flexseg.method import Batch, Method


@dataclass(frozen=True)
class Job:
    """One run, ready to train: where it lives, what defines it, its method and its data."""

    directory: RunDirectory
    definition: dict[str, Any]
    method: type[Method]
    options: Any
    training: Training
    model: Mapping[str, Any]
    seed: int
    pool: Pool
    indices: Mapping[str, Index]
    classes: ClassSet = CITYSCAPES


def assemble(job: Job, method: Method, iteration: int, slots: range, readers: Executor | None = None) -> Batch:
    """The part of the batch of ``iteration`` that fills ``slots``, on the CPU; ``readers`` prepare images in parallel.

    Raises:
        RunError: a label holds an id that is not a class; names image and ids. Or the method does not choose one image
            of the pool for each slot.
    """
    indices = _check_chosen(method.choose(iteration, slots), len(slots), len(job.pool), iteration)

    def sample(slot: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = prepare(
            job.pool.images[index],
            job.pool.labels[index],
            method.setup.class_for(iteration, slot, index),
            job.training,
            generator(job.seed, Purpose.CROP, iteration, slot),
            generated=bool(job.pool.origins[index] > 0),
        )
        image, label = method.transform(image, label, generator(job.seed, Purpose.TRANSFORM, iteration, slot))
        check_ids(label, job.pool.ids[index], len(job.classes))
        return image, label

    run = map if readers is None else readers.map
    images, labels = zip(*run(sample, slots, indices.tolist()), strict=True)
    return Batch(
        iteration,
        np.array(slots),
        indices,
        torch.from_numpy(normalise(np.stack(images))),
        torch.from_numpy(np.stack(labels).astype(np.int64)),
    )


def _check_chosen(chosen: Any, wanted: int, images: int, iteration: int) -> np.ndarray:
    """What a method chose, (wanted,) int64, if these are places in a pool of ``images``."""
    indices = np.asarray(chosen)
    if indices.shape != (wanted,) or not np.issubdtype(indices.dtype, np.integer):
        raise RunError(
            f"choose() gave {indices.dtype} of shape {indices.shape} at iteration {iteration}: it must give {wanted} "
            "whole numbers, one image for each slot"
        )
    if wanted and not 0 <= indices.min() <= indices.max() < images:
        raise RunError(
            f"choose() gave the image {indices.min() if indices.min() < 0 else indices.max()} at iteration "
            f"{iteration}: the {images} training images are numbered from 0"
        )
    return indices.astype(np.int64, copy=False)
