"""What a benchmark needs of the machine, estimated before any work: memory of a training run, and disk.

Both are lower bounds: of memory the weights, their gradients and the optimiser's moments, and the activations that a
step keeps for its backward pass, which a run of the trunk on torch's ``meta`` device counts without computing anything;
of disk the weights that the runs keep and the images that are rendered, as far as they are not there yet.

Too little disk is refused. Too little memory is only said, as a benchmark may be checked on a login node and trained on
another machine, unless no machine has so much.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexseg.benchmark import Benchmark, Run, Training
from flexseg.data.frames import existing_folder
from flexseg.data.index import INDEX_NAME
from flexseg.errors import UserError
from flexseg.files import digest
from flexseg.tasks.datasets import domain_folder
from flexseg.tasks.doctor import needed_domains

FLOAT = 4
"""Bytes of a number in single precision."""
COPIES = {"adamw": 4, "sgd": 3}
"""Weights, gradients and moments: how many numbers a weight takes while it is trained."""
PIXEL = 0.7
"""Bytes of a pixel of a rendered image and its label as PNG: 2.0 at 64×128 pixels, and less where they are larger."""
LARGEST = 2e12
"""Bytes of memory that no machine for training has."""


@dataclass(frozen=True)
class Needs:
    """At least so many bytes of memory for a run, and of disk for all results."""

    memory: int
    disk: int


def measure_needs(benchmark: Benchmark, trunks: Mapping[str, Any], results: Path) -> Needs:
    """Estimate what the rows of a benchmark need.

    Args:
        trunks: the built trunks (:class:`flexseg.models.Segmentor`) by the digest of their description.
    """
    memory, disk = 0, 0
    measured: dict[tuple[str, int, int, int], int] = {}
    for name in benchmark.trained_rows:
        key, training = digest(benchmark.model_of(name)), benchmark.training_of(name)
        if key not in trunks:
            continue
        weights = sum(parameter.numel() for parameter in trunks[key].parameters()) * FLOAT
        images = training.batch_size // (training.accumulate or 1)
        shape = (key, images, *training.crop)
        if shape not in measured:
            measured[shape] = saved_bytes(trunks[key], images, training.crop)
        memory = max(memory, measured[shape] + weights * _copies(training))
        runs = [Run(benchmark, name, seed, results) for seed in benchmark.planned_seeds(name)]
        disk += 0 if benchmark.runs else weights * sum(not run.directory.weights.is_file() for run in runs)
    for name in needed_domains(benchmark):
        domain, world = benchmark.domains[name], benchmark.world
        if domain.rendered and world and not (domain_folder(results, benchmark, name) / INDEX_NAME).is_file():
            images = sum(domain.size(split) or 0 for split in domain.parts)
            disk += int(images * world.height * world.width * PIXEL)
    return Needs(memory, disk)


def _copies(training: Training) -> int:
    return COPIES[training.optimizer or "adamw"] + bool(training.ema)


def saved_bytes(trunk: Any, images: int, crop: tuple[int, int]) -> int:
    """The bytes that a forward pass of ``images`` crops keeps for the backward pass; 0 where that cannot be counted.

    Args:
        trunk: in train mode; it is copied, and so keeps its state.
    """
    import copy

    import torch

    seen: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        seen[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        model = copy.deepcopy(trunk).to("meta")
        batch = torch.empty(images, 3, *crop, device="meta")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.random.fork_rng():
            output = model(batch)  # held until all is counted, or its storages' addresses would be used again
            own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
            found = sum(t.untyped_storage().nbytes() for key, t in seen.items() if key not in own)
            del output
    except (NotImplementedError, RuntimeError, AttributeError, TypeError):  # an operator without shapes alone
        return 0
    return found


def memory_of_machine() -> int:
    """Bytes of memory that this machine lets a process use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # no such control group, or no limit
            continue
    return total


def memory_there() -> int:
    """Bytes of memory of the smallest GPU, if there is one, else of the machine."""
    import torch

    if torch.cuda.is_available():
        return min(torch.cuda.mem_get_info(number)[1] for number in range(torch.cuda.device_count()))
    return memory_of_machine()


@contextmanager
def within_memory() -> Iterator[None]:
    """Let an allocation fail that the machine has no memory for, where the system would end the process later."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    there = memory_of_machine()
    limit = there if before[0] == resource.RLIM_INFINITY else min(there, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def compare_needs(needs: Needs, results: Path, name: str) -> list[str]:
    """Compare needs with what is there, and return lines to print.

    Raises:
        UserError: there is less free disk below ``results`` than is needed at least, or no machine has the memory.
    """
    remedy = "take a smaller training.crop or batch_size, or cut the batch with training.accumulate"
    if needs.memory > LARGEST:
        raise UserError(f"benchmark {name}: a step needs {_size(needs.memory)} of memory or more: {remedy}")
    folder = existing_folder(results)
    free = shutil.disk_usage(folder).free
    if needs.disk > free:
        raise UserError(
            f"benchmark {name}: its results need {_size(needs.disk)} of disk or more, and {_size(free)} are free at "
            f"{folder}: free some, or make results a link to a larger disk"
        )
    there = memory_there()
    if needs.memory > there:
        short = f"in single precision a step needs {_size(needs.memory)} of memory or more, and here are {_size(there)}"
        return [f"{name}: {short}: train on another machine, or {remedy}"]
    return []


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
