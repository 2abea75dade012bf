"""Where every run of a benchmark stands, told from the small files that it leaves: no record is read, no process asked.

A run that is under way has a ``config.json`` and no ``run.json``. It counts as running while one of its files changed
within the last minutes, else as interrupted: its log grows with every logging step, whatever machine it runs on.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from flexseg.benchmark import Benchmark, Run, Training, fingerprint
from flexseg.benchmark.identity import STALE, RunDirectory, read_mapping, reason_of, runs_of
from flexseg.provenance import machine

Where = Literal["finished", "trained", "running", "interrupted", "failed", "not run", "stale", "missing"]
STATES: tuple[Where, ...] = ("finished", "trained", "running", "interrupted", "failed", "not run", "stale", "missing")
QUIET_SECONDS = 180.0
"""A run whose files are older than this, or than a few of its own logging steps, is not running any more."""
_LOG_TAIL = 65536


@dataclass(frozen=True)
class Standing:
    """One (row, seed) and where it stands.

    Attributes:
        reason: why it failed, or is stale, or still waits for its evaluation.
        done: iterations in its log (all of them when it is finished).
        kept: iterations that its checkpoint holds, from which an interrupted run goes on.
        total: iterations of the whole run.
        seconds: its training time, where it was trained to the end.
        left: estimated seconds to its end, where it is running and has logged its speed.
    """

    row: str
    seed: int
    folder: Path
    state: Where
    reason: str = ""
    done: int = 0
    kept: int = 0
    total: int = 0
    seconds: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class Outlook:
    """Training time that is still to come, in seconds, if ``workers`` runs are under way at a time."""

    seconds: float
    workers: int
    running_now: bool


def standings(benchmark: Benchmark, results: Path, now: float | None = None) -> list[Standing]:
    """Where each run of ``benchmark`` under ``results`` stands at ``now`` (seconds since 1970), in its order."""
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


def _evaluated(run: Run) -> tuple[Where, str]:
    """Whether a trained run has a record of this evaluation on every target, and if not, why."""
    targets, wanted = run.benchmark.targets, fingerprint(run.benchmark.evaluation_definition())
    waiting = [target for target in targets if not _record(run.evaluated.records(target), run.fingerprint, wanted)]
    if not waiting:
        return "finished", ""
    failure = read_mapping(run.evaluated.failure)
    if failure:
        return "failed", f"failed in the evaluation: {reason_of(failure)}"
    return "trained", "not evaluated" + (f" on {', '.join(waiting)}" if len(waiting) < len(targets) else "")


def _record(path: Path, made_by: str, evaluation: str) -> bool:
    if not path.is_file():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    # Records that do not say by which evaluation they were made are judged by their protocol when tables are made.
    current = metadata.get(b"evaluation", evaluation.encode()) == evaluation.encode()
    return current and metadata.get(b"fingerprint") == made_by.encode()


def _logged(training: Training, directory: RunDirectory, now: float) -> tuple[int, float | None]:
    """(iterations in the log, seconds left): NaN where the speed is unknown, None where the run is not running."""
    line = _last_line(directory.log)
    iteration = line.get("iteration")
    done = min(max(iteration, 0), training.iterations) if type(iteration) is int else 0
    speed = positive(line.get("images_per_second"))
    touched = max(map(_modified, (directory.config, directory.log, directory.checkpoint)))
    step = training.log_every * training.batch_size / speed if speed else 0.0
    if now - touched > max(QUIET_SECONDS, 4 * step):
        return done, None
    if not speed:
        return done, math.nan
    left = (training.iterations - done) * training.batch_size / speed
    return done, max(0.0, left - max(0.0, now - touched))


def _last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a log as a mapping; empty where there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            content = json.loads(line)
        except ValueError:
            continue  # cut off by the seek above, or still being written
        if isinstance(content, dict):
            return content
    return {}


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
    times: dict[str, list[float]] = {}
    for each in found:
        if each.seconds is not None:
            times.setdefault(each.row, []).append(each.seconds)
    return {row: sum(values) / len(values) for row, values in times.items()}


def outlook(found: Sequence[Standing], cores: int | None = None) -> Outlook | None:
    """How long the trainings that are due will take; None where nothing is due, or no run says how long one takes.

    A run that is due takes as long as the finished ones of its row did on average, or of all rows where its own has
    none. As many are thought to be under way at a time as are now; if none is, one for each of the ``cores``.
    Evaluation is not counted. Failed runs, and those
    that an optional package is missing for, are not due: they wait for ``--retry``.
    """
    due = [each for each in found if each.state in ("missing", "stale", "interrupted", "running")]
    times = row_seconds(found)
    pace = [each.left * each.total / (each.total - each.done) for each in found if each.left and each.total > each.done]
    usual = sum(times.values()) / len(times) if times else sum(pace) / len(pace) if pace else None
    if not due or usual is None:
        return None
    parts = []
    for each in due:
        whole = times.get(each.row, usual)
        share = 1 - (each.done if each.state == "running" else each.kept) / max(each.total, 1)
        parts.append(each.left if each.left is not None else whole * share)
    running = sum(each.state == "running" for each in found)
    workers = min(running or cores or int(machine()["cores"] or 1), len(due))
    return Outlook(max(sum(parts) / workers, max(parts)), workers, bool(running))


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
