"""What moves on the road: vehicles lane by lane, riders along the kerb, people who cross."""

from __future__ import annotations

import numpy as np

from flexseg.world import people, street, vehicles
from flexseg.world.scene import Dice, Scene
from flexseg.world.v2 import vehicles as cars
from flexseg.world.v2.layout import StreetLayout


def traffic(scene: Scene, d: Dice, s: street.Section, layout: StreetLayout, lanes: int, tram: bool) -> None:
    """Fill the lanes; things never overlap along one."""
    own, last = scene.camera.x, (s.closed or 70.0)
    for i in range(lanes):
        for side in (1, -1):
            x = side * (i + 0.5) * s.lane
            z = first = d(10, 26) if abs(x - own) < 1.4 else d(7, 24)
            if tram and side < 0 and i == 0:
                scene.put(vehicles.tram(d.whole(2)), "tram", x, d(11, 28) + 9, 0.0 if d.chance(0.3) else np.pi)
                continue
            while z < last:
                if d.chance(layout.traffic * (0.85 if z == first else 0.6)):
                    z += _vehicle(scene, d, layout, x + d(-0.25, 0.25), z, 0.0 if side > 0 else np.pi, z == first)
                z += d(5, 20)
    _riders(scene, d, s, layout, lanes)
    if s.crossing and d.chance(0.55):
        for _ in range(1 + d.whole(2)):
            yaw = np.pi / 2 if d.chance(0.5) else -np.pi / 2
            mesh, kind = (
                (cars.car(d.whole(cars.VARIANTS)), "car") if d.chance(0.75) else (vehicles.bus(d.whole(2)), "bus")
            )
            scene.put(mesh, kind, d(-16, 16), s.crossing + (1.7 if yaw > 0 else -1.7), yaw)
    if s.zebra and d.chance(0.6):
        for _ in range(1 + d.whole(3)):
            x, z = d(-s.left, s.right), s.zebra + d(-1, 1)
            scene.facing(people.person(d.whole(8)), "person", x, z, turn=d(-0.5, 0.5), scale=d(0.95, 1.1))


def _vehicle(scene: Scene, d: Dice, layout: StreetLayout, x: float, z: float, yaw: float, first: bool) -> float:
    """Put one vehicle with its rear at ``z``; returns the metres it takes."""
    roll = d()
    rare = layout.rare * (1.0 if first else 0.4)
    if roll < 0.11 * rare:
        scene.put(vehicles.bus(d.whole(2)), "bus", x, z + 5, yaw, d(0.95, 1.05))
        return 13.0
    if roll < 0.22 * rare:
        scene.put(vehicles.truck(d.whole(3)), "truck", x, z + 3.5, yaw, d(0.9, 1.1))
        return 9.0
    if roll < 0.29 * rare:
        rider = people.rider_along(4 + (0 if yaw == 0 else 1) + 2 * d.whole(2))
        scene.facing(rider, "person", x, z, scale=d(1.05, 1.25))
        return 3.0
    scene.put(cars.car(d.whole(cars.VARIANTS), z > cars.FAR), "car", x, z + 1.5, yaw, d(0.95, 1.05))
    return 6.5


def _riders(scene: Scene, d: Dice, s: street.Section, layout: StreetLayout, lanes: int) -> None:
    own = scene.camera.x
    for side in (1, -1):
        if d.chance(0.36 * layout.rare):
            # close to the kerb lane's edge, where cyclists ride; near enough to be learnt
            x = side * (lanes * s.lane - 0.4 + (0.4 if side < 0 else 0.0))
            if abs(x - own) > 1.1:
                motor = 4 * d.chance(0.3)
                mesh = people.rider_along(motor + (0 if side > 0 else 1) + 2 * d.whole(2))
                scene.facing(mesh, "person", x, d(5.5, 13), turn=d(-0.3, 0.3), scale=d(1.15, 1.35))
    if d.chance(0.2 * layout.rare):
        z = (s.zebra or d(7, 14)) + d(-0.5, 0.5)
        turn = 0.0 if d.chance(0.5) else np.pi
        motor = d.chance(0.4)
        mesh = (people.motorcyclist_side if motor else people.cyclist_side)(d.whole(6))
        x = d(-s.left + 1, s.right - 1)
        scene.facing(mesh, "person", x, max(z, 6.5), turn=turn + d(-0.6, 0.6), scale=d(1.15, 1.3))
