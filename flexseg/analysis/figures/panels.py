"""Qualitative panels: test image, truth and the predictions of two rows, for every target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from flexseg.analysis.figures.decode import read_png
from flexseg.analysis.figures.plate import Plate, empty_plate
from flexseg.analysis.figures.style import DOUBLE, GREY, RULE, new_figure, short, styled
from flexseg.analysis.stats.domains import class_colours, data_folder, target_title
from flexseg.analysis.stats.scores import Scores
from flexseg.classes import ClassSet
from flexseg.files import file_stem

Picture = NDArray[np.uint8]
MOST_WIDTH = 512
"""Pixels: the most that a picture in a grid is wide, two to four at each printed point."""


def palette(classes: ClassSet) -> Picture:
    """(256, 3) RGB of every train id; void and unknown ids are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = [each.colour for each in classes.classes]
    return colours


def colours_text(classes: ClassSet) -> str:
    """Whose colours a picture has, for captions."""
    return "those of the Cityscapes palette" if classes.is_default else f"those that {classes.id} gives its classes"


@dataclass(frozen=True)
class Shown:
    """The files of an image that can be shown: the image, and its truth as train ids."""

    image: Path
    truth: Path
    condition: str


def shown_images(folder: Path) -> dict[str, Shown]:
    """The images of the domain in ``folder`` by the stem of their files (the id); {} if the data are gone.

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
    texts = [row for row in table.to_pylist() if all(isinstance(row[key], str) for key in ("id", "image", "label"))]
    rows = {file_stem(row["id"]): row for row in texts}
    if copies.is_dir():
        kept = {name: row for name, row in rows.items() if (copies / f"{name}.label.png").is_file()}
        return {
            name: Shown(copies / f"{name}.png", copies / f"{name}.label.png", str(row["condition"] or ""))
            for name, row in kept.items()
        }
    return {
        name: Shown(folder / row["image"], folder / row["label"], str(row["condition"] or ""))
        for name, row in rows.items()
    }


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


def panel_plates(scores: Scores) -> list[Plate]:
    """A figure for each predicted image of the targets; at least one, which says why there is none."""
    benchmark, rows = scores.benchmark, panel_rows(scores)
    seed, count = panel_seed(scores, rows), max(scores.benchmark.predictions, 1)
    titles = [benchmark.row(row).title if row in benchmark.rows else row for row in rows]
    plates = []
    for index in range(count):
        name, heading = f"panels_{index + 1}", f"Qualitative panels ({index + 1} of {count})"
        if seed is None or not benchmark.predictions:
            why = (
                "No seed has finished runs of both"
                if benchmark.predictions
                else "The benchmark keeps no predictions of"
            )
            plates.append(empty_plate(name, heading, f"{why} {titles[0]} and {titles[1]}."))
            continue
        caption = (
            f"Test images that were fixed before training, the same for every run (image {index + 1} of each target); "
            f"seed {seed}. Chosen by index, not by result. Colours are "
            f"{colours_text(benchmark.class_set)}; black is void in the truth."
        )
        plates.append(Plate(name, heading, caption, partial(draw_panels, scores, index)))
    return plates


def draw_panels(scores: Scores, number: int) -> Figure:
    """The predicted image at place ``number`` of every target: a line a target, image – truth – two predictions."""
    benchmark, rows = scores.benchmark, panel_rows(scores)
    seed = panel_seed(scores, rows)
    assert seed is not None, "asked for panels without runs that could fill them"
    lines, colours = [], palette(benchmark.class_set)
    for target in benchmark.targets:
        found = [_predictions(scores.records.runs[row, seed].evaluated / "predictions" / target) for row in rows]
        names = sorted(set(found[0]) & set(found[1]))
        name = names[number] if number < len(names) else ""
        shown = shown_images(data_folder(scores, target)).get(name)
        paths: list[Path | None] = [shown.image, shown.truth] if shown else [None, None]
        paths += [each.get(name) for each in found]
        lines.append([read_picture(path, colours if place else None) for place, path in enumerate(paths)])
    titles = ["image", "truth", *[benchmark.row(row).title for row in rows]]
    world = benchmark.world
    ratio = world.width / world.height if world else 2.0  # most driving data have about that
    entries = [*class_colours(scores), ("void", (0, 0, 0))]
    legend = 0.16 * -(-len(entries) // 7)
    with styled():
        figure = new_figure(0.4 + legend + len(lines) * (DOUBLE - 0.8) / 4 / ratio)
        sides = [target_title(scores, target) for target in benchmark.targets]
        draw_grid(figure.subplots(), lines, titles, sides, ratio)
        handles = [
            Patch(facecolor="#" + bytes(rgb).hex(), edgecolor=RULE, linewidth=0.4, label=name) for name, rgb in entries
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=7, handlelength=1.2, handleheight=0.8)
    return figure


def draw_grid(
    axes: Axes, lines: Sequence[Sequence[Picture | None]], heads: Sequence[str], sides: Sequence[str], ratio: float
) -> None:
    """Pictures in a grid, ``heads`` above and ``sides`` to the left, as one image: it is written at once, pixel exact.

    Every picture stands as large as it fits in the middle of a box of width over height ``ratio``. Where None stands
    in a column with a head, the picture is said not to be available.
    """
    wide = min(MOST_WIDTH, max((each.shape[1] for line in lines for each in line if each is not None), default=2))
    box = wide, max(1, round(wide / ratio))
    gap = max(1, round(box[0] * 0.02))
    step = box[0] + gap, box[1] + gap
    sheet = np.full((len(lines) * step[1] - gap, len(heads) * step[0] - gap, 4), 0, np.uint8)
    for down, line in enumerate(lines):
        for across, picture in enumerate(line):
            if picture is not None:
                here = np.s_[down * step[1] : down * step[1] + box[1], across * step[0] : across * step[0] + box[0]]
                sheet[here] = _padded(picture, box)
    axes.imshow(sheet, interpolation="none")
    axes.set_xticks(
        [across * step[0] + box[0] / 2 for across in range(len(heads))], [short(head, 40) for head in heads]
    )
    axes.set_yticks([down * step[1] + box[1] / 2 for down in range(len(lines))], [short(side, 40) for side in sides])
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False, pad=3)
    axes.spines[:].set_visible(False)
    for down, line in enumerate(lines):
        for across, picture in enumerate(line):
            if picture is None and heads[across]:
                axes.text(across * step[0] + box[0] / 2, down * step[1] + box[1] / 2, "not available",
                          ha="center", va="center", color=GREY)  # fmt: skip


def _padded(picture: Picture, box: tuple[int, int]) -> Picture:
    """The picture with transparency, in the middle of a ``box`` (width, height) and as large as it fits.

    By nearest neighbour, as label maps must get no mixed colours.
    """
    image = Image.fromarray(picture).convert("RGBA")
    return np.asarray(ImageOps.pad(image, box, method=Image.Resampling.NEAREST, color=(0, 0, 0, 0)))


def read_picture(path: Path | None, colours: Picture | None = None) -> Picture | None:
    """The picture at ``path``, not wider than :data:`MOST_WIDTH`; None if none can be read.

    With ``colours`` (256, 3) it is a label map and shown in these.
    """
    image = read_png(path, labels=colours is not None) if path else None
    if image is None:
        return None
    if colours is None:
        return _narrowed(image, Image.Resampling.LANCZOS)
    return _narrowed(Image.fromarray(colours[np.asarray(image)]), Image.Resampling.NEAREST)


def _narrowed(image: Image.Image, how: Image.Resampling) -> Picture:
    if image.width > MOST_WIDTH:
        image = image.resize((MOST_WIDTH, max(1, round(image.height * MOST_WIDTH / image.width))), how)
    return np.asarray(image)


def _predictions(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}
