"""How streets of version 2 are laid out, as statistics."""

from __future__ import annotations

from dataclasses import dataclass

from flexseg.world.domains import Layout, Range


@dataclass(frozen=True)
class StreetLayout(Layout):
    """Statistics of streets that version 1 does not have."""

    lane_width: Range = (2.9, 3.6)
    pavement: Range = (1.8, 4.5)
    parking: float = 0.6
    """Share of the sides with a parking lane."""
    gardens: float = 0.35
    """Share of the built stretches whose houses stand behind front gardens."""
    shops: float = 0.4
    guard_rails: float = 0.12
    """Share of the sides with a rail along the kerb."""
    close: float = 0.25
    """Share of the streets that end at a T-junction."""
