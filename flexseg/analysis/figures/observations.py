"""What a method wanted to be looked at while it trained: maps of sample images, and vectors by class.

Which arrays these are is declared by the method (:mod:`flexseg.shows`); they are read from
``observations/<iteration>.safetensors`` of a run. Runs without such files, or without some of the arrays, have no
figure; the reports say so in one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from flexseg.analysis.figures.panels import Picture, draw_grid, palette
from flexseg.analysis.figures.style import DOUBLE, GREY, INK, MARKERS, STYLE, new_figure, short, styled
from flexseg.analysis.stats.scores import Scores
from flexseg.classes import ClassSet
from flexseg.errors import UserError
from flexseg.shows import Maps, Vectors
from flexseg.tensor_files import check_seal

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
SHADES = ("cividis", "magma", "viridis")
"""Colour maps whose lightness rises with the value, so that they survive grey."""


def read_observations(folder: Path) -> dict[int, Arrays]:
    """The observations of the run in ``folder`` by iteration, in order; files that cannot be read are left out."""
    found = {}
    for path in sorted((folder / "observations").glob("*.safetensors")):
        try:
            check_seal(path)
            found[int(path.stem)] = load_file(path)
        except (OSError, ValueError, SafetensorError, UserError):
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
    """The vectors that were seen, ordered by class, then group.

    Attributes:
        classes: (P,) the class of each.
        groups: (P,) the place of its group.
        similarity: (P, P) cosine similarity.
        plane: (P, 2) the first two principal components of the centred unit vectors.
        explained: their shares of the variance.
        within: mean similarity of two groups of one class; NaN if no class has two.
        between: mean similarity of two vectors of different classes; NaN if only one class was seen.
    """

    classes: NDArray[np.int64]
    groups: NDArray[np.int64]
    similarity: Floats
    plane: Floats
    explained: tuple[float, float]
    within: float
    between: float


def geometry(vectors: NDArray[Any], counts: NDArray[Any]) -> Geometry | None:
    """Similarities and projection of (G, C, D) unit vectors; those with 0 ``counts`` (G, C) were never seen.

    The projection is the PCA of the centred vectors by SVD; each component's sign is set so that its largest entry is
    positive, which makes it the same on every machine. None if fewer than three vectors were seen.
    """
    seen = np.asarray(counts).T > 0
    classes, groups = np.nonzero(seen)
    if len(classes) < 3:
        return None
    units = np.asarray(vectors, dtype=np.float64).transpose(1, 0, 2)[seen]
    similarity = units @ units.T
    left, singular, _ = np.linalg.svd(units - units.mean(0), full_matrices=False)
    plane = left[:, :2] * singular[:2]
    plane *= np.sign(plane[np.abs(plane).argmax(0), [0, 1]])
    shares = singular**2 / max(float((singular**2).sum()), 1e-12)
    same = classes[:, None] == classes
    other = ~np.eye(len(classes), dtype=bool)
    inside, outside = similarity[same & other], similarity[~same]
    return Geometry(
        classes, groups, similarity, plane, (float(shares[0]), float(shares[1])),
        float(inside.mean()) if inside.size else float("nan"), float(outside.mean()) if outside.size else float("nan"),
    )  # fmt: skip


def draw_vectors(show: Vectors, last: Arrays, classes: ClassSet) -> Figure:
    """Cosine similarities of the vectors as a heat map, and the plane of most variance through them beside it."""
    shape = geometry(last[show.vectors], last[show.counts])
    assert shape is not None, "asked for a figure of fewer than three vectors"
    count = len(last[show.counts])
    names = show.groups if len(show.groups) == count else tuple(f"group {index + 1}" for index in range(count))
    with styled():
        figure = new_figure(3.6)
        matrix, plane = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _matrix(matrix, shape, classes)
        _plane(plane, shape, names, classes)
    return figure


def _matrix(axes: Axes, shape: Geometry, classes: ClassSet) -> None:
    sns.heatmap(
        shape.similarity, cmap="PuOr", vmin=-1, vmax=1, square=True, ax=axes, rasterized=True,
        cbar_kws={"label": "cosine similarity", "shrink": 0.8, "pad": 0.02},
    )  # fmt: skip
    edges = [0, *(np.flatnonzero(np.diff(shape.classes)) + 1), len(shape.classes)]
    axes.hlines(edges[1:-1], 0, edges[-1], color=INK, linewidth=0.3)
    axes.vlines(edges[1:-1], 0, edges[-1], color=INK, linewidth=0.3)
    centres = (np.array(edges[:-1]) + edges[1:]) / 2
    labels = [classes.names[shape.classes[start]] for start in edges[:-1]]
    axes.set_yticks(centres, labels, rotation=0, fontsize=STYLE["font.size"] * 0.75)
    axes.set_xticks(centres, labels, rotation=90, fontsize=STYLE["font.size"] * 0.75)
    axes.tick_params(length=0)


def _plane(axes: Axes, shape: Geometry, names: tuple[str, ...], classes: ClassSet) -> None:
    """A mark per vector in its class's colour and its group's shape; the first group bears the class's name."""
    for each in np.unique(shape.classes):
        own = shape.classes == each
        axes.plot(*shape.plane[own].T, color=GREY, linewidth=0.4, zorder=0)
        colour = tuple(part / 255 for part in classes.classes[each].colour)
        for group, (x, y) in zip(shape.groups[own], shape.plane[own], strict=True):
            axes.scatter(x, y, s=18, marker=MARKERS[group % len(MARKERS)], color=[colour], edgecolor=INK, linewidth=0.4)
        axes.annotate(
            classes.names[each], shape.plane[own][0], xytext=(3, 2), textcoords="offset points",
            fontsize=STYLE["font.size"] * 0.75,
        )  # fmt: skip
    axes.set_xlabel(f"component 1 ({100 * shape.explained[0]:.0f} % of the variance)")
    axes.set_ylabel(f"component 2 ({100 * shape.explained[1]:.0f} %)")
    axes.margins(0.12)
    marks = [
        Line2D([], [], marker=MARKERS[index % len(MARKERS)], linestyle="none", color=GREY, label=short(name, 40))
        for index, name in enumerate(names)
    ]
    axes.legend(handles=marks, loc="best", handletextpad=0.2)


def observed_maps(show: Maps, found: dict[int, Arrays]) -> tuple[dict[int, Arrays], list[str]]:
    """The moments at which sample images were looked at, and the declared maps that all of these have."""
    moments = {iteration: arrays for iteration, arrays in found.items() if {"image", "label"} <= set(arrays)}
    return moments, [name for name in show.units if moments and all(name in each for each in moments.values())]


def draw_maps(show: Maps, moments: dict[int, Arrays], names: list[str], images: range, classes: ClassSet) -> Figure:
    """A block of lines for each sample image, a column for each moment; image and truth stand to the left.

    A colour scale is the same for all moments and images.
    """
    first, colours = next(iter(moments.values())), palette(classes)
    lines = [*(["prediction"] if all("prediction" in each for each in moments.values()) else []), *names]
    ratio = first["label"].shape[2] / first["label"].shape[1]
    scales = {
        name: ScalarMappable(
            Normalize(0.0, max(*(float(arrays[name].max()) for arrays in moments.values()), 1e-6)),
            SHADES[place % len(SHADES)],
        )
        for place, name in enumerate(names)
    }
    beside: list[Picture] = [first["image"], colours[first["label"]]]
    grid: list[list[Picture | None]] = []
    for image in images:
        for place, name in enumerate(lines):
            shown = [arrays[name][image] for arrays in moments.values()]
            pictures = [colours[values] if name == "prediction" else _shaded(scales[name], values) for values in shown]
            grid.append([beside[place][image] if place < 2 else None, *pictures])
    heads = ["", *(f"iteration {iteration}" for iteration in moments)]
    width = (DOUBLE - 0.8 - 0.45 * len(names)) / len(heads)
    with styled():
        figure = new_figure(0.3 + len(grid) * width / ratio)
        axes = figure.subplots()
        draw_grid(axes, grid, heads, lines * len(images), ratio)
        axes.set_xticks(axes.get_xticks(), ["image; truth", *heads[1:]])
        axes.tick_params(axis="y", labelleft=False, labelright=True)
        for name, scale in scales.items():
            bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.01, aspect=30, fraction=0.03)
            bar.set_label(short(f"{name} ({show.units[name]})" if show.units[name] else name))
            bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    return figure


def _shaded(scale: ScalarMappable, values: NDArray[Any]) -> Picture:
    return np.asarray(scale.to_rgba(values.astype(np.float64), bytes=True))
