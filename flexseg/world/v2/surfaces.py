"""What surfaces look like before light: textures on all faces, fronts of houses, glass and paint."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexseg.world.geometry import Geometry
from flexseg.world.mesh import Material
from flexseg.world.scene import Scene
from flexseg.world.v2.atlas import ONE
from flexseg.world.v2.facades import GROUND, UPPER, facade_atlas
from flexseg.world.v2.pixels import Pixels
from flexseg.world.v2.style import PhotoStyle
from flexseg.world.v2.tiles import SPANS, Tile, surface_atlas

CHOICES: dict[Material, tuple[Tile, ...]] = {
    Material.PLAIN: (Tile.PLAIN,),
    Material.SKY: (Tile.PLAIN,),
    Material.ASPHALT: (Tile.ASPHALT, Tile.WORN_ASPHALT, Tile.CRACKED_ASPHALT, Tile.WORN_ASPHALT),
    Material.PAVING: (Tile.SLABS, Tile.CONCRETE, Tile.SLABS, Tile.COBBLES, Tile.ASPHALT),
    Material.GRASS: (Tile.GRASS, Tile.GRASS, Tile.EARTH),
    Material.FACADE: (
        Tile.BRICK,
        Tile.PLASTER,
        Tile.STAINED_PLASTER,
        Tile.DARK_BRICK,
        Tile.PANELS,
        Tile.ASHLAR,
        Tile.PLASTER,
        Tile.BRICK,
    ),
    Material.FOLIAGE: (Tile.LEAVES, Tile.DENSE_LEAVES, Tile.LEAVES, Tile.NEEDLES, Tile.AUTUMN_LEAVES),
    Material.BRICK: (Tile.BRICK, Tile.STAINED_PLASTER, Tile.ASHLAR, Tile.DARK_BRICK, Tile.CONCRETE),
    Material.SLATS: (Tile.PLANKS,),
    Material.PAINT: (Tile.PAINTWORK,),
    Material.GLASS: (Tile.PLAIN,),
    Material.ROOF: (Tile.TILES,),
    Material.MARKING: (Tile.WORN_ASPHALT,),
}
"""The tiles that a material may have; a thing takes one of them."""
_STAIN = 24.0
"""Metres that the large stains span, over all surfaces."""


class Skin(NamedTuple):
    """Per pixel, N of them."""

    factor: np.ndarray
    """(N, 3) float32 on the face's flat colour."""
    opaque: np.ndarray
    """(N,) float32: 1, or less where the sky shines through leaves."""
    added: np.ndarray
    """(N, 3) float32: light that glass and paint mirror."""
    snow: np.ndarray
    """(N,) float32: how much of the pixel lying snow covers."""
    glow: np.ndarray
    """(N, 3) float32: light of windows at night."""


def numbers_of(scene: Scene, style: PhotoStyle) -> np.ndarray:
    """A number for each thing (things + 1,), the last for sky and bonnet, that chooses among variants."""
    draws = (scene.colours[:, 4] * 9973).astype(np.int64) + style.variant
    return np.concatenate([draws, [style.variant]])


def tiles_of(scene: Scene, geometry: Geometry, style: PhotoStyle) -> np.ndarray:
    """(F,) int32: the tile of each face."""
    faces = geometry.faces
    number = numbers_of(scene, style)[faces.thing]
    out = np.zeros(len(number), np.int32)
    for material, choices in CHOICES.items():
        at = faces.material == material
        out[at] = np.array(choices)[number[at] % len(choices)]
    if style.leafless:
        kinds = np.array([thing.kind == "tree" for thing in scene.things] + [False])
        bare = (faces.material == Material.FOLIAGE) & kinds[faces.thing] & (number % 10 < 7)
        out[bare] = Tile.TWIGS
    people = np.array([thing.kind == "person" for thing in scene.things] + [False])
    out[(faces.material == Material.PLAIN) & people[faces.thing]] = Tile.CLOTH
    return out


def skin(scene: Scene, geometry: Geometry, pixels: Pixels, style: PhotoStyle, reflect: np.ndarray) -> Skin:
    """Texture all pixels; ``reflect`` (3,) is the light that upright glass mirrors."""
    atlas = surface_atlas()
    tile = tiles_of(scene, geometry, style)[pixels.face]
    span = SPANS[tile]
    ou, ov = style.offset
    # what faces the camera is flat: its leaves and cloth hang upright
    upright = (pixels.material == Material.FOLIAGE) | (pixels.material == Material.PLAIN)
    u = np.where(upright, pixels.across, pixels.u) + np.float32(ou)
    v = np.where(upright, pixels.world[:, 1], pixels.v) + np.float32(ov)
    # between the short and the long side of the pixel's footprint on the surface
    footprint = pixels.footprint / np.sqrt(np.maximum(pixels.cosine, np.float32(0.05)))
    fine = atlas.sample(tile, u / span, v / span, atlas.level_of(footprint / span)).astype(np.float32)
    stained = np.full(len(tile), Tile.EARTH, np.int32)
    coarse = atlas.sample(
        stained, u * np.float32(1 / _STAIN), v * np.float32(1 / _STAIN), atlas.level_of(footprint / np.float32(_STAIN))
    )[:, :3].astype(np.float32)
    strength = np.float32(style.texture)
    factor = 1 + strength * (fine[:, :3] * np.float32(1 / ONE) - 1)
    factor[tile == Tile.TWIGS] *= np.array([0.50, 0.27, 0.50], np.float32)  # from leaf green to bark
    mixed = (
        (pixels.material != Material.PAINT) & (pixels.material != Material.GLASS) & (pixels.material != Material.PLAIN)
    )
    factor *= 1 + np.float32(0.6) * strength * mixed[:, None] * (coarse * np.float32(1 / ONE) - 1)
    opaque = fine[:, 3] * np.float32(1 / 255)
    added = np.zeros_like(factor)
    glow = np.zeros_like(factor)

    i = pixels.pick(Material.MARKING)
    factor[i] = 1 + np.minimum(factor[i] - 1, 0) * np.float32(1.4)
    _shine(factor, added, pixels, reflect, style)
    _slats(factor, opaque, pixels, geometry)
    _fronts(factor, added, glow, geometry, pixels, style, reflect)
    return Skin(factor, opaque, added, _snow(pixels, coarse, fine, style), glow)


def _shine(factor: np.ndarray, added: np.ndarray, pixels: Pixels, reflect: np.ndarray, style: PhotoStyle) -> None:
    """Paint and the glass of vehicles mirror the sky above and the dark street below."""
    for material, base, gain in ((Material.PAINT, 0.02, 0.16), (Material.GLASS, 0.05, 0.55)):
        i = pixels.pick(material)
        height = pixels.v[i]
        wave = np.sin(pixels.u[i] * 2.1 + style.offset[0]) * 0.18 + np.sin(pixels.across[i] * 0.9) * 0.15
        sky = np.clip(height * 0.9 - 0.25 + wave, 0, 1)
        grazing = (1 - pixels.cosine[i]) ** 3
        share = np.float32(base) + np.float32(gain) * (np.float32(0.25) + np.float32(0.75) * grazing) * sky
        added[i] += share[:, None] * reflect
        if material is Material.PAINT:
            factor[i] *= (np.float32(0.80) + np.float32(0.22) * np.clip(height, 0, 1.2))[:, None]
        else:
            factor[i] *= np.float32(0.55)


def _slats(factor: np.ndarray, opaque: np.ndarray, pixels: Pixels, geometry: Geometry) -> None:
    """Fences: rails and pales where they are resolved, else their mean; half of them are railings one sees through."""
    i = pixels.pick(Material.SLATS)
    p = geometry.faces.params[pixels.face[i]]
    relative = pixels.v[i] / np.maximum(p[:, 2], 0.1)
    rails = (np.abs(relative - 0.9) < 0.06) | (np.abs(relative - 0.12) < 0.05)
    du, _ = pixels.stretch(i)
    resolved = np.clip(np.float32(0.16) / du - np.float32(0.5), 0, 1)
    gap = np.where((pixels.u[i] % 0.22) > 0.11, 1.0, 0.0) * resolved + 0.5 * (1 - resolved)
    gap = np.where(rails, 0.05, gap)
    factor[i] *= (1 - 0.62 * gap)[:, None].astype(np.float32)


def _snow(pixels: Pixels, coarse: np.ndarray, fine: np.ndarray, style: PhotoStyle) -> np.ndarray:
    white = np.zeros(len(pixels.face), np.float32)
    if not style.snow:
        return white
    patches = (coarse[:, 1] - ONE) * np.float32(1 / 28)
    leaves = (fine[:, 1] - ONE) * np.float32(1 / 60)
    for material, gain, base, rough, most in (
        (Material.ASPHALT, 1.5, 0.55, 0.30, 0.90),
        (Material.PAVING, 2.4, 0.50, 0.25, 0.95),
        (Material.GRASS, 3.0, 0.40, 0.20, 0.97),
    ):
        i = pixels.pick(material)
        white[i] = np.clip(style.snow * gain - base + rough * patches[i], 0, most)
    i = pixels.pick(Material.FOLIAGE)
    white[i] = np.clip(style.snow * (0.25 + 0.5 * leaves[i]), 0, 0.7)
    return white


def _fronts(
    factor: np.ndarray,
    added: np.ndarray,
    glow: np.ndarray,
    geometry: Geometry,
    pixels: Pixels,
    style: PhotoStyle,
    reflect: np.ndarray,
) -> None:
    """Windows, shops, doors and balconies of the houses, from their parameters (:func:`..street.building`)."""
    i = pixels.pick(Material.FACADE)
    if not len(i):
        return
    face = pixels.face[i]
    params = np.maximum(geometry.faces.params, [1e-3, 1e-3, 0, -1e3])
    seeds = params[:, 2].astype(np.int64)

    def facts(values: np.ndarray) -> np.ndarray:
        return np.take(values.astype(np.float32), face)

    pitch, storey = facts(params[:, 0]), facts(params[:, 1])
    across, up = pixels.u[i] / pitch, pixels.v[i] / storey
    column, row = np.floor(across).astype(np.int64), np.floor(up).astype(np.int64)
    seed = np.take(seeds, face)
    spin = (column * 7919 ^ row * 10427 ^ seed * 5573) * 2741 >> 5 & 1023
    house = (seeds * 40503 >> 4) & 255
    kind = np.take(house % len(UPPER), face)
    cell = UPPER[kind, (column + (seed & 1) * row) % 4]
    ground = row == 0
    shop = np.take((params[:, 3] > 0).astype(np.int64), face)
    cell = np.where(ground, GROUND[1 - shop, (column * 5 + seed) % 4], cell)
    fits = (row + np.float32(0.92)) * storey < facts(np.abs(params[:, 3]))
    cell = np.where(fits & (pixels.v[i] >= 0), cell, 0).astype(np.int32)
    atlas = facade_atlas()
    du, dv = pixels.stretch(i)
    level = atlas.level_of(np.sqrt(np.maximum(du / pitch, 1e-4) * np.maximum(dv / storey, 1e-4)))
    planes = atlas.sample(cell, across, up, level).astype(np.float32)
    wall = planes[:, 0] * np.float32(1 / ONE)
    glass, frame, accent = (planes[:, k] * np.float32(1 / 255) for k in (1, 2, 3))
    luck = spin.astype(np.float32) * np.float32(1 / 1023)
    # frames are white or dark by house, accents take a hue of their own
    house_luck = facts(house / 255)
    pale = np.where(house_luck < 0.62, np.float32(0.62), np.float32(0.10))
    hue = facts((seeds * 97 >> 2 & 255) / 255)[:, None] * np.float32(6.28) + np.array([0, 2.1, 4.2], np.float32)
    coloured = np.float32(0.16) + np.float32(0.14) * np.cos(hue)
    light = style.ambient.astype(np.float32) + np.float32(0.35) * style.sun.astype(np.float32)
    rest = np.clip(1 - glass - frame - accent, 0, 1)
    factor[i] *= (rest * wall)[:, None]
    added[i] += frame[:, None] * pale[:, None] * light + accent[:, None] * coloured * light
    # a pane mirrors sky or street, and shows a curtain or a dark room
    curtain = np.where(luck % 0.25 > 0.17, np.float32(0.28), np.float32(0.03))
    tilt = np.clip(np.float32(0.15) + np.float32(0.10) * up + np.float32(0.5) * (luck - np.float32(0.5)), 0.03, 0.6)
    added[i] += glass[:, None] * (curtain[:, None] * light * np.float32(0.6) + tilt[:, None] * reflect)
    if style.light.lamps > 0.05:
        lit = luck < np.where(ground & (shop > 0), np.float32(0.75), np.float32(style.lit_windows))
        power = np.where(ground & (shop > 0), np.float32(0.55), np.float32(0.2) + np.float32(0.3) * house_luck)
        warm = np.array([1.0, 0.74, 0.42], np.float32)
        glow[i] += (lit * power * glass * min(1.0, style.light.lamps * 2))[:, None].astype(np.float32) * warm
