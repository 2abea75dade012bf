"""Checkpoints and weights as safetensors: tensors and JSON only, nothing that unpickling could run."""

from __future__ import annotations

import errno
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from flexseg.errors import UserError
from flexseg.files import DiskError, describe_disk_error, replacing
from flexseg.tensor_files import SEAL, UNSEALED, check_seal, seal

_START_OVER = "delete it to start over"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> str:
    """Write tensors in one piece, with the digest of all of it, and return the digest of the tensors alone.

    Only what is not contiguous, not on the CPU or shares its memory is copied.

    Raises:
        DiskError: the disk is full; the previous version of the file is still there.
    """
    content = _separate(tensors)
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            safetensors.torch.save_file(content, temporary, metadata | {SEAL: UNSEALED})
            temporary.chmod(mode)  # safetensors makes its files readable by their owner only
            return seal(temporary)
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            size = sum(tensor.nbytes for tensor in content.values())
            raise DiskError(
                f"no space left while writing {path} ({size / 2**20:.1f} MiB). The previous checkpoint is "
                "intact: free some space and start the same command again, which resumes from there"
            ) from error
        if number is not None and not isinstance(error, OSError):
            raise OSError(number, f"{path} cannot be written: {error}") from error
        raise


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the tensors contiguous, on the CPU and, as safetensors demands, no two in the same memory."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().contiguous().cpu()
        address = value.untyped_storage().data_ptr()
        found[name] = value.clone() if address in taken else value
        taken.add(address)
    return found


def _error_number(error: OSError | SafetensorError) -> int | None:
    """The system's error number, which safetensors only gives in its message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def load_tensors(
    path: Path, remedy: str = "delete its run's directory and train again", expected: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata, and check them against the file's digest, if it has one.

    Args:
        remedy: what to do about a damaged file. expected: the digest of its tensors that another file kept.

    Raises:
        UserError: the file is missing or damaged. DiskError: the disk does not let it be read.
    """
    try:
        check_seal(path, expected)
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, UserError) as error:
        number = None if isinstance(error, UserError) else _error_number(error)
        if number not in (None, errno.ENOENT):
            raise DiskError(describe_disk_error(OSError(number, str(error)), path)) from error
        reason = "there is no such file" if number else str(error).removeprefix(f"{path} ")
        raise UserError(f"{path} cannot be read ({reason}): {remedy}") from error
    metadata.pop(SEAL, None)
    return tensors, metadata


def _differences(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The first tensors that are not in both, or have another shape or a type that loses digits; empty if none."""
    wrong = sorted(own.keys() ^ found.keys())
    for name in sorted(own.keys() & found.keys()):
        ours, theirs = own[name], found[name]
        fits = torch.promote_types(ours.dtype, theirs.dtype) == ours.dtype
        if ours.shape != theirs.shape or not fits or ours.is_floating_point() != theirs.is_floating_point():
            wrong.append(name)
    return ", ".join(wrong[:5])


def load_weights(model: nn.Module, path: Path, expected: str | None = None) -> None:
    """Load final weights into ``model``.

    Args:
        expected: the digest of the tensors that the run recorded; None for runs from before there was one.

    Raises:
        UserError: the file is damaged, or its names, shapes or types are those of another model (lists the first).
    """
    tensors, _ = load_tensors(path, expected=expected)
    if wrong := _differences(model.state_dict(), tensors):
        raise UserError(f"{path} holds the weights of another model; first differences: {wrong}")
    model.load_state_dict(tensors)


@dataclass
class Progress:
    """How far a run has come: iterations done, seconds spent training, bytes of its log, and processor seconds.

    Processor time does not count other work on the machine, so runs that shared one can be compared by it.
    """

    iteration: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    cpu_seconds: float = 0.0


def save_checkpoint(
    path: Path,
    name: str,
    progress: Progress,
    learner: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    method_state: Mapping[str, np.ndarray],
) -> None:
    """Write everything that the next iteration depends on.

    ``name`` is the run's fingerprint, ``average`` :attr:`flexseg.engine.optimise.WeightAverage.state`.
    """
    tensors = {f"learner/{key}": value for key, value in learner.state_dict().items()}
    tensors |= {f"average/{key}": value for key, value in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    tensors |= {f"method/{key}": torch.from_numpy(np.asarray(value, order="C")) for key, value in method_state.items()}
    save_tensors(path, tensors, {"fingerprint": name, "progress": json.dumps(vars(progress))})


def load_checkpoint(
    path: Path,
    name: str,
    learner: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[Progress, dict[str, np.ndarray]]:
    """Restore what :func:`save_checkpoint` wrote; return the progress and the method's own state.

    Raises:
        UserError: the file is damaged or belongs to another run.
    """
    tensors, metadata = load_tensors(path, remedy=_START_OVER)
    if metadata.get("fingerprint") != name:
        raise UserError(f"{path} is the checkpoint of another run ({metadata.get('fingerprint')}): {_START_OVER}")
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "average": {}, "optimizer": {}, "method": {}}
    try:
        progress = _read_progress(metadata["progress"])
        for key, value in tensors.items():
            part, _, rest = key.partition("/")
            parts[part][rest] = value
        for own, part in ((learner.state_dict(), "learner"), (average, "average")):
            if wrong := _differences(own, parts[part]):
                raise ValueError(f"first differences: {wrong}")
        _load_optimizer(optimizer, parts["optimizer"])
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise UserError(f"{path} does not fit this run ({type(error).__name__}: {error}): {_START_OVER}") from error
    learner.load_state_dict(parts["learner"])
    for key, value in average.items():
        value.copy_(parts["average"][key])
    return progress, {key: value.numpy() for key, value in parts["method"].items()}


def _read_progress(text: str) -> Progress:
    progress = Progress(**json.loads(text))
    if type(progress.iteration) is not int or type(progress.log_bytes) is not int:
        raise ValueError("iterations and bytes are no whole numbers")
    values = (progress.iteration, progress.log_bytes, progress.seconds, progress.cpu_seconds)
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError("a negative number")
    return progress


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, _, quantity = key.partition("/")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:  # the fused optimiser needs moments in the memory layout of their parameter
            value = torch.empty_like(parameter).copy_(value)
        elif value.ndim:
            raise ValueError(f"first differences: optimizer/{key}")
        state.setdefault(int(index), {})[quantity] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
