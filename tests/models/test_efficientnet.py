"""EfficientNet-Lite0: against a slow forward from the published weights, what is frozen, cut off, and folded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from builders import LITE_WEIGHTS, LITE_WIDTHS, lite
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad
from torch.optim.swa_utils import update_bn

from flexseg.data.transforms import MEAN, STD
from flexseg.models import ModelError, build_segmentor
from flexseg.models.efficientnet import EfficientNetLite, FixedBatchNorm2d
from flexseg.models.folded import FoldedConv2d
from flexseg.models.weights import Weights, find, load_weights, read_tensors

SIZES = [(224, 224), (64, 128), (45, 71), (33, 98)]


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return read_tensors(find(Weights.of(LITE_WEIGHTS)))


def trained(**options: Any) -> EfficientNetLite:
    backbone = EfficientNetLite(**options)
    load_weights(backbone, LITE_WEIGHTS)
    return backbone


def images(*size: int, batch: int = 2, seed: int = 0) -> Tensor:
    """(B, 3, H, W) of 0 … 255."""
    return torch.randint(0, 256, (batch, 3, *size), generator=torch.Generator().manual_seed(seed)).float()


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.as_tensor(values).view(3, 1, 1).to(pixels) for values in (MEAN, STD))
    return (pixels - mean) / std


# The reference: block by block from the published names. Kernel, stride and expansion are those of the table.

BLOCKS = [(3, 1, 1)]
BLOCKS += [(3, 2, 6), (3, 1, 6), (5, 2, 6), (5, 1, 6), (3, 2, 6), (3, 1, 6), (3, 1, 6)]
BLOCKS += [(5, 1, 6)] * 3 + [(5, 2, 6)] + [(5, 1, 6)] * 3 + [(3, 1, 6)]
ENDS = (0, 2, 4, 10, 15)


def slow_forward(tensors: Mapping[str, Tensor], pixels: Tensor) -> list[Tensor]:
    """The maps of (B, 3, H, W) pixels of 0 … 255, in double precision."""

    def same(x: Tensor, name: str, stride: int = 1, *, channelwise: bool = False) -> Tensor:
        weight = tensors[f"{name}.weight"].double()
        around: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            outputs = -(-size // stride)
            total = max((outputs - 1) * stride + weight.shape[-1] - size, 0)
            around += [total // 2, total - total // 2]
        return conv2d(pad(x, around), weight, stride=stride, groups=x.shape[1] if channelwise else 1)

    def norm(x: Tensor, name: str) -> Tensor:
        kinds = ("running_mean", "running_var", "weight", "bias")
        return batch_norm(x, *(tensors[f"{name}.{kind}"].double() for kind in kinds), eps=0.001)

    x = norm(same((pixels.double() - 127) / 128, "_conv_stem", 2), "_bn0").clamp(0, 6)
    maps = []
    for number, (_, stride, expansion) in enumerate(BLOCKS):
        name, y = f"_blocks.{number}", x
        if expansion > 1:
            y = norm(same(y, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        y = norm(same(y, f"{name}._depthwise_conv", stride, channelwise=True), f"{name}._bn1").clamp(0, 6)
        y = norm(same(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if y.shape == x.shape else y
        maps += [x] if number in ENDS else []
    return maps


@pytest.mark.parametrize("size", SIZES)
def test_the_maps_are_those_of_the_slow_forward(size: tuple[int, int], published: dict[str, Tensor]) -> None:
    pixels = images(*size)
    backbone = trained().eval().double()
    with torch.no_grad():
        maps, wanted = backbone(normalised(pixels.double())), slow_forward(published, pixels)
    for number, (ours, theirs) in enumerate(zip(maps, wanted, strict=True)):
        stride = 2 ** (number + 1)
        assert ours.shape == (2, LITE_WIDTHS[number], -(-size[0] // stride), -(-size[1] // stride))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        assert ours.std() > 0.1, "a map without content proves nothing"


def test_the_maps_are_those_of_the_authors_module() -> None:
    """Of the package efficientnet-lite-pytorch, where somebody has it: the suite does not need it."""
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(read_tensors(find(Weights.of(LITE_WEIGHTS))))
    theirs.eval().double()
    pixels = images(224, 224).double()
    with torch.no_grad():
        x = theirs._swish(theirs._bn0(theirs._conv_stem((pixels - 127) / 128)))
        maps = []
        for number, block in enumerate(theirs._blocks):
            x = block(x)
            maps += [x] if number in ENDS else []
        for ours, wanted in zip(trained().eval().double()(normalised(pixels)), maps, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-6)


def test_the_layout_changes_rounding_alone() -> None:
    x = normalised(images(64, 128))
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        backbone = trained().to(memory_format=layout)
        maps = backbone(x)
        sum(each.square().mean() for each in maps).backward()
        found.append(([each.detach() for each in maps], backbone.encoder[0][0].conv.weight.grad))
    for ours, theirs in zip(*(maps for maps, _ in found), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-2)


def test_sizes() -> None:
    """4.65 M with the classifier: 1280 channels more, and 1000 classes."""
    classifier = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    whole = sum(parameter.numel() for parameter in EfficientNetLite().parameters())
    assert whole + classifier == 4_652_008
    assert sum(parameter.numel() for parameter in EfficientNetLite(num_stages=4).parameters()) == 700_768


# Stages


@pytest.mark.parametrize("stages", [1, 3, 4])
def test_cut_stages_leave_the_others_as_they_are(stages: int) -> None:
    x = normalised(images(32, 64))
    with torch.no_grad():
        whole, cut = trained().eval()(x), trained(num_stages=stages).eval()(x)
        few = trained(num_stages=stages, out_indices=[stages - 1]).eval()(x)
    assert len(cut) == stages
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(cut, whole, strict=False))
    assert len(few) == 1
    assert torch.equal(few[0], whole[stages - 1])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"num_stages": 6}, "num_stages is from 1 to 5, not 6"),
        ({"out_indices": [5]}, r"out_indices \[5\] are not stages"),
        ({"num_stages": 3, "out_indices": [0, 3]}, "there are 3, counted from 0"),
        ({"num_stages": 3, "frozen_stages": 3}, r"from -1 \(none\) to 2, not 3"),
        ({"momentum": 0.0}, "momentum is above 0"),
    ],
)
def test_stages_that_are_not_there(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ModelError, match=f"backbone EfficientNetLite: .*{wanted}"):
        build_segmentor(lite(**options, weights=False) | {"decode_head": lite()["decode_head"]})


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items() if "running" in key}


@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
def test_frozen_stages_keep_weights_and_statistics_and_build_no_graph(frozen: int) -> None:
    model = build_segmentor(lite(frozen_stages=frozen)).train()
    model.eval()
    model.train()  # mmseg's own backbones forget it if their `train` is not theirs
    before = statistics(model.backbone)
    maps = model.backbone(normalised(images(64, 96)))
    for number, each in enumerate(maps):
        assert each.requires_grad == (number > frozen)
    model(normalised(images(64, 96))).logits.square().mean().backward()
    for key, parameter in model.backbone.named_parameters():
        is_frozen = int(key.split(".")[1]) <= frozen
        assert parameter.requires_grad == (not is_frozen), key
        assert (parameter.grad is None) == is_frozen, key
    moved = {
        int(key.split(".")[1]) for key, value in statistics(model.backbone).items() if (value != before[key]).any()
    }
    assert moved == set(range(frozen + 1, 5))


def test_a_gradient_passes_through_frozen_stages_to_images() -> None:
    """As an adversary needs it, and a norm that a method puts between them."""
    x = normalised(images(32, 64)).requires_grad_()
    trained(frozen_stages=4)(x)[-1].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_norm_eval_fixes_statistics_but_not_weights() -> None:
    backbone = trained(norm_eval=True).train()
    before = statistics(backbone)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    x = normalised(images(32, 64))
    with torch.no_grad():
        in_training, in_evaluation = backbone(x), backbone.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(in_training, in_evaluation, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in statistics(backbone).items())


def test_statistics_gathered_anew_leave_the_frozen_ones() -> None:
    """As ReVT does it with torch's function, which resets every BatchNorm first."""
    backbone = trained(frozen_stages=1)
    before = statistics(backbone)
    update_bn((normalised(images(32, 64, seed=seed)) for seed in range(2)), copied := copy.deepcopy(backbone))
    for key, value in statistics(copied).items():
        assert torch.equal(value, before[key]) == (int(key.split(".")[1]) <= 1), key
    assert isinstance(copied.encoder[0][0].norm, FixedBatchNorm2d)


# Folding


@pytest.mark.parametrize(("batch", "height"), [(1, 7), (2, 6), (8, 4), (8, 3), (20, 4), (3, 64)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_convolution_is_a_convolution(batch: int, height: int, bias: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    layer = FoldedConv2d(12, 5, 1, bias=bias).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(12, 5, 1, bias=bias)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(batch, 12, height, 9, generator=draw)
    found = []
    for module, layout in (
        (layer, torch.channels_last),
        (layer, torch.contiguous_format),
        (plain, torch.channels_last),
    ):
        shown = x.clone(memory_format=layout).requires_grad_()
        module.zero_grad()
        y = module(shown)
        y.square().sum().backward()
        found.append([y.detach(), shown.grad, *(p.grad.clone() for p in module.parameters())])
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)
    for ours in found[:2]:
        for one, other in zip(ours, found[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_head_takes_folded_convolutions() -> None:
    described = lite(weights=False)
    described["decode_head"]["conv_cfg"] = {"type": "FoldedConv2d"}
    head = build_segmentor(described).decode_head
    assert isinstance(head.fuse.conv, FoldedConv2d)
    assert all(isinstance(layer, FoldedConv2d) for layer in head.embed)
