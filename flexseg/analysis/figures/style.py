"""How every figure looks: type, colours that colour-blind readers tell apart, and marks that survive a grey printer."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib

matplotlib.use("pdf")

from matplotlib.font_manager import FontProperties, findfont, get_font

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito, *Color Universal Design*, 2008; without yellow, which white paper swallows."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "h")
LINES = ("-", "--", "-.", ":")
INK, GREY, RULE = "#000000", "#555555", "#b0b0b0"
FAMILY = ["STIXGeneral", "DejaVu Sans"]

RC: dict[str, Any] = {
    "font.family": FAMILY,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "mathtext.fontset": "stix",
    "image.composite_image": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "flexseg",
}
"""Type 42 fonts stay editable text; STIX comes with matplotlib, so every machine sets the same pages. In SVG, which
cannot carry fonts, letters are outlines; the salt makes its ids the same every time."""
SCALED = (
    "font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize",
    "lines.markersize",
)  # fmt: skip


def style_at(scale: float) -> dict[str, Any]:
    """:data:`RC` with type and marks ``scale`` times as large."""
    return RC | {name: RC[name] * scale for name in SCALED}


def colour(index: int) -> str:
    """The colour of the series at ``index``."""
    return OKABE_ITO[index % len(OKABE_ITO)]


def series(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the series at ``index``: two of the three differ between any two of ten."""
    return {"color": colour(index), "marker": MARKERS[index % len(MARKERS)], "linestyle": LINES[index % len(LINES)]}


@cache
def _advance(character: str, bold: bool, italic: bool) -> float:
    """Advance width of one character as a fraction of the type size, from the first font that has it."""
    for family in FAMILY:
        properties = FontProperties(
            family=[family], weight="bold" if bold else "normal", style="italic" if italic else "normal"
        )
        font = get_font(findfont(properties))
        if font.get_char_index(ord(character)):
            font.set_size(100, 72)
            return float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 100
    return 0.6


def text_width(text: str, size: float, bold: bool = False, italic: bool = False) -> float:
    """Width in points of one line of ``text`` set in ``size`` points, without kerning: never too small."""
    return size * sum(_advance(character, bold, italic) for character in text)


def balanced(text: str, width: float, size: float) -> list[str]:
    """``text`` in as few lines as :func:`wrap` needs, of like length."""
    lines = wrap(text, width, size)
    while width > 10 and len(wrap(text, width - 2, size)) == len(lines):
        width -= 2
    return wrap(text, width, size)


def wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """``text`` broken into lines at most ``width`` points wide; a word that is too long is cut."""
    lines, line = [], ""
    for word in text.split():
        while text_width(word, size, bold) > width and len(word) > 1:
            cut = max(1, int(len(word) * width / text_width(word, size, bold)))
            while cut > 1 and text_width(word[:cut], size, bold) > width:
                cut -= 1
            if line:
                lines.append(line)
                line = ""
            lines.append(word[:cut])
            word = word[cut:]
        candidate = f"{line} {word}".strip()
        if line and text_width(candidate, size, bold) > width:
            lines.append(line)
            candidate = word
        line = candidate
    return [*lines, line] if line or not lines else lines
