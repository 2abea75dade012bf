"""Norms: where a backbone's BatchNorms are found, what takes their place, and whitening against slow references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import lite, resnet, unet
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flexseg.components.norms import (
    InstanceNorm,
    append_after_sum,
    covariances,
    group_size,
    is_residual,
    newton_whitening,
    put_at_stage_ends,
    replace_module,
    stages_with_batch_norm,
)
from flexseg.models import build_segmentor


def backbone_of(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return build_segmentor(config).backbone


class Style(nn.Module):
    """A stand-in for a norm that leaves a trace, of negative values too: 1 − 2x."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - 2 * x


# Places


def test_stages_of_a_resnet_are_its_stem_and_layers_without_shortcuts() -> None:
    backbone = backbone_of(resnet(type="ResNet"))
    stages = stages_with_batch_norm(backbone)
    assert list(stages) == ["bn1", "layer1", "layer2", "layer3", "layer4"]
    assert stages["bn1"] == ["bn1"]
    assert stages["layer2"] == ["layer2.0.bn1", "layer2.0.bn2", "layer2.1.bn1", "layer2.1.bn2"]
    assert [is_residual(backbone.get_submodule(stage)) for stage in stages] == [False, True, True, True, True]


def test_stages_of_a_unet_are_those_of_its_encoder_then_its_decoder() -> None:
    stages = stages_with_batch_norm(backbone_of(unet()))
    assert list(stages)[:5] == [f"encoder.{stage}" for stage in range(5)]
    assert all(stage.startswith("decoder.") for stage in list(stages)[5:])
    assert stages["encoder.1"] == ["encoder.1.1.convs.0.bn", "encoder.1.1.convs.1.bn"]


def test_stages_of_an_efficientnet_begin_with_its_stem_and_two_end_without_a_sum() -> None:
    backbone = backbone_of(lite(weights=False))
    stages = stages_with_batch_norm(backbone)
    assert list(stages) == [f"encoder.{stage}" for stage in range(5)]
    assert stages["encoder.0"][0] == "encoder.0.0.norm"
    assert stages["encoder.1"][-3:] == [f"encoder.1.1.{part}.norm" for part in ("expand", "depthwise", "project")]
    assert [is_residual(backbone.get_submodule(stage)) for stage in stages] == [False, True, True, True, False]


def test_behind_the_sum_of_an_inverted_residual_nothing_rectifies() -> None:
    stage = backbone_of(lite(weights=False)).encoder[1].eval()
    x = torch.randn(2, 16, 8, 8)
    plain = stage(x)
    append_after_sum(stage, Style())
    torch.testing.assert_close(stage(x), 1 - 2 * plain)
    assert (plain < 0).any()


def test_a_backbone_without_batch_norm_has_no_such_stage() -> None:
    assert stages_with_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))) == {}


def test_a_module_is_replaced_at_any_depth() -> None:
    root = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Identity(), nn.BatchNorm2d(4)))
    for path in ("1.1", "0"):
        module = Style()
        replace_module(root, path, module)
        assert root.get_submodule(path) is module
    assert len(root) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("half", [False, True])
def test_instance_norm_behind_a_frozen_stage(layout: torch.memory_format, half: bool) -> None:
    """Whose maps want no gradient: the same values and gradients as of maps that do."""
    found = []
    x = 3 * torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0)).to(memory_format=layout) + 1
    for wanted in (True, False):
        layer = InstanceNorm(6)
        layer.weight.data += torch.arange(6)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = layer(x.clone().requires_grad_(wanted))
        assert y.requires_grad
        (y * torch.arange(4)).sum().backward()
        found.append((y.detach(), layer.weight.grad, layer.bias.grad))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [18, 50])
def test_behind_the_sum_means_before_the_last_relu_of_the_stage(depth: int) -> None:
    """Against the last block's own arithmetic, written out."""
    stage = backbone_of(resnet(depth, type="ResNet")).layer1
    for norm in stage.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # mmseg starts the last one of a block at 0
    append_after_sum(stage, Style())
    *earlier, last, _, _ = stage.children()
    torch.manual_seed(1)
    x = torch.randn(2, stage[0].conv1.in_channels, 12, 10)
    middle = nn.Sequential(*earlier)(x)
    y = middle
    names = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")][: 2 if depth == 18 else 3]
    for place, (conv, norm) in enumerate(names):
        y = getattr(last, norm)(getattr(last, conv)(y))
        y = y.relu() if place < len(names) - 1 else y
    torch.testing.assert_close(stage(x), (1 - 2 * (y + middle)).relu())
    assert (y + middle).min() < 0, "the block's own ReLU would not have been seen"


def test_the_end_of_a_stage_is_its_sum_or_else_its_last_norm() -> None:
    for config, expected in (
        (resnet(type="ResNet"), ["bn1", "layer1.norm"]),
        (unet(), ["encoder.0.0.convs.1.bn", "encoder.1.1.convs.1.bn"]),
    ):
        backbone, channels = backbone_of(config), []
        put_at_stage_ends(backbone, 2, lambda count, seen=channels: seen.append(count) or Style())
        assert [path for path, module in backbone.named_modules() if isinstance(module, Style)] == expected
        assert len(channels) == 2


@given(st.integers(1, 96), st.integers(1, 40))
def test_groups_divide_the_channels_and_are_as_large_as_wanted(channels: int, wanted: int) -> None:
    size = group_size(channels, wanted)
    assert channels % size == 0
    assert size <= wanted
    assert all(channels % larger for larger in range(size + 1, min(wanted, channels) + 1))


# Statistics


def test_covariances_against_numpy() -> None:
    features = torch.randn(3, 5, 6, 7)
    expected = [f.reshape(5, -1) @ f.reshape(5, -1).T / 41 + 1e-5 * np.eye(5) for f in features.double().numpy()]
    np.testing.assert_allclose(covariances(features).numpy(), np.stack(expected), rtol=1e-4, atol=1e-5)


def test_covariances_are_float32_under_autocast() -> None:
    features = torch.randn(2, 4, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours = covariances(features)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, covariances(features.float()))


def test_newton_against_its_recursion() -> None:
    points = np.random.default_rng(0).normal(size=(4, 99))
    matrix = np.cov(np.array([[1.0], [2.0], [0.5], [3.0]]) * points + points[::-1])
    normed, root = matrix / np.trace(matrix), np.eye(4)
    for _ in range(5):
        root = (3 * root - np.linalg.matrix_power(root, 3) @ normed) / 2
    ours = newton_whitening(torch.from_numpy(matrix), 5)
    np.testing.assert_allclose(ours, root / np.sqrt(np.trace(matrix)), rtol=1e-12)


@given(st.integers(1, 6), st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_newton_tends_to_the_inverse_root(size: int, seed: int, scale: float) -> None:
    mix = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrices = scale * (mix @ mix.mT + 0.1 * torch.eye(size, dtype=torch.float64))
    root = newton_whitening(matrices, 40)
    identity = torch.eye(size, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(root @ matrices @ root, identity, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(root, root.mT)
