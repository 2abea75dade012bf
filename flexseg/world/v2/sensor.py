"""The camera of version 2: exposure that it finds by itself, lens, tone curve, noise with colour, sharpening, JPEG."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from flexseg.world.sensor import compressed, painted
from flexseg.world.v2.style import PhotoStyle

_LEVELS = 4096
_HEADROOM = 4.0
BIAS = {"overcast": 1.1, "fog": 1.9, "snow": 1.9, "rain": 1.25, "dusk": 0.8, "night": 0.65}
"""Compensation of the exposure by condition: what is white should not become grey."""
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@lru_cache(maxsize=1)
def _shoulder() -> np.ndarray:
    """Linear 0–4 to sRGB-like 0–1: exponent 1/2.2 with a shoulder above 0.55 that clips slowly."""
    x = np.arange(_LEVELS) / (_LEVELS - 1) * _HEADROOM
    shoulder = np.where(x > 0.55, 0.55 + 0.46 * (1 - np.exp(-(x - 0.55) / 0.5)), x)
    return np.minimum(shoulder, 1.0).astype(np.float32) ** np.float32(1 / 2.2)


def tone_table(contrast: float, fade: float) -> np.ndarray:
    """The tone curve with a contrast, which is an S about the middle and clips nothing, and lifted blacks."""
    tone = _shoulder()
    tone = tone + np.float32(contrast - 1) * 4 * (tone - np.float32(0.5)) * tone * (1 - tone)
    return np.float32(fade) + np.float32(1 - fade) * tone


@lru_cache(maxsize=8)
def _vignette(height: int, width: int) -> np.ndarray:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    return ((x * x + y * y) / 2)[:, :, None]


def exposure_of(linear: np.ndarray, style: PhotoStyle) -> float:
    """The factor that brings the mean of ``linear`` (H, W, 3) to the key; the upper half counts by ``style.meter``.

    The mean is that of logarithms (Reinhard et al., SIGGRAPH 2002, eq. 1), so that lamps do not blind it.
    """
    h = linear.shape[0]
    luma = np.log(linear[::4, ::4] @ _LUMA + np.float32(0.01))
    half = len(luma) // 2
    weight = style.meter / 2
    mean = (1 - weight) * float(luma[half : len(luma) - h // 48].mean()) + weight * float(luma[:half].mean())
    bright = weight * float(np.quantile(luma[:half], 0.8)) + (1 - weight) * mean
    target = style.key**2.2
    factor = target / float(np.exp(0.5 * mean + 0.5 * bright))
    # a camera opens only so far: night stays dark
    return float(np.clip(factor, 0.25, 2.6)) * style.exposure * BIAS.get(style.condition, 1.0)


def develop(linear: np.ndarray, style: PhotoStyle, rng: np.random.Generator) -> np.ndarray:
    """Linear light (H, W, 3) to an 8-bit RGB picture."""
    h, w = linear.shape[:2]
    factor = exposure_of(linear, style)
    balance = np.array([1 + style.warmth, 1.0, 1 - style.warmth], np.float32) * np.float32(factor)
    linear = linear * balance
    linear = _lens(linear, style)
    index = (np.clip(linear, 0, _HEADROOM) * ((_LEVELS - 1) / _HEADROOM)).astype(np.int32)
    rgb = tone_table(style.contrast, style.fade)[index]
    grey = (rgb @ _LUMA)[:, :, None]
    rgb = grey + np.float32(style.saturation) * (rgb - grey)
    if style.sharpen > 0.02:
        soft = cv2.GaussianBlur(rgb, (0, 0), max(0.6, h / 130))
        rgb = rgb + np.float32(style.sharpen) * (rgb - soft)
    if style.noise > 0.001:
        gain = np.float32(style.noise * min(2.0, max(0.7, factor) ** 0.5))
        noise = rng.standard_normal((h, w, 1), dtype=np.float32)
        # colour is sampled coarsely in a sensor, and so is its noise
        colour = rng.standard_normal(((h + 1) // 2, (w + 1) // 2, 3), dtype=np.float32)
        noise = noise + cv2.resize(colour, (w, h), interpolation=cv2.INTER_LINEAR)
        # photon noise: stronger in the dark once the tone curve has lifted it
        rgb = rgb + gain * noise * (1.4 - grey)
    image = painted(np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8), style.paint)
    return compressed(image, style.jpeg)


def _lens(linear: np.ndarray, style: PhotoStyle) -> np.ndarray:
    """Vignetting, blur, the veil around what is overexposed, and flare."""
    h, w = linear.shape[:2]
    if style.vignette > 0.01:
        linear = linear * (1 - np.float32(style.vignette) * _vignette(h, w))
    small = cv2.resize(np.minimum(linear, 3), (max(w // 4, 2), max(h // 4, 2)), interpolation=cv2.INTER_AREA)
    veil = cv2.GaussianBlur(np.maximum(small - 0.6, 0), (0, 0), 0.02 * h / 4 + 0.6)
    linear = linear + 0.10 * cv2.resize(veil, (w, h), interpolation=cv2.INTER_LINEAR)
    if style.flare > 0.002:
        linear = linear + np.float32(style.flare) * small.mean((0, 1))
    sigma = style.blur * h / 96
    return cv2.GaussianBlur(linear, (0, 0), sigma) if sigma > 0.2 else linear
