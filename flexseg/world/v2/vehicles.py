"""Cars and vans of version 2 in more forms: saloons to pick-ups, with bumpers, sills, arches, mirrors and roof rails.

Colour slots as in :mod:`flexseg.world.vehicles`, whose buses, trucks and trams stay.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from flexseg.world.mesh import Glow, Material, Mesh, MeshBuilder, Prism, Quad, Slot, cuboid, inset, prism, ring


class Form(NamedTuple):
    """A body: metres, and stations along it as fractions of its length from its middle, front positive."""

    length: float
    width: float
    height: float
    waist: float
    rear: tuple[float, float]
    """Where the cabin begins at its base and at the roof."""
    front: tuple[float, float]
    """Where it ends."""
    bonnet: float
    """Height of the bonnet's front edge."""
    blind: bool = False
    """Without windows behind the driver (panel vans)."""
    bed: bool = False
    """An open bed behind the cabin (pick-ups)."""


FORMS: tuple[Form, ...] = (
    Form(4.6, 1.80, 1.45, 0.90, (-0.41, -0.24), (0.20, 0.03), 0.72),  # saloon
    Form(4.1, 1.74, 1.48, 0.90, (-0.50, -0.43), (0.23, 0.06), 0.74),  # hatchback
    Form(4.7, 1.90, 1.70, 1.02, (-0.49, -0.44), (0.22, 0.08), 0.92),  # SUV
    Form(4.8, 1.82, 1.50, 0.90, (-0.49, -0.42), (0.19, 0.03), 0.73),  # estate
    Form(3.6, 1.65, 1.52, 0.92, (-0.49, -0.42), (0.30, 0.12), 0.80),  # city car
    Form(4.5, 1.82, 1.66, 0.96, (-0.49, -0.44), (0.32, 0.10), 0.80),  # people carrier
    Form(4.3, 1.78, 1.32, 0.86, (-0.36, -0.12), (0.18, -0.02), 0.66),  # coupé
    Form(5.2, 1.98, 2.15, 1.15, (-0.49, -0.48), (0.36, 0.24), 0.98, blind=True),  # panel van
    Form(5.9, 2.05, 2.55, 1.25, (-0.49, -0.48), (0.38, 0.28), 1.02, blind=True),  # large van
    Form(5.1, 1.95, 2.00, 1.08, (-0.49, -0.48), (0.40, 0.24), 0.98),  # minibus
    Form(5.2, 1.90, 1.78, 1.05, (-0.10, -0.07), (0.22, 0.08), 0.95, bed=True),  # pick-up
    Form(4.2, 1.78, 1.80, 0.98, (-0.49, -0.47), (0.26, 0.10), 0.80, blind=True),  # delivery car
)
VARIANTS = 2 * len(FORMS)


def _panel(b: MeshBuilder, quad: Quad, slot: int = 0, tone: float = 1.0) -> None:
    b.face(quad, "car", Material.PAINT, slot, tone)


def _glass(b: MeshBuilder, quad: Quad) -> None:
    b.face(quad, "car", Material.GLASS, Slot.GLASS)


FAR = 28.0
"""Metres from which a car's details are under a pixel."""


def _wheels(b: MeshBuilder, half: float, radius: float, stations: tuple[float, ...]) -> None:
    for z in stations:
        for side in (-1.0, 1.0):
            x = side * (half + 0.012)
            for r, slot, tone in (
                (radius * 1.18, Slot.UNDER, 1.0),
                (radius, Slot.TYRE, 1.0),
                (radius * 0.62, Slot.RIM, 0.75),
                (radius * 0.2, Slot.HOUSING, 1.0),
            ):
                outline = [(x, max(y, 0.0), z + side * dz) for dz, y in ring(0.0, radius, r, 12)]
                b.face(outline, "car", slot=slot, tone=tone)


def _cabin(b: MeshBuilder, f: Form, w: float) -> None:
    r0, r1 = (f.length * v for v in f.rear)
    f0, f1 = (f.length * v for v in f.front)
    cabin = prism((-w * 0.95, w * 0.95, r0, f0), (-w * 0.76, w * 0.76, r1, f1), f.waist, f.height)
    for quad in cabin:
        _panel(b, quad, tone=0.95)
    _glass(b, inset(cabin.front, 0.06, 0.06, 0.94, 0.90))
    if not f.blind:
        _glass(b, inset(cabin.rear, 0.08, 0.10, 0.92, 0.86))
    for quad, ahead in ((cabin.left, 0), (cabin.right, 1)):
        # the left side's u runs backwards
        spans = ((0.05, 0.36), (0.39, 0.66), (0.69, 0.94))
        for i, (u0, u1) in enumerate(spans):
            driver = i == (2 if ahead else 0)
            if not f.blind or driver:
                _glass(b, inset(quad, u0, 0.10, u1, 0.86))


def _ends(b: MeshBuilder, f: Form, body: Prism, look: int) -> None:
    plastic = look % 3 == 0
    for quad, lamp, glow, back in (
        (body.rear, Slot.RED, Glow.TAIL, True),
        (body.front, Slot.LAMP_WHITE, Glow.HEADLIGHT, False),
    ):
        b.face(inset(quad, 0.0, 0.0, 1.0, 0.32), "car", Material.PAINT, Slot.HOUSING if plastic else 0, 0.9)
        b.face(inset(quad, 0.0, 0.30, 1.0, 0.335), "car", slot=Slot.UNDER)
        wide = (0.13, 0.17, 0.10)[look % 3]
        low, high = ((0.50, 0.92), (0.58, 0.88), (0.45, 0.98))[look % 3] if back else (0.58, 0.86)
        for u in (0.03, 0.97 - wide):
            b.face(inset(quad, u, low, u + wide, high), "car", slot=lamp, glow=glow)
        plate = (0.40, 0.62) if back and look % 2 else (0.10, 0.28)
        b.face(inset(quad, 0.36, plate[0], 0.64, plate[1]), "car", slot=Slot.YELLOW if look % 4 == 1 else Slot.WHITE)
        if not back:
            b.face(inset(quad, 0.28, 0.46, 0.72, 0.82), "car", slot=Slot.HOUSING)


@cache
def car(variant: int, far: bool = False) -> Mesh:
    """One of :data:`VARIANTS` bodies; ``variant`` wraps around. ``far`` leaves out what would be under a pixel."""
    f, look = FORMS[variant % len(FORMS)], variant % VARIANTS
    b = MeshBuilder()
    w, h = f.width / 2, f.length / 2
    radius = 0.31 if f.height < 1.65 else 0.36
    for quad in cuboid(-w * 0.92, w * 0.92, -h * 0.95, h * 0.95, 0.14, 0.36)[:4]:
        b.face(quad, "car", slot=Slot.UNDER)
    for x in () if far else (-w + 0.02, w - 0.25):
        for z, order in ((-h * 0.72, 1), (h * 0.72, -1)):
            tread = [(x, 0.0, z), (x + 0.23, 0.0, z), (x + 0.23, radius, z), (x, radius, z)]
            b.face(tread if order > 0 else tread[1::-1] + tread[:1:-1], "car", slot=Slot.TYRE)
    split = f.length * f.front[0]
    # behind the windscreen the body reaches the waist; before it the bonnet falls
    back = prism((-w, w, -h, split), (-w * 0.95, w * 0.95, -h * 0.975, split), 0.28, f.waist)
    nose = prism((-w, w, split, h), (-w * 0.93, w * 0.93, split, h * 0.965), 0.28, f.bonnet)
    for quad in (back.left, back.right, back.rear, nose.left, nose.right, nose.front):
        _panel(b, quad)
    if not f.bed:
        _panel(b, back.top)
    left, right = nose.top[0], nose.top[1]
    bonnet: Quad = (
        (left[0], f.waist, split),
        (right[0], f.waist, split),
        (right[0], f.bonnet, h * 0.965),
        (left[0], f.bonnet, h * 0.965),
    )
    _panel(b, bonnet, tone=1.02)
    for x, order in ((-w * 0.96, 1), (w * 0.96, -1)):
        wing = [(x, f.bonnet, h * 0.965), (x, f.bonnet * 0.9, split), (x, f.waist, split)][::order]
        b.face(wing, "car", Material.PAINT, 0)
    if f.bed:
        b.face(back.top, "car", slot=Slot.UNDER, tone=1.5)
    _ends(b, f, Prism(back.rear, nose.front, back.left, back.right, back.top), look)
    _cabin(b, f, w)
    if not far:
        _details(b, f, back, look)
    _wheels(b, w, radius, (-f.length * 0.30, f.length * 0.31))
    return b.build()


def _details(b: MeshBuilder, f: Form, body: Prism, look: int) -> None:
    """Sills, doors, mouldings, mirrors, roof rails and a taxi's sign."""
    w = f.width / 2
    trim = Slot.HOUSING if look % 2 else 0
    for quad in (body.left, body.right):
        b.face(inset(quad, 0, 0, 1, 0.16), "car", Material.PAINT, 0, 0.35)
        for u in (0.36, 0.68):
            b.face(inset(quad, u, 0.14, u + 0.008, 0.98), "car", slot=Slot.UNDER)
        b.face(inset(quad, 0.0, 0.50, 1.0, 0.54), "car", Material.PAINT, trim, 0.75)
    z = f.length * f.front[0] - 0.35
    for side in (-1.0, 1.0):
        inner, outer = sorted((side * w, side * (w + 0.17)))
        for quad in cuboid(inner, outer, z, z + 0.1, f.waist, f.waist + 0.14)[:4]:
            b.face(quad, "car", Material.PAINT, trim)
    if look % 5 == 2 and not f.bed:
        rear, front = f.length * f.rear[1], f.length * f.front[1]
        for x in (-w * 0.6, w * 0.6):
            for quad in cuboid(x - 0.03, x + 0.03, rear, front, f.height, f.height + 0.07):
                b.face(quad, "car", slot=Slot.HOUSING)
    if look == 12:
        for quad in cuboid(-0.22, 0.22, -0.2, 0.0, f.height, f.height + 0.14)[:4]:
            b.face(quad, "car", slot=Slot.YELLOW, glow=Glow.SHOP)
