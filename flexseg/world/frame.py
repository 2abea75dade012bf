"""One image of the world, from (version, domain, split, index) alone.

The draws of geometry, look, weather particles, sensor noise and misalignment come from separate generators keyed by
world version, domain, split, index and purpose, so that each stays the same when another changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexseg.world.domains import SPLITS, DomainSpec
from flexseg.world.geometry import label_of, rasterise
from flexseg.world.versions import Version, version_of

MINIMUM_SIDE = 32
_LAYOUT, _LOOK, _PARTICLES, _MISALIGN, _COLOURS, _WARP = range(6)
_REPAINTED = 100
"""Added to the key of a domain whose look is drawn apart from the layouts that it shares, times its hand."""


class Frame(NamedTuple):
    """An image with its label."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    label: np.ndarray
    """(H, W) uint8 train ids, 255 void."""
    painted: np.ndarray
    """(H, W) uint8: label of the geometry that the image shows; differs from ``label`` in misaligned images only."""
    condition: str


def _check(
    world: Version, domain: str, split: str, index: int, height: int, width: int, misalignment: float
) -> DomainSpec:
    if domain not in world.domains:
        raise ValueError(f"unknown domain {domain!r}; choose one of {', '.join(world.domains)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index must be 0 or more, not {index}")
    if height < MINIMUM_SIDE or width < MINIMUM_SIDE:
        raise ValueError(f"an image is at least {MINIMUM_SIDE} x {MINIMUM_SIDE} pixels, not {height} x {width}")
    if not (np.isfinite(misalignment) and misalignment >= 0):
        raise ValueError(f"misalignment must be a number of 0 (aligned) or more, not {misalignment}")
    return world.domains[domain]


def render(
    domain: str,
    split: str,
    index: int,
    *,
    version: int = 1,
    height: int = 96,
    width: int = 192,
    misalignment: float = 1.0,
) -> Frame:
    """Render one image with its label; a pure function of its arguments.

    ``version`` is the world's (:data:`flexseg.world.versions.VERSIONS`) and part of every random draw. ``misalignment``
    acts on generated images only. Raises UserError for an unknown version, ValueError for other unknown or
    impossible arguments.
    """
    world = version_of(version)
    spec = _check(world, domain, split, index, height, width, misalignment)

    def dice(purpose: int, key: int = spec.key) -> np.random.Generator:
        return np.random.default_rng([world.number, key, SPLITS.index(split), index, purpose])

    look_key = spec.key + (_REPAINTED * spec.hand if spec.role == "generated" else 0)
    scene = world.build_scene(dice(_LAYOUT), spec.layout)
    geometry = rasterise(scene, height, width)
    label = painted = label_of(geometry)
    if spec.role == "generated":
        scene.colours = dice(_COLOURS, look_key).random(scene.colours.shape)
        if misalignment:
            scene = world.displace(scene, dice(_MISALIGN, look_key), misalignment)
            geometry = world.distort(rasterise(scene, height, width), dice(_WARP, look_key), misalignment)
            painted = label_of(geometry)
    style = world.draw_style(dice(_LOOK, look_key), spec.look, index)
    image = world.paint(scene, geometry, spec, style, dice(_PARTICLES, look_key))
    return Frame(image, label, painted, style.condition)
