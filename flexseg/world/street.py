"""The ground and what lines it: road, markings, kerbs, pavements, crossings and façades, as one-off meshes.

Unlike things, these are built in street coordinates: x to the right of the road's centre line, z along it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from flexseg.world.mesh import Glow, Material, Mesh, MeshBuilder, Quad, Slot, cuboid, inset, prism

STRIPS = (-4.0, 3.0, 7.0, 12.0, 19.0, 29.0, 43.0, 65.0, 100.0, 150.0)
"""Where the ground is cut along z, so that it can follow a bend (metres)."""
FAR = 260.0


class Section(NamedTuple):
    """The street's cross-section and crossings: metres."""

    left: float
    """Distance from the centre line to the left kerb."""
    right: float
    lane: float
    pavement: tuple[float, float]
    """Width of the left and the right pavement."""
    verge: tuple[float, float]
    """Width of the grass between pavement and kerb, 0 for none."""
    base: tuple[str, str]
    """What lies beyond the pavement: ``terrain`` or ``sidewalk``."""
    crossing: float
    """z of the middle of a side street, or 0 for none."""
    crossing_width: float
    zebra: float
    """z of a zebra crossing, or 0."""
    rails: float
    """x of the middle of the tram track, or NaN."""
    yellow: bool
    """Yellow centre line."""
    closed: float
    """z at which a T-junction ends the street, or 0."""


def _strip(
    b: MeshBuilder,
    x0: float,
    x1: float,
    z0: float,
    z1: float,
    label: str,
    material: Material,
    slot: int,
    tone: float = 1.0,
) -> None:
    quad: Quad = ((x0, 0.0, z0), (x1, 0.0, z0), (x1, 0.0, z1), (x0, 0.0, z1))
    b.face(quad, label, material, slot, tone, cull=False, params=(x0, x1 - x0, z0, 0.0))


def ground(s: Section) -> Mesh:
    """The whole ground, farthest cover last: slots 0 asphalt, 1 paving, 2 grass, 3 kerb."""
    b = MeshBuilder()
    for side, base in ((-1, s.base[0]), (1, s.base[1])):
        x0, x1 = (-160.0, 0.0) if side < 0 else (0.0, 160.0)
        material, slot = (Material.GRASS, 2) if base == "terrain" else (Material.PAVING, 1)
        _strip(b, x0, x1, -4, FAR, base, material, slot)
    end = s.closed or 150.0
    cuts = [z for z in STRIPS if z < end] + [end]
    lo, hi = s.crossing - s.crossing_width / 2, s.crossing + s.crossing_width / 2
    for z0, z1 in pairwise(cuts):
        for side, kerb in ((-1, s.left), (1, s.right)):
            i = (side + 1) // 2
            verge, pave = s.verge[i], s.pavement[i]
            a, c = sorted((side * kerb, side * (kerb + verge + pave)))
            _strip(b, a, c, z0, z1, "sidewalk", Material.PAVING, 1)
            if verge:
                a, c = sorted((side * (kerb + 0.3), side * (kerb + verge)))
                _strip(b, a, c, z0, z1, "terrain", Material.GRASS, 2)
            a, c = sorted((side * kerb, side * (kerb + 0.3)))
            _strip(b, a, c, z0, z1, "sidewalk", Material.PLAIN, 3)
        _strip(b, -s.left, s.right, z0, z1, "road", Material.ASPHALT, 0)
    if s.crossing:
        for x0, x1 in ((-160.0, -s.left), (s.right, 160.0)):
            _strip(b, x0, x1, lo - 2.5, lo, "sidewalk", Material.PAVING, 1, 0.95)
            _strip(b, x0, x1, hi, hi + 2.5, "sidewalk", Material.PAVING, 1, 0.95)
            _strip(b, x0, x1, lo, hi, "road", Material.ASPHALT, 0, 0.97)
    if s.closed:
        _strip(b, -160, 160, s.closed, s.closed + 8, "road", Material.ASPHALT, 0, 0.97)
        _strip(b, -160, 160, s.closed + 8, s.closed + 12, "sidewalk", Material.PAVING, 1)
    _markings(b, s, end)
    return b.build()


def _markings(b: MeshBuilder, s: Section, end: float) -> None:
    def paint(x: float, half: float, z0: float, z1: float, slot: int = Slot.WHITE) -> None:
        if not s.crossing or z1 < s.crossing - s.crossing_width / 2 or z0 > s.crossing + s.crossing_width / 2:
            _strip(b, x - half, x + half, z0, z1, "road", Material.MARKING, slot, 0.92)

    centre = Slot.YELLOW if s.yellow else Slot.WHITE
    for z in np.arange(-2.0, min(end, 70.0), 6.0):
        if np.isnan(s.rails):
            paint(0.0, 0.075, z, z + 3.0, centre)
        for x in (-2 * s.lane, -s.lane, s.lane, 2 * s.lane):
            if -s.left + 2.6 < x < s.right - 2.6:
                paint(x, 0.065, z, z + 2.4)
    if not np.isnan(s.rails):
        for z0, z1 in pairwise(STRIPS):
            if z1 <= end:
                for x in (s.rails - 0.72, s.rails + 0.72):
                    _strip(b, x - 0.07, x + 0.07, z0, z1, "road", Material.PLAIN, Slot.UNDER, 1.6)
    if s.zebra:
        x = -s.left + 0.4
        while x + 0.5 < s.right:
            _strip(b, x, x + 0.5, s.zebra - 1.5, s.zebra + 1.5, "road", Material.MARKING, Slot.WHITE, 0.95)
            x += 1.0


def building(
    side: int,
    x: float,
    z0: float,
    z1: float,
    height: float,
    roof: int,
    window: tuple[float, float],
    seed: float,
    shop: bool,
) -> Mesh:
    """One house: ``side`` −1 left or 1 right of the street, its front at ``x`` from ``z0`` to ``z1`` (metres).

    ``roof`` 0 flat with a cornice, 1 pitched, 2 flat with a set-back storey. ``window`` is the distance between
    windows and between storeys. Slots: 0 wall, 1 trim, 2 roof, 3 shop front.
    """
    b = MeshBuilder()
    depth = 12.0
    xa, xb = (x - depth, x) if side < 0 else (x, x + depth)
    box = cuboid(xa, xb, z0, z1, 0.0, height)
    front, near = (box.right if side < 0 else box.left), box.rear
    params = (window[0], window[1], seed, height if shop else -height)
    if roof == 1:
        ridge = (xa + xb) / 2
        slope = prism((xa, xb, z0, z1), (ridge - 0.1, ridge + 0.1, z0, z1), height, height + 3.6)
        b.face(slope.right if side < 0 else slope.left, "building", Material.ROOF, 2)
        b.face(slope.rear, "building", Material.PLAIN, 0, 0.85)
    elif roof == 2:
        top = cuboid(xa + 1.5, xb - 1.5, z0 + 1, z1 - 1, height, height + 2.6)
        for quad in (top.right if side < 0 else top.left, top.rear):
            b.face(quad, "building", Material.ROOF, 2)
    b.face(near, "building", Material.FACADE, 0, 0.93, params=(window[0] * 1.6, window[1], seed + 7, -height))
    b.face(front, "building", Material.FACADE, 0, params=params)
    if roof != 1:
        cornice = 0.4 / height
        for quad in (front, near):
            b.face(inset(quad, 0, 1 - cornice, 1, 1), "building", Material.PLAIN, 1, 0.95)
    if shop:
        v0, v1 = 2.7 / height, 3.3 / height
        b.face(inset(front, 0.06, v0, 0.94, v1), "building", Material.PLAIN, 3, glow=Glow.SHOP)
    return b.build()


def skyline(heights: np.ndarray, x0: float, width: float, z: float) -> Mesh:
    """A row of distant houses facing the camera, closing the street: slots as in :func:`building`."""
    b = MeshBuilder()
    for i, height in enumerate(heights):
        a = x0 + i * width
        h = float(height)
        quad: Quad = ((a, 0, z), (a + width, 0, z), (a + width, h, z), (a, h, z))
        b.face(quad, "building", Material.FACADE, i % 2, 0.9, cull=False, params=(3.0, 3.2, float(i), -h))
    return b.build()


def hedge_row(rng: np.random.Generator, x0: float, x1: float, z: float, height: float) -> Mesh:
    """A distant line of trees as one ragged band facing the camera: slot 0 leaves."""
    b = MeshBuilder()
    xs = np.linspace(x0, x1, 26)
    tops = height * (
        0.7 + 0.3 * np.sin(np.arange(26) * 1.3 + rng.random() * 6) * rng.random(26) + 0.25 * rng.random(26)
    )
    outline = [(x0, 0.0), (x1, 0.0), *((float(x), float(t)) for x, t in zip(xs[::-1], tops[::-1], strict=True))]
    b.face([(x, y, z) for x, y in outline], "vegetation", Material.FOLIAGE, 0, 0.8, cull=False)
    return b.build()
