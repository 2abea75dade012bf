"""Two rows side by side: on every target and average, on every class, or on every condition; B minus A, paired.

The two may come from two results folders, e.g. from before and after an upgrade. They are still paired by seed and
image, so both must have been evaluated by the same protocol on the same images; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from flexseg.analysis.stats import bootstrap
from flexseg.analysis.stats.definitions import Quantity, pick
from flexseg.analysis.stats.domains import class_set
from flexseg.analysis.stats.metrics import iou_of_counts, mean_iou_of_counts
from flexseg.analysis.stats.records import Records, load_records, seeds_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, Mean, apply_holm
from flexseg.analysis.stats.verdict import conclude
from flexseg.benchmark import Benchmark
from flexseg.benchmark.identity import differences
from flexseg.errors import UserError, did_you_mean

Per = Literal["target", "class", "condition"]


@dataclass(frozen=True)
class Line:
    """One line of a comparison, under the heading ``group``."""

    label: str
    group: str
    a: Mean
    b: Mean
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """``b`` minus ``a``: their titles, the lines, a verdict of one sentence, and notes.

    ``what`` is the quantity in words, ``holm_over`` what the p-values are corrected over.
    """

    a: str
    b: str
    quantity: Quantity
    what: str
    per: Per
    lines: list[Line]
    holm_over: str
    verdict: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """The records that hold both rows, and the names of the two in them."""

    records: Records
    a: str
    b: str
    notes: list[str]


def load_pair(benchmark: Benchmark, results: Path, a: str, b: str, other: Path | None = None) -> Pair:
    """The records of all rows of ``benchmark``, ``a`` and ``b`` among them; ``a`` from ``other`` where that is given.

    The other rows tell how noisy a run is, as in every table.

    Raises:
        UserError: the same row twice; ``other`` holds no run of ``a``, or was evaluated by another protocol or on
            other images.
    """
    if other is None and a == b:
        raise UserError(f"{a!r} cannot be compared with itself: name two rows, or its other results with --other")
    records = load_records(benchmark, results)
    if other is None:
        return Pair(records, a, b, [])
    theirs = _load_other(benchmark, a, other, results)
    _same_images(records, theirs, a, b)
    name = f"{a} in {other}"
    row = benchmark.row(a)
    rows = benchmark.rows | {name: row.model_copy(update={"title": f"{row.title}, {other}"})}
    runs = records.runs | {(name, seed): replace(run, row=name) for (_, seed), run in theirs.runs.items()}
    merged = replace(records, benchmark=benchmark.model_copy(update={"rows": rows}), runs=runs)
    return Pair(merged, name, b, _changes(records, theirs, a, b))


def _load_other(benchmark: Benchmark, row: str, other: Path, results: Path) -> Records:
    if other.resolve() == results.resolve():
        raise UserError(f"--other {other} is the results folder itself: name another one")
    home = other / benchmark.trained_as
    if not home.is_dir():
        raise UserError(
            f"--other {other}: there is no folder {home}. Name the folder that holds the other results of "
            f"benchmark {benchmark.name}, as {results} holds these"
        )
    if not list((home / row).glob("seed-*/run.json")):
        there = sorted({path.parents[1].name for path in home.glob("*/seed-*/run.json")})
        raise UserError(
            f"{home} has no finished run of row {row!r}{did_you_mean(row, there)}. Rows there: {', '.join(there)}"
        )
    alone = benchmark.model_copy(update={"rows": {row: benchmark.row(row)}})
    return load_records(alone, other, as_recorded=True)


def _same_images(here: Records, there: Records, a: str, b: str) -> None:
    for target in here.benchmark.targets:
        ours = next((run.targets[target] for run in here.of_row(b) if target in run.targets), None)
        theirs = next((run.targets[target] for run in there.of_row(a) if target in run.targets), None)
        if ours is not None and theirs is not None and not ours.same_images(theirs):
            raise UserError(
                f"{there.results} and {here.results} hold other test images or labels of target {target} "
                f"({len(theirs.images)} and {len(ours.images)} images), so the difference would be of the images, not "
                "of the runs: evaluate both on the same data"
            )


def _changes(here: Records, there: Records, a: str, b: str) -> list[str]:
    """What else differs between the runs of one row in two folders: their definitions and the code that made them."""
    theirs = next((run.info for run in there.finished(a)), {})
    ours = next((run.info for run in here.finished(b)), {})
    if a != b or not theirs or not ours:  # two rows differ anyway
        return []
    notes, leaves = [], differences(_definition(theirs), _definition(ours))
    found = [f"{place}: {_shorten(before)} → {_shorten(after)}" for place, before, after in leaves]
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        notes.append(f"Defined differently: {'; '.join(found[:4])}{more}.")
    if theirs.get("library") != ours.get("library"):
        notes.append(f"Made by other code of the library: {theirs.get('library')} there, {ours.get('library')} here.")
    return notes


def _definition(info: Mapping[str, Any]) -> dict[str, Any]:
    definition = info.get("definition")
    return {k: v for k, v in definition.items() if k not in ("row", "seed")} if isinstance(definition, dict) else {}


def _shorten(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def check_per(name: str) -> Per:
    """``name`` as one of the ways to compare.

    Raises:
        UserError: it is none of them.
    """
    known = get_args(Per)
    if name not in known:
        raise UserError(f"nothing can be compared per {name!r}{did_you_mean(name, known)}: choose {', '.join(known)}")
    return cast(Per, name)


def find_quantity(scores: Scores, name: str) -> Quantity:
    """The quantity called ``name``, whatever its capitals.

    Raises:
        UserError: there is none; names the nearest and lists all.
    """
    known = {each.lower(): quantity for each, quantity in scores.quantities.items()}
    if name.lower() not in known:
        raise UserError(
            f"there is no quantity {name!r}{did_you_mean(name, scores.quantities)}. "
            f"Quantities: {', '.join(scores.quantities)}"
        )
    return known[name.lower()]


def compare(
    scores: Scores, a: str, b: str, quantity: str = "mIoU", per: Per = "target", target: str = ""
) -> Comparison:
    """``b`` minus ``a``, paired over seeds and test images, with the verdict on the main average.

    Args:
        target: a target or average, for classes: by default the main average.

    Raises:
        UserError: an unknown quantity or target; one other than mIoU per class or condition; no target has conditions.
    """
    if target and (target not in scores.columns or per != "class"):
        hint = f"{did_you_mean(target, scores.columns)}: choose {', '.join(scores.columns)}"
        raise UserError(f"there is no target {target!r}{hint}" if per == "class" else "--target goes with --per class")
    place = target or scores.main
    wanted = find_quantity(scores, quantity)
    if per != "target" and wanted.name != "mIoU":
        raise UserError(f"--per {per} compares IoU: leave --quantity {quantity!r} out, or take --per target")
    main = scores.against(b, a, wanted.name)[scores.main]
    if per == "target":
        lines, family, what = _per_target(scores, a, b, wanted.name), "targets", wanted.name
    elif per == "class":
        lines, family = _per_class(scores, a, b, place), "classes"
        what = f"IoU of each class, mean over {', '.join(scores.members(place))},"
    else:
        lines, family, what = _per_condition(scores, a, b), "conditions", "mIoU on the images of each condition"
    titles = {row: scores.benchmark.row(row).title for row in (a, b)}
    sides = {"A": a, "B": b}
    notes = [f"{side}, {note}." for side, row in sides.items() for note in scores.records.notes(row)]
    older = [f"{side} ({seeds})" for side, row in sides.items() if (seeds := _other_code(scores, row))]
    if older:
        notes.append(f"Made by other code of the library than today's: {', '.join(older)}.")
    sentence = f"“{titles[b]}” against “{titles[a]}”, {wanted.name} on {scores.main}: "
    sentence += conclude(main, "it is higher", "it is lower") + "."
    return Comparison(titles[a], titles[b], wanted, what, per, lines, family, sentence, notes)


def _other_code(scores: Scores, row: str) -> str:
    seeds = [run.seed for run in scores.records.of_row(row) if run.other_code]
    return seeds_text(seeds) if seeds else ""


def _per_target(scores: Scores, a: str, b: str, quantity: str) -> list[Line]:
    found = scores.against(b, a, quantity)
    return [
        Line(
            column,
            "averages" if column in scores.benchmark.averages else "targets",
            scores.mean(a, column, quantity),
            scores.mean(b, column, quantity),
            found[column],
        )
        for column in scores.columns
    ]


def _per_class(scores: Scores, a: str, b: str, column: str) -> list[Line]:
    """IoU of each class, mean over those of the targets of ``column`` in whose truth it occurs."""
    classes = [
        Quantity(name, "classes", pick(iou_of_counts, place), partial=True)
        for place, name in class_set(scores).names.items()
    ]
    return _apply_holm(_per_part(scores, a, b, column, "classes", dict.fromkeys(classes, 0)))


def _per_condition(scores: Scores, a: str, b: str) -> list[Line]:
    """mIoU on the images of each condition, for the targets that have several."""
    lines: list[Line] = []
    for target in scores.benchmark.targets:
        conditions = scores.conditions(target)
        if len(conditions) > 1:
            parts = {
                Quantity(name, "conditions", pick(mean_iou_of_counts, place)): images
                for place, (name, images) in enumerate(conditions.items())
            }
            lines += _per_part(scores, a, b, target, target, parts)
    if not lines:
        raise UserError(f"no evaluated target of benchmark {scores.benchmark.name} has more than one condition")
    return _apply_holm(lines)


def _apply_holm(lines: list[Line]) -> list[Line]:
    adjusted = apply_holm([line.difference for line in lines])
    return [replace(line, difference=difference) for line, difference in zip(lines, adjusted, strict=True)]


def _per_part(scores: Scores, a: str, b: str, column: str, group: str, parts: Mapping[Quantity, int]) -> list[Line]:
    """One line for each of ``parts`` of mIoU on ``column``, given with the images that it is about (0 for all)."""
    own = replace(scores, replicates=min(scores.replicates, bootstrap.FEWER), extra=tuple(parts))
    return [
        Line(
            part.name,
            group,
            own.mean(a, column, part.name),
            own.mean(b, column, part.name),
            own.contrast({b: 1.0, a: -1.0}, column, part.name, images),
        )
        for part, images in parts.items()
    ]
