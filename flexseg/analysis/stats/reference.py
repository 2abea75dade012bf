"""The reference results that the repository ships: ``benchmarks/<name>.reference.csv``, its writer and its reader.

Three comment lines (what it is; ``# provenance:`` and ``# rows:``, both JSON), then CSV: row, column (a target or an
average), mean, half width of the 95 % interval over seeds, sd over seeds, n, and mIoU of each seed, in percent.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexseg.analysis.stats.formats import write_text
from flexseg.analysis.stats.records import Records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import t_interval
from flexseg.benchmark import Benchmark
from flexseg.errors import UserError
from flexseg.files import digest

FORMAT = 1
_SUMMARY = ("mean", "half", "sd", "n")
_PROVENANCE = ("format", "benchmark", "protocol", "libraries", "commits", "processors")
_PARTS = (
    ("method", "method"), ("method_digest", "method file"), ("options", "options"), ("source", "source data"),
    ("generated", "generated data"), ("label_map", "label map"), ("model", "model"), ("training", "training"),
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A reference file, checked. ``values``: (row, column) → seed → mIoU in percent; every cell has all ``seeds``."""

    path: Path
    provenance: dict[str, Any]
    rows: dict[str, dict[str, str]]
    seeds: tuple[int, ...]
    values: dict[tuple[str, str], dict[int, float]]

    @property
    def libraries(self) -> list[str]:
        """Digests of the library's code that made the runs."""
        return [str(each) for each in self.provenance["libraries"]]

    @property
    def processors(self) -> list[str]:
        """The processors on which the runs were made."""
        return [str(each) for each in self.provenance["processors"]]

    def changed(self, row: str, parts: dict[str, str]) -> list[str]:
        """The parts of the definition of ``row`` that are not the reference's."""
        known = self.rows[row]
        return [part for part in sorted(known.keys() | parts.keys()) if known.get(part) != parts.get(part)]


def reference_path(benchmark: Benchmark, folder: Path) -> Path:
    """Where the reference results of ``benchmark`` lie."""
    return folder / f"{benchmark.name}.reference.csv"


def definition_parts(records: Records, row: str) -> dict[str, str]:
    """Each part of what defines ``row`` and its evaluation, as a short digest; the seed is no part of it.

    They are those of the row's finished runs, which are the benchmark file's, or no run would count as finished.
    """
    benchmark = records.benchmark
    found = next((run.info.get("definition") for run in records.of_row(row) if run.status == "finished"), None)
    definition = found if isinstance(found, dict) else {}
    protocol = benchmark.protocol
    evaluation = {
        "protocol": [protocol.id, protocol.label_map, protocol.inference, protocol.checkpoint],
        "targets": {target: benchmark.domain_definition(target) for target in benchmark.targets},
        "averages": benchmark.averages,
    }
    parts = {name: digest({"": definition.get(key)})[:8] for key, name in _PARTS}
    return parts | {name: digest({"": value})[:8] for name, value in evaluation.items()}


def write_reference(scores: Scores, path: Path) -> None:
    """Write the reference file from complete results.

    Raises:
        UserError: a run of the selected rows is missing, failed, stale or not fully evaluated; names each.
    """
    records, benchmark = scores.records, scores.benchmark
    gaps = [f"  {row}: {note}" for row in benchmark.rows for note in records.notes(row)]
    if gaps:
        raise UserError(
            f"{path} was not written, since the results of benchmark {benchmark.name} are not complete:\n"
            + "\n".join(gaps)
            + f"\nFinish them first: snakemake --cores all --config benchmark={benchmark.name}"
        )
    infos = [run.info for run in records.finished()]
    provenance = {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "protocol": benchmark.protocol.id,
        "libraries": sorted({str(info.get("library")) for info in infos}),
        "commits": sorted({_commit(info) for info in infos}),
        "processors": processors(records),
        "torch": sorted({str((info.get("versions") or {}).get("torch")) for info in infos}),
    }
    rows = {row: definition_parts(records, row) for row in benchmark.rows}
    text = io.StringIO()
    text.write(f"# Reference results of benchmark {benchmark.name}: mIoU in percent. ")
    text.write(f"Made by `flexseg verify {benchmark.name} --write`; not to be edited.\n")
    text.write(f"# provenance: {json.dumps(provenance, sort_keys=True)}\n")
    text.write(f"# rows: {json.dumps(rows, sort_keys=True)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "column", *_SUMMARY, *(f"seed {seed}" for seed in benchmark.seeds)])
    for row in benchmark.rows:
        for column in scores.columns:
            values = scores.per_seed(row, column)
            if not np.isfinite(values).all():
                raise UserError(f"{path} was not written: mIoU of {row} on {column} is undefined")
            mean, sd = t_interval(values), float(values.std(ddof=1)) if len(values) > 1 else math.nan
            summary = [_text(mean.value, 6), _text(mean.half, 6), _text(sd, 6), mean.n]
            writer.writerow([row, column, *summary, *(_text(value, 8) for value in values)])
    write_text(path, text.getvalue())


def processors(records: Records) -> list[str]:
    """The processors on which the finished runs were trained."""
    return sorted({str((run.info.get("machine") or {}).get("processor")) for run in records.finished()})


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
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    header = [line for line in lines if line.startswith("#")]
    provenance, rows = _json(path, header, "provenance"), _json(path, header, "rows")
    if provenance.get("format") != FORMAT:
        raise _damaged(path, f"its format is {provenance.get('format')!r}, and this library reads {FORMAT}")
    for key in _PROVENANCE:
        if key not in provenance:
            raise _damaged(path, f"its provenance has no {key!r}")
    if provenance["benchmark"] != benchmark.name:
        raise UserError(
            f"{path} holds reference results of benchmark {provenance['benchmark']!r}, not {benchmark.name!r}"
        )
    if not all(isinstance(provenance[key], list) for key in ("libraries", "commits", "processors")):
        raise _damaged(path, "libraries, commits and processors of its provenance must be lists")
    if not all(isinstance(parts, dict) for parts in rows.values()):
        raise _damaged(path, "a row of its `# rows:` line is no mapping")
    seeds, values = _values(path, len(header), [line for line in lines if not line.startswith("#")])
    for row, column in values:
        if row not in rows:
            raise _damaged(path, f"row {row!r} is not in its `# rows:` line")
        if not math.isfinite(sum(values[row, column].values())):
            raise _damaged(path, f"{row}, {column}: a value is not finite")
    columns = {column for _, column in values}
    if not values or any((row, column) not in values for row in rows for column in columns):
        raise _damaged(path, "not every row has every column")
    return Reference(path, provenance, rows, seeds, values)


def _json(path: Path, header: list[str], name: str) -> dict[str, Any]:
    line = next((line for line in header if line.startswith(f"# {name}: ")), None)
    if line is None:
        raise _damaged(path, f"its `# {name}:` line is missing")
    try:
        content = json.loads(line.removeprefix(f"# {name}: "))
    except ValueError as error:
        raise _damaged(path, f"its `# {name}:` line is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"its `# {name}:` line is no mapping")
    return content


def _values(
    path: Path, skipped: int, lines: list[str]
) -> tuple[tuple[int, ...], dict[tuple[str, str], dict[int, float]]]:
    table = list(csv.reader(lines))
    head = ["row", "column", *_SUMMARY]
    names = table[0][len(head) :] if table else []
    if not table or table[0][: len(head)] != head or not names:
        raise _damaged(path, f"its columns are not {', '.join(head)}, seed 0, …")
    try:
        seeds = tuple(int(name.removeprefix("seed ")) for name in names)
    except ValueError as error:
        raise _damaged(path, f"a column is not named `seed` and a number ({', '.join(names)})") from error
    values: dict[tuple[str, str], dict[int, float]] = {}
    for number, line in enumerate(table[1:], skipped + 2):
        place = f"line {number}"
        if len(line) != len(table[0]):
            raise _damaged(path, f"{place} has {len(line)} cells, not {len(table[0])}")
        row, column, mean, _, _, n = line[: len(head)]
        try:
            found = [float(cell) for cell in line[len(head) :]]
            agrees = abs(float(mean) - sum(found) / len(found)) <= 1e-5 and int(n) == len(found)
        except ValueError as error:
            raise _damaged(path, f"{place}: {error}") from error
        if not agrees or not all(0 <= value <= 100 for value in found):
            raise _damaged(path, f"{place} ({row}, {column}) contradicts itself: its seeds do not give its mean and n")
        if (row, column) in values:
            raise _damaged(path, f"{place}: {row}, {column} stands there twice")
        values[row, column] = dict(zip(seeds, found, strict=True))
    return seeds, values


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}. Restore it (git checkout {path}), or make it anew with --write")
