"""Version 1's painting: a geometry in a style becomes a picture."""

from __future__ import annotations

import cv2
import numpy as np

from flexseg.world import lighting, materials, sensor, weather
from flexseg.world.appearance import Style, face_colours, thing_colours
from flexseg.world.domains import DomainSpec
from flexseg.world.geometry import Geometry, majority
from flexseg.world.mesh import Material
from flexseg.world.scene import Scene


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
