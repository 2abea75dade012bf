"""Contrast of pixels: losses against loops over pixels, samples against their definition, and both as properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from flexseg.components.contrast import (
    Disentangled,
    class_wise_contrast,
    pixel_nce,
    random_ranks,
    sample_disentangled,
    sample_views,
    semantic_disentangled_contrast,
)

CLASSES = 6
PROPERTY = settings(max_examples=40)
SEEDS = st.integers(0, 2**20)


def points(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def maps(seed: int, images: int = 3, pixels: int = 120) -> tuple[Tensor, Tensor, Tensor]:
    """Labels with void of both signs and classes of very different size, and two predictions that mostly agree."""
    g = torch.Generator().manual_seed(seed)
    share = torch.tensor([0.4, 0.25, 0.15, 0.08, 0.02, 0.0])
    labels = torch.multinomial(share, images * pixels, replacement=True, generator=g).view(images, pixels)
    plain, changed = labels.clone(), labels.clone()
    for predicted, error in ((plain, 0.3), (changed, 0.5)):
        wrong = torch.rand(labels.shape, generator=g) < error
        predicted[wrong] = torch.randint(0, CLASSES, (int(wrong.sum()),), generator=g)
    labels[torch.rand(labels.shape, generator=g) < 0.1] = 255
    labels[torch.rand(labels.shape, generator=g) < 0.05] = -1
    return labels, plain, changed


def slow_nce(anchor: Tensor, positive: Tensor, negatives: list[Tensor], temperature: float) -> float:
    near = math.exp(float(anchor.double() @ positive.double()) / temperature)
    far = sum(math.exp(float(anchor.double() @ each.double()) / temperature) for each in negatives)
    return -math.log(near / (near + far))


# The losses


@PROPERTY
@given(SEEDS, st.integers(1, 6), st.integers(0, 5), st.floats(0.05, 2.0))
def test_pixel_nce_is_its_formula(seed: int, number: int, negatives: int, temperature: float) -> None:
    anchors, positives = points(number, 4, seed=seed), points(number, 4, seed=seed + 1)
    apart = points(number, negatives, 4, seed=seed + 2)
    expected = [slow_nce(a, p, list(n), temperature) for a, p, n in zip(anchors, positives, apart, strict=True)]
    result = pixel_nce(anchors, positives, apart, temperature)
    torch.testing.assert_close(result, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert (result >= -1e-5).all()


def slow_class_wise(queries: Tensor, keys: Tensor, present: Tensor, temperature: float) -> float:
    images, slots, views, _ = queries.shape
    losses = []
    for b in range(images):
        for s in range(slots):
            for v in range(views):
                others = [keys[b, t, w] for t in range(slots) if t != s and present[b, t] for w in range(views)]
                if present[b, s] and others:
                    losses.append(slow_nce(queries[b, s, v], keys[b, s, v], others, temperature))
    return sum(losses) / max(len(losses), 1)


@PROPERTY
@given(SEEDS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_class_wise_contrast_is_a_loop_over_pixels(seed: int, images: int, slots: int, views: int) -> None:
    queries, keys = points(images, slots, views, 5, seed=seed), points(images, slots, views, 5, seed=seed + 1)
    present = torch.rand(images, slots, generator=torch.Generator().manual_seed(seed)) < 0.7
    result = class_wise_contrast(queries, keys, present, 0.2)
    torch.testing.assert_close(result, torch.tensor(slow_class_wise(queries, keys, present, 0.2)), rtol=1e-4, atol=1e-5)


@PROPERTY
@given(SEEDS, st.integers(1, 6))
def test_disentangled_contrast_is_a_loop_over_pixels(seed: int, number: int) -> None:
    anchors, positives, apart = points(number, 4, seed=seed), points(number, 4, seed=seed + 1), points(3, 5, 4)
    group = torch.randint(0, 3, (number,), generator=torch.Generator().manual_seed(seed))
    expected = [slow_nce(anchors[i], positives[i], list(apart[group[i]]), 0.3) for i in range(number)]
    result = semantic_disentangled_contrast(anchors, positives, apart, group, 0.3)
    torch.testing.assert_close(result, torch.tensor(sum(expected) / number), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slots", [0, 1, 3])
def test_without_a_pair_the_losses_are_zero_with_a_graph(slots: int) -> None:
    queries, keys = points(2, slots, 3, 4).requires_grad_(), points(2, slots, 3, 4, seed=1).requires_grad_()
    present = torch.zeros(2, slots, dtype=torch.bool)
    present[:, :1] = True
    loss = class_wise_contrast(queries, keys, present, 0.07)
    anchors, apart = points(0, 4).requires_grad_(), points(0, 5, 4).requires_grad_()
    loss = loss + semantic_disentangled_contrast(anchors, points(0, 4), apart, torch.zeros(0).long(), 0.07)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all((each.grad == 0).all() for each in (queries, keys, anchors, apart))


def test_half_precision_is_computed_in_full() -> None:
    queries, keys, apart = points(2, 3, 8, 16), points(2, 3, 8, 16, seed=1), points(4, 5, 16, seed=2)
    present, group = torch.ones(2, 3, dtype=torch.bool), torch.arange(8) % 4
    full = class_wise_contrast(queries, keys, present, 0.07)
    half = semantic_disentangled_contrast(queries[0, 0], keys[0, 0], apart, group, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(class_wise_contrast(queries, keys, present, 0.07), full)
        assert torch.equal(semantic_disentangled_contrast(queries[0, 0], keys[0, 0], apart, group, 0.07), half)
        rounded = class_wise_contrast(queries.bfloat16(), keys.bfloat16(), present, 0.07)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, full, rtol=0.02, atol=0.02)


def test_far_too_small_a_temperature_stays_finite() -> None:
    queries, keys = points(1, 2, 3, 4).requires_grad_(), points(1, 2, 3, 4, seed=1)
    loss = class_wise_contrast(queries, keys, torch.ones(1, 2, dtype=torch.bool), 1e-4)
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert torch.isfinite(queries.grad).all()


# The samples


@PROPERTY
@given(SEEDS)
def test_ranks_number_each_group(seed: int) -> None:
    groups = torch.randint(-1, 5, (3, 40), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    ranks, sizes = random_ranks(groups, 5)
    for image in range(3):
        for group in range(5):
            mine = ranks[image][groups[image] == group]
            assert sizes[image, group] == len(mine)
            assert mine.sort().values.tolist() == list(range(len(mine)))


def test_ranks_are_uniform() -> None:
    torch.manual_seed(0)
    groups = torch.zeros(6000, 4, dtype=torch.int64)
    groups[:, 3] = 1
    ranks, _ = random_ranks(groups, 2)
    for place in range(3):
        share = torch.bincount(ranks[:, place], minlength=3) / 6000
        assert (share - 1 / 3).abs().max() < 0.03  # five standard deviations


@PROPERTY
@given(SEEDS, st.integers(1, 15), st.integers(2, 6))
def test_views_are_balanced_over_classes_and_half_hard(seed: int, views: int, most: int) -> None:
    labels, plain, _ = maps(seed)
    torch.manual_seed(seed)
    pixels = sample_views(labels, plain, CLASSES, views, most)
    slots = []
    for image, chosen in enumerate(pixels):
        sizes = [int((labels[image] == c).sum()) for c in range(CLASSES)]
        qualify = [c for c in range(CLASSES) if sizes[c] >= views]
        filled = chosen[(chosen >= 0).all(dim=1)]
        assert (chosen[(chosen < 0).any(dim=1)] == -1).all()
        assert filled.unique().numel() == filled.numel()
        found = labels[image][filled]
        assert (found == found[:, :1]).all()
        classes = found[:, 0].tolist()
        assert len(set(classes)) == len(classes) == min(len(qualify), most)
        assert set(classes) <= set(qualify)
        for c, row in zip(classes, filled, strict=True):
            wrong = int(((labels[image] == c) & (plain[image] != c)).sum())
            expected = min(wrong, max(views // 2, views - (sizes[c] - wrong)))
            assert int((plain[image][row] != c).sum()) == expected
        slots.append(len(classes))
    assert pixels.shape == (3, max(slots), views)


def test_of_too_many_classes_each_gets_its_turn() -> None:
    labels = torch.arange(CLASSES).repeat_interleave(4)[None].repeat(2000, 1)
    torch.manual_seed(0)
    pixels = sample_views(labels, labels, CLASSES, 4, 2)
    share = torch.bincount(labels.gather(1, pixels[:, :, 0]).flatten(), minlength=CLASSES) / 2000
    assert (share - 2 / CLASSES).abs().max() < 0.06


@PROPERTY
@given(SEEDS, st.integers(1, 12), st.integers(1, 30))
def test_disentangled_samples_are_their_definition(seed: int, negatives: int, most: int) -> None:
    labels, plain, changed = maps(seed)
    torch.manual_seed(seed)
    sample = sample_disentangled(labels, plain, changed, CLASSES, negatives, most)
    images, flat = torch.arange(3).repeat_interleave(120), labels.flatten()
    candidates = {
        i
        for i in range(360)
        if 0 <= flat[i] < CLASSES
        and plain.flatten()[i] == flat[i] != changed.flatten()[i]
        and int((labels[i // 120] == changed.flatten()[i]).sum()) >= negatives
    }
    anchors = sample.anchors.tolist()
    assert len(set(anchors)) == len(anchors) == min(len(candidates), 3 * most)
    assert set(anchors) <= candidates
    theirs = sample.negatives[sample.group]
    assert theirs.shape == (len(anchors), negatives)
    assert (flat[theirs] == changed.flatten()[sample.anchors][:, None]).all()
    assert (images[theirs] == images[sample.anchors][:, None]).all()
    assert all(row.unique().numel() == negatives for row in theirs)
    assert sorted(set(sample.group.tolist())) == list(range(len(sample.negatives)))


def test_samples_are_drawn_from_the_global_generator_alone() -> None:
    labels, plain, changed = maps(0)

    def draw(seed: int) -> tuple[Tensor, Disentangled]:
        torch.manual_seed(seed)
        views = sample_views(labels, plain, CLASSES, 8, 5)
        return views, sample_disentangled(labels, plain, changed, CLASSES, 3, 10)

    (views, sample), (again, sample_again), (others, sample_other) = draw(1), draw(1), draw(2)
    assert torch.equal(views, again)
    assert all(torch.equal(one, two) for one, two in zip(sample, sample_again, strict=True))
    assert not torch.equal(views, others)
    assert not torch.equal(sample.anchors, sample_other.anchors)


@pytest.mark.parametrize("images", [0, 2])
def test_where_no_pixel_qualifies_the_samples_are_empty(images: int) -> None:
    void, predicted = torch.full((images, 30), 255), torch.zeros(images, 30, dtype=torch.int64)
    rare = torch.arange(30).repeat(images, 1) % CLASSES  # five pixels of each class
    for labels in (void, rare):
        assert sample_views(labels, predicted, CLASSES, 6, 5).shape == (images, 0, 6)
        sample = sample_disentangled(labels, labels.clamp_max(CLASSES - 1), predicted, CLASSES, 6, 5)
        assert [each.shape for each in sample] == [(0,), (0,), (0, 6)]
