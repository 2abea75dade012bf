"""Trains real trunks in little with the whole recipe, on as many CPU processes as it is told.

    python two_processes.py DEVICES OUTPUT METHODS

``test_two_processes.py`` runs it. For every trunk the first process leaves ``OUTPUT/<trunk>.json`` with the loss terms
of each step (means over the processes) and how far apart the processes ended; and the directories ``<trunk>/straight``
and ``<trunk>/interrupted``, of a run that was left alone and of one that was stopped behind its checkpoint and went on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from builders import RECIPE, mit
from lightning_fabric import Fabric

from flexseg.benchmark import Training
from flexseg.benchmark.identity import RunDirectory
from flexseg.components.ranks import gather_over_ranks
from flexseg.data.pool import Pool
from flexseg.engine.batches import Job
from flexseg.engine.train import Trainer, launch_fabric, train
from flexseg.method import parse_options
from flexseg.method_files import load_method

STEPS = 4
SIDE = 64
GROUPS = {"type": "GN", "num_groups": 2}
BACKBONE = mit()["backbone"]
HEAD = mit()["decode_head"] | {"channels": 16, "embed_dims": 16, "dilations": [1, 2], "norm_cfg": GROUPS}
ATTENTION = {"type": "SegformerHead", "channels": 16, "dropout_ratio": 0.0, "norm_cfg": GROUPS}
TRUNKS: dict[str, dict[str, Any]] = {
    "daformer": {"backbone": BACKBONE, "decode_head": HEAD},
    # A detail crop of the whole image, as each process draws the place of its own.
    "hrda": {
        "backbone": BACKBONE,
        "decode_head": HEAD,
        "hrda": {"detail": [SIDE, SIDE], "stride": [SIDE, SIDE], "attention": ATTENTION},
    },
}
SCHEDULE: dict[str, Any] = RECIPE | {
    "iterations": STEPS,
    "batch_size": 4,
    "crop": (SIDE, SIDE),
    "scale": (1.0, 1.0),
    "learning_rate": 0.01,
    "checkpoint_every": 2,
    "log_every": 1,
}


def images(count: int = 12) -> Pool:
    """Cars and persons, one of them in each cell of 32 pixels; the last third of the images are generated."""
    rng = np.random.default_rng(0)
    labels = [rng.choice([11, 13], (2, 2)).astype(np.uint8).repeat(32, 0).repeat(32, 1) for _ in range(count)]
    pixels = [rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8) for _ in labels]
    origins = (np.arange(count) >= count - count // 3).astype(np.int8)
    return Pool.of(pixels, labels, [f"image-{i}" for i in range(count)], [""] * count, origins)


def make_job(trunk: str, directory: Path, methods: Path, exact: bool = False) -> Job:
    """FLEX-Seg on one of :data:`TRUNKS`, with the whole recipe.

    ``exact`` leaves out what two processes cannot have as one has it: the parts of a batch are others, GAP's mean is
    over the boundary pixels of a device, and the gradient of the first feature distance is that of a norm at 0.
    """
    method = load_method("flexseg", methods)
    chosen = parse_options(method, {"dim": 16, "has_midpoint": 30.0, "gap": not exact})
    directory.mkdir(parents=True, exist_ok=True)
    training = Training(**SCHEDULE | ({"feature_distance": None} if exact else {"accumulate": 2}))
    return Job(RunDirectory(directory), {}, method, chosen, training, TRUNKS[trunk], 0, images(), {})


def curve(job: Job, fabric: Fabric) -> dict[str, Any]:
    """The loss terms of each step, and the largest difference between the processes' parameters and buffers."""
    trainer = Trainer(job, fabric)
    steps = []
    for iteration in range(STEPS):
        _, terms, _ = trainer.step(iteration)
        steps.append({key: float(gather_over_ranks(value.detach()[None]).mean()) for key, value in terms.items()})
    state = trainer.learner.state_dict() | {k: torch.from_numpy(v) for k, v in trainer.method.state().items()}
    apart = [gather_over_ranks(value.double()[None].contiguous()) for value in state.values()]
    return {"steps": steps, "apart": max(float((each - each[:1]).abs().max()) for each in apart)}


class Stopped(Exception):
    """A run was stopped on purpose."""


def stop(iteration: int, loss: float) -> None:
    """Stop behind the checkpoint."""
    if iteration == 3:
        raise Stopped


def main(devices: str, output: Path, methods: Path) -> None:
    """Train every trunk."""
    torch.set_num_threads(1)
    fabric = launch_fabric(devices)
    half = launch_fabric(devices, "bf16-mixed") if devices == "1" else None
    for trunk in TRUNKS:
        curves = {
            "exact": curve(make_job(trunk, output / trunk, methods, exact=True), fabric),
            "whole": curve(make_job(trunk, output / trunk, methods), fabric),
        }
        if half is not None:
            curves["half"] = curve(make_job(trunk, output / trunk, methods), half)
        if fabric.is_global_zero:
            (output / f"{trunk}.json").write_text(json.dumps(curves))
        train(make_job(trunk, output / trunk / "straight", methods), fabric)
        try:
            train(make_job(trunk, output / trunk / "interrupted", methods), fabric, stop)
        except Stopped:
            fabric.barrier()
        train(make_job(trunk, output / trunk / "interrupted", methods), fabric)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
