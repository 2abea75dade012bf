"""Which figures there are, in which order: one list for the reports and for the export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Literal, cast

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from flexseg.analysis.figures import ablation, boundary, comparison, observations, panels, studies
from flexseg.analysis.figures.canvas import SHEET_TYPE, Canvas, Sheet
from flexseg.analysis.figures.style import style_at
from flexseg.analysis.stats.effects import factorial_cells
from flexseg.analysis.stats.scores import Scores

Format = Literal["pdf", "svg", "png"]
SINGLE, DOUBLE = 3.3, 7.0
"""Widths in inches: one column of two-column proceedings, and both."""
DPI = 300
METADATA: dict[str, dict[str, Any]] = {
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
    target = BytesIO()
    with mpl.rc_context(cast(Any, style_at(SHEET_TYPE))):
        figure = plate.draw()
        box = getattr(figure, "_content", None)
        figure.savefig(target, format=format, dpi=DPI, bbox_inches=box, metadata=METADATA[format])
    return target.getvalue()


def comparison_plates(scores: Scores) -> list[Plate]:
    """What the rows score, against the reference and as such; then by boundary, class and condition; pictures."""
    return [
        _plate(scores, "differences", "Paired differences to the reference", comparison.difference_figure),
        _plate(scores, "miou", "mIoU per target", comparison.miou_figure),
        _plate(scores, "boundary_rings", "Error by distance to the boundary", boundary.ring_figure),
        _plate(scores, "classes", "Classes", comparison.class_figure, 0.8),
        _plate(scores, "conditions", "Conditions", comparison.condition_figure, 0.85),
        *_pictures(scores),
    ]


def ablation_plates(scores: Scores) -> list[Plate]:
    """What each component and control does; then dials, misalignment, boundary, training, and what methods show."""
    described = scores.benchmark.ablation
    found = [_plate(scores, "contrasts", "Components, controls, misalignment", ablation.contrast_figure)]
    for full in described.full:
        if full in scores.benchmark.rows and len(factorial_cells(scores.records, full)) > 2:
            title = f"Factorial effects around “{scores.benchmark.row(full).title}”"
            found.append(_plate(scores, f"factorial_{full}", title, partial(ablation.factorial_figure, full=full)))
    for name, dial in described.dials.items():
        draw = partial(studies.dial_figure, name=name)
        found.append(_plate(scores, f"dial_{name}", dial.title, draw, 0.75))
    found += [
        _plate(scores, "misalignment", "Aligned against misaligned generated data", ablation.alignment_figure),
        _plate(scores, "boundary_rings", "Error by distance to the boundary", boundary.ring_figure),
        _plate(scores, "boundary_agreement", "Agreement of outlines", boundary.agreement_figure, 0.75),
        _plate(scores, "training", "Training", ablation.training_figure),
        _plate(scores, "has", "Hardness-aware sampling", ablation.has_figure),
    ]
    for row in [row for row in described.full if row in scores.benchmark.rows]:
        title = scores.benchmark.row(row).title
        draw = partial(observations.prototype_figure, row=row)
        found.append(_plate(scores, f"prototypes_{row}", f"Prototypes of “{title}”", draw))
        draw = partial(observations.uncertainty_figure, row=row)
        found.append(_plate(scores, f"uncertainty_{row}", f"Uncertainty of “{title}” while it trains", draw, 0.9))
    return [*found, *_pictures(scores)]


def _pictures(scores: Scores) -> list[Plate]:
    count = panels.panel_count(scores)
    return [
        _plate(
            scores, f"panels_{number + 1}", f"Qualitative panels ({number + 1} of {count})",
            partial(panels.panel_figure, number=number), 0.75,
        )
        for number in range(count)
    ]  # fmt: skip


def all_plates(scores: Scores) -> list[Plate]:
    """Every figure of both reports, each once."""
    listed = [*comparison_plates(scores), *ablation_plates(scores)]
    return list({plate.name: plate for plate in listed}.values())


def _plate(scores: Scores, name: str, heading: str, draw: Callable[..., None], ratio: float = 0.62) -> Plate:
    with mpl.rc_context(cast(Any, style_at(SHEET_TYPE))):
        sheet: Canvas = Sheet(DOUBLE * 72, ratio)
        draw(sheet, scores)
        if not sheet.empty:
            tight = sheet.figure.get_tightbbox()
            low = max(0.0, min(tight.y0, (sheet.height - sheet.lowest) / 72) - 0.02)
            high = min(sheet.height / 72, tight.y1 + 0.02)
            box = Bbox.from_extents(min(0.0, tight.x0), low, max(DOUBLE, tight.x1), high)
            sheet.figure._content = box  # type: ignore[attr-defined]
    return Plate(name, heading, sheet.legend_text, lambda: sheet.figure, sheet.empty)
