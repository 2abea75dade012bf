"""RobustNet's ISW: clusters against brute force, masks against planted style, the loss by hand, exact resumption."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from builders import equal_tensors, make_method, module_of, resnet, set_up, unet
from torch import Tensor

from flexseg.components.norms import covariances
from flexseg.data.transforms import MEAN, STD
from flexseg.method import Batch
from flexseg.models import Segmentor

layers = module_of("robustnet")
UNET, RESNET = unet(), resnet(50, type="ResNet")


def method_of(iterations: int = 20, **options: Any) -> Any:
    return make_method("robustnet", options, iterations=iterations, pool=4)


def batch_of(iteration: int, seed: int = 0) -> Batch:
    draw = np.random.default_rng([seed, iteration])
    coarse = draw.integers(0, 256, (2, 4, 8, 3)).repeat(8, 1).repeat(8, 2)
    levels = np.clip(coarse + draw.normal(0, 8, coarse.shape), 0, 255)
    images = torch.from_numpy(((levels - MEAN) / STD).astype(np.float32)).permute(0, 3, 1, 2)
    labels = torch.from_numpy(draw.integers(0, 19, (2, 32, 64)))
    return Batch(iteration, np.arange(2), np.arange(2), images, labels)


# Clusters


def brute_force(values: np.ndarray, clusters: int) -> float:
    """The end of the lowest cluster, over all ways to cut the sorted values."""
    ordered, best = np.sort(values), (np.inf, np.nan)
    for cuts in itertools.combinations(range(1, len(values)), clusters - 1):
        parts = np.split(ordered, cuts)
        best = min(best, (sum(float(np.square(part - part.mean()).sum()) for part in parts), parts[0][-1]))
    return best[1]


@pytest.mark.parametrize("clusters", [2, 3, 4])
@pytest.mark.parametrize("seed", range(12))
def test_clusters_are_the_best_of_all(clusters: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.lognormal(0, 2, int(draw.integers(clusters, 16))) * 10.0 ** draw.integers(-8, 4)
    assert layers.lowest_cluster_end(values, clusters) == brute_force(values, clusters)


def test_clusters_of_many_values_are_found_in_time() -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(m, 0.01, n) for m, n in ((0.1, 20000), (0.5, 1000), (0.9, 100))])
    assert 0.1 < layers.lowest_cluster_end(draw.permutation(values), 3) < 0.2


def test_clusters_of_few_or_equal_values() -> None:
    assert layers.lowest_cluster_end(np.array([1.0, 2.0]), 3) == np.inf
    assert layers.lowest_cluster_end(np.array([1.0, 2.0, 3.0]), 3) == 1.0
    assert layers.lowest_cluster_end(np.full(9, 0.25), 3) == 0.25


# Covariances, masks and the loss


def test_the_mask_finds_planted_style() -> None:
    """Pairs whose covariance follows the view are selected, the others spared; the diagonal never counts."""
    torch.manual_seed(0)
    planted = [(0, 3), (2, 5), (4, 6)]
    isw = layers.SelectiveWhitening([8])
    for _ in range(4):
        plain = torch.randn(6, 8, 8) * 0.1
        plain = plain + plain.mT
        changed = plain + 0.01 * torch.randn(6, 8, 8)
        changed[:, range(8), range(8)] += 5
        for number, (i, j) in enumerate(planted):
            changed[:, i, j] += 0.8 + 0.1 * number
            changed[:, j, i] = changed[:, i, j]
        isw.gather([plain], [changed])
    assert int(isw.images) == 24
    isw.select(3)
    assert int(isw.images) == 0
    expected = torch.zeros(8, 8)
    expected[tuple(zip(*planted, strict=True))] = 1
    assert torch.equal(isw.mask_0, expected)
    assert isw.selected() == pytest.approx(3 / 28)


def test_a_pair_counts_if_all_trials_select_it() -> None:
    isw = layers.SelectiveWhitening([4])
    for pairs in ([(0, 1), (2, 3)], [(0, 1), (1, 2)]):
        changed = torch.zeros(2, 4, 4)
        for i, j in pairs:
            changed[:, i, j] = changed[:, j, i] = 1.0
        isw.gather([torch.zeros(2, 4, 4)], [changed])
        isw.select(3)
    assert isw.mask_0.nonzero().tolist() == [[0, 1]]


def test_the_clusters_are_those_of_the_whole_matrix_as_in_the_authors_code() -> None:
    """cov_settings.py: k-means of the flattened matrix, whose lower triangle and diagonal are zeros."""
    variance = torch.tensor([[0.0, 0.1, 0.5], [0, 0, 0.9], [0, 0, 0]])
    isw = layers.SelectiveWhitening([3])
    changed = 2 * variance.sqrt()[None]
    isw.gather([torch.zeros(1, 3, 3)], [changed])
    isw.select(3)
    # {0 × 6, 0.1}, {0.5}, {0.9}: of the upper triangle alone, the lowest cluster would be {0.1} too, but with
    # k = 2 it would be {0.1, 0.5}, and here it is {0 × 6, 0.1}.
    assert isw.mask_0.nonzero().tolist() == [[0, 2], [1, 2]]
    again = layers.SelectiveWhitening([3])
    again.gather([torch.zeros(1, 3, 3)], [changed])
    again.select(2)
    assert again.mask_0.nonzero().tolist() == [[0, 2], [1, 2]]


def test_variance_of_two_views_is_their_population_variance() -> None:
    plain, changed = torch.randn(2, 5, 3, 3)
    isw = layers.SelectiveWhitening([3])
    isw.gather([plain], [changed])
    expected = torch.stack([plain, changed]).var(dim=0, unbiased=False).mean(dim=0)
    torch.testing.assert_close(isw.variance_0 / isw.images, expected)


def test_loss_by_hand() -> None:
    torch.manual_seed(0)
    isw = layers.SelectiveWhitening([3, 2])
    isw.mask_0[0, 2] = isw.mask_0[1, 2] = isw.mask_1[0, 1] = 1
    features = [torch.randn(4, 3, 6, 7), torch.randn(4, 2, 3, 4)]
    first, second = (covariances(f) for f in features)
    of_first = (first[:, 0, 2].abs() + first[:, 1, 2].abs()).mean() / 2
    expected = (of_first + second[:, 0, 1].abs().mean()) / 2
    torch.testing.assert_close(isw(features), expected)


def test_loss_is_zero_where_masked_covariances_are_or_nothing_is_selected() -> None:
    basis = torch.linalg.qr(torch.randn(48, 4))[0].T.reshape(1, 4, 6, 8) * 47**0.5
    isw = layers.SelectiveWhitening([4])
    assert float(isw([torch.randn(2, 4, 6, 8)])) == 0
    isw.mask_0.copy_(torch.ones(4, 4).triu(1))
    assert float(isw([basis])) == pytest.approx(0, abs=1e-5)
    assert float(isw([basis.sum(1, keepdim=True).expand(-1, 4, -1, -1)])) > 1


# The schedule in a model


def step(method: Any, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
    terms = method.losses(batch, model(batch.images))
    method.after_step(batch)
    return terms


@pytest.mark.parametrize("config", [UNET, RESNET], ids=["unet", "resnet"])
def test_statistics_are_gathered_then_the_loss_is_on(config: dict[str, Any]) -> None:
    method = method_of(20, start=0.25, trials=3)
    model, isw = set_up(method, config)
    seen, values = [], []
    for iteration in range(8):
        terms = step(method, model, batch_of(iteration))
        seen.append(int(isw.trials))
        values.append(float(terms["isw"].detach()))
    assert seen == [0, 0, 1, 2, 3, 3, 3, 3]
    assert values[:5] == [0.0] * 5
    assert min(values[5:]) > 0
    assert 0 < method.log()["isw/selected"] < 0.9
    terms["isw"].backward()
    first = next(p for name, p in model.named_parameters() if "conv" in name)
    assert torch.isfinite(first.grad).all()
    assert first.grad.abs().max() > 0


def test_the_loss_sees_the_standardised_features_of_this_batch() -> None:
    """Not their rectified copy, which the ReLU behind the layer writes over them."""
    method = method_of(20, start=0.05, weight=1.0)
    model, isw = set_up(method)
    step(method, model, batch_of(0))
    batch = batch_of(1)
    inputs: list[Tensor] = []
    for layer in method._layers:
        layer.register_forward_pre_hook(lambda _, call: inputs.append(call[0].detach().clone()))
    loss = method.losses(batch, model(batch.images))["isw"]
    expected = [
        (x - x.mean((2, 3), True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt() for x in inputs
    ]
    assert len(expected) == 3
    torch.testing.assert_close(loss, isw(expected), rtol=1e-4, atol=1e-5)


def test_gathering_leaves_the_model_alone() -> None:
    method = method_of(20, start=0.5)
    model, _ = set_up(method)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    method.after_step(batch_of(9))
    assert equal_tensors(model.state_dict(), before)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(module.training for module in model.modules())
