"""What lines the street: houses in rows, behind gardens or free-standing, parks, yards and building sites."""

from __future__ import annotations

import numpy as np

from flexseg.world import furniture, street
from flexseg.world.mesh import Mesh
from flexseg.world.scene import FRONTAGE, Dice, Scene, Thing, edges
from flexseg.world.v2 import clutter, plants, vehicles
from flexseg.world.v2.houses import Plan, house
from flexseg.world.v2.layout import StreetLayout

LAST = 100.0
"""Metres to which the roadside is built; the backdrop closes what is behind."""

LENGTHS = {"terrace": (5.5, 9), "garden": (6, 13), "block": (12, 26), "hall": (18, 34), "open": (9, 20)}
"""Metres along the street of a stretch of each kind."""


def roadside(scene: Scene, d: Dice, s: street.Section, layout: StreetLayout, side: int) -> None:
    """Blocks along one side; a side street cuts through."""
    edge = edges(s, side)[2]
    z, last = d(-4, 3), (s.closed or LAST)
    lo, hi = s.crossing - s.crossing_width / 2 - 2.5, s.crossing + s.crossing_width / 2 + 2.5
    kind = _kind(d, layout)
    storeys = d(*layout.storeys)
    while z < last:
        length = d(*LENGTHS[kind]) * (1 + max(z, 0) / 90)  # far away, one house stands for two
        if s.crossing and z < hi and z + length > lo:
            if lo - z > 5:
                length = lo - z
            else:
                z = hi + d(0, 1.5)
                kind = _kind(d, layout) if d.chance(0.6) else kind
                continue
        if d.chance(0.2):
            kind = _kind(d, layout)
        if kind == "open":
            _open(scene, d, side, edge, z, length)
        else:
            _built(scene, d, layout, side, edge, z, length, kind, storeys)
        z += length


def _kind(d: Dice, layout: StreetLayout) -> str:
    if d.chance(layout.open_side):
        return "open"
    if d.chance(layout.gardens):
        return "garden"
    return ("terrace", "terrace", "block", "block", "hall")[d.whole(5)]


def _front_thing(scene: Scene, mesh: Mesh, kind: str, x: float, z: float, near: float) -> None:
    # sorted by its near end: in front of what belongs to it and behind what is nearer
    scene.things.append(Thing(mesh, kind, FRONTAGE, x, 0.0, z, 0.0, 1.0, near))


def _built(
    scene: Scene,
    d: Dice,
    layout: StreetLayout,
    side: int,
    edge: float,
    z: float,
    length: float,
    kind: str,
    storeys: float,
) -> None:
    garden = d(2.0, 6.0) if kind == "garden" else (d(0, 1.5) if d.chance(0.2) else 0.0)
    gap = d(1.5, 4.5) if kind == "garden" and d.chance(0.6) else (d(0.3, 3) if d.chance(0.08) else 0.02)
    floors = {
        "terrace": storeys + d(-0.6, 0.6),
        "garden": d(1.6, 2.6),
        "block": storeys + d(0.5, 2.5),
        "hall": d(1, 2),
    }[kind]
    storey = d(2.7, 3.5) if kind != "hall" else d(3.6, 5.0)
    roofs = {
        "terrace": ("ridge", "ridge", "mansard", "flat", "gable"),
        "garden": ("ridge", "gable", "ridge"),
        "block": ("flat", "setback", "flat", "mansard"),
        "hall": ("flat", "flat", "ridge"),
    }[kind]
    plan = Plan(
        side,
        side * (edge + garden),
        z,
        z + max(length - gap, 3.0),
        max(1, round(floors)) * storey + d(0.3, 1.0),
        d(8, 13),
        roofs[d.whole(len(roofs))],
        (d(1.9, 3.6) if kind != "hall" else d(3, 5), storey),
        d.whole(4000),
        kind != "garden" and d.chance(layout.shops),
        d.whole(64),
    )
    scene.things.append(Thing(house(plan), "building", FRONTAGE, depth=z + length / 2))
    if garden > 1.5:
        _garden(scene, d, side, edge, garden, z, length)


def _garden(scene: Scene, d: Dice, side: int, edge: float, depth: float, z: float, length: float) -> None:
    """A hedge, wall or fence towards the pavement, with bushes and small trees behind it."""
    middle, x = z + length / 2, side * (edge + 0.15)
    span = round(max(length - 1.2, 2.0))
    roll = d()
    if roll < 0.3:
        _front_thing(scene, plants.hedge(d.whole(4), span, round(d(0.9, 2.0), 1)), "tree", x, middle, z - 0.1)
    elif roll < 0.6:
        _front_thing(scene, clutter.low_wall(span, round(d(0.6, 1.3), 1)), "wall", x, middle, z - 0.1)
    elif roll < 0.8:
        _front_thing(scene, clutter.railing(span, round(d(0.9, 1.4), 1)), "fence", x, middle, z - 0.1)
    for _ in range(d.whole(4)):
        bx, bz = side * (edge + d(0.8, depth)), z + d() * length
        mesh = plants.bush(d.whole(8)) if d.chance(0.7) else plants.tree(17 + d.whole(3))
        if bz > 5:
            scene.facing(mesh, "tree", bx, bz, scale=d(0.7, 1.3), layer=FRONTAGE)


def _open(scene: Scene, d: Dice, side: int, edge: float, z: float, length: float) -> None:
    """A stretch without houses: a park, a car park or a building site, behind a wall, a fence, a hedge or nothing."""
    middle, roll = z + length / 2, d()
    if roll < 0.15:  # a car park
        for k in range(int(length / 2.7)):
            if d.chance(0.7):
                cz = z + 1.4 + 2.7 * k
                mesh = vehicles.car(d.whole(vehicles.VARIANTS), cz > vehicles.FAR)
                scene.put(mesh, "car", side * (edge + 3.2), cz, side * np.pi / 2 + d(-0.05, 0.05), layer=FRONTAGE)
    for _ in range(3 + d.whole(4)):
        x, tz = side * (edge + d(2.5, 16)), z + d() * length
        if roll < 0.15:
            x += side * 4
        mesh = plants.tree(d.whole(plants.TREES)) if d.chance(0.75) else plants.bush(d.whole(8))
        if tz > 5:
            scene.facing(mesh, "tree", x, tz, scale=d(0.8, 1.4), layer=FRONTAGE)
    kind = ("wall", "wall", "wall", "fence", "fence", "fence", "hedge", "hoarding", "low", "")[d.whole(10)]
    span = 3.0 * float(np.ceil(length / 3))
    x = side * (edge + 0.2)
    if kind in ("wall", "fence"):
        height = round(d(1.6, 3.2) if kind == "wall" else d(1.2, 2.4), 1)
        _front_thing(scene, furniture.barrier(kind, span, height), kind, x, middle, z)
    elif kind == "hedge":
        _front_thing(scene, plants.hedge(d.whole(4), span, round(d(1.0, 2.6), 1)), "tree", x, middle, z)
    elif kind == "hoarding":
        _front_thing(scene, clutter.hoarding(span, d.whole(4)), "fence", x, middle, z)
    elif kind == "low":
        _front_thing(scene, clutter.low_wall(span, round(d(0.5, 1.0), 1)), "wall", x, middle, z)
