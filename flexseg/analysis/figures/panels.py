"""Qualitative panels: test image, truth and the predictions of two rows, for every target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from flexseg.analysis.figures.canvas import Canvas
from flexseg.analysis.figures.style import GREY, RULE
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.domains import class_colours, data_folder
from flexseg.analysis.tables.write import target_title
from flexseg.classes import CLASSES

Picture = NDArray[np.uint8]
MARGIN, GAP = 72.0, 5.0
MOST_WIDTH = 1024
"""Pixels: what the page shows of a photograph of many megapixels; as it is, a report would weigh hundreds of MB."""


def palette() -> Picture:
    """(256, 3) RGB of every train id; void and unknown ids are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(CLASSES)] = [each.colour for each in CLASSES]
    return colours


def read_labels(path: Path) -> Picture:
    """A trainId PNG as colours. → (H, W, 3)"""
    with Image.open(path) as image:
        return palette()[np.asarray(image.convert("L") if image.mode not in ("L", "P") else image)]


@dataclass(frozen=True)
class Shown:
    """The files of an image that can be shown: the image, and its truth as train ids."""

    image: Path
    truth: Path
    condition: str


def shown_images(folder: Path) -> dict[str, Shown]:
    """The images of the domain in ``folder`` by id; {} if the data are gone.

    Of a data set that lies elsewhere, in another encoding, those few that are shown have copies in ``shown``:
    ``<id>.png`` and ``<id>.label.png``.
    """
    path, copies = folder / "index.parquet", folder / "shown"
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path, columns=["id", "image", "label", "condition"], use_threads=False)
    except (pa.ArrowException, OSError):
        return {}
    rows = {row["id"]: row for row in table.to_pylist()}
    if copies.is_dir():
        kept = {name: row for name, row in rows.items() if (copies / f"{name}.label.png").is_file()}
        return {
            name: Shown(copies / f"{name}.png", copies / f"{name}.label.png", row["condition"] or "")
            for name, row in kept.items()
        }
    return {
        name: Shown(folder / row["image"], folder / row["label"], row["condition"] or "") for name, row in rows.items()
    }


def _predictions(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}


def panel_rows(scores: Scores) -> tuple[str, str]:
    """The two rows whose predictions are shown: the benchmark's, or what comes nearest among the selected rows."""
    benchmark = scores.benchmark
    first, second = benchmark.ablation.panels
    first = first if first in benchmark.rows else benchmark.reference
    others = [
        row for row in (second, *benchmark.ablation.full, *benchmark.rows) if row in benchmark.rows and row != first
    ]
    return first, others[0] if others else first


def panel_seed(scores: Scores, rows: tuple[str, str]) -> int | None:
    """The first seed of the benchmark with finished runs of both rows."""
    runs = scores.records.runs
    for seed in scores.benchmark.seeds:
        if all((row, seed) in runs and runs[row, seed].status == "finished" for row in rows):
            return seed
    return None


def panel_count(scores: Scores) -> int:
    """How many figures of panels there are: one for each predicted image of a target, at least one."""
    return max(scores.benchmark.predictions, 1)


def panel_figure(page: Canvas, scores: Scores, number: int) -> None:
    """The predicted image at place ``number`` of every target: a line a target, image – truth – two predictions."""
    benchmark, rows = scores.benchmark, panel_rows(scores)
    seed = panel_seed(scores, rows)
    titles = ["image", "truth", *[benchmark.row(row).title if row in benchmark.rows else row for row in rows]]
    if seed is None or not benchmark.predictions:
        why = "No seed has finished runs of both" if benchmark.predictions else "The benchmark keeps no predictions of"
        page.nothing(f"{why} {titles[2]} and {titles[3]}.")
        return
    lines = {}
    for target in benchmark.targets:
        found = [_predictions(scores.records.runs[row, seed].evaluated / "predictions" / target) for row in rows]
        names = sorted(set(found[0]) & set(found[1]))
        lines[target] = _paths(shown_images(data_folder(scores, target)), found, names, number)
    page.caption(
        f"Test images that were fixed before training, the same for every run (image {number + 1} of each target); "
        f"seed {seed}. Chosen by index, not by result. Colours are those of the Cityscapes palette; black is void in "
        "the truth.",
        most=_picture_width(page) / _ratio(scores) * len(lines) + GAP * len(lines) + page.size(64),
        exact=True,
    )
    _draw_grid(page, scores, titles, lines)


def _paths(
    images: dict[str, Shown], found: list[dict[str, Path]], names: list[str], number: int
) -> list[Path | None]:  # fmt: skip
    name = names[number] if number < len(names) else ""
    shown = images.get(name)
    pair = (shown.image, shown.truth) if shown else (None, None)
    return [*pair, *(each.get(name) for each in found)]


def _ratio(scores: Scores) -> float:
    """Width over height of the boxes: the street world's, else 2, as most driving data have about that."""
    world = scores.benchmark.world
    return world.width / world.height if world else 2.0


def _picture_width(page: Canvas) -> float:
    """The width of a picture, in points, when four stand side by side."""
    return (page.right - page.left - page.size(MARGIN) - 3 * GAP) / 4


def _draw_grid(page: Canvas, scores: Scores, titles: list[str], lines: dict[str, list[Path | None]]) -> None:
    """A line a target; all pictures share one axes in points, so that the page is written at once."""
    margin, gap, legend, lead = page.size(MARGIN), GAP, page.size(30.0), page.size(11)
    ratio, most = _ratio(scores), _picture_width(page)
    heads = [page.wrap(title, most, 9) for title in titles]
    top = page.y + max(map(len, heads)) * lead
    height = (page.floor - legend - top - gap * len(lines)) / len(lines)
    width = min(height * ratio, most)
    height = width / ratio
    axis = page.picture_axes()
    for place, head in enumerate(heads):
        for index, line in enumerate(head):
            x = page.left + margin + place * (width + gap) + width / 2
            page.text(x, top - page.size(5) - (len(head) - 1 - index) * lead, line, 9, align="center")
    for target, paths in lines.items():
        for index, line in enumerate(page.wrap(target_title(scores, target), margin - 6, 9)):
            page.text(page.left, top + height / 2 + index * lead, line, 9)
        for place, path in enumerate(paths):
            x = page.left + margin + place * (width + gap)
            pixels = _pixels(path, labels=place > 0)
            if pixels is None:
                page.text(x + width / 2, top + height / 2, "not available", 8, align="center", colour=GREY)
            else:
                page.put(axis, *letterbox(pixels, x, top, width, height), pixels)
        top += height + gap
    axis.set(xlim=(0, page.width), ylim=(0, page.height))
    _legend(axis, page, top + 4, [*class_colours(scores), ("void", (0, 0, 0))])


def letterbox(
    pixels: Picture, left: float, top: float, width: float, height: float
) -> tuple[float, float, float, float]:  # fmt: skip
    """(left, top, width, height) of a picture, as large as it fits into the middle of that box at its own ratio."""
    own = pixels.shape[1] / pixels.shape[0]
    wide, high = min(width, height * own), min(height, width / own)
    return left + (width - wide) / 2, top + (height - high) / 2, wide, high


def _legend(axis: Axes, page: Canvas, top: float, entries: list[tuple[str, tuple[int, int, int]]]) -> None:
    step, lead = (page.right - page.left) / 10, page.size(12)
    for place, (name, rgb) in enumerate(entries):
        x, y = page.left + place % 10 * step, top + place // 10 * lead
        shade = tuple(part / 255 for part in rgb)
        box = (x, page.height - y - page.size(8)), page.size(10), page.size(8)
        axis.add_patch(Rectangle(*box, facecolor=shade, edgecolor=RULE, linewidth=0.4))
        page.text(x + page.size(13), y + page.size(7), name, 7.5)


def _pixels(path: Path | None, labels: bool) -> Picture | None:
    """The picture at ``path``, labels as colours, not wider than :data:`MOST_WIDTH`; None if none can be read."""
    if path is None:
        return None
    try:
        if labels:
            return _narrowed(Image.fromarray(read_labels(path)), Image.Resampling.NEAREST)
        with Image.open(path) as image:
            return _narrowed(image.convert("RGB"), Image.Resampling.LANCZOS)
    except (OSError, ValueError):
        return None


def _narrowed(image: Image.Image, how: Image.Resampling) -> Picture:
    if image.width > MOST_WIDTH:
        image = image.resize((MOST_WIDTH, round(image.height * MOST_WIDTH / image.width)), how)
    return np.asarray(image)
