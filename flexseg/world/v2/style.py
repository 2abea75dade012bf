"""The look of one picture of version 2: light of more hours and weathers, clouds, exposure and sensor.

Colours are linear. Light is in units in which a white surface under a bright overcast sky gives about 1; the sensor
finds its exposure by itself (:mod:`flexseg.world.v2.sensor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from flexseg.world.appearance import Light, Style
from flexseg.world.domains import Look, Range


class Clouds(IntEnum):
    """Kinds of sky."""

    CLEAR = 0
    SCATTERED = 1
    BROKEN = 2
    LAYER = 3
    VEIL = 4


LIGHTS: dict[str, Light] = {
    "clear": Light((1.30, 1.20, 1.02), (0.34, 0.39, 0.48), (0.20, 0.40, 0.80), (0.80, 0.92, 1.05), None, 0.0, 0.8),
    "overcast": Light((0.05, 0.05, 0.05), (0.62, 0.65, 0.70), (0.78, 0.82, 0.88), (1.15, 1.18, 1.20), 55.0, 0.0, 0.8),
    "backlight": Light((1.35, 1.20, 0.92), (0.36, 0.37, 0.40), (0.35, 0.50, 0.78), (1.60, 1.52, 1.35), 16.0, 0.0, 0.6),
    "dusk": Light((0.16, 0.09, 0.05), (0.17, 0.19, 0.24), (0.24, 0.30, 0.44), (0.78, 0.62, 0.50), 8.0, 0.22, 0.8),
    "dawn": Light((0.55, 0.34, 0.18), (0.24, 0.27, 0.36), (0.26, 0.38, 0.64), (0.98, 0.74, 0.56), 9.0, 0.10, 0.7),
    "fog": Light((0.03, 0.03, 0.03), (0.62, 0.64, 0.66), (0.72, 0.74, 0.76), (0.78, 0.79, 0.80), 60.0, 0.05, 0.2),
    "rain": Light((0.02, 0.02, 0.02), (0.38, 0.41, 0.46), (0.42, 0.45, 0.50), (0.62, 0.65, 0.69), 60.0, 0.15, 0.6),
    "snow": Light((0.06, 0.06, 0.06), (0.60, 0.63, 0.68), (0.66, 0.69, 0.74), (0.80, 0.82, 0.84), 60.0, 0.0, 0.4),
    "night": Light(
        (0.0, 0.0, 0.0), (0.046, 0.050, 0.066), (0.010, 0.014, 0.028), (0.060, 0.048, 0.045), 60.0, 1.0, 0.4
    ),
}
CLOUDS: dict[str, tuple[Clouds, ...]] = {
    "clear": (Clouds.CLEAR, Clouds.SCATTERED, Clouds.SCATTERED, Clouds.BROKEN, Clouds.VEIL),
    "overcast": (Clouds.LAYER, Clouds.LAYER, Clouds.BROKEN),
    "backlight": (Clouds.VEIL, Clouds.SCATTERED, Clouds.CLEAR),
    "dusk": (Clouds.BROKEN, Clouds.BROKEN, Clouds.LAYER, Clouds.SCATTERED),
    "dawn": (Clouds.SCATTERED, Clouds.VEIL, Clouds.CLEAR),
    "fog": (Clouds.LAYER,),
    "rain": (Clouds.LAYER, Clouds.BROKEN),
    "snow": (Clouds.LAYER,),
    "night": (Clouds.CLEAR, Clouds.BROKEN),
}
"""What skies a condition may have."""


@dataclass(frozen=True)
class PhotoLook(Look):
    """Statistics of appearance that version 1 does not have."""

    meter: Range = (0.2, 0.5)
    """How much the sky counts in the exposure: at 1 it is as bright as the ground otherwise is."""
    key: Range = (0.36, 0.46)
    """The sRGB grey to which the exposure brings the picture's mean."""
    leafless: float = 0.0
    """Share of the pictures taken in winter, when broad-leaved trees are bare."""
    sharpen: Range = (0.0, 0.3)
    """Overshoot at edges."""
    flare: Range = (0.0, 0.012)
    """Light that lens and windscreen scatter over the picture, as a share of its mean."""
    fade: Range = (0.0, 0.02)
    """How far the blacks are lifted."""
    haze: Range = (0.0, 1.0)
    """Factor on the haze of a clear day."""


@dataclass(frozen=True)
class PhotoStyle(Style):
    """What a picture of version 2 has besides."""

    clouds: Clouds
    cover: float
    """How much of the sky the clouds take, in 0–1."""
    meter: float
    key: float
    leafless: bool
    sharpen: float
    flare: float
    fade: float
    variant: int
    """Chooses among textures of a kind."""


def draw_style(rng: np.random.Generator, look: PhotoLook, index: int) -> PhotoStyle:
    """Draw a look; a domain that cycles takes its conditions in order of ``index``."""
    names = list(look.conditions)
    weights = np.array([look.conditions[n] for n in names], float)
    drawn = names[int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))]
    condition = names[index % len(names)] if look.cycle else drawn
    light = LIGHTS[condition]
    u = rng.random(40)

    def between(k: int, bounds: tuple[float, float]) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * float(u[k])

    low = condition in ("backlight", "dusk", "dawn")
    elevation = np.radians(light.elevation * (0.6 + 0.8 * u[0]) if low and light.elevation else 0.0)
    if not low:
        elevation = np.radians(light.elevation if light.elevation is not None else between(0, look.sun))
    # mostly along the street, from ahead or behind: across it, the houses would leave the whole road in shadow
    azimuth = np.pi * (u[1] < 0.5) + (4 * (u[1] % 0.5) - 1) * (0.7 if elevation < 1 else 1.5)
    if condition == "backlight":
        azimuth = (u[1] - 0.5) * 0.9
    sun = np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    dim = 0.8 + 0.35 * u[2]
    kinds = CLOUDS[condition]
    clouds = kinds[int(u[23] * len(kinds))]
    direct = {Clouds.BROKEN: 0.45 + 0.5 * u[24], Clouds.VEIL: 0.6 + 0.3 * u[24], Clouds.LAYER: 1.0}.get(clouds, 1.0)
    # meteorological visibility V = 3 / β at the 5 % contrast threshold
    visibility = {"fog": between(3, (35, 110)), "rain": between(3, (120, 300)), "snow": between(3, (90, 250))}.get(
        condition, 3.0 / (0.0002 + 0.0012 * between(3, look.haze))
    )
    return PhotoStyle(
        condition=condition,
        light=light,
        sun_direction=sun.astype(np.float32),
        sun=np.array(light.sun) * dim * direct,
        ambient=np.array(light.ambient) * dim * (1.0 + (0.6 * u[4] if condition == "night" else 0.25 * u[4] - 0.1)),
        zenith=np.array(light.zenith) * dim,
        horizon=np.array(light.horizon) * dim,
        extinction=3.0 / visibility,
        wetness={"rain": 0.55 + 0.4 * u[5], "night": 0.5 * u[5] * (u[6] < 0.5), "snow": 0.15, "dusk": 0.2 * u[5]}.get(
            condition, 0.0
        ),
        snow=0.45 + 0.5 * u[5] if condition == "snow" else 0.0,
        lit_windows=0.15 + 0.3 * u[7],
        warmth=between(8, look.warmth),
        tint=1 + look.tint * (2 * u[9:12] - 1),
        saturation=between(12, look.saturation),
        contrast=between(13, look.contrast),
        exposure=between(14, look.exposure),
        noise=between(15, look.noise),
        blur=between(16, look.blur),
        vignette=between(17, look.vignette),
        jpeg=int(between(18, look.jpeg)),
        texture=between(19, look.texture),
        paint=1 + int(3 * u[21]) if u[20] < look.styled else 0,
        offset=(float(u[22]) * 50, float(u[25]) * 50),
        clouds=clouds,
        cover=float(u[26]),
        meter=between(27, look.meter),
        key=between(28, look.key),
        leafless=bool(u[29] < look.leafless),
        sharpen=between(30, look.sharpen),
        flare=between(31, look.flare),
        fade=between(32, look.fade),
        variant=int(u[33] * 1024),
    )
