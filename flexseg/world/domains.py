"""The seven domains as data: how their streets are laid out, and how they look.

Ranges are (low, high) of a uniform draw unless said otherwise; colours are in :mod:`flexseg.world.palettes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flexseg.world.palettes import CITY, MIXED, PLACES, Palette

Range = tuple[float, float]
SPLITS: tuple[str, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """Statistics of camera and street."""

    camera_height: Range = (1.35, 1.6)
    fov: Range = (48.0, 54.0)
    """Degrees, horizontal, of a 2:1 picture."""
    pitch: Range = (-2.5, 0.5)
    yaw: Range = (-3.0, 3.0)
    roll: Range = (-0.5, 0.5)
    horizon: Range = (0.45, 0.5)
    lanes: tuple[int, ...] = (1, 1, 2)
    parked: float = 0.3
    """Share of the parking spaces taken."""
    traffic: float = 0.5
    people: Range = (4.0, 9.0)
    open_side: float = 0.65
    """Share of the roadside that is park, wall or fence instead of houses."""
    storeys: Range = (2.0, 6.0)
    trees: float = 0.6
    bonnet: float = 0.0
    """Share of the images in which the ego vehicle's bonnet shows."""
    rare: float = 1.8
    """Factor on the chances of the rare things."""
    tree_kinds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 9)
    yellow_line: float = 0.0


@dataclass(frozen=True)
class Look:
    """Statistics of appearance."""

    conditions: dict[str, float]
    """Weights of the draw; a domain with ``cycle`` takes them in order of the index instead."""
    palette: Palette = field(default_factory=dict)
    """Replacements for entries of the base palette."""
    cycle: bool = False
    saturation: Range = (1.0, 1.1)
    contrast: Range = (1.0, 1.05)
    exposure: Range = (0.95, 1.05)
    warmth: Range = (-0.02, 0.04)
    """White balance: positive is warmer (red up, blue down, as a fraction)."""
    tint: float = 0.0
    """Largest change of a colour channel of the whole palette (places, styles)."""
    noise: Range = (0.0, 0.004)
    blur: Range = (0.0, 0.3)
    """Gaussian sigma in pixels of a picture 96 high."""
    vignette: Range = (0.0, 0.05)
    jpeg: tuple[int, int] = (92, 98)
    sun: Range = (35.0, 60.0)
    """Elevation in degrees when the sky is clear."""
    texture: Range = (0.7, 0.9)
    """Strength of surface texture; low looks like a game."""
    styled: float = 0.0
    """Share of images repainted in a hand-made style (generated images only)."""


@dataclass(frozen=True)
class DomainSpec:
    """One domain: its role and the statistics it is drawn from."""

    role: str
    """``source``, ``generated`` or ``target``."""
    key: int
    """Enters every random draw of the domain; generated shares its layouts with the source."""
    layout: Layout
    look: Look
    hand: int = 1
    """Which generator paints (generated images only): it enters every draw but those of the layouts."""


_CITY_LAYOUT = Layout(
    camera_height=(1.15, 1.35),
    fov=(43, 48),
    pitch=(-1.5, 0.5),
    horizon=(0.42, 0.47),
    parked=0.4,
    people=(5, 10),
    open_side=0.6,
    storeys=(3, 6),
    bonnet=0.9,
    lanes=(1, 2),
    tree_kinds=(0, 1, 2, 3, 4, 6, 7, 8),
)
_MIXED_LAYOUT = Layout(
    camera_height=(1.25, 1.8),
    fov=(46, 60),
    pitch=(-3, 2),
    horizon=(0.45, 0.55),
    lanes=(1, 2, 2),
    open_side=0.6,
    storeys=(1, 5),
    traffic=0.6,
    people=(3, 8),
    bonnet=0.5,
    yellow_line=0.7,
    tree_kinds=(0, 2, 3, 5, 7, 9, 10, 11),
)
_PLACES_LAYOUT = Layout(
    camera_height=(0.9, 2.4),
    fov=(40, 70),
    pitch=(-6, 4),
    yaw=(-12, 12),
    roll=(-2.5, 2.5),
    horizon=(0.42, 0.56),
    lanes=(1, 1, 2, 2),
    parked=0.35,
    people=(3, 11),
    open_side=0.65,
    storeys=(1, 8),
    bonnet=0.12,
    yellow_line=0.35,
    tree_kinds=tuple(range(12)),
)
_ADVERSE_LAYOUT = replace(
    _CITY_LAYOUT,
    camera_height=(1.25, 1.5),
    fov=(44, 52),
    open_side=0.6,
    storeys=(2, 5),
    people=(4, 9),
    bonnet=0.4,
    trees=0.7,
)

DOMAINS: dict[str, DomainSpec] = {
    # Sunny and game-like: crisp, saturated, a narrow palette, one camera.
    "source": DomainSpec(
        "source",
        1,
        Layout(),
        Look({"clear": 1.0}, saturation=(1.2, 1.3), contrast=(1.05, 1.12), exposure=(1.12, 1.25), sun=(28.0, 52.0)),
    ),
    # The source's layouts painted again in random weathers and styles, its geometry displaced against the label.
    "generated": DomainSpec(
        "generated",
        1,
        Layout(),
        Look(
            {"clear": 3, "overcast": 3, "dusk": 1.5, "fog": 1, "rain": 1.5, "snow": 1, "night": 2},
            palette=PLACES,
            saturation=(0.5, 1.3),
            contrast=(0.9, 1.2),
            exposure=(0.8, 1.2),
            warmth=(-0.14, 0.16),
            tint=0.14,
            noise=(0.0, 0.015),
            blur=(0.2, 0.7),
            vignette=(0, 0.2),
            jpeg=(75, 95),
            sun=(15, 65),
            texture=(0.6, 1.3),
            styled=0.25,
        ),
    ),
    # A European city in sun or under clouds: muted palette, own camera, bonnet in view (the analogue of Cityscapes).
    "clear_city": DomainSpec(
        "target",
        2,
        _CITY_LAYOUT,
        Look(
            {"clear": 1, "overcast": 1.2},
            palette=CITY,
            saturation=(0.6, 0.8),
            contrast=(0.92, 1.05),
            exposure=(0.85, 1.05),
            warmth=(-0.03, 0.02),
            noise=(0.008, 0.016),
            blur=(0.3, 0.55),
            vignette=(0.05, 0.15),
            sun=(20, 50),
            texture=(1, 1.3),
        ),
    ),
    # Mixed weather and time of day behind a windscreen: other heights, lenses and colours (the analogue of BDD100K).
    "mixed": DomainSpec(
        "target",
        3,
        _MIXED_LAYOUT,
        Look(
            {"clear": 3, "overcast": 2, "rain": 1, "dusk": 1.2, "night": 1.6, "fog": 0.5, "snow": 0.5},
            palette=MIXED,
            saturation=(0.7, 1.1),
            contrast=(0.9, 1.15),
            exposure=(0.7, 1.2),
            warmth=(-0.08, 0.08),
            tint=0.03,
            noise=(0.006, 0.02),
            blur=(0.3, 0.8),
            vignette=(0.05, 0.25),
            jpeg=(60, 85),
            sun=(10, 60),
            texture=(0.9, 1.2),
        ),
    ),
    # Many cameras in many places: varied colours, lenses, heights and sensors (the analogue of Mapillary Vistas).
    "places": DomainSpec(
        "target",
        4,
        _PLACES_LAYOUT,
        Look(
            {"clear": 4, "overcast": 3, "dusk": 1.3, "rain": 0.5, "fog": 0.3},
            palette=PLACES,
            saturation=(0.5, 1.25),
            contrast=(0.85, 1.2),
            exposure=(0.75, 1.25),
            warmth=(-0.12, 0.14),
            tint=0.08,
            noise=(0.0, 0.02),
            blur=(0.0, 0.7),
            vignette=(0, 0.3),
            jpeg=(55, 95),
            sun=(12, 70),
            texture=(0.8, 1.4),
        ),
    ),
    # Fog, night, rain and snow in equal parts, labelled by condition (the analogue of ACDC).
    "adverse": DomainSpec(
        "target",
        5,
        _ADVERSE_LAYOUT,
        Look(
            {"fog": 1, "night": 1, "rain": 1, "snow": 1},
            palette=CITY,
            cycle=True,
            saturation=(0.6, 0.95),
            contrast=(0.9, 1.05),
            exposure=(0.8, 1.0),
            warmth=(-0.05, 0.04),
            noise=(0.008, 0.018),
            blur=(0.3, 0.7),
            vignette=(0.05, 0.15),
            jpeg=(80, 95),
            texture=(1, 1.3),
        ),
    ),
    # Night under street lamps and headlights (the analogue of Dark Zurich).
    "night": DomainSpec(
        "target",
        6,
        replace(_ADVERSE_LAYOUT, storeys=(3, 6), open_side=0.6, bonnet=0.6, fov=(43, 50)),
        Look(
            {"night": 1},
            palette=CITY,
            saturation=(0.7, 1.0),
            contrast=(0.95, 1.1),
            exposure=(0.95, 1.25),
            warmth=(0.0, 0.1),
            noise=(0.012, 0.025),
            blur=(0.3, 0.8),
            vignette=(0.05, 0.2),
            jpeg=(75, 92),
            texture=(1, 1.3),
        ),
    ),
}
