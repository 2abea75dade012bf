"""The versions of the world as data: what each does in its own way. All share the pipeline of :func:`.frame.render`.

A version is frozen once a benchmark uses it: whatever changes a picture or a label is a new version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexseg.errors import UserError
from flexseg.world import appearance, domains, misalign, painting, scene
from flexseg.world.domains import DomainSpec
from flexseg.world.geometry import Geometry
from flexseg.world.scene import Scene
from flexseg.world.v2 import domains as v2_domains
from flexseg.world.v2 import misalign as v2_misalign
from flexseg.world.v2 import paint as v2_paint
from flexseg.world.v2 import streets as v2_streets
from flexseg.world.v2 import style as v2_style


@dataclass(frozen=True)
class Version:
    """One version of the world."""

    number: int
    """Enters every random draw."""
    domains: Mapping[str, DomainSpec]
    build_scene: Callable[[np.random.Generator, Any], Scene]
    """A street, from the domain's layout."""
    displace: Callable[[Scene, np.random.Generator, float], Scene]
    """The scene as a generator would paint it, at a strength of misalignment."""
    distort: Callable[[Geometry, np.random.Generator, float], Geometry]
    """The same for the painted geometry, in the picture's plane."""
    draw_style: Callable[[np.random.Generator, Any, int], Any]
    """Light, weather and sensor, from the domain's look and the image's index."""
    paint: Callable[[Scene, Geometry, DomainSpec, Any, np.random.Generator], np.ndarray]
    """Geometry in a style: (H, W, 3) uint8 RGB."""


VERSIONS: dict[int, Version] = {
    version.number: version
    for version in (
        Version(
            1,
            domains.DOMAINS,
            scene.build_scene,
            misalign.displace,
            misalign.distort,
            appearance.draw_style,
            painting.paint,
        ),
        Version(
            2,
            v2_domains.DOMAINS,
            v2_streets.build_scene,
            v2_misalign.displace,
            v2_misalign.distort,
            v2_style.draw_style,
            v2_paint.paint,
        ),
    )
}


def version_of(number: int) -> Version:
    """The version of this number.

    Raises:
        UserError: there is none; lists those that there are.
    """
    if number not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise UserError(f"there is no version {number} of the street world; this library renders versions {known}")
    return VERSIONS[number]
