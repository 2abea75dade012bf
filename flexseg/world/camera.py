"""The pinhole camera: from metres in the street to pixels, with the plane equations shading needs.

World axes: x right, y up, z forward along the street, origin on the road's centre line below the camera's plane.
Camera axes are the same, turned: y stays up, so image rows run against it. See Hartley & Zisserman,
*Multiple View Geometry*, 2nd ed., ch. 6 (finite projective camera) and ch. 13 (planes and homographies).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NEAR = 0.4
"""Metres: what is nearer than this plane is clipped."""


@dataclass(frozen=True)
class Camera:
    """Where a camera stands and looks: metres and radians."""

    x: float
    height: float
    fov: float
    """Horizontal field of view of a 2:1 picture."""
    pitch: float
    """Positive looks up."""
    yaw: float
    """Positive looks right."""
    roll: float
    horizon: float
    """Row of the principal point as a fraction of the picture's height."""


class View(NamedTuple):
    """A camera with a raster of ``height`` × ``width`` pixels."""

    rotation: np.ndarray
    """(3, 3) float32: camera = rotation @ (world − position)."""
    position: np.ndarray
    focal: float
    cx: float
    cy: float
    height: int
    width: int


def view_of(camera: Camera, height: int, width: int) -> View:
    """The camera on a raster; other aspect ratios than 2:1 keep the mean of both fields of view."""
    cp, sp = np.cos(camera.pitch), np.sin(camera.pitch)
    cw, sw = np.cos(camera.yaw), np.sin(camera.yaw)
    cr, sr = np.cos(camera.roll), np.sin(camera.roll)
    yaw = np.array([[cw, 0, -sw], [0, 1, 0], [sw, 0, cw]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    focal = (width + 2 * height) / 4 / np.tan(camera.fov / 2)
    return View(
        rotation=(roll @ pitch @ yaw).astype(np.float32),
        position=np.array([camera.x, camera.height, 0], np.float32),
        focal=float(focal),
        cx=(width - 1) / 2,
        cy=(height - 1) * camera.horizon,
        height=height,
        width=width,
    )


def to_camera(view: View, points: np.ndarray) -> np.ndarray:
    """World points (N, 3) in camera axes (N, 3)."""
    return (points - view.position) @ view.rotation.T


def to_pixels(view: View, points: np.ndarray) -> np.ndarray:
    """Camera points (N, 3) with positive depth in pixels (N, 2): column, row."""
    scale = view.focal / np.maximum(points[:, 2], 1e-3)
    return np.stack([view.cx + points[:, 0] * scale, view.cy - points[:, 1] * scale], axis=1)


def clip_near(polygon: np.ndarray) -> np.ndarray:
    """The part of a camera-space polygon (N, 3) beyond the near plane (Sutherland & Hodgman 1974)."""
    kept: list[np.ndarray] = []
    previous = polygon[-1]
    for point in polygon:
        if (point[2] >= NEAR) != (previous[2] >= NEAR):
            t = (NEAR - previous[2]) / (point[2] - previous[2])
            kept.append(previous + t * (point - previous))
        if point[2] >= NEAR:
            kept.append(point)
        previous = point
    return np.asarray(kept, np.float32).reshape(-1, 3)


def plane_coefficients(view: View, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is linear in the picture for planes through the camera-space points a, b, c, each (F, 3).

    A point of the plane is ``a + u U + v V = z d`` with ``d`` the pixel's ray, so ``(u, v, 1)/z = [U V a]⁻¹ d``,
    and each of the three is an affine function of column and row. Returns these as (F, 9) float32 (three each for
    u/z, v/z, 1/z) and the outward unit normals (F, 3).
    """
    along = b - a
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    normal = np.cross(along, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    across = np.cross(normal, along)
    det = np.einsum("ij,ij->i", normal, a)
    det = np.where(np.abs(det) < 1e-4, np.where(det < 0, -1e-4, 1e-4), det)[:, None]
    rows = np.stack([np.cross(across, a), np.cross(a, along), normal], axis=1) / det[:, None]
    out = np.empty((len(a), 3, 3), np.float32)
    out[:, :, 0] = rows[:, :, 0] / view.focal
    out[:, :, 1] = -rows[:, :, 1] / view.focal
    out[:, :, 2] = rows[:, :, 2] - rows[:, :, 0] * (view.cx / view.focal) + rows[:, :, 1] * (view.cy / view.focal)
    return out.reshape(-1, 9), -normal
