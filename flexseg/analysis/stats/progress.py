"""The state of every run of a benchmark, from the small files that it leaves; no process is asked.

A run that is under way has a ``config.json`` and no ``run.json``. It counts as running while one of its files changed
within the last minutes, else as interrupted: its log grows with every logging step, whatever machine it runs on.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

from flexseg.analysis.stats.records import read_log, read_metadata
from flexseg.benchmark import Benchmark, Run, Training, fingerprint
from flexseg.benchmark.identity import STALE, RunDirectory, read_mapping, reason_of, runs_of
from flexseg.benchmark.times import EVALUATE
from flexseg.provenance import machine

State = Literal["finished", "trained", "running", "interrupted", "failed", "not run", "stale", "missing"]
STATES: tuple[State, ...] = get_args(State)
QUIET_SECONDS = 180.0
"""A run whose files are older than this, or than a few of its own logging steps, is not running any more."""


@dataclass(frozen=True)
class Standing:
    """The state of one (row, seed).

    Attributes:
        reason: why it failed, is stale, or still waits for its evaluation.
        done: iterations in its log (all of them when it is finished).
        kept: the iteration of its checkpoint, from which an interrupted run continues.
        total: iterations of the whole run.
        seconds: its training time, if it was trained to the end.
        left: estimated seconds to its end, if it is running and has logged its speed.
    """

    row: str
    seed: int
    folder: Path
    state: State
    reason: str = ""
    done: int = 0
    kept: int = 0
    total: int = 0
    seconds: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class Outlook:
    """Time to go, in seconds, with ``workers`` runs at a time, and what it includes beside the trainings."""

    seconds: float
    workers: int
    running_now: bool
    evaluation: bool = False
    reports: bool = False

    def __str__(self) -> str:
        runs = "one run" if self.workers == 1 else f"{self.workers} runs"
        now = ", as now" * self.running_now
        parts = {"evaluation": self.evaluation, "reports": self.reports}
        known, unknown = ([name for name, there in parts.items() if there is wanted] for wanted in (True, False))
        extra = f", {' and '.join(known)} included" if known else ""
        missing = f"; {' and '.join(unknown)} come{'s' * (len(unknown) == 1)} on top" if unknown else ""
        missing = missing.replace("reports comes", "reports come")
        return f"About {duration(self.seconds)} to go with {runs} at a time{now}{extra}{missing}."


def standings(benchmark: Benchmark, results: Path, now: float | None = None) -> list[Standing]:
    """The state of each run of ``benchmark`` at ``now`` (seconds since 1970), in its order."""
    return [_standing(run, time.time() if now is None else now) for run in runs_of(benchmark, results)]


def _standing(run: Run, now: float) -> Standing:
    training, directory, state = run.benchmark.training_of(run.row), run.directory, run.state
    total = training.iterations
    place = (run.row, run.seed, directory.root)
    if state.status == "finished":
        standing, reason = _evaluated(run)
        seconds = positive(state.record.get("train_seconds"))
        return Standing(*place, standing, reason, done=total, kept=total, total=total, seconds=seconds)
    if state.status != "missing" or not directory.config.is_file():
        return Standing(*place, state.status, state.reason, total=total)
    if (read_mapping(directory.config) or {}).get("fingerprint") != run.fingerprint:
        return Standing(*place, "stale", STALE, total=total)
    done, left = _logged(training, directory, now)
    if left is None:
        kept = min(_checkpointed(directory.checkpoint), total)
        return Standing(*place, "interrupted", done=max(done, kept), kept=kept, total=total)
    return Standing(*place, "running", done=done, total=total, left=left if math.isfinite(left) else None)


def _evaluated(run: Run) -> tuple[State, str]:
    """Whether a trained run has a record of this evaluation on every target, and if not, why."""
    targets, wanted = run.benchmark.targets, fingerprint(run.benchmark.evaluation_definition())
    waiting = [target for target in targets if not _is_current(run.evaluated.records(target), run.fingerprint, wanted)]
    if not waiting:
        return "finished", ""
    failure = read_mapping(run.evaluated.failure)
    if failure:
        return "failed", f"failed in the evaluation: {reason_of(failure)}"
    return "trained", "not evaluated" + (f" on {', '.join(waiting)}" if len(waiting) < len(targets) else "")


def _is_current(path: Path, made_by: str, evaluation: str) -> bool:
    metadata = read_metadata(path) or {}
    # Records that do not say by which evaluation they were made are judged by their protocol when tables are made.
    return metadata.get("fingerprint") == made_by and metadata.get("evaluation", evaluation) == evaluation


def _logged(training: Training, directory: RunDirectory, now: float) -> tuple[int, float | None]:
    """(iterations in the log, seconds left): NaN where the speed is unknown, None where the run has stopped."""
    lines = read_log(directory.log)
    line = lines[-1] if lines else {"iteration": 0}
    done = min(max(line["iteration"], 0), training.iterations)
    speed = positive(line.get("images_per_second"))
    touched = max(map(_modified, (directory.config, directory.log, directory.checkpoint)))
    step = training.log_every * training.batch_size / speed if speed else 0.0
    if now - touched > max(QUIET_SECONDS, 4 * step):
        return done, None
    if not speed:
        return done, math.nan
    left = (training.iterations - done) * training.batch_size / speed
    return done, max(0.0, left - max(0.0, now - touched))


def _checkpointed(path: Path) -> int:
    """The iteration that a checkpoint holds, from its header; 0 where there is none, or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            iteration = json.loads((file.metadata() or {})["progress"])["iteration"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0
    return max(iteration, 0) if isinstance(iteration, int) else 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def positive(value: Any) -> float | None:
    """``value`` as a number if it is a finite one above 0, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def row_seconds(found: Iterable[Standing]) -> dict[str, float]:
    """Mean training time of the finished runs of each row that has one."""
    times: dict[str, list[float]] = defaultdict(list)
    for each in found:
        if each.seconds is not None:
            times[each.row].append(each.seconds)
    return {row: fmean(values) for row, values in times.items()}


def outlook(
    found: Sequence[Standing], cores: int | None = None, times: Mapping[str, float] | None = None
) -> Outlook | None:
    """How long what is due will take; None where nothing is due, or no run says how long one takes.

    A run that is due takes as long as the finished ones of its row did on average, or of all rows where its own has
    none. As many are assumed to be under way at a time as are now; if none is, one for each of the ``cores``.
    Failed runs, and those that lack an optional package, are not due: they wait for ``--retry``.

    Args:
        cores: how many runs go side by side where none runs now; by default as many as this process may use.
        times: seconds of the steps after training, as :mod:`flexseg.benchmark.times` measured them here; what they lack
            is not counted.
    """
    steps = dict(times or {})
    evaluation = steps.pop(EVALUATE, 0.0)
    due = [each for each in found if each.state in ("missing", "stale", "interrupted", "running")]
    trained = [each for each in found if each.state == "trained"]
    times = row_seconds(found)
    pace = [each.left * each.total / (each.total - each.done) for each in found if each.left and each.total > each.done]
    known = list(times.values()) or pace
    if not (due and known) and not (trained and evaluation and not due):
        return None
    parts = [evaluation] * len(trained)
    for each in due:
        share = 1 - (each.done if each.state == "running" else each.kept) / max(each.total, 1)
        left = each.left if each.left is not None else times.get(each.row, fmean(known)) * share
        parts.append(left + evaluation)
    running = sum(each.state == "running" for each in found)
    workers = min(running or cores or int(machine()["cores"] or 1), len(parts))
    after = sum(steps.values()) / workers
    return Outlook(max(sum(parts) / workers, max(parts)) + after, workers, bool(running), evaluation > 0, after > 0)


def duration(seconds: float) -> str:
    """``45 s``, ``2 min 05 s``, ``1 h 04 min``, ``2 d 3 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(whole / 3600)
    return f"{hours // 24} d {hours % 24} h"
