"""Figures of what a method wanted to be looked at while it trained: the prototypes of GAP and the weights of UBE.

They are read from ``observations/<iteration>.safetensors`` of a run. Runs without such files, or without some of the
arrays, have no figure; the reports say so in one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from flexseg.analysis.figures.canvas import Canvas
from flexseg.analysis.figures.panels import palette
from flexseg.analysis.figures.style import GREY, INK, MARKERS
from flexseg.analysis.stats.formats import number
from flexseg.analysis.stats.scores import Scores
from flexseg.classes import CLASS_NAMES, CLASSES, NUM_CLASSES

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
PER_PAGE = 2
"""Sample images on one page."""
MARGIN, BARS, GAP = 48.0, 56.0, 4.0


def read_observations(folder: Path) -> dict[int, Arrays]:
    """The observations of the run in ``folder`` by iteration, in order; files that cannot be read are left out."""
    found = {}
    for path in sorted((folder / "observations").glob("*.safetensors")):
        try:
            found[int(path.stem)] = load_file(path)
        except (OSError, ValueError, SafetensorError):
            continue
    return found


def first_observed(scores: Scores, row: str) -> tuple[int, dict[int, Arrays]]:
    """The first seed of ``row`` whose finished run left observations, and these; (−1, {}) if there is none."""
    for run in scores.records.of_row(row):
        if run.status == "finished":
            found = read_observations(run.folder)
            if found:
                return run.seed, found
    return -1, {}


@dataclass(frozen=True)
class Geometry:
    """The prototypes that were seen, ordered by class, then granularity.

    Attributes:
        classes: (P,) the class of each.
        granularities: (P,) the place of its granularity, 0 the thinnest.
        similarity: (P, P) cosine similarity.
        plane: (P, 2) the first two principal components of the centred unit vectors.
        explained: their shares of the variance.
        within: mean similarity of two granularities of one class; NaN if no class has two.
        between: mean similarity of two prototypes of different classes; NaN if only one class was seen.
    """

    classes: NDArray[np.int64]
    granularities: NDArray[np.int64]
    similarity: Floats
    plane: Floats
    explained: tuple[float, float]
    within: float
    between: float


def geometry(prototypes: NDArray[Any], updates: NDArray[Any]) -> Geometry | None:
    """Similarities and projection of (G, C, D) unit vectors; those with 0 ``updates`` (G, C) were never seen.

    The projection is the PCA of the centred vectors by SVD; each component's sign is set so that its largest entry is
    positive, which makes it the same on every machine. None if fewer than three prototypes were seen.
    """
    seen = np.asarray(updates).T > 0
    classes, granularities = np.nonzero(seen)
    if len(classes) < 3:
        return None
    vectors = np.asarray(prototypes, dtype=np.float64).transpose(1, 0, 2)[seen]
    similarity = vectors @ vectors.T
    left, singular, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    plane = left[:, :2] * singular[:2]
    plane *= np.sign(plane[np.abs(plane).argmax(0), [0, 1]])
    shares = singular**2 / max(float((singular**2).sum()), 1e-12)
    same = classes[:, None] == classes
    other = ~np.eye(len(classes), dtype=bool)
    inside, outside = similarity[same & other], similarity[~same]
    return Geometry(
        classes, granularities, similarity, plane, (float(shares[0]), float(shares[1])),
        float(inside.mean()) if inside.size else float("nan"), float(outside.mean()) if outside.size else float("nan"),
    )  # fmt: skip


def granularity_names(count: int) -> list[str]:
    """``thin``, ``medium``, ``thick`` for three; else numbers from the thinnest."""
    return ["thin", "medium", "thick"] if count == 3 else [f"granularity {index + 1}" for index in range(count)]


def prototype_figure(page: Canvas, scores: Scores, row: str) -> None:
    """Cosine similarities of the prototypes at the end of training, and the plane of most variance through them."""
    seed, found = first_observed(scores, row)
    moments = [iteration for iteration, arrays in found.items() if {"prototypes", "updates"} <= set(arrays)]
    title = scores.benchmark.row(row).title
    if not moments:
        page.nothing(f"“{title}”: no finished run left prototypes to look at.")
        return
    last = found[moments[-1]]
    shape = geometry(last["prototypes"], last["updates"])
    if shape is None:
        page.nothing(f"“{title}”: fewer than three prototypes were ever updated.")
        return
    count, never = len(last["updates"]), int((last["updates"] == 0).sum())
    first, second = shape.explained
    label = page.size(52)
    side = (page.right - page.left) * 0.5 - label - page.size(44)
    page.caption(
        f"Prototypes of “{title}” at iteration {moments[-1]}, seed {seed}: {len(shape.classes)} of "
        f"{last['updates'].size} were ever updated. Left: cosine similarity, ordered by class, within a class from "
        f"thin to thick; rules part the classes. Mean similarity {number(shape.within, 2)} between granularities of "
        f"one class, {number(shape.between, 2)} between classes. Right: the first two principal components of the "
        f"vectors, with {number(100 * first, 0)} % and {number(100 * second, 0)} % of the variance; the thinnest "
        "granularity bears the class's name."
        + (f" Never seen, and left out: {never}." if never else ""),
        most=side + label + page.size(16),
        exact=True,
    )  # fmt: skip
    top = page.y + page.size(4)
    middle = page.left + label + side

    def axes(left: float, right: float, bottom: float) -> Axes:
        box = (left, page.height - bottom, right - left, bottom - top)
        width, height = page.width, page.height
        return page.figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))

    drawn = _matrix(page, axes(page.left + label, middle, top + side), shape)
    bar = page.figure.colorbar(drawn, cax=axes(middle + page.size(5), middle + page.size(12), top + side))
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    bar.set_label("cosine similarity")
    plane = axes(middle + page.size(104), page.right, top + side)
    _plane(page, plane, shape, granularity_names(count))


def _matrix(page: Canvas, axis: Axes, shape: Geometry) -> AxesImage:
    edges = np.flatnonzero(np.diff(shape.classes)) + 1
    drawn = axis.imshow(shape.similarity, cmap="PuOr", vmin=-1.0, vmax=1.0, interpolation="none")
    for edge in edges:
        axis.axhline(edge - 0.5, color=INK, linewidth=0.3)
        axis.axvline(edge - 0.5, color=INK, linewidth=0.3)
    starts = np.concatenate([[0], edges, [len(shape.classes)]])
    centres = (starts[:-1] + starts[1:] - 1) / 2
    labels = [CLASS_NAMES[shape.classes[start]] for start in starts[:-1]]
    axis.set_yticks(centres, labels, fontsize=page.size(7.5))
    axis.set_xticks(centres, labels, fontsize=page.size(7.5), rotation=90)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return drawn


def _plane(page: Canvas, axis: Axes, shape: Geometry, names: list[str]) -> None:
    for place, (x, y) in enumerate(shape.plane):
        shade = tuple(part / 255 for part in CLASSES[shape.classes[place]].colour)
        granularity = shape.granularities[place]
        axis.plot([x], [y], marker=MARKERS[granularity % len(MARKERS)], markersize=page.size(5), color=shade,
                  markeredgecolor=INK, markeredgewidth=0.4, linestyle="none")  # fmt: skip
    for each in np.unique(shape.classes):
        own = shape.plane[shape.classes == each]
        axis.plot(*own.T, color=GREY, linewidth=0.4, zorder=0)
        axis.annotate(
            CLASS_NAMES[each], own[0], xytext=(3, 2), textcoords="offset points", fontsize=page.size(7), zorder=4
        )
    axis.set_xlabel(f"component 1 ({100 * shape.explained[0]:.0f} %)")
    axis.set_ylabel(f"component 2 ({100 * shape.explained[1]:.0f} %)")
    axis.margins(0.12)
    handles = [
        Line2D([], [], marker=MARKERS[index % len(MARKERS)], linestyle="none", color=GREY, label=name)
        for index, name in enumerate(names)
    ]
    axis.legend(handles=handles, loc="best", handletextpad=0.2)


def sample_count(scores: Scores, row: str) -> int:
    """How many sample images the observations of ``row`` show."""
    _, found = first_observed(scores, row)
    return max((len(arrays["image"]) for arrays in found.values() if "image" in arrays), default=0)


def uncertainty_figure(page: Canvas, scores: Scores, row: str, start: int = 0) -> None:
    """Sample images over the moments of training: prediction, entropy and boundary weight; image and truth beside."""
    seed, found = first_observed(scores, row)
    moments = {
        iteration: arrays
        for iteration, arrays in found.items()
        if {"image", "label", "prediction", "entropy"} <= set(arrays) and len(arrays["image"]) > start
    }
    title = scores.benchmark.row(row).title
    if not moments:
        page.nothing(f"“{title}”: no finished run left predictions and entropies to look at.")
        return
    lines = ["prediction", "entropy", *(["weight"] if all("weight" in each for each in moments.values()) else [])]
    images = range(start, min(start + PER_PAGE, min(len(arrays["image"]) for arrays in moments.values())))
    height, width = next(iter(moments.values()))["label"].shape[1:]
    tall = _moment_width(page, len(moments)) * height / width + GAP
    page.caption(
        f"“{title}” on training images (the first of the source, the first two generated ones) while it trains, seed "
        f"{seed}, with the weights and statistics of that moment. Rows: prediction; entropy "
        f"of the softmax in nats (ln {NUM_CLASSES} = {np.log(NUM_CLASSES):.2f} is the most that there is)"
        + ("; the weight of a pixel in the loss (UBE)" if "weight" in lines else "")
        + ". A colour scale is the same for all moments and images. Colours of the classes are those of Cityscapes; "
        "black is void.",
        most=len(images) * (len(lines) * tall + page.size(8)) + page.size(24),
        exact=True,
    )
    _draw_moments(page, moments, images, lines)


def _moment_width(page: Canvas, moments: int) -> float:
    """The width of a picture, in points: image or truth, and a column a moment, beside labels and colour bars."""
    free = page.right - page.left - page.size(2 * MARGIN + BARS) - GAP * (1 + moments)
    return free / (1 + moments)


def _draw_moments(page: Canvas, moments: dict[int, Arrays], images: range, lines: list[str]) -> None:
    """A block of lines for each image, a column for each moment; all pictures share one axes, to be written at once."""
    gap, margin, count = GAP, page.size(MARGIN), len(images) * len(lines)
    first = next(iter(moments.values()))
    ratio = first["label"].shape[2] / first["label"].shape[1]
    top = page.y + page.size(12)
    block = page.size(8)
    free = page.floor - top - gap * count - block * len(images)
    width = min(free / count * ratio, _moment_width(page, len(moments)))
    height = width / ratio
    axis = page.picture_axes()
    colours = palette()
    scales = {name: _scale(moments, name) for name in lines[1:]}
    left = page.left + margin + width + margin
    for place, iteration in enumerate(moments):
        x = left + place * (width + gap) + width / 2
        page.text(x, top - page.size(4), f"iteration {iteration}", 9, align="center")
    for place, image in enumerate(images):
        y = top + place * (len(lines) * (height + gap) + block)
        for line, (name, picture) in enumerate((("image", first["image"]), ("truth", colours[first["label"]]))):
            page.put(axis, page.left + margin, y + line * (height + gap), width, height, picture[image])
            page.text(page.left, y + line * (height + gap) + height / 2, name, 9)
        for line, name in enumerate(lines):
            page.text(left - margin + page.size(6), y + line * (height + gap) + height / 2, name, 9)
            for column, arrays in enumerate(moments.values()):
                values = arrays[name][image]
                picture = colours[values] if name == "prediction" else scales[name].to_rgba(values.astype(np.float64))
                page.put(axis, left + column * (width + gap), y + line * (height + gap), width, height, picture)
    x = left + len(moments) * (width + gap) + page.size(8)
    for line, name in enumerate(lines[1:], 1):
        y = top + line * (height + gap)
        box = (x / page.width, 1 - (y + height) / page.height, page.size(7) / page.width, height / page.height)
        bar = page.figure.colorbar(scales[name], cax=page.figure.add_axes(box))
        bar.set_label("nats" if name == "entropy" else "w")
        bar.outline.set_linewidth(0.4)  # type: ignore[operator]


def _scale(moments: dict[int, Arrays], name: str) -> ScalarMappable:
    """One colour scale for ``name`` at every moment; its lightness rises with the value, so it survives grey."""
    top = max(float(arrays[name].max()) for arrays in moments.values())
    return ScalarMappable(Normalize(0.0, max(top, 1e-6)), "cividis" if name == "entropy" else "magma")
