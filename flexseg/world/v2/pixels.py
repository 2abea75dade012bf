"""What is seen at every pixel: face, depth, place in the world, texture coordinates (a G-buffer)."""

from __future__ import annotations

import numpy as np

from flexseg.world.geometry import Geometry, majority
from flexseg.world.mesh import Material


class Pixels:
    """The pixels of a picture, flattened to N = H · W; sky pixels lie far away."""

    def __init__(self, geometry: Geometry) -> None:
        view, faces = geometry.view, geometry.faces
        self.height, self.width = view.height // 2, view.width // 2
        self.coarse = majority(geometry.surface)
        """(H, W) int32: face of most of a pixel's samples."""
        self.face = self.coarse.ravel()
        self.material = np.take(faces.material, self.face)
        # planes are in sample coordinates, two to a pixel
        self._x = np.tile(np.arange(self.width, dtype=np.float32) * 2 + np.float32(0.5), self.height)
        self._y = np.repeat(np.arange(self.height, dtype=np.float32) * 2 + np.float32(0.5), self.width)
        self._planes = np.ascontiguousarray(faces.plane.T)
        self.depth = 1 / np.clip(self._affine(6), np.float32(1e-3), np.float32(3.0))
        """(N,) float32, metres along the view."""
        self.u = self._affine(0) * self.depth
        self.v = self._affine(3) * self.depth
        """Metres in the texture frame of the face."""
        self.footprint = self.depth * np.float32(2 / view.focal)
        """Metres that a pixel covers across the line of sight."""
        across = (self._x - np.float32(view.cx)) / np.float32(view.focal)
        up = (np.float32(view.cy) - self._y) / np.float32(view.focal)
        self.across = across * self.depth
        """Metres to the right of the camera's axis."""
        ray = np.stack([across, up, np.ones_like(up)], axis=1)
        self.world = ray @ view.rotation
        self.world *= self.depth[:, None]
        self.world += view.position
        """(N, 3): x right, y up, z forward."""
        normal = np.take(faces.normal, self.face, axis=0)
        ray /= np.sqrt(np.einsum("ij,ij->i", ray, ray))[:, None]
        self.cosine = np.abs(np.einsum("ij,ij->i", normal, ray))
        """Cosine between the line of sight and the face's normal: 0 at a grazing view."""

    def _affine(self, k: int) -> np.ndarray:
        a, b, c = (np.take(self._planes[k + j], self.face) for j in range(3))
        return a * self._x + b * self._y + c

    def pick(self, *materials: Material) -> np.ndarray:
        """Indices of the pixels of these materials."""
        mask = self.material == materials[0]
        for material in materials[1:]:
            mask |= self.material == material
        return np.flatnonzero(mask)

    def stretch(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Metres of texture that one pixel step to the right takes along u, and one step down along v."""
        face, z = self.face[i], 2 * self.depth[i]
        du = np.take(self._planes[0], face) - self.u[i] * np.take(self._planes[6], face)
        dv = np.take(self._planes[4], face) - self.v[i] * np.take(self._planes[7], face)
        return np.abs(du * z) + np.float32(1e-4), np.abs(dv * z) + np.float32(1e-4)
