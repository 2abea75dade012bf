"""Small tileable noise textures, made once from fixed seeds."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

SIZE = 256
"""Side of every texture in texels; coordinates wrap around."""


@cache
def value_noise(seed: int, first: int, octaves: int, gain: float = 0.55) -> np.ndarray:
    """Tileable value noise (SIZE, SIZE) float32 with mean 0 and unit spread; ``first`` lattice cells across.

    Sum of octaves as in Perlin, *An image synthesizer*, 1985, with cubic interpolation between lattice values.
    """
    rng = np.random.default_rng([17, seed])
    out = np.zeros((SIZE, SIZE), np.float32)
    for k in range(octaves):
        cells = min(first * 2**k, SIZE)
        lattice = rng.standard_normal((cells, cells)).astype(np.float32)
        tiled = np.pad(lattice, 2, mode="wrap")
        step = SIZE // cells
        big = cv2.resize(tiled, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        out += gain**k * big[2 * step : 2 * step + SIZE, 2 * step : 2 * step + SIZE]
    out -= out.mean()
    return out / out.std()


def sample(texture: np.ndarray, u: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Nearest texel at (u, v) metres with ``scale`` texels a metre, wrapped."""
    iu = (u * scale).astype(np.int32) & (SIZE - 1)
    iv = (v * scale).astype(np.int32) & (SIZE - 1)
    return texture.ravel()[iv * SIZE + iu]
