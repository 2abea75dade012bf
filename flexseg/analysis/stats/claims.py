"""The verdict on every claim: *reproduced*, *refuted* or *undecided*.

For a contrast d with its 95 % interval (:mod:`flexseg.analysis.stats.paired`), signed so that the claim is d > 0, and
the smallest effect of interest δ:

* *reproduced*: d > 0 is shown. The one-sided p of “d ≤ 0”, after Holm, is below 2.5 %: the interval lies above 0.
* *refuted*: d < δ is shown. The one-sided p of “d ≥ δ”, after Holm, is below 2.5 %: the interval lies below δ. That is
  the half of an equivalence test (two one-sided tests: Schuirmann, J. Pharmacokinet. Biopharm. 1987; Lakens, Soc.
  Psychol. Personal. Sci. 2017) that a directed claim needs. No difference shown is no refutation.
* *undecided*: neither; or the claim's seeds are not complete, as a verdict that may come with any number of seeds is
  sought until it comes. With it, how many seeds would show δ with a power of 80 %, before Holm, at the variance seen.

A claim of which both are shown has an effect in its direction that is too small to matter: it counts as reproduced, and
is marked. Both levels are those of the two-sided interval, so what the picture shows is what decides, before Holm.

**Families.** Holm's correction is over the claims of a family, the question that they answer together, separately for
the two tests. A claim that cannot be judged yet counts as a hypothesis with p = 1, so that the verdict on one does not
wait for the others and is never lost to them. ``rule: best`` has m contrasts, one against each rival. It is reproduced
if all are (the largest p: an intersection-union test; Berger, Technometrics 1982) and refuted if any is (m times the
smallest p: Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flexseg.analysis.stats.evidence import Entry, Evidence, entries_of
from flexseg.analysis.stats.paired import LEVEL, Paired
from flexseg.analysis.stats.records import Records
from flexseg.analysis.stats.reference import Reference, read_reference
from flexseg.analysis.stats.statistics import holm
from flexseg.benchmark.claims import Claim, Claims
from flexseg.benchmark.identity import reference_path

Verdict = Literal["reproduced", "refuted", "undecided"]
REFERENCE, HERE = "the repository's runs", "these runs"
"""Whose evidence it is."""
ALPHA = (1 - LEVEL) / 2
"""One-sided, to agree with the two-sided intervals."""


@dataclass(frozen=True)
class Part:
    """One contrast of a claim, with the row that it is against; ``published`` is its published size in points."""

    against: str
    paired: Paired
    published: float | None
    sign: float
    smallest: float

    @property
    def p(self) -> float:
        """One-sided p of “there is no such effect”; NaN below two seeds."""
        return self.paired.p_above(0.0) if self.sign > 0 else self.paired.p_below(0.0)

    @property
    def p_refuted(self) -> float:
        """One-sided p of “the effect is the smallest of interest, or more”; NaN below two seeds."""
        return self.paired.p_below(self.smallest) if self.sign > 0 else self.paired.p_above(-self.smallest)

    @property
    def opposite(self) -> bool:
        """Whether the interval lies on the other side of zero."""
        return bool(self.paired.high < 0 if self.sign > 0 else self.paired.low > 0)


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict: ``p`` and ``p_refuted`` of the two tests, each also after Holm (1 while unknown)."""

    name: str
    claim: Claim
    parts: tuple[Part, ...]
    p_holm: float = 1.0
    refuted_holm: float = 1.0

    @property
    def n(self) -> int:
        """The seeds of the contrast that has fewest."""
        return min(part.paired.n for part in self.parts)

    @property
    def complete(self) -> bool:
        """Whether there are as many seeds as the claim asks for."""
        return self.n >= self.claim.seeds

    @property
    def p(self) -> float:
        """Of the claim as a whole: all contrasts must hold. 1 until it can be judged."""
        return max(part.p for part in self.parts) if self.complete else 1.0

    @property
    def p_refuted(self) -> float:
        """Of its refutation: one contrast is enough, so the smallest p counts as often as there are contrasts."""
        return min(1.0, len(self.parts) * min(part.p_refuted for part in self.parts)) if self.complete else 1.0

    @property
    def verdict(self) -> Verdict:
        """See the head of this module."""
        if self.p_holm < ALPHA:
            return "reproduced"
        return "refuted" if self.refuted_holm < ALPHA else "undecided"

    @property
    def weakest(self) -> Part:
        """The contrast that speaks least for the claim; of a claim with one contrast that one."""
        return min(self.parts, key=lambda part: (part.sign * part.paired.value, part.against))

    @property
    def power(self) -> float:
        """The chance that the claim's seeds show the smallest effect of interest, for the noisiest contrast."""
        return min(part.paired.power(part.smallest, self.claim.seeds) for part in self.parts)

    @property
    def seeds_needed(self) -> int | None:
        """The seeds that show the smallest effect of interest with 80 % power; None if no number does, or unknown."""
        needed = [part.paired.seeds_needed(part.smallest) for part in self.parts]
        return None if None in needed else max(each for each in needed if each is not None)

    @property
    def remark(self) -> str:
        """What the verdict alone does not say, in a few words; empty if that is nothing."""
        if not self.n:
            return "no run yet"
        if not self.complete:
            return f"{self.n} of {self.claim.seeds} seeds"
        if self.verdict == "reproduced":
            return "smaller than what would matter" if self.refuted_holm < ALPHA else ""
        if self.verdict == "refuted":
            return "opposite shown" if any(part.opposite for part in self.parts) else ""
        if (needed := self.seeds_needed) is None:
            return "more seeds would not decide: it takes more test images"
        return f"takes {needed} seeds" if needed > self.n else "in between, with seeds enough"


def judge(claims: Claims, evidence: Evidence) -> list[Judged]:
    """The verdict on every claim, in the order of the families and of the file."""
    found = []
    for family in claims.families:
        judged = [_measure(name, claim, evidence) for name, claim in claims.of_family(family).items()]
        found += adjust(judged)
    return found


def adjust(family: Iterable[Judged]) -> list[Judged]:
    """The claims of one family, Holm-adjusted among themselves, each test for itself."""
    judged = list(family)
    shown = holm(np.array([each.p for each in judged]))
    refuted = holm(np.array([each.p_refuted for each in judged]))
    return [
        Judged(each.name, each.claim, each.parts, float(p), float(q))
        for each, p, q in zip(judged, shown, refuted, strict=True)
    ]


def _measure(name: str, claim: Claim, evidence: Evidence) -> Judged:
    parts = [
        Part(against, evidence.paired(terms), claim.published_for(against), claim.sign, claim.smallest)
        for against, terms in claim.contrasts.items()
    ]
    return Judged(name, claim, tuple(parts))


@dataclass(frozen=True)
class Standing:
    """The claims of a benchmark as the repository's reference runs have them, and as the runs here do.

    ``other``: rows whose reference runs have another definition than today's, and which parts of it; they are not used.
    """

    reference: list[Judged]
    here: list[Judged]
    runs: tuple[Entry, ...] = ()
    other: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def sides(self) -> dict[str, list[Judged]]:
        """Those of the two that have any run, the reference first: by what they are called."""
        sides = {REFERENCE: self.reference, HERE: self.here}
        return {name: judged for name, judged in sides.items() if any(each.n for each in judged)}


def standing(records: Records) -> Standing:
    """How the claims of the records' benchmark stand, by its reference file and by these records, each alone.

    Raises:
        UserError: the reference file is damaged.
    """
    benchmark = records.benchmark.whole
    assert benchmark.claimed is not None, "asked for the claims of a benchmark without any"
    path, other = reference_path(benchmark, benchmark.home), {}
    there, here = Evidence.of(benchmark, []), Evidence.of(benchmark, entries_of(records))
    if path.is_file():
        reference = read_reference(path, benchmark)
        there = reference.evidence(benchmark)
        rows = {row: None for claim in benchmark.claimed.claims.values() for row in claim.rows}
        other = {row: changed for row in rows if (changed := reference.chosen(benchmark, row)[1])}
    used = tuple(there.entries.values())
    return Standing(judge(benchmark.claimed, there), judge(benchmark.claimed, here), used, other)


def changes_of(records: Records, reference: Reference) -> tuple[list[Judged], list[Judged]]:
    """The claims by the reference runs alone, and with the runs here in the place of those that they repeat."""
    benchmark = records.benchmark.whole
    assert benchmark.claimed is not None, "asked for the claims of a benchmark without any"
    there, here = reference.evidence(benchmark), Evidence.of(benchmark, entries_of(records))
    return judge(benchmark.claimed, there), judge(benchmark.claimed, there.joined(here))


def changes(before: Iterable[Judged], after: Iterable[Judged]) -> Mapping[str, tuple[Judged, Judged]]:
    """The claims whose verdict is another afterwards: before and after, by id."""
    pairs = zip(before, after, strict=True)
    return {one.name: (one, other) for one, other in pairs if one.verdict != other.verdict}


def tally(judged: Iterable[Judged]) -> dict[Verdict, int]:
    """How many claims have each verdict."""
    verdicts = [each.verdict for each in judged]
    return {verdict: verdicts.count(verdict) for verdict in ("reproduced", "refuted", "undecided")}


def verdicts(found: Standing) -> list[str]:
    """How many claims have which verdict, a sentence for each side that has any run."""
    sentences = []
    for side, judged in found.sides.items():
        counts = ", ".join(f"{count} {verdict}" for verdict, count in tally(judged).items())
        waiting = sum(not each.complete for each in judged)
        text = f"By {side}, of {len(judged)} claims: {counts}"
        sentences.append(text + (f" ({waiting} of them without all their seeds yet)." if waiting else "."))
    return sentences or ["Neither the repository nor these results have a run that a claim needs."]
