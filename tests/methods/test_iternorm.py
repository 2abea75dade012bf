"""IterNorm: the layer against an eigendecomposition, its gradients against differences, and its running statistics."""

from __future__ import annotations

import pytest
import torch
from builders import build_model, make_method, module_of, unet
from torch import Tensor, nn

from flexseg.components.norms import newton_whitening

layers = module_of("iternorm")


def features(channels: int = 8, batch: int = 4, seed: int = 0, size: tuple[int, int] = (9, 11)) -> Tensor:
    """Correlated features with unlike means and scales, in float64."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=draw, dtype=torch.float64) + 2 * torch.eye(channels)
    x = torch.randn(batch, *size, channels, generator=draw, dtype=torch.float64) @ mix.T
    x = x + torch.randn(channels, generator=draw, dtype=torch.float64)
    return x.permute(0, 3, 1, 2)


def covariance(x: Tensor) -> Tensor:
    """(C, C) of the pixels of all images."""
    points = x.transpose(0, 1).flatten(1)
    points = points - points.mean(1, keepdim=True)
    return points @ points.T / points.shape[1]


def zca(x: Tensor, group: int, eps: float = 1e-5) -> Tensor:
    """Σ^{−1/2} (x − μ) in each group, by eigendecomposition."""
    parts = []
    for part in x.split(group, dim=1):
        matrix = covariance(part) + eps * torch.eye(group, dtype=x.dtype)
        values, vectors = torch.linalg.eigh(matrix)
        root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        centred = part - part.mean((0, 2, 3), keepdim=True)
        parts.append(torch.einsum("dc,bchw->bdhw", root, centred))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(("channels", "group", "size"), [(8, 4, 4), (8, 16, 8), (6, 4, 3), (32, 16, 16)])
def test_whitens_each_group(channels: int, group: int, size: int) -> None:
    x = features(channels)
    y = layers.IterativeWhitening(channels, group, iterations=40).double()(x)
    torch.testing.assert_close(y, zca(x, size), rtol=1e-6, atol=1e-6)
    for part in y.split(size, dim=1):
        torch.testing.assert_close(covariance(part), torch.eye(size, dtype=y.dtype), rtol=0, atol=1e-3)
    assert (covariance(y) - torch.eye(channels)).abs().max() > 0.01 or size == channels


def test_few_iterations_come_closer_one_by_one() -> None:
    x = features()
    exact = zca(x, 8)
    gaps = [float((layers.IterativeWhitening(8, iterations=t).double()(x) - exact).norm()) for t in (1, 3, 5, 8, 12)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.1 * gaps[0]


def test_groups_are_as_large_as_the_option_says() -> None:
    model = build_model(make_method("iternorm", {"group": 4}), unet())
    assert model.backbone.get_submodule("encoder.0.0.convs.1.bn").running_whitening.shape[1] == 4


def test_scale_and_shift_come_last() -> None:
    x, layer = features(), layers.IterativeWhitening(8, 4).double()
    plain = layer(x)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(x), layer.weight.view(-1, 1, 1) * plain + layer.bias.view(-1, 1, 1))


def test_gradients_against_differences() -> None:
    x = features(4, batch=2, size=(2, 3)).requires_grad_()
    layer = layers.IterativeWhitening(4, 2, momentum=0.0).double()
    weight, bias = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

    def whiten(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(whiten, (x, weight.requires_grad_(), bias.requires_grad_()))


def test_evaluation_is_training_once_the_averages_have_converged() -> None:
    x, layer = features(), layers.IterativeWhitening(8, 4).double()
    trained = layer(x)
    assert (layer.eval()(x) - trained).abs().max() > 0.1
    layer.train()
    for _ in range(200):
        layer(x)
    torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-6, atol=1e-6)


def test_moving_averages_take_the_published_share_of_a_batch() -> None:
    x, layer = features(), layers.IterativeWhitening(8, 8).double()
    layer(x)
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean((0, 2, 3)))
    whitening = newton_whitening(covariance(x) + 1e-5 * torch.eye(8), 5)
    torch.testing.assert_close(layer.running_whitening[0], 0.9 * torch.eye(8).double() + 0.1 * whitening)
    before = layer.running_mean.clone()
    layer.eval()(x)
    assert torch.equal(layer.running_mean, before)


def test_layout_in_memory_changes_nothing() -> None:
    x = features(32).float()
    ours = layers.IterativeWhitening(32)(x.contiguous())
    theirs = layers.IterativeWhitening(32)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_low_precision_keeps_its_type_and_is_whitened_in_float32() -> None:
    x = features(8).bfloat16()
    layer = layers.IterativeWhitening(8, iterations=25)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), zca(x.double(), 8), rtol=0.02, atol=0.02)
