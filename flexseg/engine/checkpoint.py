"""Checkpoints and weights as safetensors: tensors and JSON only, nothing that unpickling could run."""

from __future__ import annotations

import errno
import json
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
from flexseg.files import replacing


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors in one piece. Only what is not contiguous, not on the CPU or shares its memory is copied.

    Raises:
        UserError: the disk is full; the previous version of the file is still there.
    """
    content = _separate(tensors)
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            safetensors.torch.save_file(content, temporary, dict(metadata))
            temporary.chmod(mode)  # safetensors makes its files readable by their owner only
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            size = sum(tensor.nbytes for tensor in content.values())
            raise UserError(
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


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete its run's directory and train again") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load final weights into ``model``.

    Raises:
        UserError: the file is damaged, or its names or shapes are those of another model (lists the first).
    """
    tensors, _ = load_tensors(path)
    expected = model.state_dict()
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if wrong:
        raise UserError(f"{path} holds the weights of another model; first differences: {', '.join(wrong[:5])}")
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
    tensors, metadata = load_tensors(path)
    if metadata.get("fingerprint") != name:
        raise UserError(
            f"{path} is the checkpoint of another run ({metadata.get('fingerprint')}): delete it to start over"
        )
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "average": {}, "optimizer": {}, "method": {}}
    for key, value in tensors.items():
        part, _, rest = key.partition("/")
        parts[part][rest] = value
    learner.load_state_dict(parts["learner"])
    for key, value in average.items():
        value.copy_(parts["average"][key])
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in parts["optimizer"].items():
        index, _, quantity = key.partition("/")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:  # the fused optimiser needs moments in the memory layout of their parameter
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(index), {})[quantity] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**json.loads(metadata["progress"])), {key: value.numpy() for key, value in parts["method"].items()}
