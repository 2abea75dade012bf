"""Which figures there are, in which order: one list for the reports and for the export."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flexseg.analysis import frames
from flexseg.analysis.figures import observations, panels, plots
from flexseg.analysis.figures.style import DOUBLE, fix_layout, styled
from flexseg.analysis.stats.definitions import ring_names
from flexseg.analysis.stats.effects import alignment_pairs, factorial_cells, not_run
from flexseg.analysis.stats.formats import difference_text, number
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.common import Notes
from flexseg.analysis.tables.domains import class_places
from flexseg.benchmark.ablation import Dial
from flexseg.classes import NUM_CLASSES
from flexseg.shows import Curves, Maps, Show, Vectors

Format = Literal["pdf", "svg", "png"]
DPI = 300
METADATA: dict[Format, dict[str, Any]] = {
    "pdf": {"Creator": "flexseg", "Producer": "matplotlib", "CreationDate": None},
    "svg": {"Creator": "flexseg", "Date": None},
    "png": {"Software": "flexseg"},
}
"""What each format would otherwise fill with dates and versions."""
FILLED = (
    "Filled (or bold): the interval excludes zero; hollow: no difference could be shown. An arrow with a number: off "
    "the scale of the others."
)
ENOUGH = 3
"""Values that a series must have before a dial is drawn: two are a comparison, and stand elsewhere."""
PER_PAGE = 2
"""Sample images in one figure of maps."""


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
    with styled():
        figure = plate.draw()
        fix_layout(figure)
        figure.savefig(target, format=format, dpi=DPI, metadata=METADATA[format])
    return target.getvalue()


def comparison_plates(scores: Scores) -> list[Plate]:
    """What the rows score, against the reference and as such; then by boundary, class and condition; pictures."""
    return [_differences(scores), _miou(scores), _rings(scores), _classes(scores), _conditions(scores),
            *_pictures(scores)]  # fmt: skip


def ablation_plates(scores: Scores) -> list[Plate]:
    """What each component and control does; then dials, misalignment, boundary, training, and what methods show."""
    described = scores.benchmark.ablation
    found = [_contrasts(scores)]
    for full in described.full:
        if full in scores.benchmark.rows and len(factorial_cells(scores.records, full)) > 2:
            found.append(_factorial(scores, full))
    found += [_dial(scores, name, dial) for name, dial in described.dials.items()]
    found += [_alignment(scores), _rings(scores), _outlines(scores), _training(scores)]
    return [*found, *_shown(scores), *_pictures(scores)]


def all_plates(scores: Scores) -> list[Plate]:
    """Every figure of both reports, each once."""
    listed = [*comparison_plates(scores), *ablation_plates(scores)]
    return list({plate.name: plate for plate in listed}.values())


def _empty(name: str, heading: str, reason: str) -> Plate:
    def nothing() -> Figure:
        raise ValueError(f"there is no figure {name}: {reason}")

    return Plate(name, heading, "", nothing, reason)


def _marked(frame: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """The frame with the marks of notes on the titles of its rows."""
    return frame.assign(title=[notes.title(row) for row in frame["row"]])


def _explained(notes: Notes) -> str:
    """The notes whose marks stand on the labels, for the end of a caption."""
    return "".join(f" {mark} {note}." for mark, note in notes.lines())


def _titles(scores: Scores, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A frame of rows with marks on their titles, and the words that explain them."""
    notes = Notes(scores)
    frame = _marked(frame, notes)
    return frame, _explained(notes)


def _seeds(scores: Scores) -> str:
    counts = {scores.mean(row, scores.main).n for row in scores.benchmark.rows}
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)}–{max(counts)}"


def _reference(scores: Scores) -> str:
    return f"“{scores.benchmark.row(scores.benchmark.reference).title}”"


def _differences(scores: Scores) -> Plate:
    name, heading = "differences", "Paired differences to the reference"
    if len(scores.benchmark.rows) < 2:
        return _empty(name, heading, "Only the reference row was selected: there is no difference to show.")
    frame, explained = _titles(scores, frames.frame_differences(scores))
    caption = (
        f"Paired difference in mIoU to {_reference(scores)} (same seeds, same test images; n = {_seeds(scores)} seeds). "
        "Bar: 95 % interval over seeds and test images (none for a single seed), not adjusted; for single targets, "
        f"filled goes by the p-value after Holm over the targets. {FILLED}{explained}"
    )
    return Plate(name, heading, caption, partial(plots.plot_differences, frame))


def _miou(scores: Scores) -> Plate:
    frame, explained = _titles(scores, frames.frame_means(scores))
    caption = (
        f"mIoU in percent on each target and average. Dot: mean over seeds (n = {_seeds(scores)}); bar: 95 % t-interval "
        "over seeds (none for a single seed). Dashed: the reference row. Intervals of two rows may overlap although "
        "their paired difference is shown: rows share seeds and test images, so compare rows by the figure of paired "
        f"differences.{explained}"
    )
    return Plate("miou", "mIoU per target", caption, partial(plots.plot_miou, frame))


def _classes(scores: Scores) -> Plate:
    frame, explained = _titles(scores, frames.frame_classes(scores))
    caption = (
        f"IoU in percent of each class: mean over seeds (n = {_seeds(scores)}), then over the targets whose truth holds "
        "the class; below, the difference to the reference row, without intervals: "
        f"{len(class_places(scores))} classes × rows are for looking, not for claims. A dash: the class is in no truth, "
        f"or no run was finished.{explained}"
    )
    return Plate("classes", "Classes", caption, partial(plots.plot_classes, frame))


def _conditions(scores: Scores) -> Plate:
    frame = frames.frame_conditions(scores)
    if frame.empty:
        return _empty("conditions", "Conditions", "No run was finished.")
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
        return _empty(name, heading, "The rows that a contrast needs were not selected.")
    caption = (
        "What each component and control does to mIoU. Leave one out: “effect of X” is the full row minus the row "
        "without X, so right of zero X helps. Paired by seed and test image; dot: mean over the common seeds, bar: "
        f"95 % interval over seeds and test images (none for a single seed). {FILLED}"
    )
    return Plate(name, heading, caption, partial(plots.plot_contrasts, frame))


def _factorial(scores: Scores, full: str) -> Plate:
    title = f"“{scores.benchmark.row(full).title}”"
    name, heading = f"factorial_{full}", f"Factorial effects around {title}"
    frame = frames.frame_factorial(scores, full)
    if frame.empty:
        return _empty(name, heading, f"The factorial is not complete. {not_run(scores.benchmark).capitalize()}")
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
        return _empty(f"dial_{name}", dial.title, f"Fewer than {ENOUGH} of its values were run: {how}")
    labels, known = list(dial.series), scores.benchmark.rows
    other = f"“{labels[0]}” at the same value" if len(labels) > 1 else _reference(scores)
    titles = [f"“{scores.benchmark.row(row).title}”" if row in known else row for row in missing]
    gaps = f" Gaps: {', '.join(titles)} not run or not finished ({how})." if missing else ""
    caption = (
        f"{dial.title}. Above: mIoU on each average; mark: mean over seeds, bar: 95 % t-interval over seeds (none for a "
        f"single seed). Below: paired difference to {other} (same seeds, same test images), 95 % interval over seeds and "
        f"test images, not adjusted; filled: it excludes zero.{gaps}"
    )
    draw = partial(plots.plot_dial, frames.frame_dial(scores, name), axis=dial.axis or dial.title, order=dial.x)
    return Plate(f"dial_{name}", dial.title, caption, draw)


def _alignment(scores: Scores) -> Plate:
    name, heading = "misalignment", "Aligned against misaligned generated data"
    benchmark, pairs = scores.benchmark, alignment_pairs(scores.records)
    if not pairs:
        return _empty(name, heading, "No row with its twin on aligned generated data was selected.")
    frame = frames.frame_alignment(scores)
    if frame.empty:
        return _empty(name, heading, "Nobody knows how strongly these generated images are misaligned.")
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
        f"default is {frame['x'].max():g}) and on the same scenes without displacement (0). Mark: mean over seeds; bar: "
        "95 % t-interval over seeds. Below: paired difference to the first row on the same data, 95 % interval over "
        f"seeds and test images.{words}"
    )
    return Plate(name, heading, caption, partial(plots.plot_alignment, frame))


NO_RUN = "Neither the baseline nor a full row has a finished run."


def _paired(scores: Scores) -> str:
    return (
        f"paired to {_reference(scores)} (same seeds and images), 95 % interval over seeds and test images, not "
        "adjusted; filled: it excludes zero after Holm over the targets"
    )


def _rings(scores: Scores) -> Plate:
    name, heading, protocol = "boundary_rings", "Error by distance to the boundary", scores.benchmark.protocol
    if not frames.shown_rows(scores):
        return _empty(name, heading, NO_RUN)
    inner, where = 0, []
    for ring, outer in zip(ring_names(protocol), [*protocol.rings, None], strict=True):
        span = f"beyond {inner} px" if outer is None else f"{inner + 1}–{outer} px"
        span = f"{outer} px" if outer == inner + 1 else span
        where.append(f"{ring.removesuffix('-boundary').removeprefix('deep-')} {span}")
        inner = outer or inner
    caption = (
        "Share of wrong pixels among those at a distance to the nearest pixel of another class in the truth (chessboard "
        f"distance: {', '.join(where)}). Mark: mean over seeds; bar: 95 % t-interval over seeds (none for a single "
        f"seed). Below: {_paired(scores)}; below zero is better. Definitions: docs/metrics.md."
    )
    return Plate(name, heading, caption, lambda: plots.plot_rings(scores))


def _outlines(scores: Scores) -> Plate:
    name, heading = "boundary_agreement", "Agreement of outlines"
    if not frames.shown_rows(scores):
        return _empty(name, heading, NO_RUN)
    caption = (
        "Agreement of outlines by band width d. Boundary IoU: IoU of what lies at most d px inside a class's outline, in "
        "truth and in prediction (Cheng et al., 2021). Boundary F1: harmonic mean of the shares of predicted and of true "
        "contour pixels that have one of the other at most d px away (Csurka et al., 2013). Both are means over the "
        "classes with a boundary in the truth, and rise with d by definition. Mark: mean over seeds; bar: 95 % "
        f"t-interval over seeds. Differences: {_paired(scores)}; above zero is better. Definitions: docs/metrics.md."
    )
    return Plate(name, heading, caption, lambda: plots.plot_outlines(scores))


def _training(scores: Scores) -> Plate:
    frame = frames.frame_training(scores, _logged_rows(scores))
    if not plots.loss_labels(frame):
        return _empty("training", "Training", "No finished run of the baseline or of a full row logged a loss.")
    caption = (
        f"Loss terms as logged during training. {BANDS} Losses of rows with other terms are not comparable in height."
    )
    return Plate("training", "Training", caption, partial(plots.plot_training, frame))


BANDS = "Line: mean over the finished seeds; band: their range."


def _logged_rows(scores: Scores) -> list[str]:
    """The baseline and the full rows, evaluated or not."""
    ablation = scores.benchmark.ablation
    return [row for row in dict.fromkeys((ablation.none, *ablation.full)) if row in scores.benchmark.rows]


def _shown(scores: Scores) -> list[Plate]:
    """What the methods declare, in the order of the rows; of curves one figure for all rows that logged them.

    Of the baseline and the full rows all that they declare; of the others the curves that none of these has.
    """
    plates: dict[str, Plate] = {}
    first = _logged_rows(scores)
    for row in [*first, *(row for row in scores.benchmark.rows if row not in first)]:
        for show in scores.records.shows(row):
            if isinstance(show, Curves):
                if show.name not in plates:
                    plates[show.name] = _curves(scores, show, first if row in first else [])
            elif row in first:
                for plate in _maps(scores, show, row) if isinstance(show, Maps) else [_vectors(scores, show, row)]:
                    plates[plate.name] = plate
    return list(plates.values())


def _curves(scores: Scores, show: Curves, rows: Sequence[str]) -> Plate:
    rows = rows or [row for row in scores.benchmark.rows if _declares(scores, row, show)]
    frame = frames.frame_training(scores, rows)
    frame = frame[frame["quantity"].isin(list(show.panels))]
    if frame.empty:
        return _empty(show.name, show.heading, "No finished run of the rows that could show it logged it.")
    draw = partial(plots.plot_training, frame, show.panels)
    return Plate(show.name, show.heading, f"{show.caption} {BANDS}".strip(), draw)


def _declares(scores: Scores, row: str, show: Show) -> bool:
    return show in scores.records.shows(row)


def _vectors(scores: Scores, show: Vectors, row: str) -> Plate:
    title = f"“{scores.benchmark.row(row).title}”"
    name, heading = f"{show.name}_{row}", f"{show.heading} of {title}"
    seed, found = observations.first_observed(scores, row)
    moments = [iteration for iteration, arrays in found.items() if {show.vectors, show.counts} <= set(arrays)]
    if not moments:
        return _empty(name, heading, f"{title}: no finished run left {show.vectors} to look at.")
    last = found[moments[-1]]
    shape = observations.geometry(last[show.vectors], last[show.counts])
    if shape is None:
        return _empty(name, heading, f"{title}: fewer than three {show.vectors} were ever updated.")
    counts = np.asarray(last[show.counts])
    never = int((counts == 0).sum())
    groups = f", within a class from {show.groups[0]} to {show.groups[-1]}" if len(show.groups) == len(counts) else ""
    caption = (
        f"{show.caption} At iteration {moments[-1]}, seed {seed}: {len(shape.classes)} of {counts.size} were ever "
        f"updated. Left: cosine similarity, ordered by class{groups}; rules part the classes. Mean similarity "
        f"{number(shape.within, 2)} within one class, {number(shape.between, 2)} between classes. Right: the first two "
        f"principal components, with {number(100 * shape.explained[0], 0)} % and "
        f"{number(100 * shape.explained[1], 0)} % of the variance; the first of each class bears its name."
        + (f" Never seen, and left out: {never}." if never else "")
    )
    return Plate(name, heading, caption.strip(), partial(observations.draw_vectors, show, last))


def _maps(scores: Scores, show: Maps, row: str) -> list[Plate]:
    title = f"“{scores.benchmark.row(row).title}”"
    heading = f"{show.heading} of {title} while it trains"
    seed, found = observations.first_observed(scores, row)
    moments, names = observations.observed_maps(show, found)
    if not names:
        wanted = " and ".join(show.units)
        return [_empty(f"{show.name}_{row}_1", heading, f"{title}: no finished run left {wanted} to look at.")]
    count = min(len(arrays["image"]) for arrays in moments.values())
    pages = math.ceil(count / PER_PAGE)
    nats = any("nats" in show.units[name] for name in names)
    caption = (
        f"{title} on training images (the first of the source, the first two generated ones) while it trains, seed "
        f"{seed}, with the weights and statistics of that moment. {show.caption}"
        + (f" In nats, ln {NUM_CLASSES} = {np.log(NUM_CLASSES):.2f} is the most that there is." if nats else "")
        + " A colour scale is the same for all moments and images. Colours of the classes are those of Cityscapes; "
        "black is void."
    )
    return [
        Plate(
            f"{show.name}_{row}_{page + 1}", heading + (f" ({page + 1} of {pages})" if pages > 1 else ""), caption,
            partial(observations.draw_maps, show, moments, names,
                    range(page * PER_PAGE, min(count, (page + 1) * PER_PAGE))),
        )
        for page in range(pages)
    ]  # fmt: skip


def _pictures(scores: Scores) -> list[Plate]:
    benchmark, rows = scores.benchmark, panels.panel_rows(scores)
    seed, count = panels.panel_seed(scores, rows), max(scores.benchmark.predictions, 1)
    titles = [benchmark.row(row).title if row in benchmark.rows else row for row in rows]
    plates = []
    for index in range(count):
        name, heading = f"panels_{index + 1}", f"Qualitative panels ({index + 1} of {count})"
        if seed is None or not benchmark.predictions:
            why = "No seed has finished runs of both" if benchmark.predictions else "The benchmark keeps no predictions of"
            plates.append(_empty(name, heading, f"{why} {titles[0]} and {titles[1]}."))
            continue
        caption = (
            f"Test images that were fixed before training, the same for every run (image {index + 1} of each target); "
            f"seed {seed}. Chosen by index, not by result. Colours are those of the Cityscapes palette; black is void in "
            "the truth."
        )
        plates.append(Plate(name, heading, caption, partial(panels.draw_panels, scores, index)))
    return plates
