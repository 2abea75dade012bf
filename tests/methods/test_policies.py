"""The boundary policies and the plain loss against explicit formulas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_method

from flexseg.method import Batch, cross_entropy, upsample
from flexseg.models import Output
from flexseg.shows import Curves


def batch_of(seed: int = 0, height: int = 12, width: int = 16) -> tuple[Batch, Output]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 19, (2, height // 4, width // 4), generator=generator)
    labels = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    logits = 2 * torch.randn(2, 19, height // 2, width // 2, generator=generator)
    output = Output(logits.requires_grad_(), torch.zeros(2, 4, height // 2, width // 2), ())
    return Batch(0, np.arange(2), np.arange(2), torch.zeros(2, 3, height, width), labels), output


def losses_of(batch: Batch, output: Output) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pixel's cross entropy (float64), whether it is valid, and whether a class differs in its 7×7 window."""
    logits = upsample(output.logits, batch.labels.shape[-2:]).detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    labels = batch.labels.numpy()
    loss, valid, boundary = np.zeros(labels.shape), labels != 255, np.zeros(labels.shape, bool)
    for b, y, x in np.ndindex(labels.shape):
        if valid[b, y, x]:
            loss[b, y, x] = -log_p[b, labels[b, y, x], y, x]
            window = labels[b, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
            boundary[b, y, x] = len(set(window[window != 255].tolist())) > 1
    return loss, valid, boundary


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"policy": "ignore"}, lambda loss: 0 * loss),
        ({"policy": "reduce", "weight": 0.25}, lambda loss: 0.25 * loss),
        ({"policy": "enhance"}, lambda loss: 2.5 * loss),
        ({"policy": "enhance", "weight": 4.0}, lambda loss: 4 * loss),
        ({"policy": "clip", "limit": 1.5}, lambda loss: np.minimum(loss, 1.5)),
    ],
)
def test_policy_against_its_formula(options: dict[str, Any], change: Any) -> None:
    batch, output = batch_of()
    method = make_method("boundary_policy", options)
    loss, valid, boundary = losses_of(batch, output)
    assert 0.2 < boundary[valid].mean() < 0.999
    expected = np.where(boundary, change(loss), loss).sum() / valid.sum()
    assert float(method.losses(batch, output)["ce"]) == pytest.approx(expected, rel=1e-5)


def test_plain_loss_against_its_formula() -> None:
    batch, output = batch_of(1)
    loss, valid, _ = losses_of(batch, output)
    assert float(cross_entropy(output.logits, batch.labels)) == pytest.approx(loss.sum() / valid.sum(), rel=1e-5)
    terms = make_method("dginstyle").losses(batch, output)
    assert set(terms) == {"ce"}
    assert float(terms["ce"]) == pytest.approx(loss.sum() / valid.sum(), rel=1e-5)


def test_default_choice_is_uniform_over_the_pool() -> None:
    method, other = (make_method("dginstyle", seed=seed, pool=5) for seed in (3, 4))
    drawn = np.concatenate([method.choose(iteration, range(8)) for iteration in range(250)])
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    assert np.abs(shares - 0.2).max() < 0.03
    assert other.choose(0, range(32)).tolist() != method.choose(0, range(32)).tolist()


def test_flexseg_terms_are_named_and_switchable() -> None:
    batch, output = batch_of(2)
    for ube, expected in ((True, "ube"), (False, "ce")):
        method = make_method("flexseg", {"ube": ube, "gap": False}, iterations=10, pool=4)
        assert set(method.losses(batch, output)) == {expected}
    loss, valid, _ = losses_of(batch, output)
    assert float(method.losses(batch, output)["ce"]) == pytest.approx(loss.sum() / valid.sum(), rel=1e-5)


def test_hardness_is_each_images_mean_loss() -> None:
    batch, output = batch_of(3)
    options = {"ube": False, "gap": False, "has_hardness": "copied"}
    method = make_method("flexseg", options, iterations=10, pool=4)
    method.build_training_modules(None)
    batch = batch._replace(indices=np.array([2, 0]))
    method.losses(batch, output)
    method.after_step(batch)
    loss, valid, _ = losses_of(batch, output)
    expected = loss.sum((1, 2)) / valid.sum((1, 2))
    state = method.state()
    np.testing.assert_allclose(state["average"][[2, 0]], expected, rtol=1e-5)
    assert state["visits"].tolist() == [1, 0, 1, 0]


def test_hardness_without_the_weights_of_ube_unless_asked_for() -> None:
    batch, output = batch_of(3)
    found = {}
    for name, options in (
        ("plain", {}), ("weighted", {"has_loss": "weighted"}), ("without", {"ube": False}),
    ):  # fmt: skip
        method = make_method("flexseg", {"gap": False, "has_hardness": "copied"} | options, iterations=10, pool=4)
        method.build_training_modules(None)
        method.losses(batch._replace(indices=np.array([2, 0])), output)
        method.after_step(batch)
        found[name] = method.state()["average"]
    np.testing.assert_array_equal(found["plain"], found["without"])
    assert (found["weighted"][[0, 2]] > found["plain"][[0, 2]]).all()


def test_flexseg_logs_and_observes_what_it_declares() -> None:
    made = make_method("flexseg", {"dim": 8}, iterations=10, pool=6)
    declared = [name for show in made.shows if isinstance(show, Curves) for name in show.panels]
    made.build_training_modules(SimpleNamespace(feature_channels=4, num_classes=19))
    for iteration in range(3):  # a correlation needs images that were seen before
        batch, output = batch_of(iteration, 48, 64)
        made.losses(batch._replace(indices=np.array([iteration, 5])), output)
        made.after_step(batch._replace(iteration=iteration))
    assert sorted(declared) == sorted(made.log())
