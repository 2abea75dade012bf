"""The model card of a publication: Markdown with a YAML front matter, as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flexseg import citation
from flexseg.analysis.stats.domains import protocol_text, target_title
from flexseg.analysis.stats.formats import DASH, difference_text, escape_markdown, mean_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.common import intervals
from flexseg.analysis.tables.origins import and_list, plural, value_text
from flexseg.benchmark import Benchmark
from flexseg.data.sets import load_set
from flexseg.sources import paper_of
from flexseg.tasks.publication import CRATE, MANIFEST, Facts
from flexseg.yaml_files import format_yaml

SPDX = (
    "AGPL-3.0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "CC0-1.0", "GPL-3.0", "LGPL-3.0", "MIT", "MPL-2.0",
)  # fmt: skip
"""Licences that hubs know by these names, in lower case."""


def spdx(licence: str) -> str:
    """The SPDX id of a licence that hubs know; empty for others."""
    return next((each for each in SPDX if each.lower() == licence.strip().lower()), "")


Runs = Mapping[int, Mapping[str, Any]]
"""``run.json`` of each seed, as it is published."""


def trained_on(benchmark: Benchmark, records: Runs) -> list[str]:
    """The domains that the runs say they were trained on."""
    return [name for name in benchmark.domains if any(name in (each.get("data") or {}) for each in records.values())]


def data_terms(benchmark: Benchmark, records: Runs) -> list[tuple[str, str, str, str, str]]:
    """Of all data of the runs (role, title, licence, citation, homepage): training first, each set once per role."""
    found = dict[tuple[str, str, str, str, str], None]()
    for role, names in (("Training", trained_on(benchmark, records)), ("Test", benchmark.targets)):
        for name in names:
            known = load_set(benchmark.domains[name].dataset, benchmark.datasets)
            homepage = known.homepage if known.homepage.startswith("http") else ""
            found[(role, known.title, known.licence or "not recorded", known.citation, homepage)] = None
    return list(found)


def make_card(benchmark: Benchmark, facts: Facts, records: Runs, scores: Scores) -> str:
    """The card.

    Args:
        records: ``run.json`` of each seed, as it is published.
        scores: of this row and those that it is compared with.
    """
    parts = [
        f"---\n{format_yaml(_front_matter(benchmark, facts, records))}---",
        f"# {escape_markdown(facts.row.title)}: {escape_markdown(facts.benchmark.title)}",
        _introduction(benchmark, facts, records),
        "## Results",
        *_results(facts, scores),
        "## Use",
        _use(benchmark, facts),
        "## How it was made",
        _provenance(benchmark, facts, records),
        "## Licences",
        _licences(benchmark, facts, records),
        "## Cite",
        _citations(benchmark, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(benchmark: Benchmark, facts: Facts, records: Runs) -> dict[str, Any]:
    """What a hub reads: https://huggingface.co/docs/hub/model-cards."""
    known = spdx(facts.licence)
    licence = (
        {"license": known.lower()} if known else {"license": "other", "license_name": facts.licence or "not-stated"}
    )
    sets = dict.fromkeys(benchmark.domains[name].dataset for name in trained_on(benchmark, records))
    results = []
    for target in facts.targets:
        domain = benchmark.domains[target]
        data = {
            "type": domain.dataset,
            "name": domain.title or target,
            "config": target,
            "split": domain.parts["test"].split,
        }
        metric = {"type": "mean_iou", "name": "mIoU (%)", "value": round(facts.scores[target].mean, 2)}
        task = {"type": "image-segmentation", "name": "Semantic segmentation"}
        results.append({"task": task, "dataset": data, "metrics": [metric]})
    return licence | {
        "library_name": "flexseg",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "domain-generalization", "flex-seg-bench", facts.row.method],
        "datasets": list(sets),
        "metrics": ["mean_iou"],
        "model-index": [{"name": f"{facts.row.title} ({facts.benchmark.title})", "results": results}],
    }


def _introduction(benchmark: Benchmark, facts: Facts, records: Runs) -> str:
    seeds = and_list([str(seed) for seed in facts.seeds])
    data = [f"“{benchmark.domains[name].title or name}”" for name in trained_on(benchmark, records)]
    text = (
        f"Networks for semantic segmentation, trained with [FLEX-Seg Bench](CITATION.cff) {facts.suite}: the row "
        f"`{facts.row.name}` of its benchmark `{facts.benchmark.name}`, {plural(len(facts.seeds), 'seed')} ({seeds}). "
        f"They were trained on {escape_markdown(and_list(data or ['data not recorded']))} and tested on domains that "
        "training never saw."
    )
    authors = f"\n\nAuthors: {escape_markdown(and_list(facts.authors))}" if facts.authors else ""
    about = escape_markdown(" ".join(benchmark.description.split()))
    return f"{text}\n\n{about}{authors}".rstrip()


def _results(facts: Facts, scores: Scores) -> list[str]:
    row = facts.row.name
    reference = facts.reference
    found = scores.against(row, reference) if reference else {}
    beside = f" {escape_markdown(facts.reference_title)} | Δ |" if reference else ""
    lines = [f"| Target | mIoU |{beside}", f"| :-- | --: |{' --: | --: |' if reference else ''}"]
    for column in scores.columns:
        cells = [escape_markdown(target_title(scores, column)), mean_text(scores.mean(row, column))]
        if reference:
            difference = found[column]
            text = difference_text(difference) if difference.n else DASH
            cells += [mean_text(scores.mean(reference, column)), f"**{text}**" if difference.shown else text]
        lines.append(f"| {' | '.join(cells)} |")
    averages = [
        escape_markdown(f"{name} is the mean over {and_list([target_title(scores, each) for each in members])}.")
        for name, members in scores.benchmark.averages.items()
    ]
    how = (
        f"mIoU in percent. {intervals(scores)}"
        if len(facts.seeds) > 1
        else "mIoU in percent, of a single seed, so that no interval can be given."
    )
    protocol = f"Protocol `{facts.protocol}`: {escape_markdown(protocol_text(scores))}."
    return ["\n".join(lines), " ".join([how, *averages]), protocol]


def _use(benchmark: Benchmark, facts: Facts) -> str:
    seed = f"seed-{facts.seeds[0]}"
    return f"""Install FLEX-Seg Bench {facts.suite}, and start the commands in this folder:

```sh
sha256sum --check --quiet {MANIFEST}
flexseg predict {seed} my_photo.jpg --output ../predictions    # colour overlays and label maps
flexseg export {seed} --output ../export                       # a configuration and a checkpoint of mmsegmentation
```

The last is for methods that leave the network as it is. The files in `methods/` are Python code, which these commands
run: read them first if you do not know who published this. The weights alone are plain tensors:

```python
from safetensors.numpy import load_file

weights = load_file("{seed}/model.safetensors")
```

`evaluation/*.parquet` hold one line per test image: the counts from which every number above was computed."""


def _provenance(benchmark: Benchmark, facts: Facts, records: Runs) -> str:
    def each(describe: Any) -> str:
        texts = dict.fromkeys(str(describe(record)) for record in records.values())
        return escape_markdown("; ".join(texts))

    def mean(key: str, factor: float, digits: int) -> str:
        values = [float(record[key]) for record in records.values() if record.get(key) is not None]
        return f"{sum(values) / len(values) * factor:.{digits}f}" if values else DASH

    def commit(record: Mapping[str, Any]) -> str:
        git = record.get("git") or {}
        return f"{git.get('commit') or 'not recorded'}{' with uncommitted changes' if git.get('dirty') else ''}"

    def machine(record: Mapping[str, Any]) -> str:
        found = record.get("machine") or {}
        on = f"{found.get('processor')}, {found.get('cores')} cores, {found.get('system')}"
        return f"{on}; device {record.get('device')}"

    def versions(record: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())

    def options(record: Mapping[str, Any]) -> str:
        found = {name: value_text(each.get("value")) for name, each in (record.get("options") or {}).items()}
        return ", ".join(f"{name}: {value}" for name, value in found.items()) or "none"

    training = benchmark.training_of(facts.row.name)
    data = {name: found for record in records.values() for name, found in (record.get("data") or {}).items()}
    lines = {
        "Commit": each(commit),
        "Digest of the library's code": each(lambda record: record.get("library") or "not recorded"),
        "Versions": each(versions),
        "Machine": each(machine),
        "Precision": each(lambda record: record.get("precision") or "not recorded"),
        "Method": f"`{facts.row.method}`" + (f" on `{facts.row.base}`" if facts.row.base else ""),
        "Options": each(options),
        "Training": f"{training.iterations} iterations of {training.batch_size} images",
        "Cost of a run": (
            f"{mean('train_seconds', 1.0, 0)} s of training, {mean('peak_memory_bytes', 2.0**-20, 0)} MiB at most, "
            f"{mean('parameters', 1e-6, 2)} M parameters (means)"
        ),
        **{f"Digest of the data `{name}`": f"`{found}`" for name, found in data.items()},
    }
    listed = "\n".join(f"- {name}: {text}" for name, text in lines.items())
    return f"{listed}\n\n`seed-*/run.json` says all of this for each run, `{CRATE}` for archives (RO-Crate)."


def _licences(benchmark: Benchmark, facts: Facts, records: Runs) -> str:
    weights = facts.licence or "not stated by the author; ask before you use them"
    lines = [f"- These weights: {escape_markdown(weights)}"]
    first = dict.fromkeys(str(each) for record in records.values() if (each := record.get("trunk_weights_licence")))
    lines += [f"- The weights that training began with: {escape_markdown('; '.join(first))}"] if first else []
    for role, title, licence, source, _ in data_terms(benchmark, records):
        cited = f" ({escape_markdown(source)})" if source else ""
        lines.append(f"- {role} data, {escape_markdown(title)}: {escape_markdown(licence)}{cited}")
    lines += ["- The suite, and the files in `methods/` that are its own: Apache-2.0"]
    return "\n".join(lines) + "\n\nNo image of a data set is in this folder."


def _citations(benchmark: Benchmark, facts: Facts) -> str:
    papers: Sequence[str] = [paper_of(path) for path in benchmark.method_files(facts.row.name)]
    works = [citation.suite(), *citation.cite_methods(papers)]
    return "```bibtex\n" + "\n\n".join(work.bibtex for work in works) + "\n```"
