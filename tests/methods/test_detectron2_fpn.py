"""Semantic FPN: the published architecture at the published widths, shrunk by its options, or refused with a recipe."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from builders import build_model, equal_tensors, make_method
from torch import Tensor, nn
from torch.nn import functional

from flexseg.errors import MissingExtra
from flexseg.models import Segmentor
from flexseg.models.detectron2 import RECIPE

HERE = importlib.util.find_spec("detectron2") is not None
WITH = pytest.mark.skipif(not HERE, reason=f"detectron2 is not installed (docs/detectron2.md): {RECIPE}")
pytestmark = pytest.mark.detectron2


def build(**options: Any) -> Segmentor:
    return build_model(make_method("detectron2_fpn", options), {})


def widths(model: nn.Module) -> list[int]:
    """The channels of every map that the head could choose from, and of the map that it classifies."""
    return [stage.shape[1] for stage in model.stages(torch.zeros(2, 3, 64, 128))] + [model.feature_channels]


def reference(model: Segmentor, pyramid: list[Tensor]) -> Tensor:
    """Section 3 of the paper, written out: each map of the pyramid brought to stride 4, summed, classified."""
    state = model.state_dict()
    total = torch.zeros(())
    for level, x in enumerate(pyramid):
        for block in range(max(level, 1)):
            at = f"decode_head.p{level + 2}.{2 * block}"
            x = functional.conv2d(x, state[f"{at}.weight"], padding=1)
            x = functional.relu(functional.group_norm(x, 32, state[f"{at}.norm.weight"], state[f"{at}.norm.bias"]))
            if level:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    return functional.conv2d(total, state["decode_head.predictor.weight"], state["decode_head.predictor.bias"])


@WITH
@pytest.mark.parametrize("options", [{}, {"depth": 50, "width": 8, "pyramid": 32, "branch": 32}])
def test_the_head_is_the_semantic_branch_of_the_paper(options: dict[str, int]) -> None:
    model = build(**options)
    images = torch.randn(2, 3, 64, 128)
    pyramid = list(model.stages(images))[:4]
    assert [x.shape[2:] for x in pyramid] == [(16, 32), (8, 16), (4, 8), (2, 4)]
    torch.testing.assert_close(model._head(model.stages(images)), reference(model, pyramid), rtol=1e-4, atol=1e-4)


@WITH
def test_the_published_widths_give_the_published_sizes() -> None:
    """A ResNet-50 without classifier has 23 508 032 weights; those of pyramid and branch are counted here."""
    model = build(depth=50, width=64, pyramid=256, branch=128)
    backbone = sum(p.numel() for p in model.backbone.bottom_up.parameters())
    assert backbone == 23_508_032
    laterals = sum(256 * c + 256 for c in (256, 512, 1024, 2048)) + 4 * (9 * 256 * 256 + 256)
    assert sum(p.numel() for p in model.backbone.parameters()) - backbone == laterals
    blocks = 4 * (9 * 256 * 128 + 2 * 128) + 3 * (9 * 128 * 128 + 2 * 128)
    assert sum(p.numel() for p in model.decode_head.parameters()) == blocks + 128 * 19 + 19


@WITH
def test_a_narrow_resnet_is_detectron2s_where_that_exists() -> None:
    """At 64 channels detectron2 builds ResNet-18 and ResNet-34 too: same names, same draws, same logits."""
    from flexseg.models import build_segmentor

    for depth in (18, 34):
        described = make_method("detectron2_fpn", {"depth": depth, "width": 64})._describe()
        states = []
        for name in ("build_narrow_resnet_fpn_backbone", "build_resnet_fpn_backbone"):
            torch.manual_seed(1)
            states.append(build_segmentor({"detectron2": {"MODEL": described | {"BACKBONE": {"NAME": name}}}}))
        ours, theirs = (model.state_dict() for model in states)
        assert list(ours) == list(theirs)
        assert equal_tensors(ours, theirs)
        images = torch.randn(1, 3, 64, 128)
        with torch.inference_mode():
            assert torch.equal(*(model.eval().predict(images) for model in states))


@WITH
def test_options_set_the_widths() -> None:
    assert widths(build()) == [64] * 5 + [64]
    assert widths(build(pyramid=16, branch=32)) == [16] * 5 + [32]
    stem = [build(width=w).state_dict()["backbone.bottom_up.stem.conv1.weight"].shape[0] for w in (8, 12)]
    assert stem == [8, 12]


def test_without_detectron2_the_row_is_not_run_and_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "detectron2" else find(name))
    with pytest.raises(MissingExtra) as refusal:
        build()
    assert RECIPE in str(refusal.value)
