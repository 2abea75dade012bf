"""The look of one picture, drawn from a domain's statistics: colours, light, weather and sensor settings.

Colours are kept linear (sRGB decoded with exponent 2.2), because light adds up and fog mixes in linear units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flexseg.world.domains import Look
from flexseg.world.mesh import FIXED_COLOURS
from flexseg.world.palettes import BASE_PALETTE, KIND_SLOTS, Palette
from flexseg.world.scene import Scene


class Light(NamedTuple):
    """Light of one condition; colours linear RGB."""

    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    elevation: float | None
    """Degrees, or None to draw it from the domain."""
    lamps: float
    """How bright street lamps and headlights are."""
    clouds: float


LIGHTS: dict[str, Light] = {
    "clear": Light((0.95, 0.88, 0.74), (0.40, 0.44, 0.52), (0.16, 0.34, 0.72), (0.60, 0.74, 0.90), None, 0.0, 0.7),
    "overcast": Light((0.10, 0.10, 0.10), (0.68, 0.70, 0.74), (0.58, 0.62, 0.68), (0.80, 0.82, 0.84), 55.0, 0.0, 0.25),
    "dusk": Light((0.42, 0.22, 0.10), (0.21, 0.21, 0.27), (0.12, 0.16, 0.34), (0.85, 0.46, 0.22), 9.0, 0.35, 0.6),
    "fog": Light((0.03, 0.03, 0.03), (0.62, 0.64, 0.66), (0.62, 0.64, 0.66), (0.66, 0.67, 0.68), 60.0, 0.0, 0.0),
    "rain": Light((0.02, 0.02, 0.02), (0.40, 0.43, 0.47), (0.30, 0.33, 0.38), (0.48, 0.51, 0.55), 60.0, 0.12, 0.3),
    "snow": Light((0.06, 0.06, 0.06), (0.60, 0.63, 0.68), (0.60, 0.63, 0.68), (0.74, 0.76, 0.78), 60.0, 0.0, 0.15),
    "night": Light(
        (0.0, 0.0, 0.0), (0.052, 0.055, 0.072), (0.008, 0.012, 0.028), (0.050, 0.042, 0.045), 60.0, 1.0, 0.2
    ),
}


@dataclass(frozen=True)
class Style:
    """Everything about a picture that is not geometry."""

    condition: str
    light: Light
    sun_direction: np.ndarray
    """(3,) unit vector to the sun, world axes."""
    sun: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    extinction: float
    """Koschmieder's β in 1/m."""
    wetness: float
    snow: float
    lit_windows: float
    """Share of the windows lit."""
    warmth: float
    tint: np.ndarray
    """(3,) factor on every palette colour."""
    saturation: float
    contrast: float
    exposure: float
    noise: float
    blur: float
    vignette: float
    jpeg: int
    texture: float
    paint: int
    """0 photographic; 1 brushed, 2 posterised, 3 over-sharp (generated images only)."""
    offset: tuple[float, float]
    """Where the noise textures begin, so that no two pictures share a pattern."""


def draw_style(rng: np.random.Generator, look: Look, index: int) -> Style:
    """Draw a look; a domain that cycles takes its conditions in order of ``index``."""
    names = list(look.conditions)
    weights = np.array([look.conditions[n] for n in names], float)
    drawn = names[int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))]
    condition = names[index % len(names)] if look.cycle else drawn
    light = LIGHTS[condition]
    u = rng.random(24)

    def between(k: int, bounds: tuple[float, float]) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * float(u[k])

    elevation = np.radians(light.elevation if light.elevation is not None else between(0, look.sun))
    # mostly along the street, from ahead or behind: across it, the houses would leave the whole road in shadow
    azimuth = np.pi * (u[1] < 0.5) + (4 * (u[1] % 0.5) - 1) * (0.7 if elevation < 1 else 1.5)
    sun = np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    dim = 0.8 + 0.35 * u[2]
    # meteorological visibility V = 3 / β at the 5 % contrast threshold
    visibility = {"fog": between(3, (35, 110)), "rain": between(3, (120, 300)), "snow": between(3, (90, 250))}.get(
        condition, 900.0
    )
    return Style(
        condition=condition,
        light=light,
        sun_direction=sun.astype(np.float32),
        sun=np.array(light.sun) * dim,
        ambient=np.array(light.ambient) * dim * (1.0 + (0.6 * u[4] if condition == "night" else 0.0)),
        zenith=np.array(light.zenith) * dim,
        horizon=np.array(light.horizon) * dim,
        extinction=3.0 / visibility,
        wetness={"rain": 0.55 + 0.4 * u[5], "night": 0.5 * u[5] * (u[6] < 0.5), "snow": 0.15}.get(condition, 0.0),
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
        offset=(float(u[22]) * 50, float(u[23]) * 50),
    )


def thing_colours(scene: Scene, draws: np.ndarray, palette: Palette, tint: np.ndarray) -> np.ndarray:
    """Linear colours (things, 4, 3) of the four slots of each thing, from its five uniform draws."""
    out = np.empty((len(scene.things), 4, 3))
    kinds: dict[str, list[int]] = {}
    for i, thing in enumerate(scene.things):
        kinds.setdefault(thing.kind, []).append(i)
    for kind, members in kinds.items():
        names = KIND_SLOTS[kind]
        for slot, name in enumerate(names):
            if slot and name == names[slot - 1]:
                out[members, slot] = out[members, slot - 1]
                continue
            colours = np.array(palette.get(name, BASE_PALETTE[name]))
            out[members, slot] = colours[(draws[members, slot] * len(colours)).astype(int)]
    out *= (0.88 + 0.24 * draws[:, 4])[:, None, None] * tint
    return np.clip(out, 0.01, 1) ** 2.2


def face_colours(slots: np.ndarray, tones: np.ndarray, things: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Linear albedo (F, 3) float32 of faces."""
    fixed = np.array(list(FIXED_COLOURS.values())) ** 2.2
    own = colours[np.maximum(things, 0), np.minimum(slots, 3)]
    rgb = np.where((slots < 4)[:, None], own, fixed[np.maximum(slots, 4) - 4])
    return (rgb * tones[:, None]).astype(np.float32)
