"""What a running workflow shows: one live table on a terminal, a line per job elsewhere, and every failure in full.

Snakemake's own words are in its log on disk. The view learns what runs from the workflow, which calls :func:`watch`
when it has read the benchmark, and how far runs have come from their files, as ``flexseg status`` does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flexseg.cli.print import RUNS, run_cell
from flexseg.console import printable, terminal

if TYPE_CHECKING:
    from flexseg.analysis.stats.progress import Standing
    from flexseg.benchmark import Benchmark

EVERY = 3.0
"""Seconds between two looks at the runs' files; more where looking takes long."""
SHARE = 0.05
"""The most of the time that looking may take."""
PATIENCE = 5
"""After how many looks in a row that went wrong the table is given up."""
LAST = 15
"""How many lines of a failed job's log are shown."""
RESULTS = Path("results")

_watched: Benchmark | None = None


def watch(benchmark: Benchmark) -> None:
    """Tell the view of this process which runs to show: those of the rows and seeds of ``benchmark``."""
    global _watched
    _watched = benchmark


class View:
    """Shows Snakemake's records.

    Args:
        settings: Snakemake's settings of its output. With a dry run, ``--verbose``, ``--printshellcmds`` or ``--quiet``
            the words are Snakemake's own.
        stream: where to write, by default standard error. width, height: of the terminal, if not its own.
    """

    def __init__(
        self, settings: Any, stream: IO[str] | None = None, width: int | None = None, height: int | None = None
    ) -> None:
        self.console = terminal(file=stream or sys.stderr, width=width)
        if height:
            self.console.height = height
        asked = any(getattr(settings, name, False) for name in ("dryrun", "verbose", "printshellcmds", "quiet"))
        self.plain = _snakemakes_own(settings, stream or sys.stderr) if asked else None
        self.started = time.monotonic()
        self.jobs: dict[int, str] = {}
        self.running: dict[int, float] = {}
        self.failed: list[tuple[str, str]] = []
        self.products: dict[int, str] = {}
        self.trainings: dict[int, tuple[str, str]] = {}
        self.made: list[Path] = []
        self.steps = (0, 0)
        self.held: list[str] = []
        self._live: Live | None = None
        self._closed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, record: logging.LogRecord) -> None:
        """Show a record. Whatever goes wrong in here costs the view and not the workflow."""
        try:
            if self.plain is not None:
                if self.plain.filter(record):
                    self.plain.emit(record)
                return
            self._take(record)
        except Exception as error:
            self._end_live()
            self.plain = _snakemakes_own(None, self.console.file)
            self._say(f"The live view has failed ({type(error).__name__}: {error}); Snakemake's own words follow.")

    def _take(self, record: logging.LogRecord) -> None:
        event, text = str(getattr(record, "event", "") or ""), str(record.msg or "").strip()
        if event == "job_info":
            self._begin(record)
        elif event == "job_started":
            self.running |= dict.fromkeys(getattr(record, "jobs", ()), time.monotonic())
        elif event == "job_finished":
            self._finish(int(getattr(record, "job_id", -1)))
        elif event in ("job_error", "group_error"):
            self._fail(record)
        elif event == "progress":
            self.steps = (int(getattr(record, "done", 0)), int(getattr(record, "total", 0)))
        elif "flexseg status " in text:
            return  # it has just said which runs failed, and why: that is its failure
        elif record.levelno >= logging.WARNING and text:
            self._say(text, "red" if record.levelno >= logging.ERROR else "yellow")
        elif record.levelno == logging.INFO and not event and not self.jobs and text:
            self.held.append(text)

    def _begin(self, record: logging.LogRecord) -> None:
        job, rule = int(getattr(record, "jobid", -1)), str(getattr(record, "rule_name", ""))
        self.jobs[job] = describe_job(rule, dict(getattr(record, "wildcards", {}) or {}), getattr(record, "output", ()))
        known = dict(getattr(record, "wildcards", {}) or {})
        if rule.removeprefix("flexseg_") == "product":
            self.products[job] = next(iter(getattr(record, "output", ())), "")
        elif rule.removeprefix("flexseg_") == "train":
            self.trainings[job] = str(known.get("row")), str(known.get("seed"))
        if rule == "status":  # prints what a reader waits for: the table must be gone
            self._end_live()
        elif self.console.is_terminal and self._live is None and not self._stop.is_set():
            self._live = Live(self._render(), console=self.console, auto_refresh=False, transient=True)
            self._live.start()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _finish(self, job: int) -> None:
        self.running.pop(job, None)
        if self.products.get(job):
            self.made.append(Path(self.products[job]))
        if (reason := self._reason(job)) is not None:
            row, seed = self.trainings[job]
            home = RESULTS / _watched.trained_as if _watched is not None else RESULTS
            log = home / "logs" / f"train-{row}-{seed}.log"
            self.failed.append((f"{row}, seed {seed}: {reason}", str(log)))
            self._say(f"{time.strftime('%H:%M:%S')} {row}, seed {seed}: {reason}; log: {log}", "red")
            return
        name = self.jobs.get(job, "")
        if name and not self.console.is_terminal and name not in ("all", "status"):
            done, total = self.steps
            step = f"{done + 1} of {total} steps: " if total else ""
            self._say(f"{time.strftime('%H:%M:%S')} {step}{name}")

    def _reason(self, job: int) -> str | None:
        """Why a training that ended has failed, as its method may, which costs its own row and not the workflow."""
        if _watched is None or job not in self.trainings:
            return None
        from flexseg.benchmark import Run

        row, seed = self.trainings[job]
        state = Run(_watched, row, int(seed), RESULTS).state
        return state.reason if state.status in ("failed", "not run") else None

    def _fail(self, record: logging.LogRecord) -> None:
        job = int(getattr(record, "jobid", -1))
        self.running.pop(job, None)
        name = self.jobs.get(job) or str(getattr(record, "rule_name", "a job"))
        if name == "status" and self.failed:
            return
        logs = [str(path) for path in getattr(record, "log", ()) or ()]
        self.failed.append((name, logs[0] if logs else ""))
        self._say(f"{time.strftime('%H:%M:%S')} failed: {name}", "bold red")
        for path in logs:
            self._say(f"  the whole log is {path}; it ends with", "red")
            for line in _last_lines(Path(path)):
                self._say(f"    {line}")

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(
            printable(text, breaks=True), style=style or None, markup=False, highlight=False, soft_wrap=True
        )

    def _look(self) -> None:
        """Draw the table again every few seconds, until told to stop."""
        wait, failures = EVERY, 0
        while not self._stop.wait(wait):
            began = time.monotonic()
            try:
                if self._live is not None:
                    self._live.update(self._render(), refresh=True)
                failures = 0
            except Exception as error:  # a file that is being written, perhaps; the next look sees it whole
                failures += 1
                if failures == PATIENCE:
                    self._end_live()
                    self._say(
                        f"The live view has ended ({type(error).__name__}: {error}); failures are still named here."
                    )
            wait = max(EVERY, (time.monotonic() - began) / SHARE)

    def _render(self) -> Group:
        from flexseg.analysis.stats.progress import standings

        found = standings(_watched, RESULTS) if _watched is not None else []
        return draw(
            _watched, found, self.steps, [self.jobs.get(job, "") for job in self.running], self.failed,
            time.monotonic() - self.started, self.console.width, self.console.height,
        )  # fmt: skip

    def _end_live(self) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def close(self) -> None:
        """End the table; say how many jobs failed, where their logs are, and how long all of it took."""
        from flexseg.analysis.stats.progress import duration

        if self._closed:
            return
        began, self._closed = bool(self.jobs), True
        self._end_live()
        if not began:  # there was nothing to do but to say so, to unlock, or to write a report
            for text in self.held:
                self._say(text)
        if self.plain is not None or not began:
            return
        done, total = self.steps
        if self.made:
            folder = Path(os.path.commonpath([path.parent for path in self.made]))
            names = sorted(path.relative_to(folder).as_posix() for path in self.made)
            self._say(f"In {folder}/: {', '.join(names)}")
        took = f"{done} of {total} steps in {duration(time.monotonic() - self.started)}"
        self._say(took + (f"; {len(self.failed)} failed:" if self.failed else "."))
        for name, log in self.failed:
            self._say(f"  {name}{f': {log}' if log else ''}", "red")


def draw(
    benchmark: Benchmark | None,
    found: Sequence[Standing],
    steps: tuple[int, int],
    running: Sequence[str],
    failed: Sequence[tuple[str, str]],
    seconds: float,
    width: int,
    height: int,
) -> Group:
    """The table of a workflow in ``width`` × ``height`` characters.

    Args:
        found: the state of every run. steps: how many are done, of how many. running, failed: jobs in words, the failed
            ones with their logs. seconds: since the start.
    """
    from flexseg.analysis.stats.progress import duration, outlook
    from flexseg.benchmark.times import read_times

    name = benchmark.name if benchmark is not None else "workflow"
    selection = f", {benchmark.selection}" if benchmark is not None and benchmark.selection else ""
    ahead = outlook(found, times=read_times(RESULTS, name)) if found else None
    left = f", about {duration(ahead.seconds)} left" if ahead else ""
    head = f"{name}{selection}: {steps[0]} of {steps[1] or '?'} steps, {duration(seconds)}{left}"
    lines: list[Any] = [Text(_cut(head, width), style="bold")]
    tail = [Text(_cut(f"now: {', '.join(filter(None, running)) or '–'}", width))]
    tail += [Text(_cut(f"✗ {job}{f' ({log})' if log else ''}", width), style="red") for job, log in failed[-3:]]
    if found:
        room = height - len(lines) - len(tail) - 4  # the table's head and rule, the line of counts, and the cursor's
        lines += [_table(found, width, max(room, 1)), Text(_cut(_counts(found), width), style="dim")]
    return Group(*lines, *tail)


def _table(found: Sequence[Standing], width: int, room: int) -> Table:
    """Rows × seeds; if not all rows fit, those that run, have failed or are begun, then the next ones."""
    rows = list(dict.fromkeys(each.row for each in found))
    seeds = list(dict.fromkeys(each.seed for each in found))
    by_run = {(each.row, each.seed): each for each in found}
    states = {row: [each.state for each in found if each.row == row] for row in rows}
    urgency = {row: _urgency(states[row]) for row in rows}
    chosen = set(sorted(rows, key=lambda row: (urgency[row], rows.index(row)))[:room])
    longest = max(len(row) for row in rows)
    cell = 7
    wide = min(longest, max(width - cell * len(seeds) - 2, 12)) + 2 + cell * len(seeds) <= width
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(
        "row", no_wrap=True, overflow="ellipsis", max_width=max(width - (cell * len(seeds) if wide else 24), 12)
    )
    if wide:
        for seed in seeds:
            table.add_column(f"seed {seed}" if len(seeds) < 4 else str(seed), no_wrap=True, width=cell - 1)
    else:  # too many seeds for a column each
        table.add_column("seeds", no_wrap=True)
    for row in rows:
        if row not in chosen:
            continue
        if wide:
            table.add_row(Text(row), *(run_cell(by_run.get((row, seed))) for seed in seeds))
        else:
            counts: Counter[str] = Counter(states[row])
            table.add_row(Text(row), Text(" ".join(f"{RUNS[s][0]}{counts[s]}" for s in RUNS if counts[s])))
    return table


def _urgency(states: Sequence[str]) -> int:
    order = (("running",), ("failed",), ("interrupted", "trained"), ("missing", "stale"))
    return next((place for place, kinds in enumerate(order) if set(kinds) & set(states)), len(order))


def _counts(found: Sequence[Standing]) -> str:
    counts: Counter[str] = Counter(each.state for each in found)
    return "   ".join(
        f"{sign} {counts[state]} {words.split(' (')[0]}" for state, (sign, _, words) in RUNS.items() if counts[state]
    )


def describe_job(rule: str, wildcards: Any, output: Sequence[str] = ()) -> str:
    """A job in a few words: ``train flexseg, seed 1``, ``dataset night``, ``comparison.pdf``."""
    known = dict(wildcards)
    rule = rule.rpartition("_")[2] if rule.startswith("flexseg_") else rule
    if rule == "train":
        return f"train {known.get('row')}, seed {known.get('seed')}"
    if rule == "evaluate":
        return f"evaluate {known.get('row')}"
    if rule == "dataset":
        return f"data of {known.get('domain')}"
    if rule == "product":
        return str(known.get("product") or (output[0] if output else rule))
    return rule


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _last_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST:]
    except OSError as error:
        return [f"(it cannot be read: {error.strerror})"]


def _snakemakes_own(settings: Any, stream: IO[str]) -> logging.Handler:
    """Snakemake's own handler: its words, its filter."""
    from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

    def asked(name: str, default: Any = False) -> Any:
        return getattr(settings, name, default)

    handler = ColorizingTextHandler(nocolor=asked("nocolor"), stream=stream)
    names = ("quiet", "debug_dag", "verbose", "dryrun", "printshellcmds")
    handler.addFilter(DefaultFilter(*(asked(name) or (set() if name == "quiet" else False) for name in names)))
    handler.setFormatter(DefaultFormatter(asked("quiet") or set(), asked("show_failed_logs", True)))
    return handler
