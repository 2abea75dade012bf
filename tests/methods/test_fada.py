"""FADA: the wavelets by hand and back, what becomes of low and high frequencies, and what learns."""

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

module = module_of("fada")
L, H = np.array([1, 1]) / math.sqrt(2), np.array([-1, 1]) / math.sqrt(2)
KERNELS = {"LL": np.outer(L, L), "LH": np.outer(L, H), "HL": np.outer(H, L), "HH": np.outer(H, H)}


def build(**options: Any) -> Segmentor:
    return build_model(make_method("fada", options), frozen_vit())


def adapter(channels: int = 3, scale: float = 0.5, normalised: str = "shares") -> Any:
    torch.manual_seed(1)
    made = module.FrequencyAdapter(2, channels, 4, 2, scale, 14, normalised)
    for branch in (made.low, made.high):
        branch.up.data *= 300
    return made


def even(x: np.ndarray) -> np.ndarray:
    """Maps (R, C, channels) with their last row and column repeated where their number is odd."""
    return np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), mode="edge")


def analysed(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Every other value of the product of a 2 × 2 kernel with maps (R, C, channels) of even sides."""
    return np.array(
        [
            [sum(kernel[a, b] * x[m + a, n + b] for a in (0, 1) for b in (0, 1)) for n in range(0, x.shape[1], 2)]
            for m in range(0, x.shape[0], 2)
        ]
    )


def composed(parts: list[np.ndarray]) -> np.ndarray:
    """Σ over kernels and places of a coefficient times its kernel: the inverse of orthonormal wavelets."""
    rows, columns, channels = parts[0].shape
    found = np.zeros((2 * rows, 2 * columns, channels))
    for kernel, part in zip(KERNELS.values(), parts, strict=True):
        for m in range(rows):
            for n in range(columns):
                found[2 * m : 2 * m + 2, 2 * n : 2 * n + 2] += kernel[..., None] * part[m, n]
    return found


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 7), seed=st.integers(0, 1000))
def test_the_wavelets_are_haars_and_invertible(rows: int, columns: int, seed: int) -> None:
    x = torch.randn(2, rows, columns, 3, generator=torch.Generator().manual_seed(seed))
    low, high = module.haar(x)
    found = torch.cat([low, high], dim=1)[1].numpy()
    for part, kernel in zip(found, KERNELS.values(), strict=True):
        np.testing.assert_allclose(part, analysed(even(x[1].numpy()), kernel), atol=1e-5)
    torch.testing.assert_close(module.inverse_haar(low, high, (rows, columns)), x, rtol=1e-5, atol=1e-5)
    if rows % 2 == columns % 2 == 0:  # orthonormal: nothing is lost or added
        assert float(low.square().sum() + high.square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-4)


def test_a_constant_has_low_frequencies_alone_and_a_stripe_lies_across_or_down() -> None:
    low, high = module.haar(torch.ones(1, 4, 4, 1))
    assert torch.allclose(low, torch.tensor(2.0))
    assert not high.any()
    stripes = torch.tensor([-1.0, 1.0]).repeat(4, 2)[None, :, :, None]
    for maps, wanted in ((stripes, 0), (stripes.transpose(1, 2), 1)):
        low, high = module.haar(maps)
        assert not low.any()
        assert high.abs().amax(dim=(0, 2, 3, 4)).gt(0).tolist() == [part == wanted for part in range(3)]


@pytest.mark.parametrize("grid", [(2, 4), (3, 5)])
def test_the_change_is_that_of_the_formula(grid: tuple[int, int]) -> None:
    made = adapter()
    made.grid = grid
    x = torch.randn(2, *grid, 3, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = made.adapt(x, 1)
        for image in range(2):
            parts = [analysed(even(x[image].numpy()), kernel) for kernel in KERNELS.values()]
            shape, count = parts[0].shape, parts[0].shape[0] * parts[0].shape[1]
            vectors = [torch.tensor(part.reshape(-1, 3), dtype=torch.float32) for part in parts]
            # The branches themselves are held to their formula in test_tokens.py.
            changes = [made.low(vectors[0][None], 1)[0], *made.high(torch.cat(vectors[1:])[None], 1)[0].split(count)]
            changed = [part + 0.5 * c.numpy().reshape(shape) for part, c in zip(parts, changes, strict=True)]
            wanted = composed(changed)[: grid[0], : grid[1]]
            np.testing.assert_allclose(found[image].numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_only_the_high_frequencies_are_normalised_and_they_have_three_times_the_tokens() -> None:
    made = adapter()
    assert (made.low.normalised, made.high.normalised) == ("nothing", "shares")
    assert adapter(normalised="scores").high.normalised == "scores"
    assert made.low.tokens.shape == (2, 4, 2)
    assert made.high.tokens.shape == (2, 12, 2)
    assert not made.low.idle
    assert not made.high.idle


def test_huge_features_stay_finite_in_half_precision() -> None:
    made = adapter()
    made.grid = (3, 4)
    x = (1e4 * torch.randn(1, 12, 3)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        changed = made(x, 1)
    changed.float().sum().backward()
    assert torch.isfinite(changed).all()
    assert torch.isfinite(x.grad).all()
    assert_finite_gradients(made)


@FOUNDATION
def test_it_begins_as_the_frozen_trunk_and_acts_behind_every_block() -> None:
    model, images = build(scale=0.0).eval(), torch.randn(2, 3, 28, 49)
    trunk: Any = model.backbone
    seen: list[tuple[int, tuple[int, int]]] = []
    trunk.adapter.register_forward_hook(lambda _, inputs, __: seen.append((inputs[1], trunk.adapter.grid)))
    with torch.inference_mode():
        logits = model(images).logits
        torch.manual_seed(0)
        plain = build_segmentor(frozen_vit()).eval()(images).logits
        torch.testing.assert_close(logits, plain)
        assert seen == [(block, (4, 7)) for block in range(3)]
        trunk.adapter.scale.fill_(1.0)
        assert (model(images).logits - plain).abs().max() > 0.01


@FOUNDATION
def test_its_size_is_that_of_tokens_and_four_shared_layers() -> None:
    """m = 100 and 300 tokens of rank 16 behind 3 blocks of width 32; one of the layers has no bias."""
    assert build(normalised="scores").backbone.adapter.high.normalised == "scores"
    model = build()
    ours = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert ours == 3 * 16 * (100 + 32) + 3 * 16 * (300 + 32) + 4 * 32 * 33 - 32 + 1
    assert float(model.backbone.adapter.scale.detach()) == pytest.approx(0.001)
    assert {k for k, p in model.named_parameters() if not p.requires_grad} == {
        k for k, _ in model.named_parameters() if ".transformer." in k
    }
