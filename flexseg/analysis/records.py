"""What the runs left behind: every (row, seed) of a benchmark with its status, and the reduced counts of its records.

Nothing is left out: a run that failed, was never made, or was made by other settings is here with its reason. Records
of another protocol, or of other test images, are refused: they could not stand in one table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexseg.benchmark import Benchmark, fingerprint
from flexseg.classes import NUM_CLASSES
from flexseg.errors import UserError
from flexseg.files import read_json
from flexseg.provenance import code_digest

Status = Literal["finished", "failed", "missing", "stale"]
STALE = "stale: other settings than the benchmark file's"
_COLUMNS = [
    "image", "condition", "pixels", "confusion", "boundary_confusion",
    "calibration_count", "calibration_correct", "calibration_confidence", "nll_sum",
]  # fmt: skip


@dataclass(frozen=True)
class TargetRecord:
    """The records of one run on one target, images in the order of their ids.

    ``counts`` (N, 3, C) holds true positives, truth pixels and predicted pixels of each image and class;
    ``confusion`` and ``boundary`` (C, C) are sums over images, truth × prediction; ``conditions`` has the confusion
    of each condition; ``calibration`` (3, bins) sums count, correct and confidence; ``nll`` is nats a pixel.
    """

    images: tuple[str, ...]
    counts: NDArray[np.int64]
    confusion: NDArray[np.int64]
    boundary: NDArray[np.int64]
    conditions: dict[str, NDArray[np.int64]]
    condition_images: dict[str, int]
    calibration: NDArray[np.float64]
    nll: float


@dataclass(frozen=True)
class Run:
    """One (row, seed): its status, the reason when there is nothing to tabulate, and its records by target."""

    row: str
    seed: int
    folder: Path
    status: Status
    reason: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    other_code: bool = False
    targets: dict[str, TargetRecord] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The method's resolved options as the run recorded them: value, default, assumed, help."""
        options: dict[str, dict[str, Any]] = self.info.get("options") or {}
        return options


@dataclass(frozen=True)
class Records:
    """All runs of a benchmark, keyed by (row, seed) in the benchmark's order, and today's code digest."""

    benchmark: Benchmark
    results: Path
    runs: dict[tuple[str, int], Run]
    code: str

    def of_row(self, row: str) -> list[Run]:
        """The runs of ``row``, one a seed; empty for a row that is not selected."""
        return [run for (name, _), run in self.runs.items() if name == row]

    def finished(self) -> list[Run]:
        """The runs whose records are used."""
        return [run for run in self.runs.values() if run.status == "finished"]

    def notes(self, row: str) -> list[str]:
        """Why ``row`` has fewer values than seeds × targets: one line a reason, naming its seeds."""
        reasons: dict[str, list[int]] = {}
        for run in self.of_row(row):
            if run.status != "finished":
                reasons.setdefault(run.reason, []).append(run.seed)
            for target, reason in run.absent.items():
                reasons.setdefault(f"target {target}: {reason}", []).append(run.seed)
        return [f"{seeds_text(seeds)} {reason}" for reason, seeds in reasons.items()]

    def other_code(self, row: str) -> list[str]:
        """Digests of other code than today's that made runs of ``row``."""
        return sorted({str(run.info.get("library")) for run in self.of_row(row) if run.other_code})


def seeds_text(seeds: Iterable[int]) -> str:
    """``seed 3`` or ``seeds 0, 1``."""
    listed = sorted(seeds)
    return ("seed " if len(listed) == 1 else "seeds ") + ", ".join(map(str, listed))


def load_records(benchmark: Benchmark, results: Path, methods: Path) -> Records:
    """Read every run of ``benchmark`` under ``results/<name>``.

    Raises:
        UserError: records of another protocol than the benchmark's, or of other test images than another run's.
    """
    library = code_digest()
    runs = {}
    for row in benchmark.rows:
        for seed in benchmark.seeds:
            definition = benchmark.run_definition(row, seed, methods / f"{benchmark.row(row).method}.py")
            folder = results / benchmark.name / row / f"seed-{seed}"
            runs[row, seed] = _load_run(benchmark, folder, row, seed, fingerprint(definition), library)
    _same_images(runs.values())
    return Records(benchmark, results, runs, library)


def _load_run(benchmark: Benchmark, folder: Path, row: str, seed: int, expected: str, library: str) -> Run:
    finished, failed = _read(folder / "run.json"), _read(folder / "failure.json")
    paths = {target: folder / "evaluation" / f"{target}.parquet" for target in benchmark.targets}
    for path in paths.values():
        _check_protocol(benchmark, path)
    current = finished is not None and finished.get("fingerprint") == expected
    if failed is not None and not current:
        reason = " ".join(str(failed.get("reason") or "no reason recorded").split())
        return Run(row, seed, folder, "failed", f"failed: {reason}", failed)
    if finished is None:
        return Run(row, seed, folder, "missing", "missing: not run")
    if finished.get("status") != "finished":
        reason = finished.get("reason") or f"status {finished.get('status')!r}"
        return Run(row, seed, folder, "failed", f"failed: {reason}", finished)
    if not current:
        return Run(row, seed, folder, "stale", STALE, finished)
    targets, absent = {}, {}
    for target, path in paths.items():
        loaded = _load_target(path, expected)
        if isinstance(loaded, str):
            # A finished training whose evaluation failed says why in failure.json.
            absent[target] = f"failed: {failed['reason']}" if failed and failed.get("reason") else loaded
        else:
            targets[target] = loaded
    other = finished.get("library") != library
    return Run(row, seed, folder, "finished", "", finished, other, targets, absent)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except (OSError, UserError):
        return {"status": "failed", "reason": f"{path.name} cannot be read"}
    return content if isinstance(content, dict) else {"status": "failed", "reason": f"{path.name} is no mapping"}


def _check_protocol(benchmark: Benchmark, path: Path) -> None:
    if not path.is_file():
        return
    try:
        metadata = {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return
    ours = {
        "protocol": benchmark.protocol.id,
        "label_map": benchmark.protocol.label_map,
        "boundary_width": str(benchmark.protocol.boundary_width),
    }
    for key, value in ours.items():
        if metadata.get(key) != value:
            raise UserError(
                f"{path}: its {key.replace('_', ' ')} is {metadata.get(key, 'not recorded')!r}, but benchmark "
                f"{benchmark.name} has {value!r}. Records of different protocols never share a table: evaluate this "
                "run again, or keep the other protocol under another results folder"
            )


def _load_target(path: Path, expected: str) -> TargetRecord | str:
    if not path.is_file():
        return "not evaluated"
    try:
        table = pq.read_table(path, columns=_COLUMNS, use_threads=False)
        made_by = (table.schema.metadata or {}).get(b"fingerprint", b"").decode()
        if made_by != expected:
            return "records of another run"
        return _reduce(table)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        return f"records cannot be read ({type(error).__name__})"


def _reduce(table: pa.Table) -> TargetRecord:
    images = np.asarray(table["image"].to_pylist())
    if not len(images):
        raise ValueError("no images")
    order = np.argsort(images, kind="stable")
    conditions = np.asarray(table["condition"].to_pylist())[order]

    def array(name: str, width: int = -1) -> NDArray[Any]:
        values = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values.reshape(len(images), width)[order])

    confusion = array("confusion", NUM_CLASSES**2).astype(np.int64).reshape(-1, NUM_CLASSES, NUM_CLASSES)
    boundary = array("boundary_confusion", NUM_CLASSES**2).sum(0, dtype=np.int64).reshape(NUM_CLASSES, NUM_CLASSES)
    counts = np.stack([np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)], axis=1)
    names = sorted(set(conditions.tolist()))
    calibration = np.stack([array(f"calibration_{part}").sum(0) for part in ("count", "correct", "confidence")])
    pixels = int(table["pixels"].to_numpy().sum())
    return TargetRecord(
        images=tuple(images[order].tolist()),
        counts=counts,
        confusion=confusion.sum(0),
        boundary=boundary,
        conditions={name: confusion[conditions == name].sum(0) for name in names},
        condition_images={name: int((conditions == name).sum()) for name in names},
        calibration=calibration.astype(np.float64),
        nll=float(table["nll_sum"].to_numpy().sum()) / pixels if pixels else float("nan"),
    )


def _same_images(runs: Iterable[Run]) -> None:
    first: dict[str, Run] = {}
    for run in runs:
        for target, record in run.targets.items():
            other = first.setdefault(target, run)
            reference = other.targets[target]
            if reference.images != record.images or not np.array_equal(reference.counts[:, 1], record.counts[:, 1]):
                raise UserError(
                    f"{run.folder / 'evaluation' / target}.parquet and "
                    f"{other.folder / 'evaluation' / target}.parquet hold different test images or labels, so they "
                    "cannot be compared image by image: evaluate both again"
                )
