"""Geometry pass: a scene becomes a buffer that names the face seen at every sample, with one row of facts per face.

Faces are painted back to front (the painter's algorithm: Newell, Newell & Sancha 1972) into a buffer twice as fine as
the picture; labels are the majority of four samples, colours their mean.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flexseg.world.camera import NEAR, View, clip_near, plane_coefficients, to_camera, to_pixels, view_of
from flexseg.world.mesh import LABEL, VOID, Material, Row, Slot
from flexseg.world.scene import GROUND, Scene

OVERSAMPLING = 2
_SHIFT = 3  # fractional bits of the vertices handed to OpenCV
_LIMIT = 30000.0  # pixels; keeps fixed-point vertices inside OpenCV's range


class Faces(NamedTuple):
    """Per face, row 0 being the sky: all arrays have the same first dimension F."""

    label: np.ndarray
    material: np.ndarray
    slot: np.ndarray
    tone: np.ndarray
    glow: np.ndarray
    params: np.ndarray
    thing: np.ndarray
    """(F,) int32 index of the thing; −1 for the sky and the bonnet."""
    plane: np.ndarray
    """(F, 9) float32: u/z, v/z, 1/z as affine functions of column and row."""
    normal: np.ndarray
    """(F, 3) float32: outward unit normals in camera axes."""


class Geometry(NamedTuple):
    """What is seen where."""

    surface: np.ndarray
    """(2H, 2W) int32: row of ``faces`` seen at each sample."""
    faces: Faces
    view: View
    boxes: np.ndarray
    """(things, 8, 3) float32: corners of each thing's bounding box, world metres (bend applied)."""


def bend_points(points: np.ndarray, bend: float) -> np.ndarray:
    """Shift points sideways along a street of constant curvature (parabola up to 120 m, then straight)."""
    if bend:
        z = points[..., 2]
        near = np.clip(z, 0, 120)
        points[..., 0] += bend * (0.5 * near**2 + 120 * np.maximum(z - 120, 0))
    return points


def _place(scene: Scene, rows: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World corners of all things, stacked; the part centres per face; the boxes per thing."""
    things = scene.things
    pose = np.array([(t.x, t.y, t.z, np.cos(t.yaw), np.sin(t.yaw), t.scale) for t in things], np.float32)

    def world(points: np.ndarray, thing: np.ndarray) -> np.ndarray:
        x, y, z, c, s, k = pose[thing].T
        out = np.empty_like(points)
        out[:, 0] = (c * points[:, 0] + s * points[:, 2]) * k + x
        out[:, 1] = points[:, 1] * k + y
        out[:, 2] = (c * points[:, 2] - s * points[:, 0]) * k + z
        return bend_points(out, scene.bend)

    numbers = np.arange(len(things))
    of_corner = np.repeat(owner, rows[:, Row.count].astype(int))
    corners = world(np.concatenate([t.mesh.corners for t in things]), of_corner)
    parts = world(rows[:, Row.part], owner)
    extremes = np.stack([t.mesh.box for t in things])
    pick = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
    boxes = world(extremes[:, pick, np.arange(3)].reshape(-1, 3), np.repeat(numbers, 8)).reshape(-1, 8, 3)
    return corners, parts, boxes


def rasterise(scene: Scene, height: int, width: int) -> Geometry:
    """Paint a scene's faces for a picture of ``height`` × ``width`` pixels."""
    view = view_of(scene.camera, height * OVERSAMPLING, width * OVERSAMPLING)
    things = scene.things
    rows = np.concatenate([t.mesh.rows for t in things])
    owner = np.repeat(np.arange(len(things)), [len(t.mesh.rows) for t in things])
    corners, parts, boxes = _place(scene, rows, owner)
    cam = to_camera(view, corners)
    counts = rows[:, Row.count].astype(np.int32)
    ends = np.cumsum(counts)
    starts = ends - counts
    a, b, c = cam[starts], cam[starts + 1], cam[starts + 2]
    nearest = np.minimum.reduceat(cam[:, 2], starts)
    farthest = np.maximum.reduceat(cam[:, 2], starts)
    pixels = to_pixels(view, cam)
    low = np.minimum.reduceat(pixels, starts)
    high = np.maximum.reduceat(pixels, starts)
    whole = nearest >= NEAR
    inside = (high[:, 0] > 0) & (high[:, 1] > 0) & (low[:, 0] < view.width) & (low[:, 1] < view.height)
    # a face smaller than 0.6 pixels cannot be told from what it lies on
    visible = (farthest > NEAR) & (~whole | (inside & ((high - low).max(1) > 1.2)))
    visible &= (rows[:, Row.cull] == 0) | (np.einsum("ij,ij->i", np.cross(b - a, c - a), a) > 0)
    layers = np.array([t.layer for t in things])
    depths = np.array([t.depth for t in things])
    part_depth = np.where(layers[owner] == GROUND, 0, to_camera(view, parts)[:, 2])
    order = np.lexsort((np.arange(len(counts)), -part_depth, owner, -depths[owner], layers[owner]))
    order = order[visible[order]]

    surface = np.zeros((view.height, view.width), np.int32)
    fixed = np.clip(pixels, -_LIMIT, _LIMIT)
    fixed = np.round(fixed * (1 << _SHIFT)).astype(np.int32)
    is_whole, many = whole.tolist(), (counts > 12).tolist()
    first, last = starts.tolist(), ends.tolist()
    for rank, i in enumerate(order.tolist(), start=1):
        if is_whole[i]:
            polygon = fixed[first[i] : last[i]]
        else:
            clipped = clip_near(cam[first[i] : last[i]])
            polygon = np.round(np.clip(to_pixels(view, clipped), -_LIMIT, _LIMIT) * (1 << _SHIFT)).astype(np.int32)
            if len(polygon) < 3:
                continue
        if many[i]:
            cv2.fillPoly(surface, [polygon], rank, cv2.LINE_8, _SHIFT)
        else:
            cv2.fillConvexPoly(surface, polygon, rank, cv2.LINE_8, _SHIFT)
    faces = _gather(rows[order], owner[order], *plane_coefficients(view, a[order], b[order], c[order]))
    if scene.bonnet:
        surface = _bonnet(surface, scene.bonnet, len(order) + 1)
    return Geometry(surface, faces, view, boxes)


def _gather(rows: np.ndarray, owner: np.ndarray, plane: np.ndarray, normal: np.ndarray) -> Faces:
    """Facts of the painted faces, in painting order, between the sky (first) and the bonnet (last)."""
    ends = np.zeros((2, rows.shape[1]), np.float32)
    ends[:, Row.label] = LABEL["sky"], VOID
    ends[:, Row.material] = Material.SKY, Material.PAINT
    ends[:, Row.slot] = Slot.TYRE
    ends[:, Row.tone] = 1.0, 1.2
    rows = np.concatenate([ends[:1], rows, ends[1:]])
    small = rows[:, : Row.cull].astype(np.uint8)
    far, near = np.zeros((2, 1, 9), np.float32)
    far[0, 8], near[0, 8] = 1e-4, 1.0
    return Faces(
        label=small[:, Row.label].copy(),
        material=small[:, Row.material].copy(),
        slot=small[:, Row.slot],
        tone=rows[:, Row.tone],
        glow=small[:, Row.glow],
        params=rows[:, Row.params],
        thing=np.concatenate([[-1], owner, [-1]]).astype(np.int32),
        plane=np.concatenate([far, plane, near]),
        normal=np.concatenate([[[0, 0, -1]], normal, [[0, 1, 0]]]).astype(np.float32),
    )


def _bonnet(surface: np.ndarray, share: float, row: int) -> np.ndarray:
    """Cover the bottom with the ego vehicle: a flat arc."""
    h, w = surface.shape
    x = np.linspace(-1, 1, 13)
    y = h * (1 - share * np.sqrt(np.clip(1 - (0.85 * x) ** 2, 0, 1)))
    arc = np.stack([(x + 1) / 2 * w, y], axis=1)
    polygon = np.concatenate([arc, [[w, h + 2], [-1, h + 2]]])
    cv2.fillPoly(surface, [np.round(polygon * (1 << _SHIFT)).astype(np.int32)], row, cv2.LINE_8, _SHIFT)
    return surface


def majority(fine: np.ndarray) -> np.ndarray:
    """(2H, 2W) values to (H, W): the most frequent of each pixel's four samples (the first of them in a tie)."""
    a, b, c, d = fine[::2, ::2], fine[::2, 1::2], fine[1::2, ::2], fine[1::2, 1::2]
    lone = (a != b) & (a != c) & (a != d)
    return np.where(lone, np.where((b == c) | (b == d), b, np.where(c == d, c, a)), a)


def label_of(geometry: Geometry) -> np.ndarray:
    """(H, W) uint8 train ids of a picture."""
    return majority(np.take(geometry.faces.label, geometry.surface))
