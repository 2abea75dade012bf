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

from flexseg.analysis.stats.records import STALE, Run, load_records
from flexseg.benchmark import Benchmark, Training, fingerprint
from flexseg.errors import UserError
from flexseg.files import read_json
from flexseg.provenance import machine

State = Literal["finished", "trained", "running", "interrupted", "failed", "not run", "stale", "missing"]
STATES: tuple[State, ...] = ("finished", "trained", "running", "interrupted", "failed", "not run", "stale", "missing")
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
    state: State
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


def standings(benchmark: Benchmark, results: Path, methods: Path, now: float | None = None) -> list[Standing]:
    """Where each run of ``benchmark`` under ``results`` stands at ``now`` (seconds since 1970), in its order."""
    # Without targets no record is opened; what a run is, finished or failed or stale, does not depend on them.
    bare = benchmark.model_copy(update={"targets": [], "averages": {}})
    runs = load_records(bare, results, methods).runs.values()
    return [_standing(benchmark, run, methods, time.time() if now is None else now) for run in runs]


def _standing(benchmark: Benchmark, run: Run, methods: Path, now: float) -> Standing:
    total = benchmark.training_of(run.row).iterations
    place = (run.row, run.seed, run.folder)
    if run.status == "finished":
        state, reason = _evaluated(benchmark, run)
        seconds = positive(run.info.get("train_seconds"))
        return Standing(*place, state, reason, done=total, kept=total, total=total, seconds=seconds)
    if run.status != "missing":
        return Standing(*place, run.status, run.reason, total=total)
    config = run.folder / "config.json"
    if not config.is_file():
        return Standing(*place, "missing", run.reason, total=total)
    method = methods / f"{benchmark.row(run.row).method}.py"
    if _mapping(config).get("fingerprint") != fingerprint(benchmark.run_definition(run.row, run.seed, method)):
        return Standing(*place, "stale", STALE, total=total)
    done, left = _logged(benchmark.training_of(run.row), run.folder, now)
    if left is None:
        kept = min(_checkpointed(run.folder / "checkpoint.safetensors"), total)
        return Standing(*place, "interrupted", done=max(done, kept), kept=kept, total=total)
    return Standing(*place, "running", done=done, total=total, left=left if math.isfinite(left) else None)


def _evaluated(benchmark: Benchmark, run: Run) -> tuple[State, str]:
    """Whether a trained run has a record of this evaluation on every target, and if not, why."""
    made_by, wanted = str(run.info.get("fingerprint")), fingerprint(benchmark.evaluation_definition())
    waiting = [
        t for t in benchmark.targets if not _record(run.evaluated / "evaluation" / f"{t}.parquet", made_by, wanted)
    ]
    if not waiting:
        return "finished", ""
    failure = _mapping(run.evaluated / "failure.json")
    if failure:
        reason = " ".join(str(failure.get("reason") or "no reason recorded").split())
        return "failed", f"failed in the evaluation: {reason}"
    return "trained", "not evaluated" + (f" on {', '.join(waiting)}" if len(waiting) < len(benchmark.targets) else "")


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


def _logged(training: Training, folder: Path, now: float) -> tuple[int, float | None]:
    """(iterations in the log, seconds left): NaN where the speed is unknown, None where the run is not running."""
    line = _last_line(folder / "train.jsonl")
    iteration = line.get("iteration")
    done = min(max(iteration, 0), training.iterations) if type(iteration) is int else 0
    speed = positive(line.get("images_per_second"))
    touched = max(_modified(folder / name) for name in ("config.json", "train.jsonl", "checkpoint.safetensors"))
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


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except (OSError, UserError):
        return {"reason": f"{path.name} cannot be read"}
    return content if isinstance(content, dict) else {"reason": f"{path.name} is no mapping"}


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
