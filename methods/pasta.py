"""PASTA: the amplitude spectrum of every image is jittered, more strongly at higher frequencies.

PASTA (Chattopadhyay et al., *Proportional Amplitude Spectrum Training Augmentation for Syn-to-Real Domain
Generalization*, ICCV 2023). With the Fourier transform F = A·e^{iφ} of a channel and r the distance of the frequency
(u, v) from zero, in cycles per image:

    A'(u, v) = A(u, v) · ε,   ε ~ N(1, σ²(u, v)),   σ(u, v) = (α · r / r_max)^k + β,   r_max = ½ √(H² + W²)

The phase φ is kept, the result is clipped to the range of the image. Published: α = 3, β = 0.25, k = 2. The authors'
code draws ε for every bin of the whole spectrum by itself and takes the real part of the inverse transform. Of a real
image that leaves the mean of ε at (u, v) and at (−u, −v), whose deviation is σ/√2 (σ at zero and at the highest
frequencies, which are their own mirrors): the factors here have that deviation, and are drawn for one half of the
spectrum alone. Where ε is negative the formula turns the phase by π. The result is rounded to whole grey levels.

Published on the whole frame, before it is scaled and cropped; here on the crop, which is the whole image at the default
benchmark. σ depends on the frequency in cycles a pixel alone, which a crop leaves as it is. But a small image has a
larger share of its energy at high frequencies, where the same α jitters most.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from flexseg.method import Method, option


@lru_cache(maxsize=8)
def deviation(height: int, width: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """σ(u, v) on the half spectrum of a real image: (H, W // 2 + 1) float32, zero frequency first."""
    rows, columns = fft.fftfreq(height, 1 / height), fft.rfftfreq(width, 1 / width)
    radius = np.hypot(rows[:, None], columns) / (np.hypot(height, width) / 2)
    return ((alpha * radius) ** k + beta).astype(np.float32)


@lru_cache(maxsize=8)
def _of_real_part(height: int, width: int) -> np.ndarray:
    """What remains of a bin's own deviation: 1/√2, the mean with its mirror's, or 1 where it is its own mirror."""
    rows, columns = np.arange(height)[:, None], np.arange(width // 2 + 1)
    own_mirror = (2 * rows % height == 0) & (2 * columns % width == 0)
    return np.where(own_mirror, np.float32(1), np.float32(np.sqrt(0.5)))


def jitter(image: np.ndarray, sigma: np.ndarray, rng: np.random.Generator, per_channel: bool = True) -> np.ndarray:
    """Multiply the amplitudes of ``image`` (H, W, 3) by ε: (H, W, 3) float32, neither clipped nor rounded.

    ``sigma`` is that of :func:`deviation`, (H, W // 2 + 1), of ε ~ N(1, σ²) before the real part is taken.
    """
    height, width, channels = image.shape
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    draws = rng.standard_normal((channels if per_channel else 1, *sigma.shape), dtype=np.float32)
    factors = 1 + sigma * _of_real_part(height, width) * draws
    # These columns hold both halves of their frequencies: (u, v) and (−u, v) are one wave and take one factor.
    for column in {0, width // 2} if width % 2 == 0 else {0}:
        factors[:, : height // 2 : -1, column] = factors[:, 1 : (height + 1) // 2, column]
    return fft.irfft2(fft.rfft2(planes) * factors, s=(height, width)).transpose(1, 2, 0)


class Pasta(Method):
    name = "pasta"
    title = "PASTA"
    paper = "Chattopadhyay et al., PASTA: Proportional Amplitude Spectrum Training Augmentation, ICCV 2023"

    @dataclass(frozen=True)
    class Options:
        alpha: float = option(3.0, "α, how much the jitter grows with frequency")
        beta: float = option(0.25, "β, the jitter of the mean")
        k: float = option(2.0, "k, how steeply it grows")
        per_channel: bool = option(True, "R, G and B are jittered independently of each other", origin="assumed")

        def __post_init__(self) -> None:
            if self.alpha < 0 or self.beta < 0 or self.k <= 0:
                raise ValueError(f"alpha and beta must not be negative and k positive: {self}")

    def transform(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        height, width = label.shape
        sigma = deviation(height, width, self.options.alpha, self.options.beta, self.options.k)
        changed = jitter(image, sigma, rng, self.options.per_channel)
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8), label
