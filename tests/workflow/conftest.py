"""A copy of the repository in which tests may train, edit and break things, and commands that run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LEFT_OUT = {".git", ".venv", "results", "reports", ".snakemake", "__pycache__"}
LEFT_OUT |= {".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", "flexseg.egg-info", "tests"}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment() -> Callable[[Path], dict[str, str]]:
    """The environment of a command in a copy: its own library comes first, one thread."""

    def variables(copy: Path) -> dict[str, str]:
        path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
        return os.environ | {"PATH": path, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    return variables


@pytest.fixture(scope="session")
def make_copy() -> Callable[[Path], Path]:
    """``make_copy(folder)``: a copy of what the workflow needs of the repository."""

    def copy(folder: Path) -> Path:
        shutil.copytree(ROOT, folder, ignore=lambda _, names: LEFT_OUT & set(names))
        for name in ("results", "reports"):
            (folder / name).mkdir()
        return folder

    return copy


@pytest.fixture(scope="session")
def run_in(environment: Callable[[Path], dict[str, str]], patience: float) -> Command:
    """``run_in(copy, *command)``: run a command there; its output, both streams together, is in ``stdout``."""

    def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=copy,
            env=environment(copy),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
        )

    return run
