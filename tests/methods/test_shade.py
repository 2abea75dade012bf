"""SHADE: the loss by hand, where styles come from, keyed draws, and bases that follow the run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    AUXILIARY,
    HEAD,
    assert_finite_gradients,
    make_batch,
    make_method,
    mit,
    module_of,
    resnet,
    set_up,
    unet,
)
from torch import Tensor

from flexseg.components.style import channel_statistics
from flexseg.method import cross_entropy, upsample
from flexseg.models import Segmentor

module = module_of("shade")
TRUNKS = {
    "unet": unet(),
    "resnet": resnet() | {"auxiliary_head": AUXILIARY},
    "mit": mit() | {"decode_head": HEAD | {"in_channels": 64}},
}
FIRST = {"unet": ("encoder.0", 4), "resnet": ("layer1", 8), "mit": ("layers.0.2", 8)}


def ready(trunk: str = "unet", iterations: int = 20, seed: int = 0, **options: Any) -> tuple[Any, Segmentor, Any]:
    method = make_method("shade", options, seed=seed, iterations=iterations)
    model, modules = set_up(method, TRUNKS[trunk])
    with torch.no_grad():
        model.decode_head.conv_seg.weight *= 50  # fresh heads predict about the same everywhere
    return method, model, modules


def watch(model: Segmentor, path: str) -> list[Tensor]:
    """What the module at ``path`` gives, in its own words: before the method changes it."""
    seen: list[Tensor] = []
    model.backbone.get_submodule(path).register_forward_hook(lambda *call: seen.append(call[2].detach()))
    return seen


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_loss_by_hand(trunk: str) -> None:
    """Against the two views passed in one batch, written out as the formula has it."""
    method, model, bases = ready(trunk, bases=2, remembered=8)
    path, channels = FIRST[trunk]
    assert bases.bases.shape == (2, 2 * channels)
    batch = make_batch(3)
    clean = watch(model, path)
    outputs: list[Any] = []
    handle = model.register_forward_hook(lambda *call: outputs.append(call[2]))
    terms = method.forward(model, batch)
    handle.remove()
    logits = outputs[0].logits
    assert len(clean[0]) == 3, "the stage is passed once"
    assert len(logits) == 6

    p, q = upsample(logits, (64, 128)).softmax(dim=1).chunk(2)
    m = (p + q) / 2
    divergence = (p * (p / m).log()).sum(dim=1) + (q * (q / m).log()).sum(dim=1)
    expected = 10 / 2 * divergence.mean()
    torch.testing.assert_close(terms["style_consistency"], expected, rtol=1e-3, atol=1e-6)
    assert float(expected.detach()) > 1e-4
    torch.testing.assert_close(terms["ce"], cross_entropy(logits, batch.labels.repeat(2, 1, 1)))
    assert ("auxiliary" in terms) == (trunk == "resnet")

    # The same features, made by hand from the bases, through the same trunk.
    weights = torch.from_numpy(method._weights(batch, 2))
    mean, std = weights @ bases.bases[:, :channels], weights @ bases.bases[:, channels:]
    x = clean[0] if clean[0].ndim == 4 else clean[0].transpose(1, 2)[..., None]
    own_mean, own_std = (s[..., None, None] for s in channel_statistics(x))
    changed = (x - own_mean) / own_std * std[..., None, None] + mean[..., None, None]
    view = torch.cat([x, changed])
    view = view if clean[0].ndim == 4 else view[..., 0].transpose(1, 2)
    handle = model.backbone.get_submodule(path).register_forward_hook(lambda *_: view)
    torch.testing.assert_close(model(batch.images).logits, logits, rtol=1e-3, atol=1e-4)
    handle.remove()
    assert len(model(batch.images).logits) == 3, "something stayed in the model"


def test_every_parameter_learns_from_the_consistency() -> None:
    method, model, _ = ready()
    method.forward(model, make_batch(3))["style_consistency"].backward()
    assert_finite_gradients(model)
    assert model.backbone.encoder[0][0].convs[0].conv.weight.grad.abs().max() > 0


def test_one_style_for_all_is_consistent() -> None:
    """Where the bases are the image's own style, both views are equal and the loss is 0."""
    method, model, _ = ready(bases=1, remembered=1)
    terms = method.forward(model, make_batch(size=1))
    assert abs(float(terms["style_consistency"].detach())) < 1e-5
    assert float(terms["ce"].detach()) > 1


def test_bases_grow_from_what_was_seen_then_stay_until_they_are_chosen_again() -> None:
    method, model, bases = ready(iterations=50, every=0.1, bases=4, remembered=6)
    known, history = [], []
    for iteration in range(11):
        method.forward(model, make_batch(size=2, iteration=iteration, seed=iteration))
        known.append(int(bases.known))
        history.append(bases.bases.clone())
    assert known[:3] == [2, 4, 4]
    changed = [not torch.equal(a, b) for a, b in pairwise(history)]
    assert changed == [True, False, False, False, True, False, False, False, False, True]
    assert len(bases.recent) == 6


def test_bases_are_far_apart_and_of_images() -> None:
    bases = module.StyleBases(2, 3, 32)
    features = torch.randn(30, 2, 8, 8) * 0.01
    features[10:20] += 5
    features[20:] *= 900
    bases.learn(features, choose=False)
    rows = torch.cat(channel_statistics(features), dim=1)
    found = [int((rows - base).square().sum(dim=1).argmin()) for base in bases.bases]
    assert {index // 10 for index in found} == {0, 1, 2}
    assert all(torch.equal(rows[index], base) for index, base in zip(found, bases.bases, strict=True))


def test_weights_are_keyed_by_seed_iteration_and_slot() -> None:
    method, other = ready()[0], ready(seed=1)[0]
    batch = make_batch(size=4)
    weights = method._weights(batch, 64)
    np.testing.assert_array_equal(method._weights(batch._replace(slots=np.array([2])), 64)[0], weights[2])
    assert not np.array_equal(method._weights(batch._replace(iteration=1), 64), weights)
    assert not np.array_equal(other._weights(batch, 64), weights)
    assert len(np.unique(weights, axis=0)) == 4


def test_weights_are_a_dirichlet_distribution() -> None:
    """Against the moments of Dirichlet(a, …, a): mean 1/k, variance (k − 1)/(k² (k a + 1))."""
    method = ready()[0]
    batch = make_batch(size=1)._replace(slots=np.arange(3000))
    weights = method._weights(batch, 64).astype(np.float64)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert np.square(weights - 1 / 64).mean() == pytest.approx(63 / 64**2 / 2, rel=0.05)
    assert weights.mean(axis=0).std() < 3 * (63 / 64**2 / 2 / 3000) ** 0.5
