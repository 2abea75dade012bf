"""Where results come from, in words: commits, code, machines, and what had to be assumed. For all products alike."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flexseg.analysis.stats.records import RunRecords, seeds_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.recipes import PARTS
from flexseg.benchmark import Benchmark


@dataclass
class Assumed:
    """An option that the papers leave open: its default, what it is, and the rows of each other value."""

    method: str
    name: str
    default: str
    explanation: str
    others: dict[str, list[str]] = field(default_factory=dict)

    def text(self) -> str:
        """The value and who deviates from it, in one line."""
        return self.default + "".join(f"; {value} in {', '.join(rows)}" for value, rows in self.others.items())


def find_assumed(scores: Scores) -> list[Assumed]:
    """Every option that is marked as assumed, one per method and name, in the order of the rows."""
    records = scores.records
    found: dict[tuple[str, str], Assumed] = {}
    for run in records.finished():
        method = records.benchmark.row(run.row).method
        for name, option in run.options.items():
            if option.get("origin") != "assumed":
                continue
            explanation = " ".join(str(option.get("help") or "").split())
            default, value = value_text(option.get("default")), value_text(option.get("value"))
            entry = found.setdefault((method, name), Assumed(method, name, default, explanation))
            if value != default and run.row not in entry.others.setdefault(value, []):
                entry.others[value].append(run.row)
    return list(found.values())


def exceptions(benchmark: Benchmark) -> str:
    """Which rows have a schedule or a trunk of their own: ``equal for every row``, or ``equal for every row but …``."""
    found = {name: row_changes(benchmark, name) for name in benchmark.rows}
    own = [f"{name} ({', '.join(changes)})" for name, changes in found.items() if changes]
    return "equal for every row" + (f" but {', '.join(own)}" if own else "")


def row_changes(benchmark: Benchmark, name: str) -> list[str]:
    """What a row changes of the schedule and the trunk, which all others share; usually nothing."""
    row = benchmark.row(name)
    return list(training_changes(benchmark, name).values()) + (["a trunk of its own"] if row.model else [])


def training_changes(benchmark: Benchmark, name: str) -> dict[str, str]:
    """The keys of the schedule that a row changes, and how: ``iterations 1800``, ``photometric distortion``."""
    keys = benchmark.row(name).training
    shared, own = (
        {key: getattr(each, key) for key in keys} for each in (benchmark.training, benchmark.training_of(name))
    )
    return {key: _change(key, shared[key], own[key]) for key in keys}


def _change(key: str, shared: Any, own: Any) -> str:
    if key not in PARTS or (own is None and shared is None):
        return f"{key} {value_text(own)}"
    return PARTS[key](own) if own is not None else f"without {PARTS[key](shared)}"


def value_text(value: Any) -> str:
    """An option's value as the benchmark file would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def summarise_runs(runs: list[RunRecords], describe: Callable[[RunRecords], str]) -> str:
    """What ``describe`` says of the runs: each answer once, with the number of its runs if there are several."""
    counts = Counter(describe(run) for run in runs)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{text} ({plural(count, 'run')})" for text, count in counts.items()) or "–"


def commit(run: RunRecords) -> str:
    """The commit that a run was made at, twelve digits, and whether files differed from it."""
    git = run.info.get("git") or {}
    return str(git.get("commit") or "not recorded")[:12] + (" with uncommitted changes" if git.get("dirty") else "")


def code_text(scores: Scores) -> str:
    """How many of the finished runs were made by the library's files as they are today."""
    runs = scores.records.finished()
    other = sum(run.other_code for run in runs)
    return f"{len(runs) - other} of {plural(len(runs), 'run')} by today's files" if other else "today's, in every run"


def machine(run: RunRecords) -> str:
    """Processor, cores, system and device of a run."""
    found = run.info.get("machine") or {}
    parts = f"{found.get('processor', '?')}, {found.get('cores', '?')} cores, {found.get('system', '?')}"
    return f"{parts}; device {run.info.get('device', '?')}"


def other_code(scores: Scores) -> dict[str, list[str]]:
    """Other code digests than today's → the rows, with their seeds, that were made by each."""
    made: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for run in scores.records.finished():
        if run.other_code:
            made[run.code][run.row].append(run.seed)
    return {digest: [f"{row} ({seeds_text(seeds)})" for row, seeds in rows.items()] for digest, rows in made.items()}


def plural(count: int, noun: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def seeds_a_row(benchmark: Benchmark) -> str:
    """How many seeds the trained rows have: ``3 seeds``, or ``6 to 12 seeds`` where a study of claims asks for that."""
    counts = [len(benchmark.planned_seeds(row)) for row in benchmark.trained_rows] or [len(benchmark.seeds)]
    least, most = min(counts), max(counts)
    return plural(most, "seed") if least == most else f"{least} to {most} seeds"


def and_list(items: list[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
