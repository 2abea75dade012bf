"""``flexseg doctor``: whether a benchmark's data sets and weights are there, whole and sound, and what to do if not.

Quickly by counting files, or in full by decoding every pair (:mod:`flexseg.data.indexing` keeps what was found, so that
nothing is decoded twice). Nothing here imports torch.
"""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from flexseg.benchmark import Benchmark, SetDomain, WorldDomain
from flexseg.console import progress_bar
from flexseg.data.frames import cache_folder
from flexseg.data.indexing import index_set, recall
from flexseg.data.layouts import VARIABLE, Inventory, Located, Missing, data_root, locate, take_inventory
from flexseg.data.sets import DataSet, load_set, set_names
from flexseg.datasets import sets_folder
from flexseg.errors import UserError

State = Literal["refused", "missing", "incomplete", "damaged", "to download", "found"]
WORST: tuple[State, ...] = get_args(State)
SIGNS: dict[State, tuple[str, str]] = {
    "refused": ("✗", "bold red"), "missing": ("✗", "bold red"), "incomplete": ("◐", "yellow"),
    "damaged": ("!", "bold red"), "to download": ("↓", "yellow"), "found": ("✓", "green"),
}  # fmt: skip
SHOWN = 5
"""How many problems are named before the rest is counted."""


@dataclass(frozen=True)
class PartReport:
    """One split of a set, as it lies on disk.

    Attributes:
        uses: what the benchmark takes it for (train, val, test); empty where no benchmark asked.
        conditions: by name, how many pairs were found, and how many the published set has (None: not fixed).
        decoded: how many of its pairs were decoded so far, by whomever.
        problems: what is wrong with which image that is used; ``left_out`` likewise of those that are not.
        trouble: what is missing, in words.
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

    @property
    def state(self) -> State:
        """How the split is; what is not there comes before what is damaged."""
        return "incomplete" if self.trouble else "damaged" if self.problems else "found"


@dataclass(frozen=True)
class SetReport:
    """A data set of a benchmark, or of the suite: where it lies and how its splits are.

    ``rows`` are those that cannot run without it, where others can.
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
    """All that the doctor found.

    Attributes:
        title: what was examined. root: the data root, or None where nobody names one.
        rendered: domains that the street world renders. frames: bytes that a cache of decoded training frames takes.
        optional: whether a missing set is no fault, as nobody asked for it.
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
    def faults(self) -> list[SetReport | WeightsReport]:
        """What has to be mended before the benchmark can run."""
        harmless = {"found", "to download"} | ({"missing"} if self.optional else set())
        everything: list[SetReport | WeightsReport] = [*self.sets, *self.weights]
        return [each for each in everything if each.state not in harmless]

    @property
    def well(self) -> bool:
        """Whether everything is there and nothing is known to be damaged."""
        return not self.faults


def needed_domains(benchmark: Benchmark) -> list[str]:
    """The domains that the benchmark's rows are trained on and evaluated on, in the order of the file."""
    training = {benchmark.source, *(benchmark.row(row).generated or benchmark.generated for row in benchmark.rows)}
    needed = {*benchmark.targets, *(() if benchmark.runs else training)}
    return [name for name in benchmark.domains if name in needed]


@dataclass(frozen=True)
class _Look:
    """How closely to look, and where."""

    root: Path | None
    results: Path
    full: bool
    workers: int


def examine(benchmark: Benchmark, results: Path, *, full: bool = False, workers: int = 1) -> Report:
    """Look at every data set and weights file that the benchmark's rows need.

    ``full``: decode and check every pair, with a progress bar; what was checked before is not read again.
    """
    look = _Look(data_root(benchmark.data_root), results, full, workers)
    sets, rendered = [], []
    for name in needed_domains(benchmark):
        settings = benchmark.domains[name]
        if isinstance(settings, WorldDomain):
            rendered.append(name)
            continue
        uses: dict[str, list[str]] = {}
        for use, part in settings.parts.items():
            uses.setdefault(part.split, []).append(use)
        report = _examine_set(name, settings, {split: ", ".join(names) for split, names in uses.items()}, look)
        sets.append(replace(report, rows=_only_for(benchmark, name)))
    frames, folder = _frames(benchmark, sets), cache_folder(results)
    return Report(benchmark.name, look.root, tuple(sets), _weights(benchmark), tuple(rendered), frames, folder)


def _only_for(benchmark: Benchmark, domain: str) -> tuple[str, ...]:
    """The rows that need a domain, if others do not."""
    if domain in (benchmark.source, *benchmark.targets):
        return ()
    rows = tuple(row for row in benchmark.rows if (benchmark.row(row).generated or benchmark.generated) == domain)
    return rows if len(rows) < len(benchmark.rows) else ()


def survey(results: Path, *, full: bool = False, workers: int = 1) -> Report:
    """Look for every data set that the suite knows below the data root, and at what there is of it."""
    look = _Look(data_root(), results, full, workers)
    sets = []
    for name in set_names():
        report = _examine_set(name, SetDomain(dataset=name), dict.fromkeys(load_set(name).splits, ""), look)
        sets.append(replace(report, parts=tuple(part for part in report.parts if part.found)))
    return Report("all data sets", look.root, tuple(sets), optional=True)


def require(benchmark: Benchmark, results: Path) -> None:
    """See, without decoding anything, that the benchmark's data are there.

    Raises:
        UserError: they are not; the message is the doctor's.
    """
    report = examine(benchmark, results)
    if not report.well:
        text = io.StringIO()
        print_report(report, Console(file=text, width=120), faults_only=True)
        raise UserError(text.getvalue().rstrip())


def _examine_set(name: str, settings: SetDomain, uses: Mapping[str, str], look: _Look) -> SetReport:
    """The report on a set, of which the splits in ``uses`` are wanted."""
    dataset = load_set(settings.dataset)
    try:
        located = locate(dataset, look.root, settings.root)
    except Missing as missing:
        return SetReport(name, dataset, lost=missing.state, trouble=str(missing))
    try:
        label_map = dataset.map_of(located.layout, settings.label_map)
    except UserError as error:
        return SetReport(name, dataset, lost="refused", trouble=str(error))
    parts = tuple(_examine_part(dataset, settings, located, split, use, look) for split, use in uses.items())
    return SetReport(name, dataset, located, label_map, parts)


def _examine_part(
    dataset: DataSet, settings: SetDomain, located: Located, split: str, use: str, look: _Look
) -> PartReport:
    try:
        published, inventory = dataset.split(split), take_inventory(dataset, located, split)
    except UserError as error:  # no such split, no list that gives it, images of one name
        return PartReport(split, use, 0, None, trouble=str(error))
    wanted = [part for part in settings.parts.values() if part.split == split]
    own = max((part.expected for part in wanted if part.expected), default=None)
    expected, of_each = (own, {}) if own else (published.images, published.conditions)
    pairs, decoded, problems = inventory.pairs, 0, {}
    place = (dataset, located, split, sets_folder(look.results), settings.label_map, pairs)
    if pairs and look.full:
        with progress_bar(f"checking {dataset.name}, {split}", len(pairs)) as advance:
            problems, decoded = index_set(*place, look.workers, advance).problems, len(pairs)
    elif pairs:
        decoded, problems = recall(*place)
    kept = {pair.id for pair in pairs if not settings.conditions or pair.condition in settings.conditions}
    kept -= {*settings.skip, *dataset.known_bad}
    counts = Counter(pair.condition for pair in pairs)
    names = settings.conditions or sorted({*counts, *of_each}) if of_each or len(counts) > 1 else settings.conditions
    part = PartReport(
        split,
        use,
        len(pairs),
        expected,
        {name: (counts[name], of_each.get(name)) for name in names},
        max((part.images for part in wanted if part.images), default=None),
        min(decoded, len(pairs)),
        {name: problem for name, problem in problems.items() if name in kept},
        {pair.id: problems.get(pair.id, dataset.known_bad[pair.id]) for pair in pairs if pair.id in dataset.known_bad},
    )
    return replace(part, trouble=_trouble(part, settings, len(kept), inventory))


def _trouble(part: PartReport, settings: SetDomain, usable: int, inventory: Inventory) -> str:
    """What a split lacks, in words; nothing if it is whole."""
    lacks = []
    if inventory.unlabelled:
        lacks.append(f"{len(inventory.unlabelled)} images have no label (first {inventory.unlabelled[0]})")
    if inventory.absent:
        lacks.append(f"{len(inventory.absent)} images of its list are not there (first {inventory.absent[0]})")
    if part.expected is not None and part.found != part.expected:
        what = "are missing" if part.found < part.expected else "too many"
        lacks.append(f"{abs(part.expected - part.found)} of {part.expected} pairs {what}")
    elif not part.found:
        lacks.append("there is no pair")
    else:
        few = [
            f"{found} of {wanted} of {name}"
            for name, (found, wanted) in part.conditions.items()
            if found < (wanted or 1)
        ]
        lacks += [f"there are only {', '.join(few)}"] if few else []
    if part.wanted and part.wanted > usable:
        lacks.append(f"the benchmark takes {part.wanted} images, and {usable} can be used")
    return "; ".join(lacks)


def _weights(benchmark: Benchmark) -> tuple[WeightsReport, ...]:
    """The files of pretrained weights that the rows' trunks start from; none where nothing is trained."""
    if benchmark.runs:
        return ()
    entries: dict[str, dict[str, Any]] = {}
    for row in benchmark.rows:
        entry = benchmark.model_of(row).get("weights")
        if isinstance(entry, dict) and entry.get("file"):
            entries[str(entry["file"])] = entry
    return tuple(_examine_weights(entry) for entry in entries.values())


def _examine_weights(entry: Mapping[str, Any]) -> WeightsReport:
    from flexseg.models.weights import FOLDER, Weights, check_digest  # imports torch, which few benchmarks need here

    try:
        weights = Weights.of(entry)
    except UserError as error:
        return WeightsReport(str(entry["file"]), "refused", str(error))
    licence = f" ({weights.licence})" if weights.licence else ""
    folders = [Path(os.environ["FLEXSEG_WEIGHTS"])] if os.environ.get("FLEXSEG_WEIGHTS") else []
    looked = [folder / weights.file for folder in (*folders, FOLDER)]  # an absolute file stays as it is
    path = next((place for place in looked if place.is_file()), None)
    if path is not None:
        try:
            return WeightsReport(weights.file, "found", f"{path}, SHA-256 {check_digest(path, weights.sha256)[:16]}…")
        except UserError as error:
            return WeightsReport(weights.file, "damaged", str(error))
    if weights.url:
        return WeightsReport(weights.file, "to download", f"from {weights.url}{licence} to {looked[0]}, by itself")
    wanted = f"the file with the SHA-256 {weights.sha256}{licence}"
    return WeightsReport(weights.file, "missing", f"put {wanted} to {' or '.join(map(str, looked))}")


def _frames(benchmark: Benchmark, sets: Iterable[SetReport]) -> int:
    """Bytes of the decoded training frames of all sets that are trained on: N · h · w · 4."""
    if benchmark.training.resize is None or benchmark.runs:
        return 0
    height, width = benchmark.training.resize
    found = {  # domains that take different numbers of images of one split share its frames
        (report.located and report.located.root, part.split): part.found
        for report in sets
        for part in report.parts
        if "train" in part.uses.split(", ")
    }
    return sum(found.values()) * height * width * 4


def print_report(report: Report, console: Console, faults_only: bool = False) -> None:
    """Print what was found and, where something is wrong, what to do; ``faults_only`` leaves out what is well."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f"{report.title}: {_summary(report)}", "bold")
    everything: list[SetReport | WeightsReport] = [*report.sets, *report.weights]
    for each in report.faults if faults_only else everything:
        sign, style = SIGNS[each.state]
        name = each.name if isinstance(each, SetReport) else "weights"
        what = each.dataset.title if isinstance(each, SetReport) else each.file
        say(f"{sign} {name}: {what}, {each.state}", style)
        for line in _lines(each) if isinstance(each, SetReport) else [each.note]:
            say(f"    {line}")
    if report.frames and not faults_only:
        say(f"a cache of decoded training frames would take {_bytes(report.frames)} ({_free(report.frames_folder)})")


def _summary(report: Report) -> str:
    parts = []
    if report.rendered:
        parts.append(f"the street world renders {', '.join(report.rendered)}: nothing to download")
    if report.sets:
        states = Counter(each.state for each in report.sets)
        counted = ", ".join(f"{states[state]} {state}" for state in reversed(WORST) if states[state])
        place = f"below {report.root}" if report.root else f"no data root (set {VARIABLE})"
        parts.append(f"{len(report.sets)} data sets {place}: {counted}")
    return "; ".join(parts)


def _lines(report: SetReport) -> list[str]:
    """What there is to say about a set, below its name."""
    dataset, lines = report.dataset, [report.trouble] if report.trouble else []
    if report.rows and report.state != "found":
        more = f" and {len(report.rows) - SHOWN} more" if len(report.rows) > SHOWN else ""
        lines.append(f"only for the rows {', '.join(report.rows[:SHOWN])}{more}")
    if report.located:
        layout = report.located.layout.name
        lines.append(f"{report.located.root} (layout {layout}, label map {report.label_map})")
    for part in report.parts:
        lines += _part_lines(part)
    if report.state in ("missing", "incomplete", "damaged") and dataset.homepage not in report.trouble:
        archives = ", ".join(archive.file for archive in dataset.archives)
        lines.append(f"get it: {archives} from {dataset.homepage} ({dataset.licence})")
    if report.located and report.state == "incomplete":
        whole = f"then: unpack all of it below {report.located.root}"
        lines.append(f"{whole}; or to use what is there, give its number as `expected:` beside the split")
    if report.state == "damaged":
        lines.append("then: unpack the archive again, or name these ids under the domain's `skip:`")
    return lines


def _part_lines(part: PartReport) -> list[str]:
    of = f" of {part.expected}" if part.expected is not None else ""
    drawn = f", {part.wanted} of them used" if part.wanted else ""
    name = f"{part.uses}: {part.split}" if part.uses and part.uses != part.split else part.split
    checked = "all decoded and checked" if part.decoded == part.found else f"{part.decoded or 'none'} decoded so far"
    lines = [f"{name}: {part.found}{of} pairs{drawn}; {checked if part.found else 'nothing to decode'}"]
    if part.conditions:
        each = (f"{name} {n}" + (f" of {m}" if m is not None else "") for name, (n, m) in part.conditions.items())
        lines.append(f"  {', '.join(each)}")
    if part.trouble:
        lines.append(f"  incomplete: {part.trouble}")
    if part.left_out:
        lines.append(f"  known as bad and left out: {'; '.join(f'{i} ({why})' for i, why in part.left_out.items())}")
    lines += [f"  damaged: {name}: {problem}" for name, problem in list(part.problems.items())[:SHOWN]]
    if len(part.problems) > SHOWN:
        lines.append(f"  damaged: … and {len(part.problems) - SHOWN} more")
    return lines


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _free(folder: Path) -> str:
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    return f"{_bytes(shutil.disk_usage(existing).free)} are free at {existing}"
