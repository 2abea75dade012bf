"""The reference results that the repository ships: ``benchmarks/<name>.reference.csv``, its writer and its reader.

Comment lines (what it is; ``# provenance:``, ``# rows:`` and, if the runs recorded them, ``# weights:``, the first 16
digits of the SHA-256 of each run's weights; all JSON), then CSV: row, column (a target or an
average), mean, half width of the 95 % interval over seeds, sd over seeds, n, and mIoU of each seed, in percent.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from flexseg.analysis.stats.formats import write_text
from flexseg.analysis.stats.records import Records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import t_interval
from flexseg.benchmark import Benchmark
from flexseg.errors import UserError
from flexseg.files import digest
from flexseg.provenance import describe_kernels

_SUMMARY = ("mean", "half", "sd", "n")
_PARTS = (
    ("method", "method"), ("method_digest", "method file"), ("options", "options"), ("source", "source data"),
    ("generated", "generated data"), ("label_map", "label map"), ("model", "model"), ("training", "training"),
)  # fmt: skip


class Provenance(BaseModel):
    """What made the reference runs."""

    format: Literal[1]
    benchmark: str
    protocol: str
    libraries: list[str]
    commits: list[str]
    processors: list[str]
    torch: list[str] = []
    kernels: list[str] = []


@dataclass(frozen=True)
class Reference:
    """A reference file, checked.

    ``values``: (row, column) → seed → mIoU in percent; every cell has all ``seeds``. ``weights``: row → seed → digest,
    where the runs recorded them.
    """

    path: Path
    provenance: Provenance
    rows: dict[str, dict[str, str]]
    seeds: tuple[int, ...]
    values: dict[tuple[str, str], dict[int, float]]
    weights: dict[str, dict[int, str]] = field(default_factory=dict)

    def changed(self, row: str, parts: dict[str, str]) -> list[str]:
        """The parts of the definition of ``row`` that are not the reference's."""
        known = self.rows[row]
        return [part for part in sorted(known.keys() | parts.keys()) if known.get(part) != parts.get(part)]


def reference_path(benchmark: Benchmark, folder: Path) -> Path:
    """The file of the reference results of ``benchmark``."""
    return folder / f"{benchmark.name}.reference.csv"


def definition_parts(records: Records, row: str) -> dict[str, str]:
    """Each part of the definition of ``row`` and of its evaluation as a short digest, without the seed.

    They come from a finished run of the row, which counts as finished only if the benchmark file agrees.
    """
    benchmark = records.benchmark
    found = next((run.info.get("definition") for run in records.finished(row)), None)
    definition = found if isinstance(found, dict) else {}
    protocol = benchmark.protocol
    evaluation = {
        "protocol": [protocol.id, protocol.label_map, protocol.inference, protocol.checkpoint],
        "targets": {target: benchmark.domain_definition(target) for target in benchmark.targets},
        "averages": benchmark.averages,
    }
    parts = {name: digest({"": definition.get(key)})[:8] for key, name in _PARTS}
    return parts | {name: digest({"": value})[:8] for name, value in evaluation.items()}


def write_reference(scores: Scores, path: Path) -> list[str]:
    """Write the reference file from complete results.

    A row none of whose seeds was run, since an optional package is missing, is left out: elsewhere it has no reference.

    Returns:
        The rows that were left out.

    Raises:
        UserError: a run of the selected rows is missing, failed, stale or not fully evaluated; names each.
    """
    records, benchmark = scores.records, scores.benchmark
    states = {row: {run.status for run in records.of_row(row)} for row in benchmark.rows}
    rows = [row for row in benchmark.rows if states[row] != {"not run"}] or list(benchmark.rows)
    gaps = "".join(f"  {row}: {note}\n" for row, note in records.all_notes() if row in rows)
    if gaps:
        raise UserError(
            f"{path} was not written, since the results of benchmark {benchmark.name} are not complete:\n{gaps}"
            f"Finish them first: snakemake --cores all --config benchmark={benchmark.name}"
        )
    infos = [run.info for run in records.finished()]
    provenance = Provenance(
        format=1,
        benchmark=benchmark.name,
        protocol=benchmark.protocol.id,
        libraries=sorted({str(info.get("library")) for info in infos}),
        commits=sorted({_commit(info) for info in infos}),
        processors=processors(records),
        torch=sorted({str((info.get("versions") or {}).get("torch")) for info in infos}),
        kernels=kernels(records),
    )
    definitions = {row: definition_parts(records, row) for row in rows}
    text = io.StringIO()
    text.write(f"# Reference results of benchmark {benchmark.name}: mIoU in percent. ")
    text.write(f"Made by `flexseg verify {benchmark.name} --write`; not to be edited.\n")
    text.write(f"# provenance: {json.dumps(provenance.model_dump(), sort_keys=True)}\n")
    text.write(f"# rows: {json.dumps(definitions, sort_keys=True)}\n")
    digests = {row: found for row in rows if (found := weights_of(records, row))}
    if digests:
        text.write(f"# weights: {json.dumps(digests, sort_keys=True)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "column", *_SUMMARY, *(f"seed {seed}" for seed in benchmark.seeds)])
    for row in rows:
        for column in scores.columns:
            values = scores.per_seed(row, column)
            if not np.isfinite(values).all():
                raise UserError(f"{path} was not written: mIoU of {row} on {column} is undefined")
            mean, sd = t_interval(values), float(values.std(ddof=1)) if len(values) > 1 else math.nan
            summary = [_text(mean.value, 6), _text(mean.half, 6), _text(sd, 6), mean.n]
            writer.writerow([row, column, *summary, *(_text(value, 8) for value in values)])
    write_text(path, text.getvalue())
    return [row for row in benchmark.rows if row not in rows]


def processors(records: Records) -> list[str]:
    """The processors on which the finished runs were trained."""
    return sorted({str((run.info.get("machine") or {}).get("processor")) for run in records.finished()})


def kernels(records: Records) -> list[str]:
    """The instruction sets that the finished runs were computed with, in words; empty if a run recorded none."""
    found = {describe_kernels(run.info.get("kernels")) for run in records.finished()}
    return [] if "" in found else sorted(found)


def weights_of(records: Records, row: str) -> dict[int, str]:
    """Seed → the first 16 digits of the digest of its weights, for each finished run of ``row`` that recorded it."""
    return {run.seed: str(sha)[:16] for run in records.finished(row) if (sha := run.info.get("weights_sha256"))}


def _commit(info: dict[str, Any]) -> str:
    git = info.get("git") or {}
    return f"{git.get('commit')}{' with changes' if git.get('dirty') else ''}"


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def read_reference(path: Path, benchmark: Benchmark) -> Reference:
    """Read and check a reference file.

    Raises:
        UserError: it is damaged, of another format, or of another benchmark; says where and what to do.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = [line for line in lines if line.startswith("#")]
        provenance = Provenance.model_validate(_json(path, header, "provenance"))
        rows = TypeAdapter(dict[str, dict[str, str]]).validate_python(_json(path, header, "rows"))
        found = _json(path, header, "weights") if any(line.startswith("# weights:") for line in header) else {}
        weights = TypeAdapter(dict[str, dict[int, str]]).validate_python(found)
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise _damaged(path, f"its {error.title}: {found}") from error
    if provenance.benchmark != benchmark.name:
        raise UserError(f"{path} holds reference results of benchmark {provenance.benchmark!r}, not {benchmark.name!r}")
    seeds, values = _values(path, [line for line in lines if not line.startswith("#")], len(header))
    columns = {column for _, column in values}
    for row, _ in values:
        if row not in rows:
            raise _damaged(path, f"row {row!r} is not in its `# rows:` line")
    if not values or any((row, column) not in values for row in rows for column in columns):
        raise _damaged(path, "not every row has every column")
    return Reference(path, provenance, rows, seeds, values, weights)


def _json(path: Path, header: list[str], name: str) -> Any:
    line = next((line for line in header if line.startswith(f"# {name}: ")), None)
    if line is None:
        raise _damaged(path, f"its `# {name}:` line is missing")
    try:
        return json.loads(line.removeprefix(f"# {name}: "))
    except ValueError as error:
        raise _damaged(path, f"its `# {name}:` line is no JSON ({error})") from error


def _values(
    path: Path, lines: list[str], skipped: int
) -> tuple[tuple[int, ...], dict[tuple[str, str], dict[int, float]]]:
    import pandas as pd

    try:
        # No cell may be guessed at: a row has as many as the heading, and all but two are numbers.
        widths = {line.count(",") for line in lines}
        table = pd.read_csv(io.StringIO("\n".join(lines)), dtype={"row": str, "column": str})
        seeds = tuple(int(name.removeprefix("seed ")) for name in table.columns[2 + len(_SUMMARY) :])
        found = table.iloc[:, 2 + len(_SUMMARY) :].to_numpy(np.float64)
        mean, n = table["mean"].to_numpy(np.float64), table["n"].to_numpy(np.int64)
    except (KeyError, ValueError) as error:
        raise _damaged(path, f"its table cannot be read ({error})") from error
    if list(table.columns[: 2 + len(_SUMMARY)]) != ["row", "column", *_SUMMARY] or not seeds or len(widths) != 1:
        raise _damaged(path, f"its columns are not row, column, {', '.join(_SUMMARY)}, seed 0, … in every line")
    sound = (np.abs(mean - found.mean(axis=1)) <= 1e-5) & (n == len(seeds))  # NaN is never sound
    sound &= ((found >= 0) & (found <= 100)).all(axis=1)
    if not sound.all():
        number = int(np.argmin(sound))
        row, column = table.loc[number, ["row", "column"]]
        place = f"line {number + skipped + 2} ({row}, {column})"
        raise _damaged(path, f"{place} contradicts itself: its seeds do not give its mean and n")
    twice = table[table.duplicated(["row", "column"])]
    if len(twice):
        raise _damaged(path, f"{twice.iloc[0]['row']}, {twice.iloc[0]['column']} is in it twice")
    cells = zip(table["row"], table["column"], found, strict=True)
    return seeds, {(row, column): dict(zip(seeds, map(float, each), strict=True)) for row, column, each in cells}


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}. Restore it (git checkout {path}), or make it anew with --write")
