"""DeepLabV3+'s head against a slow forward, and the widths of RobustNet's code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, interpolate, relu

from flexseg.models.deeplab import DeepLabV3PlusHead


def made(dilations: tuple[int, ...] = (1, 2, 3)) -> DeepLabV3PlusHead:
    torch.manual_seed(0)
    head = DeepLabV3PlusHead(
        (4, 6), 5, dilations=dilations, low_channels=3, num_classes=19, norm_cfg={"type": "BN"}, dropout_ratio=0.0
    )
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as after some training
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return head.eval()


def slow(state: dict[str, Tensor], low: Tensor, deep: Tensor, dilations: tuple[int, ...]) -> Tensor:
    def block(x: Tensor, name: str, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        y = conv2d(x, weight, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)
        norm = [state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return relu(batch_norm(y, *norm))

    mean = block(deep.mean(dim=(2, 3), keepdim=True), "pooled").expand(-1, -1, *deep.shape[2:])
    branches = [block(deep, f"branches.{i}", dilation) for i, dilation in enumerate(dilations)]
    context = block(torch.cat([mean, *branches], dim=1), "context")
    context = interpolate(context, low.shape[2:], mode="bilinear")
    fused = block(block(torch.cat([block(low, "low"), context], dim=1), "fuse.0"), "fuse.1")
    return conv2d(fused, state["conv_seg.weight"], state["conv_seg.bias"])


def test_equals_the_slow_forward() -> None:
    head = made()
    maps = [torch.randn(2, 4, 12, 20), torch.randn(2, 9, 6, 10), torch.randn(2, 9, 3, 5), torch.randn(2, 6, 3, 5)]
    with torch.no_grad():
        expected = slow(head.state_dict(), maps[0], maps[3], (1, 2, 3))
        torch.testing.assert_close(head(maps), expected, rtol=1e-4, atol=1e-5)


def test_at_full_width_it_has_the_parameters_of_the_published_one() -> None:
    """network/deepv3.py for ResNet-50: ASPP of 5 × 256 from 2048, 1280 → 256, 256 → 48, 304 → 256 → 256 → 19."""
    head = DeepLabV3PlusHead((256, 2048), 256, num_classes=19, norm_cfg={"type": "BN"}, dropout_ratio=0.0)
    convolutions = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 1280 * 256 + 256 * 48 + 9 * 304 * 256 + 9 * 256 * 256
    norms = 2 * (5 * 256 + 256 + 48 + 256 + 256)
    assert sum(p.numel() for p in head.parameters()) == convolutions + norms + 256 * 19 + 19
