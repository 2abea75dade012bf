"""MRFP and MRFP+: in training, early features are perturbed in style and by a random high-resolution branch.

Udupa et al., *MRFP*, CVPR 2024. No loss is added and nothing of it is trained; what is evaluated is the plain trunk,
which is IBN-Net's (b). MRFP = {NP+, HRFP}, MRFP+ = {NP+, HRFP, HRFP+}, each on in half of the iterations, by itself.
With x (B, C, h, w) the map of the stem:

    NP+:    y = α (x − μ) + β μ,   α = 1 + ε,   β = 1 + 1.5 (δ_c / max δ) ε',   ε, ε' ~ N(0, 0.75²) for each image and
            channel; μ (B, C) are the means over positions and δ_c the deviation of μ_c over the batch: the means of
            channels that carry style are perturbed most. Behind the stem and behind the first stage.
            (Fan et al., *Normalization Perturbation*, arXiv 2211.04393: NP, with δ_c / max δ = 1 and without 1.5.)
    HRFP:   y + R(x). R is eight times relu(γ · BN(U(K x))): K a 3 × 3 convolution, U to another size by the nearest
            neighbour, BN of the batch, its γ ~ N(0, 0.5²). Sizes are 1.205, 1.2² and 1.2³ times, then twice that of the
            stem's map, and back; widths C, C, 2C, D; 2C, C, C, C, D that of the decoder's last features. The third,
            fourth, seventh and eighth K are dilated by 2. Weights of K are drawn from N(0, 2 / fan-in).
    HRFP+:  R's fourth map is added to the decoder's last features, brought to its size, before they are classified.

From the authors' code (``deepv3.py``, ``network/mynn.py``; its licence is unclear, nothing of it was copied): all of
the above. Its weights are drawn anew where HRFP is on, and HRFP+ alone goes on with the last ones; here they are drawn
in every pass.

Stages are a UNet's encoder stages, or a ResNet's stem and layers. A UNet's first stage is at half of the image's size,
not a quarter: the branch then climbs to the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.components.norms import InstanceNorm, put_at_stage_ends
from flexseg.errors import RunError
from flexseg.method import Batch, Method, option, require_at_least
from flexseg.models import Segmentor


def perturb_statistics(x: Tensor, deviation: float, scale: float, sensitive: bool = True) -> Tensor:
    """NP+, or NP where not ``sensitive``, of a map: (B, C, h, w) to the same, computed in float32.

    Args:
        deviation: of ε and ε'. scale: of β's noise in NP+.
    """
    with torch.autocast(x.device.type, enabled=False):
        values = x.float()
        mean = values.mean(dim=(2, 3), keepdim=True)
        alpha, beta = 1 + deviation * torch.randn(2, *mean.shape, device=x.device)
        if sensitive and len(x) > 1:  # one image alone varies from none
            spread = mean.detach().std(dim=0, keepdim=True)
            beta = 1 + (beta - 1) * scale * spread / spread.max().clamp_min(torch.finfo(torch.float32).tiny)
        return (alpha * (values - mean) + beta * mean).to(x.dtype)


def random_layer(x: Tensor, channels: int, size: Sequence[int], dilation: int) -> Tensor:
    """relu(γ · BN(U(K x))), (B, ``channels``, *``size``), with weights that this call draws.

    Gradients pass through it to x.
    """
    weight = torch.randn(channels, x.shape[1], 3, 3, device=x.device) * (2 / (9 * x.shape[1])) ** 0.5
    weight = weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
    gamma = 0.5 * torch.randn(channels, device=x.device)
    y = functional.conv2d(x, weight, padding=dilation, dilation=dilation)
    if tuple(y.shape[2:]) != tuple(size):
        y = functional.interpolate(y, tuple(size), mode="nearest")
    return functional.relu(functional.batch_norm(y, None, None, gamma.to(y.dtype), training=True))


def climb(x: Tensor, channels: int) -> Tensor:
    """The first half of R: (B, C, h, w) → (B, ``channels``, 2h, 2w)."""
    width, sizes = x.shape[1], [[int(side * by) for side in x.shape[2:]] for by in CLIMB]
    for out, size, dilation in zip((width, width, 2 * width, channels), sizes, (1, 1, 2, 2), strict=True):
        x = random_layer(x, out, size, dilation)
    return x


def descend(x: Tensor, width: int, size: Sequence[int]) -> Tensor:
    """The second half of R: (B, D, 2h, 2w) → (B, ``width``, *``size``)."""
    high = x.shape[2:]
    sizes = [high, *([int(side * by) for side in high] for by in DESCEND), size]
    for out, to, dilation in zip((2 * width, width, width, width), sizes, (1, 1, 2, 2), strict=True):
        x = random_layer(x, out, to, dilation)
    return x


CLIMB = (1.205, 1.205 * 1.2, 1.205 * 1.2**2, 2.0)
"""The sizes of the first half of R, in sizes of the stem's map."""
DESCEND = (0.838, 0.838 * 0.798)
"""The sizes between the highest map and the stem's, in sizes of the highest."""


class MRFP(Method):
    name = "mrfp"
    title = "MRFP+"
    paper = "Udupa et al., MRFP: Learning Generalizable Semantic Segmentation from Sim-2-Real, CVPR 2024"
    needs = ("batch_norm",)

    @dataclass(frozen=True)
    class Options:
        np: bool = option(True, "NP+, the perturbation of the early maps' statistics")
        hrfp: bool = option(True, "HRFP, the random high-resolution branch at the first stage")
        hrfp_plus: bool = option(True, "HRFP+, the same branch's way to the decoder: MRFP+; without it MRFP")
        deviation: float = option(0.75, "of ε and ε'")
        scale: float = option(1.5, "of the noise of the means in NP+")
        sensitive: bool = option(True, "NP+ perturbs the means of a channel by how much they vary; without it NP")
        probability: float = option(0.5, "that a part is on in an iteration")
        np_stages: int = option(2, "early stages whose maps NP+ perturbs, the stem among them")
        ibn: int = option(3, "early stages that end in instance normalisation, as IBN-Net (b)")

        def __post_init__(self) -> None:
            if not 0 <= self.probability <= 1:
                raise ValueError(f"probability must be between 0 and 1, not {self.probability}")
            for name in ("deviation", "scale"):
                if not 0 <= getattr(self, name) < float("inf"):
                    raise ValueError(f"{name} is a number from 0 on, not {getattr(self, name)}")
            require_at_least(self, np_stages=1, ibn=0)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        stages = _stages(model.backbone)
        if len(stages) < self.options.np_stages:
            raise RunError(f"mrfp: np_stages is {self.options.np_stages}, but the backbone has {len(stages)} stages")
        put_at_stage_ends(model.backbone, self.options.ibn, InstanceNorm)
        return model

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        on = (torch.rand(3) < self.options.probability).tolist()
        with self._perturb(model, *on):
            return super().forward(model, batch)

    @contextmanager
    def _perturb(self, model: Segmentor, np: bool, hrfp: bool, hrfp_plus: bool) -> Iterator[None]:
        """Perturb the passes within the block by the parts that are on here and in the options."""
        options = self.options
        np, hrfp, hrfp_plus = np and options.np, hrfp and options.hrfp, hrfp_plus and options.hrfp_plus
        highest: list[Tensor] = []  # the branch's map of the current pass, for the decoder

        def at_stage(stage: nn.Module, _: Any, x: Tensor) -> Tensor:
            y = perturb_statistics(x, options.deviation, options.scale, options.sensitive) if np else x
            if stage is stages[0] and (hrfp or hrfp_plus):
                high = climb(x, classifier.in_channels)
                highest[:] = [high]
                if hrfp:
                    y = y + descend(high, x.shape[1], x.shape[2:])
            return y

        def at_classifier(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            (features,), high = inputs, highest.pop()
            return (functional.interpolate(features, high.shape[2:], mode="bilinear", align_corners=False) + high,)

        stages = _stages(model.backbone)
        classifier: Any = model.decode_head.conv_seg
        with ExitStack() as hooks:
            for stage in stages[: options.np_stages if np else 1]:
                hooks.callback(stage.register_forward_hook(at_stage).remove)
            if hrfp_plus:
                hooks.callback(classifier.register_forward_pre_hook(at_classifier).remove)
            yield


def _stages(backbone: nn.Module) -> list[nn.Module]:
    """The modules that give a backbone's early maps, from the input on.

    Raises:
        RunError: the backbone is neither a UNet nor a ResNet.
    """
    encoder, layers = getattr(backbone, "encoder", None), getattr(backbone, "res_layers", None)
    if isinstance(encoder, nn.ModuleList):
        return list(encoder)
    if layers is not None and hasattr(backbone, "maxpool"):
        return [backbone.get_submodule(path) for path in ("maxpool", *layers)]
    raise RunError(
        f"mrfp knows the early maps of a UNet or a ResNet, not those of this benchmark's {type(backbone).__name__}"
    )
