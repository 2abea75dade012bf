"""The trunks of the paper's benchmarks: their sizes against published ones, and activation checkpointing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mit, resnet
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from flexseg.benchmark.reading import read_content
from flexseg.models import build_segmentor

ROOT = Path(__file__).parents[2]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trunk_of(benchmark: str) -> dict[str, Any]:
    return read_content(benchmark, ROOT / "benchmarks")["model"]


# Sizes. The counts are exact, so that a change of a trunk is seen; the published ones stand beside them.

MIT = {  # width, blocks, parameters, millions in SegFormer's table 1 (a) (Xie et al., NeurIPS 2021), the encoder alone
    "B0": (32, [2, 2, 2, 2], 3_319_392, 3.4),
    "B1": (64, [2, 2, 2, 2], 13_151_424, 13.1),
    "B2": (64, [3, 4, 6, 3], 24_196_288, 24.2),
    "B3": (64, [3, 4, 18, 3], 44_072_128, 44.0),
    "B4": (64, [3, 8, 27, 3], 60_842_688, 60.8),
    "B5": (64, [3, 6, 40, 3], 81_443_008, 81.4),
}


@pytest.mark.parametrize("size", MIT)
def test_sizes_of_mit(size: str) -> None:
    from mmseg.models.backbones import MixVisionTransformer

    width, blocks, parameters, published = MIT[size]
    made = MixVisionTransformer(embed_dims=width, num_layers=blocks, num_heads=[1, 2, 5, 8])
    assert count(made) == parameters
    assert abs(parameters / 1e6 - published) < 0.1


def test_size_of_daformer() -> None:
    """DAFormer's table 7: 3.7 M in the decoder."""
    model = build_segmentor(trunk_of("gta5_daformer"), pretrained=False)
    assert count(model.backbone) == MIT["B5"][2]
    assert count(model.decode_head) == 3_712_275
    assert count(model) == 85_155_283


def test_size_of_hrda() -> None:
    """HRDA shares encoder and decoder between its scales; what it adds is the attention head, 0.6 % of the whole."""
    model = build_segmentor(trunk_of("gta5_hrda"), pretrained=False)
    assert count(model) == 85_155_283 + 530_707
    assert count(model.scale_attention) == 530_707


@pytest.mark.parametrize(
    ("benchmark", "torchvision", "stride"), [("gta5_resnet50", 25_557_032, 16), ("gta5_resnet101", 44_549_160, 8)]
)
def test_sizes_of_the_resnets(benchmark: str, torchvision: int, stride: int) -> None:
    """As torchvision's ResNets (``num_params`` of their weights), but for the classifier and, with 101, the stem.

    Version 1c has three 3×3 convolutions of 32, 32 and 64 channels where the first has one of 7×7.
    """
    model = build_segmentor(trunk_of(benchmark), pretrained=False).eval()
    classifier = 2048 * 1000 + 1000
    stem = 9 * (3 * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64) - (49 * 3 * 64 + 2 * 64)
    assert count(model.backbone) == torchvision - classifier + (stem if benchmark == "gta5_resnet101" else 0)
    (auxiliary,) = model.auxiliary_heads()
    assert auxiliary.loss_decode.loss_weight == 0.4
    with torch.inference_mode():
        *_, deepest = model.stages(torch.zeros(1, 3, 64, 128))
    assert deepest.shape[2:] == (64 // stride, 128 // stride), "RobustNet's output stride"


# Activation checkpointing

TINY = {"mit": mit(num_layers=[1, 2, 2, 1], drop_path_rate=0.3), "resnet": resnet(50, base_channels=4)}
TINY["resnet"]["decode_head"] = TINY["resnet"]["decode_head"] | {"in_channels": 128}
TINY["hrda"] = TINY["mit"] | {"hrda": {"detail": [32, 64], "stride": [32, 32]}}


def tiny(kind: str, checkpointing: bool) -> dict[str, Any]:
    config = copy.deepcopy(TINY[kind])
    config["backbone"]["with_cp"] = checkpointing
    return config


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
def test_checkpointing_changes_no_gradient(kind: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_segmentor(tiny(kind, checkpointing))
        images = torch.randn(2, 3, 64, 96)
        labels, output = torch.randint(19, (2, 64, 96)), model(images)
        maps = [output.logits, *(part.logits for part in output.auxiliary)]
        sum(cross_entropy(interpolate(x, (64, 96), mode="bilinear"), labels) for x in maps).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    plain, checked = gradients
    for key, gradient in plain.items():
        assert gradient is not None
        torch.testing.assert_close(checked[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, k=key: f"{k}: {text}")
