"""Evaluating a finished run: one record per image, from which every table is computed without a rerun."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from flexseg.benchmark.blocks import Protocol, Size
from flexseg.classes import CITYSCAPES, ClassSet, Grouping, scored_classes
from flexseg.data.loading import Prefetcher
from flexseg.data.pool import Pool, spread
from flexseg.data.transforms import normalise
from flexseg.engine.counts import Truth, count, count_hard, describe_truth, margin
from flexseg.engine.inference import (
    PIXELS,
    label_size,
    predict,
    prepare_image,
    prepare_label,
    prepared_size,
    resize_logits,
)
from flexseg.files import file_stem, replacing
from flexseg.models import Segmentor

READERS = 4
"""Threads that read and prepare the next images while the device computes."""


@torch.inference_mode()
def image_records(
    model: Segmentor,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    stripe: int = PIXELS,
    scored: Grouping | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """The measured columns of a batch's records (as ``counts.count`` describes them) and its predictions (B, H, W).

    Large labels are counted in stripes of about ``stripe`` pixels to save memory: the largest images of Mapillary
    Vistas have 22 million.

    Args:
        images: (B, 3, h, w) normalised. labels: (B, H, W) integers, to whose size the logits are resized.
        scored: the classes, by default Cityscapes' as the protocol groups them.
    """
    # Classes last, as a channels-last trunk leaves them in memory: softmax and maximum are faster on a CPU.
    logits = resize_logits(predict(model, images, protocol), (labels.shape[1], labels.shape[2])).permute(0, 2, 3, 1)

    def counted(truth: Truth, rows: slice) -> tuple[dict[str, Tensor], Tensor]:
        return count(truth, torch.log_softmax(logits[:, rows].float(), dim=-1))

    return _in_stripes(counted, labels, protocol, stripe, scored)


def label_records(
    predictions: Tensor, labels: Tensor, protocol: Protocol, stripe: int = PIXELS, scored: Grouping | None = None
) -> dict[str, Tensor]:
    """The columns of :func:`image_records` for predicted label maps (B, H, W) int64, merged as the protocol scores."""

    def counted(truth: Truth, rows: slice) -> tuple[dict[str, Tensor], Tensor]:
        return count_hard(truth, predictions[:, rows])

    return _in_stripes(counted, labels, protocol, stripe, scored)[0]


def _in_stripes(
    counted: Callable[[Truth, slice], tuple[dict[str, Tensor], Tensor]],
    labels: Tensor,
    protocol: Protocol,
    stripe: int,
    scored: Grouping | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Sum what is ``counted`` over stripes of rows, each with as many more as its counts depend on."""
    step, beyond = max(stripe // (len(labels) * labels.shape[2]), 1), margin(protocol)
    columns: dict[str, Tensor] = {}
    predictions = []
    for top in range(0, labels.shape[1], step):
        first, end = max(top - beyond, 0), top + step
        rows, own = slice(first, end + beyond), slice(top - first, end - first)
        counts, predicted = counted(describe_truth(labels[:, rows], protocol, own, scored), rows)
        columns = {name: columns[name] + values if columns else values for name, values in counts.items()}
        predictions.append(predicted[:, own])
    return columns, torch.cat(predictions, dim=1)


def evaluate_target(
    model: Segmentor,
    pool: Pool,
    protocol: Protocol,
    device: torch.device,
    keep: int = 0,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
    target: str = "",
    classes: ClassSet = CITYSCAPES,
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Evaluate ``model`` (in eval mode) on every image of ``pool``, at the protocol's size for ``target``.

    Returns the table of records and the predictions (H, W) uint8 of ``keep`` images, spread evenly over the pool.
    Images of one size are batched together, as many as ``inference.PIXELS`` allow but at most ``batch_size``; the next
    batches are read while the device computes. Records keep the pool's order.
    """
    shown = spread(len(pool), keep)
    size, scored = protocol.size_of(target), scored_classes(classes, protocol.classes)
    order: list[int] = []
    parts: list[dict[str, Tensor]] = []
    predictions: dict[int, np.ndarray] = {}

    def read(places: list[int]) -> tuple[list[int], Tensor, Tensor]:
        images = normalise(np.stack([prepare_image(pool.images[place], size) for place in places]))
        labels = np.stack([prepare_label(pool.labels[place], size) for place in places])
        return places, torch.from_numpy(images), torch.from_numpy(labels)

    with Prefetcher(read, _batches(pool, size, batch_size), READERS) as batches:
        for places, images, labels in batches:
            columns, predicted = image_records(model, images.to(device), labels.to(device), protocol, scored=scored)
            parts.append({name: values.cpu() for name, values in columns.items()})
            for number, place in enumerate(places):
                if place in shown:
                    predictions[place] = predicted[number].cpu().numpy().astype(np.uint8)
            order += places
            if progress is not None:
                progress(len(places))
    back = np.argsort(order)
    arrays = {name: torch.cat([part[name] for part in parts]).numpy()[back] for name in parts[0]}
    return _table(pool, arrays), {pool.ids[place]: predictions[place] for place in sorted(predictions)}


def evaluate_labels(
    read: Callable[[int], np.ndarray],
    pool: Pool,
    protocol: Protocol,
    keep: int = 0,
    progress: Callable[[int], None] | None = None,
    target: str = "",
    classes: ClassSet = CITYSCAPES,
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Evaluate predicted label maps, as :func:`evaluate_target` does a model.

    Args:
        read: the prediction (H, W) uint8 of the image at a place of the pool, merged as the protocol scores, of the
            size at which it is compared with the label.
    """
    size, scored = protocol.size_of(target), scored_classes(classes, protocol.classes)
    shown, parts, predictions = spread(len(pool), keep), list[dict[str, Tensor]](), dict[str, np.ndarray]()
    for place in range(len(pool)):
        prediction, label = read(place), prepare_label(pool.labels[place], size)
        found, truth = torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(np.array(label))
        parts.append(label_records(found[None], truth[None], protocol, scored=scored))
        if place in shown:
            predictions[pool.ids[place]] = prediction
        if progress is not None:
            progress(1)
    arrays = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return _table(pool, arrays), predictions


def _batches(pool: Pool, size: Size, batch_size: int) -> list[list[int]]:
    """Batch the places of a pool's images by size."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, (height, width) in enumerate(pool.sizes.tolist()):
        groups.setdefault((height, width), []).append(place)
    batches = []
    for (height, width), places in groups.items():
        pixels = max(prod(prepared_size(size, height, width)), prod(label_size(size, height, width)))
        step = min(batch_size, max(PIXELS // pixels, 1))
        batches += [places[start : start + step] for start in range(0, len(places), step)]
    return batches


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
    """Write a target's predictions as PNG, then its records, with ``facts`` (protocol, run, …) as metadata.

    The records come last: where they are, all is there. Their pages carry checksums.
    """
    folder = predictions / target
    if folder.is_dir():
        shutil.rmtree(folder)
    for name, prediction in shown.items():
        with replacing(folder / f"{file_stem(name)}.png") as temporary:
            Image.fromarray(prediction, mode="L").save(temporary, format="png")
    metadata = {key: str(value) for key, value in facts.items()}
    with replacing(evaluation / f"{target}.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, write_page_checksum=True)


def shows_all(predictions: Path, target: str, ids: list[str], keep: int) -> bool:
    """Whether the pictures that :func:`evaluate_target` keeps of a pool with these ``ids`` are there and whole."""
    for place in spread(len(ids), keep):
        try:
            with Image.open(predictions / target / f"{file_stem(ids[place])}.png", formats=("PNG",)) as picture:
                picture.verify()
        except (OSError, SyntaxError, ValueError):  # what Pillow says of a damaged PNG
            return False
    return True
