"""Switchable whitening: its two ends, the mix between them, gradients, and running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import build_model, make_method, module_of, places, unet
from torch import Tensor

layers = module_of("switchable_whitening")
iternorm = module_of("iternorm")
ALONE = {"batch": (50.0, -50.0), "image": (-50.0, 50.0)}


def features(channels: int = 8, batch: int = 4, seed: int = 0, size: tuple[int, int] = (9, 11)) -> Tensor:
    """Correlated features whose mean, scale and correlation differ from image to image, in float64."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(batch, channels, channels, generator=draw, dtype=torch.float64) + 2 * torch.eye(channels)
    x = torch.einsum("bdc,bchw->bdhw", mix, torch.randn(batch, channels, *size, generator=draw, dtype=torch.float64))
    return x + torch.randn(batch, channels, 1, 1, generator=draw, dtype=torch.float64)


def layer_of(channels: int, mean: str | None = None, covariance: str | None = None, **options: Any) -> Any:
    layer = layers.SwitchableWhitening2d(channels, **options).double()
    for parameter, end in ((layer.mean_mix, mean), (layer.covariance_mix, covariance)):
        if end is not None:
            parameter.data.copy_(torch.tensor(ALONE[end]))
    return layer


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of the pixels of all images."""
    points = x.transpose(0, 1).flatten(1)
    mean = points.mean(1)
    points = points - mean[:, None]
    return mean, points @ points.T / points.shape[1]


def inverse_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T


@pytest.mark.parametrize("iterations", [5, 20])
def test_batch_whitening_alone_is_iternorm(iterations: int) -> None:
    x = features()
    ours = layer_of(8, "batch", "batch", group=4, iterations=iterations)
    theirs = iternorm.IterativeWhitening(8, 4, iterations).double()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


def test_image_whitening_alone_whitens_each_image() -> None:
    x = features()
    y = layer_of(8, "image", "image", group=4, iterations=40)(x)
    for image in y:
        for part in image.split(4):
            mean, covariance = statistics(part[None])
            torch.testing.assert_close(mean, torch.zeros(4).double(), rtol=0, atol=1e-9)
            torch.testing.assert_close(covariance, torch.eye(4).double(), rtol=0, atol=1e-3)
    assert (statistics(y[:1])[1] - torch.eye(8)).abs().max() > 0.05


def test_the_mix_against_its_formula() -> None:
    x = features(4)
    layer = layer_of(4, iterations=40)
    layer.mean_mix.data.copy_(torch.tensor([0.3, -0.5]))
    layer.covariance_mix.data.copy_(torch.tensor([-1.0, 0.2]))
    layer.weight.data.normal_()
    layer.bias.data.normal_()
    of_mean = np.exp([0.3, -0.5]) / np.exp([0.3, -0.5]).sum()
    of_covariance = np.exp([-1.0, 0.2]) / np.exp([-1.0, 0.2]).sum()
    batch_mean, batch_covariance = statistics(x)
    expected = []
    for image in x:
        image_mean, image_covariance = statistics(image[None])
        mean = of_mean[0] * batch_mean + of_mean[1] * image_mean
        matrix = of_covariance[0] * batch_covariance + of_covariance[1] * image_covariance + 1e-5 * torch.eye(4)
        whitened = torch.einsum("dc,chw->dhw", inverse_root(matrix), image - mean[:, None, None])
        expected.append(layer.weight[:, None, None] * whitened + layer.bias[:, None, None])
    torch.testing.assert_close(layer(x), torch.stack(expected), rtol=1e-6, atol=1e-6)


def test_the_mix_starts_in_the_middle_and_is_learnt() -> None:
    x, layer = features(), layer_of(8)
    torch.testing.assert_close(layer.mean_mix.softmax(0), torch.full((2,), 0.5).double())
    (layer(x) * torch.randn_like(x)).sum().backward()
    for parameter in (layer.mean_mix, layer.covariance_mix):
        assert parameter.grad.abs().min() > 0
        assert float(parameter.grad.sum()) == pytest.approx(0, abs=1e-9)


def test_gradients_against_differences() -> None:
    x = features(4, batch=2, size=(3, 3)).requires_grad_()
    layer = layer_of(4, group=2, momentum=1.0)
    values = {key: (0.1 + value.detach() * 0.7).requires_grad_() for key, value in layer.named_parameters()}

    def whiten(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(whiten, (x, *values.values()))


def test_evaluation_is_training_once_the_averages_have_converged() -> None:
    x, layer = features(), layer_of(8, group=4, momentum=0.9)
    trained = layer(x)
    assert (layer.eval()(x) - trained).abs().max() > 0.1
    layer.train()
    for _ in range(200):
        layer(x)
    torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-5, atol=1e-5)


def test_moving_averages_keep_the_published_share() -> None:
    x, layer = features(), layer_of(8, group=8)
    layer(x)
    mean, covariance = statistics(x)
    torch.testing.assert_close(layer.running_mean[0], 0.01 * mean)
    torch.testing.assert_close(layer.running_covariance[0], 0.99 * torch.eye(8).double() + 0.01 * covariance)
    before = layer.running_covariance.clone()
    layer.eval()(x)
    assert torch.equal(layer.running_covariance, before)


def test_low_precision_keeps_its_type_and_is_whitened_in_float32() -> None:
    x = features().bfloat16()
    layer = layer_of(8).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    reference = layer_of(8)(x.double())
    torch.testing.assert_close(y.double(), reference, rtol=0.02, atol=0.02)


def test_log_tells_the_share_of_the_batch() -> None:
    method = make_method("switchable_whitening", {"stages": 2})
    model = build_model(method, unet())
    paths = ["encoder.0.0.convs.1.bn", "encoder.1.1.convs.1.bn"]
    assert places(model, layers.SwitchableWhitening2d) == paths
    model.backbone.get_submodule(paths[1]).mean_mix.data.copy_(torch.tensor([np.log(3.0), 0.0]))
    assert method.log() == pytest.approx(
        {
            "sw/batch_mean_0": 0.5,
            "sw/batch_covariance_0": 0.5,
            "sw/batch_mean_1": 0.75,
            "sw/batch_covariance_1": 0.5,
        }
    )
