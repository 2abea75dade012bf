"""Tokens of a block: what they make of vectors, against loops over the formula; where patches lie."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import assert_finite_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexseg.components.tokens import GridAdapter, TokenBranch


def branch(
    channels: int = 4, tokens: int = 5, rank: int | None = 2, normalised: Any = "nothing", idle: bool = False
) -> TokenBranch:
    """Of two blocks, with tokens of the vectors' size, so that the softmax is not flat."""
    torch.manual_seed(1)
    module = TokenBranch(2, channels, tokens, rank, 14, normalised, idle)
    (module.tokens if module.up is None else module.up).data *= 20 if rank is None else 300
    return module


def matrix(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [[sum(x * row[c] for x, row in zip(line, b, strict=True)) for c in range(len(b[0]))] for line in a]


def to_unit(row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / len(row)
    return [(value - mean) / math.sqrt(variance + 1e-5) for value in row]


def slow(module: TokenBranch, x: list[list[float]], block: int) -> list[list[float]]:
    """β of one image's vectors x (n, C), element by element."""

    def linear(layer: Any, vector: list[float]) -> list[float]:
        bias = [0.0] * len(layer.weight) if layer.bias is None else layer.bias.tolist()
        return [
            sum(w * v for w, v in zip(r, vector, strict=True)) + o
            for r, o in zip(layer.weight.tolist(), bias, strict=True)
        ]

    tokens = module.tokens[block].tolist()
    if module.up is not None:
        tokens = matrix(tokens, module.up[block].tolist())
    values = [linear(module.of_tokens, token) for token in tokens]
    result = []
    for vector in x:
        scores = [sum(v * t for v, t in zip(vector, token, strict=True)) for token in tokens]
        if module.normalised == "scores":
            scores = to_unit(scores)
        powers = [math.exp(score / math.sqrt(len(vector))) for score in scores]
        shares = [power / sum(powers) for power in powers]
        if module.normalised == "shares":
            shares = to_unit(shares)
        mixed = list(vector)
        for number, (share, value) in enumerate(zip(shares, values, strict=True)):
            if number > 0 or not module.idle:
                mixed = [m + share * v for m, v in zip(mixed, value, strict=True)]
        result.append(linear(module.of_features, mixed))
    return result


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 6),
    tokens=st.integers(2, 6),
    rank=st.none() | st.integers(1, 3),
    normalised=st.sampled_from(["nothing", "scores", "shares"]),
    idle=st.booleans(),
    block=st.integers(0, 1),
)
def test_what_tokens_make_of_vectors_is_the_formula(
    seed: int, channels: int, tokens: int, rank: int | None, normalised: str, idle: bool, block: int
) -> None:
    module = branch(channels, tokens, rank, normalised, idle)
    x = torch.randn(2, 3, channels, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        found = module(x, block)
    for image in range(2):
        np.testing.assert_allclose(found[image].numpy(), slow(module, x[image].tolist(), block), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("normalised", ["nothing", "scores", "shares"])
def test_every_parameter_of_the_block_learns(normalised: str) -> None:
    """Also behind normalised shares: a bias of the tokens' layer, which their sum of 0 would silence, is not there."""
    module = branch(normalised=normalised)
    module(torch.randn(2, 6, 4), 1).square().sum().backward()
    assert_finite_gradients(module)
    assert all(parameter.grad.abs().max() > 1e-5 for parameter in module.parameters())
    assert (module.of_tokens.bias is None) == (normalised == "shares")


def test_normalised_scores_do_not_know_the_scale_of_a_vector() -> None:
    """What an amplitude needs: its shares are those of an image twice as bright."""
    module = branch(normalised="scores")
    module.of_features.weight.data.copy_(torch.eye(4))
    x = torch.randn(1, 6, 4)
    with torch.no_grad():
        torch.testing.assert_close(module(2 * x, 0) - 2 * x, module(x, 0) - x, rtol=1e-3, atol=1e-4)


def test_initial_tokens_lie_within_the_bounds() -> None:
    """√(6 / (12 + 4)) for p = 2, C = 8, r = 2, and √(6 / (12 + 8)) for a whole T."""
    low, whole = TokenBranch(3, 8, 500, 2, 2), TokenBranch(3, 8, 500, None, 2)
    assert low.tokens.shape == (3, 500, 2)
    assert low.up is not None
    assert low.up.shape == (3, 2, 8)
    assert whole.up is None
    for values, bound in ((low.tokens, 0.6124), (whole.tokens, 0.5478)):
        assert 0.98 * bound < float(values.detach().abs().max()) <= bound


@pytest.mark.parametrize("normalised", ["nothing", "scores", "shares"])
def test_huge_vectors_stay_finite_in_half_precision(normalised: str) -> None:
    module, x = branch(normalised=normalised), (1e4 * torch.randn(1, 5, 4)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x, 1)
    found.float().sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(x.grad).all()
    assert_finite_gradients(module)


def test_patches_are_put_on_the_grid_of_the_images_that_entered() -> None:
    class Trunk(torch.nn.Module):
        def grid(self, height: int, width: int) -> tuple[int, int]:
            return height // 2, width // 2

        def forward(self, images: Tensor) -> Tensor:
            return self.adapter(images[:, :, ::2, ::2].flatten(2).mT, 3)

    class Noting(GridAdapter):
        def adapt(self, features: Tensor, block: int) -> Tensor:
            seen.append(SimpleNamespace(maps=features, block=block))
            return features

    seen: list[Any] = []
    trunk = Trunk()
    Noting().attach(trunk)
    for shape in ((4, 6), (2, 8)):
        images = torch.randn(2, 3, *shape)
        assert torch.equal(trunk(images), images[:, :, ::2, ::2].flatten(2).mT)
        assert torch.equal(seen[-1].maps, images[:, :, ::2, ::2].permute(0, 2, 3, 1))
        assert seen[-1].block == 3
    with pytest.raises(TypeError, match="adapt"):
        GridAdapter()
