"""Trees and hedges, poles with lamps, traffic lights and signs, walls and fences."""

from __future__ import annotations

from functools import cache

import numpy as np

from flexseg.world.mesh import Glow, Material, Mesh, MeshBuilder, Slot, cuboid, inset, prism, rectangle, ring

TREE_VARIANTS = 12
LAMP_HEIGHT = 6.2
LAMP_REACH = 1.5


def _blob(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, n: int) -> list[tuple[float, float]]:
    """A ragged round outline: radii with a few random harmonics and leaf-sized teeth."""
    t = np.arange(n) * (2 * np.pi / n)
    r = (
        1
        + 0.08 * np.sin(3 * t + rng.random() * 6)
        + 0.07 * np.sin(5 * t + rng.random() * 6)
        + 0.07 * rng.normal(size=n)
    )
    return [(float(cx + rx * a * np.cos(b)), float(cy + ry * a * np.sin(b))) for a, b in zip(r, t, strict=True)]


@cache
def tree(variant: int) -> Mesh:
    """A tree 5–8 m tall facing the camera: slot 0 leaves, 1 bark.

    Variants: round (0–5), tall (6–8), conifer (9, 10), palm (11).
    """
    v = variant % TREE_VARIANTS
    rng = np.random.default_rng([91, v])
    b = MeshBuilder()
    leaf = {"material": Material.FOLIAGE}
    if v == 11:
        b.flat([(-0.16, 0), (0.16, 0), (0.1, 5.6), (-0.1, 5.6)], "vegetation", 1, 1.3)
        for angle in np.linspace(-0.5, np.pi + 0.5, 9):
            dx, dy = float(np.cos(angle)), float(np.sin(angle))
            tip = (2.4 * dx, 5.6 + 1.3 * dy - 0.8 * abs(dx))
            mid = (1.3 * dx, 5.9 + 1.1 * dy)
            b.flat([(0, 5.5), mid, tip, (mid[0] * 0.9, mid[1] - 0.5)], "vegetation", 0, 1.0, **leaf)
        return b.build()
    if v in (9, 10):
        b.flat([(-0.15, 0), (0.15, 0), (0.12, 1.5), (-0.12, 1.5)], "vegetation", 1)
        for i in range(5):
            y, half = 1.0 + 1.3 * i, 1.9 - 0.34 * i
            edge = [(half * f, y + 0.25 * float(rng.normal())) for f in np.linspace(-1, 1, 7)]
            b.flat([*edge, (0.25, y + 2.2), (-0.25, y + 2.2)], "vegetation", 0, 0.62 + 0.09 * i, **leaf)
        return b.build()
    bare = 2.0 + 0.5 * float(rng.random())
    b.flat([(-0.2, 0), (0.2, 0), (0.13, bare + 0.9), (-0.13, bare + 0.9)], "vegetation", 1)
    for side in (-1, 1):
        b.flat(
            [
                (-0.08, bare - 0.3),
                (0.08, bare - 0.3),
                (side * 0.95 + 0.05, bare + 1.3),
                (side * 0.95 - 0.05, bare + 1.3),
            ],
            "vegetation",
            1,
            0.9,
        )
    wide, tall = (2.2, 2.0) if v < 6 else (1.3, 2.6)
    cy = bare + tall
    b.flat(_blob(rng, 0, cy, wide, tall, 34), "vegetation", 0, 0.72, **leaf)
    for _ in range(5):
        angle, away = rng.random() * 6.28, 0.35 + 0.4 * rng.random()
        x, y = wide * away * float(np.cos(angle)), cy + tall * away * float(np.sin(angle))
        size = 0.40 + 0.2 * float(rng.random())
        tone = 0.8 + 0.32 * (y - cy) / tall
        b.flat(_blob(rng, x, y, wide * size, tall * size * 0.85, 18), "vegetation", 0, tone, **leaf)
    return b.build()


@cache
def bush(variant: int) -> Mesh:
    """A round bush about 1.2 m tall."""
    rng = np.random.default_rng([92, variant])
    b = MeshBuilder()
    b.flat(_blob(rng, 0, 0.5, 1.0, 0.75, 22), "vegetation", 0, 0.8, material=Material.FOLIAGE)
    b.flat(_blob(rng, 0.3, 0.75, 0.6, 0.5, 16), "vegetation", 0, 1.05, material=Material.FOLIAGE)
    return b.build()


def _post(b: MeshBuilder, height: float, width: float = 0.15, tone: float = 1.0, x: float = 0.0) -> None:
    b.flat(
        [(x - width / 2, 0), (x + width / 2, 0), (x + width * 0.42, height), (x - width * 0.42, height)],
        "pole",
        0,
        tone,
    )


@cache
def lamp_post(side: int) -> Mesh:
    """A street lamp whose arm reaches ``side`` (−1 left, 1 right), with its lantern at LAMP_REACH, LAMP_HEIGHT."""
    b = MeshBuilder()
    _post(b, LAMP_HEIGHT, 0.19)
    y, x = LAMP_HEIGHT, side * LAMP_REACH
    b.flat([(0, y - 0.15), (x, y + 0.02), (x, y + 0.14), (0, y)], "pole", 0)
    b.flat([(x - 0.4, y - 0.02), (x + 0.4, y - 0.02), (x + 0.3, y + 0.16), (x - 0.3, y + 0.16)], "pole", 0, 0.9)
    b.flat(
        [(x - 0.3, y - 0.1), (x + 0.3, y - 0.1), (x + 0.34, y), (x - 0.34, y)], "pole", Slot.LAMP_WHITE, glow=Glow.LAMP
    )
    return b.build()


@cache
def plain_pole(variant: int) -> Mesh:
    """A bollard (0), a tall mast (1) or a utility pole with cross-arms (2)."""
    b = MeshBuilder()
    kind = variant % 3
    if kind == 0:
        _post(b, 1.1, 0.2)
    else:
        _post(b, 7.5, 0.24)
        if kind == 2:
            for y in (6.4, 7.1):
                b.flat(rectangle(-1.1, 1.1, y, y + 0.14), "pole", 0, 0.9)
    return b.build()


def _signal(b: MeshBuilder, x: float, y: float, lit: int) -> None:
    """A signal head 0.42 × 1.2 m with its centre at (x, y); ``lit``: 0 red, 1 amber, 2 green."""
    b.flat(rectangle(x - 0.24, x + 0.24, y - 0.62, y + 0.62), "traffic light", Slot.HOUSING)
    for i, slot in enumerate((Slot.RED, Slot.YELLOW, Slot.GREEN)):
        on = i == lit
        b.flat(
            ring(x, y + 0.38 - 0.38 * i, 0.165, 8),
            "traffic light",
            slot,
            1.25 if on else 0.22,
            glow=Glow.SIGNAL if on else Glow.NONE,
        )


@cache
def traffic_light(variant: int) -> Mesh:
    """A signal on its post; variants 3–5 and 6–8 hang a second one over the road to the left or right."""
    b = MeshBuilder()
    lit, arm = variant % 3, (variant // 3) % 3
    _post(b, 2.6 if arm == 0 else 5.0, 0.17, 0.8)
    if arm:
        side = -1 if arm == 1 else 1
        b.flat([(0, 4.85), (side * 3.0, 4.95), (side * 3.0, 5.1), (0, 5.05)], "pole", 0, 0.8)
        _signal(b, side * 2.9, 4.7, lit)
    _signal(b, 0.0, 3.0, lit)
    return b.build()


@cache
def sign(variant: int) -> Mesh:
    """A sign on its post: 0 limit, 1 warning, 2 no entry, 3 stop, 4 parking, 5 direction, 6 priority, 7 crossing."""
    b = MeshBuilder()
    y, kind = 2.75, variant % 8
    _post(b, 3.05 if kind != 5 else 2.9, 0.12)
    retro = {"glow": Glow.RETRO}

    def square(half: float, slot: int, tall: float = 1.0) -> None:
        b.flat(rectangle(-half, half, y - half * tall, y + half * tall), "traffic sign", slot, **retro)

    if kind == 0:
        for r, slot in ((0.5, Slot.RED), (0.36, Slot.WHITE)):
            b.flat(ring(0, y, r, 14), "traffic sign", slot, **retro)
        b.flat(rectangle(-0.2, 0.2, y - 0.14, y + 0.14), "traffic sign", Slot.HOUSING)
    elif kind == 1:
        for r, slot in ((0.62, Slot.RED), (0.38, Slot.WHITE)):
            b.flat(
                [(-r * 0.95, y - 0.45 * r - 0.05), (r * 0.95, y - 0.45 * r - 0.05), (0, y + r)],
                "traffic sign",
                slot,
                **retro,
            )
    elif kind == 2:
        b.flat(ring(0, y, 0.5, 14), "traffic sign", Slot.RED, **retro)
        b.flat(rectangle(-0.36, 0.36, y - 0.1, y + 0.1), "traffic sign", Slot.WHITE, **retro)
    elif kind == 3:
        b.flat(ring(0, y, 0.56, 8), "traffic sign", Slot.WHITE, **retro)
        b.flat(ring(0, y, 0.49, 8), "traffic sign", Slot.RED, **retro)
        b.flat(rectangle(-0.34, 0.34, y - 0.1, y + 0.1), "traffic sign", Slot.WHITE, **retro)
    elif kind in (4, 7):
        square(0.46, Slot.WHITE)
        square(0.41, Slot.BLUE)
        if kind == 7:
            b.flat([(-0.3, y - 0.28), (0.3, y - 0.28), (0, y + 0.3)], "traffic sign", Slot.WHITE, **retro)
        else:
            b.flat(
                [(-0.12, y - 0.25), (0.04, y - 0.25), (0.2, y + 0.28), (-0.12, y + 0.28)],
                "traffic sign",
                Slot.WHITE,
                **retro,
            )
    elif kind == 5:
        square(1.0, Slot.WHITE, 0.5)
        b.flat(rectangle(-0.94, 0.94, y - 0.44, y + 0.44), "traffic sign", Slot.BLUE, **retro)
        for dy in (-0.22, 0.14):
            b.flat(rectangle(-0.7, 0.5, y + dy, y + dy + 0.13), "traffic sign", Slot.WHITE, **retro)
    else:
        for r, slot in ((0.6, Slot.WHITE), (0.46, Slot.YELLOW)):
            b.flat([(0, y - r), (r, y), (0, y + r), (-r, y)], "traffic sign", slot, **retro)
    return b.build()


@cache
def barrier(kind: str, length: float, height: float) -> Mesh:
    """A ``wall`` or ``fence`` along z, centred, 0.25 m thick; slot 0 its colour, slot 1 what shows between slats."""
    b = MeshBuilder()
    half = 0.13 if kind == "wall" else 0.04
    box = cuboid(-half, half, -length / 2, length / 2, 0.0, height)
    material = Material.BRICK if kind == "wall" else Material.SLATS
    for quad in box[:4]:
        b.face(quad, kind, material, 0, params=(0.5, 0.25, height, length))
    b.face(box.top, kind, Material.PLAIN, 0, 1.15)
    if kind == "wall":
        cap = 0.06 / height
        for quad in box[:4]:
            b.face(inset(quad, 0, 1 - 2 * cap, 1, 1), kind, Material.PLAIN, 0, 1.2)
    return b.build()


@cache
def shelter(variant: int) -> Mesh:
    """A bus stop: glass shelter (building, as Cityscapes labels it) with a sign in front."""
    b = MeshBuilder()
    for quad in prism((-0.75, 0.75, -1.8, 1.8), (-0.8, 0.8, -1.9, 1.9), 2.3, 2.45):
        b.face(quad, "building", slot=Slot.METAL, tone=0.7)
    back = 0.7 if variant % 2 == 0 else -0.7
    b.face(
        [(back, 0.2, -1.7), (back, 0.2, 1.7), (back, 2.3, 1.7), (back, 2.3, -1.7)],
        "building",
        Material.GLASS,
        Slot.METAL,
        0.8,
        cull=False,
    )
    b.face(
        [(-0.7, 0.2, 1.7), (0.7, 0.2, 1.7), (0.7, 2.3, 1.7), (-0.7, 2.3, 1.7)],
        "building",
        Material.GLASS,
        Slot.METAL,
        0.7,
        cull=False,
    )
    return b.build()
