"""Semantic-aware normalisation against loops over images, classes and channels, and the clustering of its masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import relu_features
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from flexseg.components.san import SemanticNormalisation, class_normalised, lowest_cluster_ends, watch_normalisation

CLASSES = [0, 10, 2, 1, 8]


def a_module(channels: int = 12, seed: int = 0) -> SemanticNormalisation:
    torch.manual_seed(seed)
    module = SemanticNormalisation(channels, CLASSES, 5)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def slow_normalised(x: Tensor, weights: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for image in range(len(x)):
        for k in range(weights.shape[1]):
            masked = x[image] * weights[image, k]
            for channel, values in enumerate(masked):
                normal = (values - values.mean()) / (values.var(correction=0) + 1e-5).sqrt()
                out[image, channel] += gain[channel] * normal + bias[channel]
    return out.relu()


def test_normalisation_is_that_of_each_class_and_channel() -> None:
    draw = torch.Generator().manual_seed(3)
    x, weights = relu_features().requires_grad_(), torch.rand(2, 4, 8, 10, generator=draw)
    weights[:, 1] *= weights[:, 1] > 0.5
    weights[0, 2] = 0  # a class that an image has not
    weights.requires_grad_()
    gain, bias = torch.randn(2, 12, generator=draw).unbind()
    aim = torch.randn(2, 12, 8, 10, generator=draw)
    fast, slow = class_normalised(x, weights, gain, bias), slow_normalised(x, weights, gain, bias)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    ours = torch.autograd.grad((fast * aim).sum(), (x, weights))
    theirs = torch.autograd.grad((slow * aim).sum(), (x, weights))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_target_normalises_the_pixels_of_each_selected_class() -> None:
    module, x = a_module(), relu_features()
    labels = torch.randint(0, 12, (2, 8, 10), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = 255
    masks = torch.zeros(2, len(CLASSES), 8, 10)
    for image, row, column in np.ndindex(2, 8, 10):
        if int(labels[image, row, column]) in CLASSES:
            masks[image, CLASSES.index(int(labels[image, row, column])), row, column] = 1
    wanted = slow_normalised(x, masks, module.weight, module.bias)
    torch.testing.assert_close(module.target(x, labels), wanted, rtol=1e-4, atol=1e-4)


def test_weights_are_probability_times_attention_times_region() -> None:
    module, x = a_module(), relu_features()
    logits = module.classifier(x)
    weights = module.weights(x, logits)
    kept = 0
    for image in range(2):
        for k, train_id in enumerate(CLASSES):
            p = logits[image].softmax(0)[train_id]
            refined = x[image] * p
            looked_at = torch.stack([refined.mean(0), refined.amax(0), p])[None]
            kernel = module.attention.weight[k : k + 1]
            attention = functional.conv2d(looked_at, kernel, padding=3)[0, 0].sigmoid()
            heat = (refined * attention).mean(0)
            region = heat >= lowest_cluster_ends(heat.flatten()[None], 5)
            torch.testing.assert_close(weights[image, k], p * attention * region, rtol=1e-4, atol=1e-6)
            kept += int(region.sum())
    assert 0 < kept < weights.numel()
    torch.testing.assert_close(module(x), slow_normalised(x, weights, module.weight, module.bias), rtol=1e-3, atol=1e-4)


def test_features_reach_the_classifier_without_gradient() -> None:
    module, x = a_module(), relu_features().requires_grad_()
    with watch_normalisation(module) as seen:
        module(x)
    assert seen[0].before is x
    seen[0].logits.sum().backward()
    assert x.grad is None
    assert module.classifier.weight.grad is not None
    assert len(module._forward_hooks) == len(module.classifier._forward_hooks) == 0


def test_clustering_repeats_itself_and_draws_nothing() -> None:
    values = relu_features().flatten(1)
    before = torch.get_rng_state()
    ends = lowest_cluster_ends(values, 5)
    assert torch.equal(ends, lowest_cluster_ends(values, 5))
    assert torch.equal(ends, lowest_cluster_ends(values[:, torch.randperm(values.shape[1])], 5))
    torch.set_rng_state(before)
    assert torch.equal(ends, torch.cat([lowest_cluster_ends(row[None], 5) for row in values]))
    assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=30)
@given(
    gaps=st.lists(st.floats(1, 1.2), min_size=2, max_size=5),
    sizes=st.lists(st.integers(1, 20), min_size=6, max_size=6),
    scale=st.sampled_from([1e-4, 1.0, 1e3]),
)
def test_clear_clusters_are_found(gaps: list[float], sizes: list[int], scale: float) -> None:
    """Where they lie about evenly: Lloyd's algorithm promises no more."""
    centres = np.cumsum([0.0, *gaps])
    parts = [
        centre + np.linspace(-0.05, 0.05, size) for centre, size in zip(centres, sizes[: len(centres)], strict=True)
    ]
    values = torch.from_numpy(np.concatenate(parts) * scale).float()[None]
    lowest = (values < lowest_cluster_ends(values, len(centres))).sum()
    assert int(lowest) == sizes[0]


def test_a_skewed_map_is_cut_where_the_best_clusters_are() -> None:
    """The distance to the optimum, which an exhaustive search over all cuts finds."""
    values = np.sort(-np.log(np.random.default_rng(0).random(40)))
    best = min(
        (sum(((part - part.mean()) ** 2).sum() for part in np.split(values, [i, j])), i)
        for i in range(1, 39)
        for j in range(i + 1, 40)
    )
    end = float(lowest_cluster_ends(torch.from_numpy(values)[None], 3))
    assert int((values < end).sum()) == best[1]


@pytest.mark.parametrize("value", [0.0, 0.3, -1e5])
def test_a_flat_map_has_no_lowest_cluster(value: float) -> None:
    values = torch.full((2, 7), value)
    assert (values >= lowest_cluster_ends(values, 5)).all()
