"""The data of the page: scores as lists, numbers and strings, ready for JSON.

The page gets the value of every seed and derives means, intervals and differences itself, by the formulas of
``flexseg.analysis.stats.statistics``; only what needs the test images (the resampled intervals against the benchmark's
reference) is computed here. A missing value is ``None``. Axes are always rows × columns × seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from flexseg.analysis.stats.domains import class_names, class_places, class_set, images_text, target_title
from flexseg.analysis.stats.published import heading, published_beside, published_columns
from flexseg.analysis.stats.records import Records, RunRecords
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference
from flexseg.analysis.tables.cost import COSTS
from flexseg.analysis.tables.origins import value_text
from flexseg.analysis.web.pictures import pictures

Json = dict[str, Any]
MOST_POINTS = 60
"""Points that a training curve keeps: more than a plot on a screen can show apart."""
RECORDED = (*COSTS, "fingerprint", "device", "started", "finished")
"""What the page takes from ``run.json`` as it is."""


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
        # Each set of options once: runs hold its key.
        "options": {json.dumps(each): each for run in scores.records.runs.values() if (each := _options(run))},
        "curves": _curves(scores.records),
        "costs": [
            [key, _cost_title(heading, meaning), factor] for key, (heading, meaning, factor, _) in _costs_in_order()
        ],
        "classes": _classes(scores),
        "pictures": pictures(scores),
    }


def _costs_in_order() -> list[tuple[str, tuple[str, str, float, int]]]:
    """Processor time first: wall time depends on what else the machine did."""
    return sorted(COSTS.items(), key=lambda cost: cost[0] != "train_cpu_seconds")


def _cost_title(heading: str, meaning: str) -> str:
    """The meaning of a cost, short enough for an axis, with the unit of its heading."""
    _, bracket, unit = heading.partition(" (")
    return meaning.split(",")[0] + bracket + unit


def _classes(scores: Scores) -> list[Json]:
    """Name and colour by ``train_id``; a class that another one is merged into goes by that one's name."""
    scored = class_set(scores)
    names, merge, colours = scored.names, scored.merge, scored.colours
    return [
        {"name": names[merge[place]], "colour": "#{:02x}{:02x}{:02x}".format(*colours[merge[place]]),
         "shown": merge[place] == place}
        for place in range(len(merge))
    ]  # fmt: skip


def quantities(scores: Scores) -> list[Json]:
    """The quantities that any record holds: name, unit, decimals, better direction, explanation."""
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
        "halves": _halves(scores, row),
        "otherCode": records.other_code(row),
        "runs": [_run(records, run) for run in _run_of_each_seed(scores, row)],
    }


def _halves(scores: Scores, row: str) -> dict[str, list[float | None]] | None:
    """Half widths over the test images of one network from elsewhere, columns of each quantity; else None."""
    if not scores.is_fixed(row):
        return None
    names = [each["name"] for each in quantities(scores)]
    return {name: numbers([scores.mean(row, column, name).half for column in scores.columns]) for name in names}


def _generated(records: Records, run: RunRecords) -> str:
    """The generated images that a run was trained on; empty if it saw none."""
    domain = records.benchmark.generated_of(run.row)
    return domain if domain in (run.info.get("data") or {}) else ""


def _run_of_each_seed(scores: Scores, row: str) -> list[RunRecords]:
    """The runs of a row by seed; one network from elsewhere stands for all, and a seed may not be planned for a row."""
    found, benchmark = {run.seed: run for run in scores.records.of_row(row)}, scores.benchmark
    for seed in benchmark.seeds[len(benchmark.planned_seeds(row)) :]:
        found[seed] = RunRecords(row, seed, Path(), Path(), "missing", "not planned: the claims ask for fewer seeds")
    return [found.get(seed) or found[benchmark.seeds_of(row)[0]] for seed in benchmark.seeds]


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
    for target in scores.benchmark.targets:
        title, conditions = target_title(scores, target), scores.conditions(target)
        if conditions:
            columns = [{"title": name, "note": f"{count} images"} for name, count in conditions.items()]
            values = [scores.condition_mious(row, target) for row in scores.benchmark.rows]
            found.append({"key": f"conditions/{target}", "title": f"{title}: conditions", "quantity": "mIoU",
                          "columns": columns, "values": _transpose(values)})  # fmt: skip
            columns = [{"title": name, "note": ""} for name in class_names(scores)]
            values = [scores.class_ious(row, target)[:, places] for row in scores.benchmark.rows]
            found.append({"key": f"classes/{target}", "title": f"{title}: classes", "quantity": "IoU",
                          "columns": columns, "values": _transpose(values)})  # fmt: skip
    return found


def _transpose(rows: list[NDArray[np.float64]]) -> list[list[list[float | None]]]:
    """Seeds × columns of each row → rows × columns × seeds."""
    return [[numbers(column) for column in row.T] for row in rows]


def _published(scores: Scores) -> Json | None:
    """The published numbers that correspond to rows, rows × columns; None if there are none."""
    beside = published_beside(scores.records)
    columns = published_columns(scores.benchmark, beside)
    if not columns:
        return None
    values = [[numbers.get(column) for column in columns] for numbers in beside.values()]
    return {"heading": heading(scores.benchmark), "columns": columns, "values": values}


def _run(records: Records, run: RunRecords) -> Json:
    """What the page says of a run: as ``run.json`` has it, under its names, and what follows from it."""
    git, machine = run.info.get("git") or {}, run.info.get("machine") or {}
    recorded = {key: run.info.get(key) for key in RECORDED}
    return recorded | {
        "status": run.status,
        "reason": run.reason,
        "absent": [f"{target}: {reason}" for target, reason in run.absent.items()],
        "folder": str(PurePosixPath(records.results.name, records.benchmark.trained_as, run.row, f"seed-{run.seed}")),
        "commit": git.get("commit"),
        "dirty": bool(git.get("dirty")),
        "code": run.info.get("library"),
        "otherCode": run.other_code,
        "processor": machine.get("processor"),
        "generated": _generated(records, run),
        "options": json.dumps(_options(run)),
    }


def _options(run: RunRecords) -> list[list[str]]:
    """Name, value, default, origin and explanation of each option."""
    return [
        [name, value_text(each.get("value")), value_text(each.get("default")), str(each.get("origin") or ""),
         " ".join(str(each.get("help") or "").split())]
        for name, each in run.options.items()
    ]  # fmt: skip


def _curves(records: Records) -> Json:
    """What was logged while training: ``terms``, and of each row and seed the iterations and each term's values."""
    terms: set[str] = set()
    rows: list[list[Json]] = []
    for row in records.benchmark.rows:
        rows.append([])
        for seed in records.benchmark.seeds:
            lines = records.runs[row, seed].log() if (row, seed) in records.runs else []
            if len(lines) > MOST_POINTS:  # evenly spaced ones, the first and the last among them
                lines = [lines[round(place)] for place in np.linspace(0, len(lines) - 1, MOST_POINTS)]
            names = dict.fromkeys(name for line in lines for name in line if name != "iteration")
            values = {name: numbers([line.get(name) for line in lines]) for name in names}
            rows[-1].append({"iterations": [line["iteration"] for line in lines], "terms": values})
            terms.update(names)
    return {"terms": sorted(terms, key=lambda term: (not term.startswith("loss"), term)), "rows": rows}


def numbers(values: Iterable[float | None]) -> list[float | None]:
    """``values`` with six significant digits, and None for what is not a finite number."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in values]
