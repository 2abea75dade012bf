"""Observing a training run: what a method shows of itself, at a few moments, on the same images."""

from __future__ import annotations

import numpy as np
import torch

from flexseg.benchmark.identity import RunDirectory
from flexseg.data.pool import Pool
from flexseg.data.transforms import normalise
from flexseg.engine.checkpoint import save_tensors
from flexseg.method import Method
from flexseg.models import Segmentor


def moments(iterations: int) -> set[int]:
    """The iterations after which a run is observed: an eighth, a quarter, a half and all of them."""
    return {max(1, iterations // part) for part in (8, 4, 2, 1)}


def sample_images(pool: Pool) -> list[int]:
    """The places of the observed images: the first of the source and the first two generated ones.

    Those of another size than the first are left out, so that they fit into one batch.
    """
    wanted = [*np.flatnonzero(pool.origins == 0)[:1], *np.flatnonzero(pool.origins == 1)[:2]]
    return [int(place) for place in wanted if pool.images[place].shape == pool.images[wanted[0]].shape]


@torch.no_grad()
def observe(
    method: Method, model: Segmentor, pool: Pool, directory: RunDirectory, name: str, iteration: int, write: bool
) -> None:
    """Ask the method what it shows after ``iteration`` steps and write it to ``observations/<iteration>.safetensors``.

    Beside the method's own arrays the file holds ``image`` (K, H, W, 3) uint8 and ``label`` (K, H, W) uint8. The model
    is in eval mode meanwhile and then put back, so training continues unchanged. All ranks must call it, as a method
    may compute over ranks; one of them writes.
    """
    places = sample_images(pool)
    images, labels = np.stack([pool.images[p] for p in places]), np.stack([pool.labels[p] for p in places])
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        shown = method.observe(
            model,
            torch.from_numpy(normalise(images)).to(device),
            torch.from_numpy(labels.astype(np.int64)).to(device),
        )
    finally:
        model.train(training)
    if shown and write:
        arrays = {"image": images, "label": labels} | shown
        tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}
        facts = {"fingerprint": name, "iteration": str(iteration)}
        save_tensors(directory.observations / f"{iteration:06d}.safetensors", tensors, facts)
