"""A run's log for other programs: TensorBoard's event files or a CSV, as Lightning Fabric's loggers write them.

They are copies. Whatever a training writes to them is in ``train.jsonl`` too, from which they are made anew whenever it
starts or resumes: so an iteration is never in them twice, and they are complete however often a run was interrupted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flexseg.errors import MissingExtra, UserError, did_you_mean

LOGGERS = ("tensorboard", "csv")
"""What ``--logger`` may be. A copy lies in a folder of this name in the run's directory."""


def check_logger(name: str) -> None:
    """Refuse a logger that there is not, before any work; an empty name is none.

    Raises:
        UserError: there is no such logger. MissingExtra: its package is not installed; says how to install it.
    """
    if name and name not in LOGGERS:
        raise UserError(f"there is no logger {name!r}{did_you_mean(name, LOGGERS)}: choose {' or '.join(LOGGERS)}")
    if name == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtra(
            "the logger tensorboard needs the package tensorboard, which is not installed. Nothing was started. "
            "Install it with `pip install --no-deps -r requirements-tensorboard.lock`, "
            "or `pip install 'flexseg[tensorboard]'`"
        )


class Copy:
    """The copy of a log in the folder ``directory/name``, begun anew from the log's ``lines`` so far."""

    def __init__(self, name: str, directory: Path, lines: Iterable[bytes] = ()) -> None:
        shutil.rmtree(directory / name, ignore_errors=True)
        self._logger: Any
        if name == "tensorboard":
            from lightning_fabric.loggers import TensorBoardLogger

            self._logger = TensorBoardLogger(directory, name="", version=name)
        else:
            from lightning_fabric.loggers import CSVLogger

            self._logger = CSVLogger(directory, name="", version=name)
        for line in lines:
            with contextlib.suppress(ValueError):  # torn by a power cut
                self._add(json.loads(line))
        self._logger.save()

    def write(self, values: Mapping[str, float]) -> None:
        """Append a line of the log, and have it on the disk, where others may be reading."""
        self._add(values)
        self._logger.save()

    def _add(self, values: Mapping[str, float]) -> None:
        if "iteration" in values:  # else it is a gap
            scalars = {key: value for key, value in values.items() if key != "iteration"}
            self._logger.log_metrics(scalars, step=int(values["iteration"]))


def copy_log(name: str, log: Path) -> Path:
    """Copy the log of a finished run; the folder of the copy."""
    Copy(name, log.parent, log.read_bytes().splitlines())
    return log.parent / name
