"""Provenance of a publication as archives read it: an RO-Crate 1.1, which is one file of JSON-LD.

Written here rather than by the library ``rocrate``: that would bring two more packages, copies the files itself in an
order of its own, and checks nothing. The test checks what the specification requires.
Specification: https://w3id.org/ro/crate/1.1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

from flexseg import citation
from flexseg.analysis.tables.origins import plural
from flexseg.benchmark import Benchmark
from flexseg.sources import paper_of
from flexseg.tasks.model_card import data_terms, spdx
from flexseg.tasks.publication import CARD, CRATE, Facts

Entity = dict[str, Any]
FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".yaml": "application/yaml",
    ".cff": "application/yaml",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
}
KIND_OF_FOLDER = {"benchmarks": "Benchmark", "methods": "Method", "datasets": "Description of a data set"}
WHAT = {
    "model.safetensors": "Weights of the trained network",
    "config.json": "Definition of the run",
    "run.json": "Provenance and cost of the run",
    "train.jsonl": "Log of the training",
    "publication.json": "What this publication holds, for programs",
    CARD: "Model card",
    "CITATION.cff": "How to cite the suite",
}


def make_crate(
    folder: Path, names: Sequence[str], benchmark: Benchmark, facts: Facts, records: Mapping[int, Any], today: date
) -> Entity:
    """The content of ``ro-crate-metadata.json``: every file of ``names``, and how the runs came about.

    Args:
        records: ``run.json`` of each seed, as it is published.
        today: the day of publication.
    """
    licence, authors = _licence(facts), [_author(name) for name in facts.authors]
    papers = citation.cite_methods(map(paper_of, sorted((folder / "methods").glob("*.py"))))
    works = [_work(work) for work in (citation.suite(), *papers)]
    data = [_data(*each) for each in data_terms(benchmark, records)]
    suite: Entity = {
        "@id": "#flex-seg-bench",
        "@type": "SoftwareApplication",
        "name": "FLEX-Seg Bench",
        "softwareVersion": facts.suite,
        "citation": _refer(works[:1]),
    }
    trainings = [_training(seed, record, suite, data) for seed, record in records.items()]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{facts.row.title}, trained for the benchmark {facts.benchmark.title}",
        "description": (
            f"{plural(len(facts.seeds), 'trained network')} for semantic segmentation (row {facts.row.name} of the "
            f"benchmark {facts.benchmark.name}), the per-image records of their evaluation under the protocol "
            f"{facts.protocol}, and all that is needed to load them with FLEX-Seg Bench."
        ),
        "datePublished": today.isoformat(),
        "license": {"@id": licence["@id"]},
        "hasPart": [{"@id": name} for name in names],
        "citation": _refer(works),
        "mentions": _refer(trainings),
    } | ({"author": _refer(authors)} if authors else {})
    descriptor: Entity = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    files = [_file(folder, name) for name in names]
    graph = [descriptor, root, *files, licence, *authors, suite, *trainings, *data, *works]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def _refer(entities: Sequence[Entity]) -> list[Entity]:
    return [{"@id": each["@id"]} for each in entities]


def _file(folder: Path, name: str) -> Entity:
    path = PurePosixPath(name)
    target = f"Per-image records of the target {path.stem}" if path.suffix == ".parquet" else ""
    seed = f", {path.parts[0]}" if path.parts[0].startswith("seed-") else ""
    what = WHAT.get(path.name) or target or KIND_OF_FOLDER.get(path.parts[0], path.name)
    return {
        "@id": name,
        "@type": "File",
        "name": f"{what}{seed}",
        "encodingFormat": FORMATS.get(path.suffix, "text/plain"),
        "contentSize": str((folder / name).stat().st_size),
    }


def _licence(facts: Facts) -> Entity:
    known = spdx(facts.licence)
    return {
        "@id": f"https://spdx.org/licenses/{known}" if known else "#licence",
        "@type": "CreativeWork",
        "name": facts.licence or "Not stated",
        "description": "Licence of the weights; the data have their own."
        if facts.licence
        else "The author names none.",
    }


def _author(name: str) -> Entity:
    return {"@id": f"#author-{'-'.join(name.split())}", "@type": "Person", "name": name}


def _work(work: citation.Work) -> Entity:
    doi = work.fields.get("doi")
    place = f"https://doi.org/{doi}" if doi else f"#cite-{work.key}"
    return {
        "@id": place,
        "@type": "CreativeWork",
        "name": work.fields.get("title", work.text),
        "description": work.text,
    }


def _data(role: str, title: str, licence: str, source: str, homepage: str) -> Entity:
    words = {"description": f"{role} data. Licence: {licence}. {source}".strip()}
    url = {"url": homepage} if homepage.startswith("http") else {}
    return (
        {"@id": f"#data-{'-'.join(f'{role} {title}'.lower().split())}", "@type": "CreativeWork", "name": title}
        | words
        | url
    )


def _training(seed: int, record: Mapping[str, Any], suite: Entity, data: Sequence[Entity]) -> Entity:
    git, machine = record.get("git") or {}, record.get("machine") or {}
    code = f"commit {git.get('commit') or 'not recorded'}{' with uncommitted changes' if git.get('dirty') else ''}"
    return {
        "@id": f"#training-seed-{seed}",
        "@type": "CreateAction",
        "name": f"Training with seed {seed}",
        "description": f"{code}; {machine.get('processor') or 'machine not recorded'}; device {record.get('device')}",
        "instrument": {"@id": suite["@id"]},
        "object": _refer([each for each in data if each["@id"].startswith("#data-training")]),
        "result": [{"@id": f"seed-{seed}/model.safetensors"}],
    } | {key: record[name] for key, name in (("startTime", "started"), ("endTime", "finished")) if record.get(name)}
