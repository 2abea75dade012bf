"""The reference runs that the repository ships: ``benchmarks/<name>.reference.csv``, its writer and its reader.

The file grows run by run (``flexseg reference add``), on several days and machines. Comment lines: what it is,
``# format:``, and one for each ``# definition`` of a row (its parts as digests) and each ``# maker`` (code, machine and
packages), all JSON. Then CSV, one line a run: row, seed, the keys of its definition and maker, the first 16 digits of
the SHA-256 of its weights, the day, and of each target the measures in percent and how groups of test images move them
(:mod:`flexseg.analysis.stats.evidence`), two characters a group. Lines are sorted and stand for themselves, so two
branches that both added runs merge line by line.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexseg.analysis.stats.evidence import Entry, Evidence, Made, Measured, definition_digest, definition_parts
from flexseg.analysis.stats.formats import write_text
from flexseg.benchmark import Benchmark
from flexseg.benchmark.claims import MEASURES, Measure
from flexseg.errors import UserError
from flexseg.files import digest

FORMAT = 2
FACTS = ("row", "seed", "definition", "maker", "weights", "date")
IMAGES = "images"
MAKER = ("code", "commit", "kernels", "processor", "torch", "version")
"""The fields of :class:`Made` that many runs share."""
TOLERANCE = 1e-6
"""Percent mIoU: below it two values are the same number. The file holds eight decimals."""
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
_STEP = 0.02
"""Percentage points to which r_g is rounded; the standard errors of differences are ten times that and more."""
_ZERO = 2048
_PLACES: dict[Measure, int] = {"mIoU": 8, "boundary error": 4, "interior error": 4}


@dataclass(frozen=True)
class Reference:
    """A reference file, checked. ``definitions``: by their digests, the digests of their parts."""

    path: Path
    entries: tuple[Entry, ...]
    definitions: Mapping[str, Mapping[str, str]]

    def of_row(self, row: str, definition: str) -> list[Entry]:
        """The runs of a row that have this definition."""
        return [entry for entry in self.entries if (entry.row, entry.definition) == (row, definition)]

    def chosen(self, benchmark: Benchmark, row: str) -> tuple[list[Entry], list[str]]:
        """The runs of a row as the benchmark defines it; else the latest ones, and which parts are others now."""
        parts = definition_parts(benchmark, row)
        if found := self.of_row(row, definition_digest(parts)):
            return found, []
        having = [entry for entry in self.entries if entry.row == row]
        if not having:
            return [], []
        latest = max(having, key=lambda entry: (entry.made.date, entry.definition)).definition
        known = self.definitions[latest]
        changed = [part for part in sorted(known.keys() | parts.keys()) if known.get(part) != parts.get(part)]
        return self.of_row(row, latest), changed

    def evidence(self, benchmark: Benchmark) -> Evidence:
        """The runs of the rows as the benchmark defines them today, for judging its claims."""
        rows = [row for row in benchmark.rows if any(entry.row == row for entry in self.entries)]
        names = {row: definition_digest(definition_parts(benchmark, row)) for row in rows}
        return Evidence.of(benchmark, (entry for row in rows for entry in self.of_row(row, names[row])))


def add_runs(path: Path, benchmark: Benchmark, entries: Iterable[Entry], *, replace: bool = False) -> list[str]:
    """Add runs to the reference file; the same runs once more change nothing.

    A run whose row and seed are there with another definition is added beside it. One that is there with the same
    definition and other numbers is not added: the first stands, or runs could be chosen by their result. ``replace``
    drops what is there of its row and seed instead.

    Returns:
        What was done, in lines to print.

    Raises:
        UserError: the file is damaged, or of another benchmark.
    """
    old = read_reference(path, benchmark) if path.is_file() else Reference(path, (), {})
    kept = {(entry.row, entry.seed, entry.definition): entry for entry in old.entries}
    definitions, lines, added, completed, same = dict(old.definitions), [], 0, 0, 0
    for entry in entries:
        key = (entry.row, entry.seed, entry.definition)
        parts = definition_parts(benchmark, entry.row)
        rivals = [other for other in kept if other[:2] == key[:2]]
        if key in kept and _same(kept[key], entry) and (len(rivals) == 1 or not replace):
            if _fuller(entry, kept[key]):
                kept[key], completed = entry, completed + 1
            same += 1
            continue
        name = f"{entry.row}, seed {entry.seed}"
        if replace:
            for rival in rivals:
                del kept[rival]
            lines += [f"{name}: in place of the run that was there"] if rivals else []
        elif key in kept:
            there = kept[key].made
            lines.append(
                f"{name}: not added, since it is there with other numbers ({there.date or 'no date'}, "
                f"{there.processor or 'no machine'}); --replace takes these instead"
            )
            continue
        elif rivals:
            found = definitions[rivals[-1][2]]
            changed = ", ".join(part for part in sorted(parts) if parts[part] != found.get(part))
            lines.append(f"{name}: added beside a run of another definition ({changed}); --replace drops that one")
        kept[key], definitions[entry.definition] = entry, parts
        added += 1
    if added or completed:
        used = {entry.definition for entry in kept.values()}
        write_reference(path, benchmark, kept.values(), {key: definitions[key] for key in used})
    return [*lines, f"{path}: {added} runs added, {same} were there already, {len(kept)} in all"]


def _same(one: Entry, other: Entry) -> bool:
    """Whether two runs have the same numbers, as far as both know them."""
    common = one.measured.keys() & other.measured.keys()
    return bool(common) and all(
        abs(one.measured[key].value - other.measured[key].value) <= 10.0 ** -_PLACES[key[1]] * 2 for key in common
    )


def _fuller(one: Entry, other: Entry) -> bool:
    """Whether ``one`` holds what ``other``, with the same numbers, does not."""
    known = [sum(1 + len(each.groups) for each in entry.measured.values()) for entry in (one, other)]
    return known[0] > known[1]


def write_reference(
    path: Path, benchmark: Benchmark, entries: Iterable[Entry], definitions: Mapping[str, Mapping[str, str]]
) -> None:
    """Write a reference file of these runs and the definitions that they have."""
    ordered = sorted(entries, key=lambda entry: (entry.row, entry.seed, entry.definition))
    targets = dict.fromkeys([*benchmark.targets, *(target for entry in ordered for target, _ in entry.measured)])
    makers = {_maker(entry.made): {name: getattr(entry.made, name) for name in MAKER} for entry in ordered}
    text = io.StringIO()
    text.write(f"# Reference runs of benchmark {benchmark.name}, in percent; one line a run. ")
    text.write(f"Made by `flexseg reference add {benchmark.name}`; not to be edited.\n")
    text.write(f"# format: {json.dumps({'benchmark': benchmark.name, 'format': FORMAT})}\n")
    for kind, found in (("definition", definitions), ("maker", makers)):
        for key in sorted(found):
            text.write(f"# {kind} {key}: {json.dumps(dict(found[key]), sort_keys=True)}\n")
    writer = csv.DictWriter(text, _columns(targets), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(entry, targets) for entry in ordered)
    write_text(path, text.getvalue())


def _columns(targets: Iterable[str]) -> list[str]:
    return [*FACTS, *(f"{target} {what}" for target in targets for what in (*MEASURES, IMAGES))]


def _maker(made: Made) -> str:
    return digest({name: getattr(made, name) for name in MAKER})[:8]


def _line(entry: Entry, targets: Iterable[str]) -> dict[str, object]:
    line: dict[str, object] = {"row": entry.row, "seed": entry.seed, "definition": entry.definition}
    line |= {"maker": _maker(entry.made), "weights": entry.made.weights, "date": entry.made.date}
    for target in targets:
        found = {each: entry.measured[target, each] for each in MEASURES if (target, each) in entry.measured}
        line |= {f"{target} {measure}": f"{each.value:.{_PLACES[measure]}f}" for measure, each in found.items()}
        packed = "/".join(pack(found[measure].groups) if measure in found else "" for measure in MEASURES)
        line[f"{target} {IMAGES}"] = packed if packed.strip("/") else ""
    return line


def pack(groups: Iterable[float]) -> str:
    """Numbers as two characters each, in steps of 0.02 from −40.96 to 40.94; what is beyond is cut off."""
    steps = [min(max(round(value / _STEP) + _ZERO, 0), 64**2 - 1) for value in groups]
    return "".join(_DIGITS[step // 64] + _DIGITS[step % 64] for step in steps)


def unpack(text: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers that :func:`pack` wrote. ValueError: it did not write this."""
    if len(text) % 2:
        raise ValueError(f"{text!r} is cut off")
    steps = [_DIGITS.index(text[at]) * 64 + _DIGITS.index(text[at + 1]) for at in range(0, len(text), 2)]
    return (np.array(steps, np.float64) - _ZERO) * _STEP


def read_reference(path: Path, benchmark: Benchmark) -> Reference:
    """Read and check a reference file.

    Raises:
        UserError: it is damaged, of another format, or of another benchmark; says where and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    lines = text.splitlines()
    if not text.endswith("\n"):
        raise _damaged(path, "its last line is cut off")
    header = [line for line in lines if line.startswith("#")]
    about = _json(path, next((line for line in header if line.startswith("# format: ")), ""), "format")
    if about.get("format") != FORMAT:
        raise _damaged(path, f"its format is {about.get('format')}, not {FORMAT}")
    if about.get("benchmark") != benchmark.name:
        raise UserError(f"{path} holds reference runs of benchmark {about.get('benchmark')!r}, not {benchmark.name!r}")
    keyed = {kind: _keyed(path, header, kind) for kind in ("definition", "maker")}
    reader = csv.DictReader(line for line in lines if not line.startswith("#"))
    if tuple(reader.fieldnames or ())[: len(FACTS)] != FACTS:
        raise _damaged(path, f"its columns do not begin with {', '.join(FACTS)}")
    entries = [_entry(path, number, line, keyed) for number, line in enumerate(reader, len(header) + 2)]
    seen: set[tuple[str, int, str]] = set()
    for entry in entries:
        key = (entry.row, entry.seed, entry.definition)
        if key in seen:
            raise _damaged(path, f"{entry.row}, seed {entry.seed} is in it twice")
        seen.add(key)
    return Reference(path, tuple(entries), keyed["definition"])


def _json(path: Path, line: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(line.partition(": ")[2])
    except ValueError as error:
        raise _damaged(path, f"its `# {name}:` line is {f'no JSON ({error})' if line else 'missing'}") from error
    return found if isinstance(found, dict) else {}


def _keyed(path: Path, header: Iterable[str], kind: str) -> dict[str, dict[str, str]]:
    """The comment lines of one kind, by their keys."""
    matches = [re.match(rf"# {kind} ([0-9a-f]{{8}}): ", line) for line in header]
    return {match[1]: _json(path, match.string, f"{kind} {match[1]}") for match in matches if match}


def _entry(path: Path, number: int, line: dict[str, str], keyed: Mapping[str, Mapping[str, dict[str, str]]]) -> Entry:
    place = f"line {number} ({line['row']}, seed {line['seed']})"
    if None in line or None in line.values():
        raise _damaged(path, f"{place} has other columns than the heading")
    for kind, known in keyed.items():
        if line[kind] not in known:
            raise _damaged(path, f"{place} names {kind} {line[kind]!r}, which is not in it")
    measured: dict[tuple[str, Measure], Measured] = {}
    try:
        for column, packed in line.items():
            if not column.endswith(f" {IMAGES}"):
                continue
            target = column.removesuffix(f" {IMAGES}")
            groups = packed.split("/") if packed else [""] * len(MEASURES)
            if len({len(text) for text in groups} - {0}) > 1:
                raise ValueError(f"{column} has groups of different numbers of images")
            for measure, text in zip(MEASURES, groups, strict=True):
                if value := line[f"{target} {measure}"]:
                    measured[target, measure] = Measured(_percent(value), unpack(text))
        made = Made(weights=line["weights"], date=line["date"], **keyed["maker"][line["maker"]])
        return Entry(line["row"], int(line["seed"]), line["definition"], made, measured)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{place}: {error}") from error


def _percent(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise ValueError(f"{text} is no percentage")
    return value


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}. Restore it (git checkout {path})")
