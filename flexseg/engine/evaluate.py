"""Evaluating a finished run: one record an image, from which every table is computed without a rerun."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from flexseg.benchmark import Protocol
from flexseg.classes import IGNORE, NUM_CLASSES
from flexseg.components.boundary import label_boundary
from flexseg.data.pool import Pool
from flexseg.data.transforms import normalise
from flexseg.files import replacing
from flexseg.models import Segmentor

CELLS = NUM_CLASSES * NUM_CLASSES


def confusion_counts(labels: Tensor, predictions: Tensor, mask: Tensor | None = None) -> Tensor:
    """Per-image confusion counts (B, 361) int64, row-major truth × prediction, over valid pixels (and in ``mask``).

    Args:
        labels: (B, H, W) int64 trainIds with 255 void. predictions: (B, H, W) int64. mask: (B, H, W) bool.
    """
    counted = labels != IGNORE
    if mask is not None:
        counted &= mask
    images = torch.arange(len(labels), device=labels.device).view(-1, 1, 1).expand_as(labels)
    cells = (images[counted] * NUM_CLASSES + labels[counted]) * NUM_CLASSES + predictions[counted]
    return torch.bincount(cells, minlength=len(labels) * CELLS).view(-1, CELLS)


def calibration_counts(labels: Tensor, log_p: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-image reliability bins (B, bins): pixels, right pixels (both int64) and the sum of confidences (float64).

    The bins divide [0, 1] evenly by confidence, the largest predicted probability (Guo et al., *On Calibration of
    Modern Neural Networks*, ICML 2017).

    Args:
        labels: (B, H, W) int64 with 255 void. log_p: (B, C, H, W) log-probabilities.
    """
    best, predictions = log_p.max(dim=1)
    confidence = best.exp()
    valid = labels != IGNORE
    images = torch.arange(len(labels), device=labels.device).view(-1, 1, 1).expand_as(labels)
    cells = images[valid] * bins + (confidence[valid] * bins).long().clamp(max=bins - 1)
    size = len(labels) * bins
    right = (predictions == labels)[valid]
    count = torch.bincount(cells, minlength=size)
    correct = torch.bincount(cells[right], minlength=size)
    total = torch.bincount(cells, weights=confidence[valid].double(), minlength=size)
    return count.view(-1, bins), correct.view(-1, bins), total.view(-1, bins)


def boundary_band(labels: Tensor, width: int) -> Tensor:
    """(B, H, W) bool: valid pixels with another class at most ``width`` pixels away in rows and columns."""
    return label_boundary(labels, 2 * width + 1)


@torch.inference_mode()
def image_records(
    model: Segmentor, images: Tensor, labels: Tensor, protocol: Protocol
) -> tuple[dict[str, Tensor], Tensor]:
    """The measured columns of a batch's records (each with the images first) and its predictions (B, H, W) int64.

    Args:
        images: (B, 3, H, W) normalised. labels: (B, H, W) int64.
    """
    log_p = torch.log_softmax(model.predict(images).float(), dim=1)
    predictions = log_p.argmax(dim=1)
    valid = labels != IGNORE
    nll = -log_p.gather(1, labels.masked_fill(~valid, 0).unsqueeze(1)).squeeze(1)
    count, correct, confidence = calibration_counts(labels, log_p, protocol.calibration_bins)
    columns = {
        "pixels": valid.sum(dim=(1, 2)),
        "confusion": confusion_counts(labels, predictions),
        "boundary_confusion": confusion_counts(labels, predictions, boundary_band(labels, protocol.boundary_width)),
        "calibration_count": count,
        "calibration_correct": correct,
        "calibration_confidence": confidence,
        "nll_sum": torch.where(valid, nll, 0.0).double().sum(dim=(1, 2)),
    }
    return columns, predictions


def evaluate_target(
    model: Segmentor,
    pool: Pool,
    protocol: Protocol,
    device: torch.device,
    keep: int = 0,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Evaluate ``model`` (in eval mode) on every image of ``pool``.

    Returns the table of records and the predictions (H, W) uint8 of ``keep`` images, spread evenly over the pool.
    Images of one size are batched together; records keep the pool's order.
    """
    shown = {int(place) for place in np.linspace(0, len(pool) - 1, keep)} if keep else set()
    parts: list[dict[str, Tensor]] = []
    predictions: dict[str, np.ndarray] = {}
    start = 0
    while start < len(pool):
        stop = start + 1
        while stop < min(start + batch_size, len(pool)) and pool.images[stop].shape == pool.images[start].shape:
            stop += 1
        images = torch.from_numpy(normalise(np.stack(pool.images[start:stop]))).to(device)
        labels = torch.from_numpy(np.stack(pool.labels[start:stop]).astype(np.int64)).to(device)
        columns, predicted = image_records(model, images, labels, protocol)
        parts.append({name: values.cpu() for name, values in columns.items()})
        for place in sorted(shown & set(range(start, stop))):
            predictions[pool.ids[place]] = predicted[place - start].cpu().numpy().astype(np.uint8)
        if progress is not None:
            progress(stop - start)
        start = stop
    arrays = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return _table(pool, arrays), predictions


def _table(pool: Pool, arrays: Mapping[str, np.ndarray]) -> pa.Table:
    columns: dict[str, pa.Array] = {"image": pa.array(pool.ids), "condition": pa.array(pool.conditions)}
    for name, values in arrays.items():
        if values.ndim == 1:
            columns[name] = pa.array(values)
        else:
            counts = values if values.dtype == np.float64 else values.astype(np.int32)
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), values.shape[1])
    return pa.table(columns)


def write_target(
    evaluation: Path,
    predictions: Path,
    target: str,
    table: pa.Table,
    shown: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
) -> None:
    """Write a target's records, with ``facts`` (protocol, run, …) as metadata, and its predictions as PNG."""
    metadata = {key: str(value) for key, value in facts.items()}
    with replacing(evaluation / f"{target}.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)
    folder = predictions / target
    if folder.is_dir():
        shutil.rmtree(folder)
    for name, prediction in shown.items():
        with replacing(folder / f"{name}.png") as temporary:
            Image.fromarray(prediction, mode="L").save(temporary, format="png")
