"""People, riders and two-wheelers, drawn as flat jointed figures that face the camera.

Colour slots of a person: 0 upper clothing, 1 lower clothing, 2 skin, 3 hair or helmet. A two-wheeler with its rider is
one mesh: slot 1 then stays the trousers, and the frame takes the fixed colours by variant.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from flexseg.world.mesh import Glow, Mesh, MeshBuilder, Slot, rectangle, ring

Pair = tuple[float, float]
PERSON_VARIANTS = 8
_FRAMES = (Slot.RED, Slot.BLUE, Slot.HOUSING, Slot.GREEN, Slot.METAL, Slot.WHITE)


def _limb(b: MeshBuilder, label: str, a: Pair, c: Pair, wa: float, wc: float, slot: int, tone: float = 1.0) -> None:
    """A tapering strip from ``a`` to ``c``, ``wa`` and ``wc`` metres wide at its ends."""
    d = np.array([c[0] - a[0], c[1] - a[1]])
    nx, ny = np.array([-d[1], d[0]]) / (np.hypot(*d) + 1e-9) / 2
    outline = [
        (a[0] + nx * wa, a[1] + ny * wa),
        (a[0] - nx * wa, a[1] - ny * wa),
        (c[0] - nx * wc, c[1] - ny * wc),
        (c[0] + nx * wc, c[1] + ny * wc),
    ]
    b.flat(outline, label, slot, tone)


def _head(b: MeshBuilder, label: str, x: float, y: float, *, front: bool, helmet: bool = False) -> None:
    b.flat(ring(x, y + 0.03, 0.125, 8, 1.15), label, 3)
    if front:
        b.flat(ring(x, y - 0.03, 0.095, 8, 1.1), label, 2)
    elif helmet:
        b.flat(ring(x, y + 0.06, 0.135, 8, 0.7), label, 3, 1.3)


@cache
def person(variant: int) -> Mesh:
    """A standing or walking figure 1.75 m tall; odd variants turn their back, 6 and 7 wear a skirt or a long coat."""
    v = variant % PERSON_VARIANTS
    stride = (0.08, 0.26, 0.34, 0.1, 0.2, 0.3, 0.12, 0.22)[v]
    b = MeshBuilder()
    for side, tone in ((-1.0, 0.8), (1.0, 1.0)):
        hip, foot = (side * 0.08, 0.9), (side * (0.07 + stride * 0.6), 0.05)
        knee = (side * (0.08 + stride * 0.35), 0.48)
        slot = 2 if v == 6 else 1
        _limb(b, "person", hip, knee, 0.19, 0.15, 1, tone)
        _limb(b, "person", knee, foot, 0.15, 0.11, slot, tone)
        b.flat(
            [(foot[0] - 0.08, 0), (foot[0] + 0.1, 0), (foot[0] + 0.06, 0.09), (foot[0] - 0.07, 0.09)],
            "person",
            Slot.TYRE,
        )
    swing = stride * 0.7
    for side in (-1.0, 1.0):
        _limb(b, "person", (side * 0.2, 1.4), (side * (0.26 + swing * 0.4), 0.95), 0.12, 0.1, 0, 0.82)
        b.flat(ring(side * (0.26 + swing * 0.4), 0.9, 0.055, 6), "person", 2)
    hem = 0.62 if v >= 6 else 0.86
    b.flat([(-0.18, hem), (0.18, hem), (0.235, 1.38), (0.12, 1.48), (-0.12, 1.48), (-0.235, 1.38)], "person", 0)
    if v in (2, 5):
        b.flat(rectangle(-0.14, 0.14, 0.98, 1.36), "person", _FRAMES[v % 6], 0.8)
    _limb(b, "person", (0, 1.44), (0, 1.58), 0.12, 0.1, 2, 0.9)
    _head(b, "person", 0.0, 1.63, front=v % 2 == 0)
    return b.build()


def _wheel(b: MeshBuilder, label: str, x: float, radius: float, thick: float) -> None:
    b.flat(ring(x, radius, radius, 14), label, Slot.TYRE)
    b.flat(ring(x, radius, radius - thick, 12), label, Slot.RIM, 0.75)


def _bicycle_side(b: MeshBuilder, frame: int) -> None:
    for x in (-0.55, 0.55):
        _wheel(b, "bicycle", x, 0.36, 0.07)
    saddle, crank, bar, hub_r, hub_f = (-0.22, 0.92), (-0.08, 0.34), (0.42, 0.98), (-0.55, 0.36), (0.55, 0.36)
    for a, c in ((hub_r, crank), (hub_r, saddle), (saddle, crank), (crank, bar), (saddle, bar), (bar, hub_f)):
        _limb(b, "bicycle", a, c, 0.08, 0.08, frame)
    _limb(b, "bicycle", (-0.36, 0.98), (-0.12, 0.97), 0.09, 0.06, Slot.TYRE)
    _limb(b, "bicycle", (0.36, 1.06), (0.56, 1.03), 0.07, 0.06, Slot.TYRE)


def _motorcycle_side(b: MeshBuilder, frame: int) -> None:
    for x in (-0.68, 0.68):
        _wheel(b, "motorcycle", x, 0.34, 0.13)
    b.flat([(-0.5, 0.3), (0.4, 0.3), (0.42, 0.62), (-0.42, 0.62)], "motorcycle", Slot.METAL, 0.55)
    b.flat([(-0.85, 0.78), (-0.05, 0.68), (0.1, 0.86), (-0.8, 0.9)], "motorcycle", Slot.TYRE, 1.4)
    b.flat([(-0.1, 0.62), (0.48, 0.58), (0.55, 0.95), (0.2, 1.05), (-0.02, 0.9)], "motorcycle", frame)
    _limb(b, "motorcycle", (0.45, 0.98), (0.7, 0.34), 0.1, 0.09, Slot.METAL)
    _limb(b, "motorcycle", (-0.9, 0.3), (-0.2, 0.28), 0.12, 0.1, Slot.RIM)
    b.flat([(0.5, 0.8), (0.66, 0.82), (0.6, 1.2), (0.5, 1.05)], "motorcycle", frame, 1.2)
    b.flat([(0.62, 0.82), (0.74, 0.84), (0.72, 0.98), (0.62, 0.96)], "motorcycle", Slot.LAMP_WHITE, glow=Glow.HEADLIGHT)
    b.flat([(-0.94, 0.78), (-0.84, 0.78), (-0.82, 0.9), (-0.92, 0.9)], "motorcycle", Slot.RED, glow=Glow.TAIL)


def _rider_side(b: MeshBuilder, seat: Pair, grip: Pair, peg: Pair) -> None:
    shoulder = (seat[0] + 0.3, seat[1] + 0.58)
    knee = (seat[0] + 0.38, seat[1] - 0.22)
    _limb(b, "rider", seat, knee, 0.22, 0.17, 1)
    _limb(b, "rider", knee, peg, 0.17, 0.12, 1, 0.9)
    b.flat(
        [(peg[0] - 0.08, peg[1] - 0.06), (peg[0] + 0.18, peg[1] - 0.06), (peg[0] + 0.05, peg[1] + 0.06)],
        "rider",
        Slot.TYRE,
    )
    _limb(b, "rider", (seat[0] - 0.04, seat[1] - 0.06), shoulder, 0.36, 0.32, 0)
    elbow = ((shoulder[0] + grip[0]) / 2 + 0.02, (shoulder[1] + grip[1]) / 2 - 0.08)
    _limb(b, "rider", shoulder, elbow, 0.15, 0.12, 0, 0.8)
    _limb(b, "rider", elbow, grip, 0.12, 0.09, 0, 0.8)
    _head(b, "rider", shoulder[0] + 0.08, shoulder[1] + 0.22, front=False, helmet=True)
    b.flat(ring(shoulder[0] + 0.13, shoulder[1] + 0.2, 0.075, 6), "rider", 2)


@cache
def bicycle(variant: int) -> Mesh:
    """A parked bicycle, seen from the side."""
    b = MeshBuilder()
    _bicycle_side(b, _FRAMES[variant % 6])
    return b.build()


@cache
def motorcycle(variant: int) -> Mesh:
    """A parked motorcycle or scooter, seen from the side."""
    b = MeshBuilder()
    _motorcycle_side(b, _FRAMES[variant % 6])
    return b.build()


@cache
def cyclist_side(variant: int) -> Mesh:
    """A bicycle with its rider, seen from the side."""
    b = MeshBuilder()
    _bicycle_side(b, _FRAMES[variant % 6])
    _rider_side(b, (-0.22, 1.0), (0.44, 1.08), (0.02 + 0.06 * (variant % 3), 0.26))
    return b.build()


@cache
def motorcyclist_side(variant: int) -> Mesh:
    """A motorcycle with its rider, seen from the side."""
    b = MeshBuilder()
    _motorcycle_side(b, _FRAMES[variant % 6])
    _rider_side(b, (-0.35, 0.98), (0.42, 1.12), (0.02, 0.4))
    return b.build()


@cache
def rider_along(variant: int) -> Mesh:
    """A rider seen from behind (even variants) or from the front; variants 0–3 on a bicycle, 4–7 on a motorcycle."""
    v = variant % 8
    motor, front = v >= 4, v % 2 == 1
    label = "motorcycle" if motor else "bicycle"
    b = MeshBuilder()
    tyre = 0.1 if motor else 0.055
    b.flat(rectangle(-tyre, tyre, 0, 0.7), label, Slot.TYRE)
    seat = 0.95 if motor else 1.0
    if motor:
        b.flat([(-0.2, 0.4), (0.2, 0.4), (0.26, 0.95), (-0.26, 0.95)], label, _FRAMES[(v * 5 + 1) % 6])
        b.flat(rectangle(-0.34, -0.2, 0.25, 0.42), label, Slot.RIM)
    else:
        b.flat(rectangle(-0.05, 0.05, 0.6, seat), label, _FRAMES[v])
    for side in (-1.0, 1.0):
        low = 0.42 if side > 0 else 0.26
        _limb(b, "rider", (side * 0.11, seat), (side * (0.24 if motor else 0.16), 0.62), 0.2, 0.15, 1)
        _limb(b, "rider", (side * (0.24 if motor else 0.16), 0.64), (side * 0.15, low), 0.15, 0.11, 1, 0.85)
        b.flat(
            [(side * 0.15 - 0.06, low - 0.08), (side * 0.15 + 0.06, low - 0.08), (side * 0.15, low + 0.05)],
            "rider",
            Slot.TYRE,
        )
        _limb(b, "rider", (side * 0.22, seat + 0.52), (side * 0.36, seat + 0.14), 0.13, 0.1, 0, 0.8)
    bar = seat + 0.1
    b.flat(rectangle(-0.38, 0.38, bar - 0.04, bar + 0.03), label, Slot.TYRE)
    b.flat(
        [
            (-0.2, seat - 0.1),
            (0.2, seat - 0.1),
            (0.25, seat + 0.52),
            (0.1, seat + 0.62),
            (-0.1, seat + 0.62),
            (-0.25, seat + 0.52),
        ],
        "rider",
        0,
    )
    _head(b, "rider", 0.0, seat + 0.78, front=front, helmet=True)
    lamp, glow = (Slot.LAMP_WHITE, Glow.HEADLIGHT) if front else (Slot.RED, Glow.TAIL)
    b.flat(rectangle(-0.07, 0.07, 0.72, 0.84), label, lamp, glow=glow)
    return b.build()
