"""Reading a benchmark file: ``extends``, and every mistake as one clear error with its place.

A file with ``extends: other`` says only what differs from the other file:

- A mapping is merged with the inherited one key by key, at any depth.
- Every other value, lists included, replaces the inherited one.
- ``null`` removes an inherited key: a row, a domain or an option. Where nothing is inherited, it is a value.
- A mapping that differs from the inherited one in one of :data:`KINDS` describes another thing and replaces it whole:
  a MiT has no use for a UNet's widths, nor a method for another's options. The same holds for a trunk of mmseg's parts
  and a ``detectron2`` one.

A protocol that differs needs an ``id`` of its own, since records of one id meet in a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flexseg.benchmark.claims import SUFFIX, first_seeds, is_claims_file, read_claims
from flexseg.benchmark.mistakes import problems
from flexseg.benchmark.schema import LONGEST, SHARED, Benchmark, Row, Seeds
from flexseg.benchmark.values import check_name
from flexseg.errors import UserError, did_you_mean
from flexseg.files import digest, read_json
from flexseg.yaml_files import read_yaml


def benchmark_names(folder: Path) -> list[str]:
    """The benchmarks that ``folder`` holds."""
    return sorted(path.stem for path in folder.glob("*.yaml") if not is_claims_file(path))


def load_benchmark(name: str, folder: Path = Path("benchmarks")) -> Benchmark:
    """Read and check ``benchmarks/<name>.yaml``. Its method files are in ``methods/`` beside the folder, data
    sets of one's own in ``datasets/``.

    Raises:
        UserError: no such file, invalid YAML, or a wrong key or value; every mistake is listed with its place.
    """
    path, content = _path_of(name, folder), read_content(name, folder)
    if name in SHARED:
        raise UserError(f"{path}: results/{name}/ or reports/{name}/ is a folder of the suite: rename the benchmark")
    if is_claims_file(path):
        raise UserError(
            f"{path} is no benchmark: it holds claims, for a benchmark that names it with `claims: {SUFFIX}`"
        )
    try:
        benchmark = Benchmark(name=name, **{key: value for key, value in content.items() if key != "name"})
    except ValidationError as error:
        raise UserError(f"{path} is not a valid benchmark:\n" + "\n".join(problems(error, Benchmark))) from error
    for row in benchmark.trained_rows:
        benchmark.training_of(row)
    benchmark = benchmark.with_methods(folder.parent / "methods").with_datasets(folder.parent / "datasets")
    if not benchmark.claims:
        return benchmark
    rows = {row: row in benchmark.trained_rows for row in benchmark.rows}
    targets = [*benchmark.targets, *benchmark.averages]
    return benchmark.with_claims(read_claims(folder / Path(benchmark.claims).name, rows, targets), folder)


KINDS = ("type", "kind", "method", "extends", "dataset", "world")
"""Keys that say what a mapping describes: a part of a trunk, a sampling, a row or a domain."""


def read_content(name: str, folder: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of ``benchmarks/<name>.yaml``, merged into those of the benchmark that it extends, unchecked.

    Raises:
        UserError: no such file, invalid YAML, benchmarks that extend each other, or a protocol under another one's id.
    """
    path = _path_of(name, folder)
    if not path.is_file():
        known = benchmark_names(folder)
        raise UserError(
            f"no benchmark is named {name!r}{did_you_mean(name, known)}: {path} does not exist. "
            f"Benchmarks here: {', '.join(known) or 'none (is this the top folder of the repository?)'}"
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a benchmark is a mapping of keys, this is {type(content).__name__}")
    _rename_keys(path, content)
    base = content.get("extends")
    if base is None or base == "":
        return content
    if not isinstance(base, str):
        raise UserError(f"{path}: extends: name one benchmark, not {base!r}")
    if base in (*seen, name):
        raise UserError(f"{path}: benchmarks extend each other in a circle: {' → '.join((*seen, name, base))}")
    if len(seen) == LONGEST:
        raise UserError(f"{path}: benchmarks extend each other over more than {LONGEST} files")
    inherited = read_content(base, folder, (*seen, name))
    merged = _merge(inherited, content)
    ours, theirs = merged.get("protocol"), inherited.get("protocol")
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("id") == theirs.get("id"):
        for key, differs in (
            ("protocol", ours != theirs),
            ("classes", merged.get("classes") != inherited.get("classes")),
        ):
            if differs:
                what = "so needs an id of its own" if key == "protocol" else "so its protocol needs an id of its own"
                raise UserError(f"{path}: {key} differs from that of {base} and {what}, not {ours.get('id')!r}")
    return merged


def _path_of(name: str, folder: Path) -> Path:
    try:
        return folder / f"{check_name(name)}.yaml"
    except ValueError as error:
        known = benchmark_names(folder)
        hint = did_you_mean(Path(name).stem, known)
        raise UserError(f"a benchmark is given by its name, without folder and ending{hint}: {error}") from error


RENAMED = {
    "boundary_width": "boundary_band",
    "boundary_widths": "boundary_tolerances",
    "rings": "distance_rings",
}
"""What keys of ``protocol`` were called before 2026.11, in files that are still read, and their names now."""


def _rename_keys(path: Path, content: dict[str, Any]) -> None:
    protocol = content.get("protocol")
    if not isinstance(protocol, dict):
        return
    for old, new in RENAMED.items():
        if old in protocol and new in protocol:
            raise UserError(f"{path}: protocol: {new} stands there twice, once by its former name {old}: keep {new}")
        if old in protocol:
            protocol[new] = protocol.pop(old)


def _merge(inherited: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """Apply the rules of the module's docstring to one mapping."""
    merged = dict(inherited)
    for key, value in content.items():
        before = inherited.get(key)
        if value is None and key in inherited:
            del merged[key]
        elif isinstance(value, dict) and isinstance(before, dict) and not _is_another(key, value, before):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _is_another(key: str, value: dict[str, Any], inherited: dict[str, Any]) -> bool:
    """Whether the mapping ``value`` of ``key`` says that it describes another thing than the inherited one."""
    if key == "model" and ("detectron2" in value) != ("detectron2" in inherited):
        return True
    return any(isinstance(value.get(kind), str) and value[kind] != inherited.get(kind) for kind in KINDS)


ADOPTED = "row.json"
"""The file in ``results/<benchmark>/<row>/`` of a row that no benchmark file names: what it is, as in such a file."""


def select_rows(
    benchmark: Benchmark, study: str = "default", rows: str = "", seeds: str = "", results: Path = Path("results")
) -> Benchmark:
    """The benchmark with only the rows of ``study``, or those that ``rows`` names (``a,b,c``), and these ``seeds``.

    A name in ``rows`` that is a method file but no row becomes a row of that method with its defaults, so that a new
    method can be tried without an edit; one that was evaluated from elsewhere is found in ``results``. The reference
    is the benchmark's if it is among the rows, else the first row. A study of claims has the seeds that these ask for.
    """
    if rows:
        names = [name.strip() for name in rows.split(",") if name.strip()]
    elif study in benchmark.studies:
        names = benchmark.studies[study]
    else:
        raise UserError(
            f"benchmark {benchmark.name}: no study is named {study!r}{did_you_mean(study, benchmark.studies)}. "
            f"Studies: {', '.join(benchmark.studies)}"
        )
    selected: dict[str, Row] = {}
    for name in names:
        if name not in benchmark.rows and _is_method(benchmark, name):
            selected[name] = Row(method=name, title=name)
        elif name not in benchmark.rows and (path := adopted_file(benchmark, name, results)).is_file():
            selected[name] = _read_adopted(path)
        else:
            selected[name] = benchmark.row(name)
    if not selected:
        raise UserError("no rows are selected: name at least one")
    update = {
        "rows": selected,
        "studies": benchmark.studies | {"default": list(selected)},
        "reference": benchmark.reference if benchmark.reference in selected else next(iter(selected)),
    }
    chosen = benchmark.model_copy(update=update | ({"seeds": _seeds(seeds)} if seeds else {}))
    planned = benchmark.claimed.studies.get(study, {}) if benchmark.claimed and not rows and not seeds else {}
    if planned:
        taken = benchmark.tuning.seeds if benchmark.tuning else []
        chosen = chosen.model_copy(update={"seeds": first_seeds(benchmark.seeds, taken, max(planned.values()))})
        chosen = chosen.with_row_seeds(planned)
    return chosen.selected_as(_selection(study, list(selected) if rows else [], chosen.seeds if seeds else []))


def _selection(study: str, rows: list[str], seeds: list[int]) -> str:
    """The folder of a selection's reports: the study, ``rows-a+b``, ``seeds-0+1``; long ones end in a digest."""
    parts = ["" if study == "default" else study] if not rows else [f"rows-{'+'.join(rows)}"]
    parts += [f"seeds-{'+'.join(map(str, seeds))}"] if seeds else []
    name = "_".join(filter(None, parts))
    return name if len(name) <= 80 else f"{name[:64].rstrip('+_-')}-{digest(name)[:8]}"


def adopted_file(benchmark: Benchmark, row: str, results: Path) -> Path:
    """Where a row that was made elsewhere is written down, if no benchmark file names it.

    Raises:
        UserError: the name cannot be a row's.
    """
    try:
        return results / benchmark.name / check_name(row) / ADOPTED
    except ValueError as error:
        raise UserError(f"{error}") from error


def _read_adopted(path: Path) -> Row:
    try:
        return Row(**read_json(path))
    except (ValidationError, TypeError) as error:
        raise UserError(f"{path} does not describe a row: delete it, and evaluate or import the row again") from error


def _is_method(benchmark: Benchmark, name: str) -> bool:
    return name.isidentifier() and (benchmark.methods / f"{name}.py").is_file()


def _seeds(text: str) -> list[int]:
    try:
        return TypeAdapter(Seeds).validate_python([int(seed) for seed in text.split(",")])
    except ValueError as error:
        raise UserError(
            f"seeds are different whole numbers from 0 on, separated by commas, not {text[:80]!r}"
        ) from error
