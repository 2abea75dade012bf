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
from flexseg.data.pool import Pool
from flexseg.data.transforms import normalise
from flexseg.engine.counts import count, describe_truth
from flexseg.files import replacing
from flexseg.models import Segmentor


@torch.inference_mode()
def image_records(
    model: Segmentor, images: Tensor, labels: Tensor, protocol: Protocol
) -> tuple[dict[str, Tensor], Tensor]:
    """The measured columns of a batch's records (as ``counts.count`` describes them) and its predictions (B, H, W).

    Args:
        images: (B, 3, H, W) normalised. labels: (B, H, W) integers.
    """
    # With the classes last, as a channels-last trunk leaves them in memory, softmax and maximum are faster on a CPU.
    log_p = torch.log_softmax(model.predict(images).permute(0, 2, 3, 1).float(), dim=-1)
    return count(describe_truth(labels, protocol), log_p)


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
        labels = torch.from_numpy(np.stack(pool.labels[start:stop])).to(device)
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
