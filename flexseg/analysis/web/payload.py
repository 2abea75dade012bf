"""From scores to what the page computes with: lists, numbers and strings, ready for JSON.

The page gets the value of every seed and derives means, intervals and differences itself, by the formulas of
``flexseg.analysis.stats.statistics``; only what needs the test images (the resampled intervals against the benchmark's
reference) is computed here. A missing value is ``None``. Axes are always rows × columns × seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from scipy.special import stdtrit

from flexseg.analysis.stats.domains import class_names, class_places, class_set, images_text, target_title
from flexseg.analysis.stats.metrics import class_iou, mean_iou
from flexseg.analysis.stats.published import heading, published_beside, published_columns
from flexseg.analysis.stats.records import Records, RunRecords, TargetRecord
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference
from flexseg.analysis.tables.origins import value_text
from flexseg.analysis.web.pictures import pictures
from flexseg.classes import CLASSES

Json = dict[str, Any]
MOST_POINTS = 60
"""Points that a training curve keeps: more than a plot on a screen can show apart."""


def payload(scores: Scores) -> Json:
    """Everything that the page's scripts read, as one JSON-able dictionary."""
    benchmark, known = scores.benchmark, quantities(scores)
    names = [each["name"] for each in known]
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "seeds": list(benchmark.seeds),
        "reference": list(benchmark.rows).index(benchmark.reference),
        "main": scores.columns.index(scores.main),
        # quantiles[f] is t(0.975; f), so that the page needs no distribution of its own.
        "quantiles": [None, *[round(float(stdtrit(f, 0.975)), 6) for f in range(1, max(len(benchmark.seeds), 2))]],
        "quantities": known,
        "rows": [_row(scores, row) for row in benchmark.rows],
        "columns": [_column(scores, column) for column in scores.columns],
        "values": {name: _values(scores, name) for name in names},
        "differences": {name: _differences(scores, name) for name in names},
        "slices": _slices(scores),
        "published": _published(scores),
        "options": _option_sets(scores.records),
        "curves": _curves(scores.records),
        "classes": _classes(scores),
        "pictures": pictures(scores),
    }


def _classes(scores: Scores) -> list[Json]:
    """Name and colour by ``train_id``; a class that another one is merged into goes by that one's name."""
    names, merge = class_set(scores).names, class_set(scores).merge
    return [
        {"name": names[merge[place]], "colour": "#{:02x}{:02x}{:02x}".format(*CLASSES[merge[place]].colour),
         "shown": merge[place] == place}
        for place in range(len(CLASSES))
    ]  # fmt: skip


def quantities(scores: Scores) -> list[Json]:
    """What can stand in a cell, as far as any record holds it: name, unit, decimals, better direction, explanation."""
    return [
        {"name": name, "unit": each.unit, "digits": each.digits, "higher": each.higher_is_better,
         "description": each.description}
        for name, each in scores.quantities.items()
        if name == "mIoU" or any(
            np.isfinite(scores.per_seed(row, target, name)).any()
            for row in scores.benchmark.rows for target in scores.benchmark.targets
        )
    ]  # fmt: skip


def _column(scores: Scores, column: str) -> Json:
    members = [target_title(scores, member) for member in scores.members(column)]
    average = column in scores.benchmark.averages
    note = f"mean of {', '.join(members)}" if average else images_text(scores, column)
    return {"key": column, "title": target_title(scores, column), "note": note, "average": average}


def _row(scores: Scores, row: str) -> Json:
    benchmark, records = scores.benchmark, scores.records
    resolved = benchmark.row(row)
    return {
        "key": row,
        "title": resolved.title,
        "method": resolved.method,
        "notes": records.notes(row),
        "otherCode": records.other_code(row),
        "runs": [_run(records, records.runs[row, seed]) for seed in benchmark.seeds],
    }


def _values(scores: Scores, name: str) -> list[list[list[float | None]]]:
    """A quantity of every run. → rows × columns × seeds"""
    return [[numbers(scores.per_seed(row, column, name)) for column in scores.columns] for row in scores.benchmark.rows]


def _differences(scores: Scores, name: str) -> list[list[list[Any]]]:
    """The paired difference to the benchmark's reference: value, low, high, p (after Holm), n, shown.

    → rows × columns × 6; no columns for the reference itself.
    """
    benchmark = scores.benchmark
    found: list[list[list[Any]]] = []
    for row in benchmark.rows:
        against = scores.against(row, benchmark.reference, name) if row != benchmark.reference else {}
        found.append([_difference(against[column]) for column in scores.columns if against])
    return found


def _difference(difference: Difference) -> list[Any]:
    p = difference.p if math.isnan(difference.p_holm) else difference.p_holm
    return [*numbers([difference.value, difference.low, difference.high, p]), difference.n, bool(difference.shown)]


def _slices(scores: Scores) -> list[Json]:
    """The conditions and the classes of each target: a heading, its columns, and mIoU or IoU of each seed."""
    found, places = [], class_places(scores)

    def of_classes(record: TargetRecord) -> list[float]:
        return [*(100 * class_iou(record.confusion)[places])]

    for target in scores.benchmark.targets:
        title, conditions = target_title(scores, target), scores.conditions(target)
        if conditions:
            columns = [{"title": name, "note": f"{count} images"} for name, count in conditions.items()]

            def of_conditions(record: TargetRecord, names: Iterable[str] = tuple(conditions)) -> list[float]:
                return [100 * float(mean_iou(record.conditions[name])) for name in names]

            values = _stack(scores, target, of_conditions, len(columns))
            found.append({"key": f"conditions/{target}", "title": f"{title}: conditions", "quantity": "mIoU",
                          "columns": columns, "values": values})  # fmt: skip
            columns = [{"title": name, "note": ""} for name in class_names(scores)]
            values = _stack(scores, target, of_classes, len(columns))
            found.append({"key": f"classes/{target}", "title": f"{title}: classes", "quantity": "IoU",
                          "columns": columns, "values": values})  # fmt: skip
    return found


def _stack(scores: Scores, target: str, function: Callable[[TargetRecord], list[float]], width: int) -> list[Any]:
    """``function`` of every run's record on ``target``. → rows × columns × seeds"""
    rows = []
    for row in scores.benchmark.rows:
        records = [scores.records.runs[row, seed].targets.get(target) for seed in scores.benchmark.seeds]
        of_seeds = [numbers(function(record)) if record else [None] * width for record in records]
        rows.append([list(column) for column in zip(*of_seeds, strict=True)])
    return rows


def _published(scores: Scores) -> Json | None:
    """The published numbers that correspond to rows, rows × columns; None if there are none."""
    beside = published_beside(scores.records)
    columns = published_columns(scores.benchmark, beside)
    if not columns:
        return None
    values = [[numbers.get(column) for column in columns] for numbers in beside.values()]
    return {"heading": heading(scores.benchmark), "columns": columns, "values": values}


def _run(records: Records, run: RunRecords) -> Json:
    info, benchmark = run.info, records.benchmark
    git, machine = info.get("git") or {}, info.get("machine") or {}
    return {
        "status": run.status,
        "reason": run.reason,
        "absent": [f"{target}: {reason}" for target, reason in run.absent.items()],
        "folder": str(PurePosixPath(records.results.name, benchmark.trained_as, run.row, f"seed-{run.seed}")),
        "fingerprint": info.get("fingerprint"),
        "commit": git.get("commit"),
        "dirty": bool(git.get("dirty")),
        "codeDigest": info.get("library"),
        "otherCode": run.other_code,
        "device": info.get("device"),
        "processor": machine.get("processor"),
        "started": info.get("started"),
        "finished": info.get("finished"),
        "seconds": info.get("train_seconds"),
        "cpuSeconds": info.get("train_cpu_seconds"),
        "stepFlops": info.get("step_flops"),
        "inferenceFlops": info.get("inference_flops"),
        "inferenceSeconds": info.get("inference_seconds"),
        "rate": info.get("images_per_second"),
        "memory": info.get("peak_memory_bytes"),
        "parameters": info.get("parameters"),
        "generated": benchmark.row(run.row).generated or benchmark.generated,
        "options": _option_key(run),
    }


def _options(run: RunRecords) -> list[list[Any]]:
    return [
        [name, value_text(each.get("value")), value_text(each.get("default")), str(each.get("origin") or ""),
         " ".join(str(each.get("help") or "").split())]
        for name, each in run.options.items()
    ]  # fmt: skip


def _option_key(run: RunRecords) -> str:
    return json.dumps(_options(run)) if run.options else ""


def _option_sets(records: Records) -> Json:
    """The options that runs resolved, each set once: name, value, default, origin, explanation."""
    return {_option_key(run): _options(run) for run in records.runs.values() if run.options}


def _curves(records: Records) -> Json:
    """What was logged while training: ``terms``, and of each row and seed the iterations and each term's values."""
    terms: dict[str, None] = {}
    rows = []
    for row in records.benchmark.rows:
        runs = []
        for run in records.of_row(row):
            lines = _thinned(_log(run))
            names = dict.fromkeys(name for line in lines for name in line if name != "iteration")
            terms |= names
            runs.append(
                {
                    "iterations": [line["iteration"] for line in lines],
                    "terms": {name: numbers([line.get(name) for line in lines]) for name in names},
                }
            )
        rows.append(runs)
    return {"terms": sorted(terms, key=lambda term: (not term.startswith("loss"), term)), "rows": rows}


def _log(run: RunRecords) -> list[Json]:
    """The lines of ``train.jsonl`` that hold an iteration; a torn last line of a killed run is left out."""
    path = run.folder / "train.jsonl"
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("iteration"), int):
            lines.append({name: value for name, value in line.items() if isinstance(value, int | float)})
    return lines


def _thinned(lines: list[Json]) -> list[Json]:
    """At most :data:`MOST_POINTS` of ``lines``, evenly spaced, the first and the last among them."""
    if len(lines) <= MOST_POINTS:
        return lines
    step = (len(lines) - 1) / (MOST_POINTS - 1)
    return [lines[round(place * step)] for place in range(MOST_POINTS)]


def numbers(values: Iterable[float | None]) -> list[float | None]:
    """``values`` with six significant digits, and None for what is not a finite number."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in values]
