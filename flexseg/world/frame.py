"""One image of the world, from (domain, split, index) alone.

The draws of geometry, look, weather particles, sensor noise and misalignment come from separate generators keyed by
world version, domain, split, index and purpose, so that each stays the same when another changes.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flexseg.world import lighting, materials, sensor, weather
from flexseg.world.appearance import Style, draw_style, face_colours, thing_colours
from flexseg.world.domains import DOMAINS, SPLITS, DomainSpec
from flexseg.world.geometry import Geometry, label_of, majority, rasterise
from flexseg.world.mesh import Material
from flexseg.world.misalign import displace, warp
from flexseg.world.scene import Scene, build_scene

VERSION = 1
"""Version of the world: part of every random draw. Raise it whenever a picture changes."""
MINIMUM_SIDE = 32
_LAYOUT, _LOOK, _PARTICLES, _MISALIGN, _COLOURS, _WARP = range(6)
_REPAINTED = 100
"""Added to the key of a domain whose look is drawn apart from the layouts that it shares."""


class Frame(NamedTuple):
    """An image with its label."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    label: np.ndarray
    """(H, W) uint8 train ids, 255 void."""
    painted: np.ndarray
    """(H, W) uint8: label of the geometry that the image shows; differs from ``label`` in misaligned images only."""
    condition: str


def _check(domain: str, split: str, index: int, height: int, width: int, misalignment: float) -> DomainSpec:
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; choose one of {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index must be 0 or more, not {index}")
    if height < MINIMUM_SIDE or width < MINIMUM_SIDE:
        raise ValueError(f"an image is at least {MINIMUM_SIDE} x {MINIMUM_SIDE} pixels, not {height} x {width}")
    if not (np.isfinite(misalignment) and misalignment >= 0):
        raise ValueError(f"misalignment must be a number of 0 (aligned) or more, not {misalignment}")
    return DOMAINS[domain]


def render(
    domain: str, split: str, index: int, *, height: int = 96, width: int = 192, misalignment: float = 1.0
) -> Frame:
    """Render one image with its label; a pure function of its arguments and :data:`VERSION`.

    ``misalignment`` acts on the domain ``generated`` only. Raises ValueError for unknown or impossible arguments.
    """
    spec = _check(domain, split, index, height, width, misalignment)

    def dice(purpose: int, key: int = spec.key) -> np.random.Generator:
        return np.random.default_rng([VERSION, key, SPLITS.index(split), index, purpose])

    look_key = spec.key + (_REPAINTED if spec.role == "generated" else 0)
    scene = build_scene(dice(_LAYOUT), spec.layout)
    geometry = rasterise(scene, height, width)
    label = painted = label_of(geometry)
    if spec.role == "generated":
        scene.colours = dice(_COLOURS, look_key).random(scene.colours.shape)
        if misalignment:
            scene = displace(scene, dice(_MISALIGN, look_key), misalignment)
            geometry = rasterise(scene, height, width)
            geometry = geometry._replace(surface=warp(geometry.surface, dice(_WARP, look_key), misalignment))
            painted = label_of(geometry)
    style = draw_style(dice(_LOOK, look_key), spec.look, index)
    image = paint(scene, geometry, spec, style, dice(_PARTICLES, look_key))
    return Frame(image, label, painted, style.condition)


def _halve(samples: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)


def paint(scene: Scene, geometry: Geometry, spec: DomainSpec, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Shade a geometry in a style: (H, W, 3) uint8 RGB."""
    view, faces = geometry.view, geometry.faces
    h, w = view.height // 2, view.width // 2
    colours = thing_colours(scene, scene.colours, spec.look.palette, style.tint)
    albedo = face_colours(faces.slot, faces.tone, faces.thing, colours)
    if style.snow:
        albedo = lighting.snowed(albedo, geometry)
    shaded = albedo * lighting.face_light(geometry, style)
    shaded[0] = (style.horizon + style.zenith) / 2
    # outlines are anti-aliased from the flat colours of four samples, texture is laid on once a pixel
    picture = _halve(np.take(shaded, geometry.surface, axis=0), h, w)
    coarse = majority(geometry.surface)
    plain = np.take(shaded, coarse.ravel(), axis=0)
    textured = plain.copy()
    dark = style.light.lamps > 0.05
    glow = _halve(np.take(lighting.emission(geometry, albedo, style), geometry.surface, axis=0), h, w) if dark else None
    windows = glow.reshape(-1, 3) if glow is not None and style.light.lamps > 0.2 else None
    reflect = (style.zenith + style.horizon).astype(np.float32) / 2
    snow = materials.texture(textured, windows, coarse, geometry, style, reflect)
    at, sky = materials.sky(coarse, geometry, style)
    textured[at] = sky
    picture *= np.minimum(textured / (plain + np.float32(1e-4)), 8).reshape(h, w, 3)
    if style.snow:
        picture += snow[:, :, None] * (style.ambient.astype(np.float32) - picture)
    lighting.apply_shadows(picture, coarse, scene, geometry, style)

    inverse = np.take(faces.plane[:, 6], coarse) * (np.arange(w, dtype=np.float32) * 2)
    inverse += np.take(faces.plane[:, 7], coarse) * (np.arange(h, dtype=np.float32)[:, None] * 2)
    inverse += np.take(faces.plane[:, 8], coarse)
    depth = 1 / np.clip(inverse, 1e-3, 3.0)
    if glow is not None:
        light = lighting.lamp_light(scene, geometry, depth, style)
        picture *= 1 + light / style.ambient.astype(np.float32) * (coarse > 0)[:, :, None]
        picture += glow
    airlight = style.horizon if style.condition != "night" else style.horizon * 1.2
    picture = weather.fog(picture, depth, style.extinction, airlight) if style.extinction > 0.004 else picture
    if style.wetness > 0.05:
        wet = np.isin(faces.material, (Material.ASPHALT, Material.MARKING))[coarse]
        picture = weather.wet_ground(picture, wet.astype(np.float32), view, style.wetness)
    if glow is not None:
        picture += lighting.bloom(glow)
    picture = weather.falling(picture, rng, style)
    return sensor.develop(picture.astype(np.float32), style, rng)
