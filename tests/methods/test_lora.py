"""LoRA: nothing at the start, the merged weight after training, and the projections that it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import FOUNDATION, build_model, frozen_vit, make_method
from torch import nn

from flexseg.components.low_rank import LowRank
from flexseg.errors import RunError
from flexseg.models import Segmentor, build_segmentor

FAMILIES = pytest.mark.parametrize("family", ["dinov2", "vit"])


def build(family: str = "dinov2", **options: Any) -> Segmentor:
    return build_model(make_method("lora", options), frozen_vit(family, blocks=2))


def plain(family: str = "dinov2") -> Segmentor:
    torch.manual_seed(0)
    return build_segmentor(frozen_vit(family, blocks=2))


def train(model: Segmentor, steps: int = 3) -> None:
    """A few steps on noise, large enough to move what is trained."""
    draw = torch.Generator().manual_seed(3)
    images, labels = torch.randn(2, 3, 28, 56, generator=draw), torch.randint(0, 19, (2, 7, 14), generator=draw)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(images).logits, labels).backward()
        optimizer.step()


def test_a_layer_by_hand() -> None:
    base = nn.Linear(2, 2)
    layer = LowRank(base, torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0], [-1.0]]), 3.0)
    x = torch.tensor([[1.0, 1.0]])
    assert layer.addition().tolist() == [[30.0, 60.0], [-3.0, -6.0]]
    torch.testing.assert_close(layer(x), base(x) + torch.tensor([[90.0, -9.0]]))


@FOUNDATION
@FAMILIES
def test_it_starts_as_the_frozen_trunk_itself(family: str) -> None:
    images = torch.randn(2, 3, 30, 45)
    with torch.inference_mode():
        assert torch.equal(build(family).eval()(images).logits, plain(family).eval()(images).logits)


@FOUNDATION
@FAMILIES
def test_after_training_it_equals_the_merged_weights(family: str) -> None:
    model, merged = build(family, alpha=16.0), plain(family)
    train(model)
    merged.decode_head.load_state_dict(model.decode_head.state_dict())
    for ours, theirs in zip(model.backbone.blocks, merged.backbone.blocks, strict=True):
        for name in ("q_proj", "v_proj"):
            layer = getattr(ours.attention, name)
            assert layer.scale == 2.0
            assert float(layer.addition().detach().abs().max()) > 0.01
            getattr(theirs.attention, name).weight.data += layer.addition().detach()
    images = torch.randn(2, 3, 30, 45)
    with torch.inference_mode():
        logits = model.eval()(images).logits
        torch.testing.assert_close(merged.eval()(images).logits, logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain(family).eval()(images).logits, logits, atol=1e-2)


@FOUNDATION
@FAMILIES
def test_only_the_additions_and_the_head_move(family: str) -> None:
    model = build(family)
    before = {key: value.clone() for key, value in model.named_parameters()}
    train(model)
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    adapters = {key for key in before if key.endswith((".down", ".up"))}
    assert len(adapters) == 2 * 2 * 2
    assert {key for key in moved if key.startswith("backbone.")} == adapters
    assert {key for key in moved if key.startswith("decode_head.")} == {
        key for key in before if key.startswith("decode_head.")
    }


@FOUNDATION
def test_projections_and_rank_are_those_asked_for() -> None:
    model = build(projections=["k", "o"], rank=3)
    block: Any = model.backbone.blocks[1]
    assert isinstance(block.attention.k_proj, LowRank)
    assert isinstance(block.attention.o_proj, LowRank)
    assert isinstance(block.attention.q_proj, nn.Linear)
    assert block.attention.k_proj.down.shape == (3, 32)


@FOUNDATION
def test_a_rank_that_is_not_low_is_refused() -> None:
    with pytest.raises(RunError, match=r"rank 33 is no low rank of a 32×32 projection"):
        build(rank=33)
