"""Training one run: the same loop for every method, restartable at any moment, exact to the bit on a CPU."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn

from flexseg.benchmark import fingerprint
from flexseg.data.draws import step_seed
from flexseg.data.loading import Prefetcher
from flexseg.engine.batches import Job, assemble
from flexseg.engine.checkpoint import Progress, load_checkpoint, save_checkpoint, save_tensors
from flexseg.engine.cost import measure_cost
from flexseg.engine.ledger import Clock, Log, describe_divergence, peak_memory, run_record
from flexseg.engine.norms import lone_values
from flexseg.engine.observe import moments, observe
from flexseg.engine.optimise import WeightAverage, build_optimizer, set_learning_rate
from flexseg.engine.recipe import FeatureAnchor, mean_terms, split_batch
from flexseg.errors import RunError, UserError
from flexseg.files import file_digest, write_json
from flexseg.method import Batch, Method, Setup, check_needs
from flexseg.models import Segmentor, channels_last
from flexseg.provenance import usable_cores


class Learner(nn.Module):
    """The model, the method's training modules and its losses as one module, which data parallelism wraps."""

    def __init__(
        self, model: Segmentor, modules: nn.Module | None, method: Method, anchor: FeatureAnchor | None
    ) -> None:
        super().__init__()
        self.model = model
        self.training_modules = modules
        self.anchor = anchor
        self._method = method

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The named loss terms of a batch."""
        if self.anchor is None:
            return self._method.forward(self.model, batch)
        return self.anchor.forward(self.model.backbone, batch, lambda: self._method.forward(self.model, batch))

    def log(self) -> dict[str, float]:
        """What the recipe adds to the log: the share of cells on which the last feature distance was measured."""
        return {} if self.anchor is None else {"fd/cells": float(self.anchor.cells)}

    def _apply(self, fn: Any, recurse: bool = True) -> Learner:
        """Also move the frozen encoder, which is not a submodule, so that checkpoints and averages leave it out."""
        if self.anchor is not None:
            self.anchor.encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)


def build_learner(job: Job) -> tuple[Learner, Method]:
    """Build model, method and training modules. Equal seeds start every method from the same weights.

    Raises:
        RunError: the method refuses the trunk, or cannot build its model.
    """
    training = job.training
    setup = Setup(
        job.seed,
        training.iterations,
        job.pool.origins,
        job.pool.class_pixels,
        training.mix,
        training.sampling,
        training.batch_size,
    )
    method = job.method(job.options, setup)
    torch.manual_seed(job.seed)
    try:
        model = method.build_model(job.model)
    except RunError:
        raise
    except UserError as error:  # of the trunk, which is wrong for this method alone
        raise RunError(f"{method.name} cannot build its model: {error}") from error
    check_needs(method, model.backbone)
    distance = training.feature_distance
    anchor = None if distance is None else FeatureAnchor(model.backbone, distance, job.classes)
    return Learner(model, method.build_training_modules(model), method, anchor), method


def launch_fabric(devices: str = "auto", precision: str = "auto") -> Fabric:
    """Start devices; ``auto`` is all CUDA devices in bf16 mixed precision if there are any, else one CPU process.

    Raises:
        UserError: there are fewer devices, or no such precision.
    """
    cuda = torch.cuda.is_available()
    if cuda:  # what cuBLAS needs to give the same sums twice; it reads this once, when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    precision = ("bf16-mixed" if cuda else "32-true") if precision == "auto" else precision
    try:
        count: int | str = ("auto" if cuda else 1) if devices == "auto" else int(devices)
        fabric = Fabric(
            accelerator="cuda" if cuda else "cpu",
            devices=count,
            strategy="ddp" if count not in (1, "auto") else "auto",
            precision=precision,  # type: ignore[arg-type]
            plugins=LightningEnvironment(),  # or it would take Slurm's tasks, one per job, for the devices
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"devices {devices!r} in precision {precision!r} are not available: {error}") from error
    fabric.launch()
    return fabric


def default_workers(fabric: Fabric) -> int:
    """How many threads prepare batches: none when training on a CPU, else this process' share of cores, up to 8."""
    if fabric.device.type == "cpu":
        return 0
    return max(1, min(8, usable_cores() // fabric.world_size))


class Trainer:
    """A run in memory: learner, optimiser and average, and the one step that all rows take.

    Raises:
        RunError: the method refuses the trunk, or the batch cannot be shared by the devices.
    """

    def __init__(self, job: Job, fabric: Fabric) -> None:
        torch.use_deterministic_algorithms(True, warn_only=fabric.device.type == "cuda")
        # Filling fresh memory with NaN, which comes with it, finds reads of uninitialised memory and costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # missing in stubs
        size = job.training.batch_size
        if size % fabric.world_size:
            raise RunError(f"batch_size {size} cannot be shared evenly by {fabric.world_size} devices")
        share, self.parts = size // fabric.world_size, job.training.accumulate or 1
        if share % self.parts:
            raise RunError(f"a device's share of {share} images cannot be accumulated over {self.parts} equal parts")
        self.job, self.fabric = job, fabric
        self.learner, self.method = build_learner(job)
        channels_last(self.learner)
        self.wrapped, self.optimizer = fabric.setup(self.learner, build_optimizer(self.learner, job.training))
        self.wrapped.train()
        self.average = WeightAverage(self.learner, job.training.ema)
        self.slots = range(fabric.global_rank * share, (fabric.global_rank + 1) * share)
        self.readers: Executor | None = None

    def step(self, iteration: int, batch: Batch | None = None) -> tuple[float, dict[str, Tensor], Tensor]:
        """Take the step of ``iteration``; return the learning rate, the loss terms and their sum, which is on the CPU.

        With ``accumulate`` terms and sum are means over the parts of the batch. A loss that is a mean over pixels is
        then that of the whole batch if all parts have equally many valid pixels; a module that computes statistics over
        the batch computes them over a part. ``batch`` comes from :meth:`batch_ahead`, if it was prepared ahead.

        Raises:
            RunError: the loss is not finite; names iteration, terms and images. The weights are those before the step.
                Or a normalisation got a single value per channel.
        """
        rate = set_learning_rate(self.optimizer, iteration, self.job.training)
        torch.manual_seed(step_seed(self.job.seed, iteration, self.fabric.global_rank))
        batch = self._on_device(batch or self.batch_ahead(iteration))
        self.optimizer.zero_grad(set_to_none=True)
        found: list[dict[str, Tensor]] = []
        losses: list[Tensor] = []
        for part in split_batch(batch, self.parts):
            waiting = len(found) + 1 < self.parts  # gradients are summed over devices once, with the last part
            with (
                self.fabric.no_backward_sync(self.wrapped, enabled=waiting),  # type: ignore[arg-type]
                lone_values(len(part.slots)),
            ):
                terms = self.wrapped(part)
                loss = torch.stack(list(terms.values())).sum()
                self.fabric.backward(loss if self.parts == 1 else loss / self.parts)
            found.append(terms)
            losses.append(loss.detach())
        # Read once per step, as a GPU has to finish its work for it.
        each = torch.stack(losses).cpu()
        for terms, part, loss in zip(found, split_batch(batch, self.parts), each, strict=True):
            if not torch.isfinite(loss):
                raise RunError(describe_divergence(terms, part, self.job.pool))
        self.optimizer.step()
        self.average.update(iteration)
        self.method.after_step(batch)
        return rate, found[0] if self.parts == 1 else mean_terms(found), each.mean()

    def batch(self, iteration: int) -> Batch:
        """This device's part of the batch of ``iteration``."""
        return self._on_device(self.batch_ahead(iteration))

    def batch_ahead(self, iteration: int) -> Batch:
        """The same in host memory, where batches wait; page-locked beside a GPU, which copies in the background."""
        batch = assemble(self.job, self.method, iteration, self.slots, self.readers)
        if self.fabric.device.type != "cuda":
            return batch
        return batch._replace(images=batch.images.pin_memory(), labels=batch.labels.pin_memory())

    def _on_device(self, batch: Batch) -> Batch:
        images, labels = (each.to(self.fabric.device, non_blocking=True) for each in (batch.images, batch.labels))
        return batch._replace(images=images, labels=labels)

    def batches(self, iteration: int) -> Iterator[Batch]:
        """This device's parts of the batches from ``iteration`` on, without end."""
        return map(self.batch, itertools.count(iteration))


def check_finite(tensors: Mapping[str, Tensor], moment: str) -> None:
    """Refuse weights of which one is not finite.

    Raises:
        RunError: names the moment and the first such tensors.
    """
    wrong = [
        name for name, value in tensors.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if wrong:
        raise RunError(f"weights are not finite {moment}: {', '.join(wrong[:5])}")


def train(
    job: Job,
    fabric: Fabric,
    progress: Callable[[int, float], None] | None = None,
    workers: int = 0,
    logger: str = "",
) -> None:
    """Train the run to its end, from its checkpoint if it has one, and write weights and ``run.json``.

    ``progress`` is called with the iterations done and the last loss. ``workers`` threads prepare batches ahead, which
    changes nothing in them; for a method that looks back, whose next batch depends on this one, they read its images in
    parallel. ``logger`` copies the log for another program, which changes nothing in the run.

    Raises:
        RunError: a loss is not finite (names iteration, terms and images), or a final weight, or the method refuses
            the trunk.
        UserError: the disk is full; the checkpoint is damaged or another run's.
    """
    started = datetime.now(UTC)
    training, directory = job.training, job.directory
    name = fingerprint(job.definition)
    trainer = Trainer(job, fabric)
    done = Progress()
    if directory.checkpoint.is_file():
        done, state = load_checkpoint(
            directory.checkpoint, name, trainer.learner, trainer.average.state, trainer.optimizer
        )
        trainer.method.load_state(state)
    log = Log(directory.log, done.log_bytes, logger) if fabric.is_global_zero else None
    observed = moments(training.iterations)
    clock = Clock(done)
    rest = range(done.iteration, training.iterations)
    ahead = 0 if trainer.method.looks_back else workers
    with ExitStack() as threads:
        batches_ahead = threads.enter_context(Prefetcher(trainer.batch_ahead, rest, ahead, ahead + 2))
        if workers > ahead:
            trainer.readers = threads.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="reader"))
            threads.callback(setattr, trainer, "readers", None)
        for iteration, batch in zip(rest, batches_ahead, strict=True):
            rate, terms, total = trainer.step(iteration, batch)
            loss = float(total)
            done.iteration = iteration + 1
            last = done.iteration == training.iterations
            if progress is not None:
                progress(done.iteration, loss)
            if done.iteration in observed:
                model = trainer.learner.model
                observe(trainer.method, model, job.pool, directory, name, done.iteration, log is not None)
            if log is None:
                continue
            if done.iteration % training.log_every == 0 or last:
                clock.read()
                log.write(
                    {"iteration": done.iteration, "learning_rate": rate, "loss": loss}
                    | {f"loss/{key}": float(value.detach()) for key, value in terms.items()}
                    | {"images_per_second": done.iteration * training.batch_size / done.seconds}
                    | trainer.learner.log()
                    | trainer.method.log()
                )
            if done.iteration % training.checkpoint_every == 0 and not last:
                clock.read()
                log.sync()
                done.log_bytes = log.length
                save_checkpoint(
                    directory.checkpoint,
                    name,
                    done,
                    trainer.learner,
                    trainer.average.state,
                    trainer.optimizer,
                    trainer.method.state(),
                )
    learner = trainer.learner
    check_finite(trainer.average.tensors, "after the last iteration")
    learner.load_state_dict(trainer.average.tensors)
    model = trainer.method.finish(learner.model, learner.training_modules, trainer.batches(training.iterations))
    check_finite(model.state_dict(), "after finish()")
    written: dict[str, str] = {}
    if log is not None:
        log.sync()
        weights = save_tensors(directory.weights, model.state_dict(), {"fingerprint": name})
        written = {"weights_sha256": weights, "log_sha256": file_digest(directory.log)}
    memory = peak_memory(fabric.device)
    # On every rank, as a method may gather over ranks in its losses; on a part, as a whole batch may not fit.
    part = next(split_batch(trainer.batch(training.iterations), trainer.parts))
    cost = measure_cost(trainer.wrapped, fabric.backward, model, part)
    cost["step_flops"] *= trainer.parts
    if log is not None:
        write_json(directory.record, run_record(job, name, fabric, model, started, done, memory) | cost | written)
        directory.checkpoint.unlink(missing_ok=True)
