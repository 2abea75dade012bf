"""Augmentations of appearance that keep the layout: PixMix and a bilateral filter.

Both take (H, W, 3) uint8 RGB and a generator and return the same shape and type; the input is not modified.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from scipy import fft

from flexseg.data.photometric import photometric_distortion

PICTURE_SIDE = 192
"""Height and width of a mixing picture, in pixels."""
COVER = 8 / 7
"""A mixing picture is resized to this many times the image's longer side before it is cropped (published: 256/224)."""


def bilateral(
    image: np.ndarray, rng: np.random.Generator, share: float = 0.5, diameter: int = 13, sigma: float = 75.0
) -> np.ndarray:
    """Smooth all but strong edges of this ``share`` of the images, as ReVT does (Termöhlen et al., ICCV-W 2023).

    Tomasi & Manduchi, *Bilateral Filtering for Gray and Color Images*, ICCV 1998: a pixel p becomes the mean of its
    neighbours q with weights exp(−|x_p − x_q|₁²/2σ²) · exp(−|p − q|²/2σ²), in OpenCV's version. The neighbourhood's
    diameter is drawn among 1, 3, … up to ``diameter`` pixels; σ is in levels (summed over R, G, B) and in pixels.
    """
    filtered, drawn = rng.random() < share, 1 + 2 * int(rng.integers((diameter + 1) // 2))
    if not filtered or drawn == 1:
        return image
    return cv2.bilateralFilter(np.ascontiguousarray(image), drawn, sigma, sigma)


def pixmix(
    image: np.ndarray, rng: np.random.Generator, rounds: int = 4, beta: float = 3.0, pictures: int = 128
) -> np.ndarray:
    """PixMix (Hendrycks et al., *PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures*, CVPR 2022).

    Begin with x or augment(x); then n ~ U{0, …, ``rounds``} times mix in augment(x) or a mixing picture, evenly, by
    :func:`mix_add` or :func:`mix_multiply`, evenly, and clip to the range of the image. As ReVT uses it, all mixtures
    of an image take one picture, and augment is the photometric distortion.

    Args:
        rounds: k of the paper. beta: β, the larger the less is mixed in.
        pictures: how many :func:`mixing_picture` there are to draw from.
    """
    picture = _random_window(mixing_picture(int(rng.integers(pictures))), image.shape[:2], rng)
    mixed = _unit(photometric_distortion(image, rng) if rng.integers(2) else image)
    for _ in range(rng.integers(rounds, endpoint=True)):
        other = photometric_distortion(image, rng) if rng.integers(2) else picture
        mix = mix_multiply if rng.integers(2) else mix_add
        mixed = np.clip(mix(mixed, _unit(other), *_exponents(rng, beta)), 0, 1)
    return np.rint(mixed * 255).astype(np.uint8)


def mix_add(one: np.ndarray, other: np.ndarray, a: float, b: float) -> np.ndarray:
    """a·x + b·y of two images on [−1, 1], given and returned on [0, 1]; not clipped."""
    return (a * (2 * one - 1) + b * (2 * other - 1) + 1) / 2


def mix_multiply(one: np.ndarray, other: np.ndarray, a: float, b: float) -> np.ndarray:
    """x^a · y^b of two images on [0, 2], given and returned on [0, 1]; not clipped, a ≥ 0."""
    half_level = 1 / 255  # b may be negative: black in y must not become infinite
    return (2 * one) ** a * np.maximum(2 * other, half_level) ** b / 2


@lru_cache(maxsize=1024)
def mixing_picture(number: int) -> np.ndarray:
    """The mixing picture of this number: (192, 192, 3) uint8, read only, the same in every run.

    The paper mixes in fractals from artists and feature visualisations of networks, which need a
    download. They are replaced, in turn, by noise with a spectrum that falls as a power of the frequency ("plasma"),
    Julia sets, and attractors of random iterated functions, in random colours.
    """
    rng = np.random.default_rng([number])
    picture = (_plasma, _julia, _attractor)[number % 3](rng, PICTURE_SIDE)
    levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    levels.setflags(write=False)
    return levels


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _exponents(rng: np.random.Generator, beta: float) -> tuple[float, float]:
    """a and b of a mixture: a ~ B(β, 1), b ~ B(1, β), or, half of the time, one moves away: 1 + B(1, β), −B(1, β)."""
    if rng.integers(2):
        return rng.beta(beta, 1), rng.beta(1, beta)
    return 1 + rng.beta(1, beta), -rng.beta(1, beta)


def _random_window(picture: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Cut a random window of ``shape`` (height, width) from the picture, resized to be larger than it."""
    side = math.ceil(COVER * max(shape))
    method = cv2.INTER_AREA if side < len(picture) else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (side, side), interpolation=method)
    top, left = rng.integers(side - shape[0], endpoint=True), rng.integers(side - shape[1], endpoint=True)
    return resized[top : top + shape[0], left : left + shape[1]]


def _palette(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map values (H, W) to colours (H, W, 3) in [0, 1], by a random cosine for each of R, G and B."""
    turns, phases = rng.uniform(0.5, 2.5, 3), rng.uniform(0, 1, 3)
    return 0.5 + 0.5 * np.cos(2 * np.pi * (values[..., None] * turns + phases))


def _plasma(rng: np.random.Generator, side: int) -> np.ndarray:
    radius = np.hypot(fft.fftfreq(side, 1 / side)[:, None], fft.rfftfreq(side, 1 / side))
    radius[0, 0] = np.inf
    noise = rng.standard_normal((2, *radius.shape))
    values = fft.irfft2((noise[0] + 1j * noise[1]) / radius ** rng.uniform(1.2, 2.2), s=(side, side))
    return _palette(values / (4 * values.std()), rng)


def _julia(rng: np.random.Generator, side: int) -> np.ndarray:
    """Escape times of z ← z² + c, with c a little outside the Mandelbrot set's main cardioid, where they are rich."""
    angle = rng.uniform(0, 2 * np.pi)
    c = np.complex64(rng.uniform(1.01, 1.1) * (np.exp(1j * angle) / 2 - np.exp(2j * angle) / 4))
    turn, zoom = np.exp(1j * rng.uniform(0, 2 * np.pi)), rng.uniform(0.5, 1.3)
    axis = np.linspace(-zoom, zoom, side)
    z = ((axis + 1j * axis[:, None]) * turn).astype(np.complex64)
    time = np.zeros((side, side), dtype=np.float32)
    for _ in range(48):
        inside = np.abs(z) < 4
        time += inside
        z = np.where(inside, z * z + c, z)
    return _palette(np.log1p(time) / np.log(49), rng)


def _attractor(rng: np.random.Generator, side: int) -> np.ndarray:
    """Density of points under random contractions, coloured by the contractions, on a flat ground."""
    count, points = int(rng.integers(3, 6)), 6000
    angles, shrinks = rng.uniform(0, 2 * np.pi, (2, count)), rng.uniform(0.35, 0.75, (2, count))
    cosine, sine = np.cos(angles) * shrinks, np.sin(angles) * shrinks
    matrices = np.stack([np.stack([cosine[0], -sine[1]], -1), np.stack([sine[0], cosine[1]], -1)], -2)
    shifts, colours = rng.uniform(-1, 1, (count, 2)), rng.uniform(0.2, 1, (count, 3))
    places, colour, seen = rng.uniform(-1, 1, (points, 2)), rng.uniform(0, 1, (points, 3)), []
    for step in range(40):
        chosen = rng.integers(count, size=points)
        places = (matrices[chosen] @ places[..., None])[..., 0] + shifts[chosen]
        colour = (colour + colours[chosen]) / 2
        if step >= 10:
            seen.append((places, colour))
    cloud, shades = (np.concatenate(part) for part in zip(*seen, strict=True))
    low, high = np.quantile(cloud, (0.01, 0.99), axis=0)
    cells = np.clip((cloud - low) / np.maximum(high - low, 1e-9) * side, 0, side - 1).astype(np.int64)
    index = cells[:, 0] * side + cells[:, 1]
    density = np.bincount(index, minlength=side * side)
    sums = np.stack([np.bincount(index, weights=shades[:, k], minlength=side * side) for k in range(3)], -1)
    strength = np.log1p(density) / np.log1p(density.max())
    ground = rng.uniform(0, 0.5, 3)
    picture = ground + strength[:, None] * (sums / np.maximum(density, 1)[:, None] - ground)
    return picture.reshape(side, side, 3)
