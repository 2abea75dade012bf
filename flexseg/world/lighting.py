"""Light: sun and sky on faces, shadows on the ground, and at night lamps, headlights and things that glow."""

from __future__ import annotations

import cv2
import numpy as np

from flexseg.world.appearance import Style
from flexseg.world.camera import NEAR, clip_near, to_camera, to_pixels
from flexseg.world.geometry import Geometry, bend_points
from flexseg.world.mesh import Glow, Material
from flexseg.world.scene import FRONTAGE, STREET, Scene

EMISSION = np.zeros((len(Glow), 3), np.float32)
"""Linear light that faces give off at full night, by :class:`Glow`."""
EMISSION[Glow.HEADLIGHT] = (2.6, 2.5, 2.1)
EMISSION[Glow.TAIL] = (1.1, 0.05, 0.03)
EMISSION[Glow.LAMP] = (3.0, 2.2, 1.2)
EMISSION[Glow.SHOP] = (0.35, 0.30, 0.20)
EMISSION[Glow.CABIN] = (0.20, 0.19, 0.14)
SIGNAL_GAIN = 2.0
RETRO_GAIN = 5.0

_GROUND = np.zeros(32, bool)
_GROUND[[Material.ASPHALT, Material.PAVING, Material.GRASS, Material.MARKING]] = True


def face_light(geometry: Geometry, style: Style) -> np.ndarray:
    """Irradiance (F, 3) of each face by sky and sun: hemisphere ambient plus Lambert's cosine law."""
    rotation = geometry.view.rotation
    up = geometry.faces.normal @ rotation[:, 1]
    facing = np.maximum(geometry.faces.normal @ (rotation @ style.sun_direction), 0)
    # leaves point everywhere: half of the sun whatever the billboard's normal
    facing = np.where(geometry.faces.material == Material.FOLIAGE, 0.55, facing)
    ambient = style.ambient * (0.78 + 0.22 * up)[:, None]
    return (ambient + style.sun * facing[:, None]).astype(np.float32)


def snowed(albedo: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Albedo (F, 3) with snow on what looks up: roofs and bonnets, not the ground or leaves, which snow in patches."""
    faces = geometry.faces
    up = faces.normal @ geometry.view.rotation[:, 1]
    smooth = ~_GROUND[faces.material] & (faces.material != Material.FOLIAGE) & (faces.thing >= 0)
    cover = (np.clip((up - 0.45) * 2, 0, 0.9) * smooth)[:, None]
    return (albedo * (1 - cover) + 0.8 * cover).astype(np.float32)


def _casters(scene: Scene, boxes: np.ndarray, sunny: bool) -> np.ndarray:
    """World points (casters, 8, 3) whose projection on the ground outlines each thing's shadow."""
    wheel = np.arange(8) * (np.pi / 4)
    across, rise = np.cos(wheel)[None, :, None], np.sin(wheel)[None, :, None]
    layers = np.array([t.layer for t in scene.things])
    kinds = np.array([t.kind for t in scene.things])
    casting = (layers == STREET) | ((layers == FRONTAGE) & sunny)
    points = boxes.copy()
    low, high = boxes[:, :1], boxes[:, 7:]
    middle, span = (low + high) / 2, (high - low) / 2
    if sunny:
        rounded = np.isin(kinds, ("tree", "person"))
        crown = (kinds == "tree")[:, None, None]
        middle = middle + crown * span * [0, 0.25, 0]
        span = span * np.where(crown, [0.9, 0.65, 0.9], 1.0)
        ellipse = middle + across * span * [1, 0, 1] + rise * span * [0, 1, 0]
        points = np.where(rounded[:, None, None], ellipse, points)
    else:
        flat = ~np.isin(kinds, ("car", "bus", "truck", "tram"))
        foot = middle * [1, 0, 1] + 0.35 * (across * [1, 0, 0] + rise * [0, 0, 1])
        points = np.where(flat[:, None, None], foot, points)
    return points[casting].astype(np.float32)


def shadow_mask(scene: Scene, geometry: Geometry, style: Style) -> np.ndarray:
    """(H, W) float32 in 0–1: how much of the direct light is missing on the ground.

    Boxes are projected along the sun onto y = 0; without sun, straight down and soft (contact shadow).
    """
    view = geometry.view
    mask = np.zeros((view.height // 2, view.width // 2), np.uint8)
    sunny = float(style.sun.max()) > 0.2
    direction = style.sun_direction if sunny else np.array([0.0, 1.0, 0.0], np.float32)
    points = _casters(scene, geometry.boxes, sunny)
    cast = (points - points[:, :, 1:2] / direction[1] * direction).reshape(-1, 3)
    cam = to_camera(view, cast)
    pixels = np.clip(to_pixels(view, cam) / 2, -20000, 20000).astype(np.int32).reshape(-1, 8, 2)
    cam = cam.reshape(-1, 8, 3)
    nearest, farthest = cam[:, :, 2].min(1), cam[:, :, 2].max(1)
    for i in np.flatnonzero(farthest > NEAR).tolist():
        outline = pixels[i]
        if nearest[i] < NEAR:
            hull = cv2.convexHull(cast.reshape(-1, 8, 3)[i][:, [0, 2]], returnPoints=False).ravel()
            polygon = clip_near(cam[i][hull])
            if len(polygon) < 3:
                continue
            outline = np.clip(to_pixels(view, polygon) / 2, -20000, 20000).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255)
    sigma = 0.004 * view.height if sunny else 0.01 * view.height
    return cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) * np.float32(1 / 255 if sunny else 0.6 / 255)


def apply_shadows(rgb: np.ndarray, coarse: np.ndarray, scene: Scene, geometry: Geometry, style: Style) -> None:
    """Darken the ground of ``rgb`` (H, W, 3) in place to the light that the shadow leaves."""
    mask = shadow_mask(scene, geometry, style) * _GROUND[geometry.faces.material[coarse]]
    up = max(float(style.sun_direction[1]), 0.0)
    left = style.ambient * 0.85 / (style.ambient + style.sun * up)
    if style.sun.max() <= 0.2:
        left = left * 0.45
    rgb *= 1 - mask[:, :, None] * (1 - left).astype(np.float32)


def emission(geometry: Geometry, albedo: np.ndarray, style: Style) -> np.ndarray:
    """(F, 3): what the faces give off at this hour."""
    glow = geometry.faces.glow
    out = EMISSION[glow].copy()
    out[glow == Glow.SIGNAL] = albedo[glow == Glow.SIGNAL] * SIGNAL_GAIN
    # signs throw the headlights back
    out[glow == Glow.RETRO] = albedo[glow == Glow.RETRO] * 0.035 * RETRO_GAIN
    return out * np.float32(min(1.0, style.light.lamps * 1.2))


def lamp_light(scene: Scene, geometry: Geometry, depth: np.ndarray, style: Style) -> np.ndarray:
    """(H, W, 3): light of street lamps and the ego headlights on what is seen, by the inverse-square law.

    ``depth`` (H, W) in metres. Lamps are softened within two metres, and light mostly what lies below them.
    """
    view = geometry.view
    h, w = depth.shape
    x = (np.arange(w, dtype=np.float32) * 2 + 0.5 - view.cx) / view.focal
    y = (view.cy - np.arange(h, dtype=np.float32)[:, None] * 2 - 0.5) / view.focal
    depth = np.minimum(depth, 150)
    px, py = x * depth, y * depth
    sodium = np.zeros((h, w), np.float32)
    lamps = np.array(scene.lamps, np.float32).reshape(-1, 3)
    lamps = lamps[np.argsort(lamps[:, 2])][:8]
    for lx, ly, lz in to_camera(view, bend_points(lamps, scene.bend)) if len(lamps) else ():
        below = np.maximum(ly - py, 0.3)
        squared = (px - lx) ** 2 + below**2 + (depth - lz) ** 2
        sodium += below / (squared * np.sqrt(squared) + 8.0)
    beam = np.exp(-((x / 0.42) ** 2) - np.maximum(y + 0.03, 0) ** 2 / 0.012) / (1 + (depth / 13) ** 2)
    out = sodium[:, :, None] * np.array([17.0, 12.8, 7.6], np.float32) + 0.5 * beam[:, :, None] * np.array(
        [1, 0.97, 0.9], np.float32
    )
    return out * np.float32(style.light.lamps)


def bloom(light: np.ndarray) -> np.ndarray:
    """The veil that bright spots throw in lens and air: a narrow and a wide blur of ``light`` (H, W, 3)."""
    h, w = light.shape[:2]
    small = cv2.resize(light, (max(w // 4, 2), max(h // 4, 2)), interpolation=cv2.INTER_AREA)
    wide = cv2.GaussianBlur(small, (0, 0), 0.045 * h / 4 + 0.5)
    wider = cv2.GaussianBlur(small, (0, 0), 0.16 * h / 4 + 0.5)
    return cv2.resize(0.35 * wide + 0.25 * wider, (w, h), interpolation=cv2.INTER_LINEAR)
