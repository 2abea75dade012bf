"""The control losses against their formulas, pixel by pixel: focal, OHEM, noise-robust and active boundary losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_method, module_of
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from flexseg.components.losses import log_probabilities
from flexseg.method import Batch
from flexseg.models import Output

OHEM, ACTIVE = module_of("ohem"), module_of("active_boundary")
CONTROLS: list[tuple[str, dict[str, Any]]] = [
    ("focal", {}),
    ("ohem", {}),
    ("noise_robust", {}),
    ("noise_robust", {"kind": "symmetric"}),
    ("active_boundary", {}),
]


def batch_of(seed: int = 0, height: int = 12, width: int = 16, classes: int = 19) -> tuple[Batch, Output, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (2, height // 4, width // 4), generator=generator)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    logits = (2 * torch.randn(2, 19, height, width, generator=generator)).requires_grad_()
    output = Output(logits, torch.zeros(2, 4, height, width), ())
    return Batch(0, np.arange(2), np.arange(2), torch.zeros(2, 3, height, width), labels), output, logits


def loss_of(name: str, options: dict[str, Any], batch: Batch, output: Output) -> Tensor:
    terms = make_method(name, options).losses(batch, output)
    return torch.stack(list(terms.values())).sum()


def probabilities(batch: Batch, output: Output) -> list[float]:
    """p of the label of every valid pixel, float64."""
    p = output.logits.detach().double().softmax(dim=1)
    places = (batch.labels != 255).nonzero().tolist()
    return [float(p[b, int(batch.labels[b, y, x]), y, x]) for b, y, x in places]


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_loss(gamma: float) -> None:
    batch, output, _ = batch_of()
    expected = np.mean([-((1 - p) ** gamma) * math.log(p) for p in probabilities(batch, output)])
    assert float(loss_of("focal", {"gamma": gamma}, batch, output).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("q", [0.05, 0.7, 1.0])
def test_generalised_cross_entropy(q: float) -> None:
    batch, output, _ = batch_of(1)
    expected = np.mean([(1 - p**q) / q for p in probabilities(batch, output)])
    assert float(loss_of("noise_robust", {"q": q}, batch, output).detach()) == pytest.approx(expected, rel=1e-5)


def test_symmetric_cross_entropy_in_full() -> None:
    """The reverse term over all classes, with A for the logarithm of the label's zeros."""
    batch, output, _ = batch_of(2)
    p, terms = output.logits.detach().double().softmax(dim=1), []
    for b, y, x in (batch.labels != 255).nonzero().tolist():
        label = int(batch.labels[b, y, x])
        forward = -math.log(float(p[b, label, y, x]))
        reverse = -sum(float(p[b, c, y, x]) * (0.0 if c == label else -4.0) for c in range(19))
        terms.append(0.1 * forward + 1.0 * reverse)
    found = loss_of("noise_robust", {"kind": "symmetric"}, batch, output)
    assert float(found.detach()) == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize(("threshold", "share"), [(0.7, 0.0), (0.02, 0.3), (0.7, 0.19), (1.0, 0.0), (0.01, 1.0)])
def test_ohem_keeps_what_mmseg_keeps(threshold: float, share: float) -> None:
    """OHEMPixelSampler: sort p, take max(θ, the k-th), keep what is below; here over the kept pixels."""
    batch, output, _ = batch_of(3)
    p = sorted(probabilities(batch, output))
    k = round(share * batch.labels.numel())
    limit = max(p[min(k, len(p) - 1)], threshold) if k < len(p) else math.inf
    kept = [each for each in p if each < limit]
    expected = np.mean([-math.log(each) for each in kept])
    found = loss_of("ohem", {"threshold": threshold, "share": share}, batch, output)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def slow_active_boundary(log_p: np.ndarray, labels: np.ndarray, share: float, reach: float, smoothing: float) -> float:
    """L_AB pixel by pixel."""
    size = labels.shape

    def divergence(i: tuple[int, int, int], j: tuple[int, int, int]) -> float:
        return float((np.exp(log_p[i]) * (log_p[i] - log_p[j])).sum())

    apart = np.zeros(size)
    for b, y, x in np.ndindex(size):
        for j in ((b, y, x + 1), (b, y + 1, x)):
            if j[1] < size[1] and j[2] < size[2]:
                apart[b, y, x] += divergence((b, y, x), j)
    epsilon = 1e-5
    while (apart > epsilon).sum() > int(share * apart.size):
        epsilon *= 1.2
    terms = []
    for b in range(size[0]):
        edge = np.zeros(size[1:], bool)
        for y, x in np.ndindex(size[1:]):
            for j in ((y, x + 1), (y + 1, x)):
                if j[0] < size[1] and j[1] < size[2] and 255 not in (labels[b][y, x], labels[b][j]):
                    edge[y, x] |= labels[b][y, x] != labels[b][j]
        distance = distance_transform_edt(~edge)
        for y, x in np.ndindex(size[1:]):
            window = apart[b, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            if labels[b, y, x] == 255 or not (window > epsilon).any():
                continue
            scores, distances = [], []
            for down, right in ACTIVE.NEIGHBOURS:
                j = (y + down, x + right)
                inside = 0 <= j[0] < size[1] and 0 <= j[1] < size[2]
                scores.append(divergence((b, y, x), (b, *j)) if inside else 0.0)
                distances.append(distance[j] if inside else math.inf)
            if min(distances) >= distance[y, x]:
                continue
            log_s = np.array(scores) - np.log(np.exp(scores).sum())
            target = np.full(8, smoothing / 8)
            target[int(np.argmin(distances))] += 1 - smoothing
            terms.append(min(distance[y, x], reach) / reach * -(target * log_s).sum())
    return float(np.mean(terms)) if terms else 0.0


@pytest.mark.parametrize(("share", "reach"), [(0.01, 20.0), (0.1, 2.0)])
def test_active_boundary_loss(share: float, reach: float) -> None:
    torch.manual_seed(0)
    labels = torch.zeros(2, 12, 14, dtype=torch.int64)
    labels[0, :, 4:], labels[1, 7:], labels[1, :2, :3] = 1, 2, 255
    logits = torch.randn(2, 5, 12, 14)
    logits[:, 1, :, 9:] += 6  # a predicted boundary away from that of the labels
    log_p = log_probabilities(logits)
    found = float(ACTIVE.active_boundary_loss(log_p, labels, share, reach, 0.2))
    expected = slow_active_boundary(log_p.double().numpy(), labels.numpy(), share, reach, 0.2)
    assert expected > 0.01
    assert found == pytest.approx(expected, rel=1e-4)


def test_active_boundary_draws_the_predicted_boundary_towards_that_of_the_labels() -> None:
    labels = torch.zeros(1, 16, 32, dtype=torch.int64)
    labels[..., 10:] = 1
    logits = torch.zeros(1, 2, 16, 32)
    logits[:, 0, :, :18], logits[:, 1, :, 18:] = 3.0, 3.0
    logits = torch.nn.functional.avg_pool2d(logits, (1, 5), stride=1, padding=(0, 2)).requires_grad_()
    ACTIVE.active_boundary_loss(log_probabilities(logits), labels, 0.1, 20.0, 0.2).backward()
    drawn = (logits.grad[0, 0] - logits.grad[0, 1]).abs().sum(dim=0)
    assert drawn[14:22].sum() > 0
    assert drawn[:13].sum() == 0


@pytest.mark.parametrize(("name", "options"), CONTROLS)
@pytest.mark.parametrize("kind", ["void", "one class", "one pixel", "half precision"])
def test_batches_at_the_edge(name: str, options: dict[str, Any], kind: str) -> None:
    batch, output, logits = batch_of(4)
    labels = batch.labels.clone()
    if kind == "void":
        labels[:] = 255
    elif kind == "one class":
        labels[:] = 3
    elif kind == "one pixel":
        labels[:] = 255
        labels[0, 5, 5] = 7
    else:
        output = output._replace(logits=output.logits.bfloat16())
    loss = loss_of(name, options, batch._replace(labels=labels), output)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    if kind == "void":
        assert float(loss.detach()) == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": -1}), ("ohem", {"threshold": 0}), ("ohem", {"share": 2}), ("noise_robust", {"q": 0}),
        ("noise_robust", {"kind": "best"}), ("noise_robust", {"log_zero": 1}), ("active_boundary", {"share": 0}),
        ("active_boundary", {"weight": -1}), ("active_boundary", {"smoothing": 1}),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(options))):
        make_method(name, options)
