"""Where data sets may be: the data root, and the folders below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from flexseg.data.sets import DataSet
from flexseg.errors import UserError

VARIABLE = "FLEXSEG_DATA"
"""The environment variable that names the data root if a benchmark names none."""


class Missing(UserError):
    """A data set cannot be used as it is: nothing was found, only half of it, or labels that cannot be used."""

    def __init__(self, message: str, state: Literal["missing", "incomplete", "refused"]) -> None:
        super().__init__(message)
        self.state = state


def _expand(text: Path | str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: there is no user {Path(text).parts[0][1:]!r}; give the whole path") from error


def data_root(setting: str = "") -> Path | None:
    """The folder that holds data sets: ``setting``, else the environment's ``FLEXSEG_DATA``, else none."""
    chosen = setting or os.environ.get(VARIABLE, "")
    return _expand(chosen).absolute() if chosen else None


def roots(dataset: DataSet, root: Path | str | None, override: str = "") -> list[Path]:
    """The folders where a set may be, in the order in which they are tried.

    Raises:
        Missing: there is no data root to look in.
    """
    place = _expand(override)
    if override and place.is_absolute():
        return [place]
    if not override and all(Path(folder).is_absolute() for folder in dataset.folders):  # a set of one's own
        return [Path(folder) for folder in dataset.folders]
    remedy = (
        f"Set the environment variable {VARIABLE} or the benchmark's data_root to the folder that holds your data sets"
    )
    if not root:
        raise Missing(f"{dataset.title} cannot be looked for: no data root is known. {remedy}", "missing")
    below = _expand(root).absolute()
    if not os.path.isdir(below):
        raise Missing(f"{dataset.title} cannot be looked for: the data root {below} is no folder. {remedy}", "missing")
    if not os.access(below, os.R_OK | os.X_OK):
        text = f"the data root {below} may not be read (permission denied): change that, or ask its owner"
        raise Missing(f"{dataset.title} cannot be looked for: {text}", "missing")
    return candidates(dataset, below, override)


def candidates(dataset: DataSet, root: Path, override: str = "") -> list[Path]:
    """The folders below ``root`` where a set may be; ``override`` is its own, if it has one."""
    return [root / override] if override else [root / folder for folder in dataset.folders]
