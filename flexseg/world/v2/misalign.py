"""Displacing a picture's geometry against its label in version 2, as image generators conditioned on masks do.

A diffusion generator sees the mask at a fraction of the picture's resolution. Large planes come out where the mask has
them; what is small or thin beside them is lost, swollen, bent or put a little aside, things appear that the mask does
not have, and the paint of a surface runs over its outline into a neighbour that might look like it. All of it grows
with one number, the strength (0 none, 1 the default, 2 strong). All draws are made first and in the same number
whatever the strength, so that strengths are nested.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import cv2
import numpy as np

from flexseg.world import furniture, people
from flexseg.world.geometry import Geometry, majority
from flexseg.world.mesh import LABEL, VOID
from flexseg.world.scene import FRONTAGE, STREET, Scene, Thing
from flexseg.world.v2 import clutter, plants, vehicles

LOSS = 0.16
"""Chance at strength 1 that a thing so small that it can hardly be seen is not painted."""
SWELL = 0.20
"""Spread at strength 1 of such a thing's size, as a logarithm."""
SHIFT = 0.018
"""Spread at strength 1 of its sideways move, as a fraction of its distance."""
INVENTED = 1.2
"""Mean number at strength 1 of things painted that are not in the label."""
WARP = ((5, 0.0065), (12, 0.0060))
"""Smooth displacement fields: lattice cells across the height, and spread at strength 1 in picture heights."""
PLANES = 0.35
"""How much the outlines of large planes move, beside those of thin things."""
BLEED = ((18, 0.030),)
"""The finer field by which paint runs over an outline."""
SHARE = 0.30
"""Share of the outlines between kin at strength 1 where it does."""

_KIN = (
    "road sidewalk terrain",
    "sidewalk building wall",
    "building wall fence",
    "wall fence vegetation",
    "vegetation terrain building",
    "pole building vegetation traffic_light traffic_sign",
    "car truck bus train",
    "person rider",
    "rider bicycle motorcycle",
    "bicycle fence pole",
)


def _kin_table() -> np.ndarray:
    """(256, 256) bool: whose surfaces run into each other."""
    table = np.zeros((256, 256), bool)
    for line in _KIN:
        ids = [LABEL[name.replace("_", " ")] for name in line.split()]
        table[np.ix_(ids, ids)] = True
    table[VOID, [LABEL["building"], LABEL["sidewalk"]]] = True
    table |= table.T
    np.fill_diagonal(table, False)
    return table


KIN = _kin_table()


def smallness(thing: Thing) -> float:
    """How small a thing looks, in 0–1: 1 where it is lost in the mask, 0 for what fills the picture."""
    low, high = thing.mesh.box
    size = float(np.sqrt(max(high[0] - low[0], 0.15) * max(high[1] - low[1], 0.15))) * thing.scale
    angle = size / max(thing.z, 2.0)
    return 1 / (1 + (angle / 0.07) ** 2)


def displace(scene: Scene, rng: np.random.Generator, strength: float) -> Scene:
    """The scene as it is painted: some things lost, moved, swollen; a few invented."""
    n = len(scene.things)
    lost, size, move = rng.random(n), rng.standard_normal(n), rng.standard_normal(n)
    things, kept = [], []
    for i, thing in enumerate(scene.things):
        placed = thing.layer == STREET or (thing.layer == FRONTAGE and thing.kind == "tree")
        if placed and thing.z > 0:
            small = smallness(thing)
            if lost[i] < LOSS * strength * small:
                continue
            spread = SWELL * strength * (0.15 + 0.85 * small)
            scale = thing.scale * float(np.exp(np.clip(spread * size[i], -0.7, 0.7)))
            x = thing.x + float(SHIFT * strength * move[i] * thing.z * (0.2 + 0.8 * small))
            thing = thing._replace(scale=scale, x=x)
        things.append(thing)
        kept.append(i)
    painted = replace(scene, things=things, colours=scene.colours[kept])
    draws = rng.random((8, 6))
    for i, (kind, where, far, form, yes, hue) in enumerate(draws):
        if yes * len(draws) >= INVENTED * strength:
            continue
        x, z = float(where * 18 - 9), float(7 + 20 * far)
        mesh, name = (
            (people.person(int(form * 8)), "person"),
            (furniture.sign(int(form * 8)), "post"),
            (plants.bush(int(form * 8)), "tree"),
            (people.rider_along(int(form * 8)), "person"),
            (vehicles.car(int(form * vehicles.VARIANTS)), "car"),
            (furniture.plain_pole(1), "post"),
            (clutter.void_thing(int(form * clutter.VOID_KINDS)), "clutter"),
            (plants.tree(17 + int(form * 3)), "tree"),
        )[int(kind * 8)]
        painted.facing(mesh, name, x, z + (10 if name == "car" else 0))
        painted.colours = np.concatenate([painted.colours, np.roll(draws[i : i + 1, :5], 2) * 0.5 + hue * 0.5])
    return painted


def looseness(label: np.ndarray) -> np.ndarray:
    """(H, W) float32 in PLANES–1: how freely outlines move, growing with the distance to large structures.

    Large is what keeps a core when its class is eroded by a twelfth of the picture's height.
    """
    h = label.shape[0]
    reach = max(3, h // 12) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (reach, reach))
    core = (cv2.dilate(label, kernel) == cv2.erode(label, kernel)).astype(np.uint8)
    small = 1 - cv2.dilate(core, kernel)
    away = np.minimum(cv2.distanceTransform(small, cv2.DIST_L2, 3) / (h / 16), 1)
    # a thin thing moves with what is just beside it, else only its middle would
    around = cv2.dilate((small * (0.5 + 0.5 * away)).astype(np.float32), np.ones((h // 32 * 2 + 1,) * 2, np.uint8))
    return PLANES + (1 - PLANES) * cv2.GaussianBlur(around, (0, 0), h / 64)


def _fields(rng: np.random.Generator, waves: tuple[tuple[int, float], ...], h: int, w: int) -> np.ndarray:
    """(h, w, 2) smooth displacements, in samples."""
    field = np.zeros((h, w, 2), np.float32)
    for cells, spread in waves:
        lattice = rng.standard_normal((cells, cells * 2, 2)).astype(np.float32)
        field += cv2.resize(lattice, (w, h), interpolation=cv2.INTER_CUBIC) * np.float32(spread * h)
    return field


def _moved(surface: np.ndarray, field: np.ndarray) -> np.ndarray:
    """``surface`` (h, w) uint16 where ``field`` points; the nearest sample, so no new surfaces."""
    h, w = surface.shape
    column = field[:, :, 0] + np.arange(w, dtype=np.float32)
    row = field[:, :, 1] + np.arange(h, dtype=np.float32)[:, None]
    return cv2.remap(surface, column, row, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def distort(geometry: Geometry, rng: np.random.Generator, strength: float) -> Geometry:
    """Bend the outlines of a geometry, those of thin things most, and let the paint of kin run over them."""
    labels = geometry.faces.label
    h, w = geometry.surface.shape
    bend, run = _fields(rng, WARP, h, w), _fields(rng, BLEED, h, w)
    places = cv2.resize(rng.standard_normal((10, 20)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    # OpenCV's remap knows no 32-bit integers; a picture has fewer than 2¹⁶ faces
    surface = geometry.surface.astype(np.uint16)
    free = cv2.resize(looseness(majority(labels[geometry.surface])), (w, h), interpolation=cv2.INTER_LINEAR)
    surface = _moved(surface, bend * (free * np.float32(strength))[:, :, None])
    over = _moved(surface, run * np.float32(min(strength, 2.0)))
    # where the cubic field is above the quantile of a normal draw, whose spread interpolation shrinks to about 0.75
    share = min(SHARE * strength, 0.9)
    there = places > 0.75 * _quantile(1 - share)
    runs = KIN[labels[surface], labels[over]] & there
    return geometry._replace(surface=np.where(runs, over, surface).astype(np.int32))


def _quantile(p: float) -> float:
    """The quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(min(max(p, 1e-6), 1 - 1e-6))
