"""Every figure alone, as a paper takes it: PDF, SVG and PNG at a column's width, and a file with all captions."""

from __future__ import annotations

from pathlib import Path

from flexseg.analysis.figures.plates import METADATA, Plate, all_plates, render
from flexseg.analysis.stats.formats import write_text
from flexseg.analysis.stats.scores import Scores
from flexseg.files import replacing


def export_figures(scores: Scores, output: Path) -> list[Path]:
    """Write the captions to ``output`` (Markdown) and ``<name>.{pdf,svg,png}`` beside it; the paths, captions last.

    A figure is as wide as both columns of two-column proceedings (7 in). One that has nothing to show is not written,
    and an older file of that name is removed; the captions say why. The same inputs give the same bytes.
    """
    paths, captions = [], []
    for plate in all_plates(scores):
        for suffix in METADATA:
            path = output.parent / f"{plate.name}.{suffix}"
            if plate.empty:
                path.unlink(missing_ok=True)
                continue
            with replacing(path) as temporary:
                temporary.write_bytes(render(plate, suffix))
            paths.append(path)
        captions.append(_caption(plate))
    write_text(output, f"# {scores.benchmark.title}: figures\n\n" + "\n".join(captions))
    return [*paths, output]


def _caption(plate: Plate) -> str:
    if plate.empty:
        return f"## {plate.heading}\n\nNot drawn. {plate.empty}\n"
    files = ", ".join(f"[{suffix.upper()}]({plate.name}.{suffix})" for suffix in METADATA)
    return f"## {plate.heading}\n\n{files}\n\n{plate.caption}\n"
