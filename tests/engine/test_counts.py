"""The counts of a record against a slow, obvious reference: one pixel, one class, one distance at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexseg.benchmark import Protocol
from flexseg.classes import CAMVID
from flexseg.engine.counts import count, describe_truth, distances, margin

PROTOCOL = Protocol(
    id="test", boundary_band=2, boundary_tolerances=(1, 2, 4), distance_rings=(1, 3), calibration_bins=10
)
VOID = 255


def maps(seed: int, images: int, height: int, width: int, block: int, void: float, classes: int = 19) -> np.ndarray:
    """Label maps of square blocks with single void pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (images, -(-height // block), -(-width // block)))
    labels = np.repeat(np.repeat(coarse, block, 1), block, 2)[:, :height, :width].copy()
    labels[rng.random(labels.shape) < void] = VOID
    return labels


def certain(predictions: np.ndarray, seed: int = 0) -> Tensor:
    """Log-probabilities (B, H, W, 19) whose largest is the prediction."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*predictions.shape, 19, generator=generator)
    logits.scatter_(-1, torch.from_numpy(predictions).unsqueeze(-1), logits.amax(-1, keepdim=True) + 0.1)
    return torch.log_softmax(logits, dim=-1)


def distance_to_another(label: np.ndarray, y: int, x: int) -> float:
    """Radius of the smallest window around a pixel that holds two different classes; infinite if none does."""
    for radius in range(1, max(label.shape) + 1):
        window = label[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        if len(set(window[window != VOID].tolist())) > 1:
            return radius
    return np.inf


def reference(label: np.ndarray, prediction: np.ndarray, protocol: Protocol) -> dict[str, np.ndarray]:
    """The counts of one image, from their definitions."""
    edges = [*protocol.distance_rings, np.inf]
    widths = protocol.boundary_tolerances
    confusion, band = np.zeros((19, 19), int), np.zeros((19, 19), int)
    ring_pixels, ring_correct = np.zeros(len(edges), int), np.zeros(len(edges), int)
    iou, f1 = np.zeros((len(widths), 3, 19), int), np.zeros((len(widths), 4, 19), int)
    places = list(np.ndindex(label.shape))
    of_truth = {place: distance_to_another(label, *place) for place in places}
    of_prediction = {place: distance_to_another(prediction, *place) for place in places}
    contour_truth = [place for place in places if label[place] != VOID and of_truth[place] == 1]
    contour_prediction = [place for place in places if of_prediction[place] == 1]

    def matched(
        place: tuple[int, int], which: int, contour: list[tuple[int, int]], classes: np.ndarray, d: int
    ) -> bool:
        return any(
            classes[other] == which and max(abs(other[0] - place[0]), abs(other[1] - place[1])) <= d
            for other in contour
        )

    for place in places:
        truth, predicted = label[place], prediction[place]
        if truth == VOID:
            continue
        confusion[truth, predicted] += 1
        band[truth, predicted] += of_truth[place] <= protocol.boundary_band
        ring = next(index for index, edge in enumerate(edges) if of_truth[place] <= edge)
        ring_pixels[ring] += 1
        ring_correct[ring] += truth == predicted
        for index, width in enumerate(widths):
            in_truth, in_prediction = of_truth[place] <= width, of_prediction[place] <= width
            iou[index, 0, truth] += in_truth and in_prediction and truth == predicted
            iou[index, 1, truth] += in_truth
            iou[index, 2, predicted] += in_prediction
            if of_prediction[place] == 1:
                f1[index, 0, predicted] += 1
                f1[index, 1, predicted] += matched(place, predicted, contour_truth, label, width)
            if of_truth[place] == 1:
                f1[index, 2, truth] += 1
                f1[index, 3, truth] += matched(place, truth, contour_prediction, prediction, width)
    return {
        "pixels": np.array((label != VOID).sum()),
        "confusion": confusion.ravel(),
        "boundary_confusion": band.ravel(),
        "ring_pixels": ring_pixels,
        "ring_correct": ring_correct,
        "boundary_iou": iou.ravel(),
        "boundary_f1": f1.ravel(),
    }


def check(labels: np.ndarray, predictions: np.ndarray, protocol: Protocol) -> None:
    columns, found = count(describe_truth(torch.from_numpy(labels), protocol), certain(predictions))
    np.testing.assert_array_equal(found.numpy(), predictions)
    for image, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        for name, expected in reference(label, prediction, protocol).items():
            assert columns[name].dtype == torch.int64
            np.testing.assert_array_equal(columns[name][image].numpy(), expected, err_msg=name)


@pytest.mark.parametrize("block", [1, 3, 6])
@pytest.mark.parametrize("void", [0.0, 0.15])
def test_counts_of_random_maps(block: int, void: float) -> None:
    labels = maps(block, 2, 13, 17, block, void)
    check(labels, maps(block + 50, 2, 13, 17, block, 0.0), PROTOCOL)


def test_counts_of_a_prediction_that_is_nearly_right() -> None:
    labels = maps(3, 2, 16, 20, 5, 0.05, classes=4)
    predictions = np.where(labels == VOID, 2, np.roll(labels, 1, axis=2) % 19)
    check(labels, np.where(predictions == VOID % 19, 7, predictions), PROTOCOL)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.0])
)
@settings(max_examples=40)
def test_counts_of_any_maps(seed: int, height: int, width: int, block: int, void: float) -> None:
    labels = maps(seed, 1, height, width, block, void, classes=3)
    check(labels, maps(seed + 1, 1, height, width, block, 0.0, classes=4), PROTOCOL)


@pytest.mark.parametrize("fill", [0, 18, VOID])
def test_a_map_of_one_class_has_no_boundary(fill: int) -> None:
    labels = np.full((2, 6, 8), fill)
    columns, _ = count(describe_truth(torch.from_numpy(labels), PROTOCOL), certain(np.full((2, 6, 8), 18)))
    valid = 0 if fill == VOID else 48
    assert columns["pixels"].tolist() == [valid, valid]
    assert columns["ring_pixels"].tolist() == [[0, 0, valid]] * 2
    for name in ("boundary_confusion", "boundary_iou", "boundary_f1"):
        assert not columns[name].any(), name
    assert columns["nll_sum"].isfinite().all()


def test_labels_may_be_bytes() -> None:
    labels = maps(0, 2, 9, 9, 3, 0.1)
    log_p = certain(maps(1, 2, 9, 9, 3, 0.0))
    as_bytes, _ = count(describe_truth(torch.from_numpy(labels.astype(np.uint8)), PROTOCOL), log_p)
    as_long, _ = count(describe_truth(torch.from_numpy(labels), PROTOCOL), log_p)
    for name, values in as_long.items():
        assert torch.equal(values, as_bytes[name]), name


def test_distances_hold_all_that_a_protocol_names() -> None:
    assert distances(PROTOCOL) == [1, 2, 3, 4]
    assert distances(Protocol(id="x", boundary_band=5, boundary_tolerances=(3,), distance_rings=(2, 7))) == [
        1,
        2,
        3,
        5,
        7,
    ]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_against_a_loop(bins: int) -> None:
    protocol = PROTOCOL.model_copy(update={"calibration_bins": bins})
    labels = maps(0, 2, 6, 7, 1, 0.1)
    log_p = torch.log_softmax(3 * torch.randn(2, 6, 7, 19, generator=torch.Generator().manual_seed(0)), -1)
    log_p[0, 0, 0] = torch.log(torch.eye(19)[4])  # a confidence of exactly one
    labels[0, 0, 0] = 4
    columns, _ = count(describe_truth(torch.from_numpy(labels), protocol), log_p)
    confidences = log_p.amax(-1).exp()  # of all at once: of a single number it may be rounded otherwise
    expected, nll = np.zeros((3, 2, bins)), np.zeros(2)
    for b, y, x in np.ndindex(labels.shape):
        if labels[b, y, x] == VOID:
            continue
        best = int(log_p[b, y, x].argmax())
        confidence = float(confidences[b, y, x])
        place = min(int(np.float32(confidence) * np.float32(bins)), bins - 1)
        expected[:, b, place] += (1, best == labels[b, y, x], confidence)
        nll[b] -= float(log_p[b, y, x, labels[b, y, x]])
    np.testing.assert_array_equal(columns["calibration_count"].numpy(), expected[0])
    np.testing.assert_array_equal(columns["calibration_correct"].numpy(), expected[1])
    np.testing.assert_allclose(columns["calibration_confidence"].numpy(), expected[2], rtol=1e-12)
    np.testing.assert_allclose(columns["nll_sum"].numpy(), nll, rtol=1e-6)


@pytest.mark.parametrize("key", ["boundary_tolerances", "distance_rings"])
@pytest.mark.parametrize("value", [[], [2, 1], [1, 1], [0, 1]])
def test_widths_rise(key: str, value: list[int]) -> None:
    with pytest.raises(ValueError, match=key):
        Protocol(**{"id": "x", "boundary_band": 2, key: value})


@pytest.mark.parametrize("step", [1, 4, 7])
@pytest.mark.parametrize(("width", "widths", "rings"), [(2, (1, 2, 4), (1, 3)), (5, (1, 2), (1,)), (1, (1,), (2,))])
def test_stripes_sum_up_to_the_counts_of_the_whole(
    step: int, width: int, widths: tuple[int, ...], rings: tuple[int, ...]
) -> None:
    protocol = Protocol(id="test", boundary_band=width, boundary_tolerances=widths, distance_rings=rings)
    # The third image: contours that match at just the largest width, each due to the row beyond it.
    edge = np.arange(17)[None, :, None].repeat(15, axis=2)
    labels = torch.from_numpy(np.concatenate([maps(0, 2, 17, 15, 3, 0.1, classes=5), edge > 5]))
    log_p = certain(np.concatenate([maps(1, 2, 17, 15, 4, 0.0, classes=5), edge > 5 + widths[-1]]))
    whole, _ = count(describe_truth(labels, protocol), log_p)
    beyond = margin(protocol)
    total: dict[str, Tensor] = {}
    for top in range(0, 17, step):
        first = max(top - beyond, 0)
        rows, own = slice(first, top + step + beyond), slice(top - first, top - first + step)
        columns, _ = count(describe_truth(labels[:, rows], protocol, own), log_p[:, rows])
        total = {name: total.get(name, 0) + values for name, values in columns.items()}
    for name, values in whole.items():
        torch.testing.assert_close(total[name], values, rtol=1e-6, atol=0, msg=name)


def test_merged_classes() -> None:
    """The prediction is what the most probable of the 19 is merged into; probabilities are added."""
    classes = CAMVID
    protocol = PROTOCOL.model_copy(update={"classes": "camvid11"})
    merge = np.array(classes.merge)
    labels = maps(0, 2, 13, 17, 3, 0.15)
    merged_labels = np.where(labels == VOID, VOID, merge[labels % 19])
    log_p = torch.log_softmax(2 * torch.randn(2, 13, 17, 19, generator=torch.Generator().manual_seed(0)), -1)
    predictions = merge[log_p.argmax(-1).numpy()]
    columns, found = count(describe_truth(torch.from_numpy(merged_labels), protocol), log_p)
    np.testing.assert_array_equal(found.numpy(), predictions)
    for image in range(2):
        for name, expected in reference(merged_labels[image], predictions[image], protocol).items():
            np.testing.assert_array_equal(columns[name][image].numpy(), expected, err_msg=name)
    p = log_p.double().exp().numpy()
    merged = np.stack([p[..., merge == place].sum(-1) for place in range(19)], -1)
    valid = labels != VOID
    confidence = np.take_along_axis(merged, predictions[..., None], -1)[..., 0]
    np.testing.assert_allclose(columns["calibration_confidence"].sum(), confidence[valid].sum(), rtol=1e-5)
    of_truth = np.take_along_axis(merged, np.where(valid, merged_labels, 0)[..., None], -1)[..., 0]
    np.testing.assert_allclose(columns["nll_sum"].sum(), -np.log(of_truth[valid]).sum(), rtol=1e-5)
    # Labels that tell more apart are merged as well.
    finer, _ = count(describe_truth(torch.from_numpy(labels), protocol), log_p)
    assert all(torch.equal(finer[name], columns[name]) for name in columns)


def test_cityscapes19_is_what_a_protocol_scores_by_default() -> None:
    labels, log_p = torch.from_numpy(maps(0, 1, 9, 9, 3, 0.1)), certain(maps(1, 1, 9, 9, 3, 0.0))
    named = PROTOCOL.model_copy(update={"classes": "cityscapes19"})
    default, _ = count(describe_truth(labels, PROTOCOL), log_p)
    again, _ = count(describe_truth(labels, named), log_p)
    assert all(torch.equal(default[name], again[name]) for name in default)
