"""Two rows side by side: on every target and average, on every class, or on every condition; B minus A, paired.

The two may come from two results folders, e.g. from before and after an upgrade. They are paired by seed and image all
the same, so both must have been evaluated by the same protocol on the same images; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis.stats import bootstrap
from flexseg.analysis.stats.definitions import Counts, Quantity
from flexseg.analysis.stats.domains import class_names, class_places
from flexseg.analysis.stats.metrics import iou_of_counts, mean_iou_of_counts, nanmean
from flexseg.analysis.stats.records import Records, load_records, seeds_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, Mean, blocked_noise, paired_interval, t_interval, with_holm
from flexseg.analysis.stats.verdict import judged
from flexseg.benchmark import Benchmark
from flexseg.benchmark.identity import differences
from flexseg.errors import UserError, did_you_mean

Floats = NDArray[np.float64]
Per = Literal["target", "class", "condition"]


@dataclass(frozen=True)
class Line:
    """One line of a comparison; ``group`` is the heading under which it stands."""

    label: str
    group: str
    a: Mean
    b: Mean
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """``b`` minus ``a``: their titles, the lines, one sentence of verdict, and what to know besides.

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

    The other rows serve to know how noisy a run is, as in every table.

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
        if ours is None or theirs is None:
            continue
        if ours.images != theirs.images or not np.array_equal(ours.counts[:, 1], theirs.counts[:, 1]):
            raise UserError(
                f"{there.results} and {here.results} hold other test images or labels of target {target} "
                f"({len(theirs.images)} and {len(ours.images)} images), so the difference would be of the images, not "
                "of the runs: evaluate both on the same data"
            )


def _changes(here: Records, there: Records, a: str, b: str) -> list[str]:
    """What else differs between the runs of two folders: their definitions and the code that made them."""
    notes = []
    theirs = next((run.info for run in there.of_row(a) if run.status == "finished"), {})
    ours = next((run.info for run in here.of_row(b) if run.status == "finished"), {})
    both = theirs and ours and a == b  # rows differ anyway
    leaves = differences(_defined(theirs), _defined(ours)) if both else []
    found = [f"{place}: {_short(before)} → {_short(after)}" for place, before, after in leaves]
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        notes.append(f"Defined differently: {'; '.join(found[:4])}{more}.")
    if theirs and ours and a == b and theirs.get("library") != ours.get("library"):
        notes.append(f"Made by other code of the library: {theirs.get('library')} there, {ours.get('library')} here.")
    return notes


def _defined(info: Mapping[str, Any]) -> dict[str, Any]:
    definition = info.get("definition")
    return {k: v for k, v in definition.items() if k not in ("row", "seed")} if isinstance(definition, dict) else {}


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def check_per(name: str) -> Per:
    """``name`` as one of the ways to compare.

    Raises:
        UserError: it is none of them.
    """
    known: tuple[Per, ...] = ("target", "class", "condition")
    for each in known:
        if name == each:
            return each
    raise UserError(f"nothing can be compared per {name!r}{did_you_mean(name, known)}: choose {', '.join(known)}")


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


def compare(scores: Scores, a: str, b: str, quantity: str = "mIoU", per: Per = "target") -> Comparison:
    """``b`` minus ``a``, paired over seeds and test images, with the verdict on the main average.

    Raises:
        UserError: an unknown quantity; one other than mIoU per class or condition; no target has conditions.
    """
    wanted = find_quantity(scores, quantity)
    if per != "target" and wanted.name != "mIoU":
        raise UserError(f"--per {per} compares IoU: leave --quantity {quantity!r} out, or take --per target")
    main = scores.against(b, a, wanted.name)[scores.main]
    if per == "target":
        lines, family, what = _per_target(scores, a, b, wanted.name), "targets", wanted.name
    elif per == "class":
        lines, family = _per_class(scores, a, b), "classes"
        what = f"IoU of each class, mean over {', '.join(scores.members(scores.main))},"
    else:
        lines, family, what = _per_condition(scores, a, b), "conditions", "mIoU on the images of each condition"
    titles = {row: scores.benchmark.row(row).title for row in (a, b)}
    sides = {"A": a, "B": b}
    notes = [f"{side}, {note}." for side, row in sides.items() for note in scores.records.notes(row)]
    older = [f"{side} ({seeds})" for side, row in sides.items() if (seeds := _other_code(scores, row))]
    if older:
        notes.append(f"Made by other code of the library than today's: {', '.join(older)}.")
    sentence = f"“{titles[b]}” against “{titles[a]}”, {wanted.name} on {scores.main}: "
    sentence += judged(main, "it is higher", "it is lower") + "."
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


def _per_class(scores: Scores, a: str, b: str) -> list[Line]:
    """IoU of each class, mean over those of the main average's targets in whose truth it occurs."""
    targets, places = scores.members(scores.main), class_places(scores)
    images = [min(scores.images(target) for target in targets)] * len(places)

    def scored(counts: NDArray[Any]) -> Floats:
        return iou_of_counts(counts)[..., places]

    return _paired(scores, a, b, targets, "classes", scored, class_names(scores), images, "classes")


def _per_condition(scores: Scores, a: str, b: str) -> list[Line]:
    """mIoU on the images of each condition, for the targets that have several."""
    lines: list[Line] = []
    for target in scores.benchmark.targets:
        conditions = scores.conditions(target)
        if len(conditions) > 1:
            names, images = list(conditions), list(conditions.values())
            lines += _paired(scores, a, b, [target], "conditions", mean_iou_of_counts, names, images, target)
    if not lines:
        raise UserError(f"no evaluated target of benchmark {scores.benchmark.name} has more than one condition")
    adjusted = with_holm([line.difference for line in lines])
    return [replace(line, difference=difference) for line, difference in zip(lines, adjusted, strict=True)]


def _paired(
    scores: Scores,
    a: str,
    b: str,
    targets: Sequence[str],
    counts: Counts,
    function: Callable[[NDArray[Any]], Floats],
    labels: Sequence[str],
    images: Sequence[int],
    group: str,
) -> list[Line]:
    """A line a label. ``function``: counts (..., L, …) → a fraction for each of L labels (..., L).

    The mean over ``targets`` is over those where the label occurs. A resampling in which it occurs nowhere is left out.
    """
    benchmark = scores.benchmark
    draws = {t: bootstrap.image_weights(t, scores.images(t), bootstrap.FEWER) for t in targets if scores.images(t)}

    def of_run(row: str, seed: int) -> Floats:
        run = scores.records.runs.get((row, seed))
        if run is None or any(target not in run.targets for target in targets):
            return np.full(len(labels), np.nan)
        return _over_targets([100 * function(run.targets[target].total(counts)) for target in targets])

    def resampled(row: str, seed: int) -> Floats:
        found = scores.records.runs[row, seed].targets
        parts = [100 * function(bootstrap.resampled(draws[t], found[t].per_image(counts))) for t in targets]
        return _over_targets(parts)

    values = {row: np.array([of_run(row, seed) for seed in benchmark.seeds]) for row in benchmark.rows}
    both = np.flatnonzero(np.isfinite(values[b]).any(1) & np.isfinite(values[a]).any(1))
    seeds = [benchmark.seeds[index] for index in both]
    blank = np.zeros((2, 0, len(labels)))
    replicates = np.stack([resampled(b, s) - resampled(a, s) for s in seeds], axis=1) if seeds else blank
    lines = []
    for place, label in enumerate(labels):
        pairs = (values[b] - values[a])[both, place]
        drawn = replicates[:, :, place]
        noise = blocked_noise(np.array([values[row][:, place] for row in benchmark.rows]))
        known = np.isfinite(pairs).all()
        difference = paired_interval(
            pairs if known else pairs[:0],
            drawn[np.isfinite(drawn).all(1)] if known else drawn[:, :0],
            images[place],
            noise,
        )
        a_mean, b_mean = t_interval(values[a][:, place]), t_interval(values[b][:, place])
        lines.append(Line(label, group, a_mean, b_mean, difference))
    adjusted = with_holm([line.difference for line in lines])
    return [replace(line, difference=difference) for line, difference in zip(lines, adjusted, strict=True)]


def _over_targets(parts: Sequence[Floats]) -> Floats:
    """Mean over targets of what is known. T × (..., L) → (..., L)"""
    return nanmean(np.stack(parts, axis=-1))
