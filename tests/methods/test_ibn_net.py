"""IBN-Net: the layers against their formulas, and where they stand in a ResNet and in a UNet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flexseg.method import Setup, parse_options
from flexseg.method_files import load_method
from flexseg.models import Segmentor

METHODS = Path(__file__).parents[2] / "methods"
HEAD = {"type": "FCNHead", "channels": 8, "num_convs": 1, "concat_input": False}
UNET = {"type": "UNet", "base_channels": 4, "strides": [2, 1, 1, 1, 1]}
RESNET = {"type": "ResNet", "stem_channels": 16, "base_channels": 8}
load_method("ibn_net", METHODS)
layers: Any = sys.modules["flexseg_methods.ibn_net"]


def build(backbone: dict[str, Any], **options: Any) -> Segmentor:
    method = layers.IBNNet
    instance = method(parse_options(method, options), Setup(0, 1, np.zeros(0, np.int8)))
    width = {"UNet": 4, 18: 64, 50: 256}[backbone.get("depth", "UNet")]
    torch.manual_seed(0)
    return instance.build_model({"backbone": backbone, "decode_head": HEAD | {"in_channels": width, "in_index": -1}})


def places(model: Segmentor, kind: type) -> list[str]:
    return [path for path, module in model.backbone.named_modules() if type(module) is kind]


def standardised(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt()


def test_instance_norm_against_its_formula() -> None:
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(2, 5, 6, 7)).to(memory_format=torch.channels_last)
    layer = layers.InstanceNorm(5)
    torch.testing.assert_close(layer(x), standardised(x, (2, 3)), rtol=1e-4, atol=1e-5)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    expected = layer.weight.view(-1, 1, 1) * standardised(x, (2, 3)) + layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [6, 7])
def test_half_of_the_channels_is_normalised_by_image(channels: int) -> None:
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(2, channels, 6, 7)
    layer = layers.InstanceBatchNorm(channels)
    assert layer.split == channels // 2
    expected = torch.cat(
        [standardised(x[:, : channels // 2], (2, 3)), standardised(x[:, channels // 2 :], (0, 2, 3))], 1
    )
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    fresh = layers.InstanceBatchNorm(channels).eval()  # its running statistics are 0 and 1
    torch.testing.assert_close(fresh(x)[:, channels // 2 :], x[:, channels // 2 :], rtol=1e-4, atol=1e-4)


def test_variant_a_stands_where_it_was_published() -> None:
    blocks = [f"layer{stage}.{block}" for stage, count in ((1, 3), (2, 4), (3, 6)) for block in range(count)]
    model = build(RESNET | {"depth": 50}, variant="a")
    assert places(model, layers.InstanceBatchNorm) == [f"{block}.bn1" for block in blocks]
    small = build(RESNET | {"depth": 18}, variant="a", stages=1)
    assert places(small, layers.InstanceBatchNorm) == ["layer1.0.bn1", "layer1.1.bn1"]


def test_variant_b_stands_where_it_was_published() -> None:
    model = build(RESNET | {"depth": 50}, variant="b")
    assert places(model, layers.InstanceNorm) == ["bn1", "layer1.norm", "layer2.norm"]
    deep = build({"type": "ResNetV1c", "depth": 18, "stem_channels": 16, "base_channels": 8})
    assert places(deep, layers.InstanceNorm) == ["stem.7", "layer1.norm", "layer2.norm"]


@pytest.mark.parametrize("depth", [18, 50])
def test_variant_b_is_relu_of_the_normalised_sum(depth: int) -> None:
    """Against the block's own arithmetic, written out."""
    model = build(RESNET | {"depth": depth})
    stage = model.backbone.get_submodule("layer1")
    torch.manual_seed(1)
    x = torch.randn(2, stage[0].conv1.in_channels, 12, 10)
    *earlier, last, _, _ = stage.children()
    for norm in stage.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # mmseg starts the last one of a block at 0
    middle: Any = x
    for block in earlier:
        middle = block(middle)
    names = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")][: 2 if depth == 18 else 3]
    y = middle
    for place, (conv, norm) in enumerate(names):
        y = getattr(last, norm)(getattr(last, conv)(y))
        y = y.relu() if place < len(names) - 1 else y
    hooked = stage(x)
    expected = standardised(y + middle, (2, 3)).relu()
    torch.testing.assert_close(hooked, expected, rtol=1e-4, atol=1e-4)
    assert (y + middle).min() < 0, "the block's own ReLU would have been seen"


def test_on_a_unet_the_encoders_first_stages_are_changed() -> None:
    a = places(build(UNET, variant="a"), layers.InstanceBatchNorm)
    assert a == ["encoder.0.0.convs.0.bn", "encoder.1.1.convs.0.bn", "encoder.2.1.convs.0.bn"]
    b = places(build(UNET, variant="b"), layers.InstanceNorm)
    assert b == ["encoder.0.0.convs.1.bn", "encoder.1.1.convs.1.bn", "encoder.2.1.convs.1.bn"]
    single = build(UNET | {"enc_num_convs": [1] * 5}, variant="b", stages=1)
    assert places(single, layers.InstanceNorm) == ["encoder.0.0.convs.0.bn"]


def test_variant_b_removes_a_change_of_each_channels_scale() -> None:
    """Style in the sense of the paper: what a channel's mean and deviation in one image carry."""
    stage = build(UNET | {"enc_num_convs": [1] * 5}, variant="b").backbone.get_submodule("encoder.0")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(stage(images), stage(5 * images), rtol=1e-3, atol=1e-3)
