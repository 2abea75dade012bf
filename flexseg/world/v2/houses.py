"""Houses of version 2: terraces, gabled houses, blocks, towers and sheds, with roofs, chimneys, bays and awnings.

Colour slots as in version 1: 0 wall, 1 trim, 2 roof, 3 shop front.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexseg.world.mesh import Glow, Material, Mesh, MeshBuilder, Point, Quad, Slot, cuboid, inset

FAR = 50.0
"""Metres from which what stands out from a front is under a pixel."""


class Plan(NamedTuple):
    """One house along a street: metres."""

    side: int
    """−1 left of the street, 1 right."""
    front: float
    """x of its front."""
    near: float
    far: float
    """z of its ends."""
    height: float
    """Of its eaves."""
    depth: float
    roof: str
    """``flat``, ``ridge`` (along the street), ``gable`` (across it), ``setback`` or ``mansard``."""
    window: tuple[float, float]
    """Distance between windows and between storeys."""
    seed: int
    shop: bool
    extras: int
    """A number from which chimneys, awnings, porches and aerials follow."""


def _front(
    b: MeshBuilder, quad: Quad, plan: Plan, seed: int, *, shop: bool, wide: float = 1.0, tone: float = 1.0
) -> None:
    top = plan.height if shop else -plan.height
    params = (plan.window[0] * wide, plan.window[1], float(seed), top)
    b.face(quad, "building", Material.FACADE, 0, tone, params=params)


def house(plan: Plan) -> Mesh:
    """Build a house from its plan."""
    b = MeshBuilder()
    side, h = plan.side, plan.height
    xa, xb = (plan.front - plan.depth, plan.front) if side < 0 else (plan.front, plan.front + plan.depth)
    box = cuboid(xa, xb, plan.near, plan.far, 0.0, h)
    front = box.right if side < 0 else box.left
    _roof(b, plan, xa, xb)
    _front(b, box.rear, plan, plan.seed + 7, shop=False, wide=1.7, tone=0.94)
    _front(b, front, plan, plan.seed, shop=plan.shop)
    if plan.near > FAR:
        return b.build()
    # a plinth, string courses and eaves
    b.face(inset(front, 0, 0, 1, min(0.5 / h, 0.2)), "building", Material.FACADE, 1 if plan.seed % 3 else 0, 0.8)
    if plan.seed % 4 == 1:
        for k in range(1, int(h / plan.window[1])):
            v = k * plan.window[1] / h
            b.face(inset(front, 0, v - 0.10 / h, 1, v + 0.10 / h), "building", Material.PLAIN, 1, 0.95)
    if plan.roof in ("flat", "setback", "mansard"):
        cornice = (0.35 + 0.3 * (plan.seed % 3 == 0)) / h
        for quad in (front, box.rear):
            b.face(inset(quad, 0, 1 - cornice, 1, 1), "building", Material.PLAIN, 1, 0.95)
    _attached(b, plan, front)
    return b.build()


def _roof(b: MeshBuilder, plan: Plan, xa: float, xb: float) -> None:
    side, h, z0, z1 = plan.side, plan.height, plan.near, plan.far
    middle, rise = (xa + xb) / 2, 0.32 * plan.depth
    if plan.roof == "ridge":
        e, t = 0.35, h + rise
        slope: Quad
        if side < 0:
            slope = ((xb + e, h - 0.15, z0), (xb + e, h - 0.15, z1), (middle, t, z1), (middle, t, z0))
        else:
            slope = ((xa - e, h - 0.15, z1), (xa - e, h - 0.15, z0), (middle, t, z0), (middle, t, z1))
        b.face([(xa, h, z0), (xb, h, z0), (middle, t, z0)], "building", Material.FACADE, 0, 0.9)
        b.face(slope, "building", Material.ROOF, 2, cull=False)
        _chimneys(b, plan, middle, t)
    elif plan.roof == "gable":
        across, t = (z0 + z1) / 2, h + 0.36 * (z1 - z0)
        x = xb if side < 0 else xa
        corners: list[Point] = [(x, h, z0), (x, h, z1), (x, t, across)]
        for xr in (xa, xb):
            near: list[Point] = [(xr, h, z0), (xr, t, across), (xa + xb - xr, t, across), (xa + xb - xr, h, z0)]
            if xr == xa:
                b.face(near, "building", Material.ROOF, 2, cull=False)
        b.face(corners[:: 1 if side < 0 else -1], "building", Material.FACADE, 0, 0.97, cull=False)
        _chimneys(b, plan, middle, t - 0.6)
    elif plan.roof in ("setback", "mansard"):
        inward = 1.6 if plan.roof == "setback" else 0.9
        material = Material.FACADE if plan.roof == "setback" else Material.ROOF
        top = cuboid(xa + inward, xb - inward, z0 + inward, z1 - inward, h, h + 2.7)
        for quad in (top.right if side < 0 else top.left, top.rear):
            b.face(quad, "building", material, 2, params=(plan.window[0], 2.6, float(plan.seed + 3), -2.7))
    elif plan.extras % 3 == 0:  # plant on a flat roof
        x, z = middle, (z0 + z1) / 2
        for quad in cuboid(x - 1.2, x + 1.2, z - 1.0, z + 1.0, h, h + 1.5)[:4]:
            b.face(quad, "building", Material.PLAIN, 1, 0.7)


def _chimneys(b: MeshBuilder, plan: Plan, x: float, top: float) -> None:
    for k, z in enumerate((plan.near + 0.8, plan.far - 0.8)):
        if plan.extras >> k & 1:
            for quad in cuboid(x - 0.45, x + 0.45, z - 0.35, z + 0.35, top - 1.2, top + 1.1)[:4]:
                b.face(quad, "building", Material.FACADE, 0, 0.85)


def _attached(b: MeshBuilder, plan: Plan, front: Quad) -> None:
    """What stands out from a front: a fascia with a sign, an awning, a hanging sign, a porch."""
    h, out = plan.height, -plan.side
    if plan.shop:
        v0, v1 = 2.75 / h, 3.35 / h
        if v1 < 1:
            b.face(inset(front, 0.03, v0, 0.97, v1), "building", Material.PLAIN, 3, glow=Glow.SHOP)
            b.face(inset(front, 0.25, v0 + 0.18 / h, 0.70, v1 - 0.18 / h), "building", Material.PLAIN, Slot.WHITE, 0.85)
    if plan.shop and plan.extras >> 2 & 1:
        x0, x1 = plan.front, plan.front + out * 1.3
        za = plan.near + 0.15 * (plan.far - plan.near)
        zb = plan.near + 0.75 * (plan.far - plan.near)
        b.face(
            [(x1, 2.35, za), (x1, 2.35, zb), (x0, 3.1, zb), (x0, 3.1, za)], "building", Material.PAINT, 3, cull=False
        )
        b.face([(x1, 2.1, za), (x1, 2.1, zb), (x1, 2.35, zb), (x1, 2.35, za)], "building", slot=3, tone=0.8, cull=False)
    if plan.extras >> 3 & 1 and h > 5:
        z = plan.near + 0.3 * (plan.far - plan.near)
        a, c = sorted((plan.front, plan.front + out * 0.9))
        b.face([(a, 3.4, z), (c, 3.4, z), (c, 4.2, z), (a, 4.2, z)], "building", slot=3, tone=1.1, cull=False)
    if not plan.shop and plan.extras >> 4 & 1:
        z = (plan.near + plan.far) / 2
        a, c = sorted((plan.front, plan.front + out * 1.1))
        for quad in cuboid(a, c, z - 1.1, z + 1.1, 2.3, 2.5):
            b.face(quad, "building", Material.PLAIN, 1)
        for quad in cuboid(a, c, z - 1.0, z - 0.85, 0.0, 2.3)[:4]:
            b.face(quad, "building", Material.PLAIN, 1, 0.9)


def skyline(rng: np.random.Generator, low: float, high: float, width: float, z: float) -> Mesh:
    """Distant houses facing the camera, closing the street, some with gables or towers."""
    b = MeshBuilder()
    x = -130.0
    while x < 130:
        wide, h = width * (0.6 + 0.9 * rng.random()), low + (high - low) * float(rng.random()) ** 1.5
        seed, kind = int(rng.integers(1000)), rng.random()
        quad: Quad = ((x, 0, z), (x + wide, 0, z), (x + wide, h, z), (x, h, z))
        params = (2.2 + 1.4 * float(rng.random()), 3.1, float(seed), -h)
        b.face(quad, "building", Material.FACADE, 0, 0.85 + 0.2 * float(rng.random()), cull=False, params=params)
        if kind < 0.5:
            t = h + 0.25 * wide
            b.face([(x, h, z), (x + wide, h, z), (x + wide / 2, t, z)], "building", Material.ROOF, 2, cull=False)
        x += wide * (1.0 if rng.random() < 0.8 else 1.5)
    return b.build()
