"""``flexseg doctor``: check that a benchmark's data sets and weights are there and sound, and say what to do if not.

It counts files, or decodes every pair (:mod:`flexseg.data.indexing` keeps what was found, so that nothing is decoded
twice). Importing this module does not import torch.
"""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flexseg.benchmark import Benchmark, SetDomain
from flexseg.benchmark.schedule import Fit
from flexseg.classes import CITYSCAPES, ClassSet
from flexseg.console import progress_bar, terminal
from flexseg.data.diagnosis import describe_unread
from flexseg.data.frames import cache_folder
from flexseg.data.indexing import index_set, recall, recall_table
from flexseg.data.layouts import Inventory, Located, allow_unlabelled, locate, take_inventory
from flexseg.data.places import Missing, data_root
from flexseg.data.plausible import check_content
from flexseg.data.sets import DataSet, load_set, set_names
from flexseg.errors import UserError
from flexseg.files import digest, disk_errors
from flexseg.tasks.datasets import sets_folder, takes_part, training_size, unknown_skips
from flexseg.tasks.doctor_report import PartReport, Report, SetReport, WeightsReport, print_report


def needed_domains(benchmark: Benchmark) -> list[str]:
    """The domains that the rows are trained and evaluated on, in the order of the file."""
    needed = {*benchmark.targets, *(() if benchmark.runs else benchmark.training_domains)}
    return [name for name in benchmark.domains if name in needed]


@dataclass(frozen=True)
class _Scope:
    """Where to look, and how closely."""

    root: Path | None
    results: Path
    full: bool
    workers: int
    datasets: Path | None = None
    classes: ClassSet = CITYSCAPES


def examine(benchmark: Benchmark, results: Path, *, full: bool = False, fit: bool = False, workers: int = 1) -> Report:
    """Examine every data set and weights file that the benchmark's rows need.

    Args:
        full: decode and check every pair, with a progress bar; what was checked before is not read again.
        fit: check that the weights fit their backbones; part of ``full``. Importing mmseg for this takes some seconds.

    Raises:
        UserError: the findings cannot be written.
    """
    root, classes = data_root(benchmark.data_root), benchmark.class_set
    scope = _Scope(root, results, full, workers, benchmark.datasets, classes)
    sets, rendered = [], []
    for name in needed_domains(benchmark):
        settings = benchmark.domains[name]
        if settings.rendered:
            rendered.append(name)
            continue
        uses: dict[str, str] = {}
        for use, part in settings.parts.items():
            uses[part.split] = f"{uses[part.split]}, {use}" if part.split in uses else use
        report = _examine_set(name, settings, uses, scope)
        sets.append(replace(report, rows=_find_dependent_rows(benchmark, name)))
    weights, frames = _examine_all_weights(benchmark, fit or full), _count_frame_bytes(benchmark, sets)
    return Report(benchmark.name, scope.root, tuple(sets), weights, tuple(rendered), frames, cache_folder(results))


def _find_dependent_rows(benchmark: Benchmark, domain: str) -> tuple[str, ...]:
    """The rows that need a domain; none if all do."""
    if domain in (benchmark.source, *benchmark.targets):
        return ()
    rows = tuple(row for row in benchmark.trained_rows if benchmark.generated_of(row) == domain)
    return rows if len(rows) < len(benchmark.trained_rows) else ()


def survey(results: Path, *, full: bool = False, workers: int = 1) -> Report:
    """Look below the data root for every data set that the suite knows, and examine what is there."""
    scope = _Scope(data_root(), results, full, workers)
    sets = []
    for name in set_names():
        report = _examine_set(name, SetDomain(dataset=name), dict.fromkeys(load_set(name).splits, ""), scope)
        sets.append(replace(report, parts=tuple(part for part in report.parts if part.found)))
    return Report("all data sets", scope.root, tuple(sets), optional=True)


def require(benchmark: Benchmark, results: Path) -> None:
    """Check, without decoding anything, that the benchmark's data are there and its weights fit.

    Raises:
        UserError: something is missing or does not fit; the message is the doctor's.
    """
    report = examine(benchmark, results, fit=True)
    if not report.sound:
        text = io.StringIO()
        print_report(report, terminal(file=text, width=120), faults_only=True)
        raise UserError(text.getvalue().rstrip())


def _examine_set(name: str, settings: SetDomain, uses: Mapping[str, str], scope: _Scope) -> SetReport:
    """Examine the splits in ``uses`` of a set."""
    dataset = load_set(settings.dataset, scope.datasets)
    try:
        located = locate(dataset, scope.root, settings.root)
    except Missing as missing:
        return SetReport(name, dataset, lost=missing.state, trouble=str(missing))
    try:
        label_map = dataset.map_of(located.layout, settings.label_map)
        dataset.load_map(label_map, scope.classes)
    except UserError as error:
        return SetReport(name, dataset, lost="refused", trouble=str(error))
    parts = tuple(_examine_part(dataset, settings, located, split, use, scope) for split, use in uses.items())
    if settings.skip and all(part.found for part in parts):
        listings = [take_inventory(dataset, located, split) for split in uses]
        there = {name for each in listings for name in (*(pair.id for pair in each.pairs), *each.unlabelled)}
        problem = unknown_skips(settings, there)
        if problem and not takes_part(settings):
            return SetReport(name, dataset, located, label_map, parts, "refused", problem)
        if problem:
            parts = (*parts[:-1], replace(parts[-1], notes=(*parts[-1].notes, problem)))
    return SetReport(name, dataset, located, label_map, parts)


def _examine_part(
    dataset: DataSet, settings: SetDomain, located: Located, split: str, use: str, scope: _Scope
) -> PartReport:
    try:
        published, inventory = dataset.split(split), take_inventory(dataset, located, split)
    except UserError as error:  # no such split, no list that gives it, images of one name
        return PartReport(split, use, 0, None, trouble=str(error))
    wanted = [part for part in settings.parts.values() if part.split == split]
    own = max((part.expected for part in wanted if part.expected), default=None)
    expected, of_each = (own, {}) if own else (published.images, published.conditions)
    pairs, decoded, problems = inventory.pairs, 0, {}
    remarks, implausible = list[str](), ""
    kept = {pair.id for pair in pairs if not settings.conditions or pair.condition in settings.conditions}
    kept -= {*settings.skip, *dataset.known_bad}
    place = (dataset, located, split, sets_folder(scope.results), settings.label_map, pairs)
    if pairs and scope.full:
        name = f"checking {dataset.name}, {split}"
        with progress_bar(name, len(pairs)) as advance, disk_errors(sets_folder(scope.results)):
            index = index_set(*place, scope.workers, advance, scope.classes)
        problems, decoded = index.problems, len(pairs)
        remarks, implausible = _judge(dataset, split, index.table, kept, scope.classes)
    elif pairs:
        decoded, problems = recall(*place, scope.classes)
        for fresh in (False, True):  # every file is looked at only where something seems wrong
            table = recall_table(*place, fresh, scope.classes)
            whole = len(table) == len(pairs)
            remarks, implausible = _judge(dataset, split, table, kept, scope.classes) if whole else ([], "")
            if not implausible:
                break
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
    skip = {*settings.skip, *dataset.known_bad}
    allowed = [set(inventory.without(skip, each)) for each in wanted]
    without = sorted(set.intersection(*allowed)) if allowed else []
    part = replace(part, implausible=implausible, notes=(*inventory.notes(without, settings.skip), *remarks))
    numbers = inventory.numbers(without, settings.skip)
    return replace(part, trouble=_describe_faults(part, len(kept), inventory, without, numbers))


def _judge(dataset: DataSet, split: str, table: Any, kept: Collection[str], classes: ClassSet) -> tuple[list[str], str]:
    """What is unusual about the labels of the sound pairs among ``kept``, and why they cannot be this set's."""
    sound = table[table["id"].isin(kept) & (table["problem"] == "")]
    try:
        return check_content(dataset, split, sound, classes) if len(sound) else [], ""
    except UserError as error:
        return [], str(error)


def _describe_faults(
    part: PartReport, usable: int, inventory: Inventory, without: Collection[str], numbers: Collection[int]
) -> str:
    """Describe what a split lacks; empty if it is complete.

    Args:
        usable: how many pairs can be used. without: the ids of images that may lack their label.
        numbers: how many images may be expected.
    """
    lacks = []
    if inventory.unread:
        lacks.append(describe_unread(inventory.unread))
    lacking = {name: path for name, path in inventory.unlabelled.items() if name not in without}
    if lacking:
        first = next(iter(lacking.values()))
        what = f"{len(lacking)} image{'s have' if len(lacking) > 1 else ' has'} no label (first {first})"
        lacks.append(f"{what}: unpack the labels, or {allow_unlabelled(lacking)}")
    if inventory.absent:
        lacks.append(f"{len(inventory.absent)} images of its list are not there (first {inventory.absent[0]})")
    if part.expected is not None and part.expected not in numbers:
        what = "are missing" if part.found < part.expected else "too many"
        lacks.append(f"{abs(part.expected - part.found)} of {part.expected} pairs {what}")
        if part.found < part.expected and inventory.orphans:
            lacks.append(f"{len(inventory.orphans)} labels have no image (first {inventory.orphans[0]})")
    elif not part.found:
        lacks.append("there is no pair")
    elif not lacking:
        each = part.conditions.items()
        few = [f"{found} of {wanted} of {name}" for name, (found, wanted) in each if wanted and found < wanted]
        lacks += [f"there are only {', '.join(few)}"] if few else []
        lacks += [f"there is no condition {name!r}" for name, (found, wanted) in each if not found and not wanted]
    if part.wanted and part.wanted > usable:
        lacks.append(f"the benchmark takes {part.wanted} images, and {usable} can be used")
    return "; ".join(lacks)


def _examine_all_weights(benchmark: Benchmark, fit: bool) -> tuple[WeightsReport, ...]:
    """Examine the pretrained weights that the rows' trunks start from; none where nothing is trained."""
    if benchmark.runs:
        return ()
    models: dict[str, Mapping[str, Any]] = {}
    for model in map(benchmark.model_of, benchmark.trained_rows):
        if isinstance(model.get("weights"), dict) and model["weights"].get("file"):
            models[
                digest(
                    {"weights": model["weights"]}
                    | ({"backbone": model.get("backbone", model.get("config"))} if fit else {})
                )
            ] = model
    return tuple(_examine_weights(model, fit) for model in models.values())


def _examine_weights(model: Mapping[str, Any], fit: bool) -> WeightsReport:
    from flexseg.models.weights import (
        Weights,
        check_digest,
        find_in_package,
        places,
    )  # imports torch, which few benchmarks need here

    try:
        weights = Weights.of(model["weights"])
    except UserError as error:
        return WeightsReport(str(model["weights"]["file"]), "refused", str(error))
    licence = f" ({weights.licence})" if weights.licence else ""
    looked = places(weights)
    try:
        if weights.package:
            path: Path | None = find_in_package(weights)
        else:
            path = next((place for place in looked if os.path.isfile(place)), None)
    except UserError as error:
        return WeightsReport(weights.file, "missing", str(error))
    if path is not None:
        try:
            found = check_digest(path, weights.sha256)
            if fit:
                _check_fit(model, path)
        except UserError as error:
            return WeightsReport(weights.file, "damaged", str(error))
        return WeightsReport(weights.file, "found", f"{path}, SHA-256 {found[:16]}…")
    if weights.url:
        return WeightsReport(weights.file, "to download", f"automatically, from {weights.url}{licence} to {looked[0]}")
    wanted = f"the file with the SHA-256 {weights.sha256}{licence}"
    return WeightsReport(weights.file, "missing", f"put {wanted} at {' or '.join(map(str, looked))}")


def _check_fit(model: Mapping[str, Any], path: Path) -> None:
    """Check that weights can be loaded into the backbone of a trunk's description.

    Raises:
        UserError: they cannot be read or belong to another backbone; names the keys.
    """
    from flexseg.models.build import describe
    from flexseg.models.registry import MODELS, building
    from flexseg.models.weights import fit, read_tensors

    with building():
        fit(MODELS.build(describe(model)["backbone"]), read_tensors(path), path)


def _count_frame_bytes(benchmark: Benchmark, sets: Iterable[SetReport]) -> int:
    """Count the bytes of the decoded training frames of all sets: N · h · w · 4.

    Sets whose images keep their size are not counted, as that size is not known here; those that keep their ratio count
    as large as the box into which they fit.
    """
    if benchmark.runs:
        return 0
    found = {  # domains that take different numbers of images from one split share its frames
        (report.located and report.located.root, part.split, size): part.found
        for report in sets
        for part in report.parts
        if "train" in part.uses.split(", ")
        for row in benchmark.trained_rows
        if (size := training_size(benchmark, report.name, benchmark.training_of(row).resize)) is not None
    }
    boxes = {key: key[2].fit if isinstance(key[2], Fit) else key[2] for key in found}
    return sum(number * math.prod(boxes[key]) * 4 for key, number in found.items())
