"""A street drawn at random: camera, ground, roadside and everything on it, in metres, without any appearance.

Right-hand traffic: the camera drives at positive x. Things are placed lane by lane and never overlap along a lane.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from flexseg.world import furniture, people, street, vehicles
from flexseg.world.camera import Camera
from flexseg.world.domains import Layout
from flexseg.world.mesh import Mesh

GROUND, BACKDROP, FRONTAGE, STREET = range(4)
"""Layers, painted in this order; inside a layer far things come first."""


class Thing(NamedTuple):
    """A mesh somewhere in the street."""

    mesh: Mesh
    kind: str
    """Key of :data:`flexseg.world.palettes.KIND_SLOTS`: whose colours it takes."""
    layer: int
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    """Radians; positive turns the thing's front to the right."""
    scale: float = 1.0
    depth: float = 0.0
    """What it is sorted by, in metres from the camera's plane."""


@dataclass
class Scene:
    """A street and who looks at it."""

    camera: Camera
    bend: float
    """Curvature of the street in 1/m; positive bends to the right."""
    things: list[Thing] = field(default_factory=list)
    colours: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))
    """(things, 5) uniform draws: which colour each slot takes, and how bright the thing is."""
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    """Lanterns (x, y, z)."""
    bonnet: float = 0.0
    """Share of the picture's height the ego vehicle covers at the bottom."""

    def put(
        self, mesh: Mesh, kind: str, x: float, z: float, yaw: float = 0.0, scale: float = 1.0, layer: int = STREET
    ) -> None:
        """Stand a thing at (x, z)."""
        self.things.append(Thing(mesh, kind, layer, x, 0.0, z, yaw, scale, z))

    def facing(
        self, mesh: Mesh, kind: str, x: float, z: float, turn: float = 0.0, scale: float = 1.0, layer: int = STREET
    ) -> None:
        """Stand a flat thing at (x, z), turned to the camera and then by ``turn`` radians."""
        self.put(mesh, kind, x, z, float(np.arctan2(x - self.camera.x, max(z, 1.0))) + turn, scale, layer)


class Dice:
    """Uniform draws from one generator, taken in blocks because single draws cost microseconds."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._block: list[float] = []

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        if not self._block:
            self._block = self.rng.random(512).tolist()
        return low + (high - low) * self._block.pop()

    def chance(self, p: float) -> bool:
        return self() < p

    def whole(self, n: int) -> int:
        return int(self() * n)


def draw_camera(d: Dice, layout: Layout, x: float) -> Camera:
    """The camera of a street's picture, ``x`` metres beside its middle."""
    return Camera(
        x=x,
        height=d(*layout.camera_height),
        fov=np.radians(d(*layout.fov)),
        pitch=np.radians(d(*layout.pitch)),
        yaw=np.radians(d(*layout.yaw)),
        roll=np.radians(d(*layout.roll)),
        horizon=d(*layout.horizon),
    )


def build_scene(rng: np.random.Generator, layout: Layout) -> Scene:
    """Draw a street. All randomness comes from ``rng``."""
    d = Dice(rng)
    lanes = layout.lanes[d.whole(len(layout.lanes))]
    lane = d(3.1, 3.5)
    parking = (2.3 if d.chance(0.75) else 0.4, 2.3 if d.chance(0.75) else 0.4)
    tram = d.chance(0.30 * layout.rare)
    left = lanes * lane + parking[0]
    right = lanes * lane + parking[1]
    own = (lanes - 0.5) * lane if d.chance(0.6) else 0.5 * lane
    cross = d(16, 45) if d.chance(0.45) else 0.0
    zebra = d(7, 16) if d.chance(0.3) else 0.0
    closed = d(50, 90) if d.chance(0.25) and cross < 30 else 0.0
    if cross and not zebra and d.chance(0.5):
        zebra = cross - 8.5
    section = street.Section(
        left=left,
        right=right,
        lane=lane,
        pavement=(d(2.2, 4.5), d(2.2, 4.5)),
        verge=tuple(d(1.2, 3.0) if d.chance(0.3) else 0.0 for _ in range(2)),  # type: ignore[arg-type]
        base=tuple("terrain" if d.chance(0.45) else "sidewalk" for _ in range(2)),  # type: ignore[arg-type]
        crossing=cross,
        crossing_width=d(6, 9),
        zebra=zebra,
        rails=-lane / 2 if tram else float("nan"),
        yellow=d.chance(layout.yellow_line),
        closed=closed,
    )
    camera = draw_camera(d, layout, own + d(-0.4, 0.4))
    bend = d(-0.0045, 0.0045) if d.chance(0.5) and not closed else 0.0
    scene = Scene(camera, bend, bonnet=d(0.05, 0.09) if d.chance(layout.bonnet) else 0.0)
    scene.things.append(Thing(street.ground(section), "ground", GROUND))
    _backdrop(scene, d, section)
    for side in (-1, 1):
        _roadside(scene, d, section, layout, side)
        _pavement(scene, d, section, layout, side)
        _parking(scene, d, section, layout, side, parking[(side + 1) // 2] > 1)
    _traffic(scene, d, section, layout, lanes, tram)
    scene.colours = rng.random((len(scene.things), 5))
    return scene


def edges(s: street.Section, side: int) -> tuple[float, float, float]:
    """Distances from the centre line to the kerb, the inner and the outer edge of the pavement."""
    i = (side + 1) // 2
    kerb = s.left if side < 0 else s.right
    return kerb, kerb + s.verge[i], kerb + s.verge[i] + s.pavement[i]


def _backdrop(scene: Scene, d: Dice, s: street.Section) -> None:
    z = (s.closed + 14) if s.closed else d(170, 230)
    if d.chance(0.6) or s.closed:
        n = 14
        width = d(9, 14) if s.closed else d(14, 26)
        heights = np.array([d(5, 15) if s.closed else d(5, 26) for _ in range(n)])
        scene.things.append(Thing(street.skyline(heights, -width * n / 2, width, z), "building", BACKDROP, depth=z))
    row = street.hedge_row(d.rng, -200, 200, z - 4, d(2.5, 7.0))
    scene.things.append(Thing(row, "tree", BACKDROP, depth=z - 4))


def _roadside(scene: Scene, d: Dice, s: street.Section, layout: Layout, side: int) -> None:
    """Houses, parks, walls and fences along one side, block by block."""
    edge = edges(s, side)[2]
    z, last = d(-3, 4), (s.closed or 130.0)
    lo, hi = s.crossing - s.crossing_width / 2 - 2.5, s.crossing + s.crossing_width / 2 + 2.5
    high = d(*layout.storeys)
    opened = d.chance(layout.open_side)
    while z < last:
        length = d(9, 18)
        if s.crossing and z < hi and z + length > lo:
            if lo - z > 5:
                length = lo - z
            else:
                z = hi + d(0, 1.5)
                continue
        if d.chance(0.35):
            opened = d.chance(layout.open_side)
        if opened:
            _open_block(scene, d, side, edge, z, length)
        else:
            storeys = max(1, round(high + d(-1.2, 1.2)))
            storey = d(2.8, 3.5)
            front = side * (edge + (d(0, 2) if d.chance(0.3) else 0.0))
            mesh = street.building(
                side,
                front,
                z,
                z + length - (d(0.3, 4) if d.chance(0.15) else 0.02),
                storeys * storey + d(0.3, 1.0),
                d.whole(3),
                (d(1.9, 3.4), storey),
                float(d.whole(1000)),
                d.chance(0.4),
            )
            scene.things.append(Thing(mesh, "building", FRONTAGE, depth=z + length / 2))
        z += length


def _open_block(scene: Scene, d: Dice, side: int, edge: float, z: float, length: float) -> None:
    """A stretch without houses: trees and bushes behind a wall, a fence or nothing."""
    middle = z + length / 2
    kind = ("wall", "fence", "fence", "", "wall")[d.whole(5)]
    for _ in range(2 + d.whole(3)):
        x, tz = side * (edge + d(2.5, 12)), z + d() * length
        mesh = furniture.tree(d.whole(11)) if d.chance(0.75) else furniture.bush(d.whole(6))
        if tz > 2:
            scene.facing(mesh, "tree", x, tz, scale=d(0.8, 1.3), layer=FRONTAGE)
    if kind:
        height = round(d(2.2, 3.4) if kind == "wall" else d(1.8, 2.8), 1)
        mesh = furniture.barrier(kind, 3.0 * np.ceil(length / 3), height)
        # sorted in front of the trees of its own block and behind those of nearer ones
        thing = Thing(mesh, kind, FRONTAGE, side * (edge + 0.2), 0.0, middle, 0.0, 1.0, z)
        scene.things.append(thing)


def _pavement(scene: Scene, d: Dice, s: street.Section, layout: Layout, side: int) -> None:
    """Trees, lamps, lights, signs, people and clutter between kerb and house."""
    kerb, inner, outer = edges(s, side)
    lo, hi = s.crossing - s.crossing_width / 2, s.crossing + s.crossing_width / 2

    def clear(z: float) -> bool:
        return not s.crossing or z < lo or z > hi

    last = s.closed or 90.0
    at = side * (kerb + 0.55)
    if d.chance(layout.trees):
        kind = layout.tree_kinds[d.whole(len(layout.tree_kinds))]
        z, gap, size = d(6, 14), d(7, 13), d(0.75, 1.15)
        while z < last:
            if clear(z) and d.chance(0.8):
                mesh = furniture.tree(kind if d.chance(0.75) else layout.tree_kinds[d.whole(len(layout.tree_kinds))])
                scene.facing(mesh, "tree", side * (max(inner, kerb + 1.2) - 0.4), z, scale=size * d(0.85, 1.15))
            z += gap
    z, gap = d(5, 16), d(14, 22)
    # farther posts would be thinner than a pixel, yet their labels would not
    while z < min(last, 30.0):
        if clear(z):
            scene.put(furniture.lamp_post(-side), "post", at, z)
            scene.lamps.append((at - side * furniture.LAMP_REACH, furniture.LAMP_HEIGHT - 0.2, z))
        z += gap
    for z in (d(6, 11), d(10, 18), d(18, 32)):
        if d.chance(0.45):
            scene.facing(
                furniture.sign(d.whole(8)), "post", at + side * d(0, 0.4), z, turn=d(-0.2, 0.2), scale=d(1.0, 1.25)
            )
        if d.chance(0.25):
            scene.facing(furniture.plain_pole(d.whole(3)), "post", at + side * d(0, 0.6), z + 1.2)
    signal = (s.crossing and lo - 1.5) or s.zebra
    if signal and d.chance(0.8):
        arm = 1 if side > 0 else 2
        variant = d.whole(3) + 3 * (arm if d.chance(0.4) else 0)
        scene.facing(furniture.traffic_light(variant), "post", at, signal, scale=d(1.4, 1.7))
        if s.crossing and d.chance(0.5):
            scene.facing(furniture.traffic_light(d.whole(3)), "post", at, hi + 1.2, scale=1.5)
    elif d.chance(0.12):
        scene.facing(furniture.traffic_light(d.whole(3)), "post", at, d(8, 15), scale=1.5)
    for _ in range(round(d(*layout.people) / 2)):
        z = d(5.5, 11) if d.chance(0.5) else d(8, 16)
        x = d(kerb + 0.5, outer - 0.4)
        for _ in range(1 + (d.chance(0.3))):
            scene.facing(people.person(d.whole(8)), "person", side * x, z, turn=d(-0.5, 0.5), scale=d(1.0, 1.15))
            x += d(0.5, 0.7)
    for _ in range(2):
        if d.chance(0.6):
            scene.put(
                vehicles.bin_or_bench(d.whole(4)),
                "clutter",
                side * d(kerb + 0.6, inner + 1.2),
                d(5, 16),
                yaw=d(-0.2, 0.2),
            )
    if d.chance(0.25 * layout.rare):
        z, make = d(6.5, 11), (people.bicycle if d.chance(0.65) else people.motorcycle)
        for i in range(1 + d.whole(3)):
            scene.facing(make(d.whole(6)), "clutter", side * (kerb + 0.9), z + 0.7 * i, turn=d(-0.6, 0.6), scale=1.45)
    if d.chance(0.08):
        scene.put(furniture.shelter(0 if side > 0 else 1), "building", side * (outer - 0.9), d(9, 20))


def _parking(scene: Scene, d: Dice, s: street.Section, layout: Layout, side: int, lane: bool) -> None:
    """A row of parked vehicles along the kerb."""
    if not lane:
        return
    x = side * (edges(s, side)[0] - 1.1)
    busy = layout.parked * d(0.5, 1.4)
    z = d(7, 12)
    last = s.closed or 40.0
    while z < last:
        near_crossing = s.crossing and abs(z - s.crossing) < s.crossing_width / 2 + 5
        if d.chance(busy) and not near_crossing and not (s.zebra and abs(z - s.zebra) < 4):
            yaw = (0.0 if side > 0 else np.pi) + d(-0.03, 0.03)
            roll = d()
            if roll < 0.07 * layout.rare:
                scene.put(vehicles.truck(d.whole(3)), "truck", x, z + 2, yaw)
                z += 5
            elif roll < 0.14 * layout.rare:
                scene.facing(people.motorcycle(d.whole(6)), "clutter", x, z, turn=d(-0.7, 0.7), scale=1.45)
                z -= 2
            else:
                scene.put(
                    vehicles.car(d.whole(vehicles.CAR_VARIANTS)), "car", x + d(-0.15, 0.15), z, yaw, d(0.95, 1.05)
                )
        z += d(5.4, 6.6)


def _traffic(scene: Scene, d: Dice, s: street.Section, layout: Layout, lanes: int, tram: bool) -> None:
    """Moving vehicles lane by lane, riders along the edge, people on the zebra."""
    own = scene.camera.x
    last = s.closed or 50.0
    taken: list[tuple[float, float, float]] = []

    def vehicle(x: float, z: float, yaw: float, first: bool) -> float:
        roll = d()
        rare = layout.rare * (1.0 if first else 0.4)
        if roll < 0.14 * rare:
            scene.put(vehicles.bus(d.whole(2)), "bus", x, z + 4.5, yaw)
            return 12.0
        if roll < 0.28 * rare:
            scene.put(vehicles.truck(d.whole(3)), "truck", x, z + 3, yaw)
            return 9.0
        if roll < 0.36 * rare:
            scene.facing(people.rider_along(4 + (0 if yaw == 0 else 1) + 2 * d.whole(2)), "person", x, z, scale=1.3)
            return 3.0
        scene.put(vehicles.car(d.whole(vehicles.CAR_VARIANTS)), "car", x, z, yaw, d(0.95, 1.05))
        return 5.0

    for i in range(lanes):
        for side in (1, -1):
            x = side * (i + 0.5) * s.lane
            ours = abs(x - own) < 1.2
            first = d(11, 24) if ours else d(6, 20)
            z = first
            if tram and side < 0 and i == 0:
                start = d(10, 26)
                scene.put(vehicles.tram(d.whole(2)), "tram", x, start + 9, 0.0 if d.chance(0.3) else np.pi)
                continue
            while z < last:
                if d.chance(layout.traffic * (0.8 if z == first else 0.55)):
                    used = vehicle(x + d(-0.2, 0.2), z, 0.0 if side > 0 else np.pi, z == first)
                    taken.append((x, z, used))
                    z += used
                z += d(6, 22)
    for side in (1, -1):
        if d.chance(0.42 * layout.rare):
            # close to the kerb lane's edge, where cyclists ride; near enough to be learnt
            x = side * (lanes * s.lane - 0.5 + (0.4 if side < 0 else 0.0))
            if abs(x - own) > 1.1:
                motor = d.chance(0.35)
                scene.facing(
                    people.rider_along((4 if motor else 0) + (0 if side > 0 else 1) + 2 * d.whole(2)),
                    "person",
                    x,
                    d(6, 14),
                    turn=d(-0.3, 0.3),
                    scale=1.3,
                )
    if s.crossing and d.chance(0.5):
        for _ in range(1 + d.whole(2)):
            yaw = np.pi / 2 if d.chance(0.5) else -np.pi / 2
            mesh, kind = (vehicles.car(d.whole(5)), "car") if d.chance(0.7) else (vehicles.bus(d.whole(2)), "bus")
            scene.put(mesh, kind, d(-14, 14), s.crossing + (1.7 if yaw > 0 else -1.7), yaw)
    if d.chance(0.3 * layout.rare):
        z = (s.zebra or d(8, 15)) + d(-0.5, 0.5)
        turn = 0.0 if d.chance(0.5) else np.pi
        motor = d.chance(0.4)
        mesh = (people.motorcyclist_side if motor else people.cyclist_side)(d.whole(6))
        scene.facing(mesh, "person", d(-s.left + 1, s.right - 1), max(z, 6.5), turn=turn + d(-0.5, 0.5), scale=1.25)
    if s.zebra and d.chance(0.7):
        for _ in range(1 + d.whole(3)):
            scene.facing(
                people.person(d.whole(6)), "person", d(-s.left, s.right), s.zebra + d(-1, 1), turn=d(-0.5, 0.5)
            )
