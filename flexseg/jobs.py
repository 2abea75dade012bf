"""The jobs of the workflow: from a benchmark file to data, runs and records on disk."""

from __future__ import annotations

import errno
import json
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flexseg.benchmark import Benchmark, fingerprint
from flexseg.data.index import Index, build_index, read_index
from flexseg.engine.run import RunDirectory
from flexseg.errors import MissingExtra, RunError, UserError
from flexseg.files import read_json, write_json

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def progress_bar(task: str, total: int) -> Iterator[Any]:
    """A progress bar on standard error; yields ``advance(count, note="")``. Silent where nobody looks (no terminal)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    note = TextColumn("{task.fields[note]}")
    with Progress(*columns, note, console=console, transient=True, disable=not console.is_terminal) as bar:
        handle = bar.add_task(task, total=total, note="")

        def advance(count: int, note: str = "") -> None:
            bar.update(handle, advance=count, note=note)

        yield advance


def domain_folder(results: Path, benchmark: Benchmark, domain: str) -> Path:
    """Where a domain of a benchmark lies."""
    return results / benchmark.name / "data" / domain


def run_directory(results: Path, benchmark: Benchmark, row: str, seed: int) -> RunDirectory:
    """Where a run of a benchmark lies."""
    return RunDirectory(results / benchmark.name / row / f"seed-{seed}")


def make_dataset(benchmark: Benchmark, domain: str, results: Path) -> None:
    """Render a domain into ``results/<benchmark>/data/<domain>`` and index it.

    Raises:
        UserError: the benchmark has no such domain.
    """
    from flexseg.world.write import write_domain

    if domain not in benchmark.domains:
        raise UserError(f"benchmark {benchmark.name} has no domain {domain!r}; it has {', '.join(benchmark.domains)}")
    settings, root = benchmark.domains[domain], domain_folder(results, benchmark, domain)
    for folder in ("leftImg8bit", "gtFine"):
        shutil.rmtree(root / folder, ignore_errors=True)
    with progress_bar(f"rendering {domain}", sum(settings.splits.values())) as advance, disk_errors(root):
        for split, count in settings.splits.items():
            write_domain(
                root,
                settings.world,
                split,
                count,
                height=benchmark.world.height,
                width=benchmark.world.width,
                misalignment=settings.misalignment,
                progress=advance,
            )
    with progress_bar(f"checking {domain}", sum(settings.splits.values())) as advance:
        build_index(root, settings.splits, fingerprint(benchmark.domain_definition(domain)), advance)


def open_index(benchmark: Benchmark, domain: str, results: Path) -> Index:
    """The index of a domain, checked to be the data that the benchmark defines."""
    return read_index(domain_folder(results, benchmark, domain), fingerprint(benchmark.domain_definition(domain)))


def train_run(
    benchmark: Benchmark,
    row_name: str,
    seed: int,
    methods: Path,
    results: Path,
    supersede: bool = False,
    devices: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    receipt: Path | None = None,
    directory: RunDirectory | None = None,
) -> None:
    """Train the run (benchmark, row, seed), or go on with it, or find it finished.

    With ``receipt`` the outcome is written there and a failure of the method's own making is recorded instead of
    raised, so that the workflow goes on with the other rows and shows the reason in this one's cells.

    Raises:
        UserError: the data are missing or damaged, the directory belongs to another configuration, the disk is full;
            without ``receipt`` also what the method did wrong.
    """
    row = benchmark.row(row_name)
    definition = benchmark.run_definition(row_name, seed, methods / f"{row.method}.py")
    name = fingerprint(definition)
    directory = directory or run_directory(results, benchmark, row_name, seed)
    if directory.finished and read_json(directory.record)["fingerprint"] == name:
        print(f"{directory.root} is finished: nothing to do")
        _write_receipt(receipt, {"fingerprint": name, "status": "finished"})
        return
    directory.open(definition, supersede=supersede)
    with recording(directory, recorded=receipt is not None), disk_errors(directory.root):
        import torch

        from flexseg.data.pool import load_pool
        from flexseg.engine.memory import keep_freed_memory
        from flexseg.engine.train import Job, launch_fabric, train
        from flexseg.method import load_method, parse_options

        torch.set_num_threads(threads)
        keep_freed_memory()
        try:
            method = load_method(row.method, methods)
            options = parse_options(method, row.options)
        except MissingExtra:
            raise
        except UserError as error:
            raise RunError(str(error)) from error
        domains = {"source": benchmark.source, "generated": row.generated or benchmark.generated}
        indices = {domains[part]: open_index(benchmark, domains[part], results) for part in method.data}
        pool = load_pool([(index, "train") for index in indices.values()])
        training, model = benchmark.training_of(row_name), benchmark.model_of(row_name)
        job = Job(directory, definition, method, options, training, model, seed, pool, indices)
        fabric = launch_fabric(devices, precision)
        with progress_bar(f"{row_name}, seed {seed}", training.iterations) as advance:
            seen = 0

            def report(iteration: int, loss: float) -> None:
                nonlocal seen
                advance(iteration - seen, f"loss {loss:.3f}")
                seen = iteration

            train(job, fabric, report)
    status = read_json(directory.failure)["status"] if directory.failure.is_file() else "finished"
    _write_receipt(receipt, {"fingerprint": name, "status": status})


def load_trained(benchmark: Benchmark, row_name: str, seed: int, methods: Path, directory: RunDirectory) -> Any:
    """The trained model of a finished run, in eval mode and with the channels last, on the CPU.

    Raises:
        UserError: the method cannot be loaded, or the weights are damaged or another model's.
    """
    import numpy as np

    from flexseg.engine.checkpoint import load_weights
    from flexseg.method import Setup, load_method, parse_options
    from flexseg.models import channels_last

    row = benchmark.row(row_name)
    method = load_method(row.method, methods)
    setup = Setup(seed, benchmark.training_of(row_name).iterations, np.zeros(0, dtype=np.int8))
    model = method(parse_options(method, row.options), setup).build_model(benchmark.model_of(row_name))
    load_weights(model, directory.weights)
    channels_last(model)
    return model.eval()


def evaluate_row(
    benchmark: Benchmark,
    row_name: str,
    methods: Path,
    results: Path,
    threads: int = 1,
    receipt: Path | None = None,
) -> None:
    """Evaluate a row's finished runs (all seeds of the benchmark) on all targets, in one process.

    Runs that failed have nothing to evaluate; records that are there already are kept. With ``receipt`` a failure of
    the method's own making is recorded instead of raised.

    Raises:
        UserError: a run is not finished, or a target's data are missing or damaged.
    """
    import torch

    from flexseg.data.pool import load_pool
    from flexseg.engine.memory import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    row = benchmark.row(row_name)
    protocol = fingerprint(benchmark.evaluation_definition())
    finished: list[tuple[int, str, RunDirectory]] = []
    states: dict[str, str] = {}
    for seed in benchmark.seeds:
        directory = run_directory(results, benchmark, row_name, seed)
        name = fingerprint(benchmark.run_definition(row_name, seed, methods / f"{row.method}.py"))
        if not directory.finished and directory.failure.is_file() and receipt is not None:
            states[str(seed)] = read_json(directory.failure)["status"]
            continue
        if not directory.finished or read_json(directory.record)["fingerprint"] != name:
            raise UserError(f"{directory.root} holds no finished run of these settings: train it first")
        states[str(seed)] = "finished"
        finished.append((seed, name, directory))
    indices = {target: open_index(benchmark, target, results) for target in benchmark.targets}
    waiting = [
        (seed, name, directory)
        for seed, name, directory in finished
        if not all(
            _evaluated(directory.evaluation / f"{target}.parquet", (name, protocol, index.digest))
            for target, index in indices.items()
        )
    ]
    pools = {target: load_pool([(index, "test")]) for target, index in indices.items() if waiting}
    for seed, name, directory in waiting:
        directory.failure.unlink(missing_ok=True)
        with recording(directory, recorded=receipt is not None), disk_errors(directory.root):
            model = load_trained(benchmark, row_name, seed, methods, directory)
            run = {
                "benchmark": benchmark.name,
                "row": row_name,
                "seed": seed,
                "fingerprint": name,
                "evaluation": protocol,
            }
            evaluate_model(model, benchmark, directory, run, pools, indices)
        if directory.failure.is_file():
            states[str(seed)] = "failed"
    _write_receipt(receipt, {"evaluation": protocol, "seeds": states})


def _evaluated(path: Path, expected: tuple[str, str, str]) -> bool:
    """Whether the records at ``path`` are of the expected run, evaluation and images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return False
    found = tuple(metadata.get(key, b"").decode() for key in (b"fingerprint", b"evaluation", b"data"))
    return found == expected


def evaluate_model(
    model: Any,
    benchmark: Benchmark,
    directory: RunDirectory,
    run: Mapping[str, Any],
    pools: Mapping[str, Any],
    indices: Mapping[str, Index],
) -> None:
    """Write the records and predictions of ``model`` on every target's pool; ``run`` goes into their metadata."""
    import torch

    from flexseg.engine.evaluate import evaluate_target, write_target

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    protocol = benchmark.protocol
    facts = {
        "protocol": protocol.id,
        "label_map": protocol.label_map,
        "boundary_width": protocol.boundary_width,
        "boundary_widths": json.dumps(protocol.boundary_widths),
        "rings": json.dumps(protocol.rings),
        **run,
    }
    with progress_bar(str(directory.root), sum(len(pool) for pool in pools.values())) as advance:
        for target, pool in pools.items():
            table, shown = evaluate_target(model, pool, protocol, device, benchmark.predictions, progress=advance)
            own = {"target": target, "data": indices[target].digest}
            write_target(directory.evaluation, directory.predictions, target, table, shown, facts | own)


@contextmanager
def recording(directory: RunDirectory, *, recorded: bool) -> Iterator[None]:
    """Write what a method did wrong to ``failure.json``; unless ``recorded`` is enough, raise it as well.

    A user's mistake (missing data, a full disk) and an interruption are no failure of the method: they are raised, the
    run stays unfinished, and starting it again goes on.
    """
    try:
        yield
    except UserError as error:
        if not isinstance(error, RunError):
            raise
        _record_failure(directory, str(error), "not run" if isinstance(error, MissingExtra) else "failed")
        if not recorded:
            raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).parent.name}/{Path(frame.filename).name}"
        reason = f"{type(error).__name__}: {error} ({place}, line {frame.lineno})"
        _record_failure(directory, reason)
        if not recorded:
            raise RunError(f"{reason}; the whole traceback is in {directory.failure}") from error


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk into one clear message."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UserError(
                f"no space left while writing below {place}: free some and start the same command again, it goes on"
            ) from error
        raise


def _record_failure(directory: RunDirectory, reason: str, status: str = "failed") -> None:
    print(f"{status}: {reason}")
    name = read_json(directory.config)["fingerprint"]
    record = {"status": status, "reason": reason, "traceback": traceback.format_exc(), "fingerprint": name}
    write_json(directory.failure, record)


def _write_receipt(receipt: Path | None, outcome: Mapping[str, Any]) -> None:
    if receipt is not None:
        write_json(receipt, dict(outcome))
