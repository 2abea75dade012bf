"""Figures of the ablation: components, factorial, misalignment, training and HAS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from flexseg.analysis.figures.canvas import Canvas
from flexseg.analysis.figures.comparison import FILLED, ROW, difference_dot, facets
from flexseg.analysis.figures.style import GREY, series
from flexseg.analysis.stats.effects import ablation_lines, alignment_pairs, factorial_cells, factorial_effects, not_run
from flexseg.analysis.stats.formats import difference_text
from flexseg.analysis.stats.records import Records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.domains import strength


def _averages(scores: Scores) -> list[str]:
    return list(scores.benchmark.averages) or list(scores.benchmark.targets)


def shown_rows(scores: Scores) -> list[str]:
    """The baseline and the full rows, as far as they are selected."""
    ablation = scores.benchmark.ablation
    return [row for row in (ablation.none, *ablation.full) if row in scores.benchmark.rows]


def contrast_figure(page: Canvas, scores: Scores) -> None:
    """Every contrast of the ablation table: leave one out, controls, misalignment."""
    lines = [line for line in ablation_lines(scores.records) if line.contrast]
    if not lines:
        page.nothing("The rows that a contrast needs were not selected.")
        return
    page.caption(
        "What each component and control does to mIoU. Leave one out: “effect of X” is the full row minus the row "
        "without X, so right of zero X helps. Paired by seed and test image; dot: mean over the common seeds, bar: "
        "95 % interval over "
        f"seeds and test images (none for a single seed). {FILLED}",
        most=ROW * len(lines) + 60,
    )
    sections = list(dict.fromkeys(line.section for line in lines))
    title = ""
    labels, groups = [], []
    for line in lines:
        title = line.label or title
        question = line.question.replace("this row", title) if line.section[:4] in ("Cont", "Misa") else line.question
        if line.question.startswith("cost: "):
            question = f"{title}: cost of misalignment"
            source = {twin: row for row, twin in alignment_pairs(scores.records).items()}.get(line.row)
            if source:
                question = f"cost of misalignment for {scores.benchmark.row(source).title}"
        elif line.question.startswith("all together"):
            question = f"{title} − baseline"
        elif line.question.startswith("effect of"):
            question = line.question.split(":")[0] + f" in {line.section.removeprefix('Components of ')}"
        elif line.question.startswith("this row"):
            question = line.question.replace("this row", title)
        labels.append(question)
        groups.append(sections.index(line.section))
    averages = _averages(scores)
    dots = [[difference_dot(scores.contrasts(line.contrast)[name]) for line in lines] for name in averages]
    facets(page, averages, labels, dots, "difference in mIoU (points)", [0.0] * len(averages), groups, 250, True)


def factorial_figure(page: Canvas, scores: Scores, full: str) -> None:
    """Main effects and interactions around the row ``full`` as dots."""
    effects = factorial_effects(list(scores.benchmark.ablation.components), factorial_cells(scores.records, full))
    if not effects:
        page.nothing(f"The factorial is not complete. {not_run(scores.benchmark).capitalize()}")
        return
    averages = _averages(scores)
    page.caption(
        f"Main effects and interactions of the factorial around “{scores.benchmark.row(full).title}”: mean with "
        "minus mean without; an interaction is half of what either component gains from the other. Dot: mean over "
        "the common seeds, "
        f"bar: 95 % interval over seeds and test images. {FILLED}",
        most=ROW * len(effects) + 60,
    )
    dots = [[difference_dot(scores.contrasts(weights)[name]) for weights in effects.values()] for name in averages]
    facets(page, averages, list(effects), dots, "effect on mIoU (points)", [0.0] * len(averages))


def alignment_figure(page: Canvas, scores: Scores) -> None:
    """mIoU against the strength of misalignment, for every row that has an aligned twin."""
    benchmark, pairs = scores.benchmark, alignment_pairs(scores.records)
    if not pairs:
        page.nothing("No row with its twin on aligned generated data was selected.")
        return
    found = {row: strength(scores, row) for pair in pairs.items() for row in pair}
    strengths = {row: value for row, value in found.items() if value is not None}
    if len(strengths) < len(found):
        page.nothing("Nobody knows how strongly these generated images are misaligned.")
        return
    none = benchmark.ablation.none
    words = []
    for row in pairs:
        if none in pairs and row != none:
            contrast = {row: 1.0, pairs[row]: -1.0, none: -1.0, pairs[none]: 1.0}
            difference = scores.contrasts(contrast)[scores.main]
            title = benchmark.row(row).title
            words.append(
                f"Change from aligned to misaligned on {scores.main}, {title} minus baseline (positive: it loses "
                f"less): {difference_text(difference)}."
            )
    page.caption(
        "mIoU after training on generated images whose geometry is displaced against the labels (the benchmark's "
        f"default is {strengths[next(iter(pairs))]:g}) and on the same scenes without "
        "displacement (0). Marks: mean over seeds; bars: 95 % t-interval over seeds, which holds the spread that two "
        "rows share, so the paired difference is the sharper statement. " + " ".join(words),
        most=390,
    )
    page.axis_label("misalignment of the generated images")
    averages = _averages(scores)
    axes = page.figure.subplots(1, len(averages), squeeze=False)[0]
    for axis, name in zip(axes, averages, strict=True):
        for index, (row, twin) in enumerate(pairs.items()):
            at = [strengths[twin], strengths[row]]
            means = [scores.mean(twin, name), scores.mean(row, name)]
            shift = (index - (len(pairs) - 1) / 2) * 0.03
            axis.errorbar(
                np.array(at) + shift, [mean.value for mean in means], yerr=[mean.half for mean in means],
                capsize=3, markersize=page.size(6), label=benchmark.row(row).title, **series(index),
            )  # fmt: skip
        axis.set_title(name)
        axis.set_xticks(sorted(set(strengths.values())))
        axis.margins(x=0.2)
    axes[0].set_ylabel("mIoU (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    page.legend(dict(zip(labels, handles, strict=True)))
    page.lay_out()


def read_curves(records: Records, row: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The logged values of a row: name → (iterations (T,), values (seeds, T)), NaN where a seed lacks one."""
    logs = [_read_log(run.folder / "train.jsonl") for run in records.of_row(row) if run.status == "finished"]
    names = sorted({name for log in logs for line in log for name in line} - {"iteration"})
    curves = {}
    for name in names:
        steps = sorted({line["iteration"] for log in logs for line in log if name in line})
        place = {step: index for index, step in enumerate(steps)}
        values = np.full((len(logs), len(steps)), np.nan)
        for index, log in enumerate(logs):
            for line in log:
                if name in line:
                    values[index, place[line["iteration"]]] = line[name]
        curves[name] = np.array(steps), values
    return curves


def _read_log(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "iteration" in line:
            lines.append({name: value for name, value in line.items() if isinstance(value, int | float)})
    return lines


CURVES = {"loss": "total loss", "loss/ce": "cross-entropy term", "loss/gap": "GAP term"}
HAS = {
    "has/threshold": "threshold: chance of a uniform draw",
    "has/effective_sample_size": "effective sample size 1/Σp²",
    "has/generated_share": "share of draws from the generated data",
}


def training_figure(page: Canvas, scores: Scores) -> None:
    """The loss terms over training."""
    _curves(
        page, scores, CURVES,
        "Loss terms as logged during training. Line: mean over the finished seeds; band: their range. Losses of rows "
        "with other terms are not comparable in height.",
    )  # fmt: skip


def has_figure(page: Canvas, scores: Scores) -> None:
    """What HAS does over training."""
    _curves(
        page, scores, HAS,
        "HAS over training: the threshold, below which a draw is uniform; the effective number of images, 1/Σp², of "
        "the hardness distribution; the share of images that were drawn from the generated data. Line: mean over the "
        "finished seeds; band: their range.",
    )  # fmt: skip


def _curves(page: Canvas, scores: Scores, panels: Mapping[str, str], caption: str) -> None:
    """One panel a logged value (name, label): mean over seeds as a line, range over seeds as a band."""
    curves = {row: read_curves(scores.records, row) for row in shown_rows(scores)}
    if not any(name in found for name in panels for found in curves.values()):
        page.nothing("No finished run of the baseline or of a full row logged it.")
        return
    page.caption(caption, most=390)
    axes = page.figure.subplots(1, len(panels), squeeze=False)[0]
    handles: dict[str, Line2D] = {}
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        for index, (row, found) in enumerate(curves.items()):
            if name in found:
                steps, values = found[name]
                style = series(index)
                every = (index * len(steps) // 24, max(1, len(steps) // 8))  # marks of two rows stand apart
                line = axis.plot(steps, np.nanmean(values, axis=0), markevery=every, **style)[0]
                handles.setdefault(scores.benchmark.row(row).title, line)
                axis.fill_between(
                    steps, np.nanmin(values, 0), np.nanmax(values, 0), color=style["color"], alpha=0.2, lw=0
                )
        if not axis.has_data():
            axis.text(
                0.5, 0.5, "not logged by any\nfinished run", ha="center", va="center", transform=axis.transAxes,
                color=GREY,
            )  # fmt: skip
        axis.set_title("\n".join(page.wrap(label, (page.right - page.left) / len(panels) - 40, 9)))
        axis.set_xlabel("iteration")
    page.legend(handles)
    page.lay_out()
