"""The thing-class feature distance against slow references, and the frozen encoder it measures from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from builders import equal_tensors, mit, resnet, unet
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flexseg.components.fd import FrozenEncoder, class_cells, feature_distance, watch_encoder
from flexseg.models import build_segmentor

UNET, RESNET, MIT = unet(), resnet(type="ResNet"), mit()
TRUNKS = pytest.mark.parametrize("config", [UNET, RESNET, MIT], ids=["unet", "resnet", "mit"])


def slow_cells(labels: Tensor, cell: int, classes: list[int], share: float) -> list[list[list[bool]]]:
    """Pixel by pixel: does the commonest class of the cell make up the share, and is it one of these?"""
    result = []
    for image in labels.tolist():
        rows = []
        for top in range(0, len(image), cell):
            row = []
            for left in range(0, len(image[0]), cell):
                pixels = [image[y][x] for y in range(top, top + cell) for x in range(left, left + cell)]
                commonest = max(set(pixels), key=pixels.count)
                row.append(pixels.count(commonest) >= share * len(pixels) and commonest in classes)
            rows.append(row)
        result.append(rows)
    return result


def one_pass(backbone: nn.Module, images: Tensor, stage: int = -1) -> Tensor:
    with watch_encoder(backbone, stage) as (inputs, seen):
        backbone(images)
    assert len(seen) == 1
    backbone(images)
    assert len(seen) == 1, "nothing is watched any more"
    assert torch.equal(inputs[0], images)
    return seen[0]


@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]), st.sampled_from([0.55, 0.75, 1.0]))
def test_cells_are_those_of_the_slow_reference(seed: int, cell: int, share: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    patches = torch.tensor([0, 11, 13, 255])[torch.randint(4, (2, 4, 6), generator=rng)]
    labels = patches.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    noise = torch.rand(labels.shape, generator=rng) < 0.15
    labels[noise] = 11
    found = class_cells(labels, (8 // cell, 12 // cell), [11, 13], share)
    assert found.tolist() == slow_cells(labels, cell, [11, 13], share)


@pytest.mark.parametrize("share", [0.5, 1.1])
def test_a_share_that_two_classes_could_have_or_none(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        class_cells(torch.zeros(1, 4, 4, dtype=torch.int64), (1, 1), [0], share)


def test_the_distance_is_the_mean_norm_over_the_cells() -> None:
    rng = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 5, 3, 4, generator=rng) for _ in range(2))
    mask = torch.rand(2, 3, 4, generator=rng) < 0.4
    norms = [
        sum((float(ours[b, d, i, j]) - float(theirs[b, d, i, j])) ** 2 for d in range(5)) ** 0.5
        for b, i, j in mask.nonzero().tolist()
    ]
    assert float(feature_distance(ours, theirs, mask)) == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    ours.requires_grad_()
    feature_distance(ours, theirs, mask).backward()
    assert torch.equal(ours.grad.norm(dim=1) > 0, mask)
    torch.testing.assert_close(ours.grad.norm(dim=1)[mask], torch.full((len(norms),), 1 / len(norms)))


@pytest.mark.parametrize("active", [False, True])
def test_no_cell_or_no_distance_gives_zero_with_a_gradient(active: bool) -> None:
    features = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = feature_distance(features, features.detach(), torch.full((1, 2, 2), active))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (features.grad == 0).all()


@TRUNKS
def test_the_frozen_encoder_says_what_the_encoder_said_and_never_changes(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    backbone = build_segmentor(config).backbone
    frozen = FrozenEncoder(backbone)
    images = torch.randn(2, 3, 64, 96)
    first = one_pass(backbone, images)
    assert first.shape[2:] == (2, 3), "the deepest map has stride 32"
    torch.testing.assert_close(frozen(images), first, rtol=1e-4, atol=1e-5)
    assert not frozen(images).requires_grad
    before = copy.deepcopy(frozen.state_dict())
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    one_pass(backbone, images).square().mean().backward()
    optimizer.step()
    frozen.train()
    assert not any(module.training for module in frozen.modules())
    frozen(images)
    assert equal_tensors(frozen.state_dict(), before)
    assert not torch.allclose(one_pass(backbone, images), first)
    torch.manual_seed(1)
    other = FrozenEncoder(build_segmentor(config).backbone)
    other.load_state_dict(before)
    torch.testing.assert_close(other(images), frozen(images))


@pytest.mark.parametrize(("config", "stage", "stride"), [(UNET, 3, 16), (UNET, 0, 2), (RESNET, 1, 8), (RESNET, -4, 4)])
def test_a_shallower_stage(config: dict[str, Any], stage: int, stride: int) -> None:
    backbone = build_segmentor(config).backbone
    frozen, images = FrozenEncoder(backbone, stage), torch.randn(2, 3, 64, 96)
    ours = one_pass(backbone, images, stage)
    assert ours.shape[2:] == (64 // stride, 96 // stride)
    torch.testing.assert_close(frozen(images), ours, rtol=1e-4, atol=1e-5)


def test_maps_by_name_are_taken_in_their_order() -> None:
    """detectron2's backbones give a mapping."""

    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"fine": x, "coarse": x[..., ::2, ::2]}

    images = torch.randn(1, 3, 4, 4)
    for stage, expected in ((0, images), (-1, images[..., ::2, ::2])):
        assert torch.equal(one_pass(Named(), images, stage), expected)
        assert torch.equal(FrozenEncoder(Named(), stage)(images), expected)


def test_batch_norms_that_have_statistics_keep_them() -> None:
    backbone = build_segmentor(RESNET).backbone
    images = torch.randn(2, 3, 64, 96)
    backbone(images + 1)
    frozen = FrozenEncoder(backbone)
    backbone.eval()
    torch.testing.assert_close(frozen(images), one_pass(backbone, images).detach())
