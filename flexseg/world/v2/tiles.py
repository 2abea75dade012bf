"""The surface textures: factors on a surface's colour, synthesised once from fixed seeds.

Each tile is (SIDE, SIDE, 4) uint8: factors on red, green and blue (128 is 1) and how opaque the surface is (255 whole).
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import cv2
import numpy as np

from flexseg.world.v2.atlas import ONE, Atlas, spectral_noise

SIDE = 256


class Tile(IntEnum):
    """What the tiles show."""

    PLAIN = 0
    ASPHALT = 1
    WORN_ASPHALT = 2
    CRACKED_ASPHALT = 3
    SLABS = 4
    COBBLES = 5
    CONCRETE = 6
    GRASS = 7
    EARTH = 8
    LEAVES = 9
    DENSE_LEAVES = 10
    AUTUMN_LEAVES = 11
    TWIGS = 12
    BRICK = 13
    DARK_BRICK = 14
    PLASTER = 15
    STAINED_PLASTER = 16
    PANELS = 17
    ASHLAR = 18
    TILES = 19
    PLANKS = 20
    PAINTWORK = 21
    CLOTH = 22
    NEEDLES = 23


_SPANS: dict[Tile, float] = {
    Tile.PLAIN: 4.0,
    Tile.ASPHALT: 3.2,
    Tile.WORN_ASPHALT: 5.0,
    Tile.CRACKED_ASPHALT: 6.4,
    Tile.SLABS: 4.8,
    Tile.COBBLES: 1.6,
    Tile.CONCRETE: 4.8,
    Tile.GRASS: 3.2,
    Tile.EARTH: 3.2,
    Tile.LEAVES: 2.2,
    Tile.DENSE_LEAVES: 1.7,
    Tile.AUTUMN_LEAVES: 2.4,
    Tile.TWIGS: 3.0,
    Tile.BRICK: 2.4,
    Tile.DARK_BRICK: 2.4,
    Tile.PLASTER: 6.4,
    Tile.STAINED_PLASTER: 8.0,
    Tile.PANELS: 6.4,
    Tile.ASHLAR: 3.2,
    Tile.TILES: 3.2,
    Tile.PLANKS: 1.6,
    Tile.PAINTWORK: 3.0,
    Tile.CLOTH: 0.6,
    Tile.NEEDLES: 2.0,
}
SPANS = np.array([_SPANS[tile] for tile in Tile], np.float32)
"""Metres that a tile spans on its surface, by :class:`Tile`."""


def _tile(luma: np.ndarray, seed: int, chroma: float, opaque: np.ndarray | float = 1.0) -> np.ndarray:
    """A tile from factors (SIDE, SIDE) whose hue wanders by ``chroma``; their mean becomes 1."""
    warm, green = spectral_noise(seed + 900, SIDE, 1.0), spectral_noise(seed + 950, SIDE, 1.0)
    shift = np.stack([1 + chroma * warm, 1 + 0.5 * chroma * green, 1 - chroma * warm], axis=2)
    rgb = np.clip(luma[:, :, None] * shift, 0, None)
    rgb *= ONE / rgb.mean((0, 1))
    cover = np.broadcast_to(np.asarray(opaque, np.float32) * 255, (SIDE, SIDE))[:, :, None]
    return np.clip(np.concatenate([rgb, cover], axis=2) + 0.5, 0, 255).astype(np.uint8)


def _asphalt(seed: int, cracks: float, patches: int) -> np.ndarray:
    rng = np.random.default_rng([29, seed])
    luma = 1 + 0.09 * spectral_noise(seed, SIDE, 0.25) + 0.05 * spectral_noise(seed + 1, SIDE, 1.0)
    for _ in range(patches):
        x, y = rng.integers(0, SIDE, 2)
        w, h = rng.integers(40, 130, 2)
        patch = np.zeros((SIDE, SIDE), np.float32)
        patch[:h, :w] = rng.uniform(-0.16, 0.1)
        luma += np.roll(patch, (y, x), (0, 1))
    if cracks:
        ridge = np.abs(spectral_noise(seed + 2, SIDE, 1.3, 3.0))
        luma -= cracks * np.clip(1 - ridge / 0.035, 0, 1)
    return _tile(luma, seed, 0.012)


def _grid(seed: int, rows: int, columns: int, joint: int, depth: float, spread: float, *, bond: bool) -> np.ndarray:
    """Bricks, slabs or blocks: tone by piece, darker joints of ``joint`` texels; ``bond`` shifts every other row."""
    rng = np.random.default_rng([31, seed])
    y, x = np.mgrid[:SIDE, :SIDE]
    high, wide = SIDE // rows, SIDE // columns
    row = y // high
    moved = (x + (row % 2) * (wide // 2 if bond else 0)) % SIDE
    tone = rng.standard_normal((rows, columns)).astype(np.float32)
    luma = 1 + spread * tone[row, moved // wide]
    inside = (y % high >= joint) & (moved % wide >= joint)
    luma = np.where(inside, luma, 1 - depth)
    lit = (y % high == joint) | (moved % wide == joint)
    return luma + 0.05 * lit + 0.05 * spectral_noise(seed, SIDE, 0.6) + 0.05 * spectral_noise(seed + 1, SIDE, 1.1)


def _leaves(seed: int, count: int, size: tuple[int, int], holes: float, chroma: float) -> np.ndarray:
    """Foliage: clusters lit from above in front of a dark inside, with gaps where the background shines through."""
    rng = np.random.default_rng([37, seed])
    clumps = spectral_noise(seed, SIDE, 1.2, 2.0)
    luma = np.full((SIDE, SIDE), 0.30, np.float32)
    draws = rng.random((count, 5))
    for x, y, s, tone, turn in draws[np.argsort(draws[:, 3])]:
        layer = (int(x * SIDE), int(y * SIDE))
        axes = (int(size[0] + s * (size[1] - size[0])), max(1, int((size[0] + s * (size[1] - size[0])) * 0.6)))
        bright = float(np.clip(0.45 + 0.75 * tone + 0.22 * clumps[layer[1] % SIDE, layer[0] % SIDE], 0.25, 1.9))
        for dx in (-SIDE, 0, SIDE):
            for dy in (-SIDE, 0, SIDE):
                centre = (layer[0] + dx, layer[1] + dy)
                if -12 < centre[0] < SIDE + 12 and -12 < centre[1] < SIDE + 12:
                    cv2.ellipse(luma, centre, axes, turn * 180, 0, 360, bright, -1)
    luma = luma * np.clip(1 + 0.34 * clumps, 0.3, 2)
    gaps = spectral_noise(seed + 3, SIDE, 0.9, 4.0)
    opaque = np.clip(1 - (gaps - np.quantile(gaps, 1 - holes)) * 5, 0, 1) if holes else 1.0
    return _tile(luma, seed, chroma, opaque)


def _twigs(seed: int) -> np.ndarray:
    """The crown of a bare tree: fine branches in front of the sky."""
    rng = np.random.default_rng([41, seed])
    cover = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(150):
        x, y = rng.random(2) * SIDE
        angle = -np.pi / 2 + rng.normal() * 0.8
        wide = int(rng.random() < 0.25) + 1
        for _ in range(5):
            nx, ny = x + 14 * np.cos(angle), y + 14 * np.sin(angle)
            for dx in (-SIDE, 0, SIDE):
                for dy in (-SIDE, 0, SIDE):
                    ends = (int(x + dx), int(y + dy)), (int(nx + dx), int(ny + dy))
                    cv2.line(cover, *ends, 1.0, wide, cv2.LINE_AA)
            x, y, angle = nx, ny, angle + rng.normal() * 0.45
    cover = np.clip(0.5 * cover + 0.72 + 0.10 * spectral_noise(seed, SIDE, 1.0), 0, 1)
    return _tile(1 + 0.2 * spectral_noise(seed + 1, SIDE, 0.8), seed, 0.03, cover)


def _plaster(seed: int, streaks: float) -> np.ndarray:
    luma = 1 + 0.035 * spectral_noise(seed, SIDE, 0.5) + 0.05 * spectral_noise(seed + 1, SIDE, 1.2)
    runs = cv2.blur(spectral_noise(seed + 2, SIDE, 0.6), (1, 61), borderType=cv2.BORDER_REFLECT)
    return _tile(luma - streaks * np.clip(runs / runs.std(), 0, 3), seed, 0.015)


def _strips(seed: int, count: int, depth: float) -> np.ndarray:
    """Planks or roof tiles: rows that are darker at their lower edge."""
    rng = np.random.default_rng([43, seed])
    high = SIDE // count
    y = np.arange(SIDE)
    tone = 1 + 0.10 * rng.standard_normal(count)[y // high]
    edge = np.where(y % high < max(1, high // 5), 1 - depth, 1.0)
    luma = np.repeat((tone * edge)[:, None], SIDE, axis=1)
    return _tile(luma + 0.07 * spectral_noise(seed, SIDE, 0.8), seed, 0.03)


@cache
def surface_atlas() -> Atlas:
    """All surface tiles, in the order of :class:`Tile`."""
    blades = spectral_noise(61, SIDE, 0.3)
    grass = 1 + 0.20 * blades + 0.16 * spectral_noise(62, SIDE, 1.0)
    return Atlas(
        [
            _tile(1 + 0.02 * spectral_noise(1, SIDE, 1.0), 1, 0.006),
            _asphalt(10, 0.0, 0),
            _asphalt(20, 0.12, 3),
            _asphalt(30, 0.30, 5),
            _tile(_grid(40, 8, 8, 2, 0.32, 0.05, bond=True), 40, 0.014),
            _tile(_grid(45, 16, 16, 3, 0.42, 0.12, bond=True), 45, 0.02),
            _tile(_grid(50, 2, 2, 2, 0.25, 0.04, bond=False), 50, 0.01),
            _tile(grass, 60, 0.10),
            _tile(1 + 0.12 * spectral_noise(70, SIDE, 0.4) + 0.14 * spectral_noise(71, SIDE, 1.1), 70, 0.05),
            _leaves(80, 1500, (4, 9), 0.04, 0.07),
            _leaves(85, 2600, (3, 6), 0.0, 0.06),
            _leaves(90, 1300, (4, 9), 0.07, 0.16),
            _twigs(95),
            _tile(_grid(100, 32, 8, 1, 0.16, 0.10, bond=True), 100, 0.03),
            _tile(_grid(105, 32, 8, 1, -0.25, 0.14, bond=True), 105, 0.04),
            _plaster(110, 0.01),
            _plaster(115, 0.045),
            _tile(_grid(120, 4, 2, 2, 0.22, 0.03, bond=False), 120, 0.01),
            _tile(_grid(125, 8, 4, 2, 0.22, 0.07, bond=True), 125, 0.015),
            _strips(130, 16, 0.35),
            _strips(135, 8, 0.30),
            _tile(1 + 0.03 * spectral_noise(140, SIDE, 1.2), 140, 0.006),
            _tile(1 + 0.10 * spectral_noise(145, SIDE, 1.0), 145, 0.02),
            _leaves(150, 3200, (2, 5), 0.0, 0.05),
        ]
    )
