"""House fronts: one texture a kind of window or shop front, repeated over the front's cells and glazed per cell.

A cell is one window pitch wide and one storey high. Its texture says how much of a pixel is wall, glass, frame and
accent (shutters, awnings, signs), so that fronts stay right at any distance.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import cv2
import numpy as np

from flexseg.world.v2.atlas import ONE, Atlas

SIDE = 64
_FINE = 4 * SIDE


class Cell(IntEnum):
    """Kinds of cells."""

    BLANK = 0
    SASH = 1
    CROSS = 2
    WIDE = 3
    FRENCH = 4
    PAIR = 5
    RIBBON = 6
    CURTAIN = 7
    ARCH = 8
    SHUTTERS = 9
    SMALL = 10
    BAY = 11
    SHOP = 12
    AWNING = 13
    GARAGE = 14
    DOOR = 15
    ARCADE = 16
    BALCONY = 17


UPPER = np.array(
    [
        [Cell.SASH, Cell.SASH, Cell.SASH, Cell.BLANK],
        [Cell.CROSS, Cell.CROSS, Cell.CROSS, Cell.CROSS],
        [Cell.WIDE, Cell.WIDE, Cell.SMALL, Cell.WIDE],
        [Cell.FRENCH, Cell.FRENCH, Cell.FRENCH, Cell.BALCONY],
        [Cell.PAIR, Cell.PAIR, Cell.BLANK, Cell.PAIR],
        [Cell.RIBBON, Cell.RIBBON, Cell.RIBBON, Cell.RIBBON],
        [Cell.CURTAIN, Cell.CURTAIN, Cell.CURTAIN, Cell.CURTAIN],
        [Cell.ARCH, Cell.ARCH, Cell.SASH, Cell.ARCH],
        [Cell.SHUTTERS, Cell.SHUTTERS, Cell.SHUTTERS, Cell.SMALL],
        [Cell.BAY, Cell.SASH, Cell.BAY, Cell.SASH],
        [Cell.BALCONY, Cell.WIDE, Cell.BALCONY, Cell.WIDE],
        [Cell.SMALL, Cell.BLANK, Cell.SMALL, Cell.SASH],
    ],
    np.int32,
)
"""What a style of house has above the ground floor; a cell takes one of four."""
GROUND = np.array(
    [[Cell.SHOP, Cell.SHOP, Cell.AWNING, Cell.DOOR], [Cell.SASH, Cell.DOOR, Cell.SASH, Cell.WIDE]], np.int32
)
"""The ground floor with and without shops."""


class _Drawing:
    """A cell drawn four times as large as it is stored; x to the right, y up, both in 0–1."""

    def __init__(self) -> None:
        self.planes = np.zeros((_FINE, _FINE, 4), np.float32)
        self.planes[:, :, 0] = 1

    def box(self, x0: float, x1: float, y0: float, y1: float, channel: int, value: float = 1.0) -> None:
        """Fill with wall of a tone (channel 0), glass (1), frame (2) or accent (3)."""
        rows = slice(round((1 - y1) * _FINE), round((1 - y0) * _FINE))
        area = self.planes[rows, round(x0 * _FINE) : round(x1 * _FINE)]
        if channel:
            area[:, :, 1:] = 0
        area[:, :, channel] = value

    def shade(self, x0: float, x1: float, y0: float, y1: float, value: float) -> None:
        rows = slice(round((1 - y1) * _FINE), round((1 - y0) * _FINE))
        self.planes[rows, round(x0 * _FINE) : round(x1 * _FINE), 0] = value

    def window(self, x0: float, x1: float, y0: float, y1: float, bars: tuple[int, int] = (2, 2)) -> None:
        """A framed window in a reveal, with sill, lintel and ``bars`` panes across and up."""
        self.shade(x0 - 0.05, x1 + 0.05, y1, y1 + 0.06, 1.12)
        self.shade(x0 - 0.05, x1 + 0.05, y0 - 0.09, y0 - 0.04, 0.62)
        self.shade(x0 - 0.06, x1 + 0.06, y0 - 0.045, y0, 1.2)
        self.box(x0, x1, y0, y1, 2)
        t = 0.022
        for i in range(bars[0]):
            for j in range(bars[1]):
                a, b = x0 + (x1 - x0) * i / bars[0], x0 + (x1 - x0) * (i + 1) / bars[0]
                c, d = y0 + (y1 - y0) * j / bars[1], y0 + (y1 - y0) * (j + 1) / bars[1]
                self.box(a + t, b - t, c + t, d - t, 1)
        # the reveal's shadow on the glass
        self.planes[
            round((1 - y1) * _FINE) : round((1 - y1 + 0.05) * _FINE), round(x0 * _FINE) : round(x1 * _FINE), 1
        ] *= 0.5

    def railing(self, x0: float, x1: float, y0: float, y1: float) -> None:
        self.box(x0, x1, y1 - 0.025, y1, 3, 0.9)
        n = round((x1 - x0) / 0.045)
        for i in range(n):
            x = x0 + (x1 - x0) * i / n
            self.box(x, x + 0.016, y0, y1, 3, 0.8)

    def stored(self) -> np.ndarray:
        small = cv2.resize(self.planes, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        small[:, :, 0] *= ONE
        small[:, :, 1:] *= 255
        return np.clip(small[::-1] + 0.5, 0, 255).astype(np.uint8)  # row 0 is the bottom


def _draw(cell: Cell) -> np.ndarray:
    d = _Drawing()
    if cell is Cell.SASH:
        d.window(0.28, 0.72, 0.28, 0.82, (1, 2))
    elif cell is Cell.CROSS:
        d.window(0.24, 0.76, 0.28, 0.80, (2, 2))
    elif cell is Cell.WIDE:
        d.window(0.12, 0.88, 0.30, 0.80, (3, 1))
    elif cell is Cell.FRENCH:
        d.window(0.27, 0.73, 0.06, 0.82, (2, 3))
        d.railing(0.22, 0.78, 0.06, 0.36)
    elif cell is Cell.PAIR:
        d.window(0.16, 0.44, 0.28, 0.82, (1, 2))
        d.window(0.56, 0.84, 0.28, 0.82, (1, 2))
    elif cell is Cell.RIBBON:
        d.shade(0, 1, 0.22, 0.30, 0.9)
        d.box(0, 1, 0.32, 0.80, 2)
        for i in range(3):
            d.box(i / 3 + 0.012, (i + 1) / 3 - 0.012, 0.34, 0.78, 1)
    elif cell is Cell.CURTAIN:
        d.box(0, 1, 0, 1, 2)
        for i in range(2):
            d.box(i / 2 + 0.015, (i + 1) / 2 - 0.015, 0.03, 0.30, 1, 0.75)
            d.box(i / 2 + 0.015, (i + 1) / 2 - 0.015, 0.32, 0.98, 1)
    elif cell is Cell.ARCH:
        d.window(0.27, 0.73, 0.24, 0.72, (2, 2))
        centre, axes = (_FINE // 2, round(0.28 * _FINE)), (round(0.23 * _FINE), round(0.13 * _FINE))
        cv2.ellipse(d.planes, centre, axes, 0, 180, 360, (1, 0, 1, 0), -1)
        cv2.ellipse(d.planes, centre, (axes[0] - 8, axes[1] - 8), 0, 180, 360, (1, 1, 0, 0), -1)
    elif cell is Cell.SHUTTERS:
        d.window(0.33, 0.67, 0.26, 0.80, (2, 2))
        for x in (0.14, 0.68):
            d.box(x, x + 0.18, 0.26, 0.80, 3)
            for y in np.arange(0.28, 0.79, 0.06):
                d.box(x + 0.03, x + 0.15, float(y), float(y) + 0.02, 3, 0.65)
    elif cell is Cell.SMALL:
        d.window(0.36, 0.64, 0.42, 0.76, (1, 1))
    elif cell is Cell.BAY:
        d.shade(0.06, 0.94, 0.0, 0.98, 0.92)
        d.shade(0.06, 0.16, 0.0, 0.98, 0.70)
        d.window(0.20, 0.80, 0.26, 0.86, (3, 2))
    elif cell is Cell.SHOP:
        d.box(0, 1, 0.78, 0.96, 3)
        d.box(0.10, 0.90, 0.83, 0.90, 2, 0.8)
        d.box(0.03, 0.97, 0.10, 0.76, 2, 0.7)
        d.box(0.05, 0.62, 0.14, 0.74, 1)
        d.box(0.66, 0.94, 0.04, 0.74, 1)
    elif cell is Cell.AWNING:
        d.box(0.03, 0.97, 0.08, 0.62, 2, 0.7)
        d.box(0.06, 0.94, 0.14, 0.60, 1, 0.9)
        for i in range(8):
            d.box(i / 8, (i + 1) / 8, 0.60, 0.86, 3 if i % 2 else 2, 0.95)
        d.shade(0, 1, 0.55, 0.60, 0.6)
    elif cell is Cell.GARAGE:
        d.box(0.08, 0.92, 0.0, 0.74, 2, 0.75)
        for y in np.arange(0.06, 0.72, 0.11):
            d.box(0.10, 0.90, float(y), float(y) + 0.02, 2, 0.5)
    elif cell is Cell.DOOR:
        d.box(0.34, 0.66, 0.0, 0.80, 2)
        d.box(0.37, 0.63, 0.0, 0.66, 3)
        d.box(0.38, 0.62, 0.68, 0.78, 1)
        d.box(0.42, 0.58, 0.42, 0.60, 1, 0.6)
    elif cell is Cell.ARCADE:
        d.box(0.10, 0.90, 0.0, 0.74, 1, 1.0)
        d.shade(0.0, 1.0, 0.78, 0.84, 1.1)
    elif cell is Cell.BALCONY:
        d.window(0.25, 0.75, 0.10, 0.80, (2, 1))
        d.shade(0.05, 0.95, 0.0, 0.06, 0.55)
        d.box(0.05, 0.95, 0.06, 0.34, 3, 0.85)
        d.box(0.05, 0.95, 0.33, 0.36, 2, 0.9)
    return d.stored()


@cache
def facade_atlas() -> Atlas:
    """All cells, in the order of :class:`Cell`."""
    return Atlas([_draw(cell) for cell in Cell])
