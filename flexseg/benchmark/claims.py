"""What a study is to show, written down before its runs: the file that a benchmark's key ``claims`` names.

A claim is a contrast of rows with a target, a direction, the smallest effect that would matter, and the number of
seeds. All claims together are the study ``evidence``, each is the study ``claim_<id>``.
:mod:`flexseg.analysis.stats.claims` judges them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from flexseg.benchmark.mistakes import problems
from flexseg.benchmark.values import Name, Strict, Text, at_most
from flexseg.errors import UserError, did_you_mean
from flexseg.yaml_files import read_yaml

FEWEST = 6
"""Seeds without which a claim gets no verdict: from here on, a difference has the variance of its own."""
SUFFIX = "claims.yaml"
"""How the name of a file of claims ends: it lies among the benchmarks and is none."""
EVIDENCE, ONE = "evidence", "claim_"
"""The study of all claims, and how the study of a single one begins."""

Measure = Literal["mIoU", "boundary error", "interior error"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
"""What claims can be about: the quantities of a run that the reference file holds, in percent."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _enough(seeds: object) -> object:
    if isinstance(seeds, int) and seeds < FEWEST:
        raise ValueError(f"{seeds} seeds are too few for a verdict: it takes {FEWEST} or more")
    return seeds


@dataclass(frozen=True)
class Term:
    """A summand of a contrast: weight × measure of a row on a target or average."""

    weight: float
    row: str
    target: str
    measure: Measure


class Minus(Strict):
    """The contrast that is subtracted: the claim's own, but for the keys that stand here."""

    row: str = ""
    reference: str = ""
    target: str = ""
    measure: Measure | None = None
    reference_measure: Measure | None = None


class Claim(Strict):
    """A claim: ``row`` minus ``reference`` on ``target``, in points of ``measure``.

    Attributes:
        text: the claim in plain words.
        place: where the paper states it.
        family: the question that it helps to answer; Holm's correction is over the claims of a family.
        row: the row that the claim is about.
        reference: the row that it is compared with, or several of them, each of which it must beat (``rule: best``);
            none where the claim compares two measures of one row.
        target: a target or an average of the benchmark.
        measure: mIoU, boundary error or interior error, in percent.
        reference_measure: the measure of the reference, if that is another one.
        minus: a second contrast, which is subtracted from the first: for interactions.
        direction: whether the contrast is claimed to be above or below zero.
        published: its published size in points, where there is one; of several references one each.
        smallest: the smallest effect that would matter, in points: what excludes it, refutes the claim.
        rule: ``difference`` of one contrast, or ``best``: all contrasts must hold, and one that is refuted refutes.
        seeds: with how many the claim is judged.
    """

    text: Text
    place: Text
    family: Name
    row: str
    reference: Annotated[list[str], BeforeValidator(_as_list)] = Field(default_factory=list, max_length=20)
    target: str
    measure: Measure = "mIoU"
    reference_measure: Measure | None = None
    minus: Minus | None = None
    direction: Literal["higher", "lower"] = "higher"
    published: float | dict[str, float] | None = None
    smallest: Annotated[float, Field(gt=0), at_most(100, "it is in points of percent")]
    rule: Literal["difference", "best"] = "difference"
    seeds: Annotated[int, BeforeValidator(_enough), at_most(1000, "nobody runs so many")]

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        if not self.reference and self.reference_measure in (None, self.measure):
            raise ValueError("compared with what? Give a reference row, or another reference_measure of the row itself")
        if (self.rule == "best") != (len(self.reference) > 1):
            raise ValueError("`rule: best` goes with several reference rows, `rule: difference` with one")
        if self.minus is not None and len(self.reference) > 1:
            raise ValueError("minus goes with one reference row")
        if isinstance(self.published, dict):
            for row in self.published:
                if row not in self.reference:
                    raise ValueError(f"published: {row!r} is no reference{did_you_mean(row, self.reference)}")
        elif self.published is not None and len(self.reference) > 1:
            raise ValueError("published: of several references give each its own: {row: size}")
        return self

    @property
    def sign(self) -> float:
        """1 where a positive contrast is claimed, −1 where a negative one is."""
        return 1.0 if self.direction == "higher" else -1.0

    @property
    def contrasts(self) -> dict[str, list[Term]]:
        """The terms of each contrast, by the reference row (the row itself where it is compared with none)."""
        return {each: self._terms(each) for each in self.reference or [self.row]}

    def _terms(self, reference: str) -> list[Term]:
        terms = _difference(self.row, reference, self.target, self.measure, self.reference_measure)
        if (other := self.minus) is not None:
            row = other.row or self.row
            beside = other.reference or (reference if self.reference else row)
            measures = other.measure or self.measure, other.reference_measure or self.reference_measure
            second = _difference(row, beside, other.target or self.target, *measures)
            terms += [Term(-each.weight, each.row, each.target, each.measure) for each in second]
        return terms

    def published_for(self, reference: str) -> float | None:
        """The published size of the contrast with ``reference``."""
        return self.published.get(reference) if isinstance(self.published, dict) else self.published

    @property
    def rows(self) -> list[str]:
        """Every row that the claim needs, as they are named."""
        return list(dict.fromkeys(term.row for terms in self.contrasts.values() for term in terms))

    @property
    def targets(self) -> list[str]:
        """Every target and average that the claim names."""
        return list(dict.fromkeys(term.target for terms in self.contrasts.values() for term in terms))


def _difference(row: str, reference: str, target: str, measure: Measure, other: Measure | None) -> list[Term]:
    return [Term(1.0, row, target, measure), Term(-1.0, reference, target, other or measure)]


class Claims(Strict):
    """A file of claims. ``families`` says in which order, and what question each answers; ``claims`` by their ids."""

    families: dict[Name, Text] = Field(min_length=1, max_length=100)
    claims: dict[Name, Claim] = Field(min_length=1, max_length=300)

    @model_validator(mode="after")
    def _in_families(self) -> Claims:
        for name, claim in self.claims.items():
            if claim.family not in self.families:
                hint = did_you_mean(claim.family, self.families)
                raise ValueError(f"claims.{name}.family: no family is named {claim.family!r}{hint}")
        return self

    def of_family(self, family: str) -> dict[str, Claim]:
        """The claims of one family, by their ids."""
        return {name: claim for name, claim in self.claims.items() if claim.family == family}

    @property
    def studies(self) -> dict[str, dict[str, int]]:
        """The studies that run the claims: of each the rows, in order, with the number of seeds of each row."""
        found: dict[str, dict[str, int]] = {EVIDENCE: {}}
        for name, claim in self.claims.items():
            found[f"{ONE}{name}"] = dict.fromkeys(claim.rows, claim.seeds)
            for row in claim.rows:
                found[EVIDENCE][row] = max(claim.seeds, found[EVIDENCE].get(row, 0))
        return found


def is_claims_file(path: Path) -> bool:
    """Whether a file among the benchmarks holds claims."""
    return path.name == SUFFIX or path.name.endswith(f".{SUFFIX}")


def read_claims(path: Path, rows: Mapping[str, bool], targets: Collection[str]) -> Claims:
    """Read and check a file of claims.

    Args:
        rows: the benchmark's, and whether each is trained here. targets: its targets and averages.

    Raises:
        UserError: no such file, a wrong key or value, or a row or target that the benchmark does not have.
    """
    if not is_claims_file(path):
        raise UserError(f"{path}: a file of claims is named claims.yaml or NAME.claims.yaml, beside benchmarks")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: claims are a mapping of keys, this is {type(content).__name__}")
    try:
        claims = Claims(**content)
    except ValidationError as error:
        raise UserError(f"{path} is no valid file of claims:\n" + "\n".join(problems(error, Claims))) from error
    wrong = [line for name, claim in claims.claims.items() for line in _unknown(name, claim, rows, targets)]
    if wrong:
        raise UserError(
            f"{path} does not fit the benchmark that names it (`claims: null` there if it is about others):\n"
            + "\n".join(wrong)
        )
    return claims


def _unknown(name: str, claim: Claim, rows: Mapping[str, bool], targets: Collection[str]) -> Iterable[str]:
    for row in claim.rows:
        if row not in rows:
            yield f"  claims.{name}: no row is named {row!r}{did_you_mean(row, rows)}"
        elif not rows[row]:
            yield f"  claims.{name}: row {row!r} was not trained here: it has no seeds to judge a claim with"
    for target in claim.targets:
        if target not in targets:
            yield f"  claims.{name}: no target or average is named {target!r}{did_you_mean(target, targets)}"


def first_seeds(known: list[int], taken: Collection[int], number: int) -> list[int]:
    """``number`` seeds: the benchmark's own first, then the smallest others that are not ``taken``."""
    others = (seed for seed in count() if seed not in known and seed not in taken)
    return [*known[:number], *(next(others) for _ in range(number - len(known)))]
