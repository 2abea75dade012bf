"""The commands of ``flexseg``: every rule of the workflow is one of them, beside those that people call by hand.

Each command imports what it needs itself, as torch and mmseg take seconds.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flexseg import __version__
from flexseg.benchmark import Benchmark, Run, load_benchmark, select_rows
from flexseg.cli.detectron2 import install_detectron2
from flexseg.cli.evaluate import evaluate
from flexseg.cli.folders import BENCHMARKS, DEFAULT, METHODS, RESULTS
from flexseg.cli.new_method import new_method
from flexseg.cli.own import new_dataset
from flexseg.cli.reference import reference
from flexseg.cli.share import import_row, publish, schema
from flexseg.cli.show import bench, show
from flexseg.cli.work import init, run
from flexseg.console import printable, terminal
from flexseg.errors import UserError, did_you_mean
from flexseg.files import describe_disk_error
from flexseg.kernels import hold_kernels, release_kernels
from flexseg.provenance import usable_cores

app = typer.Typer(
    help="FLEX-Seg Bench: a reproducibility benchmark suite for domain-generalized semantic segmentation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(show, name="show")
app.add_typer(bench, name="bench")
app.add_typer(reference, name="reference")
app.command()(evaluate)
app.command()(init)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})(run)
app.command("install-detectron2")(install_detectron2)
app.command("new-dataset")(new_dataset)
app.command("new-method")(new_method)
app.command()(publish)
app.command("import")(import_row)
app.command()(schema)

CORES = usable_cores()
Name = Annotated[str, typer.Argument(metavar="BENCHMARK", help="A file in benchmarks/, without its ending.")]
RowName = Annotated[str, typer.Argument(metavar="ROW", help="A row of the benchmark, or the name of a method file.")]
Study = Annotated[str, typer.Option(help="The study of the benchmark whose rows are taken.")]
Rows = Annotated[str, typer.Option(help="Only these rows or methods: a,b,c.")]
Seeds = Annotated[str, typer.Option(help="Only these seeds: 0,1,2.")]
Workers = Annotated[int, typer.Option(min=1, help="Parallel processes.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Receipt = Annotated[Path | None, typer.Option(help="Write the outcome here; a recorded failure then exits with 0.")]


Native = Annotated[
    bool,
    typer.Option(
        "--native-kernels",
        help="Compute with the fastest instructions of this processor, which gives other sums than on others.",
    ),
]


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"flexseg {__version__}")
        raise typer.Exit


@app.callback()
def prepare(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it.")] = False,
) -> None:
    """FLEX-Seg Bench: a reproducibility benchmark suite for domain-generalized semantic segmentation."""
    hold_kernels()


def _select(name: str, study: str, rows: str, seeds: str) -> Benchmark:
    return select_rows(load_benchmark(name, BENCHMARKS), study, rows, seeds)


def _select_row(name: str, row: str) -> Benchmark:
    return _select(name, "default", row, "")


@app.command()
def check(name: Name, study: Study = "default", rows: Rows = "", seeds: Seeds = "") -> None:
    """Check a benchmark file, the options of its rows, and that its data are there, before any work."""
    from flexseg.tasks.check import check_benchmark, require_data

    benchmark = _select(name, study, rows, seeds)
    require_data(benchmark, RESULTS)
    for line in check_benchmark(benchmark, RESULTS):
        print(line)


@app.command()
def dataset(
    name: Name,
    domain: Annotated[str, typer.Argument(help="A domain of the benchmark.")],
    workers: Workers = CORES,
) -> None:
    """Render a domain, or check a data set in its place: decode every pair and write the index."""
    from flexseg.tasks.datasets import make_dataset

    make_dataset(load_benchmark(name, BENCHMARKS), domain, RESULTS, workers)


@app.command()
def doctor(
    name: Name = "",
    full: Annotated[bool, typer.Option("--full", help="Decode and check every file, not only count them.")] = False,
    workers: Workers = CORES,
) -> None:
    """Say which data sets and weights are there, missing, incomplete or damaged, and what to do.

    Without a benchmark: which of the data sets that the suite knows are there. Exits with 1 unless all is well.
    """
    from flexseg.tasks.doctor import examine, print_report, survey

    if name:
        report = examine(load_benchmark(name, BENCHMARKS), RESULTS, full=full, workers=workers)
    else:
        report = survey(RESULTS, full=full, workers=workers)
    print_report(report, terminal())
    if not report.sound:
        raise typer.Exit(1)


@app.command()
def cache(name: Name, study: Study = "default", rows: Rows = "", workers: Workers = CORES) -> None:
    """Decode the training images once, at training size, into a cache that all runs share. It can take much disk.

    Data sets that are not indexed yet are checked and indexed first, as `flexseg dataset` does.
    """
    from flexseg.tasks.datasets import cache_frames

    for line in cache_frames(_select(name, study, rows, ""), RESULTS, workers):
        print(line)


@app.command()
def train(
    name: Name,
    row: RowName,
    seed: Annotated[int, typer.Argument(min=0)],
    supersede: Annotated[bool, typer.Option(help="Move a run of another configuration aside.")] = False,
    devices: Annotated[str, typer.Option(help="Number of devices; auto takes all GPUs, or one CPU process.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed; auto is bf16 on GPUs.")] = "auto",
    threads: Threads = 1,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Threads that prepare the next batches; 0 none, up to 8 beside a GPU.")
    ] = None,
    receipt: Receipt = None,
    native_kernels: Native = False,
    logger: Annotated[str, typer.Option(help="Also log for another program: tensorboard or csv.")] = "",
) -> None:
    """Train one run; a run that was interrupted continues from its checkpoint."""
    if native_kernels:
        release_kernels()
    from flexseg.tasks.jobs import Resources, train_run

    resources = Resources(devices, precision, threads, workers)
    run = Run(_select_row(name, row), row, seed, RESULTS)
    train_run(run, resources, supersede=supersede, receipt=receipt, logger=logger)


@app.command()
def export(
    words: Annotated[list[str], typer.Argument(metavar="BENCHMARK ROW SEED", help="A run; or its directory.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("export"),
    target: Annotated[str, typer.Option(help="The target whose test size the pipeline gets; by default all.")] = "",
) -> None:
    """Write a finished run as a configuration and a checkpoint of mmsegmentation, which predict the same pixels."""
    from flexseg.tasks.export import export_run, parse_run

    run, rest = parse_run(words, _select_row, RESULTS)
    if rest:
        raise UserError(f"export takes one run and nothing else: {' '.join(rest)}")
    for path in export_run(run, output, target=target):
        print(printable(str(path)))


@app.command()
def predict(
    words: Annotated[
        list[str],
        typer.Argument(metavar="BENCHMARK ROW SEED IMAGES…", help="A run, or its directory; then images or folders."),
    ],
    output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("predictions"),
    target: Annotated[str, typer.Option(help="The target whose test size is taken.")] = "",
    height: Annotated[
        int | None, typer.Option(min=1, help="Show images to the network at this height instead.")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Segment your own images with a finished run: colour overlays and label maps."""
    from flexseg.tasks.export import parse_run
    from flexseg.tasks.predict import predict_images

    run, images = parse_run(words, _select_row, RESULTS)
    places = [Path(image) for image in images]
    for path in predict_images(run, places, output, target=target, height=height, threads=threads):
        print(printable(str(path)))


@app.command()
def rehearse(
    name: Name,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to work, by default results/rehearsals/NAME; one that is there is continued."),
    ] = None,
    rows: Rows = "",
    study: Study = "default",
    shrink: Annotated[int, typer.Option(min=1, help="Divide all sizes in pixels by this.")] = 4,
    iterations: Annotated[int, typer.Option(min=2, help="Steps of each training.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Images per split of each data set.")] = 3,
    trunk: Annotated[str, typer.Option(help="A smaller MiT in place of the trunk: b0 to b5.")] = "",
    cores: Annotated[int, typer.Option(min=1)] = CORES,
) -> None:
    """Run a whole benchmark in small, on data sets rendered in their official layouts: does it all work here?"""
    from flexseg.tasks.rehearse import Settings
    from flexseg.tasks.rehearse import rehearse as run

    settings = Settings(shrink, iterations, frames, trunk)
    home = folder or RESULTS / "rehearsals" / name
    if run(name, home, settings, study, rows, cores, BENCHMARKS, METHODS, terminal()):
        raise typer.Exit(1)


@app.command()
def tables(name: Name, study: Study = "default", rows: Rows = "", seeds: Seeds = "") -> None:
    """Write the tables (CSV, Markdown, LaTeX) from the records of the runs."""
    from flexseg.analysis import write_tables

    for path in write_tables(_select(name, study, rows, seeds), RESULTS):
        print(printable(str(path)))


@app.command()
def report(
    name: Name,
    kind: Annotated[str, typer.Argument(help="comparison, ablation, claims (PDF), page (HTML), summary or figures.")],
    output: Annotated[Path, typer.Argument(help="The file to write; figures: that of the captions.")],
    study: Study = "default",
    rows: Rows = "",
    seeds: Seeds = "",
) -> None:
    """Write a product (a PDF, the page, the summary, the single figures) from the records of the runs."""
    from flexseg.analysis import CLAIMS, KINDS, write_report

    known = (*KINDS, CLAIMS)
    if kind not in known:
        raise UserError(f"there is no report {kind!r}{did_you_mean(kind, known)}: choose {', '.join(known)}")
    write_report(_select(name, study, rows, seeds), kind, RESULTS, output)
    print(output)


@app.command()
def status(
    name: Name,
    study: Study = "default",
    rows: Rows = "",
    seeds: Seeds = "",
    retry: Annotated[bool, typer.Option(help="Forget the recorded failures, so that they are tried again.")] = False,
) -> None:
    """Say which runs are finished, running, failed or missing, and the time left; exits with 1 if any failed."""
    from flexseg.cli.print import print_status

    if print_status(_select(name, study, rows, seeds), RESULTS, terminal(), retry=retry):
        raise typer.Exit(1)


@app.command()
def compare(
    name: Name,
    a: Annotated[str, typer.Argument(metavar="A", help="The row, or name of a method file, to compare B with.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another row; with --other by default A itself.")] = "",
    other: Annotated[
        Path | None, typer.Option(help="Another results folder to take A from, e.g. from before an upgrade.")
    ] = None,
    quantity: Annotated[str, typer.Option(help="What is compared, e.g. 'boundary mIoU'.")] = "mIoU",
    per: Annotated[str, typer.Option(help="target (and averages), class or condition.")] = "target",
    target: Annotated[str, typer.Option(help="The target or average whose classes are compared.")] = "",
    study: Annotated[str, typer.Option(help="The study whose rows show how noisy a run is.")] = "default",
    seeds: Seeds = "",
) -> None:
    """Compare two rows, B minus A: paired differences with 95 % intervals, and whether any was shown.

    flexseg compare streetworld dginstyle flexseg

    flexseg compare streetworld flexseg --other before/results
    """
    from flexseg.analysis.stats.compare import check_per, load_pair
    from flexseg.analysis.stats.compare import compare as compare_rows
    from flexseg.analysis.stats.scores import Scores
    from flexseg.cli.print import print_comparison

    if not b and other is None:
        raise UserError(f"compare {a!r} with what? Name a second row, or another results folder with --other")
    way = check_per(per)
    rows = dict.fromkeys([*_select(name, study, "", "").rows, a, b or a])
    pair = load_pair(_select(name, study, ",".join(rows), seeds), RESULTS, a, b or a, other)
    found = compare_rows(Scores(pair.records), pair.a, pair.b, quantity, way, target)
    print_comparison(replace(found, notes=[*pair.notes, *found.notes]), terminal())


@app.command()
def verify(
    name: Name = DEFAULT,
    study: Study = "default",
    rows: Rows = "",
    seeds: Seeds = "",
    cells: Annotated[bool, typer.Option("--cells", "--verbose", help="Show every cell with its interval.")] = False,
) -> None:
    """Compare these results with the reference that the repository ships; exits with 1 only if they differ.

    Where the benchmark makes claims, it says which verdicts these runs would change.
    """
    from flexseg.analysis.stats.records import load_records
    from flexseg.analysis.stats.reference import read_reference
    from flexseg.analysis.stats.scores import Scores
    from flexseg.analysis.stats.verify import verify as verify_scores
    from flexseg.benchmark.identity import reference_path
    from flexseg.cli.print import print_verification

    benchmark = _select(name, study, rows, seeds)
    path = reference_path(benchmark, BENCHMARKS)
    if not path.is_file():
        print(
            f"{name}: no reference results to compare with ({path} does not exist; `flexseg reference add {name}` "
            "makes it from these)"
        )
        return
    scores = Scores(load_records(benchmark, RESULTS))
    reference = read_reference(path, benchmark)
    found = verify_scores(scores, reference)
    print_verification(found, terminal(), cells=cells)
    if benchmark.claimed is not None:
        from flexseg.analysis.stats.claims import changes_of
        from flexseg.cli.print import print_claims

        print_claims(*changes_of(scores.records, reference), terminal())
    if found.differs:
        raise typer.Exit(1)


@app.command()
def validate(name: Name, study: Study = "default", rows: Rows = "", seeds: Seeds = "") -> None:
    """Score finished runs on the source's validation images: has a row learnt less, or does it transfer less?"""
    from flexseg.tasks.validate import validate as score

    print(score(_select(name, study, rows, seeds), RESULTS, terminal()))


@app.command()
def tune(
    name: Name,
    jobs: Annotated[int, typer.Option(help="Trainings at a time, each with one thread.")] = CORES,
) -> None:
    """Search the benchmark's tuning grid on source validation images and record every trial."""
    from flexseg.tasks.tune import tune as search

    search(load_benchmark(name, BENCHMARKS), RESULTS, BENCHMARKS, jobs, terminal())


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exit codes are 2 for a user's or the disk's mistake, in one message, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return app(args=arguments)
    except UserError as error:
        _end(f"error: {error}", 2)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(f"error: {describe_disk_error(error)}", 2)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # typer silently turns an interruption into this code
            raise
        _end("interrupted; start the same command again to go on", 130)


def _end(message: str, code: int) -> NoReturn:
    terminal(stderr=True).print(printable(message, breaks=True), style="red" if code == 2 else "", soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
