"""Every (row, seed) of a benchmark with its status, and the reduced counts of its records.

Nothing is left out: a run that failed, was never made, or was made by other settings is here with its reason. Records
of another protocol, or of other test images, are refused: they cannot share a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexseg.analysis.stats.metrics import class_counts
from flexseg.benchmark import Benchmark, Protocol, Run
from flexseg.benchmark.identity import RECORD_COLUMNS, Status, read_mapping, reason_of, runs_of
from flexseg.console import printable
from flexseg.errors import UserError
from flexseg.provenance import code_digest
from flexseg.shows import Show, read_shows


@dataclass(frozen=True)
class TargetRecord:
    """The records of one run on one target, images in the order of their ids.

    ``N`` images, ``C`` classes, ``W`` boundary widths and ``R`` rings of the protocol. Everything additive is kept
    per image, so that a resampling of the images can be scored like the images themselves.

    Attributes:
        images: the ids.
        conditions: how many images each condition has, sorted by name.
        condition_of: (N,) the condition of each image, as a place in ``conditions``.
        counted: the counts of each image, by name; see :meth:`per_image`.
        label_map: the map that turned its labels into classes; empty where the records do not say.
    """

    images: tuple[str, ...]
    conditions: dict[str, int]
    condition_of: NDArray[np.int64]
    counted: Mapping[str, NDArray[Any]]
    label_map: str = ""
    _totals: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False)

    def per_image(self, name: str) -> NDArray[Any]:
        """Additive counts of each image (N, *shape), by name.

        - ``classes``, ``band``, ``interior`` (3, C): true positives, truth and predicted pixels of each class: of all
          pixels, of those in the boundary band, and of the rest;
        - ``conditions`` (K, 3, C): ``classes`` in the image's own condition, 0 in the others;
        - ``rings`` (2, R+1): pixels, and right pixels, of each ring and beyond;
        - ``boundary_iou`` (W, 3, C): pixels of each class near a boundary in both, in truth, in prediction;
        - ``boundary_f1`` (W, 4, C): predicted contour pixels, those near the truth's; true ones, those near;
        - ``calibration`` (3, bins): pixels, right pixels, sum of confidences; ``nll`` (2,): sum of −log p, and pixels.
        """
        if name == "conditions":  # made when asked for: it is the largest, and mostly zeros
            own = self.condition_of[:, None] == np.arange(len(self.conditions))
            return self.counted["classes"][:, None] * own[:, :, None, None]
        if name == "interior":
            return self.counted["classes"] - self.counted["band"]
        return self.counted[name]

    def total(self, name: str) -> NDArray[Any]:
        """:meth:`per_image` summed over the images. (*shape)"""
        if name not in self._totals:
            counts = self.per_image(name)
            self._totals[name] = counts.sum(0, dtype=np.int64 if np.issubdtype(counts.dtype, np.integer) else None)
        return self._totals[name]

    def same_images(self, other: TargetRecord) -> bool:
        """Whether both are of the same images with the same conditions and labels, so that they can be paired."""
        return (
            self.images == other.images
            and list(self.conditions) == list(other.conditions)
            and np.array_equal(self.condition_of, other.condition_of)
            and np.array_equal(self.counted["classes"][:, 1], other.counted["classes"][:, 1])
        )


@dataclass(frozen=True)
class RunRecords:
    """One (row, seed): its status, the reason if there is nothing to tabulate, and its records by target.

    ``folder`` holds the files of its training, ``evaluated`` its records and predictions: the same folder, unless the
    benchmark evaluates the runs of another. ``absent``: why a target has no records.
    """

    row: str
    seed: int
    folder: Path
    evaluated: Path
    status: Status
    reason: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    other_code: bool = False
    targets: dict[str, TargetRecord] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def foreign(self) -> str:
        """What the run is, if it was not trained here: which file, and its digest."""
        return str(self.info.get("foreign") or "")

    @property
    def code(self) -> str:
        """The digest of the library's files that made the run."""
        return str(self.info.get("library") or "not recorded")

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The method's resolved options as the run recorded them: value, default, origin, help."""
        options: dict[str, dict[str, Any]] = self.info.get("options") or {}
        return options

    def log(self) -> list[dict[str, Any]]:
        """What it logged while training; see :func:`read_log`."""
        return read_log(self.folder / "train.jsonl")


@dataclass(frozen=True)
class Records:
    """All runs of a benchmark, keyed by (row, seed) in the benchmark's order."""

    benchmark: Benchmark
    results: Path
    runs: dict[tuple[str, int], RunRecords]

    def of_row(self, row: str) -> list[RunRecords]:
        """The runs of ``row``, one per seed; empty for a row that is not selected."""
        return [run for (name, _), run in self.runs.items() if name == row]

    def finished(self, row: str = "") -> list[RunRecords]:
        """The runs whose records are used, of all rows or of one."""
        return [run for run in self.runs.values() if run.status == "finished" and row in ("", run.row)]

    def trainings(self) -> list[RunRecords]:
        """The finished runs of which a training is on record: all but networks from elsewhere."""
        foreign = {row: self.benchmark.rows[row].foreign for row in self.benchmark.rows}
        return [run for run in self.finished() if (kind := foreign[run.row]) is None or kind.has_seeds]

    def notes(self, row: str) -> list[str]:
        """Why ``row`` has fewer values than seeds × targets: one line per reason, naming its seeds.

        Of a row from elsewhere also what it is, and what its intervals are about.
        """
        kind = self.benchmark.rows[row].foreign
        about = "trained elsewhere, its runs count like one's own" if kind is not None and kind.has_seeds else (
            "one network, so ± and intervals are over test images (and over the seeds of the rows that it is compared "
            "with)"
        )  # fmt: skip
        names = dict.fromkeys(run.foreign for run in self.finished(row) if run.foreign)
        foreign = [f"foreign: {name}; {about}" for name in names]
        reasons: dict[str, list[int]] = {}
        for run in self.of_row(row):
            if run.status != "finished":
                reasons.setdefault(run.reason, []).append(run.seed)
            for target, reason in run.absent.items():
                reasons.setdefault(f"target {target}: {reason}", []).append(run.seed)
        return [*foreign, *(f"{seeds_text(seeds)} {reason}" for reason, seeds in reasons.items())]

    def all_notes(self) -> list[tuple[str, str]]:
        """(row, note) of all rows; see :meth:`notes`."""
        return [(row, note) for row in self.benchmark.rows for note in self.notes(row)]

    def shows(self, row: str) -> tuple[Show, ...]:
        """What the method of ``row`` declares to be shown, as its first finished run recorded it."""
        return next((read_shows(run.info.get("shows")) for run in self.finished(row)), ())

    def other_code(self, row: str) -> list[str]:
        """Digests of the library code that made runs of ``row``, where they are not today's."""
        return sorted({run.code for run in self.of_row(row) if run.other_code})


def seeds_text(seeds: Iterable[int]) -> str:
    """``seed 3`` or ``seeds 0, 1``."""
    listed = sorted(seeds)
    return ("seed " if len(listed) == 1 else "seeds ") + ", ".join(map(str, listed))


def load_records(benchmark: Benchmark, results: Path, *, as_recorded: bool = False) -> Records:
    """Read every run of ``benchmark``, trained by it or by the benchmark whose runs it evaluates.

    Args:
        as_recorded: trust what every run recorded of itself, even if the benchmark file has changed since.

    Raises:
        UserError: records of another protocol than the benchmark's (or from before a part of the protocol was
            measured), or of other test images than another run's.
    """
    every = (replace(run, as_recorded=as_recorded) for run in runs_of(benchmark, results))
    runs = {(run.row, run.seed): _load_run(run) for run in every}
    return Records(benchmark, results, _with_same_images(runs))


def _load_run(run: Run) -> RunRecords:
    state, benchmark = run.state, run.benchmark
    place = (run.row, run.seed, run.directory.root, run.evaluated.root)
    if state.status != "finished":
        return RunRecords(*place, state.status, state.reason, _printable(state.record))
    targets, absent = {}, {}
    failed = read_mapping(run.evaluated.failure)
    for target in benchmark.targets:
        path = run.evaluated.records(target)
        _check_protocol(benchmark, path)
        loaded = _load_target(path, run.fingerprint, benchmark.protocol, len(benchmark.class_set))
        if isinstance(loaded, str):
            # A finished training whose evaluation failed says why in failure.json.
            absent[target] = f"failed: {reason_of(failed)}" if failed and failed.get("reason") else loaded
        else:
            targets[target] = loaded
    files = state.record.get("library_files")
    foreign = "foreign" in state.record
    other = not foreign and state.record.get("library") != code_digest(tuple(files) if files else None)
    return RunRecords(*place, "finished", "", _printable(state.record), other, targets, absent)


def _printable(value: Any) -> Any:
    """JSON whose every text and key can be written into a report."""
    if isinstance(value, str):
        return printable(value, breaks=True)
    if isinstance(value, dict):
        return {printable(key): _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value


def read_log(path: Path) -> list[dict[str, Any]]:
    """The numbers of each line of a ``train.jsonl`` that has an iteration; damaged lines are left out."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # still being written, or torn by the end of its process
        if isinstance(line, dict) and type(line.get("iteration")) is int and 0 <= line["iteration"] < 2**53:
            lines.append({printable(name): value for name, value in line.items() if _is_number(value)})
    return lines


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a figure can show or leave out; a whole one may have thousands of digits."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


def read_metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a record file; None where there is no readable one."""
    try:
        return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None


def _check_protocol(benchmark: Benchmark, path: Path) -> None:
    metadata = read_metadata(path)
    if metadata is None:
        return
    ours = {
        "protocol": benchmark.protocol.id,
        "label_map": benchmark.class_set.id,
        "boundary_band": str(benchmark.protocol.boundary_band),
        "boundary_tolerances": json.dumps(list(benchmark.protocol.boundary_tolerances)),
        "distance_rings": json.dumps(list(benchmark.protocol.distance_rings)),
    }
    for key, value in ours.items():
        if metadata.get(key) != value:
            raise UserError(
                f"{path}: its {key.replace('_', ' ')} is {metadata.get(key, 'not recorded')!r}, but benchmark "
                f"{benchmark.name} has {value!r}. Records of different protocols never share a table: evaluate this "
                f"run again (flexseg evaluate {benchmark.name} {path.parents[2].name}), or keep the other protocol "
                "under another results folder"
            )


def _load_target(path: Path, expected: str, protocol: Protocol, classes: int) -> TargetRecord | str:
    if not path.is_file():
        return "not evaluated"
    try:
        with pq.ParquetFile(path) as file:  # read_table would look for a partitioned data set, and import pandas
            table = file.read(columns=list(RECORD_COLUMNS), use_threads=False)
        metadata = table.schema.metadata or {}
        if metadata.get(b"fingerprint", b"").decode(errors="replace") != expected:
            return "records of another run"
        label_map = printable(metadata.get(b"target_label_map", b"").decode(errors="replace"))
        return _reduce(table, protocol, classes, label_map, hard=metadata.get(b"probabilities") == b"none")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        return f"records cannot be read ({type(error).__name__}): evaluate this run again"


def _reduce(table: pa.Table, protocol: Protocol, classes: int, label_map: str, hard: bool = False) -> TargetRecord:
    """The counts of a table of records; ``hard`` ones are of label maps without probabilities."""
    images = np.asarray(table["image"].to_pylist())
    if not len(images) or images.dtype.kind != "U" or len(set(images.tolist())) < len(images):
        raise ValueError("images without names of their own")
    order = np.argsort(images, kind="stable")
    conditions = np.asarray([printable(name) for name in table["condition"].to_pylist()])[order]
    names, condition_of, sizes = np.unique(conditions, return_inverse=True, return_counts=True)

    def array(name: str, *shape: int) -> NDArray[Any]:
        column = table[name].combine_chunks()
        values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        found = np.asarray(values.to_numpy(zero_copy_only=False).reshape(len(images), *shape)[order])
        if found.dtype.kind not in "iuf" or not (np.isfinite(found) & (found >= 0)).all():
            raise ValueError(f"{name} holds what is no count")
        return found

    rings, widths, bins = len(protocol.distance_rings) + 1, len(protocol.boundary_tolerances), protocol.calibration_bins
    calibration = [array(f"calibration_{part}", bins) for part in ("count", "correct", "confidence")]
    return TargetRecord(
        images=tuple(images[order].tolist()),
        conditions=dict(zip(names.tolist(), sizes.tolist(), strict=True)),
        condition_of=condition_of,
        counted={
            "classes": class_counts(array("confusion", classes, classes).astype(np.int64)),
            "band": class_counts(array("boundary_confusion", classes, classes)),
            "rings": np.stack([array("ring_pixels", rings), array("ring_correct", rings)], axis=1),
            "boundary_iou": array("boundary_iou", widths, 3, classes),
            "boundary_f1": array("boundary_f1", widths, 4, classes),
            "calibration": np.stack(calibration, axis=1).astype(np.float64),
            "nll": np.stack([array("nll_sum"), array("pixels") * (not hard)], axis=1).astype(np.float64),
        },
        label_map=label_map,
    )


def _with_same_images(runs: dict[tuple[str, int], RunRecords]) -> dict[tuple[str, int], RunRecords]:
    """The runs without records of other images than most runs have on a target: one damaged file costs itself alone.

    Raises:
        UserError: there is no such majority, so that nobody can tell which are the right ones.
    """
    runs = dict(runs)
    for target in {target: None for run in runs.values() for target in run.targets}:
        having = {key: run for key, run in runs.items() if target in run.targets}
        maps = {run.targets[target].label_map: run for run in having.values()}
        if len(maps) > 1:
            _refuse(target, *list(maps.values())[:2])
        groups: list[list[tuple[str, int]]] = []
        for key, run in having.items():
            like = (group for group in groups if having[group[0]].targets[target].same_images(run.targets[target]))
            group = next(like, None)
            groups.append([key]) if group is None else group.append(key)
        groups.sort(key=len, reverse=True)
        if len(groups) > 1 and 2 * len(groups[0]) <= len(having):
            _refuse(target, having[groups[0][0]], having[groups[1][0]])
        for key in (key for group in groups[1:] for key in group):
            run = runs[key]
            reason = "records of other images or labels than the other runs': evaluate this run again"
            kept = {name: record for name, record in run.targets.items() if name != target}
            runs[key] = replace(run, targets=kept, absent=run.absent | {target: reason})
    return runs


def _refuse(target: str, one: RunRecords, other: RunRecords) -> NoReturn:
    paths = [str(run.evaluated / "evaluation" / f"{target}.parquet") for run in (one, other)]
    maps = [run.targets[target].label_map or "(not recorded)" for run in (one, other)]
    if maps[0] != maps[1]:
        raise UserError(
            f"{paths[0]} was scored with the label map {maps[0]}, {paths[1]} with {maps[1]}. They are not comparable: "
            "evaluate both again"
        )
    raise UserError(
        f"{paths[0]} and {paths[1]} hold different test images or labels, so they cannot be compared image by image: "
        "evaluate both again"
    )
