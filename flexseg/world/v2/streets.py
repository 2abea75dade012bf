"""A street of version 2 drawn at random: camera, ground, both roadsides, pavements, parked rows and traffic."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from flexseg.world import street
from flexseg.world.mesh import Material, Mesh, MeshBuilder, Slot, ring
from flexseg.world.scene import BACKDROP, GROUND, Dice, Scene, Thing, draw_camera
from flexseg.world.v2 import houses, plants
from flexseg.world.v2.layout import StreetLayout
from flexseg.world.v2.pavements import parking, pavement
from flexseg.world.v2.roadside import roadside
from flexseg.world.v2.traffic import traffic


def build_scene(rng: np.random.Generator, layout: StreetLayout) -> Scene:
    """Draw a street. All randomness comes from ``rng``."""
    d = Dice(rng)
    lanes = layout.lanes[d.whole(len(layout.lanes))]
    lane = d(*layout.lane_width)
    bays = tuple(2.2 if d.chance(layout.parking) else d(0.15, 0.6) for _ in range(2))
    tram = d.chance(0.22 * layout.rare)
    left, right = lanes * lane + bays[0], lanes * lane + bays[1]
    own = (lanes - 0.5) * lane if d.chance(0.6) else 0.5 * lane
    cross = d(14, 48) if d.chance(0.45) else 0.0
    zebra = d(9, 22) if d.chance(0.16) else 0.0
    closed = d(45, 90) if d.chance(layout.close) and cross < 30 else 0.0
    if cross and not zebra and d.chance(0.25):
        zebra = cross - 8.5
    section = street.Section(
        left=left,
        right=right,
        lane=lane,
        pavement=(d(*layout.pavement), d(*layout.pavement)),
        verge=tuple(d(1.2, 4.0) if d.chance(0.35) else 0.0 for _ in range(2)),  # type: ignore[arg-type]
        base=tuple("terrain" if d.chance(0.6) else "sidewalk" for _ in range(2)),  # type: ignore[arg-type]
        crossing=cross,
        crossing_width=d(6, 10),
        zebra=zebra,
        rails=-lane / 2 if tram else float("nan"),
        yellow=d.chance(layout.yellow_line),
        closed=closed,
    )
    camera = draw_camera(d, layout, own + d(-0.5, 0.5))
    bend = d(-0.005, 0.005) if d.chance(0.5) and not closed else 0.0
    scene = Scene(camera, bend, bonnet=d(0.04, 0.09) if d.chance(layout.bonnet) else 0.0)
    scene.things.append(Thing(street.ground(section), "ground", GROUND))
    scene.things.append(Thing(_marks(d, section), "ground", GROUND))
    _backdrop(scene, d, section)
    for side in (-1, 1):
        roadside(scene, d, section, layout, side)
        pavement(scene, d, section, layout, side)
        if bays[(side + 1) // 2] > 2:
            parking(scene, d, section, layout, side)
    traffic(scene, d, section, layout, lanes, tram)
    scene.colours = rng.random((len(scene.things), 5))
    return scene


def _marks(d: Dice, s: street.Section) -> Mesh:
    """What lies on the road besides lane lines: edge lines, stop lines, arrows, hatching, manholes, filled trenches."""
    b = MeshBuilder()

    def strip(x0: float, x1: float, z0: float, z1: float, slot: int, tone: float, material: Material) -> None:
        quad = ((x0, 0.0, z0), (x1, 0.0, z0), (x1, 0.0, z1), (x0, 0.0, z1))
        b.face(quad, "road", material, slot, tone, cull=False)

    for _ in range(d.whole(4)):  # trenches, filled with other asphalt
        x, z = d(-s.left, s.right - 1.2), d(4, 30)
        strip(x, x + d(0.6, 2.4), z, z + d(2, 14), 0, d(0.72, 1.18), Material.ASPHALT)
    for _ in range(d.whole(4)):
        x, z = d(-s.left + 1, s.right - 1), d(5, 25)
        outline = [(x + dx, 0.0, z + dz) for dx, dz in ring(0, 0, 0.32, 10)]
        b.face(outline, "road", Material.PLAIN, Slot.UNDER, 2.0, cull=False)
    end = s.closed or 80.0
    if d.chance(0.45):  # lines along the kerb, single or double
        slot, double = (Slot.YELLOW, True) if d.chance(0.4) else (Slot.WHITE, False)
        cuts = [z for z in street.STRIPS if z < end] + [end]
        for x in (-s.left + 0.3, s.right - 0.3):
            for offset in (0.0, 0.22)[: 1 + double]:
                at = x + offset * (1 if x < 0 else -1)
                for z0, z1 in pairwise(cuts):
                    if (
                        not s.crossing
                        or z1 < s.crossing - s.crossing_width / 2
                        or z0 > s.crossing + s.crossing_width / 2
                    ):
                        strip(at - 0.05, at + 0.05, z0, z1, slot, 0.85, Material.MARKING)
    stop = (s.crossing - s.crossing_width / 2 - 1.2) if s.crossing else s.closed - 1.0
    if stop > 6 and d.chance(0.7):
        strip(0.1, s.right - 0.4, stop - 0.35, stop, Slot.WHITE, 0.9, Material.MARKING)
    if d.chance(0.3):  # an arrow in our lane
        x, z = s.lane / 2, d(7, 16)
        strip(x - 0.09, x + 0.09, z, z + 2.2, Slot.WHITE, 0.9, Material.MARKING)
        head = [(x - 0.4, 0.0, z + 2.2), (x + 0.4, 0.0, z + 2.2), (x, 0.0, z + 3.4)]
        b.face(head, "road", Material.MARKING, Slot.WHITE, 0.9, cull=False)
    if d.chance(0.15):  # a hatched area in the middle
        z = d(8, 18)
        for k in range(7):
            a = z + 1.1 * k
            hatch = [(-0.8, 0.0, a), (0.8, 0.0, a + 0.9), (0.8, 0.0, a + 1.25), (-0.8, 0.0, a + 0.35)]
            b.face(hatch, "road", Material.MARKING, Slot.WHITE, 0.85, cull=False)
    if d.chance(0.06):  # a coloured lane for buses or bicycles
        x, slot = s.right - d(1.4, 2.6), Slot.RED if d.chance(0.5) else Slot.GREEN
        for z0, z1 in pairwise([z for z in street.STRIPS if z < end]):
            strip(x, s.right - 0.35, z0, z1, slot, 0.36, Material.ASPHALT)
    strip(0.0, 0.01, -3.0, -2.9, 0, 1.0, Material.ASPHALT)  # a mesh has at least one face
    return b.build()


def _backdrop(scene: Scene, d: Dice, s: street.Section) -> None:
    z = (s.closed + 14) if s.closed else d(150, 230)
    if d.chance(0.75) or s.closed:
        low, high, width = (5, 14, d(8, 14)) if s.closed else (6, 26, d(13, 24))
        mesh = houses.skyline(d.rng, low, high, width, z)
        scene.things.append(Thing(mesh, "building", BACKDROP, depth=z))
    height = d(2.5, 7.0) if s.closed else d(4, 15)
    mesh = plants.woods(d.rng, -200, 200, z - 4, height)
    if d.chance(0.7):
        scene.things.append(Thing(mesh, "tree", BACKDROP, depth=z - 4))
