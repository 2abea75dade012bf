"""The figures that methods declare of themselves (:mod:`flexseg.shows`), as their runs recorded it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from flexseg.analysis import frames
from flexseg.analysis.figures import observations, plots
from flexseg.analysis.figures.panels import colours_text
from flexseg.analysis.figures.plate import Plate, empty_plate
from flexseg.analysis.stats.formats import number
from flexseg.analysis.stats.scores import Scores
from flexseg.shows import Curves, Maps, Vectors

BANDS = "Line: mean over the finished seeds; band: their range."
PER_PAGE = 2
"""Sample images in one figure of maps."""


def declared_plates(scores: Scores) -> list[Plate]:
    """What the methods declare, in the order of the rows; of curves one figure for all rows that logged them.

    Of the baseline and the full rows all that they declare; of the others the curves that none of these has.
    """
    plates: dict[str, Plate] = {}
    first = frames.main_rows(scores)
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
    rows = rows or [row for row in scores.benchmark.rows if show in scores.records.shows(row)]
    frame = frames.frame_training(scores, rows)
    frame = frame[frame["quantity"].isin(list(show.panels))]
    if frame.empty:
        return empty_plate(show.name, show.heading, "No finished run of the rows that could show it logged it.")
    draw = partial(plots.plot_training, frame, show.panels)
    return Plate(show.name, show.heading, f"{show.caption} {BANDS}".strip(), draw)


def _vectors(scores: Scores, show: Vectors, row: str) -> Plate:
    title = f"“{scores.benchmark.row(row).title}”"
    name, heading = f"{show.name}_{row}", f"{show.heading} of {title}"
    seed, found = observations.first_observed(scores, row)
    moments = [iteration for iteration, arrays in found.items() if {show.vectors, show.counts} <= set(arrays)]
    if not moments:
        return empty_plate(name, heading, f"{title}: no finished run left {show.vectors} to look at.")
    last = found[moments[-1]]
    shape = observations.geometry(last[show.vectors], last[show.counts])
    if shape is None:
        return empty_plate(name, heading, f"{title}: fewer than three {show.vectors} were ever updated.")
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
    return Plate(
        name, heading, caption.strip(), partial(observations.draw_vectors, show, last, scores.benchmark.class_set)
    )


def _maps(scores: Scores, show: Maps, row: str) -> list[Plate]:
    title = f"“{scores.benchmark.row(row).title}”"
    heading = f"{show.heading} of {title} while it trains"
    seed, found = observations.first_observed(scores, row)
    moments, names = observations.observed_maps(show, found)
    if not names:
        wanted = " and ".join(show.units)
        return [empty_plate(f"{show.name}_{row}_1", heading, f"{title}: no finished run left {wanted} to look at.")]
    count = min(len(arrays["image"]) for arrays in moments.values())
    pages = math.ceil(count / PER_PAGE)
    classes = scores.benchmark.class_set
    nats = any("nats" in show.units[name] for name in names)
    caption = (
        f"{title} on training images (the first of the source, the first two generated ones) while it trains, seed "
        f"{seed}, with the weights and statistics of that moment. {show.caption}"
        + (f" In nats, ln {len(classes)} = {np.log(len(classes)):.2f} is the most that there is." if nats else "")
        + " A colour scale is the same for all moments and images. Colours of the classes are "
        f"{colours_text(classes)}; black is void."
    )
    return [
        Plate(
            f"{show.name}_{row}_{page + 1}", heading + (f" ({page + 1} of {pages})" if pages > 1 else ""), caption,
            partial(observations.draw_maps, show, moments, names,
                    range(page * PER_PAGE, min(count, (page + 1) * PER_PAGE)), scores.benchmark.class_set),
        )
        for page in range(pages)
    ]  # fmt: skip
