"""The doctor's report and how it is printed: the state of every data set and weights file, and what to do."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from flexseg.console import printable
from flexseg.data.frames import existing_folder
from flexseg.data.layouts import Located, advise_skip
from flexseg.data.places import VARIABLE
from flexseg.data.sets import DataSet

State = Literal["refused", "missing", "incomplete", "damaged", "to download", "found"]
WORST: tuple[State, ...] = get_args(State)
SIGNS: dict[State, tuple[str, str]] = {
    "refused": ("✗", "bold red"),
    "missing": ("✗", "bold red"),
    "incomplete": ("◐", "yellow"),
    "damaged": ("!", "bold red"),
    "to download": ("↓", "yellow"),
    "found": ("✓", "green"),
}
SHOWN = 5
"""How many problems are named; the rest are counted."""


@dataclass(frozen=True)
class PartReport:
    """One split of a set as it is on disk.

    Attributes:
        uses: what the benchmark uses it for (train, val, test); empty where no benchmark asked.
        conditions: by name, how many pairs were found, and how many the published set has (None: not fixed).
        decoded: how many of its pairs any process has decoded so far.
        problems: what is wrong with each damaged image that is used. left_out: likewise for those that are not used.
        trouble: what is missing, in words. implausible: why the labels cannot be this set's.
        notes: what is there and not used, and what is unusual about the labels.
    """

    split: str
    uses: str
    found: int
    expected: int | None
    conditions: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    wanted: int | None = None
    decoded: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    implausible: str = ""
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The state of the split; missing images count before damaged ones."""
        return "incomplete" if self.trouble else "damaged" if self.problems or self.implausible else "found"


@dataclass(frozen=True)
class SetReport:
    """A data set of a benchmark or of the suite: where it is and the state of its splits.

    ``rows`` are those that cannot run without it, if others can.
    """

    name: str
    dataset: DataSet
    located: Located | None = None
    label_map: str = ""
    parts: tuple[PartReport, ...] = ()
    lost: State = "found"
    trouble: str = ""
    rows: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The worst of what was found."""
        return min((self.lost, *(part.state for part in self.parts)), key=WORST.index)


@dataclass(frozen=True)
class WeightsReport:
    """A file of pretrained weights: whether it is there, and the right one."""

    file: str
    state: State
    note: str


@dataclass(frozen=True)
class Report:
    """Everything that the doctor found.

    Attributes:
        title: what was examined. root: the data root, or None if there is none.
        rendered: domains that the street world renders. frames: bytes of a cache of decoded training frames.
        optional: whether a missing set is no fault, because nobody asked for it.
    """

    title: str
    root: Path | None
    sets: tuple[SetReport, ...]
    weights: tuple[WeightsReport, ...] = ()
    rendered: tuple[str, ...] = ()
    frames: int = 0
    frames_folder: Path = Path()
    optional: bool = False

    @property
    def entries(self) -> list[SetReport | WeightsReport]:
        """The reports on all sets and weights."""
        return [*self.sets, *self.weights]

    @property
    def faults(self) -> list[SetReport | WeightsReport]:
        """What must be fixed before the benchmark can run."""
        harmless = {"found", "to download"} | ({"missing"} if self.optional else set())
        return [entry for entry in self.entries if entry.state not in harmless]

    @property
    def sound(self) -> bool:
        """Whether everything is there and nothing is known to be damaged."""
        return not self.faults


def print_report(report: Report, console: Console, faults_only: bool = False) -> None:
    """Print what was found and, where something is wrong, what to do; ``faults_only`` leaves out everything else."""

    def say(text: str, style: str = "") -> None:
        console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)

    say(f"{report.title}: {_summarise(report)}", "bold")
    for entry in report.faults if faults_only else report.entries:
        sign, style = SIGNS[entry.state]
        if isinstance(entry, SetReport):
            what, lines = f"{entry.name}: {entry.dataset.title}", _describe_set(entry)
        else:
            what, lines = f"weights: {entry.file}", [entry.note]
        say(f"{sign} {what}, {entry.state}", style)
        for line in lines:
            say(f"    {line}")
    if report.frames and not faults_only:
        folder = existing_folder(report.frames_folder)
        free = f"{_format_bytes(shutil.disk_usage(folder).free)} are free at {folder}"
        say(f"a cache of decoded training frames would take {_format_bytes(report.frames)} ({free})")


def _summarise(report: Report) -> str:
    parts = []
    if report.rendered:
        parts.append(f"the street world renders {', '.join(report.rendered)}: nothing to download")
    if report.sets:
        states = Counter(each.state for each in report.sets)
        counted = ", ".join(f"{states[state]} {state}" for state in reversed(WORST) if states[state])
        lost = any(each.state == "missing" for each in report.sets)  # a set of one's own needs no data root
        place = f" below {report.root}" if report.root else f", no data root (set {VARIABLE})" if lost else ""
        parts.append(f"{len(report.sets)} data set{'s' if len(report.sets) > 1 else ''}{place}: {counted}")
    return "; ".join(parts)


def _describe_set(report: SetReport) -> list[str]:
    """The lines below the name of a set."""
    dataset, lines = report.dataset, [report.trouble] if report.trouble else []
    if report.rows and report.state != "found":
        more = f" and {len(report.rows) - SHOWN} more" if len(report.rows) > SHOWN else ""
        lines.append(f"only for the rows {', '.join(report.rows[:SHOWN])}{more}")
    if report.located:
        layout = report.located.layout.name
        lines.append(f"{report.located.root} (layout {layout}, label map {report.label_map})")
    for part in report.parts:
        lines += _describe_part(part)
    if report.state in ("missing", "incomplete", "damaged") and dataset.homepage not in report.trouble:
        archives = ", ".join(archive.file for archive in dataset.archives)
        lines.append(f"get it: {archives} from {dataset.homepage} ({dataset.licence})")
    if report.located and report.state == "incomplete":
        many = [part for part in report.parts if part.expected is not None and part.found > part.expected]
        others = [part for part in report.parts if part.expected is not None and part.found < part.expected]
        whole = "remove what does not belong there" if many and not others else "unpack all of it"
        counts = "; or, to use what is there, give its number as `expected:` beside the split"
        counts += f", or correct `images:` in {dataset.file}" if dataset.file else ""
        lines.append(f"then: {whole} below {report.located.root}{counts if many or others else ''}")
    damaged = list(dict.fromkeys(name for part in report.parts for name in part.problems))
    if damaged:
        mend = f"mend them, or what {dataset.file} says of them" if dataset.file else "unpack the archive again"
        lines.append(f"then: {mend}, or {advise_skip(damaged, 'these ids')}")
    return lines


def _describe_part(part: PartReport) -> list[str]:
    of = f" of {part.expected}" if part.expected is not None else ""
    drawn = f", {part.wanted} of them used" if part.wanted else ""
    name = f"{part.uses}: {part.split}" if part.uses and part.uses != part.split else part.split
    checked = "all decoded and checked" if part.decoded == part.found else f"{part.decoded or 'none'} decoded so far"
    checked = "all decoded, and wrong in content" if part.implausible else checked
    lines = [f"{name}: {part.found}{of} pairs{drawn}; {checked if part.found else 'nothing to decode'}"]
    if part.conditions:
        each = (f"{name} {n}" + (f" of {m}" if m is not None else "") for name, (n, m) in part.conditions.items())
        lines.append(f"  {', '.join(each)}")
    if part.trouble:
        lines.append(f"  incomplete: {part.trouble}")
    if part.implausible:
        lines.append(f"  wrong: {part.implausible}")
    lines += [f"  ⚠ {note}" for note in part.notes]
    if part.left_out:
        lines.append(f"  known as bad and left out: {'; '.join(f'{i} ({why})' for i, why in part.left_out.items())}")
    lines += [f"  damaged: {name}: {problem}" for name, problem in list(part.problems.items())[:SHOWN]]
    if len(part.problems) > SHOWN:
        lines.append(f"  damaged: … and {len(part.problems) - SHOWN} more")
    return lines


def _format_bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
