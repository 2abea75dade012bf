"""Where a result comes from: the code, the packages and the machine that made it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

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
"""Optional ones: their versions are recorded where they are installed."""

ROOMS = ("classes.py", "method.py", "data", "models", "components", "engine")
"""The parts of the library that can change a run: reports and the command line are not among them.

Nor is the street world, whose images are known by their own hashes.
"""
ROOT = Path(__file__).parent


def loaded_code() -> list[str]:
    """The files of :data:`ROOMS` that this process has imported, below the library's folder: what decides its run.

    The engine counts as a whole. So a component that a method does not use makes none of its runs those of other code.
    """
    paths = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    paths |= set((ROOT / "engine").rglob("*.py"))
    inside = [path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT)]
    return sorted(path.as_posix() for path in inside if path.parts[0] in ROOMS)


@lru_cache
def code_digest(files: tuple[str, ...] | None = None) -> str:
    """SHA-256 (first 16 hex digits) of these files of the library as they are now; of all of :data:`ROOMS` by default.

    A run whose files have another digest today is marked in the reports. It is not repeated for it, since a comment
    changes the digest as well.
    """
    if files is None:
        every = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
        files = tuple(sorted(path.as_posix() for path in every if path.parts[0] in ROOMS))
    total = hashlib.sha256()
    for name in files:
        path = ROOT / name
        total.update(name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b"gone"))
    return total.hexdigest()[:16]


def git_state() -> dict[str, Any]:
    """The commit checked out here and whether tracked files differ from it; ``None`` outside a repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, timeout=10, cwd=Path(__file__).parent, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes) if changes is not None else None}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    for package in EXTRAS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def usable_cores() -> int:
    """The cores that this process may use: on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine in the words that a paper would use: processor, cores that may be used, system. No host name."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    return {"processor": processor, "cores": usable_cores(), "system": f"{platform.system()} {platform.machine()}"}
