"""AdvStyle: the step by finite differences, one batch of both views, and a search that leaves no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    AUXILIARY,
    HEAD,
    assert_finite_gradients,
    equal_tensors,
    make_batch,
    make_method,
    mit,
    resnet,
    set_up,
    unet,
)
from torch import Tensor

from flexseg.components.fd import feature_distance, watch_encoder
from flexseg.method import cross_entropy
from flexseg.models import Segmentor

TRUNKS = {
    "unet": unet(),
    "resnet": resnet() | {"auxiliary_head": AUXILIARY},
    "mit": mit() | {"decode_head": HEAD | {"in_channels": 64}},
}


def ready(trunk: str = "unet", **options: Any) -> tuple[Any, Segmentor]:
    method = make_method("advstyle", options)
    model, modules = set_up(method, TRUNKS[trunk])
    assert modules is None
    with torch.no_grad():
        model.decode_head.conv_seg.weight *= 50  # fresh heads predict about the same everywhere
    return method, model


def watch(model: Segmentor) -> list[Tensor]:
    """The images that the model is shown."""
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    return seen


def test_the_style_climbs_the_loss_by_finite_differences() -> None:
    """Each of the 3 means and 3 deviations of each image, moved alone: the slope of the batch's mean loss."""
    method, model = ready(gamma=3.0)
    model.double()
    batch = make_batch(2)
    batch = batch._replace(images=batch.images.double())
    found = method._worst(model, batch).numpy()
    x = batch.images.numpy()
    mean, deviation = (getattr(x, kind)(axis=(2, 3)) for kind in ("mean", "std"))

    def paint(means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        plain = (x - mean[..., None, None]) / deviation[..., None, None]
        return plain * deviations[..., None, None] + means[..., None, None]

    def loss(means: np.ndarray, deviations: np.ndarray) -> float:
        logits = model(torch.from_numpy(paint(means, deviations))).logits
        log_p = torch.nn.functional.interpolate(logits, (64, 128), mode="bilinear").log_softmax(dim=1)
        label = batch.labels[:, None].clamp(max=18)
        return -float(log_p.gather(1, label)[:, 0][batch.labels != 255].mean().detach())

    slopes = np.zeros((2, 2, 3))
    for kind, image, channel in np.ndindex(2, 2, 3):
        moved = np.zeros((2, 2, 3))
        moved[kind, image, channel] = 1e-7  # so little that hardly a ReLU turns on or off
        slopes[kind, image, channel] = loss(mean + moved[0], deviation + moved[1]) - loss(
            mean - moved[0], deviation - moved[1]
        )
    slopes /= 2e-7
    expected = paint(mean + 3 * slopes[0], deviation + 3 * slopes[1])
    assert np.abs(expected - x).max() > 0.02, "nothing to compare"
    np.testing.assert_allclose(found - x, expected - x, rtol=0.02, atol=2e-4)
    log = method.log()
    assert log["advstyle/mean"] == pytest.approx(3 * np.abs(slopes[0]).mean(), rel=0.02)
    assert log["advstyle/deviation"] == pytest.approx(3 * np.abs(slopes[1]).mean(), rel=0.02)


def test_one_step_by_hand() -> None:
    """On two pixels, of a trunk that compares red + 2 · green − blue with its negative."""

    class Toy(torch.nn.Module):
        def forward(self, images: Tensor) -> Any:
            score = images[:, :1] + 2 * images[:, 1:2] - images[:, 2:]
            return type("Out", (), {"logits": torch.cat([score, -score], dim=1)})

    method = make_method("advstyle", {"gamma": 0.5})
    batch = make_batch(1, shape=(1, 2), void=0)
    images = torch.tensor([[[[0.0, 2.0]], [[1.0, -1.0]], [[0.5, 1.5]]]])
    found = method._worst(Toy(), batch._replace(images=images, labels=torch.tensor([[[0, 1]]])))
    # μ = (1, 0, 1), σ = (1, 1, ½) over two pixels, x̂ = (−1, 1), (1, −1), (−1, 1). The scores are 1.5 and −1.5, so both
    # pixels have p = σ(3) of their label and ∂L/∂score = ∓(1 − p) · 2 · ½ = ∓0.04743: no mean moves. ∂L/∂σ is
    # 0.04743 + 0.04743 = 0.09485 for red, 2 · (−0.09485) for green, −0.09485 for blue; half of that is added to σ.
    expected = torch.tensor([[[[-0.04743, 2.04743]], [[0.90515, -0.90515]], [[0.54743, 1.45257]]]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_both_views_are_one_batch(trunk: str) -> None:
    method, model = ready(trunk)
    batch = make_batch(3)
    seen = watch(model)
    outputs: list[Any] = []
    model.register_forward_hook(lambda *call: outputs.append(call[2]))
    terms = method.forward(model, batch)
    assert [len(images) for images in seen] == [3, 6]
    torch.testing.assert_close(seen[0], batch.images)
    assert torch.equal(seen[1][:3], batch.images)
    assert not torch.equal(seen[1][3:], batch.images)
    torch.testing.assert_close(terms["ce"], cross_entropy(outputs[1].logits, batch.labels.repeat(2, 1, 1)))
    assert ("auxiliary" in terms) == (trunk == "resnet")
    sum(terms.values()).backward()
    assert_finite_gradients(model)


def test_a_small_step_is_harder_than_none() -> None:
    method, model = ready(gamma=0.1)
    batch = make_batch(4)
    worst = method._worst(model, batch)
    plain, harder = (float(cross_entropy(model(x).logits, batch.labels).detach()) for x in (batch.images, worst))
    assert harder > plain + 1e-5


def test_the_search_gives_no_weight_a_gradient_and_is_no_pass_of_the_feature_distance() -> None:
    method, model = ready()
    batch = make_batch(2)
    assert not method._worst(model, batch).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    with watch_encoder(model.backbone) as (inputs, maps):
        terms = method.forward(model, batch)
    assert [len(images) for images in inputs] == [len(features) for features in maps] == [4]
    cells = torch.ones(2, *maps[0].shape[-2:], dtype=torch.bool)
    (terms["ce"] + feature_distance(maps[0][:2], torch.zeros_like(maps[0][:2]), cells)).backward()
    assert_finite_gradients(model)


def test_void_images_keep_their_style() -> None:
    method, model = ready()
    batch = make_batch(2)
    labels = batch.labels.clone()
    labels[1] = 255
    before = {key: value.clone() for key, value in model.named_parameters()}
    worst = method._worst(model.eval(), batch._replace(labels=labels))
    assert not torch.allclose(worst[0], batch.images[0], atol=1e-4)
    torch.testing.assert_close(worst[1], batch.images[1])
    assert equal_tensors(before, dict(model.named_parameters()))
