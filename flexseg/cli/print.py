"""What the command line prints for people: methods, the state of every run, a comparison, a verification.

Everything that a colour says, a sign says as well: without colour (``NO_COLOR``, a pipe, a file) nothing is lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexseg.benchmark import Benchmark
from flexseg.errors import UserError, did_you_mean

if TYPE_CHECKING:  # these import scipy and pyarrow, which `flexseg show` and `flexseg --help` do without
    from flexseg.analysis.stats.claims import Judged
    from flexseg.analysis.stats.compare import Comparison, Line
    from flexseg.analysis.stats.progress import Standing
    from flexseg.analysis.stats.verify import Cell, Verification

RUNS = {
    "finished": ("✓", "green", "finished"),
    "trained": ("◐", "yellow", "trained, not evaluated"),
    "running": ("▶", "cyan", "running"),
    "interrupted": ("‖", "yellow", "interrupted"),
    "failed": ("✗", "bold red", "failed"),
    "not run": ("○", "yellow", "not run (optional package)"),
    "stale": ("↻", "magenta", "stale (other settings)"),
    "missing": ("·", "dim", "missing"),
}
"""Sign, style and words of each state of a run."""
CELLS = {
    "same bits": ("≡", "green", "same bits"),
    "reproduced": ("=", "green", "reproduced to 1e-6"),
    "within noise": ("≈", "green", "within noise"),
    "outside": ("≠", "yellow", "outside its 95 % interval"),
    "differs": ("✗", "bold red", "differs after Holm"),
    "other definition": ("?", "magenta", "other definition"),
    "no interval": ("~", "yellow", "one seed, no interval"),
    "missing": ("·", "dim", "missing here"),
    "no reference": ("–", "dim", "not in the reference"),
}
"""Sign, style and words of each verdict on a cell."""
MINUS = "\N{MINUS SIGN}"


def _table(gap: int = 2) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    table.header_style = "bold"
    return table


def _say(console: Console, text: str, style: str = "", whole: bool = False) -> None:
    """Print prose without markup; ``whole`` does not wrap it, for those who search a log."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=whole)


def print_methods(methods: Path, console: Console, wanted: Sequence[str] = ()) -> None:
    """Print every method with its options; a broken file with its error. ``wanted``: those with this in their name.

    Raises:
        UserError: none has.
    """
    from flexseg.method import describe_options
    from flexseg.method_files import load_method, method_names

    known = method_names(methods)
    chosen = [name for name in known if not wanted or any(part in name for part in wanted)]
    if not chosen:
        hint = did_you_mean(wanted[0], known)
        raise UserError(f"no method has {' or '.join(wanted)} in its name{hint}: there are {', '.join(known)}")
    for name in chosen:
        try:
            method = load_method(name, methods)
        except UserError as error:
            console.print(f"{name}: broken\n  {error}\n", style="red", markup=False, highlight=False)
            continue
        table = Table(title=f"{name}: {method.title}", caption=method.paper, title_justify="left", min_width=60)
        for heading in ("option", "default", "origin", "what it does"):
            table.add_column(heading)
        for key, option in describe_options(method.Options()).items():
            table.add_row(key, str(option["default"]), option["origin"], option["help"])
        console.print(table, markup=False)


def print_status(benchmark: Benchmark, results: Path, console: Console, *, retry: bool) -> bool:
    """Print the state of every run; with ``retry`` forget the failures. Returns whether any run failed.

    A run that waits for an optional package has not failed, but ``retry`` covers it too.
    """
    from flexseg.analysis.stats.progress import STATES, standings

    found = standings(benchmark, results)
    counts = Counter(each.state for each in found)
    _print_runs(benchmark, results, found, console)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    _say(console, f"{benchmark.name}: {summary}", whole=True)
    failed = [each for each in found if each.state == "failed"]
    waiting = [each for each in found if each.state == "not run"]
    for each in failed + waiting:
        _say(console, f"{each.row}, seed {each.seed}: {each.reason}", whole=True)
        if retry:
            for name in ("failure.json", "trained.json", "../evaluated.json"):
                (each.folder / name).unlink(missing_ok=True)
    if retry and (failed or waiting):
        _say(console, "forgotten: start snakemake again to try them again")
    elif failed:
        cure = "Mend the cause (a changed method file is tried again by itself), or try the same again"
        _say(console, f"{cure}: flexseg status {benchmark.name} --retry", whole=True)
    elif waiting:
        _say(console, f"After installing it: flexseg status {benchmark.name} --retry, then snakemake again", whole=True)
    return bool(failed) and not retry


def _print_runs(benchmark: Benchmark, results: Path, found: Sequence[Standing], console: Console) -> None:
    from flexseg.analysis.stats.progress import duration, outlook, row_seconds
    from flexseg.analysis.stats.records import seeds_text
    from flexseg.benchmark.times import read_times

    by_run = {(each.row, each.seed): each for each in found}
    seeds = list(dict.fromkeys(each.seed for each in found))
    times = row_seconds(found)
    table = _table()
    table.add_column("row", overflow="fold")
    for seed in seeds:
        table.add_column(f"seed {seed}" if len(seeds) < 6 else str(seed), no_wrap=True)
    table.add_column("a run takes", justify="right", no_wrap=True)
    for row in dict.fromkeys(each.row for each in found):
        cells = [run_cell(by_run.get((row, seed))) for seed in seeds]
        table.add_row(Text(row), *cells, duration(times[row]) if row in times else "")
    console.print(table)
    present = {each.state for each in found}
    legend = [f"{sign} {words}" for state, (sign, _, words) in RUNS.items() if state in present]
    _say(console, "   ".join(legend) + "\n")
    by_text: dict[tuple[str, str], list[int]] = {}
    for each in found:
        if text := _describe_standing(each):
            by_text.setdefault((each.row, text), []).append(each.seed)
    for (row, text), its_seeds in by_text.items():
        _say(console, f"{row}, {seeds_text(its_seeds)}: {text}")
    ahead = outlook(found, times=read_times(results, benchmark.name))
    if ahead:
        _say(console, f"{ahead} (If each run takes as long as those that are finished.)")


def _describe_standing(each: Standing) -> str:
    """How far an unfinished run has come; empty for other runs."""
    from flexseg.analysis.stats.progress import duration

    if each.state == "running":
        left = f", about {duration(each.left)} left" if each.left is not None else ""
        return f"running, {each.done}/{each.total} iterations{left}"
    if each.state == "interrupted":
        after = f"goes on from {each.kept}" if each.kept else "starts from the beginning"
        return f"interrupted at {each.done}/{each.total}, {after}"
    return each.reason if each.state == "trained" else ""


def run_cell(each: Standing | None) -> Text:
    """The sign of a run's state, and how far it has come; empty for a seed that a row does not have."""
    if each is None:
        return Text()
    sign, style, _ = RUNS[each.state]
    part = f" {100 * each.done // max(each.total, 1)} %" if each.state in ("running", "interrupted") else ""
    return Text(sign + part, style=style)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison: a line for each target, class or condition, its interval in numbers and as a bar around 0."""
    quantity, digits = comparison.quantity, comparison.quantity.digits
    _say(console, f"A = {comparison.a}\nB = {comparison.b}")
    unit = "percent" if quantity.unit == "%" else "nats per pixel"
    better = "higher" if quantity.higher_is_better else "lower"
    _say(console, f"{comparison.what} in {unit}, {better} is better; B {MINUS} A: above zero, B is higher.\n")
    table = _table()
    heads = (comparison.per, "A", "B", f"B {MINUS} A", "95 % interval", "p")
    for head in heads:
        table.add_column(head, justify="left" if head == comparison.per else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    texts = [_format_line(line, digits) for line in comparison.lines]
    taken = sum(max(map(len, column)) + 2 for column in zip(heads, *texts, strict=True))
    width = max(9, min(41, console.width - taken - 1))
    ends = [e for line in comparison.lines for e in (line.difference.low, line.difference.high) if math.isfinite(e)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    group = comparison.lines[0].group if comparison.lines else ""
    for line, cells in zip(comparison.lines, texts, strict=True):
        if line.group != group:
            table.add_section()
            group = line.group
        shown = line.difference.shown
        style = "" if not shown else "green" if (line.difference.value > 0) == quantity.higher_is_better else "red"
        table.add_row(
            *(Text(cell, style=style) for cell in cells), Text(_draw_bar(line, low, high, width), style=style)
        )
    console.print(table)
    _say(
        console,
        "\n● a difference was shown (p < 0.05), ○ none could be shown. A, B: means over seeds. Interval and p: paired, "
        f"over seeds and test images; p of the {comparison.holm_over} after Holm.",
    )
    _say(console, f"\n{comparison.verdict}", style="bold")
    for note in comparison.notes:
        _say(console, note)


def _format_line(line: Line, digits: int) -> tuple[str, ...]:
    from flexseg.analysis.stats.formats import bracket_text, number

    difference = line.difference
    p = difference.p if math.isnan(difference.p_holm) else difference.p_holm
    name = line.label if line.group in ("targets", "averages", "classes") else f"{line.group}, {line.label}"
    p_text = "–" if math.isnan(p) else "<0.001" if p < 0.0005 else f"{p:.3f}"
    interval = bracket_text(difference, digits) if difference.n else "–"
    values = number(line.a.value, digits), number(line.b.value, digits), number(difference.value, digits, sign=True)
    return name, *values, interval, p_text


def _draw_bar(line: Line, low: float, high: float, width: int) -> str:
    """Draw the interval on a line from ``low`` to ``high``, which includes zero: ``   │  ──●──``."""
    difference = line.difference

    def place(value: float) -> int:
        return round((value - low) / (high - low) * (width - 1)) if high > low else 0

    signs = [" "] * width
    if math.isfinite(difference.low):
        for position in range(place(difference.low), place(difference.high) + 1):
            signs[position] = "─"
    signs[place(0.0)] = "┼" if signs[place(0.0)] == "─" else "│"
    if math.isfinite(difference.low):
        signs[place(difference.value)] = "●" if difference.shown else "○"
    return "".join(signs).rstrip()


def print_verification(found: Verification, console: Console, *, cells: bool) -> None:
    """Print the verdict on every cell of the reference; with ``cells`` also its numbers and interval."""
    table = _table(gap=1)
    table.add_column("mIoU", overflow="ellipsis", no_wrap=True)
    for column in found.columns:
        table.add_column(Text(column.replace("_", "\n")), justify="right", no_wrap=True, vertical="bottom")
    for row in found.rows:
        table.add_row(Text(row), *(_format_cell(found.cells[row, column]) for column in found.columns))
    console.print(table)
    present = {cell.verdict for cell in found.cells.values()}
    legend = [f"{sign} {words}" for verdict, (sign, _, words) in CELLS.items() if verdict in present]
    _say(console, "   ".join(legend) + f"; numbers: here {MINUS} reference.\n")
    if cells:
        _print_cells(found, console)
    for note in found.notes:
        _say(console, note)
    _say(console, _describe_counts(found))
    if found.differs:
        worst = [cell for cell in found.cells.values() if cell.verdict == "differs"]
        named = [f"{cell.row} on {cell.column}" for cell in worst[:3]]
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        _say(console, f"These results differ from the reference: {', '.join(named)}{more}.", style="bold red")
    elif not found.judged:
        _say(console, "So nothing can be said on whether the reference is repeated.", style="bold")
    elif found.count("same bits") == found.judged:
        _say(console, "The reference results are repeated bit by bit, weights and all.", style="bold green")
    elif found.count("same bits") + found.count("reproduced") == found.judged:
        _say(console, "The reference results are reproduced, number by number.", style="bold green")
    else:
        confirmed = "The reference results are confirmed: nothing differs beyond the noise of training."
        _say(console, confirmed, style="bold green")
        _say(console, _describe_kernels(found))


def print_claims(before: list[Judged], after: list[Judged], console: Console) -> None:
    """Print the verdicts by the reference alone, and those that the runs here would change in its place."""
    from flexseg.analysis.stats.claims import changes, tally

    counts = ", ".join(f"{count} {verdict}" for verdict, count in tally(before).items())
    _say(console, f"Claims by the reference: {counts}.")
    changed = changes(before, after)
    for name, (old, new) in changed.items():
        _say(console, f"  {name}: {old.verdict} → {new.verdict} with these runs ({new.claim.text})", style="bold")
    if not changed:
        _say(console, "These runs, in the place of those that they repeat, would change no verdict.")


def _describe_kernels(found: Verification) -> str:
    """Whether equal numbers could be expected, by the instruction sets here and in the reference."""
    here, there = " and ".join(found.kernels), " and ".join(found.kernels_there)
    if here and here == there:
        return f"Both were computed with the same kernels ({here}), so a seed should have given equal numbers."
    made = " and ".join(found.processors_there)
    other = f"with {there}" if there else f"on {made}, and its instruction set was not recorded"
    return (
        f"Do not expect equal numbers: another instruction set rounds sums differently, and training amplifies that. "
        f"These results were computed with {here or 'kernels that were not recorded'}, the reference {other}."
    )


def _describe_counts(found: Verification) -> str:
    from flexseg.analysis.stats.verify import JUDGED, VERDICTS

    parts = [f"{found.count('same bits')} with the same bits"] if found.count("same bits") else []
    parts += [f"{found.count('reproduced')} reproduced", f"{found.count('within noise')} within noise"]
    outside = found.count("outside")
    if outside:
        parts.append(f"{outside} outside (chance alone: about {max(1, round(0.05 * found.judged))})")
    parts.append(f"{found.count('differs')} differ after Holm over all")
    rest = [f"{CELLS[each][2]}: {found.count(each)}" for each in VERDICTS if each not in JUDGED and found.count(each)]
    text = f"{found.benchmark}: of {found.judged} cells {', '.join(parts)}."
    return text + (f" Not judged: {', '.join(rest)}." if rest else "")


def _format_cell(cell: Cell) -> Text:
    from flexseg.analysis.stats.formats import number

    sign, style, _ = CELLS[cell.verdict]
    bare = cell.verdict in ("same bits", "reproduced", "missing", "no reference")
    return Text(sign if bare else f"{sign} {number(cell.difference, 1, sign=True)}", style=style)


def _print_cells(found: Verification, console: Console) -> None:
    from flexseg.analysis.stats.formats import number

    table = _table()
    for title in ("row", "column", "here", "ref.", "diff.", "95 % in ±", "p", "verdict"):
        table.add_column(title, justify="left" if title in ("row", "column", "verdict") else "right", no_wrap=True)
    for cell in found.cells.values():
        sign, style, _ = CELLS[cell.verdict]
        numbers = [number(cell.here, 2), number(cell.there, 2), number(cell.difference, 2, sign=True)]
        p = "–" if math.isnan(cell.p) else f"{cell.p:.3f}"
        texts = [cell.row, cell.column, *numbers, number(cell.half, 2), p, f"{sign} {cell.verdict}"]
        table.add_row(*(Text(text, style=style) for text in texts))
    console.print(table)
    _say(
        console,
        "\n95 % of faithful repetitions lie within ± of the reference: t · s · √(1/n + 1/m) for n runs here, m there, "
        "s from the reference's runs, each row's drawn towards all rows' (Smyth 2004).\n",
    )
