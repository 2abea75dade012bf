"""What stands between kerb and houses: trees, lamps, signals, signs, people, clutter, and the parked row beside."""

from __future__ import annotations

import numpy as np

from flexseg.world import furniture, people, street, vehicles
from flexseg.world.scene import Dice, Scene, edges
from flexseg.world.v2 import clutter, plants
from flexseg.world.v2 import vehicles as cars
from flexseg.world.v2.layout import StreetLayout

NARROWEST = 32.0
"""Metres beyond which posts are left out: they would be thinner than a pixel, yet their labels would not."""


def pavement(scene: Scene, d: Dice, s: street.Section, layout: StreetLayout, side: int) -> None:
    """Furnish one side."""
    kerb, inner, outer = edges(s, side)
    lo, hi = s.crossing - s.crossing_width / 2, s.crossing + s.crossing_width / 2

    def clear(z: float) -> bool:
        return not s.crossing or z < lo or z > hi

    last = s.closed or 100.0
    at = side * (kerb + 0.55)
    if d.chance(layout.trees):
        kinds = layout.tree_kinds
        kind = kinds[d.whole(len(kinds))]
        z, gap, size = d(5, 14), d(8, 16), d(0.7, 1.1)
        while z < last:
            if clear(z) and d.chance(0.8):
                mesh = plants.tree(kind if d.chance(0.8) else kinds[d.whole(len(kinds))])
                scene.facing(mesh, "tree", side * (max(inner, kerb + 1.2) - 0.4), z, scale=size * d(0.8, 1.2))
            z += gap
    if d.chance(layout.guard_rails):
        a, length = d(4, 14), float(3 * (2 + d.whole(5)))
        if clear(a) and clear(a + length):
            scene.put(clutter.railing(length, 1.0), "fence", side * (kerb + 0.35), a + length / 2)
    _posts(scene, d, s, layout, side, at, min(last, NARROWEST), lo, hi)
    for _ in range(round(d(*layout.people) / 2)):
        z = d(6, 14) if d.chance(0.5) else d(10, 32)
        x = d(kerb + 0.5, max(outer - 0.4, kerb + 0.6))
        for _ in range(1 + d.chance(0.35)):
            size = d(0.65, 0.8) if d.chance(0.06) else d(1.0, 1.15)
            scene.facing(people.person(d.whole(8)), "person", side * x, z, turn=d(-0.6, 0.6), scale=size)
            x += d(0.45, 0.7)
    if d.chance(0.55):
        x, z = side * d(kerb + 0.8, max(inner + 1.0, kerb + 0.9)), d(8, 22)
        roll = d()
        if roll < 0.6:
            scene.put(clutter.void_thing(d.whole(clutter.VOID_KINDS)), "clutter", x, z, yaw=d(-0.2, 0.2))
        else:
            scene.put(vehicles.bin_or_bench(d.whole(4)), "clutter", x, z, yaw=d(-0.2, 0.2))
    if d.chance(0.24 * layout.rare):
        z, make = d(6, 11), (people.bicycle if d.chance(0.65) else people.motorcycle)
        x, count = side * (kerb + 0.9 if d.chance(0.6) else max(outer - 0.6, kerb + 0.9)), 1 + d.whole(4)
        for i in range(count):
            scene.facing(make(d.whole(6)), "clutter", x, z + 0.7 * i, turn=d(-0.6, 0.6), scale=d(1.25, 1.45))
    if d.chance(0.08):
        scene.put(furniture.shelter(0 if side > 0 else 1), "building", side * (outer - 0.9), d(9, 20))
    if d.chance(0.07):
        scene.put(clutter.bollards(2 + d.whole(4)), "post", side * (kerb + 0.5), d(6, 14))


def _posts(
    scene: Scene,
    d: Dice,
    s: street.Section,
    layout: StreetLayout,
    side: int,
    at: float,
    last: float,
    lo: float,
    hi: float,
) -> None:
    """Lamps, signs, masts and signals."""
    z, gap = d(5, 18), d(18, 28)
    while z < last:
        if not s.crossing or z < lo or z > hi:
            scene.put(furniture.lamp_post(-side), "post", at, z, scale=d(0.95, 1.3))
            scene.lamps.append((at - side * furniture.LAMP_REACH, furniture.LAMP_HEIGHT - 0.2, z))
        z += gap
    for z in (d(7, 13), d(11, 24)):
        if d.chance(0.5):
            at_x = at + side * d(0, 0.4)
            scene.facing(furniture.sign(d.whole(8)), "post", at_x, z, turn=d(-0.25, 0.25), scale=d(0.8, 1.1))
        if d.chance(0.2):
            scene.facing(furniture.plain_pole(d.whole(3)), "post", at + side * d(0, 0.6), z + 1.2)
    if d.chance(0.06):
        scene.facing(clutter.gantry(d.whole(6)), "post", at + side * 1.4, d(14, 26), turn=d(-0.2, 0.2))
    signal = (s.crossing and lo - 1.5) or s.zebra
    if signal and d.chance(0.75):
        arm = 1 if side > 0 else 2
        variant = d.whole(3) + 3 * (arm if d.chance(0.3) else 0)
        scene.facing(furniture.traffic_light(variant), "post", at, signal, scale=d(1.2, 1.5))
        if s.crossing and d.chance(0.5):
            scene.facing(furniture.traffic_light(d.whole(3)), "post", at, hi + 1.2, scale=1.4)
    elif d.chance(0.10):
        scene.facing(furniture.traffic_light(d.whole(3)), "post", at, d(8, 14), scale=1.4)


def parking(scene: Scene, d: Dice, s: street.Section, layout: StreetLayout, side: int) -> None:
    """A row of vehicles along the kerb, some of them dense."""
    x = side * (edges(s, side)[0] - 1.05)
    busy = min(0.95, layout.parked * d(0.5, 2.4))
    z, last = d(5.5, 12), (s.closed or 60.0)
    while z < last:
        near_crossing = s.crossing and abs(z - s.crossing) < s.crossing_width / 2 + 5
        if d.chance(busy) and not near_crossing and not (s.zebra and abs(z - s.zebra) < 4):
            yaw = (0.0 if side > 0 or d.chance(0.2) else np.pi) + d(-0.03, 0.03)
            roll = d()
            if roll < 0.04 * layout.rare:
                scene.put(vehicles.truck(d.whole(3)), "truck", x, z + 2, yaw)
                z += 5
            elif roll < 0.10 * layout.rare:
                scene.facing(people.motorcycle(d.whole(6)), "clutter", x, z, turn=d(-0.7, 0.7), scale=d(1.1, 1.3))
                z -= 2
            else:
                mesh = cars.car(d.whole(cars.VARIANTS), z > cars.FAR)
                scene.put(mesh, "car", x + d(-0.15, 0.15), z, yaw, d(0.95, 1.05))
        z += d(5.3, 6.4)
