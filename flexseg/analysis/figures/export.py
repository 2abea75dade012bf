"""Every figure alone, as a paper takes it: PDF, SVG and PNG at a column's width, and a file with all captions."""

from __future__ import annotations

from pathlib import Path

from flexseg.analysis.figures.plate import METADATA, Plate, render_all
from flexseg.analysis.figures.plates import all_plates
from flexseg.analysis.stats.formats import escape_markdown, write_text
from flexseg.analysis.stats.scores import Scores
from flexseg.files import replacing


def export_figures(scores: Scores, output: Path) -> list[Path]:
    """Write the captions to ``output`` (Markdown) and ``<name>.{pdf,svg,png}`` beside it; the paths, captions last.

    A figure is as wide as both columns of two-column proceedings (7 in). One that has nothing to show is not written,
    and an older file of that name is removed; the captions say why. The same inputs give the same bytes.
    """
    paths, captions = [], []
    for plate in all_plates(scores):
        files = {} if plate.empty else render_all(plate)
        for suffix in METADATA:
            path = output.parent / f"{plate.name}.{suffix}"
            if suffix in files:
                with replacing(path) as temporary:
                    temporary.write_bytes(files[suffix])
                paths.append(path)
            else:
                path.unlink(missing_ok=True)
        captions.append(_caption(plate))
    write_text(output, f"# {escape_markdown(scores.benchmark.title)}: figures\n\n" + "\n".join(captions))
    return [*paths, output]


def _caption(plate: Plate) -> str:
    if plate.empty:
        return f"## {escape_markdown(plate.heading)}\n\nNot drawn. {escape_markdown(plate.empty)}\n"
    files = ", ".join(f"[{suffix.upper()}]({plate.name}.{suffix})" for suffix in METADATA)
    return f"## {escape_markdown(plate.heading)}\n\n{files}\n\n{escape_markdown(plate.caption)}\n"
