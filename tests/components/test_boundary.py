"""Boundaries and rings against the morphology of the paper, spelled out class by class and pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from flexseg.components.boundary import downsample_label, granularity, label_boundary

VOID = 255


def window(image: np.ndarray, y: int, x: int, kernel: int) -> np.ndarray:
    r = kernel // 2
    return image[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]


def gradient_of_class(image: np.ndarray, d: int, kernel: int) -> np.ndarray:
    """Dilate(M_d, k) minus Erode(M_d, k); void is neither in M_d nor outside it, and is never on a boundary."""
    mask, valid = image == d, image != VOID
    out = np.zeros(image.shape, dtype=bool)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            inside, present = window(mask, y, x, kernel), window(valid, y, x, kernel)
            dilated = bool(inside.any())
            eroded = bool(inside[present].all())
            out[y, x] = valid[y, x] and dilated and not eroded
    return out


def slow_boundary(label: Tensor, kernel: int) -> Tensor:
    out = []
    for image in label.numpy():
        union = np.zeros(image.shape, dtype=bool)
        for d in np.unique(image[image != VOID]):
            union |= gradient_of_class(image, d, kernel)
        out.append(union)
    return torch.from_numpy(np.stack(out))


def slow_granularity(label: Tensor, kernels: tuple[int, ...]) -> Tensor:
    out = torch.full(label.shape, -1, dtype=torch.int8)
    for g, kernel in reversed(list(enumerate(kernels))):  # the finest is painted last, and wins
        out[slow_boundary(label, kernel)] = g
    return out


label_maps = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9),
    elements=st.sampled_from([0, 1, 2, 18, VOID]),
).map(torch.from_numpy)


@settings(derandomize=True, max_examples=60)
@given(label_maps, st.sampled_from([3, 5, 7, 21]))
def test_boundary_is_the_union_of_the_class_gradients(label: Tensor, kernel: int) -> None:
    assert torch.equal(label_boundary(label, kernel), slow_boundary(label, kernel))


@settings(derandomize=True, max_examples=30)
@given(label_maps, st.sampled_from([(3, 5, 7), (3, 9), (5,), (3, 7, 25)]))
def test_rings_are_exclusive_and_the_finest_wins(label: Tensor, kernels: tuple[int, ...]) -> None:
    rings = granularity(label, kernels)
    assert rings.dtype == torch.int8
    assert torch.equal(rings, slow_granularity(label, kernels))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_blocky_labels_of_any_integer_type(make_labels, dtype: torch.dtype) -> None:
    label = make_labels(0)
    assert len(granularity(label).unique()) == 4  # the test means something: all three rings, and interior
    assert torch.equal(granularity(label.to(dtype)), slow_granularity(label, (3, 5, 7)))


def test_rings_of_a_straight_edge() -> None:
    label = torch.tensor([[[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]])
    assert granularity(label).tolist() == [[[-1, -1, 2, 1, 0, 0, 1, 2, -1, -1]]]


def test_void_makes_no_boundary_and_separates_no_classes() -> None:
    assert granularity(torch.tensor([[[0, 0, VOID, 0, 0]]])).tolist() == [[[-1] * 5]]
    # The two classes see each other across a void pixel once the window reaches over it; void itself is never on.
    assert granularity(torch.tensor([[[0, 0, VOID, 1, 1]]])).tolist() == [[[2, 1, -1, 1, 2]]]


@pytest.mark.parametrize("value", [0, 7, VOID])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 9), (2, 9, 1), (1, 6, 8)])
def test_one_class_all_void_and_tiny_images_have_none(value: int, shape: tuple[int, int, int]) -> None:
    label = torch.full(shape, value)
    assert not label_boundary(label, 7).any()
    assert (granularity(label) == -1).all()


def test_the_label_is_left_as_it_was(make_labels) -> None:
    label = make_labels(2).to(torch.int16)
    before = label.clone()
    granularity(label)
    assert torch.equal(label, before)


@pytest.mark.parametrize("kernels", [(), (1,), (4,), (3, 4), (5, 3), (3, 3), (-3,)])
def test_wrong_kernels_are_refused(kernels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="odd, at least 3 and rising"):
        granularity(torch.zeros(1, 2, 2, dtype=torch.int64), kernels)


def test_a_label_of_floats_is_refused() -> None:
    with pytest.raises(TypeError, match="integers"):
        label_boundary(torch.zeros(1, 2, 2), 3)


@settings(derandomize=True, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40))
def test_downsampling_is_nearest_as_pytorch_has_it(h: int, w: int, to_h: int, to_w: int) -> None:
    label = (torch.arange(h * w) % 251).to(torch.uint8).view(1, h, w)
    small = downsample_label(label, (to_h, to_w))
    reference = F.interpolate(label[:, None].float(), size=(to_h, to_w), mode="nearest")[:, 0]
    assert small.dtype == label.dtype
    assert torch.equal(small, reference.to(torch.uint8))
