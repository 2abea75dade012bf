"""A publication: one row's finished runs in a folder that others can keep, check and read. This is the reading half.

A publication is made by :mod:`flexseg.tasks.publish`. It is read from strangers, so everything is checked before
anything is used: names, sizes and digests of all files, then their content. Nothing is unpickled or executed, links are
refused, and every mistake is one :class:`~flexseg.errors.UserError`. The digests show damage, not forgery: whoever can
change a file can change the manifest. ::

    README.md                    for people: a model card, as Hugging Face reads it
    publication.json             for programs: what this is (:class:`Facts`)
    manifest-sha256.txt          the SHA-256 of every other file: `sha256sum -c manifest-sha256.txt`
    ro-crate-metadata.json       provenance, as archives read it (RO-Crate 1.1)
    CITATION.cff
    benchmarks/<benchmark>.yaml  the row alone in its benchmark: complete, without `extends`
    methods/*.py                 the method's file, and those that it needs; datasets/*.yaml likewise
    seed-<n>/                    config.json, run.json, train.jsonl, model.safetensors
    seed-<n>/evaluation/         one <target>.parquet of per-image records for each target

Files whose names begin with a dot, as version control and hubs add them, belong to the folder's keeper: they are
neither read nor checked.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flexseg.analysis.stats.records import read_metadata
from flexseg.benchmark import fingerprint
from flexseg.benchmark.facts import mistake_in_record
from flexseg.benchmark.identity import RunDirectory
from flexseg.benchmark.values import PATTERN
from flexseg.console import printable, progress_bar
from flexseg.errors import UserError
from flexseg.files import disk_errors, file_digest, read_json
from flexseg.tensor_files import check_seal
from flexseg.yaml_files import MAX_BYTES, read_yaml

FORMAT, VERSION = "flexseg-publication", 1
FACTS, MANIFEST, CARD, CRATE = "publication.json", "manifest-sha256.txt", "README.md", "ro-crate-metadata.json"
LARGEST = {".json": 8 << 20, ".yaml": MAX_BYTES, ".py": 4 << 20, ".md": 4 << 20, ".cff": MAX_BYTES, ".txt": 4 << 20}
"""The most bytes of a file that is read whole, by its ending."""
STREAMED = (".safetensors", ".parquet", ".jsonl")
"""Endings of files of any size."""
PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin", ".npy", ".npz", ".joblib")
MOST_FILES = 20_000
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}"
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_PART}(?:/{_PART}){{0,3}})")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Word = Annotated[str, Field(pattern=f"^{PATTERN.pattern}$")]
Line = Annotated[str, Field(max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PublishedBenchmark(_Strict):
    """The benchmark: its name and title, and the name under which its runs were trained."""

    name: Word
    title: Line
    trained_as: Word


class PublishedRow(_Strict):
    """The row: its name and title, its method and the method on which it stands, if any."""

    name: Word
    title: Line
    method: Word
    base: Word | Literal[""] = ""


class Score(_Strict):
    """mIoU in percent on a target or average: mean and half width over seeds; difference from the reference row.

    ``half_width`` and the ends of the difference's interval are None where there are too few seeds.
    """

    mean: float
    half_width: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Facts(_Strict):
    """``publication.json``.

    Attributes:
        suite: version of the suite that wrote it.
        evaluation: fingerprint of ``evaluation_definition``, which every record carries.
        fingerprints: of the run of each seed.
        reference: the row that ``scores`` compare with, and ``reference_title`` its title; empty if there are none of
            its records.
    """

    format: Literal["flexseg-publication"]
    version: int
    suite: Line
    benchmark: PublishedBenchmark
    row: PublishedRow
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=1000)]
    protocol: Line
    targets: Annotated[list[Word], Field(min_length=1, max_length=100)]
    evaluation: Digest
    evaluation_definition: dict[str, Any]
    fingerprints: dict[str, Digest]
    reference: Word | Literal[""] = ""
    reference_title: Line = ""
    scores: dict[Line, Score] = Field(default_factory=dict)
    licence: Line = ""
    authors: Annotated[list[Line], Field(max_length=1000)] = Field(default_factory=list)


@dataclass(frozen=True)
class PublishedRun:
    """One run of a publication, checked.

    Attributes:
        seed: its seed. fingerprint: its short name; ``config``, ``run`` and all records agree on it.
        directory: its files, named as those of a run in ``results`` are.
        config, run, log, weights: ``config.json``, ``run.json``, ``train.jsonl`` (thinned if it was long),
            ``model.safetensors``.
        records: the per-image records of every target.
        record: what ``run.json`` says.
    """

    seed: int
    fingerprint: str
    directory: RunDirectory
    records: dict[str, Path]
    record: dict[str, Any]

    @property
    def config(self) -> Path:
        """``config.json``: the run's definition and its fingerprint."""
        return self.directory.config

    @property
    def run(self) -> Path:
        """``run.json``: provenance and cost."""
        return self.directory.record

    @property
    def log(self) -> Path:
        """``train.jsonl``."""
        return self.directory.log

    @property
    def weights(self) -> Path:
        """``model.safetensors``."""
        return self.directory.weights


@dataclass(frozen=True)
class Publication:
    """A publication whose files are all there, and as they were written.

    Attributes:
        folder: where it is.
        facts: what ``publication.json`` says: names and titles of benchmark and row, targets, protocol, scores.
        runs: the runs by seed, in order.
        benchmark_file: the YAML of the row's benchmark. It is plain YAML of bounded size; whether today's suite takes
            it, :func:`flexseg.benchmark.load_benchmark` says.
        methods, datasets: the Python files of the method, which are *not* safe to import unread, and the descriptions
            of data sets that are not the suite's.
    """

    folder: Path
    facts: Facts
    runs: dict[int, PublishedRun]
    benchmark_file: Path
    methods: list[Path]
    datasets: list[Path]

    @property
    def benchmark(self) -> str:
        """The name of the benchmark."""
        return self.facts.benchmark.name

    @property
    def row(self) -> str:
        """The name of the row."""
        return self.facts.row.name

    @property
    def title(self) -> str:
        """The title of the row."""
        return self.facts.row.title

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        return list(self.runs)

    @property
    def protocol(self) -> str:
        """The id of the protocol."""
        return self.facts.protocol

    @property
    def evaluation(self) -> str:
        """The fingerprint of the evaluation: equal ones were scored alike, on the same targets."""
        return self.facts.evaluation

    @property
    def evaluation_definition(self) -> dict[str, Any]:
        """All that decides the records of a trained run, as ``Benchmark.evaluation_definition`` gives it."""
        return self.facts.evaluation_definition


def read_publication(folder: Path) -> Publication:
    """Read and check the publication in ``folder``. Takes the time to read every file once; shows progress.

    Raises:
        UserError: it is no publication, or one that is damaged, incomplete or made to do harm; names the file. Nothing
            of it was used.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the one that holds {FACTS} (unpack an archive first)")
    with disk_errors(folder):
        files = _list_files(folder)
        if MANIFEST not in files or FACTS not in files:
            lost = MANIFEST if MANIFEST not in files else FACTS
            raise UserError(f"{folder} is no publication of `flexseg publish`: it has no {lost}")
        _check_digests(folder, files, _read_manifest(folder / MANIFEST))
        facts = _read_facts(folder / FACTS)
        runs = {seed: _read_run(folder, files, facts, seed) for seed in facts.seeds}
        if len(runs) < len(facts.seeds):
            raise UserError(f"{folder / FACTS}: a seed is named twice")
        return Publication(folder, facts, runs, *_read_sources(folder, files, facts))


def _list_files(folder: Path) -> dict[str, int]:
    """Relative names and sizes of all files but hidden ones; refuses what is no plain file or of no known kind."""
    found: dict[str, int] = {}

    def walk(place: Path, above: PurePosixPath) -> None:
        for entry in sorted(os.scandir(place), key=lambda each: each.name):
            if entry.name.startswith("."):
                continue
            name, shown = above / entry.name, printable(str(Path(entry.path)))
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(state.st_mode):
                raise UserError(
                    f"{shown} is a link, which could lead anywhere: copy the publication with its files (cp -rL)"
                )
            if not re.fullmatch(_PART, entry.name) or len(name.parts) > 4:
                raise UserError(f"{shown}: no publication has a file of such a name: remove it")
            if stat.S_ISDIR(state.st_mode):
                walk(Path(entry.path), name)
                continue
            _check_kind(shown, name, state)
            found[name.as_posix()] = state.st_size
            if len(found) > MOST_FILES:
                raise UserError(f"{folder} holds more than {MOST_FILES:,} files: it is no publication")

    walk(folder, PurePosixPath())
    return found


def _check_kind(shown: str, name: PurePosixPath, state: os.stat_result) -> None:
    ending = name.suffix.lower()
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{shown} is neither a file nor a folder: remove it")
    if ending in PICKLES:
        raise UserError(f"{shown} may hold pickled objects, which can run code: it is not read, and has no place here")
    if ending not in (*LARGEST, *STREAMED) and name.name != "LICENSE":
        raise UserError(f"{shown}: a publication has no such files: remove it")
    if state.st_size > LARGEST.get(ending, state.st_size):
        raise UserError(f"{shown} has {state.st_size:,} bytes, more than the {LARGEST[ending]:,} of any such file")


def _read_manifest(path: Path) -> dict[str, str]:
    """Names and digests."""
    listed: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is no plain text") from error
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None:
            shown = printable(line if len(line) <= 100 else f"{line[:100]}…")
            raise UserError(
                f"{path}, line {number}: {shown!r} is not `<SHA-256>  <file>` with a file below this folder: the "
                "manifest is damaged, or not from `flexseg publish`"
            )
        if found[2] in listed:
            raise UserError(f"{path}, line {number}: {found[2]} is named twice")
        listed[found[2]] = found[1]
    return listed


def _check_digests(folder: Path, files: dict[str, int], listed: dict[str, str]) -> None:
    again = "get the publication again"
    if lost := sorted(listed.keys() - files.keys()):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UserError(f"{folder / lost[0]}{more} is missing, but {MANIFEST} names it: {again}")
    if strange := sorted(files.keys() - listed.keys() - {MANIFEST}):
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise UserError(f"{folder / strange[0]}{more} is not in {MANIFEST}: remove it, or {again}")
    with progress_bar("Checking (MiB)", sum(files.values()) >> 20) as advance:
        seen = 0
        for name, wanted in listed.items():
            if file_digest(folder / name) != wanted:
                raise UserError(f"{folder / name} is damaged: its SHA-256 is not that of {MANIFEST}; {again}")
            before, seen = seen >> 20, seen + files[name]
            advance((seen >> 20) - before, name)


def _read_facts(path: Path) -> Facts:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not from `flexseg publish`: its format is not {FORMAT!r}")
    version = content.get("version")
    if type(version) is int and version > VERSION:
        raise UserError(
            f"{path} has version {version} of the format, and this suite reads up to {VERSION}: it was written by "
            f"release {printable(str(content.get('suite'))[:40])}; install that or a newer one"
        )
    try:
        return Facts.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = printable(".".join(map(str, first["loc"]))[:80])
        raise UserError(f"{path} does not describe a publication: {place}: {first['msg']}") from error


def _read_run(folder: Path, files: dict[str, int], facts: Facts, seed: int) -> PublishedRun:
    """Check the files of one seed against each other."""
    directory = RunDirectory(folder / f"seed-{seed}")
    records = {target: directory.records(target) for target in facts.targets}
    for path in (directory.config, directory.record, directory.log, directory.weights, *records.values()):
        if path.relative_to(folder).as_posix() not in files:
            raise UserError(f"{path} is missing: the publication is incomplete")
    name = facts.fingerprints.get(str(seed))
    record, config = read_json(directory.record), read_json(directory.config)
    for path, content in ((directory.record, record), (directory.config, config)):
        if not isinstance(content, dict) or not isinstance(content.get("definition"), dict):
            raise UserError(f"{path} does not define a run")
        if content.get("fingerprint") != name or fingerprint(content["definition"]) != name:
            raise UserError(f"{path} is of another run than {FACTS} says of seed {seed}")
        told = tuple(content["definition"].get(key) for key in ("benchmark", "row", "seed"))
        if told != (facts.benchmark.trained_as, facts.row.name, seed):
            raise UserError(f"{path} is of another benchmark, row or seed than {FACTS} says")
    if mistake := mistake_in_record(record):
        raise UserError(f"{directory.record} is no record of a finished run ({printable(mistake)})")
    check_seal(directory.weights, record.get("weights_sha256"))
    wanted = {"fingerprint": name, "evaluation": facts.evaluation, "protocol": facts.protocol}
    for target, path in records.items():
        metadata = read_metadata(path)
        if metadata is None:
            raise UserError(f"{path} cannot be read as records")
        for key, value in {**wanted, "target": target}.items():
            if metadata.get(key) != value:
                raise UserError(f"{path} holds records of another {key} than {FACTS} says")
    assert name is not None
    return PublishedRun(seed, name, directory, records, record)


def _read_sources(folder: Path, files: dict[str, int], facts: Facts) -> tuple[Path, list[Path], list[Path]]:
    """The benchmark's file, the method's and those of data sets; ``evaluation`` is checked as well."""
    if fingerprint(facts.evaluation_definition) != facts.evaluation:
        raise UserError(f"{folder / FACTS}: evaluation is not the fingerprint of evaluation_definition")
    benchmark = folder / "benchmarks" / f"{facts.benchmark.name}.yaml"
    for path in (benchmark, folder / "methods" / f"{facts.row.method}.py"):
        if path.relative_to(folder).as_posix() not in files:
            raise UserError(f"{path} is missing: the publication is incomplete")
    content = read_yaml(benchmark)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or list(rows) != [facts.row.name]:
        raise UserError(f"{benchmark} is no benchmark of the row {facts.row.name} alone")
    inside = [(PurePosixPath(name), folder / name) for name in files]
    return (
        benchmark,
        [path for name, path in inside if name.parts[0] == "methods" and name.suffix == ".py"],
        [path for name, path in inside if name.parts[0] == "datasets" and name.suffix == ".yaml"],
    )
