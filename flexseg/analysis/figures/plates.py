"""Which figures there are, in which order: one list for the reports and for the export."""

from __future__ import annotations

from functools import partial

import pandas as pd

from flexseg.analysis import frames
from flexseg.analysis.figures import plots
from flexseg.analysis.figures.claims import claims_plate
from flexseg.analysis.figures.declared import BANDS, declared_plates
from flexseg.analysis.figures.panels import panel_plates
from flexseg.analysis.figures.plate import Format, Plate, empty_plate, render
from flexseg.analysis.stats.claims import standing
from flexseg.analysis.stats.definitions import ring_names
from flexseg.analysis.stats.domains import class_places
from flexseg.analysis.stats.effects import alignment_pairs, factorial_cells, not_run
from flexseg.analysis.stats.formats import difference_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.common import Notes
from flexseg.benchmark.ablation import Dial

__all__ = ["Format", "Plate", "ablation_plates", "all_plates", "comparison_plates", "render"]

FILLED = (
    "Filled (or bold): the interval excludes zero; hollow: no difference could be shown. An arrow with a number: off "
    "the scale of the others."
)
NO_RUN = "Neither the baseline nor a full row has a finished run."
ENOUGH = 3
"""Values that a series must have before a dial is drawn: two are a comparison, and stand elsewhere."""


def comparison_plates(scores: Scores) -> list[Plate]:
    """What the rows score, against the reference and as such; then by boundary, class and condition; pictures."""
    return [_differences(scores), _miou(scores), _rings(scores), _classes(scores), _conditions(scores),
            *panel_plates(scores)]  # fmt: skip


def ablation_plates(scores: Scores) -> list[Plate]:
    """What each component and control does; then dials, misalignment, boundary, training, and what methods show."""
    described = scores.benchmark.ablation
    found = [_contrasts(scores)]
    for full in described.full:
        if full in scores.benchmark.rows and len(factorial_cells(scores.records, full)) > 2:
            found.append(_factorial(scores, full))
    found += [_dial(scores, name, dial) for name, dial in described.dials.items()]
    found += [_alignment(scores), _rings(scores), _outlines(scores), _training(scores)]
    return [*found, *declared_plates(scores), *panel_plates(scores)]


def all_plates(scores: Scores) -> list[Plate]:
    """Every figure of the reports, each once."""
    claims = [claims_plate(scores, standing(scores.records))] if scores.benchmark.claimed else []
    listed = [*comparison_plates(scores), *ablation_plates(scores), *claims]
    return list({plate.name: plate for plate in listed}.values())


def _titles(scores: Scores, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A frame of rows with marks on their titles, and the words that explain them."""
    notes = Notes(scores)
    frame = frame.assign(title=[notes.title(row) for row in frame["row"]])
    return frame, "".join(f" {mark} {note}." for mark, note in notes.lines())


def _seeds(scores: Scores) -> str:
    counts = {scores.mean(row, scores.main).n for row in scores.benchmark.rows}
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)}–{max(counts)}"


def _reference(scores: Scores) -> str:
    return f"“{scores.benchmark.row(scores.benchmark.reference).title}”"


def _differences(scores: Scores) -> Plate:
    name, heading = "differences", "Paired differences to the reference"
    if len(scores.benchmark.rows) < 2:
        return empty_plate(name, heading, "Only the reference row was selected: there is no difference to show.")
    frame, explained = _titles(scores, frames.frame_differences(scores))
    caption = (
        f"Paired difference in mIoU to {_reference(scores)} (same seeds, same test images; n = {_seeds(scores)} "
        "seeds). Bar: 95 % interval over seeds and test images (none for a single seed), not adjusted; for single "
        f"targets, filled goes by the p-value after Holm over the targets. {FILLED}{explained}"
    )
    return Plate(name, heading, caption, partial(plots.plot_differences, frame))


def _miou(scores: Scores) -> Plate:
    frame, explained = _titles(scores, frames.frame_means(scores))
    caption = (
        f"mIoU in percent on each target and average. Dot: mean over seeds (n = {_seeds(scores)}); bar: 95 % "
        "t-interval over seeds (none for a single seed). Dashed: the reference row. Intervals of two rows may overlap "
        "although their paired difference is shown: rows share seeds and test images, so compare rows by the figure "
        f"of paired differences.{explained}"
    )
    return Plate("miou", "mIoU per target", caption, partial(plots.plot_miou, frame))


def _classes(scores: Scores) -> Plate:
    frame, explained = _titles(scores, frames.frame_classes(scores))
    caption = (
        f"IoU in percent of each class: mean over seeds (n = {_seeds(scores)}), then over the targets whose truth "
        f"holds the class; below, the difference to the reference row, without intervals: {len(class_places(scores))} "
        "classes × rows are for looking, not for claims. A dash: the class is in no truth, or no run was "
        f"finished.{explained}"
    )
    return Plate("classes", "Classes", caption, partial(plots.plot_classes, frame))


def _conditions(scores: Scores) -> Plate:
    frame = frames.frame_conditions(scores)
    if frame.empty:
        return empty_plate("conditions", "Conditions", "No run was finished.")
    frame, explained = _titles(scores, frame)
    caption = (
        "mIoU in percent on the images of one condition, over the classes that occur in them: mean over seeds (n = "
        f"{_seeds(scores)}); below, the difference to the reference row. In brackets: number of images.{explained}"
    )
    return Plate("conditions", "Conditions", caption, partial(plots.plot_conditions, frame))


def _contrasts(scores: Scores) -> Plate:
    name, heading = "contrasts", "Components, controls, misalignment"
    frame = frames.frame_contrasts(scores)
    if frame.empty:
        return empty_plate(name, heading, "The rows that a contrast needs were not selected.")
    caption = (
        "What each component and control does to mIoU. Leave one out: “effect of X” is the full row minus the row "
        "without X, so right of zero X helps. Paired by seed and test image; dot: mean over the common seeds, bar: 95 "
        f"% interval over seeds and test images (none for a single seed). {FILLED}"
    )
    return Plate(name, heading, caption, partial(plots.plot_contrasts, frame))


def _factorial(scores: Scores, full: str) -> Plate:
    title = f"“{scores.benchmark.row(full).title}”"
    name, heading = f"factorial_{full}", f"Factorial effects around {title}"
    frame = frames.frame_factorial(scores, full)
    if frame.empty:
        return empty_plate(name, heading, f"The factorial is not complete. {not_run(scores.benchmark).capitalize()}")
    caption = (
        f"Main effects and interactions of the factorial around {title}: mean with minus mean without; an interaction "
        "is half of what either component gains from the other. Dot: mean over the common seeds, bar: 95 % interval "
        f"over seeds and test images. {FILLED}"
    )
    return Plate(name, heading, caption, partial(plots.plot_factorial, frame))


def _dial(scores: Scores, name: str, dial: Dial) -> Plate:
    missing = [row for row in dial.rows if row not in scores.benchmark.rows or not scores.mean(row, scores.main).n]
    how = f"--config study={name}"
    there = [sum(bool(row) and row not in missing for row in rows) for rows in dial.series.values()]
    if max(there) < ENOUGH:
        return empty_plate(f"dial_{name}", dial.title, f"Fewer than {ENOUGH} of its values were run: {how}")
    labels, known = list(dial.series), scores.benchmark.rows
    other = f"“{labels[0]}” at the same value" if len(labels) > 1 else _reference(scores)
    titles = [f"“{scores.benchmark.row(row).title}”" if row in known else row for row in missing]
    gaps = f" Gaps: {', '.join(titles)} not run or not finished ({how})." if missing else ""
    caption = (
        f"{dial.title}. Above: mIoU on each average; mark: mean over seeds, bar: 95 % t-interval over seeds (none for "
        f"a single seed). Below: paired difference to {other} (same seeds, same test images), 95 % interval over seeds "
        f"and test images, not adjusted; filled: it excludes zero.{gaps}"
    )
    draw = partial(plots.plot_dial, frames.frame_dial(scores, name), axis=dial.axis or dial.title, order=dial.x)
    return Plate(f"dial_{name}", dial.title, caption, draw)


def _alignment(scores: Scores) -> Plate:
    name, heading = "misalignment", "Aligned against misaligned generated data"
    benchmark, pairs = scores.benchmark, alignment_pairs(scores.records)
    if not pairs:
        return empty_plate(name, heading, "No row with its twin on aligned generated data was selected.")
    frame = frames.frame_alignment(scores)
    if frame.empty:
        return empty_plate(name, heading, "Nobody knows how strongly these generated images are misaligned.")
    none, words = benchmark.ablation.none, ""
    for row in pairs if none in pairs else ():
        if row != none:
            contrast = {row: 1.0, pairs[row]: -1.0, none: -1.0, pairs[none]: 1.0}
            words += (
                f" Change from aligned to misaligned on {scores.main}, {benchmark.row(row).title} minus baseline "
                f"(positive: it loses less): {difference_text(scores.contrasts(contrast)[scores.main])}."
            )
    caption = (
        "mIoU after training on generated images whose geometry is displaced against the labels (the benchmark's "
        f"default is {frame['x'].max():g}) and on the same scenes without displacement (0). Mark: mean over seeds; "
        "bar: 95 % t-interval over seeds. Below: paired difference to the first row on the same data, 95 % interval "
        f"over seeds and test images.{words}"
    )
    return Plate(name, heading, caption, partial(plots.plot_alignment, frame))


def _paired(scores: Scores) -> str:
    return (
        f"paired to {_reference(scores)} (same seeds and images), 95 % interval over seeds and test images, not "
        "adjusted; filled: it excludes zero after Holm over the targets"
    )


def _rings(scores: Scores) -> Plate:
    name, heading, protocol = "boundary_rings", "Error by distance to the boundary", scores.benchmark.protocol
    if not frames.shown_rows(scores):
        return empty_plate(name, heading, NO_RUN)
    inner, where = 0, []
    for ring, outer in zip(ring_names(protocol), [*protocol.distance_rings, None], strict=True):
        span = f"beyond {inner} px" if outer is None else f"{inner + 1}–{outer} px"
        span = f"{outer} px" if outer == inner + 1 else span
        where.append(f"{ring.removesuffix('-boundary').removeprefix('deep-')} {span}")
        inner = outer or inner
    caption = (
        "Share of wrong pixels among those at a distance to the nearest pixel of another class in the truth "
        f"(chessboard distance: {', '.join(where)}). Mark: mean over seeds; bar: 95 % t-interval over seeds (none for "
        f"a single seed). Below: {_paired(scores)}; below zero is better. Definitions: docs/metrics.md."
    )
    return Plate(name, heading, caption, lambda: plots.plot_rings(scores))


def _outlines(scores: Scores) -> Plate:
    name, heading = "boundary_agreement", "Agreement of outlines"
    if not frames.shown_rows(scores):
        return empty_plate(name, heading, NO_RUN)
    caption = (
        "Agreement of outlines by band width d. Boundary IoU: IoU of what lies at most d px inside a class's outline, "
        "in truth and in prediction (Cheng et al., 2021). Boundary F1: harmonic mean of the shares of predicted and "
        "of true contour pixels that have one of the other at most d px away (Csurka et al., 2013). Both are means "
        "over the classes with a boundary in the truth, and rise with d by definition. Mark: mean over seeds; bar: 95 "
        f"% t-interval over seeds. Differences: {_paired(scores)}; above zero is better. Definitions: docs/metrics.md."
    )
    return Plate(name, heading, caption, lambda: plots.plot_outlines(scores))


def _training(scores: Scores) -> Plate:
    frame = frames.frame_training(scores, frames.main_rows(scores))
    if not plots.loss_labels(frame):
        return empty_plate("training", "Training", "No finished run of the baseline or of a full row logged a loss.")
    caption = (
        f"Loss terms as logged during training. {BANDS} Losses of rows with other terms are not comparable in height."
    )
    return Plate("training", "Training", caption, partial(plots.plot_training, frame))
