"""The suite's own street world: a procedural source and unseen targets for two CPU cores.

``render(domain, split, index)`` draws one image with its label. See :mod:`flexseg.world.domains` for the domains,
:mod:`flexseg.world.write` for data sets on disk and :mod:`flexseg.world.sheet` for a contact sheet.
"""

from __future__ import annotations

from flexseg.world.domains import DOMAINS, SPLITS, DomainSpec
from flexseg.world.frame import VERSION, Frame, render

__all__ = ["DOMAINS", "SPLITS", "VERSION", "DomainSpec", "Frame", "render"]
