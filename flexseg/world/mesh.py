"""Meshes of planar faces: the form in which every thing of the street world is described.

A mesh is a list of flat polygons in metres. Axes of a thing: x to the right, y up, z forward (the way a vehicle
heads), origin on the ground in its middle. The first three corners of a face give its plane and its texture frame:
``u`` runs in metres from corner 0 to corner 1, ``v`` at right angles to it towards corner 2, so corner 0 is (0, 0).
Seen from outside, the corners run anticlockwise starting at the bottom left.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from flexseg.classes import IGNORE, TRAIN_ID

Point = tuple[float, float, float]
Quad = tuple[Point, Point, Point, Point]

VOID = IGNORE
LABEL: dict[str, int] = {**TRAIN_ID, "void": VOID}


class Material(IntEnum):
    """How a face is textured (see :mod:`flexseg.world.materials`)."""

    PLAIN = 0
    SKY = 1
    ASPHALT = 2
    PAVING = 3
    GRASS = 4
    FACADE = 5
    FOLIAGE = 6
    BRICK = 7
    SLATS = 8
    PAINT = 9
    GLASS = 10
    ROOF = 11
    MARKING = 12


class Glow(IntEnum):
    """What a face emits (see :mod:`flexseg.world.lighting`)."""

    NONE = 0
    HEADLIGHT = 1
    TAIL = 2
    LAMP = 3
    SIGNAL = 4
    SHOP = 5
    RETRO = 6
    CABIN = 7


class Slot(IntEnum):
    """The colour slots from 4 on, which no palette changes; slots 0–3 of a face are colours of its thing."""

    TYRE, GLASS, LAMP_WHITE, RED, WHITE, GREEN, YELLOW, BLUE, METAL, UNDER, HOUSING, WOOD, ORANGE, RIM = range(4, 18)


FIXED_COLOURS: dict[Slot, tuple[float, float, float]] = {
    Slot.TYRE: (0.07, 0.07, 0.08),
    Slot.GLASS: (0.16, 0.20, 0.24),
    Slot.LAMP_WHITE: (0.95, 0.93, 0.85),
    Slot.RED: (0.75, 0.05, 0.05),
    Slot.WHITE: (0.92, 0.92, 0.92),
    Slot.GREEN: (0.10, 0.62, 0.25),
    Slot.YELLOW: (0.95, 0.75, 0.08),
    Slot.BLUE: (0.10, 0.25, 0.68),
    Slot.METAL: (0.45, 0.46, 0.47),
    Slot.UNDER: (0.03, 0.03, 0.035),
    Slot.HOUSING: (0.10, 0.11, 0.10),
    Slot.WOOD: (0.30, 0.22, 0.15),
    Slot.ORANGE: (0.95, 0.45, 0.05),
    Slot.RIM: (0.70, 0.71, 0.72),
}
"""sRGB in 0–1, in the order of the slots."""


class Row:
    """Columns of :attr:`Mesh.rows`. One array for all facts, because a scene joins some seventy meshes at a time."""

    count = 0
    """Corners of the face."""
    label = 1
    material = 2
    slot = 3
    """0–3 a colour of the thing, from 4 on a :class:`Slot`."""
    tone = 4
    """Factor on the colour."""
    glow = 5
    cull = 6
    """1 if hidden when seen from behind."""
    params = slice(7, 11)
    """Four numbers whose meaning depends on the material."""
    part = slice(11, 14)
    """Centre of the part the face belongs to; far parts are painted first."""


class Mesh(NamedTuple):
    """``F`` faces over ``V`` corners."""

    corners: np.ndarray
    """(V, 3) float32, metres."""
    rows: np.ndarray
    """(F, 14) float32: one row a face, columns as in :class:`Row`."""
    box: np.ndarray
    """(2, 3) float32: smallest and largest corner."""


class MeshBuilder:
    """Collects faces, then :meth:`build` freezes them into a :class:`Mesh`."""

    def __init__(self) -> None:
        self._corners: list[Point] = []
        self._rows: list[tuple[float, ...]] = []
        self._centre: Point = (0.0, 0.0, 0.0)

    def part(self, centre: Point) -> None:
        """Faces added from now on belong to a part with this centre."""
        self._centre = centre

    def face(
        self,
        points: Sequence[Point],
        label: str,
        material: Material = Material.PLAIN,
        slot: int = 0,
        tone: float = 1.0,
        *,
        glow: Glow = Glow.NONE,
        cull: bool = True,
        params: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    ) -> None:
        """Add one flat polygon (at least three corners)."""
        self._corners.extend(points)
        self._rows.append((len(points), LABEL[label], material, slot, tone, glow, cull, *params, *self._centre))

    def flat(
        self, outline: Sequence[tuple[float, float]], label: str, slot: int, tone: float = 1.0, **kwargs: object
    ) -> None:
        """Add a two-sided polygon in the plane z = 0, from (x, y) pairs."""
        self.face([(x, y, 0.0) for x, y in outline], label, slot=slot, tone=tone, cull=False, **kwargs)  # type: ignore[arg-type]

    def build(self) -> Mesh:
        corners = np.array(self._corners, np.float32)
        return Mesh(corners, np.array(self._rows, np.float32), np.stack([corners.min(0), corners.max(0)]))


class Prism(NamedTuple):
    """The outward sides of a box whose top may be smaller than its bottom."""

    rear: Quad
    front: Quad
    left: Quad
    right: Quad
    top: Quad


def prism(
    bottom: tuple[float, float, float, float], top: tuple[float, float, float, float], y0: float, y1: float
) -> Prism:
    """Sides of a frustum: rectangles ``(x0, x1, z0, z1)`` at heights ``y0`` and ``y1``."""
    a, b, c, d = bottom
    e, f, g, h = top
    return Prism(
        rear=((a, y0, c), (b, y0, c), (f, y1, g), (e, y1, g)),
        front=((b, y0, d), (a, y0, d), (e, y1, h), (f, y1, h)),
        left=((a, y0, d), (a, y0, c), (e, y1, g), (e, y1, h)),
        right=((b, y0, c), (b, y0, d), (f, y1, h), (f, y1, g)),
        top=((e, y1, g), (f, y1, g), (f, y1, h), (e, y1, h)),
    )


def cuboid(x0: float, x1: float, z0: float, z1: float, y0: float, y1: float) -> Prism:
    """Sides of a box."""
    return prism((x0, x1, z0, z1), (x0, x1, z0, z1), y0, y1)


def inset(quad: Quad, u0: float, v0: float, u1: float, v1: float) -> Quad:
    """The part of a quad between fractions ``u0..u1`` of its width and ``v0..v1`` of its height."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz), (dx, dy, dz) = quad

    def at(u: float, v: float) -> Point:
        p, q, r, t = (1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v
        return (p * ax + q * bx + r * cx + t * dx, p * ay + q * by + r * cy + t * dy, p * az + q * bz + r * cz + t * dz)

    return at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)


def rectangle(x0: float, x1: float, y0: float, y1: float) -> list[tuple[float, float]]:
    """Corners of an upright rectangle, from the bottom left anticlockwise."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def ring(cx: float, cy: float, radius: float, corners: int, stretch: float = 1.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon (an ellipse when ``stretch``, its height over its width, is not 1)."""
    angles = np.arange(corners) * (2 * np.pi / corners) + 0.3
    return [(cx + radius * float(np.cos(t)), cy + stretch * radius * float(np.sin(t))) for t in angles]
