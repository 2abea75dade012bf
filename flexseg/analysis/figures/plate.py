"""A figure as the reports take it, and the bytes of its file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

from matplotlib.figure import Figure

from flexseg.analysis.figures.style import DOUBLE, fix_layout, styled

Format = Literal["pdf", "svg", "png"]
DPI = 300
METADATA: dict[Format, dict[str, Any]] = {
    "pdf": {"Creator": "flexseg", "Producer": "matplotlib", "CreationDate": None},
    "svg": {"Creator": "flexseg", "Date": None},
    "png": {"Software": "flexseg"},
}
"""What each format would otherwise fill with dates and versions."""


@dataclass(frozen=True)
class Plate:
    """A figure of the reports: its file name, heading, caption (plain text) and the function that draws it.

    ``draw`` gives one figure without title and caption, ``width`` inches wide. ``empty`` says why there is nothing to
    show; then ``draw`` is not called.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[], Figure]
    empty: str = ""
    width: float = DOUBLE


def render(plate: Plate, format: Format) -> bytes:
    """The file of a plate in one format; the same inputs give the same bytes."""
    return render_all(plate, (format,))[format]


def render_all(plate: Plate, formats: Iterable[Format] = tuple(METADATA)) -> dict[Format, bytes]:
    """The files of a plate in several formats, drawn once. A sign that no font has is shown as a box."""
    files = {}
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # one for each sign and format
        figure = plate.draw()
        fix_layout(figure)
        for format in formats:
            target = BytesIO()
            figure.savefig(target, format=format, dpi=DPI, metadata=METADATA[format])
            files[format] = target.getvalue()
    return files


def empty_plate(name: str, heading: str, reason: str) -> Plate:
    """A plate that has nothing to show, and why."""

    def nothing() -> Figure:
        raise ValueError(f"there is no figure {name}: {reason}")

    return Plate(name, heading, "", nothing, reason)
