"""What a benchmark file may say, and how its parts refer to each other."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PrivateAttr, ValidationError, model_validator

from flexseg.benchmark.ablation import Ablation
from flexseg.benchmark.blocks import Domain, Protocol, World
from flexseg.benchmark.claims import Claims
from flexseg.benchmark.class_block import AnyClasses, class_set_of
from flexseg.benchmark.mistakes import problems
from flexseg.benchmark.row import Row
from flexseg.benchmark.schedule import Training
from flexseg.benchmark.values import LongText, Name, Seed, Strict, Text, at_most, check_plain
from flexseg.classes import CITYSCAPES, GROUPINGS, ClassSet
from flexseg.errors import UserError, did_you_mean
from flexseg.files import file_digest
from flexseg.sources import config_files, files_digest, source_files

ORIGINS = {
    "published": "as the paper has it",
    "assumed": "left open by the paper and chosen by this suite",
    "scaled": "shrunk from the paper's value with this suite's small images, trunk or schedule",
    "own": "of a control that this suite adds",
}
"""Where the default of an option can come from. The reports list it for every row."""

FOLDERS = ("data", "logs", "tables", "tuning")
"""Folders of ``results/<benchmark>/`` beside those of the rows."""
SHARED = ("datasets", "frames", "rehearsals", "figures")
"""Folders of ``results/`` and ``reports/`` beside those of the benchmarks."""

PRODUCTS = ("figures",)
"""Folders of ``reports/<benchmark>/`` beside those of the studies."""

LONGEST = 20
"""How many rows, or files, may extend each other in a chain."""


def _require(place: str, kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"{place}: no {kind} is named {name!r}{did_you_mean(name, known)}")


def _check_different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("a seed is named twice")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_check_different)]


class Tuning(Strict):
    """A search on source validation: the row whose options vary, the grid, the seed (none of the benchmark's)."""

    row: str
    seeds: Seeds
    grid: dict[str, list[Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _plain(self) -> Tuning:
        check_plain(self.grid, "grid")
        return self


class Benchmark(Strict):
    """A checked benchmark file. ``name`` is the file's stem.

    ``classes`` are what networks tell apart: a set of the suite by its name, or a list. ``extends`` names the benchmark
    that it is merged into (:mod:`flexseg.benchmark.reading`), and ``runs`` the one whose trained runs it evaluates,
    without training any. ``data_root`` is the folder of the data sets, if FLEXSEG_DATA is not set. ``claims`` names the
    file beside this one that says what the rows are to show (:mod:`flexseg.benchmark.claims`).
    """

    name: Name
    title: Text
    description: LongText = ""
    extends: Name | Literal[""] = ""
    runs: Name | Literal[""] = ""
    data_root: Text = ""
    classes: AnyClasses = CITYSCAPES.id
    world: World | None = None
    domains: dict[Name, Domain] = Field(max_length=200)
    source: str
    generated: str
    targets: list[str] = Field(min_length=1, max_length=100)
    averages: dict[Text, list[str]] = Field(max_length=100)
    protocol: Protocol
    model: dict[str, Any]
    training: Training
    seeds: Seeds
    rows: dict[Name, Row] = Field(min_length=1, max_length=1000)
    studies: dict[Name, list[str]] = Field(max_length=1000)
    reference: str
    ablation: Ablation
    published: list[Name] = Field(default_factory=list, max_length=100)
    published_trunk: Text = "DAFormer, MiT-B5"
    tuning: Tuning | None = None
    claims: Text = ""
    predictions: Annotated[NonNegativeInt, at_most(10_000, "each is a picture of every run")] = 3
    _methods: Path = PrivateAttr(default=Path("methods"))
    _datasets: Path = PrivateAttr(default=Path("datasets"))
    _selection: str = PrivateAttr(default="")
    _claims: Claims | None = PrivateAttr(default=None)
    _whole: Benchmark | None = PrivateAttr(default=None)
    _home: Path = PrivateAttr(default=Path("benchmarks"))
    _row_seeds: dict[str, int] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _references(self) -> Benchmark:
        check_plain(self.model, "model")
        self._check_classes()
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
            elif not row.method and not row.foreign:
                raise ValueError(f"rows.{name}: give a method, or the row that it extends")
            if row.extends and self.rows[row.extends].foreign:
                raise ValueError(f"rows.{name}.extends: {row.extends} is not trained here, so nothing can be changed")
            if row.generated:
                _require(f"rows.{name}.generated", "domain", row.generated, self.domains)
            for key in row.training:
                if key not in Training.model_fields:
                    hint = did_you_mean(key, Training.model_fields)
                    raise ValueError(f"rows.{name}.training: the schedule has no key {key!r}{hint}")
        if "default" not in self.studies:
            raise ValueError("studies: one study must be named 'default'")
        for study, rows in self.studies.items():
            if study in PRODUCTS:
                raise ValueError(f"studies.{study}: reports/<benchmark>/{study} is taken: rename the study")
            for name in rows:
                _require(f"studies.{study}", "row", name, self.rows)
        _require("reference", "row", self.reference, self.rows)
        for name in self.ablation.rows:
            _require("ablation", "row", name, self.rows)
        for name in self.ablation.dials:
            place = f"ablation.dials.{name}: a dial has the name of the study that runs its rows"
            _require(place, "study", name, self.studies)
        if self.tuning is not None:
            _require("tuning.row", "row", self.tuning.row, self.rows)
            if set(self.tuning.seeds) & set(self.seeds):
                raise ValueError("tuning.seeds: settings may not be chosen on a seed of the benchmark itself")
        return self

    def _check_classes(self) -> None:
        """Refuse what contradicts the classes."""
        classes, models = self.class_set, {"model": self.model}
        models |= {f"rows.{name}.model": row.model for name, row in self.rows.items()}
        for place, model in models.items():
            if "num_classes" in model:
                raise ValueError(f"{place}.num_classes: the benchmark's `classes` say how many: leave it out")
        if (grouping := self.protocol.classes) and grouping != classes.id:
            known = [classes.id, *(name for name, each in GROUPINGS.items() if each.classes == classes)]
            if grouping not in known:
                hint = f"{did_you_mean(grouping, known)}; known: {', '.join(known)}"
                raise ValueError(f"protocol.classes: no class set is named {grouping!r}{hint}")
        if self.training.feature_distance is not None:
            try:
                self.training.feature_distance.classes_in(classes)
            except ValueError as error:
                raise ValueError(f"training.feature_distance.{error}") from error

    @property
    def class_set(self) -> ClassSet:
        """What networks tell apart."""
        return class_set_of(self.classes)

    @property
    def methods(self) -> Path:
        """The folder of the method files that the rows name."""
        return self._methods

    @property
    def datasets(self) -> Path:
        """The folder of the files that describe data sets of one's own."""
        return self._datasets

    def with_methods(self, folder: Path) -> Benchmark:
        """This benchmark with its method files in ``folder``."""
        copy = self.model_copy()
        copy._methods = folder
        return copy

    @property
    def selection(self) -> str:
        """The folder of the reports and tables of what is selected; empty for the default study with all seeds."""
        return self._selection

    def selected_as(self, name: str) -> Benchmark:
        """This benchmark with its reports and tables in a folder of this name."""
        copy = self.model_copy()
        copy._selection = name
        return copy

    @property
    def claimed(self) -> Claims | None:
        """The claims that the file names, read and checked; None without any."""
        return self._claims

    @property
    def whole(self) -> Benchmark:
        """The benchmark with all its rows, of which this may be a selection; known where there are claims."""
        return self._whole or self

    @property
    def home(self) -> Path:
        """The folder of the benchmark's file, its claims and its reference runs; known where there are claims."""
        return self._home

    def with_claims(self, claims: Claims, home: Path) -> Benchmark:
        """This benchmark with its claims, which lie in ``home``, and the studies that run them.

        Raises:
            UserError: a study of the benchmark has the name of one of these.
        """
        for study in claims.studies:
            if study in self.studies:
                raise UserError(f"benchmark {self.name}: studies.{study} is the study of its claims: rename yours")
        studies = {study: list(rows) for study, rows in claims.studies.items()}
        copy = self.model_copy(update={"studies": self.studies | studies})
        copy._claims, copy._home = claims, home
        copy._whole = copy
        return copy

    def with_row_seeds(self, seeds: dict[str, int]) -> Benchmark:
        """This benchmark, of which some rows have only so many of the first seeds."""
        copy = self.model_copy()
        copy._row_seeds = seeds
        return copy

    def with_datasets(self, folder: Path) -> Benchmark:
        """This benchmark with the data sets of one's own in ``folder``."""
        copy = self.model_copy()
        copy._datasets = folder
        return copy

    def method_files(self, row_name: str) -> list[Path]:
        """The file of a row's method, and that of the method on which it stands."""
        row = self.row(row_name)
        return [self.methods / f"{name}.py" for name in (row.method, row.base) if name]

    def sources(self, row_name: str) -> list[Path]:
        """:meth:`method_files`, and the files beside them that they import."""
        return list(dict.fromkeys(file for path in self.method_files(row_name) for file in source_files(path)))

    @property
    def trained_rows(self) -> list[str]:
        """The rows that are trained here: all but those of networks and predictions from elsewhere."""
        return [name for name, row in self.rows.items() if row.foreign is None]

    def seeds_of(self, row_name: str) -> list[int]:
        """The seeds of a row's runs: the benchmark's, of published runs those that it has, of a network the first."""
        row = self.rows[row_name]
        if row.foreign is None:
            return self.planned_seeds(row_name)
        return [seed for seed in self.seeds if seed in row.published_seeds] if row.publication else self.seeds[:1]

    def planned_seeds(self, row_name: str) -> list[int]:
        """The seeds that a row would be trained with: the benchmark's, in a study of claims those that they ask for."""
        return self.seeds[: self._row_seeds.get(row_name)]

    @property
    def trained_as(self) -> str:
        """The name of the benchmark whose folder has the trained runs."""
        return self.runs or self.name

    def row(self, name: str) -> Row:
        """The row ``name`` with everything that it inherits through ``extends``.

        Raises:
            UserError: there is no such row, or rows extend each other in a circle.
        """
        chain = [name]
        while base := self._own_row(chain[-1]).extends:
            if base in chain:
                circle = " → ".join((*chain, base))
                raise UserError(f"benchmark {self.name}: rows extend each other in a circle: {circle}")
            if len(chain) == LONGEST:
                raise UserError(f"benchmark {self.name}: rows.{name} extends a row that extends … over {LONGEST} steps")
            chain.append(base)
        last = chain.pop()
        row = self.rows[last] if self.rows[last].title else self.rows[last].model_copy(update={"title": last})
        for step in reversed(chain):
            own = self.rows[step]
            merged = row.model_dump() | own.model_dump(exclude_unset=True, exclude={"extends"}) | {"extends": ""}
            row = Row(**(merged | {"title": own.title or step, "published": own.published}))
        return row

    def _own_row(self, name: str) -> Row:
        if name not in self.rows:
            hint = f"{did_you_mean(name, self.rows)}. Its rows: {', '.join(self.rows)}"
            raise UserError(f"benchmark {self.name}: no row is named {name!r}{hint}")
        return self.rows[name]

    def training_of(self, row_name: str) -> Training:
        """The schedule of a row: the benchmark's, with the row's own changes.

        Raises:
            UserError: a change has a wrong value.
        """
        changes = self.row(row_name).training
        if not changes:
            return self.training
        place = f"benchmark {self.name}: rows.{row_name}.training"
        try:
            training = Training(**(self.training.model_dump() | changes))
        except ValidationError as error:
            found = "; ".join(problem.strip() for problem in problems(error, Training))
            raise UserError(f"{place}: {found}") from error
        if training.feature_distance is not None:
            try:
                training.feature_distance.classes_in(self.class_set)
            except ValueError as error:
                raise UserError(f"{place}.feature_distance.{error}") from error
        return training

    def model_of(self, row_name: str) -> dict[str, Any]:
        """The trunk of a row: the benchmark's, or the row's own."""
        return self.counted(self.row(row_name).model or self.model)

    def counted(self, model: dict[str, Any]) -> dict[str, Any]:
        """A trunk with the number of its classes, where that is not 19, and a digest of the configuration it names."""
        path = Path(str(model.get("config") or ""))
        own: dict[str, Any] = {} if self.class_set.is_default else {"num_classes": len(self.class_set)}
        own |= {"config_digest": files_digest(config_files(path))} if path.suffix == ".py" else {}
        return model | own if own else model

    def generated_of(self, row_name: str) -> str:
        """The domain of a row's generated images: the benchmark's, or the row's own."""
        return self.row(row_name).generated or self.generated

    @property
    def training_domains(self) -> set[str]:
        """The domains that the rows may be trained on."""
        return {self.source, *map(self.generated_of, self.trained_rows)}

    def targets_trained_on(self, row_name: str, images: bool = False) -> list[str]:
        """The targets from whose data set a row may be trained: not unseen domains then.

        Args:
            images: only those whose test images may themselves be among the training images.
        """
        found = []
        for target in self.targets:
            there = self.domains[target]
            for name in {self.source, self.generated_of(row_name)}:
                here = self.domains[name]
                if here.rendered or there.rendered or (here.dataset, here.root) != (there.dataset, there.root):
                    continue
                apart = here.conditions and there.conditions and not set(here.conditions) & set(there.conditions)
                if not images or (here.parts["train"].split == there.parts["test"].split and not apart):
                    found.append(target)
                    break
        return found

    def domain_definition(self, name: str) -> dict[str, Any]:
        """All that decides the pixels of domain ``name``: the key of its data."""
        definition, own = (
            self.domains[name].definition(self.world),
            self.datasets / f"{self.domains[name].dataset}.yaml",
        )
        if not self.domains[name].rendered and own.is_file():
            definition["dataset_digest"] = file_digest(own)
        return definition if self.class_set.is_default else definition | {"classes": self.class_set.describe()}

    def run_definition(self, row_name: str, seed: int) -> dict[str, Any]:
        """All that decides the weights of a run, except the library's own code. The fingerprint is made from it."""
        row = self.row(row_name)
        if row.foreign is not None:
            own = {"foreign": row.foreign.definition(), "label_map": self.class_set.id}
            return {"benchmark": self.name, "row": row_name, "seed": seed} | own
        digests = [files_digest(source_files(path)) for path in self.method_files(row_name)]
        return {
            "benchmark": self.trained_as,
            "row": row_name,
            "seed": seed,
            "method": row.method,
            "method_digest": digests[0],
            "options": row.options,
            "source": self.domain_definition(self.source),
            "generated": self.domain_definition(self.generated_of(row_name)),
            "label_map": self.class_set.id,
            "model": self.model_of(row_name),
            "training": self.training_of(row_name).model_dump(mode="json", exclude_none=True),
        } | ({"base": row.base, "base_digest": digests[1]} if row.base else {})

    def evaluation_definition(self) -> dict[str, Any]:
        """All that decides the records of a trained run."""
        return {
            "protocol": self.protocol.model_dump(exclude_none=True),
            "targets": {target: self.domain_definition(target) for target in self.targets},
            "predictions": self.predictions,
        }
