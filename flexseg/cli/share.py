"""``flexseg publish``, ``import`` and ``schema``: what leaves this folder, and what comes back from others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexseg.cli.folders import BENCHMARKS, RESULTS
from flexseg.console import printable, terminal
from flexseg.errors import UserError, did_you_mean
from flexseg.files import replacing


def publish(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="A file in benchmarks/, without its ending.")],
    row: Annotated[str, typer.Argument(metavar="ROW", help="A row of the benchmark, or the name of a method file.")],
    output: Annotated[
        Path | None, typer.Option(help="The folder to write; by default published/BENCHMARK-ROW.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0,1,2.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights: an SPDX id (CC-BY-4.0), or words.")] = "",
    author: Annotated[list[str] | None, typer.Option(help="An author; may be given several times.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a publication of the same row.")] = False,
) -> None:
    """Write a row's finished runs as a folder for Hugging Face, Zenodo and the like: weights, records, model card.

    flexseg publish streetworld flexseg --licence CC-BY-4.0 --author "A. Author"
    """
    from flexseg.tasks.publish import Terms, publish_row

    folder = output if output is not None else Path("published") / f"{name}-{row}"
    terms = Terms(printable(licence.strip()), tuple(printable(each.strip()) for each in author or ()))
    publish_row(
        name, row, folder, seeds=seeds, terms=terms, overwrite=overwrite, benchmarks=BENCHMARKS, results=RESULTS
    )
    print(printable(str(folder)))
    if not terms.licence:
        terminal(stderr=True).print(
            "No licence of the weights is stated, so nobody may use them: give --licence once you have decided. The "
            "licences of the data and of pretrained weights are in README.md.",
            soft_wrap=True,
        )


def import_row(
    folder: Annotated[Path, typer.Argument(help="A folder that `flexseg publish` wrote, unpacked.")],
    row: Annotated[str, typer.Option(help="What to call the row here; by default as its authors do.")] = "",
    benchmark: Annotated[str, typer.Option(help="The benchmark here; by default the one of the same name.")] = "",
) -> None:
    """Put a published row beside your own: its records and weights are checked, copied, and marked as foreign.

    flexseg import their-flexseg --row their_flexseg

    flexseg compare streetworld flexseg their_flexseg
    """
    from flexseg.benchmark import load_benchmark
    from flexseg.tasks.adopt import adopt_publication
    from flexseg.tasks.publication import read_publication

    found = read_publication(folder)
    here = load_benchmark(benchmark or found.benchmark, BENCHMARKS)
    name = row or found.row
    place = adopt_publication(found, here, name, RESULTS)
    print(f"{printable(str(place))}: {printable(found.title)}, seeds {', '.join(map(str, found.seeds))}")
    print(f"Compare it: flexseg compare {here.name} {here.reference} {name}")


def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="benchmark, dataset or label-map.")] = "benchmark",
    output: Annotated[Path | None, typer.Option(help="The file to write; by default the terminal.")] = None,
) -> None:
    """Write the JSON Schema of benchmark files, data sets or label maps, for editors that complete and check YAML."""
    from flexseg.tasks.schemas import SCHEMAS, format_schema

    if kind not in SCHEMAS:
        raise UserError(f"there is no schema of {kind!r}{did_you_mean(kind, SCHEMAS)}: choose {', '.join(SCHEMAS)}")
    if output is None:
        print(format_schema(kind), end="")
        return
    with replacing(output) as temporary:
        temporary.write_text(format_schema(kind), encoding="utf-8")
    print(output)
