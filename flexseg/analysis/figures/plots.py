"""The statistical figures, drawn by seaborn from tidy frames.

Every function takes the :class:`~flexseg.analysis.stats.scores.Scores` of a benchmark or a frame of
:mod:`flexseg.analysis.frames`, which may have been filtered or edited, and returns the matplotlib figure. Given ``ax``,
it draws into these axes, and the frame must hold what fits into one facet, e.g. ``frame[frame["target"] == "Avg5"]``.

Raises:
    ValueError: there is nothing to draw, or more than one facet for one ``ax``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flexseg.analysis import frames
from flexseg.analysis.figures.forest import draw_forest
from flexseg.analysis.figures.marks import draw_curves, draw_dots, draw_heat_maps, draw_profile
from flexseg.analysis.stats.scores import Scores

Data: TypeAlias = Scores | pd.DataFrame


def plot_miou(data: Data, ax: Axes | None = None) -> Figure:
    """mIoU of every row with its interval, a facet per target and average; dashed: the reference row."""
    frame = _framed(data, frames.frame_means)
    lines = {}
    if "reference" in frame:
        lines = frame[frame["reference"].astype(bool)].set_index("target_title")["value"].to_dict()
    return draw_dots(frame, "row", "mIoU (%)", ax, lines=lines)


def plot_differences(data: Data, ax: Axes | None = None) -> Figure:
    """Paired differences to the reference row with their intervals, a facet per target and average.

    Filled where a difference was shown. Rows far from all others are printed at the edge instead of drawn.
    """
    frame = _framed(data, frames.frame_differences)
    return draw_dots(frame, "row", "difference in mIoU (points)", ax, zero=True, clip=True)


def plot_contrasts(data: Data, ax: Axes | None = None) -> Figure:
    """What each component and control does to mIoU, a facet per average; a colour per section of the ablation table."""
    frame = _framed(data, frames.frame_contrasts)
    return draw_dots(frame, "contrast", "difference in mIoU (points)", ax, zero=True, clip=True, section="section")


def plot_claims(data: Data, ax: Axes | None = None) -> Figure:
    """What was measured of each claim, with its interval, the smallest effect of interest and the published size.

    Signed so that the claimed direction is to the right; filled where there is a verdict.
    """
    return draw_forest(_framed(data, frames.frame_claims), ax)


def plot_factorial(data: Data, full: str = "", ax: Axes | None = None) -> Figure:
    """Main effects and interactions of a factorial on mIoU, a facet per average. ``full``: around which row of scores.

    By default around the first full row.
    """
    if isinstance(data, Scores):
        full = full or data.benchmark.ablation.full[0]
    frame = _framed(data, frames.frame_factorial, full)
    return draw_dots(frame, "title", "effect on mIoU (points)", ax, zero=True)


def plot_rings(data: Data, ax: Axes | None = None) -> Figure:
    """Shares of wrong pixels by distance to the boundary, a column per target; paired differences below."""
    return draw_profile(_framed(data, frames.frame_rings), ax, "distance to the boundary")


def plot_outlines(data: Data, ax: Axes | None = None) -> Figure:
    """Boundary IoU and F1 by band width, a column per target; paired differences below each."""
    return draw_profile(_framed(data, frames.frame_outlines), ax, "band width d (px)")


def plot_dial(data: Data, name: str = "", axis: str = "", order: Sequence[Any] = (), ax: Axes | None = None) -> Figure:
    """mIoU against one setting, a column per average; paired differences below.

    Args:
        data: scores, or a frame of :func:`~flexseg.analysis.frames.frame_dial`.
        name: which dial of the scores. axis: the label of the x axis. order: all values of x, run or not.
    """
    if isinstance(data, Scores) and name in data.benchmark.ablation.dials:
        dial = data.benchmark.ablation.dials[name]
        axis, order = axis or dial.axis or dial.title, order or dial.x
    return draw_profile(_framed(data, frames.frame_dial, name), ax, axis, joined=True, order=order)


def plot_alignment(data: Data, ax: Axes | None = None) -> Figure:
    """mIoU against the misalignment of the generated images, a column per average; paired differences below."""
    frame = _framed(data, frames.frame_alignment)
    return draw_profile(frame, ax, "misalignment of the generated images", joined=True)


def plot_classes(data: Data, ax: Axes | None = None, value: str = "value") -> Figure:
    """IoU of each row and class as a heat map, its difference to the reference row below.

    With ``ax`` one of the two: ``value="value"`` or ``"difference"``.
    """
    frame = _framed(data, frames.frame_classes)
    return draw_heat_maps(frame, frame["class"].tolist(), "IoU (%)", ax, value)


def plot_conditions(data: Data, ax: Axes | None = None, value: str = "value") -> Figure:
    """mIoU of each row and condition of a target as a heat map, its difference to the reference row below.

    With ``ax`` one of the two: ``value="value"`` or ``"difference"``. In brackets: the number of images.
    """
    frame = _framed(data, frames.frame_conditions)
    heads = [f"{condition} ({images})" for condition, images in zip(frame["condition"], frame["images"], strict=True)]
    return draw_heat_maps(frame, heads, "mIoU (%)", ax, value, groups=frame["target_title"].tolist())


def plot_training(data: Data, quantities: Mapping[str, str] | None = None, ax: Axes | None = None) -> Figure:
    """Logged quantities over training, a facet each: mean over seeds as a line, their range as a band.

    Args:
        data: scores, of which the baseline and the full rows are drawn, or a frame of
            :func:`~flexseg.analysis.frames.frame_training`.
        quantities: logged name → label, in this order; by default the loss and its terms.
    """
    rows = frames.shown_rows(data) if isinstance(data, Scores) else []
    frame = _framed(data, frames.frame_training, rows)
    return draw_curves(frame, dict(quantities or loss_labels(frame)), ax)


def loss_labels(frame: pd.DataFrame) -> dict[str, str]:
    """The logged loss and its terms in ``frame``, with what stands over their facets."""
    names = [name for name in dict.fromkeys(frame["quantity"]) if name == "loss" or name.startswith("loss/")]
    return {name: "total loss" if name == "loss" else f"{name.removeprefix('loss/')} term" for name in names}


def _framed(data: Data, make: Callable[..., pd.DataFrame], *arguments: Any) -> pd.DataFrame:
    frame = make(data, *arguments) if isinstance(data, Scores) else data
    if frame.empty:
        raise ValueError(f"there is nothing to draw: {make.__name__} found no finished runs, or the frame is empty")
    return frame
