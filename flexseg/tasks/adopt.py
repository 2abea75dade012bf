"""Put a publication's runs beside one's own, as a row of a benchmark, marked as made elsewhere."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from flexseg.benchmark import Benchmark, fingerprint
from flexseg.benchmark.identity import RunDirectory, differences
from flexseg.benchmark.reading import adopted_file
from flexseg.console import printable, progress_bar
from flexseg.errors import UserError
from flexseg.files import disk_errors, file_digest, write_json
from flexseg.tasks.publication import MANIFEST, Publication


def adopt_publication(publication: Publication, benchmark: Benchmark, row: str, results: Path) -> Path:
    """Copy the runs of a publication to ``results/<benchmark>/<row>/`` and write down what the row is; its folder.

    The copy appears whole: an interruption leaves nothing behind that would count.

    Raises:
        UserError: the row is there already, or the publication was scored by another protocol, on other targets, or
            with none of the benchmark's seeds.
    """
    path = adopted_file(benchmark, row, results)
    folder = path.parent
    if row in benchmark.rows:
        raise UserError(f"benchmark {benchmark.name} has a row {row}: give the published one another name with --row")
    if folder.exists():
        raise UserError(f"{folder} is there already: give the published row another name with --row")
    if benchmark.runs:
        raise UserError(f"benchmark {benchmark.name} evaluates the runs of {benchmark.runs}: import the row there")
    _require_same_evaluation(publication, benchmark)
    seeds = [seed for seed in publication.seeds if seed in benchmark.seeds]
    if not seeds:
        theirs, ours = (", ".join(map(str, each)) for each in (publication.seeds, benchmark.seeds))
        raise UserError(
            f"{publication.folder} has the seeds {theirs} and benchmark {benchmark.name} {ours}: none is in both, and "
            "rows are compared seed by seed"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(folder):
        whole = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{row}-"))
        try:
            with progress_bar(f"importing {row}", len(seeds)) as advance:
                for seed in seeds:
                    _copy_run(publication.runs[seed].directory, whole / f"seed-{seed}")
                    advance(1)
            facts = {"title": publication.title, "publication": file_digest(publication.folder / MANIFEST)}
            write_json(whole / path.name, facts | {"published_seeds": seeds})
            whole.chmod(0o755)
            whole.rename(folder)
        finally:
            if whole.exists():
                shutil.rmtree(whole)
    return folder


def _require_same_evaluation(publication: Publication, benchmark: Benchmark) -> None:
    ours = benchmark.evaluation_definition()
    if publication.evaluation == fingerprint(ours):
        return
    found = differences(publication.evaluation_definition, ours)
    places = ", ".join(printable(place) for place, _, _ in found[:3]) or "its definition"
    raise UserError(
        f"{publication.folder} was scored by the protocol {publication.protocol!r}, which is not that of benchmark "
        f"{benchmark.name} ({benchmark.protocol.id!r}): {places} differ{'s' if len(found) == 1 else ''}. Rows of one "
        "table are scored alike"
    )


def _copy_run(source: RunDirectory, target: Path) -> None:
    """Copy the files of a run that a publication holds; every byte of them was checked when it was read."""
    for path in sorted(source.root.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            place = target / path.relative_to(source.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
