"""SET: tokens change the amplitude and the phase of the features of a frozen transformer, each for itself.

Yi et al., *Learning Spectral-Decomposed Tokens for Domain Generalized Semantic Segmentation*, ACM MM 2024
(arXiv 2407.18568). Behind every block, the Fourier transform over the grid of patches splits the features of each
channel into amplitude α and phase ρ, which hold the style and the content. Each has tokens of its own. With x = α or ρ,

    S = softmax(x Tᵀ / √C),   β(x) = MLP(S · MLP(T) + x),   F ← FFT⁻¹((α + β(α)) · exp(i (ρ + β(ρ)))).

As amplitudes change with the style and tokens do not, x Tᵀ is normalised over the tokens for α, to mean 0 and variance
1 for each frequency, before it is divided by √C ("attention optimisation").

Read at their sources: the paper's abstract, its figure of the whole (in the authors' repository, JingjunYi/SET), and
the authors' code. Of the paper's equations only those of the transform could be had, second-hand, in a review
(themoonlight.io): the sum over height and width without a factor, α its modulus, ρ its angle. β and where it is added
are as in the figure, and the rest as in the code: m = 100; r = 16 for the tokens of ρ, while those of α are whole;
their initial values; the first token's share is dropped; both MLPs are linear layers that all blocks share; AdamW with
1e-4; and the normalisation.

The code differs from the paper in two places. It transforms over images and channels, the last two axes of its layout,
so that the images of a batch mix; here it is over height and width. And it transforms β(α) exp(i β(ρ)) back by itself
and adds that, times a trained factor that begins at 0.001, to the features; the figure adds β within the spectrum and
has no factor. **Assumed**: the factor, before both β, as training would else begin far from the frozen transformer.
``add: features`` is the code's way.

**Assumed** too, and of no weight: the phase of an amplitude below 1e-5 is 0; phases reach from −π to π, but both ends
lie 1e-4 higher, since rounding decides between −π and π where the transform is a negative number, as a negative sum
over all patches is. **Left out**: the link of the phase's tokens to the queries of a Mask2Former head.

Licence: the authors' repository is built on Rein's, which is under GPL-3. Facts were read in it and no code was used;
this is written from the formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flexseg.components.tokens import GridAdapter, TokenBranch
from flexseg.method import Method, option, require_at_least
from flexseg.models import Segmentor

TINY = 1e-5
"""Amplitudes below this have no phase."""
CUT = 1e-4
"""How far phases reach beyond π, in radians."""


def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and phase, (B, rows, columns // 2 + 1, C), over the grid of real maps (B, rows, columns, C) float32.

    The other half of the frequencies is the mirrored conjugate. Phases lie in (−π + 1e-4, π + 1e-4], in radians.
    """
    found = torch.fft.rfft2(x, dim=(1, 2))
    amplitude = found.abs()
    phase = torch.where(amplitude < TINY, torch.ones_like(found), found).angle()
    return amplitude, torch.where(phase <= CUT - math.pi, phase + 2 * math.pi, phase)


def signal(amplitude: Tensor, phase: Tensor, columns: int) -> Tensor:
    """The real maps (B, rows, columns, C) with this half of a spectrum, the inverse of :func:`spectrum`."""
    values = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
    return torch.fft.irfft2(values, s=(amplitude.shape[1], columns), dim=(1, 2))


class SpectralTokens(GridAdapter):
    """F with another amplitude and another phase, behind each of ``blocks`` blocks.

    All of it is in float32: an amplitude can be the sum over all patches.

    Args:
        channels: C. tokens: m. rank: r of the tokens of the phase. scale: of β, at the start.
        patch: p, the side of a patch in pixels. within: β is added within the spectrum, else to the features.
    """

    def __init__(
        self, blocks: int, channels: int, tokens: int, rank: int, scale: float, patch: int, within: bool = True
    ) -> None:
        super().__init__()
        self.of_amplitude = TokenBranch(blocks, channels, tokens, None, patch, normalised="scores", idle=True)
        self.of_phase = TokenBranch(blocks, channels, tokens, rank, patch, idle=True)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.within = within

    def adapt(self, features: Tensor, block: int) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            maps = features.float()
            amplitude, phase = spectrum(maps)
            grid, columns = amplitude.shape[1:3], maps.shape[2]
            more = self.of_amplitude(amplitude.flatten(1, 2), block).unflatten(1, grid)
            turn = self.of_phase(phase.flatten(1, 2), block).unflatten(1, grid)
            if self.within:
                changed = signal(amplitude + self.scale * more, phase + self.scale * turn, columns)
            else:
                changed = maps + self.scale * signal(more, turn, columns)
        return changed.to(features.dtype)


class SET(Method):
    name = "set_tokens"
    title = "SET"
    paper = "Yi et al., Learning Spectral-Decomposed Tokens for Domain Generalized Semantic Segmentation, ACM MM 2024"
    needs = ("vit",)

    @dataclass(frozen=True)
    class Options:
        tokens: int = option(100, "m, tokens behind each block for each part; the first stands for no change")
        rank: int = option(16, "r, the rank of the tokens of the phase")
        scale: float = option(0.001, "what β is multiplied by at the start; it is trained", origin="assumed")
        add: Literal["spectrum", "features"] = option("spectrum", "where β is added: the paper's figure or its code")

        def __post_init__(self) -> None:
            require_at_least(self, tokens=2, rank=1)

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        trunk: Any = model.backbone
        knobs = self.options
        shape = (len(trunk.blocks), trunk.embed_dims, knobs.tokens, knobs.rank)
        SpectralTokens(*shape, knobs.scale, trunk.patch_size, within=knobs.add == "spectrum").attach(trunk)
        return model
