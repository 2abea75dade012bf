"""The jobs of the workflow: from a benchmark file to data, runs and records on disk."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexseg.benchmark import Benchmark, Run, fingerprint
from flexseg.benchmark.identity import RECORD_COLUMNS, RunDirectory, read_mapping
from flexseg.benchmark.times import EVALUATE, measured
from flexseg.classes import scored_classes
from flexseg.console import progress_bar
from flexseg.data.index import Index
from flexseg.engine.loggers import check_logger, copy_log
from flexseg.errors import MissingExtra, RunError, UserError
from flexseg.files import MACHINE, DiskError, describe_disk_error, disk_errors, write_json
from flexseg.tasks.datasets import open_index, training_pool


@dataclass(frozen=True)
class Resources:
    """The resources of a training.

    Attributes:
        devices: how many; ``auto`` takes all GPUs, or one CPU process.
        precision: Lightning's name; ``auto`` is bf16 on GPUs.
        threads: CPU threads of each process.
        workers: threads that read and prepare the next batches while a step runs; by default none on a CPU, up to
            eight beside a GPU.
    """

    devices: str = "auto"
    precision: str = "auto"
    threads: int = 1
    workers: int | None = None


def train_run(
    run: Run,
    resources: Resources = Resources(),
    *,
    supersede: bool = False,
    receipt: Path | None = None,
    logger: str = "",
) -> None:
    """Train a run or resume it; do nothing if it is finished, but copy its log if a ``logger`` is named.

    With ``receipt`` the outcome is written there and a failure caused by the method is recorded instead of raised, so
    that the workflow goes on with the other rows and shows the reason in this row's cells.

    Raises:
        UserError: the data are missing or damaged, the directory belongs to another configuration, another process
            trains this run, the disk is full, there is no such logger or its package is missing; without ``receipt``
            also failures of the method.
    """
    check_logger(logger)  # here, as a missing package must not be recorded as the row's failure
    directory = run.directory
    if run.trained:
        print(f"{directory.root} is finished: nothing to do")
        if logger and directory.log.is_file():
            print(f"its log was copied to {copy_log(logger, directory.log)}")
        _write_receipt(receipt, {"fingerprint": run.fingerprint, "status": "finished"})
        return
    with directory.hold():
        directory.open(run.definition, supersede=supersede)
        with recording(directory, recorded=receipt is not None):
            import torch

            from flexseg.engine.memory import keep_freed_memory
            from flexseg.engine.train import default_workers, launch_fabric, train

            torch.set_num_threads(resources.threads)
            keep_freed_memory()
            job = prepare_job(run)
            fabric = launch_fabric(resources.devices, resources.precision)
            with progress_bar(f"{run.row}, seed {run.seed}", job.training.iterations) as advance:
                seen = 0

                def report(iteration: int, loss: float) -> None:
                    nonlocal seen
                    advance(iteration - seen, f"loss {loss:.3f}")
                    seen = iteration

                workers = default_workers(fabric) if resources.workers is None else resources.workers
                train(job, fabric, report, workers, logger)
    status = (read_mapping(directory.failure) or {}).get("status", "finished")
    _write_receipt(receipt, {"fingerprint": run.fingerprint, "status": status})


def prepare_job(run: Run) -> Any:
    """Prepare a run for the engine (:class:`flexseg.engine.batches.Job`): its method, options and open data.

    Raises:
        UserError: the data are missing or damaged. RunError: the method cannot be loaded or refuses its options.
    """
    from flexseg.engine.batches import Job
    from flexseg.method_files import load_row

    benchmark = run.benchmark
    try:
        method, options = load_row(benchmark.row(run.row), benchmark.methods)
    except MissingExtra:
        raise
    except UserError as error:
        raise RunError(str(error)) from error
    domains = {"source": benchmark.source, "generated": benchmark.generated_of(run.row)}
    indices = {domains[part]: open_index(benchmark, domains[part], run.results) for part in method.data}
    training, model = benchmark.training_of(run.row), benchmark.model_of(run.row)
    pool = training_pool(benchmark, indices, run.seed, training.resize, run.results)
    classes = benchmark.class_set
    return Job(run.directory, run.definition, method, options, training, model, run.seed, pool, indices, classes)


def load_trained(run: Run) -> Any:
    """Load the trained model of a finished run, in eval mode and with the channels last, on the CPU.

    Raises:
        UserError: the method cannot be loaded, or the weights are damaged or belong to another model.
    """
    import numpy as np

    from flexseg.engine.checkpoint import load_weights
    from flexseg.method import Setup
    from flexseg.method_files import load_row
    from flexseg.models import channels_last

    benchmark = run.benchmark
    if run.foreign is not None:
        raise UserError(f"{run.row} was published by others: predict and export in the folder of its publication")
    method, options = load_row(benchmark.row(run.row), benchmark.methods)
    pixels = np.zeros((0, len(benchmark.class_set)), dtype=np.int64)
    setup = Setup(run.seed, benchmark.training_of(run.row).iterations, np.zeros(0, dtype=np.int8), pixels)
    trunk = {key: value for key, value in benchmark.model_of(run.row).items() if key != "weights"}
    model = method(options, setup).build_model(trunk)
    load_weights(model, run.directory.weights, run.state.record.get("weights_sha256"))
    channels_last(model)
    return model.eval()


def evaluate_row(benchmark: Benchmark, row: str, results: Path, threads: int = 1, receipt: Path | None = None) -> None:
    """Evaluate a row's finished runs (all seeds of the benchmark) on all targets, in one process.

    Runs that failed have nothing to evaluate; existing records are kept. With ``receipt`` a failure caused by the
    method is recorded instead of raised.

    Raises:
        UserError: a run is not finished, or a target's data are missing or damaged.
    """
    import torch

    from flexseg.data.pool import open_pool
    from flexseg.engine.memory import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    protocol = fingerprint(benchmark.evaluation_definition())
    finished: list[Run] = []
    states: dict[str, str] = {}
    for run in (Run(benchmark, row, seed, results) for seed in benchmark.seeds_of(row)):
        state = run.state
        lost = run.foreign is not None and state.status == "missing"
        if (lost or state.status in ("failed", "not run")) and receipt is not None:
            states[str(run.seed)] = state.status
            continue
        run.require_trained()
        states[str(run.seed)] = "finished"
        finished.append(run)
    indices = {target: open_index(benchmark, target, results) for target in benchmark.targets}
    waiting = [
        run
        for run in finished
        if not all(_is_evaluated(run, target, protocol, index) for target, index in indices.items())
    ]
    if waiting and (foreign := waiting[0].foreign) is not None and foreign.has_seeds:
        raise UserError(
            f"the published records of {row} are not of this evaluation or these test images: compare with results of "
            "the same data and protocol, or evaluate the weights as a network of your own"
        )
    pools = {target: open_pool([(index, "test")]) for target, index in indices.items() if waiting}
    for run in waiting:
        directory = run.evaluated
        with (
            directory.hold("evaluated"),
            measured(results, benchmark.name, EVALUATE),
            recording(directory, recorded=receipt is not None, fingerprint=run.fingerprint),
        ):
            directory.failure.unlink(missing_ok=True)
            facts = {
                "benchmark": benchmark.name,
                "row": row,
                "seed": run.seed,
                "fingerprint": run.fingerprint,
                "evaluation": protocol,
            }
            if run.foreign is not None and run.foreign.kind == "predictions":
                evaluate_predictions(run, directory, facts, pools, indices)
            else:
                evaluate_model(load_network(run), benchmark, directory, facts, pools, indices)
        if directory.failure.is_file():
            states[str(run.seed)] = "failed"
    _write_receipt(receipt, {"evaluation": protocol, "seeds": states})


def load_network(run: Run) -> Any:
    """Load what is evaluated of a run: the trained model, or the network from elsewhere."""
    if run.foreign is None:
        return load_trained(run)
    from flexseg.tasks.foreign import load_foreign

    return load_foreign(run)


def _is_evaluated(run: Run, target: str, evaluation: str, index: Index) -> bool:
    """Whether a run has whole records of this evaluation of exactly these images, and the pictures beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from flexseg.engine.evaluate import shows_all

    ids = index.split("test")["id"].tolist()
    try:
        with pq.ParquetFile(run.evaluated.records(target), page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            if set(RECORD_COLUMNS) - set(file.schema_arrow.names) or file.read().column("image").to_pylist() != ids:
                return False
    except (OSError, pa.ArrowException):
        return False
    found = tuple(metadata.get(key, b"").decode(errors="replace") for key in (b"fingerprint", b"evaluation", b"data"))
    if found != (run.fingerprint, evaluation, index.digest):
        return False
    if run.foreign is not None and run.foreign.has_seeds:  # a publication holds no pictures
        return True
    return shows_all(run.evaluated.predictions, target, ids, run.benchmark.predictions)


def evaluate_model(
    model: Any,
    benchmark: Benchmark,
    directory: RunDirectory,
    facts: Mapping[str, Any],
    pools: Mapping[str, Any],
    indices: Mapping[str, Index],
) -> None:
    """Write the records and predictions of ``model`` on every target's pool; ``facts`` go into their metadata."""
    import torch

    from flexseg.engine.evaluate import evaluate_target, write_target

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    protocol, facts = benchmark.protocol, _protocol_facts(benchmark) | dict(facts)
    with progress_bar(str(directory.root), sum(len(pool) for pool in pools.values())) as advance:
        for target, pool in pools.items():
            kept, classes = benchmark.predictions, benchmark.class_set
            table, shown = evaluate_target(
                model, pool, protocol, device, kept, target=target, progress=advance, classes=classes
            )
            own = {"target": target, "data": indices[target].digest, "target_label_map": indices[target].label_map}
            write_target(directory.evaluation, directory.predictions, target, table, shown, facts | own)


def evaluate_predictions(
    run: Run,
    directory: RunDirectory,
    facts: Mapping[str, Any],
    pools: Mapping[str, Any],
    indices: Mapping[str, Index],
) -> None:
    """Write the records of a run whose predictions were made elsewhere; a target without any is left out.

    Raises:
        RunError: predictions are missing, of another size, or hold what is no class.
    """
    from flexseg.engine.evaluate import evaluate_labels, write_target
    from flexseg.engine.inference import label_size
    from flexseg.tasks.foreign import find_predictions, read_prediction

    benchmark, foreign = run.benchmark, run.foreign
    assert foreign is not None
    protocol, classes = benchmark.protocol, benchmark.class_set
    scored = scored_classes(classes, protocol.classes)
    facts = _protocol_facts(benchmark) | dict(facts) | {"probabilities": "none"}
    found = {target: find_predictions(foreign.path, target, index) for target, index in indices.items()}
    if not any(found.values()):
        raise RunError(
            f"{foreign.path} has no predictions of {', '.join(indices)}: those of a target go into a folder of its name"
        )
    with progress_bar(str(directory.root), sum(len(pools[target]) for target in found if found[target])) as advance:
        for target, files in found.items():
            if not files:
                print(f"{foreign.path} has no predictions of {target}")
                continue
            pool, size = pools[target], protocol.size_of(target)

            def read(place: int, pool: Any = pool, files: Any = files, size: Any = size) -> Any:
                height, width = label_size(size, *pool.labels[place].shape)
                return read_prediction(files[pool.ids[place]], (height, width), scored)

            table, shown = evaluate_labels(read, pool, protocol, benchmark.predictions, advance, target, classes)
            own = {"target": target, "data": indices[target].digest, "target_label_map": indices[target].label_map}
            write_target(directory.evaluation, directory.predictions, target, table, shown, facts | own)


def _protocol_facts(benchmark: Benchmark) -> dict[str, Any]:
    """What the records of every run say of how they were made."""
    protocol = benchmark.protocol
    return {
        "protocol": protocol.id,
        "label_map": benchmark.class_set.id,
        "boundary_band": protocol.boundary_band,
        "boundary_tolerances": json.dumps(protocol.boundary_tolerances),
        "distance_rings": json.dumps(protocol.distance_rings),
    }


@contextmanager
def recording(directory: RunDirectory, *, recorded: bool, fingerprint: str = "") -> Iterator[None]:
    """Write a failure of the method to ``failure.json``; raise it as well unless it is to be ``recorded`` only.

    ``fingerprint`` is the run's, if its configuration is not in the directory.

    A user's mistake (missing data), the machine's fault (a full disk, too little memory) and an interruption are no
    failures of the method: they are raised, the run stays unfinished, and starting it again resumes it. A method that
    ends the process itself (``sys.exit``) has failed.
    """
    try:
        yield
    except UserError as error:
        own = not isinstance(error, DiskError) and _in_method(traceback.extract_tb(error.__traceback__))
        if not isinstance(error, RunError) and not own:
            raise
        status = "not run" if isinstance(error, MissingExtra) else "failed"
        _record_failure(directory, str(error), status, fingerprint)
        if not recorded:
            raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, OSError) and (error.errno in MACHINE or not _in_method(frames)):
            raise DiskError(describe_disk_error(error, directory.root)) from error
        if isinstance(error, MemoryError):
            raise UserError(f"memory ran out in the run {directory.root}: free some and start it again") from error
        place = f"{Path(frames[-1].filename).parent.name}/{Path(frames[-1].filename).name}"
        reason = f"{type(error).__name__}: {error} ({place}, line {frames[-1].lineno})"
        _record_failure(directory, reason, "failed", fingerprint)
        if not recorded:
            raise RunError(f"{reason}; the whole traceback is in {directory.failure}") from error


def _in_method(frames: traceback.StackSummary) -> bool:
    """Whether an error passed through a method's file."""
    return any(Path(frame.filename).parent.name == "methods" for frame in frames)


def _record_failure(directory: RunDirectory, reason: str, status: str, fingerprint: str) -> None:
    print(f"{status}: {reason}")
    name = fingerprint or (read_mapping(directory.config) or {}).get("fingerprint", "")
    record = {"status": status, "reason": reason, "traceback": traceback.format_exc(), "fingerprint": name}
    with disk_errors(directory.failure):
        write_json(directory.failure, record)


def _write_receipt(receipt: Path | None, outcome: Mapping[str, Any]) -> None:
    if receipt is not None:
        write_json(receipt, dict(outcome))
