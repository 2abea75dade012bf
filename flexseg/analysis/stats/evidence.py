"""What a run contributes to a claim: its values, and how the test images move them, small enough for a text file.

The variance over test images of a contrast is the delete-a-group jackknife's (Shao & Tu, *The Jackknife and Bootstrap*,
1995, § 5.1): the N images of a target are dealt at random into G = 16 groups, the same for every run, and each group is
left out once. Of a measure θ a run keeps, for each group,

    r_g = (G − 1)/√G · (θ without group g − θ),

whose variance over the groups (G − 1 degrees of freedom) is that of θ over other images. r of a contrast is the
contrast of the r of its runs, as for the replicates of a bootstrap: two runs from different machines can be compared,
with what their common images cancel, although neither's records are at hand. Targets have images of their own, so that
variances (and, by Satterthwaite, degrees of freedom) of the targets of an average add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexseg import __version__
from flexseg.analysis.stats.bootstrap import image_groups, jackknife
from flexseg.analysis.stats.definitions import Quantity, quantities
from flexseg.analysis.stats.paired import Paired
from flexseg.analysis.stats.records import Records, RunRecords, TargetRecord
from flexseg.analysis.stats.statistics import seed_covariance
from flexseg.benchmark import Benchmark
from flexseg.benchmark.claims import MEASURES, Measure, Term
from flexseg.files import digest
from flexseg.provenance import describe_kernels

Floats = NDArray[np.float64]
NONE: Floats = np.empty(0)
_PARTS = (
    ("method", "method"), ("method_digest", "method file"), ("options", "options"), ("source", "source data"),
    ("generated", "generated data"), ("label_map", "label map"), ("model", "model"), ("training", "training"),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A measure of a run on a target in percent, and r_g of each group of images (G,), empty where unknown."""

    value: float
    groups: Floats = field(default_factory=lambda: NONE)


@dataclass(frozen=True)
class Made:
    """What made a run, each empty where it was not recorded: first digits of digests, the machine, the day it finished.

    ``version`` is that of the suite which read the run."""

    weights: str = ""
    code: str = ""
    commit: str = ""
    kernels: str = ""
    processor: str = ""
    torch: str = ""
    date: str = ""
    version: str = ""


@dataclass(frozen=True)
class Entry:
    """A finished run in numbers: ``definition`` is the digest of what defines its row and evaluation."""

    row: str
    seed: int
    definition: str
    made: Made
    measured: Mapping[tuple[str, Measure], Measured]

    def value(self, members: Sequence[str], measure: Measure) -> float:
        """A measure, mean over the targets ``members``; NaN where one is missing."""
        values = [self.measured[t, measure].value for t in members if (t, measure) in self.measured]
        return float(np.mean(values)) if len(values) == len(members) else float("nan")


def definition_parts(benchmark: Benchmark, row: str) -> dict[str, str]:
    """Each part of the definition of ``row`` and of its evaluation as a short digest, without the seed."""
    definition = benchmark.run_definition(row, benchmark.seeds[0])
    protocol = benchmark.protocol
    evaluation = {
        "protocol": [protocol.id, protocol.label_map, protocol.inference, protocol.checkpoint],
        "targets": {target: benchmark.domain_definition(target) for target in benchmark.targets},
        "averages": benchmark.averages,
    }
    parts = {name: digest({"": definition.get(key)})[:8] for key, name in _PARTS}
    return parts | {name: digest({"": value})[:8] for name, value in evaluation.items()}


def definition_digest(parts: Mapping[str, str]) -> str:
    """The short name of a definition."""
    return digest(dict(parts))[:8]


def entries_of(records: Records) -> list[Entry]:
    """The finished runs that were trained here and evaluated on every target."""
    benchmark = records.benchmark
    known = quantities(benchmark.protocol)
    rows = [row for row in benchmark.rows if row in benchmark.trained_rows and records.finished(row)]
    names = {row: definition_digest(definition_parts(benchmark, row)) for row in rows}
    return [
        Entry(run.row, run.seed, names[run.row], made_by(run), measured_of(run, benchmark.targets, known))
        for row in rows
        for run in records.finished(row)
        if all(target in run.targets for target in benchmark.targets)
    ]


def measured_of(
    run: RunRecords, targets: Sequence[str], known: Mapping[str, Quantity]
) -> dict[tuple[str, Measure], Measured]:
    """Every measure of a run on every target where it is defined."""
    found = {
        (target, measure): measure_target(target, run.targets[target], known[measure])
        for target in targets
        for measure in MEASURES
    }
    return {key: each for key, each in found.items() if np.isfinite(each.value)}


def measure_target(target: str, record: TargetRecord, quantity: Quantity) -> Measured:
    """A quantity on all images of a target and r_g of each group; without groups where one image decides alone."""
    groups = image_groups(target, len(record.images))
    found = jackknife(groups, record.per_image(quantity.counts), quantity.of)
    return Measured(quantity.compute(record), found if np.isfinite(found).all() else NONE)


def made_by(run: RunRecords) -> Made:
    """What made a run, as its ``run.json`` says."""
    info: dict[str, Any] = run.info
    git = info.get("git") or {}
    return Made(
        weights=str(info.get("weights_sha256") or "")[:16],
        code=str(info.get("library") or "")[:16],
        commit=str(git.get("commit") or "")[:12] + ("+" if git.get("dirty") else ""),
        kernels=describe_kernels(info.get("kernels")),
        processor=str((info.get("machine") or {}).get("processor") or ""),
        torch=str((info.get("versions") or {}).get("torch") or ""),
        date=str(info.get("finished") or "")[:10],
        version=__version__,
    )


@dataclass(frozen=True)
class Evidence:
    """Runs of one definition each, by row and seed, whose contrasts can be judged."""

    benchmark: Benchmark
    entries: Mapping[tuple[str, int], Entry]

    @classmethod
    def of(cls, benchmark: Benchmark, entries: Iterable[Entry]) -> Evidence:
        """Of these entries; of several for a row and seed the last."""
        return cls(benchmark, {(each.row, each.seed): each for each in entries})

    def joined(self, others: Evidence) -> Evidence:
        """These runs, and the others in place of those that they repeat."""
        return Evidence(self.benchmark, {**self.entries, **others.entries})

    def seeds(self, rows: Iterable[str]) -> list[int]:
        """The seeds that all ``rows`` have."""
        having = [{seed for row, seed in self.entries if row == each} for each in rows]
        return sorted(set.intersection(*having)) if having else []

    def members(self, column: str) -> list[str]:
        """The targets that a target or average is a mean of."""
        return self.benchmark.averages.get(column, [column])

    def paired(self, terms: Sequence[Term]) -> Paired:
        """A contrast, paired over the seeds that all its rows have, with the variances over seeds and images."""
        seeds = self.seeds({term.row for term in terms})
        values = np.array(
            [
                sum(t.weight * self.entries[t.row, seed].value(self.members(t.target), t.measure) for t in terms)
                for seed in seeds
            ]
        )
        seeds = [seed for seed, value in zip(seeds, values.tolist(), strict=True) if np.isfinite(value)]
        values = values[np.isfinite(values)]
        if len(seeds) < 2:
            return Paired.of(values)
        targets = dict.fromkeys(target for term in terms for target in self.members(term.target))
        parts = [r for target in targets if len(r := self._replicates(terms, target, seeds))]
        total = np.array([part.mean(1).var(ddof=1) for part in parts])
        freedom = sum(v**2 / (len(part) - 1) for v, part in zip(total, parts, strict=True))
        shared = max(0.0, sum(map(seed_covariance, parts)))
        return Paired.of(values, shared, float(total.sum() ** 2 / freedom) if freedom > 0 else 1.0)

    def _replicates(self, terms: Sequence[Term], target: str, seeds: Sequence[int]) -> Floats:
        """r_g of the contrast's part on one target (G, n); empty where a run does not know its groups."""
        found: Any = 0.0
        for term in terms:
            if target not in (members := self.members(term.target)):
                continue
            each = [self.entries[term.row, seed].measured[target, term.measure].groups for seed in seeds]
            if len({len(groups) for groups in each}) > 1 or not len(each[0]):
                return NONE
            found = found + term.weight / len(members) * np.transpose(each)
        return np.asarray(found)

    @property
    def images_known(self) -> bool:
        """Whether every run knows how the test images move it."""
        return all(len(each.groups) for entry in self.entries.values() for each in entry.measured.values())
