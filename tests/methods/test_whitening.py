"""IterNorm and switchable whitening: against eigendecompositions, gradients against differences, running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import build_model, make_method, module_of, places, unet
from torch import Tensor, nn

from flexseg.components.norms import newton_whitening

IterativeWhitening = module_of("iternorm").IterativeWhitening
SwitchableWhitening2d = module_of("switchable_whitening").SwitchableWhitening2d
ALONE = {"batch": (50.0, -50.0), "image": (-50.0, 50.0)}
BOTH = pytest.mark.parametrize("kind", [IterativeWhitening, SwitchableWhitening2d], ids=["iternorm", "switchable"])


def features(channels: int = 8, batch: int = 4, seed: int = 0, size: tuple[int, int] = (9, 11)) -> Tensor:
    """Correlated features whose mean, scale and correlation differ from image to image, in float64."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(batch, channels, channels, generator=draw, dtype=torch.float64) + 2 * torch.eye(channels)
    x = torch.einsum("bdc,bchw->bdhw", mix, torch.randn(batch, channels, *size, generator=draw, dtype=torch.float64))
    return x + torch.randn(batch, channels, 1, 1, generator=draw, dtype=torch.float64)


def layer_of(channels: int, mean: str | None = None, covariance: str | None = None, **options: Any) -> Any:
    layer = SwitchableWhitening2d(channels, **options).double()
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


def zca(x: Tensor, group: int, eps: float = 1e-5) -> Tensor:
    """Σ^{−1/2} (x − μ) in each group, by eigendecomposition."""
    parts = []
    for part in x.split(group, dim=1):
        mean, covariance = statistics(part)
        root = inverse_root(covariance + eps * torch.eye(group, dtype=x.dtype))
        parts.append(torch.einsum("dc,bchw->bdhw", root, part - mean[:, None, None]))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(("channels", "group", "size"), [(8, 4, 4), (8, 16, 8), (6, 4, 3), (32, 16, 16)])
def test_whitens_each_group(channels: int, group: int, size: int) -> None:
    x = features(channels)
    y = IterativeWhitening(channels, group, iterations=40).double()(x)
    torch.testing.assert_close(y, zca(x, size), rtol=1e-6, atol=1e-6)
    for part in y.split(size, dim=1):
        torch.testing.assert_close(statistics(part)[1], torch.eye(size, dtype=y.dtype), rtol=0, atol=1e-3)
    assert (statistics(y)[1] - torch.eye(channels)).abs().max() > 0.01 or size == channels


def test_few_iterations_come_closer_one_by_one() -> None:
    x = features()
    exact = zca(x, 8)
    gaps = [float((IterativeWhitening(8, iterations=t).double()(x) - exact).norm()) for t in (1, 3, 5, 8, 12)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.1 * gaps[0]


def test_groups_are_as_large_as_the_option_says() -> None:
    model = build_model(make_method("iternorm", {"group": 4}), unet())
    assert model.backbone.get_submodule("encoder.0.0.convs.1.bn").running_whitening.shape[1] == 4


def test_scale_and_shift_come_last() -> None:
    x, layer = features(), IterativeWhitening(8, 4).double()
    plain = layer(x)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(x), layer.weight.view(-1, 1, 1) * plain + layer.bias.view(-1, 1, 1))


def test_layout_in_memory_changes_nothing() -> None:
    x = features(32).float()
    ours = IterativeWhitening(32)(x.contiguous())
    theirs = IterativeWhitening(32)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@BOTH
def test_gradients_against_differences(kind: Any) -> None:
    x = features(4, batch=2, size=(3, 3)).requires_grad_()
    layer = kind(4, group=2, momentum=0.0 if kind is IterativeWhitening else 1.0).double()  # the averages stay
    values = {key: (0.1 + value.detach() * 0.7).requires_grad_() for key, value in layer.named_parameters()}

    def whiten(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(whiten, (x, *values.values()))


@BOTH
def test_evaluation_is_training_once_the_averages_have_converged(kind: Any) -> None:
    x, layer = features(), kind(8, group=4, momentum=0.1 if kind is IterativeWhitening else 0.9).double()
    trained = layer(x)
    assert (layer.eval()(x) - trained).abs().max() > 0.1
    layer.train()
    for _ in range(200):
        layer(x)
    torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-5, atol=1e-5)


@BOTH
def test_low_precision_keeps_its_type_and_is_whitened_in_float32(kind: Any) -> None:
    x, layer = features().bfloat16(), kind(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), kind(8).double()(x.double()), rtol=0.02, atol=0.02)


def test_averages_of_iternorm_take_the_published_share_of_a_batch() -> None:
    x, layer = features(), IterativeWhitening(8, 8).double()
    layer(x)
    mean, covariance = statistics(x)
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    whitening = newton_whitening(covariance + 1e-5 * torch.eye(8), 5)
    torch.testing.assert_close(layer.running_whitening[0], 0.9 * torch.eye(8).double() + 0.1 * whitening)
    before = layer.running_mean.clone()
    layer.eval()(x)
    assert torch.equal(layer.running_mean, before)


def test_averages_of_switchable_whitening_keep_the_published_share() -> None:
    x, layer = features(), layer_of(8, group=8)
    layer(x)
    mean, covariance = statistics(x)
    torch.testing.assert_close(layer.running_mean[0], 0.01 * mean)
    torch.testing.assert_close(layer.running_covariance[0], 0.99 * torch.eye(8).double() + 0.01 * covariance)
    before = layer.running_covariance.clone()
    layer.eval()(x)
    assert torch.equal(layer.running_covariance, before)


@pytest.mark.parametrize("iterations", [5, 20])
def test_batch_whitening_alone_is_iternorm(iterations: int) -> None:
    x = features()
    ours = layer_of(8, "batch", "batch", group=4, iterations=iterations)
    theirs = IterativeWhitening(8, 4, iterations).double()
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


def test_log_tells_the_share_of_the_batch() -> None:
    method = make_method("switchable_whitening", {"stages": 2})
    model = build_model(method, unet())
    paths = ["encoder.0.0.convs.1.bn", "encoder.1.1.convs.1.bn"]
    assert places(model, SwitchableWhitening2d) == paths
    model.backbone.get_submodule(paths[1]).mean_mix.data.copy_(torch.tensor([np.log(3.0), 0.0]))
    assert method.log() == pytest.approx(
        {
            "sw/batch_mean_0": 0.5,
            "sw/batch_covariance_0": 0.5,
            "sw/batch_mean_1": 0.75,
            "sw/batch_covariance_1": 0.5,
        }
    )
