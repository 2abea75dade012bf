"""IBN-Net: the layers against their formulas, and where they stand in a ResNet and in a UNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import build_model, equal_tensors, make_method, module_of, unet
from torch import Tensor, nn

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.engine.checkpoint import load_tensors
from flexseg.models import Segmentor

layers = module_of("ibn_net")


def build(config: dict[str, Any], **options: Any) -> Segmentor:
    return build_model(make_method("ibn_net", options), config)


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


def test_variant_b_removes_a_change_of_each_channels_scale() -> None:
    """Style in the sense of the paper: what a channel's mean and deviation in one image carry."""
    stage = build(unet(enc_num_convs=[1] * 5), variant="b").backbone.get_submodule("encoder.0")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(stage(images), stage(5 * images), rtol=1e-3, atol=1e-3)


def test_the_variant_of_a_row_is_the_one_that_is_evaluated(tiny: Benchmark, results: Path, train_in: Any) -> None:
    from flexseg.tasks.jobs import load_trained

    row = Row.model_validate({"method": "ibn_net", "title": "IBN-Net-a", "variant": "a"})
    benchmark = tiny.model_copy(update={"rows": {"row": row}})
    directory = train_in(results, benchmark, "row")
    state = load_trained(Run(benchmark, "row", 0, results)).state_dict()
    assert equal_tensors(state, load_tensors(directory.weights)[0])
    assert any(".instance." in key for key in state)
