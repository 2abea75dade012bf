"""Every figure alone, as a paper takes it: PDF, SVG and PNG at a column's width, and a file with all captions.

The drawing functions are those of the reports; only the canvas is another one. The same inputs give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.transforms import Bbox

from flexseg.analysis.figures.canvas import SHEET_TYPE, Plate, Sheet
from flexseg.analysis.figures.plates import all_plates
from flexseg.analysis.figures.style import style_at
from flexseg.analysis.stats.formats import write_text
from flexseg.analysis.stats.scores import Scores
from flexseg.files import replacing

DPI = 300
MARGIN = 1.5
"""Points that are left above and below the content."""
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"Creator": "flexseg", "Producer": "matplotlib", "CreationDate": None},
    "svg": {"Creator": "flexseg", "Date": None},
    "png": {"Software": "flexseg"},
}
"""What each format would otherwise fill with dates and versions."""


def export_figures(scores: Scores, output: Path) -> list[Path]:
    """Write the captions to ``output`` (Markdown) and ``<name>.{pdf,svg,png}`` beside it; the paths, captions last.

    A figure is as wide as a column of two-column proceedings (3.3 in or 7 in) and as high as its content. One that has
    nothing to show is not written, and an older file of that name is removed; the captions say why.
    """
    home, paths, captions = output.parent, [], []
    with mpl.rc_context(cast(Any, style_at(SHEET_TYPE))):
        for plate in all_plates(scores):
            sheet = Sheet(plate.width, plate.ratio)
            plate.draw(sheet)
            targets = [home / f"{plate.name}.{suffix}" for suffix in METADATA]
            if sheet.empty:
                for path in targets:
                    path.unlink(missing_ok=True)
            else:
                save(sheet, targets)
                paths += targets
            captions.append(_caption(plate, sheet))
    title = f"# {scores.benchmark.title}: figures\n\n"
    write_text(output, title + "\n".join(captions))
    return [*paths, output]


def save(sheet: Sheet, paths: list[Path]) -> None:
    """Write a drawn sheet to ``paths``, in the format of each one's suffix, cut above and below to its content."""
    figure = sheet.figure
    tight = figure.get_tightbbox()
    margin = MARGIN / 72
    # The width stays that of the column, so that type has its size when the figure is set at that width.
    low = max(0.0, min(tight.y0, (sheet.height - sheet.lowest) / 72) - margin)
    high = min(sheet.height / 72, tight.y1 + margin)
    box = Bbox.from_extents(min(0.0, tight.x0), low, max(sheet.width / 72, tight.x1), high)
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=DPI, bbox_inches=box, metadata=METADATA[kind])


def _caption(plate: Plate, sheet: Sheet) -> str:
    if sheet.empty:
        return f"## {plate.heading}\n\nNot drawn. {sheet.empty}\n"
    files = ", ".join(f"[{suffix.upper()}]({plate.name}.{suffix})" for suffix in METADATA)
    return f"## {plate.heading}\n\n{files}\n\n{sheet.legend_text}\n"
