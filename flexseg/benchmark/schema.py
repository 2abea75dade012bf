"""What a benchmark file may say, and how its parts refer to each other."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PrivateAttr, ValidationError, model_validator

from flexseg.benchmark.ablation import Ablation
from flexseg.benchmark.blocks import Domain, Protocol, Strict, World
from flexseg.benchmark.mistakes import problems
from flexseg.benchmark.schedule import Training
from flexseg.errors import UserError, did_you_mean
from flexseg.files import file_digest

ORIGINS = {
    "published": "as the paper has it",
    "assumed": "left open by the paper and chosen by this suite",
    "scaled": "shrunk from the paper's value with this suite's small images, trunk or schedule",
    "own": "of a control that this suite adds",
}
"""Where the default of an option can come from. The reports list it for every row."""

FOLDERS = ("data", "logs", "tables", "tuning")
"""Folders of ``results/<benchmark>/`` beside those of the rows."""
SHARED = ("datasets", "frames", "rehearsals")
"""Folders of ``results/`` beside those of the benchmarks."""


def _require(place: str, kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"{place}: no {kind} is named {name!r}{did_you_mean(name, known)}")


class Row(BaseModel):
    """A row of the tables: a method with options, which are all the keys that are not named here.

    ``training`` changes keys of the benchmark's schedule and ``model`` exchanges its trunk, for this row alone: for
    controls, such as a longer training, which the reports mark as such. ``published`` is the row's name in the files
    of published numbers, where its component switches do not give it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = ""
    extends: str = ""
    title: str = ""
    generated: str = ""
    tuned: bool = False
    training: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    published: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The options as written, not yet checked by the method."""
        return dict(self.model_extra or {})


class Tuning(Strict):
    """A search on source validation: the row whose options vary, the grid, the seed (none of the benchmark's)."""

    row: str
    seeds: list[NonNegativeInt] = Field(min_length=1)
    grid: dict[str, list[Any]] = Field(min_length=1)


class Benchmark(Strict):
    """A checked benchmark file. ``name`` is the file's stem.

    ``extends`` names the benchmark that it is merged into (:mod:`flexseg.benchmark.reading`), and ``runs`` the one
    whose trained runs it evaluates, without training any. ``data_root`` is the folder of the data sets, if
    FLEXSEG_DATA is not set.
    """

    name: str
    title: str
    description: str = ""
    extends: str = ""
    runs: str = ""
    data_root: str = ""
    world: World | None = None
    domains: dict[str, Domain]
    source: str
    generated: str
    targets: list[str] = Field(min_length=1)
    averages: dict[str, list[str]]
    protocol: Protocol
    model: dict[str, Any]
    training: Training
    seeds: list[NonNegativeInt] = Field(min_length=1)
    rows: dict[str, Row] = Field(min_length=1)
    studies: dict[str, list[str]]
    reference: str
    ablation: Ablation
    published: list[str] = Field(default_factory=list)
    published_trunk: str = "DAFormer, MiT-B5"
    tuning: Tuning | None = None
    predictions: int = Field(default=3, ge=0)
    _methods: Path = PrivateAttr(default=Path("methods"))

    @model_validator(mode="after")
    def _references(self) -> Benchmark:
        for key, name in (("source", self.source), ("generated", self.generated)):
            _require(key, "domain", name, self.domains)
            if not self.domains[name].has("train"):
                raise ValueError(f"domains.{name}.train: the {key} domain needs training images")
        for target in self.targets:
            _require("targets", "domain", target, self.domains)
            if not self.domains[target].has("test"):
                raise ValueError(f"domains.{target}.test: a target without images cannot be evaluated; give it some")
        for name, domain in self.domains.items():
            if domain.rendered and self.world is None:
                raise ValueError(f"domains.{name}: the street world renders it, so `world:` must say version and size")
        lists = {"protocol.sizes": list(self.protocol.sizes or {})}
        lists |= {f"averages.{average}": members for average, members in self.averages.items()}
        for place, targets in lists.items():
            for target in targets:
                if target not in self.targets:
                    raise ValueError(f"{place}: {target!r} is no target{did_you_mean(target, self.targets)}")
        for name, row in self.rows.items():
            if name in FOLDERS:
                raise ValueError(f"rows.{name}: results/<benchmark>/{name}/ is a folder of the suite: rename the row")
            if row.extends:
                _require(f"rows.{name}.extends", "row", row.extends, self.rows)
            elif not row.method:
                raise ValueError(f"rows.{name}: give a method, or the row that it extends")
            if row.generated:
                _require(f"rows.{name}.generated", "domain", row.generated, self.domains)
            for key in row.training:
                if key not in Training.model_fields:
                    hint = did_you_mean(key, Training.model_fields)
                    raise ValueError(f"rows.{name}.training: the schedule has no key {key!r}{hint}")
        if "default" not in self.studies:
            raise ValueError("studies: one study must be named 'default'")
        for study, rows in self.studies.items():
            for name in rows:
                _require(f"studies.{study}", "row", name, self.rows)
        _require("reference", "row", self.reference, self.rows)
        for name in self.ablation.rows:
            _require("ablation", "row", name, self.rows)
        for name in self.ablation.dials:
            place = f"ablation.dials.{name}: a dial has the name of the study that runs its rows"
            _require(place, "study", name, self.studies)
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed is named twice")
        if self.tuning is not None:
            _require("tuning.row", "row", self.tuning.row, self.rows)
            if set(self.tuning.seeds) & set(self.seeds):
                raise ValueError("tuning.seeds: settings may not be chosen on a seed of the benchmark itself")
        return self

    @property
    def methods(self) -> Path:
        """The folder of the method files that the rows name."""
        return self._methods

    def with_methods(self, folder: Path) -> Benchmark:
        """This benchmark with its method files in ``folder``."""
        copy = self.model_copy()
        copy._methods = folder
        return copy

    def method_file(self, row_name: str) -> Path:
        """The file of a row's method."""
        return self.methods / f"{self.row(row_name).method}.py"

    @property
    def trained_as(self) -> str:
        """The name of the benchmark whose folder has the trained runs."""
        return self.runs or self.name

    def row(self, name: str) -> Row:
        """The row ``name`` with everything that it inherits through ``extends``."""
        return self._resolve(name, ())

    def _resolve(self, name: str, seen: tuple[str, ...]) -> Row:
        if name in seen:
            raise UserError(f"benchmark {self.name}: rows extend each other in a circle: {' → '.join((*seen, name))}")
        if name not in self.rows:
            hint = f"{did_you_mean(name, self.rows)}. Its rows: {', '.join(self.rows)}"
            raise UserError(f"benchmark {self.name}: no row is named {name!r}{hint}")
        row = self.rows[name]
        if not row.extends:
            return row if row.title else row.model_copy(update={"title": name})
        base = self._resolve(row.extends, (*seen, name))
        merged = base.model_dump() | row.model_dump(exclude_unset=True, exclude={"extends"}) | {"extends": ""}
        merged |= {"title": row.title or name, "published": row.published}
        return Row(**merged)

    def training_of(self, row_name: str) -> Training:
        """The schedule of a row: the benchmark's, with the row's own changes.

        Raises:
            UserError: a change has a wrong value.
        """
        changes = self.row(row_name).training
        if not changes:
            return self.training
        try:
            return Training(**(self.training.model_dump() | changes))
        except ValidationError as error:
            found = "; ".join(problems(error, Training))
            raise UserError(f"benchmark {self.name}: rows.{row_name}.training: {found}") from error

    def model_of(self, row_name: str) -> dict[str, Any]:
        """The trunk of a row: the benchmark's, or the row's own."""
        return self.row(row_name).model or self.model

    def generated_of(self, row_name: str) -> str:
        """The domain of a row's generated images: the benchmark's, or the row's own."""
        return self.row(row_name).generated or self.generated

    @property
    def training_domains(self) -> set[str]:
        """The domains that the rows may be trained on."""
        return {self.source, *map(self.generated_of, self.rows)}

    def domain_definition(self, name: str) -> dict[str, Any]:
        """All that decides the pixels of domain ``name``: the key of its data."""
        return self.domains[name].definition(self.world)

    def run_definition(self, row_name: str, seed: int) -> dict[str, Any]:
        """All that decides the weights of a run, except the library's own code. The fingerprint is made from it."""
        row, method_file = self.row(row_name), self.method_file(row_name)
        return {
            "benchmark": self.trained_as,
            "row": row_name,
            "seed": seed,
            "method": row.method,
            "method_digest": file_digest(method_file) if method_file.is_file() else "missing",
            "options": row.options,
            "source": self.domain_definition(self.source),
            "generated": self.domain_definition(self.generated_of(row_name)),
            "label_map": self.protocol.label_map,
            "model": self.model_of(row_name),
            "training": self.training_of(row_name).model_dump(mode="json", exclude_none=True),
        }

    def evaluation_definition(self) -> dict[str, Any]:
        """All that decides the records of a trained run."""
        return {
            "protocol": self.protocol.model_dump(exclude_none=True),
            "targets": {target: self.domain_definition(target) for target in self.targets},
            "predictions": self.predictions,
        }
