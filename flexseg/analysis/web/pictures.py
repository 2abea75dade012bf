"""The pictures of the page's viewer: test image, truth and predictions, each embedded once.

Label maps travel as the bytes of their train ids, deflated: the page colours them, lays them over the image and
compares them with the truth. (Ids read back from a drawn PNG could be altered by browsers that blur canvas reads.)
"""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from flexseg.analysis.figures.decode import read_png
from flexseg.analysis.figures.panels import Shown, panel_rows, panel_seed, shown_images
from flexseg.analysis.stats.domains import data_folder, target_title
from flexseg.analysis.stats.scores import Scores

Json = dict[str, Any]
MOST_WIDTH = 512
"""Wider pictures are embedded smaller, labels by nearest neighbour; pixels."""
BUDGET = 4_000_000
"""Characters that all pictures of a page may take; further ones are left out and counted."""


def pictures(scores: Scores) -> Json:
    """The targets with their images; ``seeds`` has the seed whose predictions are shown for each row.

    An image holds ``image`` (a data URI), ``truth`` and ``predictions`` (base64 of the deflated (H, W) train ids).
    """
    benchmark, seeds = scores.benchmark, prediction_seeds(scores)
    found: dict[str, list[Json]] = {target: [] for target in benchmark.targets}
    indices = {target: shown_images(data_folder(scores, target)) for target in benchmark.targets}
    maps = {target: _maps(scores, target, seeds) for target in benchmark.targets}
    spent = left_out = 0
    # Images take turns over the targets, so that a full budget leaves some of every target.
    for number in range(max((len(names) for names in maps.values()), default=0)):
        for target in benchmark.targets:
            names = list(maps[target])
            if number >= len(names) or names[number] not in indices[target]:
                continue
            name = names[number]
            entry = _entry(name, indices[target][name], maps[target][name])
            size = _size(entry) if entry else 0
            if entry and spent + size <= BUDGET:
                spent += size
                found[target].append(entry)
            elif entry:
                left_out += 1
    targets = [
        {"key": target, "title": target_title(scores, target), "images": images}
        for target, images in found.items()
        if images
    ]
    return {"targets": targets, "seeds": seeds, "leftOut": left_out, "pair": list(panel_rows(scores))}


def prediction_seeds(scores: Scores) -> dict[str, int]:
    """Row → seed: the seed of the report's panels, else the first finished one of the row; {} without predictions."""
    chosen = panel_seed(scores, panel_rows(scores))
    found = {}
    for row in scores.benchmark.rows:
        kept = [run.seed for run in scores.records.finished(row) if (run.evaluated / "predictions").is_dir()]
        if kept:
            found[row] = chosen if chosen in kept else kept[0]
    return found


def _maps(scores: Scores, target: str, seeds: dict[str, int]) -> dict[str, dict[str, Path]]:
    """Image id → row → prediction."""
    found: dict[str, dict[str, Path]] = {}
    for row, seed in seeds.items():
        folder = scores.records.runs[row, seed].evaluated / "predictions" / target
        for path in folder.rglob("*.png"):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), {})[row] = path
    return dict(sorted(found.items()))


def _entry(name: str, files: Shown, predictions: dict[str, Path]) -> Json | None:
    """One image with its maps, all of one size; None if image or truth cannot be read."""
    image, truth = read_png(files.image, labels=False), read_png(files.truth, labels=True)
    if image is None or truth is None:
        return None
    scale = min(1.0, MOST_WIDTH / image.width)
    size = (round(image.width * scale), max(1, round(image.height * scale)))
    maps = {row: read_png(path, labels=True) for row, path in predictions.items()}
    kept = {row: _pack(each, size) for row, each in maps.items() if each is not None}
    return {
        "id": name, "condition": files.condition, "width": size[0], "height": size[1],
        "image": _data_uri(image, size), "truth": _pack(truth, size), "predictions": kept,
    }  # fmt: skip


def _pack(label: Image.Image, size: tuple[int, int]) -> str:
    ids = label if label.size == size else label.resize(size, Image.Resampling.NEAREST)
    return base64.b64encode(zlib.compress(ids.tobytes(), 9)).decode()


def _data_uri(image: Image.Image, size: tuple[int, int]) -> str:
    """The image as PNG, or smaller and as JPEG if it is too wide to be embedded as it is."""
    buffer = io.BytesIO()
    if image.size == size:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _size(entry: Json) -> int:
    return len(entry["image"]) + len(entry["truth"]) + sum(map(len, entry["predictions"].values()))
