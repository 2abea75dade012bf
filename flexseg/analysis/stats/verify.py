"""Whether results repeat the reference results that the repository ships.

``benchmarks/<name>.reference.csv`` holds mIoU of every (row, target, seed) that was added to it, and what defined each
row. Every cell of this machine's results gets a verdict:

* *same bits*: every seed's weights are the reference's, by their digest, and its value is, to 1e-6;
* *reproduced*: every seed's value is the reference's, to 1e-6;
* *within noise*: the means differ, but no more than those of two independent sets of seeds do in 95 of 100 cases;
* *outside*: they differ by more. One cell in twenty does so by chance, so Holm's correction over all cells decides;
* *differs*: they differ by more even after that correction;
* *other definition*: the row is defined differently in the reference, so its numbers prove nothing either way;
* *missing*, *no reference*, *no interval* (a reference of a single seed): nothing can be said.

The interval
------------
For n runs here and m in the reference, whose true means are equal,

    D = mean here − mean reference,   |D| ≤ t(0.975; d + d₀) · s̃ · √(1/n + 1/m),   d = m − 1,

in 95 % of cases. The variance s̃² of one run is estimated from the reference alone: what is checked must not widen the
interval that checks it. The m − 1 degrees of freedom of one row (2 for three seeds) say little, and one variance for
all rows would be too small for the noisy ones, whose false alarms would pile up. So each row's variance is drawn
towards that of all rows, as strongly as the rows resemble each other (Smyth, *Stat. Appl. Genet. Mol. Biol.* 3(1),
2004, moderated variances): s̃² = (d₀·s₀² + d·s²) / (d₀ + d). The images are the same on both sides and add nothing.

Seeds are not paired. In the default benchmark a seed shares next to nothing between rows (a variance component of about
0 on most targets, and a sixth of a run's variance at most), so pairing would gain nothing, and seeds other than the
reference's may be used as well. Where equal seeds do share something, the interval is too wide, never too narrow.
``tests/analysis/test_verify.py`` simulates the false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import digamma, polygamma, stdtr, stdtrit

from flexseg.analysis.stats.evidence import Entry, made_by
from flexseg.analysis.stats.reference import TOLERANCE, Reference
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import holm, t_interval

Floats = NDArray[np.float64]
NAN = float("nan")
Verdict = Literal[
    "same bits",
    "reproduced",
    "within noise",
    "outside",
    "differs",
    "other definition",
    "no interval",
    "missing",
    "no reference",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
JUDGED = VERDICTS[:5]


@dataclass(frozen=True)
class Cell:
    """One row on one column: means here and in the reference (NaN for none), and the verdict.

    ``half`` is the half width of the interval in which the difference lies in 95 % of faithful repetitions.
    """

    row: str
    column: str
    verdict: Verdict
    here: float = NAN
    there: float = NAN
    n_here: int = 0
    n_there: int = 0
    half: float = NAN
    p: float = NAN
    p_holm: float = NAN

    @property
    def difference(self) -> float:
        """Mean here minus mean of the reference."""
        return self.here - self.there


@dataclass(frozen=True)
class Verification:
    """The verdict on every cell, rows in the benchmark's order, with notes, processors and kernels here and there."""

    benchmark: str
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    notes: list[str] = field(default_factory=list)
    processors: list[str] = field(default_factory=list)
    processors_there: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    kernels_there: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        """The rows, in order."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    def count(self, verdict: Verdict) -> int:
        """How many cells have this verdict."""
        return sum(cell.verdict == verdict for cell in self.cells.values())

    @property
    def judged(self) -> int:
        """How many cells have a verdict on whether the numbers are repeated."""
        return sum(cell.verdict in JUDGED for cell in self.cells.values())

    @property
    def differs(self) -> bool:
        """Whether any cell differs after Holm's correction over all cells."""
        return bool(self.count("differs"))


def moderate(variances: Floats, freedoms: Floats) -> tuple[Floats, Floats]:
    """Draw the variances of R rows towards each other; with their degrees of freedom d + d₀ (see the module's head).

    d₀ and s₀² are fitted to log s² by moments: Var(log s²) = ψ′(d/2) + ψ′(d₀/2). Rows that scatter no more than equal
    variances would, and fewer than four rows, which are too few to tell, get one pooled variance and Σ d degrees of
    freedom: not the infinity of the fit, since the pooled variance is itself an estimate.

    Args:
        variances: (R,) of the rows' runs. freedoms: (R,) d of each, one less than its runs, at least 1.
    Returns:
        (R,) the moderated variances, and (R,) the degrees of freedom of each, at most Σ d.
    """
    rows, most = len(variances), float(freedoms.sum())
    pooled = float((freedoms * variances).sum()) / most
    if rows < 4 or pooled <= 0:
        return np.full(rows, pooled), np.full(rows, most)
    # A variance of 0 has no logarithm, and one that is nearly 0 would decide the fit alone.
    log = np.log(np.maximum(variances, 1e-5 * max(float(np.median(variances)), 1e-5 * pooled)))
    centred = log - digamma(freedoms / 2) + np.log(freedoms / 2)
    excess = float(centred.var(ddof=1) - polygamma(1, freedoms / 2).mean())
    if excess <= float(polygamma(1, (most - freedoms.min()) / 2)):
        return np.full(rows, pooled), np.full(rows, most)
    prior = 2 * float(brentq(lambda x: float(polygamma(1, x)) - excess, 1e-6, most))
    centre = math.exp(float(centred.mean()) + float(digamma(prior / 2)) - math.log(prior / 2))
    return (prior * centre + freedoms * variances) / (prior + freedoms), np.minimum(prior + freedoms, most)


def judge(here: Floats, there: Floats, variance: float, freedom: float) -> tuple[float, float]:
    """(half width of the 95 % interval, p) of the difference of two independent means; see the module's head.

    Args:
        here, there: (n,) and (m,) the runs' values; ``variance`` is that of one run, with its degrees of freedom.
    """
    scale = math.sqrt(variance * (1 / len(here) + 1 / len(there)))
    difference = abs(float(here.mean() - there.mean()))
    if scale <= 0:
        return 0.0, 1.0 if difference <= TOLERANCE else 0.0
    return float(stdtrit(freedom, 0.975)) * scale, float(2 * stdtr(freedom, -difference / scale))


def verify(scores: Scores, reference: Reference) -> Verification:
    """Compare the selected rows with the reference, cell by cell."""
    benchmark = scores.benchmark
    cells: dict[tuple[str, str], Cell] = {}
    other: dict[str, list[str]] = {}
    noise = {column: _noise(reference, scores.members(column)) for column in scores.columns}
    used: list[Entry] = []
    for row in benchmark.rows:
        known = reference.chosen(benchmark, row) if row in benchmark.trained_rows else ([], [])
        entries, changed = known if scores.records.finished(row) else (known[0], [])
        if changed:
            other[row] = changed
        used += entries
        weights = {entry.seed: entry.made.weights for entry in entries if entry.made.weights}
        mine = {run.seed: made_by(run).weights for run in scores.records.finished(row)}
        same = bool(mine) and all(sha and weights.get(seed) == sha for seed, sha in mine.items())
        for column in scores.columns:
            cell = _cell(scores, entries, row, column, bool(changed), noise[column])
            whole = cell.verdict == "reproduced" and same and len(mine) == cell.n_here
            cells[row, column] = replace(cell, verdict="same bits") if whole else cell
    keys = [key for key, cell in cells.items() if cell.verdict in JUDGED]
    adjusted = holm(np.array([cells[key].p for key in keys]))
    for key, p in zip(keys, adjusted, strict=True):
        worse = cells[key].verdict == "outside" and p < 0.05
        cells[key] = replace(cells[key], p_holm=float(p), verdict="differs" if worse else cells[key].verdict)
    here = [made_by(run) for run in scores.records.finished()]
    there = [entry.made for entry in used]
    return Verification(
        benchmark.name,
        scores.columns,
        cells,
        _notes(scores, {made.code for made in there} - {""}, other),
        *([*dict.fromkeys(sorted(made.processor for made in each))] for each in (here, there)),
        *([] if (found := {made.kernels for made in each}) & {""} else sorted(found) for each in (here, there)),
    )


def _cell(
    scores: Scores,
    entries: list[Entry],
    row: str,
    column: str,
    changed: bool,
    noise: Mapping[tuple[str, str], tuple[float, float]],
) -> Cell:
    values = zip(scores.benchmark.seeds, scores.per_seed(row, column).tolist(), strict=True)
    mine = {seed: value for seed, value in values if math.isfinite(value)}
    known = {entry.seed: entry.value(scores.members(column), "mIoU") for entry in entries}
    theirs = {seed: value for seed, value in known.items() if math.isfinite(value)}
    here, there = np.array(list(mine.values())), np.array(list(theirs.values()))
    cell = Cell(row, column, "no reference", t_interval(here).value, t_interval(there).value, len(here), len(there))
    if not theirs:
        return cell
    if not mine:
        return replace(cell, verdict="missing")
    if changed:
        return replace(cell, verdict="other definition")
    key = (row, entries[0].definition)
    half, p = judge(here, there, *noise[key]) if key in noise else (NAN, NAN)
    if all(seed in theirs and abs(value - theirs[seed]) <= TOLERANCE for seed, value in mine.items()):
        return replace(cell, verdict="reproduced", half=half, p=1.0)
    if math.isnan(p):
        return replace(cell, verdict="no interval")
    return replace(cell, verdict="within noise" if p >= 0.05 else "outside", half=half, p=p)


def _noise(reference: Reference, members: list[str]) -> dict[tuple[str, str], tuple[float, float]]:
    """(variance of one run, degrees of freedom) of each row and definition that the reference has several seeds of."""
    values: dict[tuple[str, str], list[float]] = {}
    for entry in reference.entries:
        if math.isfinite(value := entry.value(members, "mIoU")):
            values.setdefault((entry.row, entry.definition), []).append(value)
    values = {key: found for key, found in values.items() if len(found) > 1}
    if not values:
        return {}
    variances = np.array([np.var(found, ddof=1) for found in values.values()])
    moderated = moderate(variances, np.array([len(found) - 1.0 for found in values.values()]))
    return {key: (float(s2), float(d)) for key, s2, d in zip(values, *moderated, strict=True)}


def _notes(scores: Scores, known: set[str], other: Mapping[str, list[str]]) -> list[str]:
    notes = [f"{row}: other definition than the reference's: {', '.join(parts)}." for row, parts in other.items()]
    notes += [f"{row}: {note}." for row, note in scores.records.all_notes()]
    codes = {made_by(run).code for run in scores.records.finished()} - known
    if codes and known:
        notes.append(
            f"The code that decides a run differs: {', '.join(sorted(codes))} here, "
            f"{', '.join(sorted(known))} in the reference."
        )
    return notes
