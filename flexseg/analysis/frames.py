"""Results as tidy pandas frames: one observation per line, for notebooks and for the figures.

:func:`load_scores` reads a results folder; each ``frame_*`` function makes one frame of it. Columns that return:

======================  ==============================================================================================
``row``, ``title``      the benchmark's row: its name, and how it is called in tables and figures
``target``              name of a target domain or of an average over targets
``target_title``        how that is called in tables and figures
``value``               mIoU or IoU in percent unless ``quantity`` or ``measure`` says otherwise; NaN without a run
``low``, ``high``       ends of the 95 % interval: over seeds (t-interval) for a level, over seeds and test images for a
                        paired difference; NaN for a single seed
``n``                   number of seeds
``shown``               whether a difference was shown: its interval excludes zero, for single targets after Holm over
                        the targets; always true for a level
======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flexseg.analysis.stats.claims import Standing, standing
from flexseg.analysis.stats.definitions import ring_names
from flexseg.analysis.stats.domains import class_names, class_places, strength, target_title
from flexseg.analysis.stats.effects import ablation_lines, alignment_pairs, factorial_cells, factorial_effects
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, Mean
from flexseg.analysis.tables.common import difference_record, mean_record
from flexseg.benchmark import load_benchmark, select_rows
from flexseg.errors import UserError, did_you_mean

LEVEL, DIFFERENCE = "mIoU (%)", "difference (points)"
Entry = dict[str, Any]


def load_scores(
    folder: str | Path,
    *,
    benchmarks: str | Path = "benchmarks",
    study: str = "default",
    rows: str = "",
    replicates: int | None = None,
) -> Scores:
    """The scores of the results in ``folder``, e.g. ``results/streetworld``.

    Args:
        folder: results of the benchmark that has the folder's name.
        benchmarks: where ``<name>.yaml`` lies, with the methods' folder beside it.
        study: whose rows are read. rows: these rows instead (``a,b,c``), as on the command line.
        replicates: how often the test images are resampled for intervals; by default as often as for the tables.

    Raises:
        UserError: no such folder, benchmark, study or row; records of another protocol.
    """
    folder = Path(folder)
    if not folder.is_dir():
        near = did_you_mean(folder.name, [each.name for each in folder.parent.glob("*") if each.is_dir()])
        raise UserError(f"there is no results folder {folder}{near}")
    benchmark = select_rows(load_benchmark(folder.resolve().name, Path(benchmarks)), study, rows)
    records = load_records(benchmark, folder.resolve().parent)
    return Scores(records) if replicates is None else Scores(records, replicates)


def frame_scores(scores: Scores, quantity: str = "mIoU") -> pd.DataFrame:
    """One line per row, target or average, and seed: ``seed``, ``quantity``, ``value`` and the common columns."""
    return pd.DataFrame(
        _places(scores, row, column) | {"seed": seed, "quantity": quantity, "value": value}
        for row in scores.benchmark.rows
        for column in scores.columns
        for seed, value in zip(scores.benchmark.seeds, scores.per_seed(row, column, quantity).tolist(), strict=True)
    )


def frame_means(scores: Scores, quantity: str = "mIoU") -> pd.DataFrame:
    """One line per row and target or average: the mean over seeds; ``reference`` marks the reference row."""
    return pd.DataFrame(
        _places(scores, row, column)
        | {"quantity": quantity, "reference": row == scores.benchmark.reference}
        | _level(scores.mean(row, column, quantity))
        for row in scores.benchmark.rows
        for column in scores.columns
    )


def frame_differences(scores: Scores, quantity: str = "mIoU", reference: str = "") -> pd.DataFrame:
    """One line per other row and target or average: its paired difference to ``reference``, by default the benchmark's.

    Beside the common columns: ``reference``, ``p``, ``p_holm`` and ``effect_size``.
    """
    reference = reference or scores.benchmark.reference
    return pd.DataFrame(
        _places(scores, row, column) | {"quantity": quantity, "reference": reference} | _difference(found[column])
        for row in scores.benchmark.rows
        if row != reference
        for found in [scores.against(row, reference, quantity)]
        for column in scores.columns
    )


def frame_classes(scores: Scores) -> pd.DataFrame:
    """One line per row and class: ``class``, its IoU and the ``difference`` to the reference row.

    Means over seeds, then over the targets whose truth holds the class.
    """
    names, places = class_names(scores), class_places(scores)
    reference = scores.class_average(scores.benchmark.reference)
    return pd.DataFrame(
        _row(scores, row) | {"class": name, "value": values[place], "difference": values[place] - reference[place]}
        for row in scores.benchmark.rows
        for values in [scores.class_average(row)]
        for name, place in zip(names, places, strict=True)
    )


def frame_conditions(scores: Scores) -> pd.DataFrame:
    """One line per row, target and condition: ``condition``, its number of ``images``, mIoU, ``difference``."""
    benchmark = scores.benchmark
    return pd.DataFrame(
        _places(scores, row, target)
        | {"condition": condition, "images": images, "value": value, "difference": value - reference}
        for row in benchmark.rows
        for target in benchmark.targets
        for condition, images in scores.conditions(target).items()
        for value in [scores.condition_mean(row, target, condition).value]
        for reference in [scores.condition_mean(benchmark.reference, target, condition).value]
    )


def main_rows(scores: Scores) -> list[str]:
    """The baseline and the full rows, as far as they are selected."""
    ablation = scores.benchmark.ablation
    return [row for row in dict.fromkeys((ablation.none, *ablation.full)) if row in scores.benchmark.rows]


def shown_rows(scores: Scores) -> list[str]:
    """Those of :func:`main_rows` that are evaluated."""
    return [row for row in main_rows(scores) if any(run.targets for run in scores.records.of_row(row))]


def frame_rings(scores: Scores, rows: Sequence[str] = ()) -> pd.DataFrame:
    """Shares of wrong pixels by distance to the boundary: one line per row, target, ring (``x``) and ``measure``.

    The measures are the level and the paired difference to the reference row, which has no line of the second kind.
    ``rows``: by default the baseline and the full rows.
    """
    quantities = {name.removesuffix("-boundary").removeprefix("deep-"): f"{name} error"
                  for name in ring_names(scores.benchmark.protocol)}  # fmt: skip
    return pd.DataFrame(_profile(scores, rows or shown_rows(scores), quantities, "wrong pixels (%)", DIFFERENCE))


def frame_outlines(scores: Scores, rows: Sequence[str] = ()) -> pd.DataFrame:
    """Boundary IoU and boundary F1 by band width in pixels (``x``), with the columns of :func:`frame_rings`."""
    rows, entries = rows or shown_rows(scores), []
    for name in ("IoU", "F1"):
        quantities = {str(d): f"boundary {name} ({d} px)" for d in scores.benchmark.protocol.boundary_tolerances}
        entries += _profile(scores, rows, quantities, f"boundary {name} (%)", f"{name}: {DIFFERENCE}")
    return pd.DataFrame(entries)


def frame_contrasts(scores: Scores) -> pd.DataFrame:
    """What each component and control does: one line per contrast of the ablation table and average.

    ``contrast`` numbers them, ``title`` says what is compared, and ``section`` is the heading in the table.
    """
    lines = [line for line in ablation_lines(scores.records) if line.contrast]
    sources = {twin: row for row, twin in alignment_pairs(scores.records).items()}
    entries, title = [], ""
    for number, line in enumerate(lines):
        title = line.label or title
        words = line.question
        if words.startswith("cost: "):
            source = sources.get(line.row)
            words = f"cost of misalignment for {scores.benchmark.row(source).title if source else title}"
        elif words.startswith("all together"):
            words = f"{title} − baseline"
        elif words.startswith("effect of"):
            words = f"{words.split(':')[0]} in {line.section.removeprefix('Components of ')}"
        found = scores.contrasts(line.contrast)
        place = {"contrast": number, "title": words.replace("this row", title), "section": line.section}
        entries += [_target(scores, name) | place | _difference(found[name]) for name in scores.averages]
    return pd.DataFrame(entries)


def frame_claims(scores: Scores) -> pd.DataFrame:
    """One line per claim, contrast and side, signed so that the claimed direction is above zero.

    ``side``: whose runs, the repository's or these; ``claim``, ``family`` and ``family_title``, ``contrast`` (a
    number) and its ``title``; ``published`` and ``smallest`` sizes; ``verdict``, ``remark``, and the common columns.
    Empty for a benchmark without claims.
    """
    return pd.DataFrame() if scores.benchmark.claimed is None else frame_standing(scores, standing(scores.records))


def frame_standing(scores: Scores, found: Standing) -> pd.DataFrame:
    """:func:`frame_claims`, of claims that were judged before."""
    benchmark, entries = scores.benchmark.whole, []
    assert benchmark.claimed is not None, "asked for the claims of a benchmark without any"
    for side, judged in found.sides.items():
        number = 0
        for each in judged:
            text, several = each.claim.text, len(each.parts) > 1
            for place, part in enumerate(each.parts):
                ends = sorted((part.sign * part.paired.low, part.sign * part.paired.high))
                against = f"against {benchmark.row(part.against).title}"
                title = (f"– {against}" if place else f"{text} – {against}") if several else text
                published = None if part.published is None else part.sign * part.published
                entries.append({
                    "side": side, "claim": each.name, "family": each.claim.family, "contrast": number, "title": title,
                    "family_title": benchmark.claimed.families[each.claim.family],
                    "value": part.sign * part.paired.value, "low": ends[0], "high": ends[1], "n": part.paired.n,
                    "published": published, "smallest": part.smallest, "verdict": each.verdict, "remark": each.remark,
                    "shown": each.verdict != "undecided",
                })  # fmt: skip
                number += 1
    return pd.DataFrame(entries)


def frame_factorial(scores: Scores, full: str) -> pd.DataFrame:
    """Main effects and interactions of the factorial around the row ``full``: one line per effect and average.

    ``title`` names the components of the effect. Empty while a cell of the factorial is missing.
    """
    names = list(scores.benchmark.ablation.components)
    effects = factorial_effects(names, factorial_cells(scores.records, full))
    return pd.DataFrame(
        _target(scores, name) | {"row": full, "title": effect} | _difference(scores.contrasts(weights)[name])
        for effect, weights in effects.items()
        for name in scores.averages
    )


def frame_dial(scores: Scores, name: str) -> pd.DataFrame:
    """mIoU against the setting of the dial ``name``: one line per series, value (``x``), average and ``measure``.

    ``title`` is the label of the series. Paired differences are to the first series at the same value; with one series,
    to the reference row. What was not run has no line.

    Raises:
        UserError: the benchmark has no such dial.
    """
    dials = scores.benchmark.ablation.dials
    if name not in dials:
        known = ", ".join(dials) or "none"
        raise UserError(f"the benchmark has no dial {name!r}{did_you_mean(name, dials)}. Its dials: {known}")
    return _series(scores, dials[name].x, dials[name].series)


def frame_alignment(scores: Scores) -> pd.DataFrame:
    """mIoU against the misalignment of the generated images, of rows with an aligned twin; columns of a dial's frame.

    Empty without such rows, or where nobody knows the misalignment, as on real data.
    """
    pairs, none = alignment_pairs(scores.records), scores.benchmark.ablation.none
    rows = sorted(pairs, key=lambda row: row != none)
    strengths = {(strength(scores, pairs[row]), strength(scores, row)) for row in rows}
    if len(strengths) != 1 or None in (at := next(iter(strengths))):
        return pd.DataFrame()
    series = {scores.benchmark.row(row).title: [pairs[row], row] for row in rows}
    return _series(scores, [float(x or 0) for x in at], series)


def frame_training(scores: Scores, rows: Sequence[str] = ()) -> pd.DataFrame:
    """What was logged during training: one line per row, seed, iteration and logged quantity.

    Columns: ``row``, ``title``, ``seed``, ``iteration``, ``quantity`` (``loss``, ``loss/<term>``, ``part/quantity``)
    and ``value``. ``rows``: by default all. ``title`` is categorical, so that rows keep their colours when some are
    left out.
    """
    entries, rows = [], rows or list(scores.benchmark.rows)
    for row in rows:
        for run in scores.records.of_row(row):
            for line in run.log() if run.status == "finished" else ():
                place = _row(scores, row) | {"seed": run.seed, "iteration": line.pop("iteration")}
                entries += [place | {"quantity": name, "value": value} for name, value in line.items()]
    frame = pd.DataFrame(entries, columns=["row", "title", "seed", "iteration", "quantity", "value"])
    titles = list(dict.fromkeys(scores.benchmark.row(row).title for row in rows))
    return frame.assign(title=pd.Categorical(frame["title"], categories=titles))


def _profile(
    scores: Scores, rows: Sequence[str], quantities: Mapping[str, str], level: str, paired: str
) -> list[Entry]:
    """Levels and paired differences of several ``quantities`` (by their place ``x``) on every target."""
    reference, entries = scores.benchmark.reference, []
    for target in scores.benchmark.targets:
        for row in rows:
            place = _places(scores, row, target)
            for x, name in quantities.items():
                at = place | {"quantity": name, "x": x}
                entries.append(at | {"measure": level} | _level(scores.mean(row, target, name)))
                if row != reference:
                    found = scores.against(row, reference, name)[target]
                    entries.append(at | {"measure": paired} | _difference(found))
    return entries


def _series(scores: Scores, values: Sequence[Any], series: Mapping[str, Sequence[str | None]]) -> pd.DataFrame:
    """Levels of ``series`` (a row for each of ``values``), and differences to the first or to the reference row."""
    known, entries = scores.benchmark.rows, []
    first = next(iter(series.values()))
    others = first if len(series) > 1 else [scores.benchmark.reference] * len(values)
    for label, rows in series.items():
        for x, row, other in zip(values, rows, others, strict=True):
            if row is None or row not in known or not scores.mean(row, scores.main).n:
                continue
            for name in scores.averages:
                at = _places(scores, row, name) | {"title": label, "x": x}
                entries.append(at | {"measure": LEVEL} | _level(scores.mean(row, name)))
                if other in known and other != row:
                    found = scores.contrasts({row: 1.0, str(other): -1.0})[name]
                    entries.append(at | {"measure": DIFFERENCE} | _difference(found))
    return pd.DataFrame(entries)


def _row(scores: Scores, row: str) -> Entry:
    return {"row": row, "title": scores.benchmark.row(row).title}


def _target(scores: Scores, column: str) -> Entry:
    return {"target": column, "target_title": target_title(scores, column)}


def _places(scores: Scores, row: str, column: str) -> Entry:
    return _row(scores, row) | _target(scores, column)


def _level(mean: Mean) -> Entry:
    return mean_record(mean) | {"shown": True}


def _difference(difference: Difference) -> Entry:
    return difference_record(difference) | {"shown": difference.shown}
