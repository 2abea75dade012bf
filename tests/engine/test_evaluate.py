"""Evaluation against slow loops, against mmseg's own metric, and what it leaves on disk."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders import Train, open_domains
from torch import Tensor, nn

from flexseg.analysis.stats.metrics import mean_iou
from flexseg.benchmark import Benchmark, Protocol
from flexseg.benchmark.blocks import Size
from flexseg.data.pool import Pool
from flexseg.data.transforms import normalise
from flexseg.engine import evaluate
from flexseg.engine.counts import count, describe_truth
from flexseg.engine.evaluate import evaluate_target
from flexseg.engine.inference import predict_logits, prepare_label
from flexseg.errors import UserError

PROTOCOL = Protocol(id="test", boundary_band=2, calibration_bins=10)
CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Logits that depend on each pixel's colour alone, so that every prediction can be worked out by hand."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.weight = torch.randn(19, 3, generator=torch.Generator().manual_seed(seed))

    def predict(self, images: Tensor) -> Tensor:
        return torch.einsum("kc,bchw->bkhw", self.weight, images)


def labels_of(seed: int, *shape: int, void: float = 0.1, block: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 19, tuple(-(-side // block) for side in shape))
    labels = np.repeat(np.repeat(coarse, block, -1), block, -2)[..., : shape[-2], : shape[-1]].copy()
    labels[rng.random(labels.shape) < void] = 255
    return labels.astype(np.uint8)


def pool_of(*sizes: tuple[int, int]) -> Pool:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    labels = [labels_of(number, *size, block=3) for number, size in enumerate(sizes)]
    names = [f"image_{number}" for number in range(len(sizes))]
    conditions = [("clear", "fog")[number % 2] for number in range(len(sizes))]
    return Pool.of(images, labels, names, conditions, np.zeros(len(sizes), np.int8))


def test_records_are_the_counts_of_each_image() -> None:
    pool = pool_of((9, 12), (9, 12), (9, 12))
    model = Oracle()
    table, shown = evaluate_target(model, pool, PROTOCOL, CPU, keep=3)
    assert table["image"].to_pylist() == pool.ids
    assert table["condition"].to_pylist() == pool.conditions
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    for number, (image, label) in enumerate(zip(pool.images, pool.labels, strict=True)):
        logits = np.einsum("kc,hwc->hwk", model.weight.double().numpy(), (image - mean) / deviation)
        np.testing.assert_array_equal(shown[pool.ids[number]], logits.argmax(-1))
        log_p = torch.log_softmax(torch.from_numpy(logits).float(), -1)[None]
        columns, _ = count(describe_truth(torch.from_numpy(label[None]), PROTOCOL), log_p)
        for name, values in columns.items():
            np.testing.assert_allclose(table[name][number].as_py(), values[0], rtol=1e-5, err_msg=name)


def test_schema_of_the_records() -> None:
    table, _ = evaluate_target(Oracle(), pool_of((5, 6)), PROTOCOL, CPU)
    assert {field.name: field.type for field in table.schema} == {
        "image": pa.string(),
        "condition": pa.string(),
        "pixels": pa.int64(),
        "confusion": pa.list_(pa.int32(), 361),
        "boundary_confusion": pa.list_(pa.int32(), 361),
        "ring_pixels": pa.list_(pa.int32(), 4),
        "ring_correct": pa.list_(pa.int32(), 4),
        "boundary_iou": pa.list_(pa.int32(), 3 * 3 * 19),
        "boundary_f1": pa.list_(pa.int32(), 3 * 4 * 19),
        "calibration_count": pa.list_(pa.int32(), 10),
        "calibration_correct": pa.list_(pa.int32(), 10),
        "calibration_confidence": pa.list_(pa.float64(), 10),
        "nll_sum": pa.float64(),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_records_do_not_depend_on_the_batch_size_even_with_sizes_that_differ(batch_size: int) -> None:
    pool = pool_of((9, 12), (9, 12), (5, 7), (9, 12), (6, 6), (6, 6), (6, 6))
    reference, shown = evaluate_target(Oracle(), pool, PROTOCOL, CPU, 7, batch_size=1)
    seen: list[int] = []
    table, again = evaluate_target(Oracle(), pool, PROTOCOL, CPU, 7, batch_size=batch_size, progress=seen.append)
    assert sum(seen) == 7
    inexact = {"nll_sum", "calibration_confidence"}
    for name in set(reference.column_names) - inexact:
        assert table[name].to_pylist() == reference[name].to_pylist(), name
    np.testing.assert_allclose(table["nll_sum"], reference["nll_sum"], rtol=1e-5)
    assert shown.keys() == again.keys() == set(pool.ids)
    assert all(np.array_equal(shown[name], again[name]) for name in shown)


class Counting(Sequence[np.ndarray]):
    """A lazy sequence that says how often each of its arrays was asked for."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays, self.asked = arrays, [0] * len(arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, place: Any) -> Any:
        self.asked[place] += 1
        return self.arrays[place]


@pytest.mark.parametrize("keep", [0, 9])
def test_each_image_is_read_once(keep: int) -> None:
    pool = pool_of(*[(9, 12), (5, 7)] * 20)
    images, labels = Counting(pool.images), Counting(pool.labels)
    lazy = dataclasses.replace(pool, images=images, labels=labels)
    table, _ = evaluate_target(Oracle(), lazy, PROTOCOL, CPU, keep)
    assert images.asked == labels.asked == [1] * 40
    assert table.equals(evaluate_target(Oracle(), pool, PROTOCOL, CPU, keep)[0])


def test_an_image_that_cannot_be_read_stops_the_evaluation_with_its_own_error() -> None:
    class Damaged(Counting):
        def __getitem__(self, place: Any) -> Any:
            if place == 33:
                raise UserError("image_33 is damaged")
            return super().__getitem__(place)

    pool = pool_of(*[(9, 12)] * 90)
    threads = threading.active_count()
    with pytest.raises(UserError, match="image_33 is damaged"):
        evaluate_target(Oracle(), dataclasses.replace(pool, labels=Damaged(pool.labels)), PROTOCOL, CPU, batch_size=2)
    assert threading.active_count() == threads, "nothing is left reading"


def test_batches_hold_one_size_and_no_more_pixels_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "PIXELS", 2000)
    pool = pool_of((20, 30), (40, 50), (20, 30), (20, 30), (20, 30), (40, 50), (60, 70))
    assert evaluate._batches(pool, Size(), 16) == [[0, 2, 3], [4], [1], [5], [6]]
    assert evaluate._batches(pool, Size(), 2) == [[0, 2], [3, 4], [1], [5], [6]]
    # What counts is the larger of what the network sees and what is compared.
    assert evaluate._batches(pool, Size(fit=(40, 60)), 16) == [[0], [2], [3], [4], [1], [5], [6]]
    assert evaluate._batches(pool, Size(fit=(20, 30)), 16) == [[0, 2, 3], [4], [1], [5], [6]]
    assert evaluate._batches(pool, Size(fit=(20, 30), labels=True), 16) == [[0, 2, 3], [4], [1, 5], [6]]


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(id="fit", boundary_band=2, size=Size(fit=(10, 20))),
        Protocol(id="crop", boundary_band=2, sizes={"here": Size(height=14, crop=(14, 14), labels=True)}),
        Protocol(id="slide", boundary_band=2, inference="slide", window=(8, 9), stride=(5, 6), size=Size(height=21)),
    ],
    ids=lambda protocol: protocol.id,
)
def test_records_are_of_the_logits_at_the_protocols_size(protocol: Protocol) -> None:
    """Against one image at a time, a confusion counted by hand.

    What is shown has the highest logit but for rounding, which is another one in a batch.
    """
    pool, model = pool_of((18, 24), (24, 18), (18, 24)), Oracle()
    table, shown = evaluate_target(model, pool, protocol, CPU, 3, target="here")
    for number, (image, label) in enumerate(zip(pool.images, pool.labels, strict=True)):
        label = prepare_label(label, protocol.size_of("here"))
        logits, predicted = predict_logits(model, image, protocol, "here").numpy(), shown[pool.ids[number]]
        assert predicted.shape == label.shape
        chosen = np.take_along_axis(logits, predicted[None].astype(np.int64), axis=0)[0]
        np.testing.assert_allclose(chosen, logits.max(axis=0), rtol=1e-5, atol=1e-4)
        confusion = np.zeros((19, 19), int)
        np.add.at(confusion, (label[label != 255], predicted[label != 255]), 1)
        np.testing.assert_array_equal(table["confusion"][number].as_py(), confusion.ravel())


def test_records_of_an_image_in_stripes() -> None:
    pool = pool_of(*[(40, 30)] * 2)
    images, labels = torch.from_numpy(normalise(np.stack(pool.images))), torch.from_numpy(np.stack(pool.labels))
    whole, predicted = evaluate.image_records(Oracle(), images, labels, PROTOCOL)
    found, again = evaluate.image_records(Oracle(), images, labels, PROTOCOL, 7 * 60)
    assert torch.equal(predicted, again)
    for name, values in whole.items():
        torch.testing.assert_close(found[name], values, rtol=1e-6, atol=0, msg=name)


def test_a_void_label_counts_nothing() -> None:
    pool = pool_of((4, 5))
    pool.labels[0][:] = 255
    table, _ = evaluate_target(Oracle(), pool, PROTOCOL, CPU)
    assert table["pixels"].to_pylist() == [0]
    assert table["nll_sum"].to_pylist() == [0.0]
    assert not any(table["confusion"][0].as_py())


@pytest.mark.parametrize(
    ("keep", "expected"), [(0, []), (1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10)))]
)
def test_shown_images_are_spread_over_the_pool(keep: int, expected: list[int]) -> None:
    _, shown = evaluate_target(Oracle(), pool_of(*[(4, 5)] * 10), PROTOCOL, CPU, keep)
    assert sorted(shown) == [f"image_{number}" for number in expected]


def mmseg_areas(pool: Pool, shown: dict[str, np.ndarray]) -> list[Tensor]:
    """Intersections, unions, predictions and labels of each class, as mmseg's metric counts them."""
    from mmseg.evaluation import IoUMetric

    predicted = [torch.tensor(shown[name]).long() for name in pool.ids]
    truths = [torch.tensor(label).long() for label in pool.labels]
    results = [IoUMetric.intersect_and_union(*pair, 19, 255) for pair in zip(predicted, truths, strict=True)]
    return [sum(part.double() for part in column) for column in zip(*results, strict=True)]


def mmseg_iou(areas: list[Tensor]) -> np.ndarray:
    from mmseg.evaluation import IoUMetric

    return np.asarray(IoUMetric.total_area_to_metrics(*areas, ["mIoU"], None, 1)["IoU"])


def test_miou_is_that_of_mmseg() -> None:
    """On the same predictions, over the classes that occur in the truth, which here are all."""
    pool = pool_of(*[(24, 30)] * 6, (17, 11))
    pool.labels[0][0, :19] = np.arange(19)
    # Half of the pixels right, so that no IoU is trivial.
    table, shown = evaluate_target(Oracle(3), pool, PROTOCOL, CPU, keep=len(pool))
    ours = float(mean_iou(np.array(table["confusion"].to_pylist()).sum(0).reshape(19, 19)))
    areas = mmseg_areas(pool, shown)
    assert (areas[3] > 0).all(), "every class must occur"
    assert abs(ours - float(np.nanmean(mmseg_iou(areas)))) < 1e-9
    assert 0 < ours < 1


def test_miou_of_a_trained_run_is_that_of_mmseg(tiny: Benchmark, smoke_data: Path, undisturbed: Train) -> None:
    """The whole way: trained weights, rendered targets, records. Classes without truth are left out by both."""
    from flexseg.engine.checkpoint import load_weights
    from flexseg.models import build_segmentor, channels_last

    model = build_segmentor(tiny.model)
    load_weights(model, undisturbed("dginstyle").weights)
    channels_last(model)
    model.eval()
    for target in tiny.targets:
        pool = open_domains(tiny, smoke_data, target, split="test")
        table, shown = evaluate_target(model, pool, tiny.protocol, CPU, len(pool))
        counts = np.array(table["confusion"].to_pylist()).sum(0).reshape(19, 19)
        iou = mmseg_iou(mmseg_areas(pool, shown))
        assert abs(float(mean_iou(counts)) - iou[counts.sum(1) > 0].mean()) < 1e-9
