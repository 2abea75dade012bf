"""Surface texture: a factor per sample on the albedo, and colours of windows, sky, slats and snow.

Everything works on the samples of one material at a time, with texture coordinates in metres from the face's plane.
Fine patterns fade to their mean where they would be smaller than a sample.
"""

from __future__ import annotations

import numpy as np

from flexseg.world.appearance import Style
from flexseg.world.geometry import Geometry
from flexseg.world.mesh import Material
from flexseg.world.textures import sample, value_noise

_TEXTURED = np.zeros(32, bool)
_TEXTURED[[m for m in Material if m not in (Material.PLAIN, Material.SKY, Material.MARKING)]] = True
_WARM = np.array([1.0, 0.66, 0.32], np.float32)


class Samples:
    """The textured pixels of a picture with their texture coordinates; one material is picked at a time."""

    def __init__(self, coarse: np.ndarray, geometry: Geometry, style: Style) -> None:
        faces, surface = geometry.faces, coarse.ravel()
        material = np.take(faces.material, surface)
        self.where = np.flatnonzero(_TEXTURED[material])
        self.face = surface[self.where]
        self.kind = material[self.where]
        row, column = np.divmod(self.where.astype(np.int32), np.int32(coarse.shape[1]))
        # planes are in sample coordinates, two to a pixel
        self._x, self._y = column * np.float32(2) + np.float32(0.5), row * np.float32(2) + np.float32(0.5)
        self._planes = np.ascontiguousarray(faces.plane.T)
        self._depth = 1 / np.maximum(self._affine(6), np.float32(1e-3))
        self.u = self._affine(0) * self._depth
        self.v = self._affine(3) * self._depth
        self.footprint = self._depth * np.float32(2 / geometry.view.focal)
        """Metres a pixel covers across the line of sight."""
        self.params = faces.params
        self.style = style

    def _affine(self, k: int) -> np.ndarray:
        a, b, c = (np.take(self._planes[k + j], self.face) for j in range(3))
        return a * self._x + b * self._y + c

    def stretch(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Metres of texture that one pixel step to the right takes along u, and one step down along v."""
        face, z = self.face[i], 2 * self._depth[i]
        du = np.take(self._planes[0], face) - self.u[i] * np.take(self._planes[6], face)
        dv = np.take(self._planes[4], face) - self.v[i] * np.take(self._planes[7], face)
        return np.abs(du * z) + np.float32(1e-4), np.abs(dv * z) + np.float32(1e-4)

    def pick(self, material: Material) -> np.ndarray:
        return np.flatnonzero(self.kind == material)


def _fade(size: float | np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """1 where a pattern of this size in metres is resolved, 0 where it is not."""
    return np.clip(size * np.float32(0.5) / footprint - np.float32(0.25), 0, 1)


def texture(
    rgb: np.ndarray, glow: np.ndarray | None, coarse: np.ndarray, geometry: Geometry, style: Style, reflect: np.ndarray
) -> np.ndarray:
    """Texture ``rgb`` (N, 3) in place, the flattened pixels of the picture; windows lit at night go into ``glow``.

    ``coarse`` (H, W) is the face at each pixel, ``reflect`` (3,) the light that glass mirrors.
    Returns how much of each pixel lying snow covers, (H, W) in 0–1.
    """
    s = Samples(coarse, geometry, style)
    k = style.texture
    factor = np.ones(len(s.where), np.float32)
    grain, cloud = value_noise(1, 64, 2), value_noise(2, 8, 5)
    ou, ov = style.offset
    white = np.zeros(len(s.where), np.float32)

    i = s.pick(Material.ASPHALT)
    u, v, near = s.u[i] + ou, s.v[i] + ov, _fade(0.2, s.footprint[i])
    patches = sample(cloud, u, v * 0.35, 9.0)
    factor[i] = 1 + k * (0.10 * near * sample(grain, u, v, 28.0) + 0.07 * patches)
    if style.snow:
        white[i] = np.clip(style.snow * 1.5 - 0.55 + 0.3 * patches, 0, 0.9)

    i = s.pick(Material.PAVING)
    u, v, near = s.u[i] + ou, s.v[i] + ov, _fade(0.25, s.footprint[i])
    joint = ((u % 0.6) < 0.07) | ((v % 0.9) < 0.09)
    patches = sample(cloud, u, v, 12.0)
    factor[i] = 1 + k * (0.06 * sample(grain, u, v, 16.0) * near + 0.07 * patches - 0.22 * near * joint)
    white[i] = np.clip(style.snow * 2.4 - 0.5 + 0.25 * patches, 0, 0.95) if style.snow else 0

    i = s.pick(Material.GRASS)
    u, v = s.u[i] + ou, s.v[i] + ov
    patches = sample(cloud, u, v, 10.0)
    factor[i] = 1 + k * (0.20 * _fade(0.4, s.footprint[i]) * sample(grain, u, v, 14.0) + 0.16 * patches)
    white[i] = np.clip(style.snow * 3 - 0.4 + 0.2 * patches, 0, 0.97) if style.snow else 0

    i = s.pick(Material.FOLIAGE)
    leaves = sample(cloud, s.u[i] + ou, s.v[i] + ov, 34.0)
    teeth = sample(grain, s.u[i], s.v[i], 24.0) * _fade(0.12, s.footprint[i])
    factor[i] = np.clip(1 + k * (0.34 * leaves + 0.18 * teeth), 0.25, 1.9)
    white[i] = np.clip(style.snow * (0.25 + 0.2 * leaves + 0.35 * teeth), 0, 0.7) if style.snow else 0

    i = s.pick(Material.BRICK)
    u, v, p = s.u[i], s.v[i], s.params[s.face[i]]
    course = np.floor(v / p[:, 1])
    joint = ((v % p[:, 1]) < 0.04) | (((u + 0.5 * p[:, 0] * (course % 2)) % p[:, 0]) < 0.05)
    stain = sample(cloud, u + ou, v * 0.6, 14.0)
    factor[i] = 1 + k * (
        0.12 * stain + 0.08 * sample(grain, u / p[:, 0], course, 1.0) - 0.28 * joint * _fade(0.2, s.footprint[i])
    )

    i = s.pick(Material.PAINT)
    shine = np.clip(s.v[i], 0, 1.2)
    factor[i] = 0.82 + 0.22 * shine + 0.05 * sample(cloud, s.u[i] + ou, s.v[i], 20.0)

    i = s.pick(Material.GLASS)
    mirrored = np.clip(0.25 + 0.35 * s.v[i] + 0.2 * sample(cloud, s.u[i] + ou, s.v[i] + ov, 16.0), 0.05, 1)
    rgb[s.where[i]] += 0.16 * mirrored[:, None] * reflect

    i = s.pick(Material.ROOF)
    factor[i] = 1 + k * (
        0.1 * sample(cloud, s.u[i] + ou, s.v[i], 14.0) - 0.2 * ((s.v[i] % 0.5) < 0.14) * _fade(0.4, s.footprint[i])
    )

    i = s.pick(Material.SLATS)
    p = s.params[s.face[i]]
    rails = (np.abs(s.v[i] / p[:, 2] - 0.85) < 0.05) | (np.abs(s.v[i] / p[:, 2] - 0.15) < 0.05)
    resolved = _fade(0.11, s.footprint[i])
    open_share = np.where(rails, 0, np.where(resolved > 0.2, (s.u[i] % 0.24) > 0.13, 0.42))
    factor[i] = 1 - 0.72 * open_share

    rgb[s.where] *= factor[:, None]
    _facades(rgb, glow, s, reflect)
    snow = np.zeros(coarse.shape, np.float32)
    snow.ravel()[s.where] = white
    return snow


def _facades(rgb: np.ndarray, glow: np.ndarray | None, s: Samples, reflect: np.ndarray) -> None:
    """Windows, shop fronts, doors and storey bands from the houses' parameters."""
    i = s.pick(Material.FACADE)
    if not len(i):
        return
    u, v, at, face = s.u[i], s.v[i], s.where[i], s.face[i]
    params = np.maximum(s.params, [1e-3, 1e-3, 0, -1e3])
    seeds = params[:, 2].astype(np.int32)
    characters = ((seeds * 40503 >> 4) & 255) / np.float32(255)

    def facts(values: np.ndarray) -> np.ndarray:
        return np.take(values.astype(np.float32), face)

    pitch, storey, character = facts(params[:, 0]), facts(params[:, 1]), facts(characters)
    iu, iv = np.floor(u / pitch), np.floor(v / storey)
    fu, fv = np.abs(u / pitch - iu - np.float32(0.5)), v / storey - iv
    shop = (iv == 0) & np.take(params[:, 3] > 0, face)
    half = np.where(shop, np.float32(0.45), facts(0.19 + 0.13 * characters))
    lowest = np.where(shop, np.float32(0.12), facts(np.where(characters > 0.7, 0.12, 0.27)))
    fits = (iv + np.float32(0.9)) * storey < facts(np.abs(params[:, 3]))
    # edges as soft as a pixel is wide: box-filtered windows without supersampling
    du, dv = s.stretch(i)
    softness_u, softness_v = pitch / du, storey / dv
    inside_u, inside_v = half - fu, np.minimum(fv - lowest, np.float32(0.79) - fv)
    pane = np.clip(inside_u * softness_u + 0.5, 0, 1) * np.clip(inside_v * softness_v + 0.5, 0, 1) * fits
    frame = ((inside_u > -0.055) & (inside_v > -0.05)) * fits * (1 - pane)
    spin = (iu.astype(np.int32) * 7919 ^ iv.astype(np.int32) * 10427 ^ np.take(seeds, face) * 5573) * 2741 >> 5
    luck = (spin & 1023).astype(np.float32) * np.float32(1 / 1023)
    resolved = np.clip(np.minimum(softness_u, softness_v) * np.float32(0.5) - np.float32(0.6), 0, 1)
    cover = (pane * resolved + (1 - resolved) * np.float32(0.3) * fits)[:, None]
    stain = 1 + np.float32(0.07 * s.style.texture) * sample(value_noise(2, 8, 5), u + s.style.offset[0], v, 10.0)
    band = 1 + resolved * (np.float32(0.22) * frame * (character < 0.6) - np.float32(0.14) * (fv < 0.06))
    wall = rgb[at] * (stain * band)[:, None]
    glass = np.float32(0.035) + (np.float32(0.06) + np.float32(0.13) * luck)[:, None] * reflect
    rgb[at] = wall * (1 - cover) + glass * cover
    if glow is not None:
        lit = luck < np.where(shop, np.float32(0.75), np.float32(s.style.lit_windows))
        power = np.where(shop, np.float32(0.55), 0.22 + 0.3 * ((spin >> 10 & 255) / np.float32(255)))
        glow[at] += (lit * power * cover[:, 0]).astype(np.float32)[:, None] * _WARM


def sky(coarse: np.ndarray, geometry: Geometry, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and linear colours (N, 3) of the sky pixels: a gradient with clouds in perspective."""
    at = np.flatnonzero(coarse.ravel() == 0)
    view = geometry.view
    row, column = np.divmod(at.astype(np.int32), np.int32(coarse.shape[1]))
    x = (column * np.float32(2) - np.float32(view.cx)) / np.float32(view.focal)
    # the horizon lies where a level ray goes: the camera's pitch moves it from the principal point
    y = (np.float32(view.cy) - row * np.float32(2)) / np.float32(view.focal) - view.rotation[1, 2]
    rise = np.clip(y, 0.0, 1.5)
    climb = np.clip(rise / np.float32(0.7), 0, 1)[:, None] ** np.float32(0.8)
    rgb = style.horizon.astype(np.float32) * (1 - climb) + style.zenith.astype(np.float32) * climb
    if style.light.clouds:
        far = 1 / (rise + np.float32(0.18))
        noise = sample(value_noise(3, 4, 6), x * far + style.offset[0], far * 1.3 + style.offset[1], 22.0)
        # offset[0] also sets how cloudy it is
        share = np.clip((noise - 0.9 + 0.03 * style.offset[0]) * 0.9, 0, 1)[:, None] * style.light.clouds
        cloud = 0.55 * style.horizon + 0.45 * (style.ambient + style.sun)
        rgb = rgb * (1 - share) + share * cloud
    return at, rgb.astype(np.float32)
