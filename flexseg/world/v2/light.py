"""Light of version 2: sun with soft shadows that things stand in too, and a sky that walls and corners dim."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from flexseg.world.camera import NEAR, to_camera, to_pixels
from flexseg.world.geometry import Geometry
from flexseg.world.lighting import shadow_mask
from flexseg.world.mesh import Material
from flexseg.world.scene import STREET, Scene
from flexseg.world.v2.pixels import Pixels
from flexseg.world.v2.style import PhotoStyle

GROUND = (Material.ASPHALT, Material.PAVING, Material.GRASS, Material.MARKING)


def sunlit_things(scene: Scene, geometry: Geometry, shadow: np.ndarray) -> np.ndarray:
    """(things + 1,) in 0–1: how much sun each thing gets, judged by the shadow on the ground at its foot."""
    out = np.ones(len(scene.things) + 1, np.float32)
    feet = (geometry.boxes[:, 0] + geometry.boxes[:, 7]) / 2
    feet[:, 1] = geometry.boxes[:, 0, 1]
    # in front of the thing, as its own shadow lies behind or below it
    feet[:, 2] = geometry.boxes[:, :, 2].min(1) - 0.4
    cam = to_camera(geometry.view, feet)
    at = np.round(to_pixels(geometry.view, cam) / 2).astype(int)
    h, w = shadow.shape
    for i, thing in enumerate(scene.things):
        x, y = at[i]
        if thing.layer == STREET and cam[i, 2] > NEAR and 0 <= x < w and 0 <= y < h:
            out[i] = 1 - 0.85 * shadow[y, x]
    return out


def face_light(geometry: Geometry, style: PhotoStyle, sunlit: np.ndarray) -> np.ndarray:
    """Irradiance (F, 3) of each face by sky, street and sun (Lambert's cosine law); ``sunlit`` as above."""
    rotation = geometry.view.rotation
    faces = geometry.faces
    up = faces.normal @ rotation[:, 1]
    facing = np.maximum(faces.normal @ (rotation @ style.sun_direction), 0)
    leaves = faces.material == Material.FOLIAGE
    facing = np.where(leaves, 0.6, facing)
    # upright faces see half of the sky, and what the sunny street throws back
    sky = 0.72 + 0.28 * np.where(leaves, 0.3, up)
    bounce = 0.10 * (1 - np.abs(up)) * max(float(style.sun_direction[1]), 0.0)
    light = style.ambient * sky[:, None] + style.sun * (facing * sunlit[faces.thing] + bounce)[:, None]
    return light.astype(np.float32)


def round_light(scene: Scene, geometry: Geometry, pixels: Pixels, style: PhotoStyle) -> np.ndarray:
    """(N,) factor that makes crowns and people, which are flat, round: towards the sun and the sky they are lighter."""
    kinds = np.array([thing.kind in ("tree", "person") for thing in scene.things] + [False])
    thing = np.take(geometry.faces.thing, pixels.face)
    i = np.flatnonzero(kinds[thing])
    out = np.ones(len(pixels.face), np.float32)
    low, high = geometry.boxes.min(1), geometry.boxes.max(1)
    middle = (low + high)[thing[i]] / 2
    half = np.maximum((high - low)[thing[i]] / 2, 0.2)
    offset = (pixels.world[i] - middle) / half
    right, up = np.clip(offset[:, 0], -1, 1), np.clip(offset[:, 1], -1, 1)
    towards = np.sqrt(np.clip(1 - right**2 - 0.6 * up**2, 0.05, 1))
    sun = style.sun_direction
    shine = right * sun[0] + up * sun[1] - towards * sun[2]
    share = float(style.sun.mean() / (style.sun.mean() + style.ambient.mean()))
    out[i] = np.clip(1 + 0.55 * share * shine + 0.22 * up, 0.35, 1.7)
    return out


def occlusion(pixels: Pixels, geometry: Geometry) -> np.ndarray:
    """(H, W) factor below 1 in corners: behind outlines, along the foot of walls, and low between the houses.

    Behind outlines by unsharp masking of the (logarithmic) depth after Luft, Colditz & Deussen, SIGGRAPH 2006.
    """
    h, w = pixels.height, pixels.width
    log = np.log(np.minimum(pixels.depth, 150)).reshape(h, w)
    small = cv2.resize(log, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
    near = cv2.resize(cv2.GaussianBlur(small, (0, 0), h / 48), (w, h), interpolation=cv2.INTER_LINEAR)
    dark = np.clip((log - near) * 0.7, 0, 0.45)
    height = np.maximum(pixels.world[:, 1], 0).reshape(h, w)
    wall = 0.35 * np.exp(-height / 0.5) * ~np.isin(geometry.faces.material, GROUND)[pixels.coarse]
    canyon = 1 - 0.25 * np.exp(-height / 4.0)
    out = (1 - dark) * (1 - wall) * canyon
    out[pixels.coarse == 0] = 1
    return out.astype(np.float32)


def shadows(scene: Scene, geometry: Geometry, style: PhotoStyle) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) masks in 0–1 on the ground: what the sun does not reach, softer for what is far, and what lies below
    things."""
    contact = shadow_mask(scene, geometry, replace(style, sun=np.zeros(3)))
    if float(style.sun.max()) <= 0.2:
        return np.zeros_like(contact), contact
    cast = shadow_mask(scene, geometry, style)
    soft = cv2.GaussianBlur(cast, (0, 0), cast.shape[0] / 70)
    return 0.6 * cast + 0.4 * soft, contact


def light_ground(
    rgb: np.ndarray, pixels: Pixels, geometry: Geometry, style: PhotoStyle, cast: np.ndarray, contact: np.ndarray
) -> None:
    """Darken the ground of ``rgb`` (H, W, 3) in place to the light that shadows leave."""
    ground = np.isin(geometry.faces.material, GROUND)[pixels.coarse]
    up = max(float(style.sun_direction[1]), 0.0)
    left = style.ambient / (style.ambient + style.sun * up)
    rgb *= 1 - (cast * ground)[:, :, None] * (1 - left).astype(np.float32)
    rgb *= 1 - np.float32(0.75) * (contact * ground)[:, :, None]
