"""Weather between the scene and the lens: fog, wet reflections, rain streaks and snowflakes."""

from __future__ import annotations

import cv2
import numpy as np

from flexseg.world.appearance import Style
from flexseg.world.camera import View


def fog(rgb: np.ndarray, depth: np.ndarray, extinction: float, airlight: np.ndarray) -> np.ndarray:
    """Koschmieder's law (1924): ``J t + A (1 − t)`` with ``t = exp(−β z)`` (Beer–Lambert); depth (H, W) in metres."""
    t = np.exp(-extinction * np.minimum(depth, 2000))[:, :, None].astype(np.float32)
    return rgb * t + airlight.astype(np.float32) * (1 - t)


def wet_ground(rgb: np.ndarray, ground: np.ndarray, view: View, wetness: float) -> np.ndarray:
    """Darken the ground (H, W, bool) and mirror about the horizon what stands above it, smeared vertically."""
    h, w = rgb.shape[:2]
    horizon = view.cy / 2 + view.focal / 2 * float(view.rotation[1, 2]) * -1.0
    rows = np.clip(np.round(2 * horizon - np.arange(h)), 0, h - 1).astype(int)
    mirrored = cv2.blur(rgb[rows], (max(1, w // 96), max(3, h // 7)))
    # Schlick's approximation: reflectance rises towards grazing angles, that is towards the horizon
    grazing = np.clip(1 - (np.arange(h) - horizon) / (h * 0.75), 0, 1) ** 2.5
    share = (wetness * (0.10 + 0.55 * grazing))[:, None] * ground
    share = share[:, :, None].astype(np.float32)
    return rgb * (1 - share) * (1 - 0.35 * wetness * ground[:, :, None]).astype(np.float32) + mirrored * share


def rain(rgb: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Streaks, near ones long and faint, brighter than what is behind them (Garg & Nayar 2007)."""
    h, w = rgb.shape[:2]
    mask = np.zeros((h, w), np.uint8)
    n = int(90 * strength)
    draws = rng.random((n, 4))
    slant = (rng.random() - 0.5) * 0.35
    near = draws[:, 2] ** 2
    length = h * (0.03 + 0.10 * near)
    start = draws[:, :2] * (w * 1.1, h * 1.1) - (0.05 * w, 0.1 * h)
    stop = start + np.stack([slant * length, length], axis=1)
    a, b = np.round(start * 8).astype(int).tolist(), np.round(stop * 8).astype(int).tolist()
    thick = max(1, round(h / 130))
    for p, q, value in zip(a, b, (55 + 75 * draws[:, 3]).astype(int).tolist(), strict=True):
        cv2.line(mask, p, q, value, thick, cv2.LINE_AA, 3)
    share = mask.astype(np.float32)[:, :, None] * np.float32(0.6 / 255)
    light = rgb.mean((0, 1)) * 1.3 + 0.08
    return rgb * (1 - share) + light.astype(np.float32) * share


def snowfall(rgb: np.ndarray, rng: np.random.Generator, strength: float, light: np.ndarray) -> np.ndarray:
    """Flakes: many small far ones, a few large blurred near ones."""
    h, w = rgb.shape[:2]
    mask = np.zeros((h, w), np.uint8)
    n = int(130 * strength)
    draws = rng.random((n, 4))
    radius = h * (0.004 + 0.014 * draws[:, 2] ** 4)
    centres = np.round(draws[:, :2] * (w, h) * 8).astype(int).tolist()
    for c, r, value in zip(
        centres, np.round(radius * 8).astype(int).tolist(), (90 + 140 * draws[:, 3]).astype(int).tolist(), strict=True
    ):
        cv2.circle(mask, c, r, value, -1, cv2.LINE_AA, 3)
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.35, h * 0.004))
    share = soft.astype(np.float32)[:, :, None] * np.float32(0.85 / 255)
    return rgb * (1 - share) + light.astype(np.float32) * share


def falling(rgb: np.ndarray, rng: np.random.Generator, style: Style) -> np.ndarray:
    """What falls from the sky in this condition, if anything."""
    if style.condition == "rain":
        return rain(rgb, rng, style.wetness)
    if style.condition == "snow":
        return snowfall(rgb, rng, style.snow, style.horizon * 1.15)
    return rgb
