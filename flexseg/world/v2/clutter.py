"""Street furniture of version 2: what the 19 classes name (poles, signs, fences, walls) and what they leave void."""

from __future__ import annotations

from functools import cache

import numpy as np

from flexseg.world.mesh import Material, Mesh, MeshBuilder, Slot, cuboid, inset, prism, rectangle, ring

VOID_KINDS = 9


@cache
def void_thing(variant: int) -> Mesh:
    """Things without a class: cabinet, planter, skip, cones, post box, kiosk, wheelie bins, crates, pillar."""
    b = MeshBuilder()
    kind = variant % VOID_KINDS

    def box(x0: float, x1: float, z0: float, z1: float, y0: float, y1: float, slot: int, tone: float = 1.0) -> None:
        for quad in cuboid(x0, x1, z0, z1, y0, y1):
            b.face(quad, "void", Material.PAINT, slot, tone)

    if kind == 0:
        box(-0.45, 0.45, -0.25, 0.25, 0, 1.3, 1, 0.9)
    elif kind == 1:
        box(-0.6, 0.6, -0.6, 0.6, 0, 0.6, 1, 0.8)
        b.flat(ring(0, 0.95, 0.55, 12, 0.9), "vegetation", Slot.GREEN, 0.4, material=Material.FOLIAGE)
    elif kind == 2:
        sides = prism((-0.8, 0.8, -1.5, 1.5), (-0.9, 0.9, -1.8, 1.8), 0.1, 1.3)
        for quad in sides[:4]:
            b.face(quad, "void", Material.PAINT, 0, 0.9)
        b.face(sides.top, "void", slot=Slot.WOOD, tone=1.4)
    elif kind == 3:
        for x in (-1.2, 0.0, 1.2):
            b.flat([(x - 0.22, 0), (x + 0.22, 0), (x + 0.05, 0.75), (x - 0.05, 0.75)], "void", Slot.ORANGE)
            b.flat([(x - 0.14, 0.3), (x + 0.14, 0.3), (x + 0.10, 0.48), (x - 0.10, 0.48)], "void", Slot.WHITE)
    elif kind == 4:
        box(-0.25, 0.25, -0.25, 0.25, 0, 1.45, Slot.RED, 0.9)
    elif kind == 5:
        box(-1.1, 1.1, -1.0, 1.0, 0, 2.4, 0, 0.9)
        box(-1.3, 1.3, -1.2, 1.2, 2.4, 2.6, 1)
    elif kind == 6:
        for x, slot in ((-0.7, Slot.HOUSING), (0.0, Slot.GREEN), (0.7, Slot.BLUE)):
            box(x - 0.28, x + 0.28, -0.35, 0.35, 0.05, 1.0, slot, 0.6)
    elif kind == 7:
        box(-0.5, 0.5, -0.4, 0.4, 0, 0.5, Slot.WOOD, 1.4)
        box(-0.3, 0.4, -0.3, 0.4, 0.5, 0.9, 1, 0.9)
    else:
        box(-0.55, 0.55, -0.55, 0.55, 0, 2.6, 1)
        b.face(inset(cuboid(-0.55, 0.55, -0.56, 0.55, 0, 2.6).rear, 0.08, 0.25, 0.92, 0.92), "void", slot=0, tone=1.2)
    return b.build()


@cache
def bollards(count: int) -> Mesh:
    """A row of bollards along z."""
    b = MeshBuilder()
    for i in range(count):
        for quad in cuboid(-0.10, 0.10, 1.6 * i - 0.10, 1.6 * i + 0.10, 0.0, 0.95):
            b.face(quad, "pole", slot=0)
    return b.build()


@cache
def gantry(variant: int) -> Mesh:
    """A direction sign on two posts, some 3 m wide."""
    b = MeshBuilder()
    for x in (-1.2, 1.2):
        b.flat(rectangle(x - 0.08, x + 0.08, 0, 3.6), "pole", 0)
    slot = (Slot.BLUE, Slot.GREEN, Slot.WHITE)[variant % 3]
    b.flat(rectangle(-1.6, 1.6, 2.1, 3.6), "traffic sign", slot, 0.8)
    letters = Slot.HOUSING if slot == Slot.WHITE else Slot.WHITE
    for y in (2.35, 2.75, 3.15):
        b.flat(rectangle(-1.3, 0.3 + 0.4 * (variant % 2), y, y + 0.2), "traffic sign", letters)
    return b.build()


@cache
def railing(length: float, height: float) -> Mesh:
    """A guard rail of the kerb: a fence of thin pales along z."""
    b = MeshBuilder()
    box = cuboid(-0.03, 0.03, -length / 2, length / 2, 0.0, height)
    for quad in box[:4]:
        b.face(quad, "fence", Material.SLATS, 0, params=(0.5, 0.25, height, length))
    return b.build()


@cache
def low_wall(length: float, height: float) -> Mesh:
    """A garden wall along z with a coping."""
    b = MeshBuilder()
    box = cuboid(-0.15, 0.15, -length / 2, length / 2, 0.0, height)
    for quad in box:
        b.face(quad, "wall", Material.BRICK, 0, params=(0.5, 0.25, height, length))
    for quad in cuboid(-0.19, 0.19, -length / 2, length / 2, height, height + 0.09):
        b.face(quad, "wall", Material.PLAIN, 0, 1.2)
    return b.build()


@cache
def hoarding(length: float, variant: int) -> Mesh:
    """Boards around a building site, with posters."""
    b = MeshBuilder()
    box = cuboid(-0.08, 0.08, -length / 2, length / 2, 0.0, 2.2)
    for quad in box[:4]:
        b.face(quad, "fence", Material.SLATS, 0, 1.1, params=(0.5, 0.25, 2.2, length))
    rng = np.random.default_rng([231, variant])
    for quad in (box.left, box.right):
        for u in np.arange(0.05, 0.9, 0.14):
            if rng.random() < 0.5:
                slot = (Slot.WHITE, Slot.BLUE, Slot.RED, Slot.YELLOW)[int(rng.integers(4))]
                b.face(inset(quad, float(u), 0.3, float(u) + 0.09, 0.85), "fence", slot=slot, tone=0.8)
    return b.build()
