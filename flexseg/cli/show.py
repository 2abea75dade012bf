"""``flexseg show …`` and ``flexseg bench …``: what the suite knows, and how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexseg.benchmark import benchmark_names, load_benchmark, select_rows
from flexseg.cli.folders import BENCHMARKS, DEFAULT, METHODS, RESULTS
from flexseg.console import terminal
from flexseg.files import replacing

show = typer.Typer(help="Show what the suite knows: benchmarks, methods, the street world.", no_args_is_help=True)
bench = typer.Typer(help="Measure the suite's own speed.", no_args_is_help=True)


@show.command("benchmarks")
def show_benchmarks() -> None:
    """The benchmarks, their studies and rows."""
    for name in benchmark_names(BENCHMARKS):
        benchmark = load_benchmark(name, BENCHMARKS)
        print(f"{name}: {benchmark.title}; {len(benchmark.seeds)} seeds; targets {', '.join(benchmark.targets)}")
        for study, rows in benchmark.studies.items():
            print(f"  {study}: {', '.join(rows)}")


@show.command("methods")
def show_methods(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="Only these; parts of names do.")] = None,
) -> None:
    """The methods and their options; a broken file is named with its error."""
    from flexseg.cli.print import print_methods

    print_methods(METHODS, terminal(), names or [])


@show.command("world")
def show_world(
    output: Annotated[Path, typer.Argument(help="The PNG to write.")] = Path("world.png"),
    samples: Annotated[int, typer.Option(min=1, help="Images per domain.")] = 5,
    height: Annotated[int, typer.Option(min=32, help="Height of an image in pixels.")] = 96,
    width: Annotated[int, typer.Option(min=32, help="Width of an image in pixels.")] = 192,
    version: Annotated[int, typer.Option(help="The world's version.")] = 1,
) -> None:
    """Write a contact sheet of the street world: every domain, images beside labels."""
    from PIL import Image

    from flexseg.world.sheet import contact_sheet

    sheet = Image.fromarray(contact_sheet(samples, height, width, version))
    with replacing(output) as temporary:
        sheet.save(temporary, format="png")
    print(output)


_VERSION = Annotated[int, typer.Option(help="The world's version.")]
_HEIGHT = Annotated[int, typer.Option(min=32, help="Height of an image in pixels.")]
_WIDTH = Annotated[int, typer.Option(min=32, help="Width of an image in pixels.")]
_IMAGES = Annotated[int, typer.Option(min=1, help="How many images to look at.")]


@show.command("boundaries")
def show_boundaries(version: _VERSION = 2, height: _HEIGHT = 128, width: _WIDTH = 256, images: _IMAGES = 50) -> None:
    """How much of the street world's labels is boundary, as UBE and GAP draw it."""
    from flexseg.tasks import world_facts

    world_facts.show_boundaries(version, (height, width), images, terminal())


@show.command("misalignment")
def show_misalignment(
    version: _VERSION = 2,
    height: _HEIGHT = 128,
    width: _WIDTH = 256,
    images: _IMAGES = 50,
    output: Annotated[Path | None, typer.Option(help="A CSV to write besides.")] = None,
) -> None:
    """Which labels of the generated images are wrong, at each strength: by distance to the boundary, and by class."""
    from flexseg.tasks import world_facts

    world_facts.show_misalignment(version, (height, width), images, terminal(), output)


@bench.command("step")
def bench_step(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK")] = DEFAULT,
    rows: Annotated[str, typer.Option(help="Rows to measure.")] = "dginstyle,flexseg",
    steps: Annotated[int, typer.Option(min=2, help="Steps per round.")] = 15,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the rows take turns.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed; auto is bf16 on GPUs.")] = "auto",
) -> None:
    """A training step of each row against the bare model's forward, backward and optimiser step; images per second."""
    from flexseg.tasks.speed import measure_steps

    benchmark = select_rows(load_benchmark(name, BENCHMARKS), "default", rows)
    measure_steps(benchmark, RESULTS, steps, rounds, threads, terminal(), precision)


@bench.command("world")
def bench_world(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK")] = DEFAULT,
    images: Annotated[int, typer.Option(min=1, help="Images per domain.")] = 40,
) -> None:
    """How many images per second the street world renders on one core, for every domain."""
    from flexseg.tasks.speed import measure_world

    measure_world(load_benchmark(name, BENCHMARKS), images, terminal())


@bench.command("data")
def bench_data(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK")] = "gta5_daformer",
    images: Annotated[int, typer.Option(min=4, help="Images to read.")] = 40,
    step: Annotated[float, typer.Option(min=0.0, help="Seconds that a step of your GPU takes.")] = 0.4,
) -> None:
    """Training images per second and worker, decoded and from the cache, beside what a GPU's step needs."""
    from flexseg.tasks.speed_data import measure_data

    measure_data(load_benchmark(name, BENCHMARKS), RESULTS, images, step, terminal())
