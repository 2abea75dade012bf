"""Publish a row: its finished runs with all that others need to use, check and cite them, in one folder.

What the folder holds is described where it is read, in :mod:`flexseg.tasks.publication`. It is written whole, beside
its place, and then renamed. Everything is copied: a link would tie the publication to files that may change.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from flexseg import __version__, citation
from flexseg.analysis.stats.records import Records, load_records, read_metadata
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark import Benchmark, Run, fingerprint, load_benchmark, select_rows
from flexseg.benchmark.identity import differences
from flexseg.benchmark.reading import read_content
from flexseg.console import progress_bar
from flexseg.data.sets import load_set
from flexseg.errors import UserError
from flexseg.files import DiskError, disk_errors, file_digest, read_json, write_json
from flexseg.sources import config_files
from flexseg.tasks.crate import make_crate
from flexseg.tasks.model_card import make_card
from flexseg.tasks.private import Private
from flexseg.tasks.publication import CARD, CRATE, FACTS, FORMAT, MANIFEST, VERSION, Facts, Score
from flexseg.tensor_files import check_seal
from flexseg.yaml_files import format_yaml

LOG_LINES = 2000
"""The most lines of a published ``train.jsonl``: more are thinned evenly."""


@dataclass(frozen=True)
class Terms:
    """What only the author can say: the licence of the weights (an SPDX id or words), and who the authors are."""

    licence: str = ""
    authors: tuple[str, ...] = ()


def publish_row(
    name: str,
    row: str,
    output: Path,
    *,
    seeds: str = "",
    terms: Terms = Terms(),
    overwrite: bool = False,
    benchmarks: Path = Path("benchmarks"),
    results: Path = Path("results"),
) -> Path:
    """Write the publication of a row to ``output``; return it.

    Args:
        seeds: only these, ``0,1``; by default all of the benchmark.
        overwrite: replace a previous publication of the same row.

    Raises:
        UserError: a run is not finished, stale or not evaluated (says which command finishes it); the row was made
            elsewhere; something that is published would tell where on this machine it was; or ``output`` is not free.
    """
    whole = load_benchmark(name, benchmarks)
    benchmark = select_rows(whole, "default", row, seeds, results)
    if benchmark.rows[row].foreign is not None:
        raise UserError(f"{row} was not trained here, so there are no runs to publish: publish it where it was made")
    _check_output(output, name, row, overwrite)
    runs = [Run(benchmark, row, seed, results) for seed in benchmark.seeds]
    _require_finished(runs)
    scores, reference = _load_scores(whole, benchmark, row, results)
    _require_evaluated(benchmark, row, scores.records)
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", suffix=".part", dir=output.parent))
        try:
            folder.chmod(0o755)  # mkdtemp's is for its owner alone
            _write(folder, benchmark, runs, scores, reference, terms, benchmarks)
            _put_in_place(folder, output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return output


def _check_output(output: Path, name: str, row: str, overwrite: bool) -> None:
    """Refuse a place that holds anything but, with ``overwrite``, a publication of the same row."""
    if not os.path.lexists(output) or (output.is_dir() and not output.is_symlink() and not any(output.iterdir())):
        return
    facts: Any = read_json(output / FACTS) if output.is_dir() and (output / FACTS).is_file() else None
    ours = isinstance(facts, dict) and facts.get("format") == FORMAT
    told = [facts[key].get("name") for key in ("benchmark", "row") if isinstance(facts.get(key), dict)] if ours else []
    if not ours or output.is_symlink():
        raise UserError(f"{output} is there and is no publication: name another folder with --output, or move it away")
    if told != [name, row]:
        raise UserError(f"{output} is the publication of {' '.join(map(str, told))}: name another folder with --output")
    if not overwrite:
        raise UserError(f"{output} is a publication of this row already: give --overwrite to replace it")


def _require_finished(runs: Sequence[Run]) -> None:
    for run in runs:
        state, directory = run.state, run.directory
        if state.status == "finished" and run.trained:
            check_seal(directory.weights, state.record.get("weights_sha256"))
            for path in (directory.config, directory.log):
                if not path.is_file():
                    raise UserError(
                        f"{path} is missing, so the run is not whole: move its folder away and train it again"
                    )
            continue
        reason = state.reason or f"missing: {directory.weights.name}"
        supersede = " --supersede" if state.status == "stale" else ""
        raise UserError(
            f"{directory.root} is not finished ({reason}). Finish it with `flexseg train {run.benchmark.trained_as} "
            f"{run.row} {run.seed}{supersede}` and `flexseg evaluate {run.benchmark.name} {run.row}`, or name the "
            "finished seeds with --seeds"
        )


def _load_scores(whole: Benchmark, benchmark: Benchmark, row: str, results: Path) -> tuple[Scores, str]:
    """The scores of the row among those of the default study, which tell how noisy a run is; and the reference row.

    The reference is empty if it is the row itself or has no run that can be compared.
    """
    names = dict.fromkeys([*whole.studies["default"], whole.reference, row])
    chosen = select_rows(whole, "default", ",".join(names), ",".join(map(str, benchmark.seeds)), results)
    scores = Scores(load_records(chosen, results))
    reference = chosen.reference if chosen.reference != row and scores.records.finished(chosen.reference) else ""
    return scores, reference


def _require_evaluated(benchmark: Benchmark, row: str, records: Records) -> None:
    wanted = fingerprint(benchmark.evaluation_definition())
    for run in records.of_row(row):
        for target in benchmark.targets:
            metadata = read_metadata(run.evaluated / "evaluation" / f"{target}.parquet") or {}
            current = metadata.get("evaluation") == wanted
            reason = run.absent.get(target) or ("" if current else "records of other settings of the evaluation")
            if reason:
                raise UserError(
                    f"{run.evaluated}, target {target}: {reason}. Evaluate it with `flexseg evaluate {benchmark.name} "
                    f"{row}`"
                )


def _write(
    folder: Path,
    benchmark: Benchmark,
    runs: Sequence[Run],
    scores: Scores,
    reference: str,
    terms: Terms,
    benchmarks: Path,
) -> None:
    """Fill ``folder``; the manifest comes last."""
    row, private = runs[0].row, Private()
    _write_sources(folder, benchmark, row, benchmarks)
    copies = {path: target for run in runs for path, target in _files_of(run, folder).items()}
    with progress_bar("Copying (MiB)", sum(path.stat().st_size for path in copies) >> 20) as advance:
        for path, target in copies.items():
            _copy(path, target, advance)
    records = {}
    for run in runs:
        place = folder / f"seed-{run.seed}"
        _thin(run.directory.log, place / "train.jsonl")
        records[run.seed] = private.tidy_record(read_json(run.directory.record), run.directory.record)
        write_json(place / "run.json", records[run.seed])
        write_json(place / "config.json", private.tidy_record(read_json(run.directory.config), run.directory.config))
    facts = _facts(benchmark, runs, scores, reference, terms)
    write_json(folder / FACTS, facts.model_dump(mode="json"))
    shutil.copyfile(citation.FILE, folder / "CITATION.cff")
    card = make_card(benchmark, facts, records, scores)
    (folder / CARD).write_text(card, encoding="utf-8")
    _check_loads(folder, benchmark, runs)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    write_json(folder / CRATE, make_crate(folder, names, benchmark, facts, records, datetime.now(UTC).date()))
    private.check(folder, [*names, CRATE])
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in sorted([*names, CRATE])]
    (folder / MANIFEST).write_text("".join(lines), encoding="ascii")


def _write_sources(folder: Path, benchmark: Benchmark, row: str, benchmarks: Path) -> None:
    """The benchmark's YAML, reduced to the row; the method's files, trunks' configurations, data sets of one's own."""
    for name in dict.fromkeys((benchmark.name, benchmark.trained_as)):  # a run's directory is loaded by the latter
        of = benchmark if name == benchmark.name else load_benchmark(name, benchmarks)
        text = format_yaml(_row_alone(read_content(name, benchmarks), of, benchmark, row))
        place = folder / "benchmarks" / f"{name}.yaml"
        place.parent.mkdir(exist_ok=True)
        heading = f"# The row {row} of {name} alone, as `flexseg publish` wrote it: complete, without `extends`.\n"
        place.write_text(heading + text, encoding="utf-8")
    copies = {path: folder / "methods" / path.name for path in benchmark.sources(row)}
    sets = (benchmark.datasets / f"{domain.dataset}.yaml" for domain in benchmark.domains.values())
    for path in {each for each in sets if each.is_file()}:
        if places := [place for place in load_set(path.stem, path.parent).folders if os.path.isabs(place)]:
            raise UserError(
                f"{path} would be published with {places[0]}, a place on this machine: name the folder relative to "
                "$FLEXSEG_DATA, and train again"
            )
        copies[path] = folder / "datasets" / path.name
    config = str(benchmark.model_of(row).get("config") or "")
    for path in config_files(Path(config)) if config.endswith(".py") else []:
        inside = Path(os.path.relpath(path))
        if inside.is_absolute() or ".." in inside.parts or Path(config).is_absolute():
            raise UserError(
                f"the trunk of {row} is read from {path}, outside this folder, so that nobody else could build it: "
                "put the configuration into this folder, name it in the benchmark, and train again"
            )
        copies[path] = folder / inside
    for path, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _row_alone(content: dict[str, Any], benchmark: Benchmark, published: Benchmark, row: str) -> dict[str, Any]:
    """A benchmark file with this row alone, and without what is this machine's."""
    resolved = published.rows[row]
    used = {benchmark.source, benchmark.generated, benchmark.generated_of(row) if row in benchmark.rows else ""}
    used |= {published.generated_of(row), *benchmark.targets}
    domains = {name: dict(domain) for name, domain in content["domains"].items() if name in used}
    for domain in domains.values():
        if os.path.isabs(os.path.expanduser(str(domain.get("root") or ""))):
            del domain["root"]
    return {key: value for key, value in content.items() if key not in ("name", "extends", "data_root", "tuning")} | {
        "domains": domains,
        "seeds": list(published.seeds),
        "rows": {row: resolved.model_dump(mode="json", exclude_defaults=True)},
        "studies": {"default": [row]},
        "reference": row,
        "ablation": {"components": {}, "full": [row], "none": row, "panels": [row, row]},
    }


def _files_of(run: Run, folder: Path) -> dict[Path, Path]:
    """The large files of a run, and where they go."""
    place = folder / f"seed-{run.seed}"
    (place / "evaluation").mkdir(parents=True)
    records = {
        run.evaluated.records(target): place / "evaluation" / f"{target}.parquet" for target in run.benchmark.targets
    }
    return {run.directory.weights: place / "model.safetensors", **records}


def _copy(path: Path, target: Path, advance: Callable[..., None]) -> None:
    done = 0
    with path.open("rb") as source, target.open("wb") as copy:
        while block := source.read(1 << 20):
            copy.write(block)
            advance(((done + len(block)) >> 20) - (done >> 20), path.name)
            done += len(block)
        copy.flush()
        os.fsync(copy.fileno())


def _thin(log: Path, target: Path) -> None:
    """Copy a log of at most ``LOG_LINES`` lines, or evenly spaced ones, the first and the last among them."""
    with log.open("rb") as file:
        total = sum(1 for _ in file)
        file.seek(0)
        kept = range(total)
        if total > LOG_LINES:
            kept = {round(place * (total - 1) / (LOG_LINES - 1)) for place in range(LOG_LINES)}  # type: ignore[assignment]
        with target.open("wb") as thinned:
            thinned.writelines(line for number, line in enumerate(islice(file, total)) if number in kept)


def _facts(benchmark: Benchmark, runs: Sequence[Run], scores: Scores, reference: str, terms: Terms) -> Facts:
    row, definition = runs[0].row, benchmark.evaluation_definition()
    resolved = benchmark.rows[row]
    differences_ = scores.against(row, reference) if reference else {}
    found = {}
    for column in scores.columns:
        mean, difference = scores.mean(row, column), differences_.get(column)
        ends = (difference.value, difference.low, difference.high) if difference else (None, None, None)
        values = [_plain(each) for each in (mean.half, *ends)]
        found[column] = Score(
            mean=round(mean.value, 4), half_width=values[0], difference=values[1], low=values[2], high=values[3]
        )
    return Facts.model_validate_json(
        json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "suite": __version__,
                "benchmark": {
                    "name": benchmark.name,
                    "title": benchmark.title,
                    "trained_as": benchmark.trained_as,
                },
                "row": {"name": row, "title": resolved.title, "method": resolved.method, "base": resolved.base},
                "seeds": list(benchmark.seeds),
                "protocol": benchmark.protocol.id,
                "targets": list(benchmark.targets),
                "evaluation": fingerprint(definition),
                "evaluation_definition": definition,
                "fingerprints": {str(run.seed): run.fingerprint for run in runs},
                "reference": reference,
                "reference_title": scores.benchmark.row(reference).title if reference else "",
                "scores": {column: score.model_dump() for column, score in found.items()},
                "licence": terms.licence,
                "authors": list(terms.authors),
            }
        )
    )


def _plain(value: float | None) -> float | None:
    return None if value is None or value != value or value in (float("inf"), -float("inf")) else round(value, 4)


def _check_loads(folder: Path, benchmark: Benchmark, runs: Sequence[Run]) -> None:
    """Check that the published files define exactly these runs and this evaluation."""
    for run in runs:
        for name in dict.fromkeys((benchmark.name, benchmark.trained_as)):
            found = load_benchmark(name, folder / "benchmarks")
            there = select_rows(found, "default", run.row)
            pairs = [(run.definition, there.run_definition(run.row, run.seed))]
            if name == benchmark.name:
                pairs.append((benchmark.evaluation_definition(), there.evaluation_definition()))
            for ours, theirs in pairs:
                if other := differences(ours, theirs):
                    places = ", ".join(place for place, *_ in other[:3])
                    raise UserError(
                        f"the published benchmark file would define another run ({places}): this is a mistake of the "
                        "suite's; please report it with the benchmark file"
                    )


def _put_in_place(folder: Path, output: Path) -> None:
    """Rename ``folder`` to ``output``, in the place of a previous publication if there is one."""
    if not output.is_dir():
        folder.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}-", suffix=".old", dir=output.parent))
    try:
        output.rename(old)  # an empty folder may be renamed over
        folder.rename(output)
    except OSError as error:
        if not output.exists():
            old.rename(output)
        raise DiskError(f"{output} cannot be replaced ({error.strerror}); nothing was changed") from error
    shutil.rmtree(old, ignore_errors=True)
