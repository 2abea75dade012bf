"""The trunk: mmseg's own model underneath, logits and features on top, and clear words for every mistake."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from builders import AUXILIARY, HEAD, mit, resnet, unet
from torch import nn

from flexseg.classes import NUM_CLASSES
from flexseg.models import ModelError, Segmentor, build_segmentor

BN = {"type": "BN", "requires_grad": True}
EVERY = {"in_index": [0, 1, 2, 3], "channels": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {
        "backbone": unet(base_channels=8)["backbone"],
        "decode_head": HEAD | {"in_channels": 8},
        "auxiliary_head": AUXILIARY | {"in_channels": 16, "in_index": 3},
    },
    "deeplab": resnet()
    | {
        "decode_head": {
            "type": "DepthwiseSeparableASPPHead",
            "in_channels": 64,
            "in_index": 3,
            "channels": 16,
            "c1_in_channels": 8,
            "c1_channels": 8,
            "dilations": [1, 2, 4],
        },
    },
    "fpn": resnet()
    | {
        "neck": {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 16, "num_outs": 4},
        "decode_head": EVERY | {"type": "FPNHead", "in_channels": [16] * 4, "feature_strides": [4, 8, 16, 32]},
    },
    "fastscnn": {
        "backbone": {
            "type": "FastSCNN",
            "downsample_dw_channels": [8, 12],
            "global_in_channels": 16,
            "global_block_channels": [16, 24, 32],
            "global_out_channels": 32,
            "higher_in_channels": 16,
            "lower_in_channels": 32,
            "fusion_out_channels": 32,
        },
        "decode_head": HEAD | {"type": "DepthwiseSeparableFCNHead", "in_channels": 32, "channels": 32},
    },
    "bisenetv2": {
        "backbone": {
            "type": "BiSeNetV2",
            "detail_channels": [8, 8, 16],
            "semantic_channels": [8, 8, 8, 16],
            "bga_channels": 16,
        },
        "decode_head": HEAD | {"in_channels": 16, "in_index": 0, "channels": 16},
        "auxiliary_head": [HEAD | {"in_channels": 8, "in_index": 1}, HEAD | {"in_channels": 8, "in_index": 2}],
    },
    "segformer": mit() | {"decode_head": EVERY | {"type": "SegformerHead", "in_channels": [8, 16, 32, 64]}},
    "daformer": mit(),
}


def build(name: str, seed: int = 0) -> Segmentor:
    torch.manual_seed(seed)
    return build_segmentor(CONFIGS[name])


def images(height: int = 64, width: int = 96, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def by_hand(config: dict[str, Any], seed: int = 0) -> Any:
    """The same trunk made directly with mmseg: every default that we fill in is written out."""
    from flexseg.models.registry import MODELS, building

    config = copy.deepcopy(config)
    auxiliary = config.get("auxiliary_head", [])
    for head in [config["decode_head"], *(auxiliary if isinstance(auxiliary, list) else [auxiliary])]:
        head.update(num_classes=19, norm_cfg=BN)
    torch.manual_seed(seed)
    with building():
        model = MODELS.build({"type": "EncoderDecoder", **config})
        model.init_weights()
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_is_mmsegs_model(name: str) -> None:
    trunk, model = build(name), by_hand(CONFIGS[name])
    ours, theirs = trunk.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours), "same seed, other weights"

    trunk.eval(), model.eval()
    with torch.no_grad():
        output = trunk(images())
        logits = model.decode_head(model.extract_feat(images()))
        assert torch.equal(output.logits, logits)
        assert output.logits.shape[:2] == (2, NUM_CLASSES)
        assert output.features.shape[1] == trunk.feature_channels
        assert output.features.shape[2:] == output.logits.shape[2:]
        assert torch.equal(trunk.decode_head.conv_seg(output.features), logits)
    assert output.auxiliary == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_reach_every_parameter(name: str) -> None:
    trunk = build(name)
    assert trunk.training
    output = trunk(images())
    assert torch.equal(trunk.decode_head.conv_seg(output.features), output.logits), "features are what conv_seg saw"
    loss = output.logits.square().mean() + sum(part.weight * part.logits.square().mean() for part in output.auxiliary)
    loss.backward()
    without = [key for key, p in trunk.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_seeds_differ() -> None:
    first, second = build("unet", 0).state_dict(), build("unet", 1).state_dict()
    assert not torch.equal(first["decode_head.conv_seg.weight"], second["decode_head.conv_seg.weight"])


def test_dry_run_leaves_no_trace() -> None:
    trunk = build("deeplab")
    for key, value in trunk.state_dict().items():
        if key.endswith(("running_mean", "num_batches_tracked")):
            assert not value.any(), key


def test_auxiliary_weights() -> None:
    (weight, logits, box), *none = build("unet")(images()).auxiliary
    assert weight == 0.4
    assert logits.shape == (2, NUM_CLASSES, 16, 24)
    assert (box, none) == (None, [])
    assert [part.weight for part in build("bisenetv2")(images()).auxiliary] == [1.0, 1.0]


@pytest.mark.parametrize("name", ["unet", "deeplab", "bisenetv2", "segformer"])
def test_predict_has_the_size_of_the_image(name: str) -> None:
    trunk = build(name).eval()
    with torch.inference_mode():
        for size in ((64, 96), (65, 97), (77, 90)):
            assert trunk.predict(images(*size)).shape == (2, NUM_CLASSES, *size)


def test_predict_resizes_as_mmseg_does() -> None:
    trunk, model = build("deeplab").eval(), by_hand(CONFIGS["deeplab"]).eval()
    metas = [{"img_shape": (65, 97)}] * 2
    with torch.no_grad():
        expected = model.encode_decode(images(65, 97), metas)
        assert torch.equal(trunk.predict(images(65, 97)), expected)


def test_predict_pads_only_what_the_backbone_needs() -> None:
    assert build("unet").size_divisor == 32
    assert build("segformer").size_divisor == 1
    trunk = build("unet").eval()
    with torch.no_grad():
        whole = images(64, 96)
        replicated = torch.cat([whole[..., :90], whole[..., 89:90].expand(-1, -1, -1, 6)], dim=3)
        assert torch.equal(trunk.predict(whole[..., :90]), trunk.predict(replicated)[..., :90])


def test_copies_are_independent() -> None:
    trunk = build("daformer")
    trunk(images())
    teacher = copy.deepcopy(trunk)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.zero_()
    trunk.eval(), teacher.eval()
    with torch.no_grad():
        assert not trunk(images()).logits.any()
        assert teacher(images()).logits.any()
        assert teacher.decode_head.conv_seg(teacher(images()).features).equal(teacher(images()).logits)
    trunk.load_state_dict(teacher.state_dict())
    assert torch.equal(trunk(images()).logits, teacher(images()).logits)
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_nothing_is_kept_alive() -> None:
    trunk = build("unet").eval()
    features = weakref.ref(trunk(images()).features)
    gc.collect()
    assert features() is None


def test_the_hook_is_gone_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = build("unet")

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(trunk.decode_head, "cls_seg", broken)
    with pytest.raises(RuntimeError, match="broken"):
        trunk(images())
    assert not trunk.decode_head.conv_seg._forward_pre_hooks


def test_config_is_not_changed() -> None:
    config = copy.deepcopy(CONFIGS["bisenetv2"])
    build_segmentor(config)
    assert config == CONFIGS["bisenetv2"]


def test_yaml_lists_stand_for_tuples() -> None:
    """CGNet checks ``isinstance(..., tuple)``, which no YAML file can write."""
    trunk = build_segmentor(
        {
            "backbone": {"type": "CGNet", "num_channels": [8, 16, 32], "num_blocks": [1, 1], "reductions": [4, 4]},
            "decode_head": {"type": "FCNHead", "in_channels": 64, "in_index": 2, "channels": 64, "num_convs": 0},
        }
    )
    assert isinstance(trunk, nn.Module)


def changed(name: str, part: str, **changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIGS[name])
    config.setdefault(part, {}).update(changes)
    return config


PRETRAINED = {"type": "Pretrained", "checkpoint": "mit_b5.pth"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decode_head": CONFIGS["unet"]["decode_head"]}, "the trunk has no backbone"),
        (CONFIGS["unet"] | {"head": {}}, r"'head' is no part of a trunk: did you mean decode_head"),
        (CONFIGS["unet"] | {"backbone": "UNet"}, "backbone is one mapping with a `type`, not a str"),
        (CONFIGS["unet"] | {"backbone": {"base_channels": 8}}, "backbone needs a `type`"),
        (changed("unet", "backbone", type="UNett"), "backbone: there is no 'UNett' .* did you mean UNet"),
        (changed("unet", "backbone", type="resnetv1c"), "did you mean ResNetV1c"),
        (changed("unet", "backbone", type="Qqqqqq"), "no 'Qqqqqq' in mmseg's registry; known are BEiT, .*UNet"),
        (changed("unet", "decode_head", type="DaformerHead"), "decode_head: there is no .* did you mean DAFormerHead"),
        (changed("unet", "backbone", type="FCNHead"), "backbone: FCNHead cannot be used"),
        (changed("unet", "decode_head", type="UNet"), "decode_head: UNet cannot be used as a head"),
        (changed("unet", "backbone", base_chanels=8), "UNet takes no 'base_chanels': did you mean base_channels"),
        (changed("deeplab", "backbone", stem=8), "backbone: ResNetV1c takes no 'stem'.*stem_channels"),
        (changed("deeplab", "decode_head", drop_ratio=0), "takes no 'drop_ratio': did you mean dropout_ratio"),
        (changed("unet", "backbone", strides=[2, 1]), "UNet cannot be built: The length of strides"),
        (changed("deeplab", "backbone", depth=19), "ResNetV1c cannot be built: .*19"),
        (changed("unet", "decode_head", in_channels=[8]), "FCNHead cannot be built: AssertionError at `assert isinst"),
        (changed("unet", "decode_head", num_classes=2), "num_classes is 19 here, not 2"),
        (
            changed("unet", "decode_head", in_channels=12),
            r"in_channels 12 at in_index -1 .*4: 8 channels at stride 2\)",
        ),
        (changed("unet", "decode_head", in_index=7), "in_index 7 is not among the backbone's maps"),
        (changed("unet", "auxiliary_head", in_channels=9), "auxiliary_head FCNHead: in_channels 9"),
        (changed("daformer", "decode_head", in_channels=[8, 16, 32, 99]), r"in_channels \(8, 16, 32, 99\) at"),
        (changed("daformer", "decode_head", in_channels=16), "DAFormerHead cannot be built: in_channels is a list"),
        (
            changed("deeplab", "decode_head", c1_in_channels=9),
            "DepthwiseSeparableASPPHead fails on the backbone's maps",
        ),
        (changed("fpn", "neck", in_channels=[8, 16, 32, 9]), "backbone ResNetV1c with neck FPN fails"),
        (changed("unet", "backbone", pretrained="x.pth"), "backbone.pretrained: 'x.pth' would load weights"),
        (changed("unet", "backbone", init_cfg=PRETRAINED), "backbone.init_cfg.type: 'Pretrained' would load weights"),
        (changed("unet", "decode_head", loss_decode={"type": "DiceLoss"}), "loss_decode with type: 'DiceLoss' would"),
        (
            changed("unet", "decode_head", loss_decode={"type": "CrossEntropyLoss", "loss_weight": 0.4}),
            "loss_decode with loss_weight: 0.4 would not be used",
        ),
    ],
)
def test_mistakes_are_explained(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_segmentor(config)
    assert isinstance(caught.value, ModelError)
    assert "\n" not in str(caught.value)


def test_heads_without_a_single_map_of_features_are_refused() -> None:
    head = {"type": "SegmenterMaskTransformerHead", "in_channels": 64, "channels": 16, "embed_dims": 16}
    head |= {"num_layers": 1, "num_heads": 1}
    with pytest.raises(ModelError, match="SegmenterMaskTransformerHead"):
        build_segmentor(mit() | {"decode_head": head})


def test_building_is_silent_and_importing_is_lazy(patience: float) -> None:
    script = (
        "import sys, flexseg.models\n"
        "assert 'mmseg' not in sys.modules\n"
        "from flexseg.models import build_segmentor\n"
        f"build_segmentor({CONFIGS['unet']!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=patience, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
