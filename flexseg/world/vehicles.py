"""Cars, vans, buses, trucks and trams as small meshes; colour slot 0 is the paint, 1 a second colour."""

from __future__ import annotations

from functools import cache

from flexseg.world.mesh import Glow, Material, Mesh, MeshBuilder, Prism, Quad, Slot, cuboid, inset, prism, ring

CAR_VARIANTS = 5
# length, width, height, waist, cabin rear/front at its base and at the roof (fractions of the length from the middle)
_CARS: tuple[tuple[float, ...], ...] = (
    (4.5, 1.80, 1.45, 0.88, -0.40, 0.20, -0.26, 0.04),  # saloon
    (4.0, 1.75, 1.50, 0.90, -0.49, 0.22, -0.42, 0.06),  # hatchback
    (4.7, 1.90, 1.72, 1.02, -0.49, 0.22, -0.44, 0.08),  # SUV
    (5.1, 1.98, 2.15, 1.08, -0.49, 0.42, -0.48, 0.26),  # van
    (4.7, 1.82, 1.50, 0.88, -0.49, 0.20, -0.38, 0.04),  # estate
)


def _wheels(b: MeshBuilder, label: str, half: float, radius: float, stations: tuple[float, ...]) -> None:
    for z in stations:
        for side in (-1.0, 1.0):
            x = side * (half + 0.01)
            for r, slot in ((radius, Slot.TYRE), (radius * 0.58, Slot.RIM)):
                outline = [(x, y, z + side * dz) for dz, y in ring(0.0, radius, r, 10)]
                b.face(outline, label, slot=slot)


def _tyres(b: MeshBuilder, label: str, half: float, radius: float, z0: float, z1: float) -> None:
    """The treads seen from behind and from the front, below the body."""
    for x in (-half + 0.02, half - 0.27):
        b.face([(x, 0, z0), (x + 0.25, 0, z0), (x + 0.25, radius, z0), (x, radius, z0)], label, slot=Slot.TYRE)
        b.face([(x + 0.25, 0, z1), (x, 0, z1), (x, radius, z1), (x + 0.25, radius, z1)], label, slot=Slot.TYRE)


def _sides(b: MeshBuilder, box: Prism, label: str, slot: int, *, tone: float = 1.0, top: bool = True) -> None:
    for quad in box[: 5 if top else 4]:
        b.face(quad, label, Material.PAINT, slot, tone)


def _lights(b: MeshBuilder, box: Prism, label: str, v0: float, v1: float, wide: float) -> None:
    for u in (0.04, 0.96 - wide):
        b.face(inset(box.rear, u, v0, u + wide, v1), label, slot=Slot.RED, glow=Glow.TAIL)
        b.face(inset(box.front, u, v0, u + wide, v1), label, slot=Slot.LAMP_WHITE, glow=Glow.HEADLIGHT)


@cache
def car(variant: int) -> Mesh:
    """One of :data:`CAR_VARIANTS` car bodies; ``variant`` wraps around."""
    length, width, height, waist, r0, f0, r1, f1 = _CARS[variant % CAR_VARIANTS]
    b = MeshBuilder()
    w, h = width / 2, length / 2
    under = cuboid(-w * 0.9, w * 0.9, -h * 0.94, h * 0.94, 0.12, 0.34)
    for quad in under[:4]:
        b.face(quad, "car", slot=Slot.UNDER)
    _tyres(b, "car", w, 0.34, -h * 0.72, h * 0.72)
    body = prism((-w, w, -h, h), (-w * 0.95, w * 0.95, -h * 0.97, h * 0.95), 0.27, waist)
    _sides(b, body, "car", 0)
    for quad in body[:4]:
        b.face(inset(quad, 0, 0, 1, 0.18), "car", Material.PAINT, 0, 0.45)
    _lights(b, body, "car", 0.56, 0.82, 0.13)
    b.face(inset(body.rear, 0.36, 0.36, 0.64, 0.56), "car", slot=Slot.WHITE)
    b.face(inset(body.front, 0.30, 0.42, 0.70, 0.72), "car", slot=Slot.HOUSING)
    b.face(inset(body.front, 0.36, 0.2, 0.64, 0.36), "car", slot=Slot.WHITE)
    cabin = prism(
        (-w * 0.94, w * 0.94, r0 * length, f0 * length), (-w * 0.74, w * 0.74, r1 * length, f1 * length), waist, height
    )
    _sides(b, cabin, "car", 0, tone=0.95)
    for quad in (cabin.rear, cabin.front):
        b.face(inset(quad, 0.07, 0.10, 0.93, 0.86), "car", Material.GLASS, Slot.GLASS)
    for quad in (cabin.left, cabin.right):
        b.face(inset(quad, 0.06, 0.10, 0.48, 0.86), "car", Material.GLASS, Slot.GLASS)
        b.face(inset(quad, 0.53, 0.10, 0.94, 0.86), "car", Material.GLASS, Slot.GLASS)
    _wheels(b, "car", w, 0.34, (-length * 0.30, length * 0.31))
    return b.build()


def _windows(b: MeshBuilder, quad: Quad, label: str, count: int, v0: float, v1: float) -> None:
    b.face(inset(quad, 0.03, v0, 0.97, v1), label, Material.GLASS, Slot.GLASS, glow=Glow.CABIN)
    for i in range(1, count):
        u = 0.03 + 0.94 * i / count
        b.face(inset(quad, u - 0.006, v0, u + 0.006, v1), label, Material.PAINT, 0, 0.7)


@cache
def bus(variant: int) -> Mesh:
    """A city bus (even variants) or a coach with a coloured band (odd)."""
    coach = variant % 2 == 1
    length, height, w = (11.5, 3.4, 1.3) if coach else (10.5, 3.0, 1.28)
    h = length / 2
    b = MeshBuilder()
    _tyres(b, "bus", w, 0.5, -h * 0.8, h * 0.8)
    box = prism((-w, w, -h, h), (-w * 0.96, w * 0.96, -h * 0.99, h * 0.985), 0.3, height)
    _sides(b, box, "bus", 0)
    for quad in box[:4]:
        b.face(inset(quad, 0, 0.0, 1, 0.09), "bus", slot=Slot.UNDER)
        b.face(inset(quad, 0, 0.16, 1, 0.26 if coach else 0.2), "bus", Material.PAINT, 1)
    for quad in (box.left, box.right):
        _windows(b, quad, "bus", 6, 0.45, 0.82)
    b.face(inset(box.right, 0.84, 0.1, 0.94, 0.82), "bus", Material.GLASS, Slot.GLASS, 0.8, glow=Glow.CABIN)
    b.face(inset(box.rear, 0.08, 0.52, 0.92, 0.82), "bus", Material.GLASS, Slot.GLASS)
    b.face(inset(box.front, 0.05, 0.30, 0.95, 0.84), "bus", Material.GLASS, Slot.GLASS, glow=Glow.CABIN)
    for quad in (box.front, box.rear):
        b.face(inset(quad, 0.22, 0.87, 0.78, 0.965), "bus", slot=Slot.HOUSING)
        b.face(inset(quad, 0.30, 0.89, 0.66, 0.945), "bus", slot=Slot.ORANGE, glow=Glow.SHOP)
    _lights(b, box, "bus", 0.13, 0.24, 0.14)
    _wheels(b, "bus", w, 0.5, (-length * 0.27, length * 0.28))
    return b.build()


@cache
def truck(variant: int) -> Mesh:
    """Cab and load: box (0), tarpaulin with stripes (1), open bed with a load (2)."""
    kind = variant % 3
    length, w = (7.6, 1.25)
    h = length / 2
    b = MeshBuilder()
    split = h - 2.1
    cab_rear = split + 0.15
    b.part((0, 1.5, -1.0))
    _tyres(b, "truck", w, 0.5, -h * 0.85, split)
    chassis = cuboid(-w * 0.8, w * 0.8, -h, split, 0.45, 0.95)
    for quad in chassis[:4]:
        b.face(quad, "truck", slot=Slot.UNDER, tone=1.6)
    _lights(b, chassis, "truck", 0.3, 0.9, 0.2)
    tall = (3.5, 3.3, 1.75)[kind]
    box = cuboid(-w, w, -h, split, 0.95, tall)
    for quad in box:
        b.face(quad, "truck", Material.PAINT, 1)
    if kind == 0:
        b.face(inset(box.rear, 0.485, 0.02, 0.515, 0.98), "truck", slot=Slot.METAL, tone=0.6)
        for quad in (box.left, box.right):
            b.face(inset(quad, 0.2, 0.35, 0.8, 0.7), "truck", Material.PAINT, 0)
    elif kind == 1:
        for quad in box[:4]:
            for u in (0.1, 0.4, 0.7):
                b.face(inset(quad, u, 0.0, u + 0.07, 1.0), "truck", Material.PAINT, 1, 0.72)
    else:
        load = prism(
            (-w * 0.85, w * 0.85, -h * 0.9, split - 0.3), (-w * 0.5, w * 0.5, -h * 0.5, split - 1.2), tall, 2.5
        )
        for quad in load:
            b.face(quad, "truck", Material.BRICK, Slot.WOOD, params=(0.4, 0.3, 0, 0))
    b.face(inset(box.rear, 0.02, 0.0, 0.98, 0.05), "truck", slot=Slot.RED)
    _wheels(b, "truck", w, 0.5, (-length * 0.36, -length * 0.2))
    b.part((0, 1.5, split + 1.1))
    cab = prism((-w, w, cab_rear, h), (-w * 0.97, w * 0.97, cab_rear + 0.1, h - 0.25), 0.5, 2.75)
    _sides(b, cab, "truck", 0)
    b.face(inset(cab.front, 0.06, 0.5, 0.94, 0.88), "truck", Material.GLASS, Slot.GLASS)
    b.face(inset(cab.front, 0.15, 0.2, 0.85, 0.42), "truck", slot=Slot.HOUSING)
    for quad in (cab.left, cab.right):
        b.face(inset(quad, 0.3, 0.5, 0.9, 0.85), "truck", Material.GLASS, Slot.GLASS)
    for u in (0.04, 0.82):
        b.face(inset(cab.front, u, 0.08, u + 0.14, 0.18), "truck", slot=Slot.LAMP_WHITE, glow=Glow.HEADLIGHT)
    _wheels(b, "truck", w, 0.5, (h - 0.95,))
    return b.build()


@cache
def tram(variant: int) -> Mesh:
    """A tram of two linked cars, counted as *train*; with a pantograph in even variants."""
    b = MeshBuilder()
    w, height, unit = 1.25, 3.4, 9.0
    for i, z0 in enumerate((-unit - 0.3, 0.3)):
        z1 = z0 + unit
        b.part((0, 1.7, (z0 + z1) / 2))
        nose = 0.5
        lo = (-w, w, z0, z1)
        hi = (-w * 0.94, w * 0.94, z0 + (nose if i == 0 else 0), z1 - (nose if i == 1 else 0))
        box = prism(lo, hi, 0.25, height)
        _sides(b, box, "train", 0)
        for quad in box[:4]:
            b.face(inset(quad, 0, 0.0, 1, 0.1), "train", slot=Slot.UNDER)
            b.face(inset(quad, 0, 0.84, 1, 0.93), "train", Material.PAINT, 1)
            b.face(inset(quad, 0, 0.12, 1, 0.2), "train", Material.PAINT, 1)
        for quad in (box.left, box.right):
            _windows(b, quad, "train", 5, 0.42, 0.78)
            for u in (0.2, 0.7):
                b.face(inset(quad, u, 0.1, u + 0.13, 0.8), "train", Material.GLASS, Slot.GLASS, 0.7, glow=Glow.CABIN)
        b.face(inset(box.rear, 0.1, 0.4, 0.9, 0.8), "train", Material.GLASS, Slot.GLASS, glow=Glow.CABIN)
        b.face(inset(box.front, 0.1, 0.4, 0.9, 0.8), "train", Material.GLASS, Slot.GLASS, glow=Glow.CABIN)
        for quad in (box.rear, box.front):
            b.face(inset(quad, 0.3, 0.86, 0.7, 0.95), "train", slot=Slot.YELLOW, glow=Glow.SHOP)
        _lights(b, box, "train", 0.22, 0.32, 0.16)
        roof = prism((-0.7, 0.7, z0 + 2, z1 - 2), (-0.6, 0.6, z0 + 2.2, z1 - 2.2), height, height + 0.35)
        for quad in roof:
            b.face(quad, "train", slot=Slot.METAL, tone=0.7)
    if variant % 2 == 0:
        b.part((0, 3.6, -3.5))
        for x0, y0, x1, y1 in ((-0.6, 3.7, 0.5, 4.4), (0.5, 4.4, -0.6, 5.1)):
            b.face(
                [(x0, y0, -4), (x0 + 0.1, y0, -4), (x1 + 0.1, y1, -4), (x1, y1, -4)],
                "train",
                slot=Slot.HOUSING,
                cull=False,
            )
        b.face(
            [(-0.9, 5.05, -4), (0.9, 5.05, -4), (0.9, 5.15, -4), (-0.9, 5.15, -4)],
            "train",
            slot=Slot.HOUSING,
            cull=False,
        )
    return b.build()


@cache
def bin_or_bench(variant: int) -> Mesh:
    """Street furniture that the 19 classes do not name (void): bin, bench, parcel box, wheelie bins."""
    b = MeshBuilder()
    kind = variant % 4
    if kind == 1:
        for x in (-0.7, 0.6):
            leg = cuboid(x, x + 0.1, -0.2, 0.2, 0.0, 0.45)
            for quad in leg:
                b.face(quad, "void", slot=Slot.METAL, tone=0.6)
        for y0, y1, z0, z1 in ((0.42, 0.5, -0.25, 0.25), (0.6, 0.95, 0.2, 0.27)):
            for quad in cuboid(-0.85, 0.85, z0, z1, y0, y1):
                b.face(quad, "void", Material.PLAIN, Slot.WOOD, 1.5)
        return b.build()
    width, height, slot = ((0.28, 1.0, 0), (0, 0, 0), (0.45, 1.35, Slot.YELLOW), (0.35, 1.15, Slot.BLUE))[kind]
    box = prism((-width, width, -width, width), (-width * 1.1, width * 1.1, -width * 1.1, width * 1.1), 0.0, height)
    for quad in box:
        b.face(quad, "void", Material.PAINT, slot, 0.8)
    b.face(inset(box.rear, 0.15, 0.72, 0.85, 0.84), "void", slot=Slot.UNDER)
    return b.build()
