"""The trunks of the paper's benchmarks: their sizes against published ones, checkpointing, and memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from flexseg.models import build_segmentor
from flexseg.models.memory import _loss, estimate

ROOT = Path(__file__).parents[2]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trunk_of(benchmark: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "benchmarks" / f"{benchmark}.yaml").read_text())["model"]


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
    """HRDA shares encoder and decoder between its scales; what it adds is the attention head, 0.6 % of the whole.

    HRDA's own attention head, whose embeddings have biases instead of norms, would have 530 707 parameters.
    """
    model = build_segmentor(trunk_of("gta5_hrda"), pretrained=False)
    assert count(model) == 85_155_283 + 531_731
    assert count(model.scale_attention) == 531_731


@pytest.mark.parametrize(
    ("benchmark", "torchvision", "stride"), [("gta5_resnet50", 25_557_032, 16), ("gta5_resnet101", 44_549_160, None)]
)
def test_sizes_of_the_resnets(benchmark: str, torchvision: int, stride: int | None) -> None:
    """As torchvision's ResNets (``num_params`` of their weights), but for the classifier and the stem.

    Version 1c has three 3×3 convolutions of 32, 32 and 64 channels where the first has one of 7×7.
    """
    model = build_segmentor(trunk_of(benchmark), pretrained=False).eval()
    classifier = 2048 * 1000 + 1000
    stem = 9 * (3 * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64) - (49 * 3 * 64 + 2 * 64)
    assert count(model.backbone) == torchvision - classifier + stem
    (auxiliary,) = model.auxiliary_heads()
    assert auxiliary.loss_decode.loss_weight == 0.4
    with torch.inference_mode():
        *_, deepest = model.stages(torch.zeros(1, 3, 64, 128))
    if stride is not None:
        assert deepest.shape[2:] == (64 // stride, 128 // stride), "RobustNet's output stride"


# Activation checkpointing

TINY: dict[str, dict[str, Any]] = {
    "mit": {
        "backbone": {
            "type": "MixVisionTransformer",
            "embed_dims": 8,
            "num_layers": [1, 2, 2, 1],
            "num_heads": [1, 2, 5, 8],
            "drop_path_rate": 0.3,
        },
        "decode_head": {"type": "DAFormerHead", "in_channels": [8, 16, 40, 64], "channels": 8, "embed_dims": 8},
    },
    "resnet": {
        "backbone": {"type": "ResNetV1c", "depth": 50, "stem_channels": 8, "base_channels": 4},
        "decode_head": {"type": "FCNHead", "in_channels": 128, "in_index": 3, "channels": 8, "num_convs": 1},
    },
}
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
        _loss(model, images, torch.randint(19, (2, 64, 96))).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    plain, checked = gradients
    for key, gradient in plain.items():
        assert gradient is not None
        torch.testing.assert_close(checked[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, k=key: f"{k}: {text}")


# Memory


def saved_bytes(config: dict[str, Any], crop: tuple[int, int], batch: int) -> int:
    """What autograd saves in a real forward pass in float32, without the weights and the images; by torch's hooks."""
    model = build_segmentor(config)
    images, labels = torch.randn(batch, 3, *crop), torch.zeros(batch, *crop, dtype=torch.int64)
    given = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), images, labels)}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            saved[storage.data_ptr()] = storage  # kept, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss(model, images, labels)
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
def test_the_estimate_is_what_autograd_saves(kind: str) -> None:
    crop, batch = (64, 96), 2
    sizes = {}
    for checkpointing in (False, True):
        config = tiny(kind, checkpointing)
        found = estimate(config, crop, batch, bf16=False)
        torch.manual_seed(0)
        assert abs(found.activations - saved_bytes(config, crop, batch)) < 0.03 * found.activations
        sizes[checkpointing] = found
    assert sizes[True].activations < 0.9 * sizes[False].activations
    assert sizes[True].peak < sizes[False].peak
    assert estimate(tiny(kind, False), crop, batch).activations < 0.9 * sizes[False].activations, "bfloat16 is smaller"


def test_what_stands_all_the_time() -> None:
    config = TINY["mit"]
    model = build_segmentor(config)
    tensors = 4 * sum(p.numel() for p in model.parameters()) + sum(
        b.numel() * b.element_size() for b in model.buffers()
    )
    moments, encoder = 8 * count(model), 4 * count(model.backbone)
    alone = estimate(config, (64, 64), 1, average=False, frozen_encoder=False)
    assert alone.parameters == count(model)
    assert alone.standing == tensors + moments
    assert estimate(config, (64, 64), 1).standing == 2 * tensors + moments + encoder
    assert alone.peak > alone.standing + 4 * count(model), "gradients stand beside them at the end"


@pytest.mark.slow
def test_the_papers_trunks_fit_a_card_of_24_gigabytes() -> None:
    """Two crops in bfloat16, with everything that stands beside them, leave half of the card to what is not counted."""
    for benchmark, crop in (("gta5_daformer", (512, 512)), ("gta5_hrda", (1024, 1024))):
        assert estimate(trunk_of(benchmark), crop, 2).peak < 12 * 2**30
