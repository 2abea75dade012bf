"""A contact sheet of all domains: every image beside its coloured label."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flexseg.classes import CLASSES
from flexseg.world.frame import render
from flexseg.world.versions import version_of

_CAPTION = 116
_GAP = 2
_STRENGTHS = {"generated,\naligned": 0.0, "generated": 1.0, "generated,\nstrength 2": 2.0}
"""The rows of the generated domain: caption and misalignment."""


def colour_label(label: np.ndarray) -> np.ndarray:
    """(H, W) train ids to (H, W, 3) uint8 RGB; void is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(CLASSES)] = [c.colour for c in CLASSES]
    return table[label]


def _row(
    caption: str, domain: str, samples: int, height: int, width: int, misalignment: float, version: int
) -> np.ndarray:
    page = Image.new("RGB", (_CAPTION + samples * 2 * (width + _GAP), height + _GAP), "white")
    font = ImageFont.load_default(15)
    ImageDraw.Draw(page).text((_CAPTION - 8, height // 2), caption, "black", font, anchor="rm", align="right")
    row = np.array(page)
    for i in range(samples):
        frame = render(domain, "train", i, version=version, height=height, width=width, misalignment=misalignment)
        for k, picture in enumerate((frame.image, colour_label(frame.label))):
            x = _CAPTION + (2 * i + k) * (width + _GAP)
            row[:height, x : x + width] = picture
    return row


def contact_sheet(samples: int, height: int, width: int, version: int = 1) -> np.ndarray:
    """RGB sheet (rows, columns, 3) uint8: one row per domain, and per misalignment of the generated one."""
    rows = []
    for domain, spec in version_of(version).domains.items():
        captions = _STRENGTHS if domain == "generated" else {domain.replace("_", "\n"): float(spec.role == "generated")}
        rows += [
            _row(caption, domain, samples, height, width, strength, version) for caption, strength in captions.items()
        ]
    return np.concatenate(rows)
