"""TLDR, with colour transfer between training images: textures are randomised, and the network is made to learn them.

Kim et al., *Texture Learning Domain Randomization for Domain Generalized Segmentation*, ICCV 2023, with the constants
of its code (ssssshwan/TLDR, ``mmseg/models/uda/stylization.py`` and ``configs/TLDR``). With x an image, s a style
image, x' the image in the style of s, F_l the map (C_l channels, P_l pixels) behind stage l and G_l = F_l F_lᵀ / P_l
its Gram matrix, its texture,

    L = ½ CE(x) + ½ CE(x') + (1 − t/T) [L_TR + L_TG]
    L_TR = Σ_l u_l/C_l ‖G_l(x) − G_l⁰(x)‖             texture regularisation, G⁰ by the encoder before training
    L_TG = Σ_l v_l/C_l ‖M_l ⊙ (G_l(s) − G_l(x'))‖     texture generalisation
    M_l = 1 where G_l(x') − G_l(x) > θ, else 0

with Frobenius norms over the whole batch, t of T iterations. Published: u = (5, 0.5, 0.05, 0.005) · 10⁻³ on the four
stages of a ResNet, v = (5, 0.5) · 10⁻³ on the first two and θ = 0.1; with MiT-B5 u = (200, 20, 2, 0.2) · 10⁻³,
v = (50, 5) · 10⁻³ and θ = 0.01. Gradients pass through every G but G⁰; x and x' are passed after each other, so that
BatchNorm has statistics of each.

**Substituted**: x' is published as PhotoWCT's, with pictures of ImageNet as styles. Neither is here. Styles are other
images of the batch, and x' = Σ_s^½ Σ_x^−½ (x − μ_x) + μ_s whitens and colours red, green and blue as PhotoWCT does its
features: it transfers colours, and textures only in so far as these are contrasts of colours. As a rotation of the
batch, the styles need no pass of their own: their maps are those of the batch.

G⁰ is by a frozen copy of the encoder as training finds it, in eval mode. Published, that knows ImageNet; where a
benchmark's trunk starts from random weights, L_TR can only hold on to random textures.

**Assumed**: a UNet's stages at strides 4 to 32 take the place of the ResNet's; images without a label add to no term.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flexseg.classes import IGNORE
from flexseg.components.fd import FrozenEncoder, encoder_stages
from flexseg.components.norms import covariances
from flexseg.components.style import early_stages
from flexseg.errors import RunError
from flexseg.method import Batch, Method, auxiliary_losses, option, weight_terms
from flexseg.models import Segmentor


def transfer_colours(images: Tensor, styles: Tensor) -> Tensor:
    """x' of ``images`` (B, 3, H, W): with the means and covariances of the channels of ``styles`` (B, 3, H, W)."""
    with torch.autocast(images.device.type, enabled=False):
        mean, style_mean = images.mean(dim=(2, 3), keepdim=True), styles.mean(dim=(2, 3), keepdim=True)
        centred = images - mean
        own, wanted = (covariances(each).double() for each in (centred, styles - style_mean))
        change = (_power(wanted, 0.5) @ _power(own, -0.5)).to(images.dtype)
        return (change @ centred.flatten(2)).view_as(images) + style_mean


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """A power of positive definite matrices (B, d, d)."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors @ torch.diag_embed(values.clamp_min(1e-5).pow(exponent)) @ vectors.mT


def gram(features: Tensor) -> Tensor:
    """G of maps (B, C, H, W), or of tokens (B, P, C): (B, C, C) float32."""
    with torch.autocast(features.device.type, enabled=False):
        pixels = features.float() if features.ndim == 3 else features.float().permute(0, 2, 3, 1).flatten(1, 2)
        return pixels.mT @ pixels / pixels.shape[1]


def distance(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """‖weight ⊙ (one − other)‖ / C over the whole batch, a scalar. one, other: (B, C, C). weight: is broadcast."""
    return torch.linalg.vector_norm((one - other) * weight) / one.shape[-1]


@contextmanager
def watched(backbone: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what the module at each path gives in the first pass within the block."""
    found: dict[str, Tensor] = {}

    def note(path: str, output: Tensor) -> None:
        found.setdefault(path, output)

    with ExitStack() as hooks:
        for path in paths:
            module = backbone.get_submodule(path)
            handle = module.register_forward_hook(lambda *call, path=path: note(path, call[2]))
            hooks.callback(handle.remove)
        yield found


class TLDR(Method):
    name = "tldr"
    title = "TLDR (styles = training images, colour transfer)"
    paper = "Kim et al., Texture Learning Domain Randomization for Domain Generalized Segmentation, ICCV 2023"

    @dataclass(frozen=True)
    class Options:
        regularisation: tuple[float, ...] = option((5e-3, 5e-4, 5e-5, 5e-6), "u_l of the stages behind the stem")
        generalisation: tuple[float, ...] = option((5e-3, 5e-4), "v_l of the stages behind the stem")
        threshold: float = option(0.1, "θ: from what growth in x' on an entry of G is a texture of the style")
        original: float = option(0.5, "weight of the image's own cross entropy")
        stylised: float = option(0.5, "weight of the cross entropy of the image in another style")

        def __post_init__(self) -> None:
            weights = (*self.regularisation, *self.generalisation, self.original, self.stylised)
            if not all(weight >= 0 for weight in weights):
                raise ValueError(f"no weight must be negative: {self}")
            if not self.threshold >= 0:
                raise ValueError(f"threshold must not be negative: {self.threshold}")

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        stages = early_stages(model.backbone)
        count = max(len(self.options.regularisation), len(self.options.generalisation))
        begin = 0 if stages[0].startswith("layers.") else 1  # a MiT has no stem; a UNet's first stage stands for one
        self._stages = stages[begin : begin + count]
        if len(self._stages) < count:
            raise RunError(f"tldr has weights for {count} stages, but this backbone has {len(self._stages)} of them")
        self._frozen = FrozenEncoder(model.backbone)
        return self._frozen

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        turn = batch.rotation(self.setup.seed)
        with watched(model.backbone, self._stages) as maps:
            output = model(batch.images)
        with watched(model.backbone, self._stages) as changed_maps:
            changed = model(transfer_colours(batch.images, batch.images.roll(turn, 0)))
        own = weight_terms(self.losses(batch, output), output) | auxiliary_losses(output, batch.labels)
        other = weight_terms(self.losses(batch, changed), changed) | auxiliary_losses(changed, batch.labels)
        terms = {key: self.options.original * term for key, term in own.items()}
        terms |= {f"{key}_stylised": self.options.stylised * term for key, term in other.items()}

        grams = [gram(maps[path]) for path in self._stages]
        changed_grams = [gram(changed_maps[path]) for path in self._stages]
        labelled = (batch.labels != IGNORE).flatten(1).any(dim=1)[:, None, None]
        fade = max(0.0, 1 - batch.iteration / self.setup.iterations)
        regularised = [
            weight * distance(ours, first, labelled)
            for weight, ours, first in zip(self.options.regularisation, grams, self._first(model, batch), strict=False)
        ]
        generalised = [
            weight * distance(ours.roll(turn, 0), theirs, (theirs - ours > self.options.threshold) & labelled)
            for weight, ours, theirs in zip(self.options.generalisation, grams, changed_grams, strict=False)
        ]
        return terms | {
            "texture_regularisation": fade * sum(regularised, output.logits.new_zeros(())),
            "texture_generalisation": fade * sum(generalised, output.logits.new_zeros(())),
        }

    def _first(self, model: Segmentor, batch: Batch) -> list[Tensor]:
        """G⁰ of the stages."""
        encoder = self._frozen.encoder
        inside = encoder_stages(model.backbone) is not None
        paths = [path.removeprefix("encoder.") if inside else path for path in self._stages]
        with watched(encoder, paths) as maps:
            self._frozen(model.context(batch.images))
        return [gram(maps[path]) for path in paths]
