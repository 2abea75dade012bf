"""What a training run writes down: its log, its times, and the record of the finished run."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from flexseg.data.pool import Pool
from flexseg.engine.batches import Job
from flexseg.engine.checkpoint import Progress
from flexseg.engine.loggers import Copy
from flexseg.files import replacing
from flexseg.kernels import INSTRUCTION_SETS, are_held, processor_flags
from flexseg.method import Batch, describe_options
from flexseg.models import Segmentor
from flexseg.provenance import code_digest, git_state, loaded_code, machine, package_versions
from flexseg.shows import describe_shows


class Clock:
    """Adds the time since it was last read to a run's progress."""

    def __init__(self, done: Progress) -> None:
        self._done, self._wall, self._cpu = done, time.perf_counter(), time.process_time()

    def read(self) -> None:
        """Add wall and processor time."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._done.seconds += wall - self._wall
        self._done.cpu_seconds += cpu - self._cpu
        self._wall, self._cpu = wall, cpu


class Log:
    """``train.jsonl``, cut back to its length at the checkpoint, so that no iteration is in it twice.

    Where lines are missing or torn, as a power cut leaves them, a line ``{"gap": bytes}`` is as long as they were, so
    that the checkpoint's length stays right; this is printed.

    Args:
        logger: also keep a copy in this form (:data:`flexseg.engine.loggers.LOGGERS`); empty for none.
    """

    def __init__(self, path: Path, length: int, logger: str = "") -> None:
        found = path.read_bytes()[:length] if length and path.is_file() else b""
        whole, lost = _fill_gaps(found.ljust(length, b"\0"))
        if lost:
            print(f"{path}: {lost} of {length} bytes are missing or damaged: there its lines have a gap")
            with replacing(path) as temporary:
                temporary.write_bytes(whole)
        self._file = path.open("r+b" if length else "wb")
        self._file.truncate(len(whole))
        self._file.seek(0, 2)
        self._copy = Copy(logger, path.parent, whole.splitlines()) if logger else None

    def write(self, values: Mapping[str, float]) -> None:
        """Append one line."""
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()
        if self._copy is not None:
            self._copy.write(values)

    def sync(self) -> None:
        """Have all lines on the disk, as a checkpoint that counts them is going to be."""
        os.fsync(self._file.fileno())

    @property
    def length(self) -> int:
        """The file's length in bytes."""
        return self._file.tell()


def _fill_gaps(content: bytes) -> tuple[bytes, int]:
    """Replace what are no whole lines of JSON by lines of the same length; also return the bytes of these."""
    parts: list[tuple[bool, bytes]] = []
    for line in content.splitlines(keepends=True):
        whole = _is_whole(line)
        if parts and not whole and not parts[-1][0]:
            line = parts.pop()[1] + line
        parts.append((whole, line))
    gaps = [len(line) for whole, line in parts if not whole]
    filled = (
        line if whole else json.dumps({"gap": len(line)}).encode().ljust(len(line) - 1) + b"\n" for whole, line in parts
    )
    return b"".join(filled), sum(gaps)


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def describe_divergence(terms: Mapping[str, Tensor], batch: Batch, pool: Pool) -> str:
    """The message for a loss that is not finite: the iteration, the terms, and the images."""
    values = ", ".join(f"{key} = {float(value.detach()):.4g}" for key, value in terms.items())
    images = ", ".join(pool.ids[index] for index in batch.indices)
    return (
        f"the loss is not finite at iteration {batch.iteration} ({values}); images: {images}. "
        "Try a lower learning rate or a longer warm-up"
    )


def peak_memory(device: torch.device) -> int:
    """The most memory, in bytes, that this process has used: of the GPU if it trains on one, else its own."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def kernels_in_use() -> dict[str, Any]:
    """The instruction sets and the numeric libraries that this process computes with, and what the processor has.

    ``held`` says whether :mod:`flexseg.kernels` holds all of them to one instruction set.
    """
    flags = processor_flags()
    features: dict[str, bool] = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    blas = re.search(r"Math Kernel Library Version (\S+)", torch.__config__.show())
    return {
        "held": are_held(),
        "torch": torch.backends.cpu.get_cpu_capability(),
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", "native"),
        "mkl": f"{blas[1] if blas else 'none'}, {os.environ.get('MKL_CBWR', 'native')}",
        "openblas": os.environ.get("OPENBLAS_CORETYPE", "native"),
        "numpy": max((name for name in ("X86_V2", "X86_V3", "X86_V4") if features.get(name)), default="other"),
        "opencv": cv2.__version__,
        "libc": " ".join(platform.libc_ver()),
        "processor": next((name for name in reversed(INSTRUCTION_SETS) if name in flags), platform.machine()),
    }


def run_record(
    job: Job, name: str, fabric: Fabric, model: Segmentor, started: datetime, done: Progress, memory: int
) -> dict[str, Any]:
    """``run.json`` of a finished run: what defined it, the code and machine that made it, and what it took."""
    device, files = fabric.device, loaded_code()
    return {
        "status": "finished",
        "fingerprint": name,
        "definition": job.definition,
        "options": describe_options(job.options),
        "shows": describe_shows(job.method.shows),
        "library": code_digest(tuple(files)),
        "library_files": files,
        "git": git_state(),
        "versions": package_versions(),
        "machine": machine(),
        "kernels": kernels_in_use(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "devices": fabric.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(fabric._precision.precision),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "train_seconds": round(done.seconds, 3),
        "train_cpu_seconds": round(done.cpu_seconds, 3),
        "images_per_second": round(job.training.iterations * job.training.batch_size / done.seconds, 3),
        "peak_memory_bytes": memory,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trunk_weights": getattr(model.backbone, "weights_sha256", None),
        "trunk_weights_licence": getattr(model.backbone, "weights_licence", None),
        "data": {domain: index.digest for domain, index in job.indices.items()},
    }
