"""Trunks of people's own: mmseg configurations read as data, modules that are trusted, heads without a classifier."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import mmseg
import pytest
import torch
from builders import unet
from torch import nn

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.models import build_segmentor
from flexseg.models.description import ModelError
from flexseg.models.mmseg_config import check_source, expand, read_config
from flexseg.models.segmentor import Segmentor, one_map
from flexseg.sources import config_files

ZOO = Path(mmseg.__file__).parent / ".mim" / "configs"
CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
width = 2 * 4
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor'),
    pretrained=None,
    backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=width, norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, concat_input=False, in_index=3,
                     num_classes=150, norm_cfg=norm_cfg, loss_decode=dict(type='DiceLoss', loss_weight=3.0)),
    auxiliary_head=dict(type='FCNHead', in_channels=32, channels=8, num_convs=1, concat_input=False, in_index=2,
                        num_classes=150, loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
    train_cfg=dict(), test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32)))
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(CONFIG)
    return path


def test_a_configuration_is_a_trunk(config: Path) -> None:
    model = build_segmentor({"config": str(config)})
    assert type(model.backbone).__name__ == "ResNetV1c"
    assert model.num_classes == 19, "the benchmark's classes"
    (auxiliary,) = model.auxiliary_heads()
    assert auxiliary.loss_decode.loss_weight == 0.4  # type: ignore[union-attr]
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert model.eval()(torch.zeros(1, 3, 64, 64)).logits.shape[:2] == (1, 19)


def test_the_stock_configurations_of_mmseg_are_data() -> None:
    """All of its zoo may be read; those of the most used networks describe trunks."""
    paths = sorted(ZOO.glob("*/*.py"))
    assert len(paths) > 500
    for path in paths:
        check_source(path)
    for name in (
        "deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py",
        "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py",
        "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    ):
        trunk = expand({"config": str(ZOO / name), "weights": None})
        assert {"backbone", "decode_head"} <= trunk.keys()
        assert "loss_decode" not in trunk["decode_head"]


def test_weights_that_a_configuration_starts_from_must_be_named(config: Path) -> None:
    config.write_text(CONFIG.replace("pretrained=None", "pretrained='open-mmlab://resnet18_v1c'"))
    with pytest.raises(ModelError, match="starts from the weights 'open-mmlab://resnet18_v1c': name their file"):
        build_segmentor({"config": str(config)})
    build_segmentor({"config": str(config), "weights": None})


HOSTILE = [
    ("import os", "a statement of the kind Import"),
    ("from os import system", "a statement of the kind ImportFrom"),
    ("x = open('/etc/passwd')", "it calls open"),
    ("x = ().__class__", "it looks up the attribute '__class__'"),
    ("x = 'a'.format(1)", "it looks up the attribute 'format'|it calls"),
    ("x = eval", "it uses 'eval', which it does not define"),
    ("dict = list", "it calls dict|it gives 'dict' another meaning"),
    ("x = (lambda: 1)()", "Lambda|it calls"),
    ("def f():\n    pass", "FunctionDef"),
    ("while True:\n    pass", "While"),
    ("x = __import__('os')", "it calls __import__"),
    ("x = [].append.__self__", "__self__"),
    ("x = (", "is no Python"),
]


@pytest.mark.parametrize(("line", "message"), HOSTILE)
def test_a_configuration_may_only_assign(config: Path, line: str, message: str) -> None:
    config.write_text(CONFIG + line + "\n")
    with pytest.raises(ModelError, match=message):
        read_config(config)


def test_what_a_base_does_is_looked_at_too(config: Path) -> None:
    (config.parent / "base.py").write_text("import os\n")
    config.write_text("_base_ = ['base.py']\n" + CONFIG)
    with pytest.raises(ModelError, match=r"base.py, line 1: it has a statement of the kind Import"):
        read_config(config)
    (config.parent / "base.py").write_text("_base_ = 'net.py'\n")
    with pytest.raises(ModelError, match="each other's _base_ over more than"):
        read_config(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", "describes no model"),
        (CONFIG.replace("'EncoderDecoder'", "'CascadeEncoderDecoder'"), "a trunk is an EncoderDecoder"),
        (CONFIG.replace("'ResNetV1c'", "'MyResNet'"), "there is no 'MyResNet' in mmseg's registry"),
        (CONFIG + "custom_imports = dict(imports=['my_package.my_backbone'])\n", "FLEXSEG_TRUST=my_package"),
    ],
)
def test_configurations_that_are_no_trunks(config: Path, content: str, message: str) -> None:
    config.write_text(content)
    with pytest.raises(ModelError, match=message):
        build_segmentor({"config": str(config)})


def test_two_descriptions_of_one_trunk(config: Path) -> None:
    with pytest.raises(ModelError, match="so backbone beside it would be a second one"):
        build_segmentor({"config": str(config), "backbone": unet()["backbone"]})
    with pytest.raises(ModelError, match="cannot be read"):
        build_segmentor({"config": str(config.parent / "none.py")})


def test_a_changed_configuration_or_base_is_another_run(config: Path, smoke: Benchmark) -> None:
    (config.parent / "base.py").write_text("x = 1\n")
    config.write_text("_base_ = ['base.py']\n" + CONFIG)
    assert config_files(config) == [config, config.parent / "base.py"]

    def name() -> str:
        row = Row(method="dginstyle", title="Mine", model={"config": str(config)})
        return Run(smoke.model_copy(update={"rows": {"mine": row}}), "mine", 0).fingerprint

    before = name()
    (config.parent / "base.py").write_text("x = 1  # the same\n")
    assert name() == before
    (config.parent / "base.py").write_text("x = 22\n")
    assert name() != before


PACKAGE = """
from mmseg.registry import MODELS
from mmseg.models.backbones import ResNetV1c


@MODELS.register_module(force=True)
class MyBackbone(ResNetV1c):
    pass
"""


def test_modules_are_imported_only_if_they_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    trunk = {
        "custom_imports": ["my_own_package"],
        "backbone": {"type": "MyBackbone", "depth": 18, "stem_channels": 8, "base_channels": 8},
        "decode_head": {"type": "FCNHead", "in_channels": 64, "channels": 8, "in_index": 3, "num_convs": 1},
    }
    with pytest.raises(ModelError, match="FLEXSEG_TRUST=my_own_package"):
        build_segmentor(trunk)
    assert "my_own_package" not in sys.modules
    monkeypatch.setenv("FLEXSEG_TRUST", "another, my_own_package")
    assert type(build_segmentor(trunk).backbone).__name__ == "MyBackbone"
    with pytest.raises(ModelError, match="custom_imports lists names of modules"):
        build_segmentor(trunk | {"custom_imports": ["../evil"]})


def test_timm_through_mmsegs_own_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for timm: what mmseg's TIMMBackbone asks for is what a benchmark file says."""
    asked: dict[str, Any] = {}

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.stem(x)]

    def create_model(**options: Any) -> nn.Module:
        asked.update(options)
        model = Features()
        model.global_pool = model.fc = model.classifier = None  # type: ignore[assignment]  # TIMMBackbone removes them
        return model

    from mmseg.models.backbones import timm_backbone

    monkeypatch.setattr(timm_backbone, "timm", types.SimpleNamespace(create_model=create_model))
    model = build_segmentor(
        {
            "backbone": {
                "type": "TIMMBackbone",
                "model_name": "convnext_tiny",
                "features_only": True,
                "pretrained": False,
            },
            "decode_head": {"type": "FCNHead", "in_channels": 8, "channels": 8, "in_index": 0, "num_convs": 1},
        }
    )
    assert (asked["model_name"], asked["features_only"], asked["pretrained"]) == ("convnext_tiny", True, False)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 19, 8, 8)


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3, stride=4, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layer(x),)


class MaskHead(nn.Module):
    """A head that classifies masks, as MaskFormer's and Mask2Former's do: scores and masks of the last layers."""

    def __init__(self, classes: int = 5, queries: int = 7) -> None:
        super().__init__()
        self.num_classes = classes
        self.pixels = nn.Conv2d(6, 4, 1)
        self.queries = nn.Parameter(torch.randn(queries, 4))
        self.scores = nn.Linear(4, classes + 1)

    def forward(self, stages: tuple[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        pixels = self.pixels(stages[0])
        masks = torch.einsum("qd,bdhw->bqhw", self.queries, pixels)
        scores = self.scores(self.queries).expand(len(pixels), -1, -1)
        return [torch.zeros_like(scores), scores], [torch.zeros_like(masks), masks]


def test_a_head_that_classifies_masks_is_a_trunk() -> None:
    torch.manual_seed(0)
    model = Segmentor(Stem(), MaskHead(), features="decode_head.pixels")
    images = torch.randn(2, 3, 16, 24)
    output = model(images)
    assert output.features.shape == (2, 4, 4, 6)
    assert (model.feature_channels, model.num_classes) == (4, 5)
    scores, masks = (parts[-1] for parts in model.decode_head(model.stages(images)))
    wanted = torch.zeros(2, 5, 4, 6)
    for query in range(7):  # the definition, a mask and a class at a time
        for each in range(5):
            wanted[:, each] += scores.softmax(-1)[:, query, each, None, None] * masks.sigmoid()[:, query]
    torch.testing.assert_close(output.logits.exp(), wanted)
    output.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_heads_without_a_classifier_must_name_their_features() -> None:
    with pytest.raises(ModelError, match=r"has no conv_seg, .* say `features: decode_head"):
        Segmentor(Stem(), MaskHead())
    with pytest.raises(ModelError, match=r"no module 'decode_head.pixel'.*decode_head.pixels"):
        Segmentor(Stem(), MaskHead(), features="decode_head.pixel")
    with pytest.raises(ModelError, match=r"gives .* instead of one map"):
        Segmentor(Stem(), MaskHead(), features="decode_head.scores")(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ModelError, match="instead of one map of logits"):
        one_map(MaskHead(), [torch.zeros(1, 2), torch.zeros(1, 2)])


def test_a_file_names_the_features_of_a_trunk() -> None:
    plain = build_segmentor(unet())
    named = build_segmentor(unet() | {"features": "decode_head.convs"})
    named.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 32, 32)
    ours, theirs = plain.eval()(images), named.eval()(images)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.features, theirs.features), "what the classifier sees is what the convolutions give"
    with pytest.raises(ModelError, match=r"there is no|has no module"):
        build_segmentor(unet() | {"features": "decode_head.nothing"})
