"""Measure the suite's own speed: the cost of a step beside the bare model, and of rendering the world."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexseg.benchmark import Benchmark, Run
from flexseg.errors import UserError
from flexseg.files import digest
from flexseg.tasks.datasets import domain_folder, make_dataset
from flexseg.tasks.jobs import prepare_job


def measure_steps(
    benchmark: Benchmark,
    results: Path,
    steps: int,
    rounds: int,
    threads: int,
    console: Console,
    precision: str = "auto",
) -> dict[str, float]:
    """Print and return milliseconds per step: for the bare model, and for each row in the engine.

    *Bare* is forward, cross entropy at label resolution, backward and optimiser step on one batch that is already
    in memory; rows of another trunk, crop or batch size have a bare step of their own, named after the first such row.
    The rows are the engine's own step: choosing, cropping and normalising images, the method's losses, the
    check for finite values, the optimiser and the average. Rounds alternate, so that a drift of the machine's speed
    affects all alike; the figure is the median over rounds of each round's mean.
    """
    import torch

    from flexseg.engine.memory import keep_freed_memory
    from flexseg.engine.train import Trainer, launch_fabric
    from flexseg.method import cross_entropy

    torch.set_num_threads(threads)
    keep_freed_memory()
    fabric = launch_fabric(precision=precision)
    for domain in (benchmark.source, benchmark.generated):
        if not (domain_folder(results, benchmark, domain) / "index.parquet").is_file():
            make_dataset(benchmark, domain, results)
    trainers = {name: Trainer(prepare_job(Run(benchmark, name, 0, results)), fabric) for name in benchmark.rows}
    first_row = next(iter(trainers))

    def bare_step_of(reference: Trainer) -> Callable[[int], object]:
        batch = reference.batch(0)

        def step(_: int) -> None:
            with fabric.autocast():
                logits = reference.learner.model(batch.images).logits
            loss = cross_entropy(logits, batch.labels)
            reference.optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            reference.optimizer.step()

        return step

    kinds: dict[str, str] = {}  # the name of the bare step by what it depends on
    bare_of, candidates = dict[str, str](), dict[str, Callable[[int], object]]()
    for name, trainer in trainers.items():
        training = benchmark.training_of(name)
        key = digest([benchmark.model_of(name), training.crop, training.batch_size])
        if key not in kinds:
            kinds[key] = f"bare, {name}" if kinds else "bare"
            candidates[kinds[key]] = bare_step_of(Trainer(trainer.job, fabric))
            bare_of[kinds[key]] = kinds[key]
        bare_of[name] = kinds[key]
    candidates |= {name: trainer.step for name, trainer in trainers.items()}
    sizes = {name: benchmark.training_of(name).batch_size for name in trainers}
    sizes |= {bare_of[name]: sizes[name] for name in reversed(trainers)}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, step in candidates.items():
            first = round_number * steps
            started = time.perf_counter()
            for iteration in range(first, first + steps):
                step(iteration)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if round_number:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - started) / steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    table = Table(title=f"A step of {benchmark.name}, {threads} thread(s)", title_justify="left")
    for heading in ("step", "ms", "images/s", "of bare", f"of {first_row}"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for name, value in medians.items():
        shares = value / medians[bare_of[name]], value / medians[first_row]
        table.add_row(name, f"{value:.1f}", f"{1000 * sizes[name] / value:.1f}", *(f"{share:.3f}" for share in shares))
    console.print(table)
    return medians


def measure_world(benchmark: Benchmark, images: int, console: Console) -> dict[str, float]:
    """Print and return how many images per second this one process renders of each domain of the street world.

    Raises:
        UserError: the benchmark has no street world, and so no image size.
    """
    from flexseg import world

    size = benchmark.world
    if size is None:
        raise UserError(f"benchmark {benchmark.name} renders nothing (it has no `world`): measure `streetworld`")
    rates = {}
    for domain in world.version_of(size.version).domains:
        started = time.perf_counter()
        for index in range(images):
            world.render(domain, "train", index, version=size.version, height=size.height, width=size.width)
        rates[domain] = images / (time.perf_counter() - started)
        console.print(f"{domain:12s} {rates[domain]:6.1f} images/s")
    return rates
