"""SoMA: a weight is split into its major and minor components, which are trained where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import FOUNDATION, build_model, frozen_vit, make_method, module_of
from torch import nn

from flexseg.components.low_rank import LowRank
from flexseg.errors import RunError
from flexseg.models import Segmentor, build_segmentor

soma = module_of("soma")


def build(blocks: int = 3, **options: Any) -> Segmentor:
    return build_model(make_method("soma", {"rank": 4} | options), frozen_vit(blocks=blocks))


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_the_addition_has_the_smallest_components(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*shape)
    weight = layer.weight.detach().double().numpy().copy()
    split = soma.split_minor(layer, 2)
    left, values, right = np.linalg.svd(weight)
    minor = sum(values[i] * np.outer(left[:, i], right[i]) for i in (3 if min(shape) == 5 else 4, min(shape) - 1))
    np.testing.assert_allclose(split.addition().detach().numpy(), minor, atol=1e-6)
    np.testing.assert_allclose((layer.weight + split.addition()).detach().numpy(), weight, atol=1e-6)
    # √S on both sides: A Aᵀ and Bᵀ B are the singular values.
    np.testing.assert_allclose((split.down @ split.down.T).detach().numpy(), np.diag(values[-2:]), atol=1e-5)
    np.testing.assert_allclose((split.up.T @ split.up).detach().numpy(), np.diag(values[-2:]), atol=1e-5)
    x = torch.randn(3, shape[0])
    expected = x.double() @ torch.from_numpy(weight).T + layer.bias.double()
    torch.testing.assert_close(split(x), expected.float(), rtol=1e-4, atol=1e-5)


@FOUNDATION
def test_it_starts_as_the_frozen_trunk() -> None:
    torch.manual_seed(0)
    plain, images = build_segmentor(frozen_vit(blocks=3)), torch.randn(2, 3, 30, 45)
    with torch.inference_mode():
        torch.testing.assert_close(build().eval()(images).logits, plain.eval()(images).logits, rtol=1e-4, atol=1e-4)


@FOUNDATION
def test_the_first_third_stays_and_all_linear_layers_behind_it_are_split() -> None:
    blocks: Any = build(blocks=6).backbone.blocks
    for number, block in enumerate(blocks):
        split = [module for module in block.modules() if isinstance(module, LowRank)]
        assert len(split) == (0 if number < 2 else 6), "query, key, value, projection and two of the MLP"
        trained = {name.rpartition(".")[2] for name, value in block.named_parameters() if value.requires_grad}
        assert trained == (set() if number < 2 else {"down", "up", "bias"})
    assert not any(layer.base.weight.requires_grad for layer in blocks[5].modules() if isinstance(layer, LowRank))


@FOUNDATION
def test_a_rank_beyond_the_weights_is_refused() -> None:
    with pytest.raises(RunError, match="a 32×32 weight has no 33 minor components"):
        build(rank=33)
