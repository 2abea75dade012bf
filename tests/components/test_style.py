"""Styles against numpy and a slow sampling, and where a trunk's stages are found: content stays, style goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import equal_tensors, mit, resnet, unet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from flexseg.components.style import (
    changed_outputs,
    channel_statistics,
    early_stages,
    farthest_points,
    stage_channels,
    stylise,
)
from flexseg.errors import RunError
from flexseg.models import build_segmentor

RESNET_STAGES = ("maxpool", "layer1", "layer2", "layer3", "layer4")
TRUNKS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unet": (unet(), ("encoder.0", "encoder.1", "encoder.2", "encoder.3", "encoder.4")),
    "resnet": (resnet(type="ResNet"), RESNET_STAGES),
    "resnet_v1c": (resnet(), RESNET_STAGES),
    "mit": (mit(), ("layers.0.2", "layers.1.2", "layers.2.2", "layers.3.2")),
}


def random_map(seed: int, shape: tuple[int, ...] = (3, 5, 7, 9)) -> Tensor:
    """Channels of various means and spreads, none of them dead."""
    g = torch.Generator().manual_seed(seed)
    spread = torch.rand(*shape[:2], 1, 1, generator=g) * 3 + 0.5
    return torch.randn(shape, generator=g) * spread + torch.randn(*shape[:2], 1, 1, generator=g)


def as_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2).contiguous()


def test_statistics_against_numpy() -> None:
    features = random_map(0)
    mean, std = channel_statistics(features)
    np.testing.assert_allclose(mean, features.numpy().mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, features.numpy().std(axis=(2, 3)), rtol=1e-5)


def test_statistics_of_tokens_are_those_of_their_map() -> None:
    features = random_map(1)
    for ours, theirs in zip(channel_statistics(as_tokens(features)), channel_statistics(features), strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.booleans())
def test_the_style_is_the_given_one_and_the_content_stays(seed: int, last: bool) -> None:
    features = random_map(seed)
    features = features.contiguous(memory_format=torch.channels_last) if last else features
    mean, std = torch.randn(3, 5), torch.rand(3, 5) + 0.5
    changed = stylise(features, mean, std)
    assert changed.shape == features.shape
    ours = channel_statistics(changed)
    torch.testing.assert_close(ours[0], mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[1], std, rtol=1e-4, atol=1e-4)
    normalised = [functional.instance_norm(x, eps=1e-12) for x in (features, changed)]
    torch.testing.assert_close(normalised[1], normalised[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(stylise(as_tokens(features), mean, std), as_tokens(changed))


def test_a_constant_channel_takes_the_mean_and_has_a_finite_gradient() -> None:
    features = torch.zeros(1, 2, 4, 4, requires_grad=True)
    changed = stylise(features, torch.tensor([[3.0, -1.0]]), torch.full((1, 2), 2.0))
    torch.testing.assert_close(changed[0, :, 0, 0], torch.tensor([3.0, -1.0]))
    changed.square().sum().backward()
    assert torch.isfinite(features.grad).all()


def test_the_gradient_does_not_see_what_normalisation_removes() -> None:
    """Scaling and shifting a channel changes nothing, so the gradient is orthogonal to both."""
    features = random_map(3).requires_grad_()
    stylise(features, torch.zeros(3, 5), torch.ones(3, 5)).pow(3).sum().backward()
    assert features.grad.abs().max() > 0.1
    assert features.grad.sum(dim=(2, 3)).abs().max() < 1e-3
    assert (features.grad * features.detach()).sum(dim=(2, 3)).abs().max() < 1e-3


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type_and_is_computed_in_float32(kind: torch.dtype) -> None:
    features = random_map(4).to(kind) + 200  # where float16 would lose the spread in its squares
    mean, std = channel_statistics(features)
    assert mean.dtype == std.dtype == torch.float32
    np.testing.assert_allclose(std, features.double().numpy().std(axis=(2, 3)), rtol=1e-4)
    changed = stylise(features, torch.zeros(3, 5), torch.ones(3, 5))
    assert changed.dtype == kind
    assert torch.isfinite(changed).all()


def slow_sampling(points: np.ndarray, count: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < min(count, len(points)):
        rest = [i for i in range(len(points)) if i not in chosen]
        far = [min(float(np.square(points[i] - points[j]).sum()) for j in chosen) for i in rest]
        chosen.append(rest[int(np.argmax(far))])
    return chosen


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 10_000), st.booleans())
def test_farthest_points_against_a_slow_sampling(number: int, count: int, seed: int, equal: bool) -> None:
    draw = np.random.default_rng(seed)
    # Whole numbers: exact distances, and with few values equal points.
    points = draw.integers(0, 2 if equal else 50, (number, 3)).astype(np.float32)
    first = int(draw.integers(number))
    chosen = farthest_points(torch.from_numpy(points), count, first).tolist()
    assert chosen == slow_sampling(points, count, first)
    assert len(set(chosen)) == min(count, number)


@pytest.mark.parametrize("name", TRUNKS)
def test_stages_are_where_the_maps_come_from(name: str) -> None:
    """Each path is passed once, in this order, with smaller and smaller maps; its channels are found beforehand."""
    config, paths = TRUNKS[name]
    model = build_segmentor(config)
    assert early_stages(model.backbone) == paths
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = [stage_channels(model.backbone, path) for path in paths]
    assert all(module.training for module in model.modules())
    assert equal_tensors(model.state_dict(), before)
    seen: list[tuple[str, int]] = []
    pixels: list[int] = []

    def note(path: str) -> Any:
        def change(features: Tensor) -> Tensor:
            seen.append((path, features.shape[2 if features.ndim == 3 else 1]))
            pixels.append(features.shape[1] if features.ndim == 3 else features[0, 0].numel())
            return features

        return change

    with changed_outputs(model.backbone, {path: note(path) for path in paths}):
        model(torch.randn(2, 3, 64, 128))
    assert seen == list(zip(paths, found, strict=True))
    assert pixels[1:] == sorted(pixels[1:], reverse=True)
    model(torch.randn(2, 3, 64, 128))
    assert len(seen) == len(paths), "a hook stayed behind"


def test_outputs_are_changed_within_the_block_alone_also_after_an_error() -> None:
    net, two = nn.Sequential(nn.Identity(), nn.Identity()), torch.tensor(2.0)

    def fails_within() -> None:
        with changed_outputs(net, {"0": lambda x: x + 1, "1": lambda x: x * 10}):
            assert net(two) == 30
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_within()
    assert net(two) == 2


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(RunError, match="not of Sequential"):
        early_stages(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_a_detached_style_passes_gradients_as_a_constant_scale() -> None:
    """As SHADE's code does: ∂x'/∂x = σ'/σ, without the terms that normalisation adds."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    mean, std = torch.randn(2, 3), torch.rand(2, 3) + 0.5
    weights = torch.randn(2, 3, 4, 5)
    (stylise(x, mean, std, detach=True) * weights).sum().backward()
    expected = weights * (std / channel_statistics(x.detach())[1])[..., None, None]
    torch.testing.assert_close(x.grad, expected)
    detached, x.grad = x.grad.clone(), None
    (stylise(x, mean, std) * weights).sum().backward()
    assert not torch.allclose(x.grad, detached)
    assert torch.equal(stylise(x, mean, std), stylise(x, mean, std, detach=True))
