"""MRFP and MRFP+: in training, early features are perturbed in style and by a random high-resolution branch.

Udupa et al., *MRFP*, CVPR 2024, with NP of Fan et al., *Normalization Perturbation*, arXiv 2211.04393. No parameter and
no loss is added; what is evaluated is the plain trunk. MRFP = {NP+, HRFP}, MRFP+ = {NP+, HRFP, HRFP+}, each switched on
at random. With x (B, C, h, w) an early map and μ (B, C) its means over positions:

    NP+:    y = α x + (β − α) μ,   α = 1 + Δ_c ε,   β = 1 + Δ_c ε',   ε, ε' ~ N(0, 0.75²) for each image and channel,
            Δ_c = δ_c / max δ,  δ_c the variance of μ_c over the batch: channels that carry style are perturbed most.
            (NP has Δ = 1: mean and deviation of a channel are scaled by β and α.)
    HRFP:   y = x + L(R(x)).  R climbs in resolution, x ← U(relu(K x)), and descends again, x ← P(relu(K x)), ``depth``
            times each: K a 3 × 3 convolution to ``width`` channels, U bilinear upsampling and P max pooling by 2. L is
            a 1 × 1 convolution back to C channels. Weights are drawn from N(0, 2 / fan-in) in each iteration and never
            trained. On the way up each K sees less of the image than the one before: fine details are perturbed.
    HRFP+:  R's map at its highest resolution is resized to the decoder's last features, which the classifier sees, and
            added to them by another random 1 × 1 convolution.

The licence of the authors' code is unclear, so public summaries of the papers are all that was used: the three parts,
where they enter, that they are switched on at random, and that the branch is random, overcomplete and not trained; of
NP, the formula and 0.75. **Assumed**: how NP+ uses Δ; which stages; the branch's depth, order of operations and scale
of weights; a linear last layer, which perturbs up and down alike; that gradients pass through it; a probability of
0.5, drawn for each part by itself, for all images of a device. **Scaled**: the branch's width, for time.

Stages are a UNet's encoder stages, or a ResNet's stem and layers; HRFP works at the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.errors import RunError
from flexseg.method import Batch, Method, option, require_at_least
from flexseg.models import Segmentor


def perturb_statistics(x: Tensor, deviation: float, sensitive: bool = True) -> Tensor:
    """NP+, or NP where not ``sensitive``, of a map: (B, C, h, w) to the same, computed in float32."""
    with torch.autocast(x.device.type, enabled=False):
        values = x.float()
        mean = values.mean(dim=(2, 3), keepdim=True)
        noise = deviation * torch.randn(2, *mean.shape, device=x.device)
        if sensitive:
            variance = mean.detach().var(dim=0, correction=0, keepdim=True)
            noise = noise * (variance / variance.max().clamp_min(torch.finfo(torch.float32).tiny))
        alpha, beta = 1 + noise
        return (alpha * values + (beta - alpha) * mean).to(x.dtype)


def random_convolution(x: Tensor, channels: int, kernel: int, gain: float = 2.0) -> Tensor:
    """(B, C, h, w) → (B, ``channels``, h, w), by weights that this call draws from N(0, ``gain`` / fan-in)."""
    fan_in = x.shape[1] * kernel**2
    weight = torch.randn(channels, x.shape[1], kernel, kernel, device=x.device) * (gain / fan_in) ** 0.5
    weight = weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return functional.conv2d(x, weight, padding=kernel // 2)


def climb(x: Tensor, depth: int, width: int) -> Tensor:
    """The first half of R: (B, C, h, w) → (B, ``width``, 2^depth · h, 2^depth · w)."""
    for _ in range(depth):
        x = functional.relu(random_convolution(x, width, 3))
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return x


def descend(x: Tensor, depth: int) -> Tensor:
    """The second half of R: (B, W, 2^depth · h, 2^depth · w) → (B, W, h, w)."""
    for _ in range(depth):
        # P and relu commute; in this order relu has a quarter of the work.
        x = functional.relu(functional.max_pool2d(random_convolution(x, x.shape[1], 3), 2))
    return x


class MRFP(Method):
    name = "mrfp"
    title = "MRFP+"
    paper = "Udupa et al., MRFP: Learning Generalizable Semantic Segmentation from Sim-2-Real, CVPR 2024"

    @dataclass(frozen=True)
    class Options:
        np: bool = option(True, "NP+, the perturbation of the early maps' statistics")
        hrfp: bool = option(True, "HRFP, the random high-resolution branch at the first stage")
        hrfp_plus: bool = option(True, "HRFP+, the same branch's way to the decoder: MRFP+; without it MRFP")
        deviation: float = option(0.75, "of α and β around 1")
        sensitive: bool = option(True, "NP+ scales the perturbation by Δ_c; without it NP")
        probability: float = option(0.5, "that a part is on in an iteration", origin="assumed")
        np_stages: int = option(2, "early stages whose maps NP+ perturbs", origin="assumed")
        depth: int = option(2, "times that the branch doubles the resolution", origin="assumed")
        width: int = option(8, "channels of the branch", origin="scaled")

        def __post_init__(self) -> None:
            if not 0 <= self.probability <= 1:
                raise ValueError(f"probability must be between 0 and 1, not {self.probability}")
            if not 0 <= self.deviation < float("inf"):
                raise ValueError(f"deviation is a number from 0 on, not {self.deviation}")
            require_at_least(self, np_stages=1, depth=1, width=1)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        stages = _stages(model.backbone)
        if len(stages) < self.options.np_stages:
            raise RunError(f"mrfp: np_stages is {self.options.np_stages}, but the backbone has {len(stages)} stages")
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
            y = perturb_statistics(x, options.deviation, options.sensitive) if np else x
            if stage is stages[0] and (hrfp or hrfp_plus):
                high = climb(x, options.depth, options.width)
                highest[:] = [high]
                if hrfp:
                    y = y + random_convolution(descend(high, options.depth), x.shape[1], 1, gain=1.0)
            return y

        def at_classifier(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            (features,) = inputs
            high = functional.interpolate(highest.pop(), features.shape[2:], mode="bilinear", align_corners=False)
            return (features + random_convolution(high, features.shape[1], 1, gain=1.0),)

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
