"""Version 2's painting: a geometry in a style becomes a picture."""

from __future__ import annotations

import cv2
import numpy as np

from flexseg.world import lighting, weather
from flexseg.world.appearance import face_colours, thing_colours
from flexseg.world.domains import DomainSpec
from flexseg.world.geometry import Geometry
from flexseg.world.mesh import Material
from flexseg.world.scene import Scene
from flexseg.world.v2 import light, sensor
from flexseg.world.v2.pixels import Pixels
from flexseg.world.v2.sky import sky
from flexseg.world.v2.style import PhotoStyle
from flexseg.world.v2.surfaces import skin


def _halve(samples: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)


def paint(
    scene: Scene, geometry: Geometry, spec: DomainSpec, style: PhotoStyle, rng: np.random.Generator
) -> np.ndarray:
    """Shade a geometry in a style: (H, W, 3) uint8 RGB."""
    faces, pixels = geometry.faces, Pixels(geometry)
    h, w = pixels.height, pixels.width
    cast, contact = light.shadows(scene, geometry, style)
    colours = thing_colours(scene, scene.colours, spec.look.palette, style.tint)
    albedo = face_colours(faces.slot, faces.tone, faces.thing, colours)
    if style.snow:
        albedo = lighting.snowed(albedo, geometry)
    shaded = albedo * light.face_light(geometry, style, light.sunlit_things(scene, geometry, cast))
    heaven = sky(geometry, style)
    shaded[0] = heaven.mean((0, 1))
    # outlines are anti-aliased from the flat colours of four samples, texture is laid on once a pixel
    picture = _halve(np.take(shaded, geometry.surface, axis=0), h, w)
    plain = np.take(shaded, pixels.face, axis=0)
    reflect = (0.5 * (style.zenith + style.horizon)).astype(np.float32)
    look = skin(scene, geometry, pixels, style, reflect)
    textured = plain * look.factor * light.round_light(scene, geometry, pixels, style)[:, None] + look.added
    above = pixels.coarse.ravel() == 0
    textured[above] = heaven.reshape(-1, 3)[above]
    picture *= np.minimum(textured / (plain + np.float32(1e-3)), 12).reshape(h, w, 3)
    if style.snow:
        picture += look.snow.reshape(h, w, 1) * (style.ambient.astype(np.float32) - picture)
    light.light_ground(picture, pixels, geometry, style, cast, contact)
    picture *= light.occlusion(pixels, geometry)[:, :, None]
    _through_leaves(picture, heaven, look.opaque, pixels)

    depth = pixels.depth.reshape(h, w)
    glow = None
    if style.light.lamps > 0.05:
        glow = _halve(np.take(lighting.emission(geometry, albedo, style), geometry.surface, axis=0), h, w)
        glow += look.glow.reshape(h, w, 3)
        lamps = lighting.lamp_light(scene, geometry, depth, style)
        picture *= 1 + lamps / style.ambient.astype(np.float32) * (pixels.coarse > 0)[:, :, None]
        picture += glow
    airlight = style.horizon if style.condition != "night" else style.horizon * 1.2
    if style.extinction > 0.0003:
        thin = style.condition not in ("fog", "rain", "snow")  # a thin haze leaves the sky its clouds
        through = np.where(above.reshape(h, w), np.float32(0), depth) if thin else depth
        picture = weather.fog(picture, through, style.extinction, airlight)
    if style.wetness > 0.05:
        wet = np.isin(faces.material, (Material.ASPHALT, Material.MARKING))[pixels.coarse]
        picture = weather.wet_ground(picture, wet.astype(np.float32), geometry.view, style.wetness)
    if glow is not None:
        picture += lighting.bloom(glow)
    picture = weather.falling(picture, rng, style)
    return sensor.develop(picture.astype(np.float32), style, rng)


def _through_leaves(picture: np.ndarray, heaven: np.ndarray, opaque: np.ndarray, pixels: Pixels) -> None:
    """Let the sky shine through the gaps of crowns above the horizon, and the dark below it, in place."""
    i = pixels.pick(Material.FOLIAGE)
    gaps = np.minimum(1 - opaque[i], np.float32(0.55))[:, None]  # no gap is as wide as a pixel
    flat = picture.reshape(-1, 3)
    own = flat[i]
    behind = np.where(pixels.world[i, 1:2] > 2.2, heaven.reshape(-1, 3)[i], own * np.float32(0.55))
    flat[i] = own + gaps * (behind - own)
