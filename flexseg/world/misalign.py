"""Displacing a picture's geometry against its label, as an image generator conditioned on masks does.

Three things happen, all growing with one number, the strength (0 none, 1 the default, 2 strong):
small things are lost, swollen or moved; things that the label does not have appear; and a smooth field bends all
outlines.
All uniform draws are made first and in the same number whatever the strength, so that strengths are nested.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from flexseg.world import furniture, people, vehicles
from flexseg.world.geometry import Geometry
from flexseg.world.scene import STREET, Scene

LOSS = 0.12
"""Chance at strength 1 that a small thing is not painted."""
SWELL = 0.18
"""Spread at strength 1 of a thing's size, as a logarithm."""
SHIFT = 0.014
"""Spread at strength 1 of a thing's sideways move, as a fraction of its distance."""
INVENTED = 1.0
"""Mean number at strength 1 of things painted that are not in the label."""
WARP = ((4, 0.0095), (10, 0.0055))
"""Smooth displacement fields: lattice cells across the height, and spread at strength 1 in picture heights."""


def displace(scene: Scene, rng: np.random.Generator, strength: float) -> Scene:
    """The scene as it is painted: some things lost, moved, swollen; a few invented."""
    n = len(scene.things)
    lost, size, move = rng.random(n), rng.standard_normal(n), rng.standard_normal(n)
    things, kept = [], []
    for i, thing in enumerate(scene.things):
        if thing.layer == STREET:
            small = thing.kind in ("person", "post", "clutter") or thing.z > 30
            if lost[i] < (LOSS if small else LOSS / 8) * strength:
                continue
            spread = (SWELL if small else SWELL / 4) * strength
            scale = thing.scale * float(np.exp(np.clip(spread * size[i], -0.8, 0.8)))
            x = thing.x + float(SHIFT * strength * move[i] * thing.z * (1 if small else 0.4))
            thing = thing._replace(scale=scale, x=x)
        things.append(thing)
        kept.append(i)
    painted = replace(scene, things=things, colours=scene.colours[kept])
    draws = rng.random((6, 6))
    for i, (kind, where, far, form, yes, hue) in enumerate(draws):
        if yes * 6 >= INVENTED * strength:
            continue
        x, z = float(where * 16 - 8), float(6 + 18 * far)
        mesh, name = (
            (people.person(int(form * 8)), "person"),
            (furniture.sign(int(form * 8)), "post"),
            (furniture.bush(int(form * 6)), "tree"),
            (people.rider_along(int(form * 8)), "person"),
            (vehicles.car(int(form * 5)), "car"),
            (furniture.plain_pole(1), "post"),
        )[int(kind * 6)]
        painted.facing(mesh, name, x, z + (10 if name == "car" else 0))
        painted.colours = np.concatenate([painted.colours, np.roll(draws[i : i + 1, :5], 2) * 0.5 + hue * 0.5])
    return painted


def distort(geometry: Geometry, rng: np.random.Generator, strength: float) -> Geometry:
    """What happens to the painted geometry in the picture's plane."""
    return geometry._replace(surface=warp(geometry.surface, rng, strength))


def warp(surface: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Bend all outlines of a surface buffer (h, w) by a smooth random field; nearest sample, so no new surfaces."""
    h, w = surface.shape
    field = np.zeros((h, w, 2), np.float32)
    for cells, spread in WARP:
        lattice = rng.standard_normal((cells, cells * 2, 2)).astype(np.float32)
        field += cv2.resize(lattice, (w, h), interpolation=cv2.INTER_CUBIC) * np.float32(spread * h * strength)
    column = field[:, :, 0] + np.arange(w, dtype=np.float32)
    row = field[:, :, 1] + np.arange(h, dtype=np.float32)[:, None]
    # remap knows no 32-bit integers; a picture has fewer than 2¹⁶ faces
    bent = cv2.remap(surface.astype(np.uint16), column, row, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return bent.astype(np.int32)
