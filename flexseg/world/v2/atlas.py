"""Tileable textures with mip levels in one flat array, so that one gather paints all materials at once.

Mip levels after Williams, *Pyramidal parametrics*, SIGGRAPH 1983: a pattern smaller than a pixel becomes its mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ONE = 128
"""The stored value that stands for a factor of 1."""


class Atlas:
    """Textures of one size and number of channels, stored as uint8."""

    def __init__(self, tiles: Sequence[np.ndarray]) -> None:
        """``tiles`` are (S, S, C) uint8 of equal shape, S a power of two."""
        side, _, channels = tiles[0].shape
        self.side = side
        self.levels = side.bit_length()
        pieces, self._start = [], np.zeros((len(tiles), self.levels), np.int32)
        at = 0
        for number, tile in enumerate(tiles):
            level: np.ndarray = tile.astype(np.float32)
            for k in range(self.levels):
                self._start[number, k] = at
                pieces.append(np.clip(level + 0.5, 0, 255).astype(np.uint8).reshape(-1, channels))
                at += len(pieces[-1])
                if k + 1 < self.levels:
                    level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) / 4
        self._texels = np.concatenate(pieces)

    def level_of(self, size: np.ndarray) -> np.ndarray:
        """The mip level at which a texel covers ``size``, a pixel's width as a fraction of the tile's side."""
        octaves = np.log2(np.maximum(size * np.float32(self.side), np.float32(1e-6)))
        return np.clip(octaves + np.float32(0.4), 0, self.levels - 1).astype(np.int32)

    def sample(self, tile: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray) -> np.ndarray:
        """(N, C) uint8 at (u, v), in sides of the tile, of the tiles ``tile`` (N,) at mip ``level`` (N,)."""
        side = np.int32(self.side) >> level
        last = side - 1
        column = np.floor(u * side).astype(np.int32) & last
        row = np.floor(v * side).astype(np.int32) & last
        return self._texels[self._start[tile, level] + row * side + column]


def spectral_noise(seed: int, side: int, falloff: float, lowest: float = 1.0) -> np.ndarray:
    """Tileable Gaussian noise (side, side) float32 of mean 0 and spread 1 whose amplitude falls as f^−falloff.

    ``falloff`` 1 is that of photographs (Field, *J. Opt. Soc. Am. A* 4, 1987); below ``lowest`` cycles a tile it is
    constant.
    """
    rng = np.random.default_rng([23, seed])
    rows = np.fft.fftfreq(side)[:, None] * side
    columns = np.fft.rfftfreq(side)[None] * side
    frequency = np.maximum(np.hypot(rows, columns), lowest)
    wave = np.fft.rfft2(rng.standard_normal((side, side))) * frequency**-falloff
    wave[0, 0] = 0
    out = np.fft.irfft2(wave, s=(side, side))
    return (out / out.std()).astype(np.float32)
