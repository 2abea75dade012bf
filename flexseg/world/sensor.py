"""The camera behind the lens: white balance, tone curve, vignetting, blur, noise and JPEG."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from flexseg.world.appearance import Style

_LEVELS = 4096
_HEADROOM = 2.0
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@lru_cache(maxsize=1)
def _tone_table() -> np.ndarray:
    """Linear 0–2 to sRGB-like 0–1: straight exponent 1/2.2 with a soft shoulder above 0.7."""
    x = np.arange(_LEVELS) / (_LEVELS - 1) * _HEADROOM
    shoulder = np.where(x > 0.7, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)), x)
    return (shoulder ** (1 / 2.2)).astype(np.float32)


@lru_cache(maxsize=8)
def _vignette(height: int, width: int) -> np.ndarray:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    return ((x * x + y * y) / 2)[:, :, None]


def develop(linear: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Linear light (H, W, 3) to an 8-bit RGB picture."""
    h, w = linear.shape[:2]
    balance = np.array([1 + style.warmth, 1.0, 1 - style.warmth], np.float32) * np.float32(style.exposure)
    linear = linear * balance
    if style.vignette > 0.01:
        linear *= 1 - np.float32(style.vignette) * _vignette(h, w)
    sigma = style.blur * h / 96
    if sigma > 0.2:
        linear = cv2.GaussianBlur(linear, (0, 0), sigma)
    index = (np.clip(linear, 0, _HEADROOM) * ((_LEVELS - 1) / _HEADROOM)).astype(np.int32)
    rgb = _tone_table()[index]
    grey = (rgb @ _LUMA)[:, :, None]
    rgb = grey + np.float32(style.saturation) * (rgb - grey)
    rgb = 0.45 + np.float32(style.contrast) * (rgb - 0.45) if style.contrast != 1 else rgb
    if style.noise > 0.001:
        noise = rng.standard_normal((h, w, 3), dtype=np.float32)
        # photon noise: stronger in the dark once the tone curve has lifted it
        rgb = rgb + np.float32(style.noise) * noise * (1.5 - grey)
    image = np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8)
    image = painted(image, style.paint)
    return compressed(image, style.jpeg)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB after JPEG at this quality; from 99 on as it is."""
    if quality < 99:
        _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is None:
            raise OSError("OpenCV could not read back its own JPEG")
        image = decoded[:, :, ::-1]
    return np.ascontiguousarray(image)


def painted(image: np.ndarray, paint: int) -> np.ndarray:
    """Hand-made looks of generated pictures."""
    if paint == 1:
        size = 3 if image.shape[0] < 200 else 5
        return cv2.medianBlur(cv2.medianBlur(image, size), size)
    if paint == 2:
        return (image // 18 * 18 + 9).astype(np.uint8)
    if paint == 3:
        return cv2.addWeighted(image, 1.8, cv2.GaussianBlur(image, (0, 0), 1.2), -0.8, 0)
    return image
