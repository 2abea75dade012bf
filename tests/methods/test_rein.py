"""Rein: the change against a loop over its formula, where it acts, and what it trains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from builders import FOUNDATION, assert_finite_gradients, build_model, frozen_vit, make_method, module_of
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.models import Segmentor, build_segmentor

rein = module_of("rein")


def build(**options: Any) -> Segmentor:
    return build_model(make_method("rein", options), frozen_vit())


def refinement(blocks: int = 2, channels: int = 6, tokens: int = 5, rank: int = 3, scale: float = 0.5) -> Any:
    torch.manual_seed(1)
    module = rein.Refinement(blocks, channels, tokens, rank, scale, 14)
    module.up.data *= 300  # tokens of the features' size, so that the softmax is not flat
    return module


def slow_change(module: Any, features: np.ndarray, block: int) -> np.ndarray:
    """ΔF of one image's features (N, C), element by element."""
    a, b = module.tokens[block].tolist(), module.up[block].tolist()
    count, channels = features.shape
    tokens = [[sum(x * row[c] for x, row in zip(line, b, strict=True)) for c in range(channels)] for line in a]

    def linear(layer: Any, vector: list[float]) -> list[float]:
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        return [sum(w * v for w, v in zip(row, vector, strict=True)) + o for row, o in zip(weight, bias, strict=True)]

    changed = np.zeros_like(features)
    for n in range(count):
        scores = [math.exp(sum(features[n, c] * t[c] for c in range(channels)) / math.sqrt(channels)) for t in tokens]
        mixed = [0.0] * channels
        for share, token in list(zip(scores, tokens, strict=True))[1:]:
            for c, value in enumerate(linear(module.of_tokens, token)):
                mixed[c] += share / sum(scores) * value
        changed[n] = linear(module.of_features, [m + f for m, f in zip(mixed, features[n].tolist(), strict=True)])
    return changed * float(module.scale.detach())


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 7),
    tokens=st.integers(2, 6),
    rank=st.integers(1, 4),
    block=st.integers(0, 1),
)
def test_the_change_is_that_of_the_formula(seed: int, channels: int, tokens: int, rank: int, block: int) -> None:
    module = refinement(2, channels, tokens, rank)
    features = torch.randn(2, 4, channels, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        found, refined = module.change(features, block), module(features, block)
    for image in range(2):
        wanted = slow_change(module, features[image].numpy().astype(np.float64), block)
        np.testing.assert_allclose(found[image].numpy(), wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(refined, features + found)


def test_huge_features_stay_finite_in_half_precision() -> None:
    module = refinement()
    features = (1e4 * torch.randn(1, 4, 6)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        changed = module(features, 1)
    changed.float().sum().backward()
    assert torch.isfinite(changed).all()
    assert torch.isfinite(features.grad).all()
    assert_finite_gradients(module)


@FOUNDATION
def test_it_acts_on_every_block_and_on_the_patches_alone() -> None:
    model = build(scale=0.0).eval()
    trunk: Any = model.backbone
    seen: list[tuple[int, tuple[int, ...]]] = []
    trunk.adapter.register_forward_hook(lambda _, inputs, __: seen.append((inputs[1], tuple(inputs[0].shape))))
    images = torch.randn(2, 3, 28, 56)
    with torch.inference_mode():
        logits = model(images).logits
        torch.manual_seed(0)
        plain = build_segmentor(frozen_vit()).eval()(images).logits
        torch.testing.assert_close(logits, plain)
        assert seen == [(block, (2, 32, 32)) for block in range(3)]
        trunk.adapter.scale.fill_(1.0)
        assert not torch.allclose(model(images).logits, plain)


@FOUNDATION
def test_its_size_is_that_of_tokens_and_two_shared_layers() -> None:
    """m = 100 tokens of rank 16 behind 3 blocks of width 32, and two shared linear layers."""
    model = build()
    ours = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert ours == 3 * 16 * (100 + 32) + 2 * 32 * 33 + 1
    assert float(model.backbone.adapter.scale.detach()) == pytest.approx(0.001)
    assert {k for k, p in model.named_parameters() if not p.requires_grad} == {
        k for k, _ in model.named_parameters() if ".transformer." in k
    }


def test_tokens_begin_as_in_the_authors_code() -> None:
    """reins.py, LoRAReins: uniform within √(6 / (3 p² + √(C r))), here √(6 / (588 + 4)) for p = 14, C = 8, r = 2."""
    module = rein.Refinement(3, 8, 500, 2, 0.001, 14)
    for values in (module.tokens, module.up):
        assert float(values.detach().abs().max()) <= 0.10068
    assert float(module.tokens.detach().std()) == pytest.approx(0.10067 / math.sqrt(3), rel=0.05)
