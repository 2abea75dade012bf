"""Trunks of detectron2: the suite's interface on top, detectron2's own computing underneath, clear words for mistakes.

detectron2 is an optional extra. Where it is missing only the refusal is tested.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from flexseg.errors import MissingExtra, RunError
from flexseg.models import ModelError, Segmentor, build_segmentor
from flexseg.models.build import dry_run
from flexseg.models.detectron2 import COMMIT, RECIPE, SHA256, Detectron2Segmentor, build_detectron2

HERE = importlib.util.find_spec("detectron2") is not None
WITH = pytest.mark.skipif(not HERE, reason=f"detectron2 is not installed (docs/detectron2.md): {RECIPE}")
pytestmark = pytest.mark.detectron2

NO_OPERATOR = r"without its compiled part.*'detectron2\._C'|needs torchvision\.ops\.deform_conv2d"
"""Its plain files lack the operator; where it was compiled, torchvision is what lacks."""
STAGES = ["res2", "res3", "res4", "res5"]
RESNET = {"NORM": "BN", "STEM_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8, "RES2_OUT_CHANNELS": 16, "OUT_FEATURES": STAGES}
PARTS: dict[str, dict[str, Any]] = {
    "fpn": {
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": RESNET,
        "FPN": {"IN_FEATURES": STAGES, "OUT_CHANNELS": 16},
        "SEM_SEG_HEAD": {"CONVS_DIM": 32},
    },
    "resnet": {"RESNETS": RESNET, "SEM_SEG_HEAD": {"CONVS_DIM": 32, "IN_FEATURES": STAGES}},
    "deeplab": {
        "BACKBONE": {"NAME": "build_resnet_deeplab_backbone"},
        "RESNETS": RESNET | {"STEM_TYPE": "basic", "OUT_FEATURES": ["res2", "res5"]},
        "SEM_SEG_HEAD": {
            "NAME": "DeepLabV3PlusHead",
            "IN_FEATURES": ["res2", "res5"],
            "PROJECT_CHANNELS": [16],
            "ASPP_CHANNELS": 16,
            "CONVS_DIM": 16,
            "NORM": "BN",
        },
    },
}
EACH = pytest.mark.parametrize("name", PARTS)


def config(name: str = "fpn", change: Callable[[dict[str, Any]], object] = lambda model: None) -> dict[str, Any]:
    """A trunk's description, with ``change`` applied to what is below MODEL."""
    model = copy.deepcopy(PARTS[name])
    change(model)
    return {"detectron2": {"MODEL": model}}


def build(name: str = "fpn", seed: int = 0) -> Segmentor:
    torch.manual_seed(seed)
    return build_segmentor(config(name))


class Pyramid(torch.nn.Module):
    """What the adapter asks of a detectron2 backbone, so that it is tested without detectron2 too."""

    size_divisibility = 8

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.Conv2d(8, 8, 3, 2, 1)

    def output_shape(self) -> dict[str, Any]:
        return {"p2": SimpleNamespace(stride=4), "p3": SimpleNamespace(stride=8)}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.fine(x)
        return {"p2": fine, "p3": self.coarse(fine)}


class Head(torch.nn.Module):
    """What the adapter asks of a semantic-segmentation head."""

    def __init__(self, *maps: str, classes: int = 19) -> None:
        super().__init__()
        self.in_features, self.predictor = maps, torch.nn.Conv2d(8, classes, 1)

    def layers(self, maps: dict[str, torch.Tensor]) -> torch.Tensor:
        sizes = maps["p2"].shape[2:]
        return self.predictor(sum(torch.nn.functional.interpolate(maps[name], sizes) for name in self.in_features))


def test_the_adapter_is_a_segmentor() -> None:
    model = Detectron2Segmentor(Pyramid(), Head("p2", "p3"))
    dry_run(model)
    assert (model.training, model.size_divisor, model.feature_channels) == (True, 8, 8)
    assert {key.split(".")[0] for key in model.state_dict()} == {"backbone", "decode_head"}
    output = model(torch.randn(2, 3, 32, 64))
    assert torch.equal(model.classifier(output.features), output.logits)
    assert output.logits.shape == (2, 19, 8, 16)
    assert model.eval().predict(torch.randn(1, 3, 33, 65)).shape == (1, 19, 33, 65)
    with pytest.raises(RunError, match=r"multiples of 8 pixels only, not 30×64"):
        model(torch.zeros(1, 3, 30, 64))


def test_the_dry_run_finds_what_does_not_fit() -> None:
    with pytest.raises(ModelError, match=r"2 weights take no part in the prediction, e\.g\. backbone\.coarse"):
        dry_run(Detectron2Segmentor(Pyramid(), Head("p2")))
    with pytest.raises(ModelError, match=r"decode_head Head gives \(1, 7, 16, 32\) instead of \(1, 19, h, w\)"):
        dry_run(Detectron2Segmentor(Pyramid(), Head("p2", "p3", classes=7)))


@WITH
@EACH
def test_trains_like_any_trunk(name: str) -> None:
    model = build(name)
    assert isinstance(model, Detectron2Segmentor)
    assert model.training
    images = torch.randn(2, 3, 64, 128)
    output = model(images)
    assert output.logits.shape == (2, 19, 16, 32)
    assert output.features.shape == (2, model.feature_channels, 16, 32)
    assert output.auxiliary == ()
    assert torch.equal(model.classifier(output.features), output.logits), "features are what the predictor saw"
    output.logits.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    assert model.get_parameter("decode_head.predictor.weight").grad.abs().max() > 0
    widths = [stage.shape[3] for stage in model.stages(images)]
    assert widths == sorted(widths, reverse=True)
    assert {key.split(".")[0] for key in model.state_dict()} == {"backbone", "decode_head"}
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.backbone.modules())


@WITH
@pytest.mark.parametrize("name", ["fpn", "deeplab"])
def test_says_what_detectron2_says(name: str) -> None:
    """The reference is detectron2's own ``SemanticSegmentor`` in eval mode, upsampled by itself, the same weights."""
    from detectron2.modeling.meta_arch.semantic_seg import SemanticSegmentor

    model = build(name)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 128))  # so that the statistics of BatchNorm are not those at the start
    model.eval()
    theirs = SemanticSegmentor(
        backbone=model.backbone, sem_seg_head=model.decode_head, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
    ).eval()
    images = torch.randn(2, 3, 64, 128)
    with torch.inference_mode():
        wanted = torch.stack([item["sem_seg"] for item in theirs([{"image": image} for image in images])])
        torch.testing.assert_close(model.predict(images), wanted, rtol=1e-4, atol=1e-4)


@WITH
def test_the_seed_decides_the_weights() -> None:
    first, same, other = (build(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], same[key]) for key in first)
    drawn = [key for key in first if first[key].ndim == 4]
    assert len(drawn) > 50
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@WITH
@EACH
@pytest.mark.parametrize("size", [(32, 64), (33, 65), (49, 77), (1, 200)])
def test_predicts_at_any_size(name: str, size: tuple[int, int]) -> None:
    model = build(name).eval()
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        logits = model.predict(images)
        assert logits.shape == (2, 19, *size)
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(model.predict(images[1:]), logits[1:], rtol=1e-3, atol=1e-4)


@WITH
def test_a_crop_that_does_not_fit_is_named() -> None:
    model = build()
    assert model.size_divisor == 32
    with pytest.raises(RunError, match=r"multiples of 32 pixels only, not 48×96"):
        model(torch.zeros(1, 3, 48, 96))


@WITH
@EACH
def test_weights_and_copies_carry_everything(name: str) -> None:
    model, fresh = build(name, seed=0), build(name, seed=1)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 128))
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    twin = copy.deepcopy(model)
    images = torch.randn(1, 3, 64, 128)
    with torch.inference_mode():
        wanted = model.eval().predict(images)
        assert torch.equal(fresh.eval().predict(images), wanted)
        model.get_parameter("decode_head.predictor.weight").zero_()
        assert torch.equal(twin.eval().predict(images), wanted), "the copy shares weights with the original"


@WITH
def test_heads_and_backbone_learn_at_their_own_rates(smoke: Any) -> None:
    from flexseg.engine.optimise import build_optimizer

    model = build()
    schedule = smoke.training.model_copy(update={"learning_rate": 1.0, "head_learning_rate_factor": 10.0})
    learner = torch.nn.ModuleDict({"model": model})
    groups = build_optimizer(learner, schedule).param_groups
    rates = {id(parameter): group["base_lr"] for group in groups for parameter in group["params"]}
    assert {rates[id(p)] for p in model.backbone.parameters()} == {1.0}
    assert {rates[id(p)] for p in model.decode_head.parameters()} == {10.0}


@WITH
def test_defaults_that_suit_random_weights() -> None:
    """Unlike detectron2's: nothing is frozen, and BatchNorm learns."""

    def forget(model: dict[str, Any]) -> None:
        model["RESNETS"].pop("NORM")

    model = build_segmentor(config(change=forget))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@WITH
@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda m: m.update(RESNETZ={}), r"MODEL\.RESNETZ is no part of a trunk here: did you mean RESNETS\?"),
        (lambda m: m.update(ROI_HEADS={}), r"MODEL\.ROI_HEADS is no part of a trunk"),
        (lambda m: m.update(FPN=3), r"MODEL\.FPN is a mapping of settings, not a int"),
        (lambda m: m["RESNETS"].update(DEPHT=50), r"there is no 'RESNETS\.DEPHT': did you mean DEPTH\?"),
        (lambda m: m["RESNETS"].update(DEPTH="fifty"), r"RESNETS\.DEPTH"),
        (lambda m: m["RESNETS"].update(DEPTH=51), r"cannot build this trunk: no such value: 51"),
        (lambda m: m["RESNETS"].update(DEPTH=18), r"RES2_OUT_CHANNELS = 64 for R18"),
        (lambda m: m["RESNETS"].update(DEFORM_ON_PER_STAGE=[True] * 4), NO_OPERATOR),
        (lambda m: m["BACKBONE"].update(NAME="resnet_fpn"), r"no 'resnet_fpn': did you mean build_resnet_fpn_backbone"),
        (lambda m: m["SEM_SEG_HEAD"].update(NAME="PointRend"), r"no 'PointRend'; known are .*SemSegFPNHead"),
        (lambda m: m["SEM_SEG_HEAD"].update(CONVS_DIM=48), r"num_channels .*divisible"),
        (lambda m: m["SEM_SEG_HEAD"].update(NUM_CLASSES=54), r"NUM_CLASSES is 19 in this suite, not 54"),
        (lambda m: m["SEM_SEG_HEAD"].update(LOSS_TYPE="hard_pixel_mining"), r"LOSS_TYPE is 'cross_entropy'"),
        (lambda m: m["SEM_SEG_HEAD"].update(IN_FEATURES=["p2", "p3"]), r"take no part in the prediction, e\.g\. backb"),
        (lambda m: m.update(META_ARCHITECTURE="PanopticFPN"), r"META_ARCHITECTURE is 'SemanticSegmentor'"),
        (lambda m: m.update(WEIGHTS="detectron2://R-50.pkl"), r"MODEL\.WEIGHTS: .*would load weights"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], object], wanted: str) -> None:
    with pytest.raises(ModelError, match=wanted):
        build_segmentor(config(change=change))


@WITH
def test_what_the_suite_would_ignore_is_refused() -> None:
    with pytest.raises(ModelError, match="data, solver and tests are the suite's own"):
        build_segmentor({"detectron2": {"MODEL": {}, "SOLVER": {"BASE_LR": 0.1}}})
    with pytest.raises(ModelError, match="below `detectron2` alone: take out backbone"):
        build_segmentor(config() | {"backbone": {"type": "UNet"}})


@WITH
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_no_stand_in_for_torchvision_is_left_behind() -> None:
    build()
    assert not [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    assert importlib.util.find_spec("torchvision") is None
    nms = importlib.import_module("detectron2.layers.nms")
    with pytest.raises(RunError, match=r"needs torchvision\.ops\.boxes\.batched_nms, and torchvision is not installed"):
        nms.batched_nms(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1), 0.5)


def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "detectron2" else find(name))


def test_where_it_is_missing_the_refusal_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    without_detectron2(monkeypatch)
    with pytest.raises(MissingExtra) as refusal:
        build_segmentor(config())
    message = str(refusal.value)
    assert f"`{RECIPE}`" in message
    assert COMMIT in message
    assert "\n" not in message
    with pytest.raises(MissingExtra):
        build_detectron2(config())


def test_where_it_is_broken_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object())
    monkeypatch.setitem(sys.modules, "detectron2.modeling", None)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(MissingExtra, match=r"cannot be imported \(.*detectron2.*\): `make detectron2 DETECTRON2="):
        build_segmentor(config())


def test_the_guide_gives_the_same_command_and_digest(root: Path) -> None:
    text = (root / "docs" / "detectron2.md").read_text()
    assert RECIPE in text
    assert SHA256 in text


@WITH
def test_the_guides_example_is_a_trunk(root: Path) -> None:
    text = (root / "docs" / "detectron2.md").read_text()
    rows = yaml.safe_load(text.split("```yaml")[1].split("```")[0])["rows"]
    assert build_segmentor(rows["flexseg_fpn"]["model"]).feature_channels == 64


def test_nothing_else_imports_it(root: Path) -> None:
    """Nor does importing this adapter and all that trains and evaluates."""
    code = (
        "import sys, flexseg.cli, flexseg.tasks.jobs, flexseg.method, flexseg.engine.train, flexseg.models.detectron2\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('detectron2', 'fvcore', 'torchvision', 'mmseg')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    wanted = re.compile(r"^\s*(import|from) (detectron2|fvcore|iopath|torchvision)\b", re.MULTILINE)
    files = [*(root / "flexseg").rglob("*.py"), *(root / "methods").glob("*.py")]
    assert {path.name for path in files if wanted.search(path.read_text())} == {"detectron2.py"}
