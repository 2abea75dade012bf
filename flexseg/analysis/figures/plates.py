"""Which figures there are, in which order: one list for both reports and for the export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from flexseg.analysis.figures import ablation, boundary, comparison, observations, panels, studies
from flexseg.analysis.figures.canvas import Canvas, Plate
from flexseg.analysis.stats.effects import factorial_cells
from flexseg.analysis.stats.scores import Scores

Kind = Literal["comparison", "ablation"]


def comparison_answers(scores: Scores) -> list[Plate]:
    """What the rows score, against the reference and as such."""
    return [
        _plate(scores, "differences", "Paired differences to the reference", comparison.difference_figure),
        _plate(scores, "miou", "mIoU per target", comparison.miou_figure),
    ]


def comparison_details(scores: Scores) -> list[Plate]:
    """By distance to the boundary, class and condition."""
    return [
        _boundary(scores)[0],
        _plate(scores, "classes", "Classes", comparison.class_figure, 0.8),
        _plate(scores, "conditions", "Conditions", comparison.condition_figure, 0.85),
    ]


def ablation_answers(scores: Scores) -> list[Plate]:
    """What each component and control does."""
    found = [_plate(scores, "contrasts", "Components, controls, misalignment", ablation.contrast_figure)]
    for full in scores.benchmark.ablation.full:
        if full in scores.benchmark.rows and len(factorial_cells(scores.records, full)) > 2:
            title = f"Factorial effects around “{scores.benchmark.row(full).title}”"
            found.append(_plate(scores, f"factorial_{full}", title, partial(ablation.factorial_figure, full=full)))
    return found


def ablation_details(scores: Scores) -> list[Plate]:
    """Dials, misalignment, boundary, training, and what the components look like inside."""
    described, found = scores.benchmark.ablation, []
    for name, dial in described.dials.items():
        draw = partial(studies.dial_figure, name=name)
        found.append(_plate(scores, f"dial_{name}", dial.title, draw, 0.75))
    found.append(_plate(scores, "misalignment", "Aligned against misaligned generated data", ablation.alignment_figure))
    found += _boundary(scores)
    found += [
        _plate(scores, "training", "Training", ablation.training_figure),
        _plate(scores, "has", "Hardness-aware sampling", ablation.has_figure),
    ]
    for row in [row for row in described.full if row in scores.benchmark.rows]:
        title = scores.benchmark.row(row).title
        draw = partial(observations.prototype_figure, row=row)
        found.append(_plate(scores, f"prototypes_{row}", f"Prototypes of “{title}”", draw))
        count = observations.sample_count(scores, row)
        starts = range(0, max(count, 1), observations.PER_PAGE)
        for place, start in enumerate(starts, 1):
            heading = f"Uncertainty of “{title}” while it trains" + (f" ({place} of {len(starts)})" if count else "")
            draw = partial(observations.uncertainty_figure, row=row, start=start)
            found.append(_plate(scores, f"uncertainty_{row}_{place}", heading, draw, 0.9))
    return found


def pictures(scores: Scores) -> list[Plate]:
    """The qualitative panels."""
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
    listed = [
        *comparison_answers(scores), *comparison_details(scores), *ablation_answers(scores),
        *ablation_details(scores), *pictures(scores),
    ]  # fmt: skip
    return list({plate.name: plate for plate in listed}.values())


def _boundary(scores: Scores) -> list[Plate]:
    return [
        _plate(scores, "boundary_rings", "Error by distance to the boundary", boundary.ring_figure),
        _plate(scores, "boundary_agreement", "Agreement of outlines", boundary.agreement_figure, 0.75),
    ]


def _plate(
    scores: Scores, name: str, heading: str, draw: Callable[..., None], ratio: float = 0.62
) -> Plate:  # fmt: skip
    def onto(page: Canvas) -> None:
        draw(page, scores)

    return Plate(name, heading, onto, ratio=ratio)
