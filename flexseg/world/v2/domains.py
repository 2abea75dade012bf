"""The seven domains of version 2 as data."""

from __future__ import annotations

from dataclasses import replace

from flexseg.world.domains import DOMAINS as FIRST
from flexseg.world.domains import DomainSpec
from flexseg.world.v2.style import PhotoLook

DOMAINS: dict[str, DomainSpec] = {
    "source": replace(
        FIRST["source"],
        look=PhotoLook(
            {"clear": 4, "overcast": 2, "backlight": 1, "dusk": 0.8, "dawn": 0.6},
            saturation=(0.85, 1.15),
            contrast=(1.0, 1.25),
            exposure=(0.9, 1.15),
            sun=(25, 58),
            noise=(0.0, 0.008),
            blur=(0.0, 0.35),
            texture=(0.8, 1.1),
            leafless=0.15,
        ),
    ),
}
for _n, _s in FIRST.items():
    if _n != "source":
        _l = _s.look
        DOMAINS[_n] = replace(
            _s,
            look=PhotoLook(
                _l.conditions, _l.palette, _l.cycle, _l.saturation, _l.contrast, _l.exposure, _l.warmth, _l.tint,
                _l.noise, _l.blur, _l.vignette, _l.jpeg, _l.sun, _l.texture, _l.styled,
                leafless=0.3, meter=(0.2, 0.7),
            ),
        )
