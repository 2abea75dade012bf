"""Where a result comes from: the code, the packages and the machine that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
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

ROOMS = ("classes.py", "method.py", "data", "world", "models", "components", "engine")
"""The parts of the library that can change a run: reports and the command line are not among them."""


def code_digest() -> str:
    """SHA-256 (first 16 hex digits) of the library's source that decides a run.

    Two runs with the same digest were made by the same code. A run with another digest than today's is marked in the
    reports; it is not repeated for it, since a comment changes the digest as well.
    """
    root = Path(__file__).parent
    files = [root / room for room in ROOMS if room.endswith(".py")]
    files += [path for room in ROOMS if not room.endswith(".py") for path in (root / room).rglob("*.py")]
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
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
    return versions


def machine() -> dict[str, Any]:
    """The machine in the words that a paper would use: processor, cores that may be used, system. No host name."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor, "cores": cores, "system": f"{platform.system()} {platform.machine()}"}
