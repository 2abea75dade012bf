"""HRDA against slow forwards that spell out the paper, and against itself as a segmentor of mmseg."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from builders import mit, unet
from torch import Tensor
from torch.nn.functional import interpolate

from flexseg.errors import RunError
from flexseg.method import auxiliary_losses, cross_entropy, weight_terms
from flexseg.models import ModelError, Segmentor, build_segmentor
from flexseg.models.build import describe
from flexseg.models.hrda import HRDASegmentor, fuse
from flexseg.models.windows import windows

CONFIG: dict[str, Any] = mit(sr_ratios=[2, 2, 1, 1]) | {
    "hrda": {"detail": [32, 48], "stride": [16, 24], "attention": {"type": "SegformerHead", "channels": 8}}
}


def build(seed: int = 0, **changes: Any) -> HRDASegmentor:
    torch.manual_seed(seed)
    model = build_segmentor(CONFIG | {"hrda": CONFIG["hrda"] | changes})
    assert isinstance(model, HRDASegmentor)
    return model


def images(height: int = 64, width: int = 96, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def single(model: Segmentor, x: Tensor) -> Tensor:
    """One scale's logits, without this file's classes."""
    return model.decode_head(model.backbone(x))


def attention_of(model: HRDASegmentor, x: Tensor) -> Tensor:
    return model.scale_attention(model.backbone(halved(x))).sigmoid()


def halved(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


# Fusion


def test_fusion_is_the_papers() -> None:
    generator = torch.Generator().manual_seed(3)
    context, attention = (torch.randn(2, 5, 6, 8, generator=generator) for _ in range(2))
    attention = attention.sigmoid()
    detail = torch.randn(2, 5, 4, 8, generator=generator)
    top, left = 6, 2
    masked, filled = torch.zeros_like(attention), torch.zeros(2, 5, 12, 16)
    for y in range(6):
        for x in range(8):
            if top <= 2 * y < top + 4 and left <= 2 * x < left + 8:
                masked[:, :, y, x] = attention[:, :, y, x]
    filled[:, :, top : top + 4, left : left + 8] = detail
    expected = doubled((1 - masked) * context) + doubled(masked) * filled
    fused = fuse(context, detail, attention, (top, left), 2)
    torch.testing.assert_close(fused, expected)
    far = torch.ones(12, 16, dtype=torch.bool)
    far[top - 1 : top + 5, left - 1 : left + 9] = False
    assert torch.allclose(fused[..., far], doubled(context)[..., far]), "outside the detail crop the context decides"
    everywhere = fuse(context, filled, torch.ones_like(attention), (0, 0), 2)
    torch.testing.assert_close(everywhere, filled, msg="with full attention the detail decides")


def test_windows_cover_and_end_at_the_border() -> None:
    assert windows((40, 50), (32, 48), (16, 24)) == [(0, 0, 32, 48), (0, 2, 32, 48), (8, 0, 32, 48), (8, 2, 32, 48)]
    assert windows((24, 100), (32, 48), (16, 24)) == [(0, x, 24, 48) for x in (0, 24, 48, 52)]


# Inference


def slow(model: HRDASegmentor, x: Tensor) -> Tensor:
    """Fused logits at stride 4 with one window after the other."""
    height, width = x.shape[2:]
    sums, counts = torch.zeros(len(x), 19, height // 4, width // 4), torch.zeros(height // 4, width // 4)
    tops = sorted({min(top, max(height - 32, 0)) for top in range(0, max(height - 16, 1), 16)})
    lefts = sorted({min(left, max(width - 48, 0)) for left in range(0, max(width - 24, 1), 24)})
    for top in tops:
        for left in lefts:
            logits = single(model, x[:, :, top : top + 32, left : left + 48])
            for i in range(logits.shape[2]):
                for j in range(logits.shape[3]):
                    sums[:, :, top // 4 + i, left // 4 + j] += logits[:, :, i, j]
                    counts[top // 4 + i, left // 4 + j] += 1
    attention = attention_of(model, x)
    return doubled((1 - attention) * single(model, halved(x))) + doubled(attention) * (sums / counts)


@pytest.mark.parametrize("size", [(64, 96), (72, 104), (24, 96), (32, 48)])
def test_inference_is_the_slow_one(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexseg.models.hrda.PIXELS", 3 * 2 * 32 * 48)  # three windows at a time
    model = build().eval()
    with torch.inference_mode():
        output = model(images(*size))
        torch.testing.assert_close(output.logits, slow(model, images(*size)), rtol=1e-4, atol=1e-5)
    assert output.auxiliary == ()
    assert output.weight == 1.0


def test_any_size_is_predicted() -> None:
    model = build().eval()
    with torch.inference_mode():
        assert model.predict(images(61, 99)).shape == (2, 19, 61, 99)
        filled = torch.cat([images(64, 93), images(64, 93)[..., -1:].expand(-1, -1, -1, 3)], dim=3)
        assert torch.equal(model.predict(images(64, 93)), model.predict(filled)[..., :93])


@pytest.mark.parametrize("slide", [False, True])
def test_mmseg_builds_the_same_model_and_predicts_the_same(slide: bool) -> None:
    from flexseg.models.registry import MODELS, building

    ours = build(seed=5).eval()
    test_cfg = {"mode": "slide", "crop_size": (64, 64), "stride": (40, 40)} if slide else {"mode": "whole"}
    with building():
        theirs = MODELS.build(describe(CONFIG) | {"test_cfg": _Config(test_cfg)}).eval()
    theirs.load_state_dict(ours.state_dict())
    x = images(70, 101)
    meta = {"img_shape": (70, 101), "ori_shape": (70, 101)}
    with torch.inference_mode():
        found = theirs.inference(x, [meta, dict(meta)])
        if not slide:
            assert torch.equal(found, ours.predict(x))
            return
        sums, counts = torch.zeros(2, 19, 70, 101), torch.zeros(70, 101)
        for top, left, height, width in windows((70, 101), (64, 64), (40, 40)):
            part = (slice(top, top + height), slice(left, left + width))
            sums[:, :, *part] += ours.predict(x[:, :, *part])
            counts[*part] += 1
        torch.testing.assert_close(found, sums / counts)


class _Config(dict):
    """mmengine's configurations are read by attribute too."""

    __getattr__ = dict.__getitem__


# Training


def test_a_step_sees_both_scales_and_reaches_every_parameter() -> None:
    model, x = build(), images()
    torch.manual_seed(11)
    output = model(x)
    detail = output.auxiliary[0]
    assert detail.box is not None
    top, left, height, width = detail.box
    assert (height, width) == (32, 48)
    assert top % 8 == left % 8 == 0
    assert (output.weight, detail.weight) == (0.9, 0.1)
    assert output.logits.shape == (2, 19, 16, 24)
    assert output.features.shape == (2, 8, 8, 12), "the features are the context's"

    labels = torch.randint(19, (2, 64, 96), generator=torch.Generator().manual_seed(2))
    terms = weight_terms({"ce": cross_entropy(output.logits, labels)}, output) | auxiliary_losses(output, labels)
    torch.testing.assert_close(terms["ce"], 0.9 * cross_entropy(output.logits, labels))
    cut = labels[:, top : top + 32, left : left + 48]
    torch.testing.assert_close(terms["auxiliary"], 0.1 * cross_entropy(detail.logits, cut))

    terms["ce"].backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.any() for p in model.scale_attention.parameters() if p.ndim > 1)
    for scale in (output.features, detail.logits):  # a gradient of the fused loss reaches either scale
        (gradient,) = torch.autograd.grad(terms["ce"], scale, retain_graph=True)
        assert gradient.any()
    sum(terms.values()).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def steady(model: HRDASegmentor) -> HRDASegmentor:
    """It trains at two scales as ever, but its parts do not drop and normalise by fixed statistics."""
    for part in model.modules():
        part.training = part is model
    return model


def test_a_step_is_the_slow_one() -> None:
    model, x = steady(build(seed=2)), images()
    torch.manual_seed(8)
    with torch.no_grad():
        output = model(x)
        top, left, height, width = output.auxiliary[0].box
        assert top > 0
        assert left > 0
        detail = single(model, x[:, :, top : top + height, left : left + width])
        torch.testing.assert_close(output.auxiliary[0].logits, detail, rtol=1e-4, atol=1e-5)
        attention, filled = torch.zeros(2, 19, 8, 12), torch.zeros(2, 19, 16, 24)
        coarse = (slice(top // 8, (top + height) // 8), slice(left // 8, (left + width) // 8))
        attention[:, :, *coarse] = attention_of(model, x)[:, :, *coarse]
        filled[:, :, top // 4 : (top + height) // 4, left // 4 : (left + width) // 4] = detail
        expected = doubled((1 - attention) * single(model, halved(x))) + doubled(attention) * filled
        torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)


def test_details_are_drawn_from_the_global_generator() -> None:
    model = build()

    def boxes(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        with torch.no_grad():
            return [model(images()).auxiliary[0].box for _ in range(12)]

    assert boxes(1) == boxes(1) != boxes(2)
    tops, lefts = ({box[axis] for box in boxes(1) + boxes(2)} for axis in (0, 1))
    assert tops == {0, 8, 16, 24, 32}
    assert lefts <= set(range(0, 49, 8))
    assert len(lefts) > 3


def test_a_crop_no_larger_than_the_detail_is_seen_whole() -> None:
    output = build()(images(32, 40))
    assert output.auxiliary[0].box == (0, 0, 32, 40)


def test_crops_off_the_grid_are_refused() -> None:
    with pytest.raises(RunError, match=r"multiples of 8 pixels only, not 60×96: choose such a training\.crop"):
        build()(images(60, 96))


# Description


def test_the_attention_head_sees_what_the_decode_head_sees() -> None:
    attention = describe(CONFIG)["hrda"]["attention"]
    assert attention["in_channels"] == [8, 16, 32, 64]
    assert attention["in_index"] == [0, 1, 2, 3]
    assert attention["num_classes"] == 19
    plain = copy.deepcopy(CONFIG)
    plain["hrda"] = {}
    assert describe(plain)["hrda"]["attention"]["type"] == "SegformerHead"
    assert "hrda" not in describe({part: CONFIG[part] for part in ("backbone", "decode_head")})


def test_a_backbone_that_takes_certain_sizes_only() -> None:
    config = unet(strides=[1] * 5) | {
        "hrda": {
            "detail": [32, 32],
            "stride": [16, 16],
            "output_stride": 1,
            "attention": {"type": "FCNHead", "channels": 4},
        },
    }
    model = build_segmentor(config).eval()
    assert model.size_divisor == 32
    with torch.inference_mode():
        assert model.predict(images(40, 70)).shape == (2, 19, 40, 70)
    config["hrda"] |= {"detail": [24, 24]}
    with pytest.raises(ModelError, match=r"hrda\.detail \[24, 24\]: this backbone takes multiples of 16 only"):
        build_segmentor(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detial": [32, 32]}, "hrda takes no 'detial': did you mean detail"),
        ({"scale": 0.4}, r"hrda\.scale is 1/2, 1/3, …, the size of the context, not 0\.4"),
        ({"detail": [36, 48]}, r"hrda\.detail is a height and a width, multiples of 8 pixels, not \[36, 48\]"),
        ({"stride": [64, 24]}, r"hrda\.stride \[64, 24\] is larger than detail \[32, 48\]: it leaves gaps"),
        ({"loss_weight": 1.0}, r"hrda\.loss_weight lies from 0 to below 1, not 1\.0"),
        ({"output_stride": 8}, r"hrda\.output_stride is 8, but this trunk's logits have stride 4: write `output_st"),
        ({"attention": "SegformerHead"}, r"hrda\.attention is one mapping with a `type`, not a str"),
        ({"attention": {"type": "SegformHead"}}, r"hrda\.attention: there is no .* did you mean SegformerHead"),
        (
            {"attention": {"type": "SegformerHead", "channels": 8, "in_channels": [8, 16, 40, 9]}},
            r"hrda\.attention Segf",
        ),
    ],
)
def test_mistakes_are_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(**changes)
