"""DAFormer's head against a slow forward that spells out the paper's figure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, dropout2d, interpolate, relu

from flexseg.models.daformer import DAFormerHead

BN = {"type": "BN"}


def head(in_channels: tuple[int, ...] = (4, 6, 8), **options: object) -> DAFormerHead:
    torch.manual_seed(0)
    made = DAFormerHead(in_channels, 10, embed_dims=5, num_classes=19, norm_cfg=BN, **options)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as after some training
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.eval()


def stages(in_channels: tuple[int, ...] = (4, 6, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, c, 25 // 2**i, 40 // 2**i, generator=generator) for i, c in enumerate(in_channels)]


def slow(state: dict[str, Tensor], maps: list[Tensor], dilations: tuple[int, ...], align_corners: bool) -> Tensor:
    """Logits from a state dict and nothing else."""

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return relu(batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"]))

    embedded = []
    for i, x in enumerate(maps):
        linear = state[f"embed.{i}.weight"][:, :, 0, 0]  # (embed_dims, C_i)
        y = torch.einsum("ec,bchw->behw", linear, x) + state[f"embed.{i}.bias"][:, None, None]
        embedded.append(interpolate(y, maps[0].shape[2:], mode="bilinear", align_corners=align_corners))
    stack = torch.cat(embedded, dim=1)
    branches = []
    for i, d in enumerate(dilations):
        name = f"context.{i}"
        if d == 1:
            branches.append(norm_relu(conv2d(stack, state[f"{name}.conv.weight"]), f"{name}.bn"))
            continue
        kernel = state[f"{name}.depthwise_conv.conv.weight"]  # (stack channels, 1, 3, 3)
        depthwise = torch.cat(
            [conv2d(stack[:, c : c + 1], kernel[c : c + 1], padding=d, dilation=d) for c in range(stack.shape[1])],
            dim=1,
        )
        depthwise = norm_relu(depthwise, f"{name}.depthwise_conv.bn")
        pointwise = conv2d(depthwise, state[f"{name}.pointwise_conv.conv.weight"])
        branches.append(norm_relu(pointwise, f"{name}.pointwise_conv.bn"))
    fused = norm_relu(conv2d(torch.cat(branches, dim=1), state["fuse.conv.weight"], padding=1), "fuse.bn")
    return conv2d(dropout2d(fused, training=False), state["conv_seg.weight"], state["conv_seg.bias"])


@pytest.mark.parametrize("align_corners", [False, True])
def test_equals_the_slow_forward(align_corners: bool) -> None:
    made, maps = head(dilations=(1, 2, 6), align_corners=align_corners), stages()
    with torch.no_grad():
        expected = slow(made.state_dict(), maps, (1, 2, 6), align_corners)
        assert expected.std() > 1e-3
        torch.testing.assert_close(made(maps), expected, rtol=1e-4, atol=1e-5)


def test_chooses_stages() -> None:
    made, maps = head((4, 8), in_index=(0, 2)), stages()
    with torch.no_grad():
        logits = made(maps)
        maps[1] = maps[1] + 1
        assert torch.equal(made(maps), logits)
        assert logits.shape == (2, 19, 25, 40)


def test_train_mode_normalises_and_drops() -> None:
    made, maps = head(dropout_ratio=0.5).train(), stages()
    assert not torch.equal(made(maps), made(maps))
    assert all(m.num_batches_tracked == 2 for m in made.modules() if isinstance(m, nn.BatchNorm2d))


def test_without_branches_it_is_a_convolution_of_one_pixel_on_the_stack() -> None:
    """As HRDA's attention is made of it."""
    made, maps = head(dilations=()), stages()
    state = made.state_dict()
    with torch.no_grad():
        size = maps[0].shape[2:]
        embedded = [conv2d(x, state[f"embed.{i}.weight"], state[f"embed.{i}.bias"]) for i, x in enumerate(maps)]
        stack = torch.cat([interpolate(x, size, mode="bilinear") for x in embedded], dim=1)
        norm = [state[f"fuse.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        fused = relu(batch_norm(conv2d(stack, state["fuse.conv.weight"]), *norm))
        expected = conv2d(fused, state["conv_seg.weight"], state["conv_seg.bias"])
        torch.testing.assert_close(made(maps), expected, rtol=1e-4, atol=1e-5)
    assert not any("context" in name for name in state)
