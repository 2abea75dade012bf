"""The sky of version 2: gradient, sun glow and five kinds of cloud cover."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from flexseg.world.geometry import Geometry
from flexseg.world.v2.atlas import spectral_noise
from flexseg.world.v2.style import Clouds, PhotoStyle

_SIDE = 512


@cache
def _cloud_fields() -> np.ndarray:
    """(SIDE, SIDE, 2) float32: the clouds' density, and how light they are inside."""
    return np.ascontiguousarray(
        np.stack([spectral_noise(201, _SIDE, 1.45, 2.0), spectral_noise(202, _SIDE, 1.2, 3.0)], axis=2)
    )


def sky(geometry: Geometry, style: PhotoStyle) -> np.ndarray:
    """(H, W, 3) linear colour of the sky behind every pixel."""
    view = geometry.view
    height, width = view.height // 2, view.width // 2
    h, w = (height + 1) // 2, (width + 1) // 2  # nothing in a sky is so fine that it needs every pixel
    x = (np.arange(w, dtype=np.float32) * 4 + 1.5 - np.float32(view.cx)) / np.float32(view.focal)
    y = (np.float32(view.cy) - np.arange(h, dtype=np.float32)[:, None] * 4 - 1.5) / np.float32(view.focal)
    ray = np.stack(np.broadcast_arrays(x[None], y, np.float32(1)), axis=2).astype(np.float32)
    ray /= np.sqrt(np.einsum("ijk,ijk->ij", ray, ray))[:, :, None]
    ray = ray @ view.rotation  # camera to world axes: the rotation's transpose
    rise = np.clip(ray[:, :, 1], 0.0, 1.0)
    climb = (1 - np.exp(-rise / np.float32(0.22)))[:, :, None]
    zenith, horizon = style.zenith.astype(np.float32), style.horizon.astype(np.float32)
    rgb = horizon * (1 - climb) + zenith * climb
    near = np.clip(ray @ style.sun_direction, 0, 1)
    if style.condition in ("clear", "backlight", "dawn", "dusk"):
        wide, disc = near**6, np.minimum(near**400 * 6 + near**60, 4)
        sun = style.sun.astype(np.float32)
        rgb = rgb + (0.35 * wide + 0.9 * disc)[:, :, None] * sun
    if style.clouds is not Clouds.CLEAR:
        rgb = _clouded(rgb, ray, rise, near, style)
    return cv2.resize(rgb.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def _clouded(rgb: np.ndarray, ray: np.ndarray, rise: np.ndarray, near: np.ndarray, style: PhotoStyle) -> np.ndarray:
    far = 1 / (rise + np.float32(0.12))
    ou, ov = style.offset
    column = (ray[:, :, 0] * far * 62 + ou * 40).astype(np.float32)
    row = (ray[:, :, 2] * far * 62 + ov * 40).astype(np.float32)
    fields = cv2.remap(_cloud_fields(), column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    density, inside = fields[:, :, 0], fields[:, :, 1]
    level, soft, strength = {
        Clouds.SCATTERED: (0.9 - 0.7 * style.cover, 1.4, 0.9),
        Clouds.BROKEN: (0.1 - 1.0 * style.cover, 1.2, 0.95),
        Clouds.LAYER: (-3.0, 1.0, 0.9),
        Clouds.VEIL: (-0.6, 0.5, 0.5),
    }[style.clouds]
    share = np.clip((density - level) * soft, 0, 1) * np.float32(strength)
    bright = (0.55 * style.horizon + 0.45 * (style.ambient + 0.6 * style.sun)).astype(np.float32)
    # thick clouds are dark below, and bright towards the sun
    thick = np.clip((density - level) * 0.45, 0, 1) if style.clouds in (Clouds.BROKEN, Clouds.SCATTERED) else 0.0
    tone = 1 + 0.12 * inside - 0.45 * thick + 0.8 * near**8 * float(style.sun.max() > 0.1)
    if style.clouds in (Clouds.LAYER, Clouds.VEIL):
        tone = 1 + 0.07 * inside + 0.06 * density
    cloud = bright * np.clip(tone, 0.2, 2.5)[:, :, None]
    share = (share * np.clip(0.35 + rise * 4, 0, 1))[:, :, None]
    return rgb * (1 - share) + cloud * share
