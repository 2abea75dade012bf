"""Where a result comes from: the code, the packages and the machine that produced it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from flexseg.sources import source_digest

PACKAGES = (
    "torch",
    "numpy",
    "opencv-python",
    "onedl-mmsegmentation",
    "onedl-mmcv",
    "onedl-mmengine",
    "lightning-fabric",
)
"""The packages whose versions can change a result."""
EXTRAS = ("detectron2", "transformers")
"""Optional packages: their versions are recorded where they are installed."""

ROOMS = ("classes.py", "method.py", "data", "models", "components", "engine")
"""The parts of the library that can change a run.

Reports and the command line are not among them; nor is the street world, whose images have hashes of their own.
"""
ROOT = Path(__file__).parent


def loaded_code() -> list[str]:
    """The files of :data:`ROOMS` that this process has imported, and all of the engine, relative to the library.

    These decide a run: a change of a component that its method does not use leaves the run valid.
    """
    paths = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    paths |= set((ROOT / "engine").rglob("*.py"))
    return _in_rooms(paths)


def _in_rooms(paths: Iterable[Path]) -> list[str]:
    inside = [path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT)]
    return sorted(path.as_posix() for path in inside if path.parts[0] in ROOMS)


@lru_cache
def code_digest(files: tuple[str, ...] | None = None) -> str:
    """SHA-256 (first 16 hex digits) of these files of the library as they are now; of all of :data:`ROOMS` by default.

    A run whose files have another digest today is marked in the reports, but not repeated, since most changes of the
    library leave results as they are. Comments, docstrings and layout do not count.
    """
    total = hashlib.sha256()
    for name in _in_rooms(ROOT.rglob("*.py")) if files is None else files:
        total.update(f"{name}\0{source_digest(ROOT / name)}\0".encode())
    return total.hexdigest()[:16]


def git_state() -> dict[str, Any]:
    """The commit of the library's own checkout and whether tracked files differ from it; ``None`` if it is in none."""

    def git(*arguments: str) -> str | None:
        command = ["git", *arguments]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10, cwd=ROOT).strip()
        return None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT.parent.resolve():  # installed, or inside somebody else's repository
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()} | dict.fromkeys(PACKAGES, "missing")
    for package in PACKAGES + EXTRAS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def usable_cores() -> int:
    """The cores that this process may use; on a cluster, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine as a paper would describe it: processor, usable cores, system. No host name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:(.*)", text, re.MULTILINE)
    processor = model[1].strip() if model else platform.processor() or platform.machine()
    return {"processor": processor, "cores": usable_cores(), "system": f"{platform.system()} {platform.machine()}"}


def describe_kernels(found: dict[str, Any] | None) -> str:
    """The kernels of a run in a few words; empty where it recorded none."""
    if not found:
        return ""
    return f"{'held to ' if found.get('held') else ''}{found.get('torch')}, MKL {found.get('mkl')}, {found.get('libc')}"
