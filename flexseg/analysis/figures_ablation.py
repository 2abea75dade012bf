"""Figures of the ablation: components, boundary against interior, misalignment, training and HAS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flexseg.analysis.effects import ablation_lines, alignment_pairs, factorial_cells, factorial_effects
from flexseg.analysis.figures import FILLED, ROW, difference_dot, facets
from flexseg.analysis.formats import difference_text
from flexseg.analysis.pages import Page
from flexseg.analysis.records import Records
from flexseg.analysis.scores import Scores
from flexseg.analysis.style import GREY, HATCHES, INK, colour, series
from flexseg.analysis.tables import target_title


def _averages(scores: Scores) -> list[str]:
    return list(scores.benchmark.averages) or list(scores.benchmark.targets)


def shown_rows(scores: Scores) -> list[str]:
    """The baseline and the full rows, as far as they are selected."""
    ablation = scores.benchmark.ablation
    return [row for row in (ablation.none, *ablation.full) if row in scores.benchmark.rows]


def contrast_figure(page: Page, scores: Scores) -> None:
    """Every contrast of the ablation table: leave one out, controls, misalignment."""
    lines = [line for line in ablation_lines(scores.records) if line.contrast]
    if not lines:
        page.paragraph("No contrast can be drawn: the rows that it needs were not selected.", 10)
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


def factorial_figure(page: Page, scores: Scores, full: str) -> bool:
    """Main effects and interactions as dots; False if the factorial is not complete."""
    effects = factorial_effects(list(scores.benchmark.ablation.components), factorial_cells(scores.records, full))
    if not effects:
        return False
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
    return True


def boundary_figure(page: Page, scores: Scores) -> None:
    """Error of boundary-band pixels against interior pixels, and mIoU of the band, per target."""
    benchmark = scores.benchmark
    rows, targets = shown_rows(scores), benchmark.targets
    page.caption(
        f"Above: share of wrong pixels in the boundary band ({benchmark.protocol.boundary_width} px to either side "
        "of a label boundary) and in the interior. Below: mIoU over band pixels alone. Bars: mean over seeds; "
        "lines: 95 % t-interval over seeds (none for a single seed)."
    )
    above, below = page.figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    series_ = [(row, part) for row in rows for part in ("boundary error", "interior error")]
    _bars(above, scores, series_, "wrong pixels (%)")
    _bars(below, scores, [(row, "boundary mIoU") for row in rows], "boundary mIoU (%)")
    below.set_xticks(np.arange(len(targets)), [target_title(scores, target) for target in targets])
    page.lay_out()


def _bars(axis: Any, scores: Scores, bars: list[tuple[str, str]], label: str) -> None:
    width = 0.84 / max(len(bars), 1)
    places = np.arange(len(scores.benchmark.targets))
    for index, (row, quantity) in enumerate(bars):
        means = [scores.mean(row, target, quantity) for target in scores.benchmark.targets]
        values = np.array([mean.value for mean in means])
        halves = np.array([mean.half for mean in means])
        interior = quantity.startswith("interior")
        number = shown_rows(scores).index(row)
        name = scores.benchmark.row(row).title
        ink = colour(number)
        axis.bar(
            places + (index - (len(bars) - 1) / 2) * width,
            np.nan_to_num(values),
            width * 0.92,
            color="white" if interior else ink,
            edgecolor=ink if interior else INK,
            linewidth=0.6,
            hatch=HATCHES[number % len(HATCHES)],
            yerr=halves,
            error_kw={"linewidth": 0.9, "ecolor": INK},
            capsize=2,
            label=name if quantity == "boundary mIoU" else f"{name}: {quantity.split()[0]}",
        )
    axis.set_ylabel(label)
    axis.set_ylim(bottom=0)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=max(1, len(shown_rows(scores))), borderaxespad=0.2)


def alignment_figure(page: Page, scores: Scores) -> None:
    """mIoU against the strength of misalignment, for every row that has an aligned twin."""
    benchmark, pairs = scores.benchmark, alignment_pairs(scores.records)
    if not pairs:
        page.paragraph("No row with its twin on aligned data was selected, or it was not run.", 10)
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
        "mIoU after training on generated images whose geometry is displaced against the labels (misalignment 1 is "
        "the benchmark's default) and on the same scenes without displacement (0). Marks: mean over seeds; bars: 95 "
        "% t-interval over seeds, which holds the spread that two rows share, so the paired difference is the "
        "sharper statement. " + " ".join(words)
    )
    averages = _averages(scores)
    axes = page.figure.subplots(1, len(averages), squeeze=False)[0]
    for axis, name in zip(axes, averages, strict=True):
        for index, (row, twin) in enumerate(pairs.items()):
            strengths = [_strength(scores, twin), _strength(scores, row)]
            means = [scores.mean(twin, name), scores.mean(row, name)]
            shift = (index - (len(pairs) - 1) / 2) * 0.03
            axis.errorbar(
                np.array(strengths) + shift, [mean.value for mean in means], yerr=[mean.half for mean in means],
                capsize=3,
                markersize=6, label=benchmark.row(row).title, **series(index),
            )  # fmt: skip
        axis.set_title(name)
        axis.set_xlabel("misalignment of the generated images")
        axis.set_xticks(sorted({_strength(scores, row) for pair in pairs.items() for row in pair}))
        axis.margins(x=0.2)
    axes[0].set_ylabel("mIoU (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    page.legend(dict(zip(labels, handles, strict=True)))
    page.lay_out()


def _strength(scores: Scores, row: str) -> float:
    benchmark = scores.benchmark
    return benchmark.domains[benchmark.row(row).generated or benchmark.generated].misalignment


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


def curve_figure(page: Page, scores: Scores, panels: list[tuple[str, str]], caption: str) -> None:
    """One panel a logged value (name, label): mean over seeds as a line, range over seeds as a band."""
    page.caption(caption)
    curves = {row: read_curves(scores.records, row) for row in shown_rows(scores)}
    axes = page.figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, label) in zip(axes, panels, strict=True):
        drawn = False
        for index, (row, found) in enumerate(curves.items()):
            if name in found:
                steps, values = found[name]
                style = series(index)
                axis.plot(steps, np.nanmean(values, axis=0), markevery=max(1, len(steps) // 8),
                          label=scores.benchmark.row(row).title, **style)  # fmt: skip
                axis.fill_between(
                    steps, np.nanmin(values, 0), np.nanmax(values, 0), color=style["color"], alpha=0.2, lw=0
                )
                drawn = True
        if not drawn:
            axis.text(
                0.5,
                0.5,
                "not logged by any\nfinished run",
                ha="center",
                va="center",
                transform=axis.transAxes,
                color=GREY,
            )
        axis.set_title(label)
        axis.set_xlabel("iteration")
    found_handles = {
        label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    page.legend(found_handles)
    page.lay_out()
