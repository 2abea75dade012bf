"""The suite's own street world: a procedural source and unseen targets for two CPU cores.

``render(domain, split, index, version=…)`` draws one image with its label. See :mod:`flexseg.world.versions` for what
the versions do differently, :mod:`flexseg.world.domains` for the domains, :mod:`flexseg.world.write` for data sets on
disk and :mod:`flexseg.world.sheet` for a contact sheet.
"""

from __future__ import annotations

from flexseg.world.domains import DOMAINS, SPLITS, DomainSpec
from flexseg.world.frame import Frame, render
from flexseg.world.versions import VERSIONS, Version, version_of

__all__ = ["DOMAINS", "SPLITS", "VERSIONS", "DomainSpec", "Frame", "Version", "render", "version_of"]
