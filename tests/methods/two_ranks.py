"""Trains each method for two steps on two CPU processes, as ``flexseg train --devices 2`` does.

    python two_ranks.py RESULTS OUTPUT METHODS NAME...

``test_two_ranks.py`` runs it. RESULTS holds the data of the smoke benchmark, METHODS the files. Under OUTPUT every
process leaves ``<name>.<rank>.json`` with what happened, and two files of tensors: ``.apart``, where each process has
its own half of a batch, and ``.equal``, where the halves are equal. A NAME of :data:`CURVES` is a longer run with
different halves, which leaves one file, ``.curve``. A method that raises in a step ends the launch: its processes may
wait for each other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import builders
import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor

import flexseg.engine.train as engine
from flexseg.benchmark import Training, load_benchmark
from flexseg.components.ranks import gather_over_ranks
from flexseg.data.draws import step_seed
from flexseg.data.pool import Pool
from flexseg.engine.batches import Job
from flexseg.engine.train import Trainer, build_learner, launch_fabric
from flexseg.errors import MissingExtra, RunError
from flexseg.method import parse_options
from flexseg.method_files import load_method

ROOT = Path(__file__).parents[2]
SMALL = {"dim": 16}
PER_RANK = ("running_mean", "running_var", "running_whitening", "running_covariance", "num_batches_tracked")
"""Moving averages of one process's batches, as BatchNorm's are: those of the first process are kept."""
STEPS = 2
CURVES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "curve-plain": ("dginstyle", {}, {"accumulate": 2, "mix": (1.0, 2.0)}),
    "curve-hard": ("flexseg", {"gap": False, "has_schedule": "none", "has_decay": 0.5}, {}),
    "curve-rare": (
        "flexseg",
        {"gap": False, "has_midpoint": 30.0},
        {"sampling": builders.RARE, "photometric": "mmseg"},
    ),
    "curve-prototypes": ("flexseg", {"dim": 16, "momentum": 0.5}, {}),
}
"""Runs whose halves are compared with the whole: a method, its options, keys of the training."""
CURVE_STEPS = 6


def make_job(name: str, results: Path, methods: Path, batch_size: int) -> Job:
    """A run of two steps on the smoke benchmark's data and trunk without dropout, at a constant rate."""
    smoke = load_benchmark("smoke", ROOT / "benchmarks")
    method = load_method(name, methods)
    known = {field.name for field in dataclasses.fields(method.Options)}
    options = {key: value for key, value in SMALL.items() if key in known}
    schedule = {"iterations": STEPS, "batch_size": batch_size, "warmup": 0, "power": 0.0, "crop": (32, 64)}
    training = smoke.training.model_copy(update=schedule)
    model = smoke.model | {"decode_head": smoke.model["decode_head"] | {"dropout_ratio": 0.0}}
    pool = builders.open_domains(smoke, results, *method.data)
    return builders.make_job(smoke, name, pool, options, method=method, training=training, model=model)


def trained(job: Job, fabric: Fabric, distinct: int) -> tuple[dict[str, Tensor], bool]:
    """Take the steps with ``distinct`` different slots in a batch, of which the other slots are copies.

    Returns ``weight/…``, ``buffer/…``, ``average/…``, ``state/…`` after the last step, ``gradient/…`` of the first one
    and ``loss/<step>/…``; and whether a step drew from torch's own generator, which is another one in each process.
    """
    original, drew = engine.assemble, False
    engine.assemble = lambda job, method, iteration, slots, device, readers=None: original(
        job, method, iteration, [slot % distinct for slot in slots], device
    )
    found: dict[str, Tensor] = {}
    try:
        trainer = Trainer(job, fabric)
        for iteration in range(STEPS):
            _, terms, _ = trainer.step(iteration)
            now = torch.get_rng_state()
            torch.manual_seed(step_seed(job.seed, iteration, fabric.global_rank))
            drew |= not torch.equal(now, torch.get_rng_state())
            found |= {f"loss/{iteration}/{key}": value.detach().clone() for key, value in terms.items()}
            if iteration == 0:
                for key, value in trainer.learner.named_parameters():
                    if value.requires_grad:
                        assert value.grad is not None, f"{key} got no gradient"
                        found[f"gradient/{key}"] = value.grad.clone()
    finally:
        engine.assemble = original
    averages = trainer.average.tensors
    found |= {f"weight/{key}": value.detach() for key, value in trainer.learner.named_parameters()}
    found |= {f"average/{key}": averages[key] for key, _ in trainer.learner.named_parameters()}
    buffers = {key: value for key, value in trainer.learner.named_buffers() if key in averages}
    found |= {f"buffer/{key}": value for key, value in buffers.items() if not key.endswith(PER_RANK)}
    found |= {f"state/{key}": torch.from_numpy(value.copy()) for key, value in trainer.method.state().items()}
    return {key: value.clone().contiguous() for key, value in found.items()}, drew


def make_curve_job(name: str, results: Path, methods: Path) -> Job:
    """A run of :data:`CURVES`: without void and without norms over a batch, so that halves can be the whole."""
    method, options, changes = CURVES[name]
    job = make_job(method, results, methods, 4)
    labels = [np.where(label == 255, 10, label).astype(np.uint8) for label in job.pool.labels]
    groups = {"norm_cfg": {"type": "GN", "num_groups": 2}}
    schedule = {"iterations": CURVE_STEPS, "scale": (1.0, 1.0), "optimizer": "sgd", "learning_rate": 0.3}
    return dataclasses.replace(
        job,
        options=parse_options(job.method, options),
        training=Training(**(job.training.model_dump() | schedule | changes)),
        model={part: each | groups for part, each in job.model.items()},
        pool=Pool.of(job.pool.images, labels, job.pool.ids, job.pool.conditions, job.pool.origins),
    )


def curve(job: Job, fabric: Fabric) -> dict[str, Tensor]:
    """Train to the end: ``loss/<step>/…``, means over the processes, and the method's state at the first and last step.

    ``images/<step>`` are the images of the whole batch.
    """
    trainer = Trainer(job, fabric)
    found: dict[str, Tensor] = {}
    for iteration in range(CURVE_STEPS):
        batch = trainer.batch(iteration)
        _, terms, _ = trainer.step(iteration, batch)
        found[f"images/{iteration}"] = gather_over_ranks(torch.from_numpy(batch.indices))
        for key, value in terms.items():
            found[f"loss/{iteration}/{key}"] = gather_over_ranks(value.detach().reshape(1)).mean()
        if iteration in (0, CURVE_STEPS - 1):
            buffers = trainer.learner.named_buffers()
            found |= {
                f"state/{iteration}/{key}": torch.from_numpy(v.copy()) for key, v in trainer.method.state().items()
            }
            found |= {f"state/{iteration}/{key}": value.clone() for key, value in buffers if "bank" in key}
    return {key: value.clone().contiguous() for key, value in found.items()}


def attempt(name: str, results: Path, output: Path, methods: Path, fabric: Fabric) -> None:
    """Train a method both ways and write what happened."""
    rank = fabric.global_rank
    outcome: dict[str, Any] = {"failed": "", "refused": "", "drew": False}
    stepping = False
    try:
        if name in CURVES:
            save_file(curve(make_curve_job(name, results, methods), fabric), output / f"{name}.{rank}.curve")
            return
        job = make_job(name, results, methods, 4)
        build_learner(job)  # what it refuses, it refuses on every process
        stepping = True
        for way, distinct in (("apart", 4), ("equal", 2)):
            tensors, drew = trained(job, fabric, distinct)
            outcome["drew"] |= drew
            save_file(tensors, output / f"{name}.{rank}.{way}")
    except Exception as error:
        refuses = isinstance(error, MissingExtra) or (isinstance(error, RunError) and load_method(name, methods).needs)
        if refuses and not stepping:
            outcome["refused"] = str(error)
        else:
            outcome["failed"] = traceback.format_exc()
    finally:
        (output / f"{name}.{rank}.json").write_text(json.dumps(outcome))
    if stepping and outcome["failed"]:
        os._exit(1)


def main(results: Path, output: Path, methods: Path, names: list[str]) -> None:
    """Train the methods in turn."""
    torch.set_num_threads(1)
    fabric = launch_fabric("2")
    for name in names:
        attempt(name, results, output, methods, fabric)
        fabric.barrier()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4:])
