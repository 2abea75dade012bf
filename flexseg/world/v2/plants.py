"""Trees, bushes, hedges and the woods behind of version 2."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from flexseg.world.mesh import Material, Mesh, MeshBuilder, cuboid
from flexseg.world.v2.atlas import spectral_noise

TREES = 20
_LEAF = Material.FOLIAGE


def _ragged(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, n: int) -> list[tuple[float, float]]:
    """A round outline with lobes and leaf-sized teeth."""
    t = np.arange(n) * (2 * np.pi / n)
    r = 1.0 + 0.0 * t
    for k, spread in ((2, 0.08), (3, 0.08), (5, 0.07), (8, 0.06)):
        r = r + spread * rng.normal() * np.sin(k * t + rng.random() * 6)
    r = r + 0.06 * rng.normal(size=n)
    return [(float(cx + rx * a * np.cos(b)), float(cy + ry * a * np.sin(b))) for a, b in zip(r, t, strict=True)]


def _trunk(b: MeshBuilder, bare: float, thick: float, lean: float, top: float) -> None:
    b.flat([(-thick, 0), (thick, 0), (lean + thick * 0.7, bare), (lean - thick * 0.7, bare)], "vegetation", 1)
    for side in (-1.0, 0.2, 1.0):
        x = lean + side * 0.30 * (top - bare)
        b.flat(
            [
                (lean - thick * 0.6, bare - 0.2),
                (lean + thick * 0.6, bare - 0.2),
                (x + thick * 0.3, (bare + top) / 2),
                (x - thick * 0.3, (bare + top) / 2),
            ],
            "vegetation",
            1,
            0.85,
        )


@cache
def tree(variant: int) -> Mesh:
    """A tree 6–13 m tall facing the camera: slot 0 leaves, 1 bark.

    Variants: spreading (0–6), oval (7–11), column (12, 13), conifer (14–16), young in a row (17–19).
    """
    v = variant % TREES
    rng = np.random.default_rng([191, v])
    b = MeshBuilder()
    if 14 <= v <= 16:
        b.flat([(-0.18, 0), (0.18, 0), (0.12, 2.2), (-0.12, 2.2)], "vegetation", 1)
        tall, half = 8.0 + 3 * rng.random(), 2.0 + rng.random()
        for i in range(8):
            y = 1.3 + tall * i / 8
            wide = half * (1 - i / 8.5)
            edge = [(wide * f, y - 0.3 + 0.5 * float(rng.random())) for f in np.linspace(-1, 1, 9)]
            b.flat([*edge, (0.2, y + tall / 5), (-0.2, y + tall / 5)], "vegetation", 0, 0.55 + 0.05 * i, material=_LEAF)
        return b.build()
    if v < 7:
        bare, wide, tall, thick = 2.2 + rng.random(), 3.0 + 1.2 * rng.random(), 2.9 + rng.random(), 0.26
    elif v < 12:
        bare, wide, tall, thick = 2.0 + rng.random(), 2.2 + 0.6 * rng.random(), 3.4 + rng.random(), 0.22
    elif v < 14:
        bare, wide, tall, thick = 0.8, 1.2, 4.6, 0.2
    else:
        bare, wide, tall, thick = 2.1, 1.3 + 0.4 * rng.random(), 1.7, 0.09
    lean = 0.3 * float(rng.normal()) * (v < 12)
    cy = bare + tall * 0.92
    _trunk(b, bare + 0.4, thick, lean, cy + tall * 0.6)
    b.flat(_ragged(rng, lean, cy, wide, tall, 48), "vegetation", 0, 0.62, material=_LEAF)
    lumps = 11 if v < 12 else 6
    for angle, away, size in rng.random((lumps, 3)):
        a, r = angle * 6.28, 0.25 + 0.55 * away
        x, y = lean + wide * r * float(np.cos(a)), cy + tall * r * float(np.sin(a))
        s = 0.28 + 0.18 * float(size)
        tone = 1.0 + 0.45 * (y - cy) / tall + 0.16 * float(rng.normal())
        b.flat(_ragged(rng, x, y, wide * s, tall * s * 0.8, 20), "vegetation", 0, max(tone, 0.4), material=_LEAF)
    return b.build()


@cache
def bush(variant: int) -> Mesh:
    """A bush 1–2 m tall facing the camera."""
    rng = np.random.default_rng([192, variant])
    b = MeshBuilder()
    wide, tall = 0.9 + rng.random(), 0.5 + 0.5 * rng.random()
    b.flat(_ragged(rng, 0, tall * 0.8, wide, tall, 30), "vegetation", 0, 0.7, material=_LEAF)
    for x, y, s in rng.random((4, 3)):
        cx, cy = (x - 0.5) * wide * 1.3, tall * (0.5 + 0.8 * y)
        b.flat(
            _ragged(rng, cx, cy, wide * 0.3 + 0.2 * s, tall * 0.35, 14), "vegetation", 0, 0.8 + 0.4 * y, material=_LEAF
        )
    return b.build()


@cache
def hedge(variant: int, length: float, height: float) -> Mesh:
    """A clipped hedge along z, centred, about 0.8 m thick."""
    rng = np.random.default_rng([193, variant])
    b = MeshBuilder()
    cuts = np.linspace(-length / 2, length / 2, max(2, round(length / 1.6)))
    for z0, z1 in pairwise(cuts):
        high = height * (1 + 0.06 * rng.normal())
        box = cuboid(-0.4, 0.4, float(z0), float(z1), 0.0, float(high))
        for quad, tone in ((box.rear, 0.8), (box.left, 0.85), (box.right, 0.85), (box.top, 1.2)):
            b.face(quad, "vegetation", _LEAF, 0, tone)
    return b.build()


@cache
def _profiles(variant: int) -> np.ndarray:
    return spectral_noise(300 + variant, 64, 0.9)


def woods(rng: np.random.Generator, x0: float, x1: float, z: float, height: float) -> Mesh:
    """A distant line of trees as one ragged band facing the camera: slot 0 leaves."""
    b = MeshBuilder()
    profile = _profiles(int(rng.integers(8)))[int(rng.integers(64))]
    xs = np.linspace(x0, x1, 64)
    tops = height * np.clip(0.75 + 0.22 * profile, 0.3, 1.6)
    outline = [(x0, 0.0), (x1, 0.0), *((float(x), float(t)) for x, t in zip(xs[::-1], tops[::-1], strict=True))]
    b.face([(x, y, z) for x, y in outline], "vegetation", _LEAF, 0, 0.75, cull=False)
    return b.build()
