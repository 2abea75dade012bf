"""What a run is: its definition, its fingerprint, its directories, and how far it has come.

Whatever needs to know which run this is, where it is stored and whether it is finished asks a :class:`Run`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flexseg.benchmark.facts import mistake_in_record
from flexseg.benchmark.foreign import Foreign
from flexseg.benchmark.schema import Benchmark
from flexseg.console import printable
from flexseg.errors import UserError
from flexseg.files import DISK, DiskError, digest, read_json, remove_stale_parts, write_json

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""

RECORD_COLUMNS = (
    "image", "condition", "pixels", "confusion", "boundary_confusion",
    "calibration_count", "calibration_correct", "calibration_confidence", "nll_sum",
    "ring_pixels", "ring_correct", "boundary_iou", "boundary_f1",
)  # fmt: skip
"""The columns of the per-image records."""


def fingerprint(definition: dict[str, Any]) -> str:
    """The short name of a definition: 16 hex digits that change when anything in it does."""
    return digest(definition)[:16]


@dataclass(frozen=True)
class RunDirectory:
    """``results/<benchmark>/<row>/seed-<n>/`` and the files in it."""

    root: Path

    @property
    def config(self) -> Path:
        """What defines the run; written first, never changed."""
        return self.root / "config.json"

    @property
    def record(self) -> Path:
        """``run.json``: provenance, cost and resolved options of a finished run; written last."""
        return self.root / "run.json"

    @property
    def failure(self) -> Path:
        """``failure.json``: why the run cannot be finished."""
        return self.root / "failure.json"

    @property
    def log(self) -> Path:
        """``train.jsonl``: one line of JSON per logging step."""
        return self.root / "train.jsonl"

    @property
    def weights(self) -> Path:
        """The final (averaged) weights."""
        return self.root / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The state that an interrupted run continues from; removed when the run has finished."""
        return self.root / "checkpoint.safetensors"

    @property
    def observations(self) -> Path:
        """What the method shows of itself at a few moments of training, one file for each."""
        return self.root / "observations"

    @property
    def evaluation(self) -> Path:
        """One parquet of per-image records for each target."""
        return self.root / "evaluation"

    def records(self, target: str) -> Path:
        """The per-image records of one target."""
        return self.evaluation / f"{target}.parquet"

    @property
    def predictions(self) -> Path:
        """A few predicted label maps for each target."""
        return self.root / "predictions"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run. It is beside the directory, which may be moved aside."""
        return self.root.parent / f".{self.root.name}.lock"

    @contextmanager
    def hold(self, work: Literal["trained", "evaluated"] = "trained") -> Iterator[None]:
        """Keep every other process from writing this directory within the block; remove what killed ones left half.

        The lock is the system's: it ends with the process that holds it, however that ends, and works between the
        machines of a cluster as far as their file system's locks do; without locks this says so and continues.
        Nobody waits for it, so two locks cannot wait for each other. Processes that a run starts for further devices
        are not locked out.

        Raises:
            UserError: another process holds it; says which, and for what ``work``.
        """
        if os.environ.get("LOCAL_RANK", "0") != "0":
            yield
            return
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = " ".join(file.read(200).split()) or "used by another process"
                raise UserError(
                    f"{self.root} is being {holder}: wait until it is done, or end it; then start the same command "
                    "again, which goes on from what is there"
                ) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                print(f"{self.lock.parent} has no file locks: make sure that no other process writes {self.root}")
            file.truncate(0)
            job = os.environ.get("SLURM_JOB_ID")
            here = f"process {os.getpid()} on {socket.gethostname()}" + (f" (Slurm job {job})" if job else "")
            file.write(f"{work} by {here}")
            file.flush()
            for folder in (self.root, self.observations, self.evaluation, *self.predictions.glob("*")):
                remove_stale_parts(folder)
            yield

    def open(self, definition: Mapping[str, Any], *, supersede: bool = False) -> None:
        """Make this the directory of the run that ``definition`` defines.

        A directory of another definition is never overwritten: it is an error or, with ``supersede``, it is moved aside
        to ``superseded/`` beside it. A recorded failure of the same run is cleared, so that it is tried again.

        Raises:
            UserError: the directory belongs to another definition and ``supersede`` is false; or ``config.json`` is
                damaged.
        """
        name = fingerprint(dict(definition))
        if self.config.is_file():
            found = read_json(self.config)
            if not _is_definition(found):
                raise UserError(f"{self.config} says nothing of a run: delete it, or its folder, and start again")
            if found["fingerprint"] != name:
                if not supersede:
                    difference = _describe_difference(found["definition"], definition)
                    raise UserError(
                        f"{self.root} holds a run of another configuration: {difference}. Nothing was changed. "
                        "Give --supersede to move it aside, or name another row"
                    )
                self._move_aside(found["fingerprint"])
        self.root.mkdir(parents=True, exist_ok=True)
        self.failure.unlink(missing_ok=True)
        write_json(self.config, {"fingerprint": name, "definition": dict(definition)})

    def _move_aside(self, name: str) -> None:
        shelf = self.root.parent / "superseded"
        shelf.mkdir(exist_ok=True)
        place, number = shelf / f"{self.root.name}-{name}", 1
        while place.exists():
            number += 1
            place = shelf / f"{self.root.name}-{name}-{number}"
        self.root.rename(place)


Status = Literal["finished", "failed", "not run", "missing", "stale"]
"""*Not run* waits for an optional package; *missing* is not trained to its end; *stale* has other settings."""
STALE = "stale: other settings than the benchmark file's"
REASON = 1000
"""The most characters of a reason that are shown."""


@dataclass(frozen=True)
class State:
    """How far a run has come, the reason if it is not finished, and what its ``run.json`` or ``failure.json`` says."""

    status: Status
    reason: str = ""
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run: a row of a benchmark trained with a seed.

    Attributes:
        results: the folder of all results.
        place: the run's directory, if it is not in its usual place below ``results``.
        as_recorded: believe the run's own ``run.json``, so that the run is never stale: for the results of another
            version of the benchmark.
    """

    benchmark: Benchmark
    row: str
    seed: int
    results: Path = Path("results")
    place: Path | None = None
    as_recorded: bool = False

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that decides the weights, except the library's own code."""
        if self.recorded:
            content = read_json(self.directory.record) if self.directory.record.is_file() else {}
            definition = content.get("definition") if isinstance(content, dict) else None
            return definition if isinstance(definition, dict) else {}
        return self.benchmark.run_definition(self.row, self.seed)

    @property
    def recorded(self) -> bool:
        """Whether the run is what its own ``run.json`` says: asked for, or published by others."""
        return self.foreign.has_seeds if self.foreign is not None else self.as_recorded

    @property
    def foreign(self) -> Foreign | None:
        """What was made elsewhere, if the run is not trained here."""
        return self.benchmark.row(self.row).foreign

    @cached_property
    def fingerprint(self) -> str:
        """The short name of the definition."""
        return fingerprint(self.definition)

    @property
    def directory(self) -> RunDirectory:
        """Where the run is trained: under its benchmark's name, or that of the benchmark whose runs it evaluates."""
        return RunDirectory(self.place or self.results / self.benchmark.trained_as / self.row / f"seed-{self.seed}")

    @property
    def evaluated(self) -> RunDirectory:
        """Where the benchmark keeps the run's records and predictions: always under its own name."""
        return RunDirectory(self.place or self.results / self.benchmark.name / self.row / f"seed-{self.seed}")

    @property
    def state(self) -> State:
        """How far the run has come, as its directory says now; what was made elsewhere is finished if it is there."""
        if (foreign := self.foreign) is not None and not foreign.has_seeds:
            if lost := foreign.missing:
                return State("missing", f"missing: {lost}")
            return State("finished", "", {"foreign": foreign.describe(), "definition": self.definition})
        record, failure = read_mapping(self.directory.record), read_mapping(self.directory.failure)
        current = record is not None and record.get("fingerprint") == self.fingerprint
        if failure is not None and not current:
            status: Status = "not run" if failure.get("status") == "not run" else "failed"
            return State(status, f"{status}: {reason_of(failure)}", failure)
        if record is None:
            return State("missing", "missing: not run")
        if record.get("status") != "finished":
            reason = reason_of(record) if record.get("reason") else f"status {record.get('status')!r}"[:REASON]
            return State("failed", f"failed: {reason}", record)
        if mistake := mistake_in_record(record):
            return State("failed", f"failed: {self.directory.record.name} is damaged ({printable(mistake)})")
        if foreign is not None:
            record = record | {"foreign": foreign.describe()}
        return State("finished", "", record) if current else State("stale", STALE, record)

    @property
    def trained(self) -> bool:
        """Whether the run is finished and its weights are there."""
        elsewhere = self.foreign is not None and not self.foreign.has_seeds
        whole = elsewhere or self.directory.weights.is_file()
        return self.state.status == "finished" and whole

    def require_trained(self) -> None:
        """Refuse a run that is not finished with today's settings.

        Raises:
            UserError: says which command trains it.
        """
        if self.foreign is not None and (lost := self.foreign.missing):
            raise UserError(f"benchmark {self.benchmark.name}: rows.{self.row}: {lost}")
        if not self.trained:
            raise UserError(
                f"{self.directory.root} holds no finished run of these settings: train it first, with "
                f"`flexseg train {self.benchmark.trained_as} {self.row} {self.seed}`"
            )


def tables_folder(benchmark: Benchmark, results: Path) -> Path:
    """Where the tables of a benchmark are, or those of the study or selection of it."""
    return results / benchmark.name / "tables" / benchmark.selection


def reference_path(benchmark: Benchmark, folder: Path) -> Path:
    """The file of the reference runs of ``benchmark``, in the folder of the benchmarks."""
    return folder / f"{benchmark.name}.reference.csv"


def evidence_files(benchmark: Benchmark) -> list[Path]:
    """The files beside its results by which a benchmark's claims are judged, as far as they exist; none without any."""
    files = [benchmark.home / benchmark.claims, reference_path(benchmark, benchmark.home)]
    return [path for path in files if benchmark.claimed is not None and path.is_file()]


def runs_of(benchmark: Benchmark, results: Path) -> list[Run]:
    """Every run of a benchmark's rows and seeds, in their order.

    Raises:
        DiskError: ``results`` is a file, or a link to nowhere; that every run is missing would be wrong then.
    """
    if os.path.lexists(results) and not results.is_dir():
        raise DiskError(f"{results}: {DISK[errno.ENOTDIR]}")
    return [Run(benchmark, row, seed, results) for row in benchmark.rows for seed in benchmark.seeds_of(row)]


def read_mapping(path: Path) -> dict[str, Any] | None:
    """A JSON file of a run; None if there is none. One that cannot be read counts as a failure with that reason."""
    if not os.path.lexists(path):
        return None
    try:
        content = read_json(path)
    except (OSError, UserError):
        return {"status": "failed", "reason": f"{path.name} cannot be read"}
    return content if isinstance(content, dict) else {"status": "failed", "reason": f"{path.name} is no mapping"}


def reason_of(failure: Mapping[str, Any]) -> str:
    """The reason that a ``failure.json`` gives, on one line of at most ``REASON`` characters."""
    reason = printable(" ".join(str(failure.get("reason") or "no reason recorded").split()))
    return reason if len(reason) <= REASON else f"{reason[: REASON - 1]}…"


def _is_definition(content: Any) -> bool:
    """Whether a ``config.json`` or ``run.json`` names a fingerprint and a definition."""
    if not isinstance(content, dict) or not isinstance(content.get("definition"), dict):
        return False
    return isinstance(name := content.get("fingerprint"), str) and re.fullmatch(r"[0-9a-f]{16}", name) is not None


def differences(old: Any, new: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """Where two definitions differ: (dotted place, old value, new value) for each leaf, None for what is missing."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted(old.keys() | new.keys(), key=str):
            found += differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return found
    listed = [list(value) if isinstance(value, tuple) else value for value in (old, new)]  # JSON has no tuples
    return [] if listed[0] == listed[1] else [(place, old, new)]


def _describe_difference(old: Any, new: Any) -> str:
    """The first few places where two definitions differ, in words."""
    found = [f"{place} was {before!r}, now {after!r}" for place, before, after in differences(old, new)]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more
